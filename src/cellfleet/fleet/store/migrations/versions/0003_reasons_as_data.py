"""Reasons as data, beside their English texts; NULL in rows of an earlier version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, column in (
        ("deployment_members", "reason_data"),
        ("deployments", "halted_data"),
        ("devices", "alarms_data"),
    ):
        with op.batch_alter_table(table) as batch_op:
            batch_op.add_column(sa.Column(column, sa.JSON(none_as_null=True), nullable=True))
