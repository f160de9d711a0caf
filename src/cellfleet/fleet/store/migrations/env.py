"""Alembic's entry: runs migrations on the connection it is given (``store/database.py`` gives one)."""

from __future__ import annotations

from alembic import context

from cellfleet.fleet.store.models import Base

connection = context.config.attributes["connection"]
first = context.config.attributes.get("first", False)
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    compare_type=True,
    render_as_batch=not first,  # SQLite changes a table by making it anew
    user_module_prefix="models.",
)
with context.begin_transaction():
    context.run_migrations()
