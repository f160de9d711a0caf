"""The database: SQLite by default, PostgreSQL by URL; sessions that commit or roll back; the schema at its newest.

On SQLite a writing session begins with ``BEGIN IMMEDIATE``, so that it waits for other writers at its first statement
instead of failing in the middle; readers never wait (WAL). A session takes its connection at its first statement.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, literal, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.session import SessionTransaction

from cellfleet.errors import ConfigError, StorageError
from cellfleet.fleet.store.models import Base
from cellfleet.ports import make_dir

BUSY_TIMEOUT_S = 30.0
SYNCHRONOUS = "FULL"
"""Of SQLite: a commit waits for the disk. An instrument forgets what the server has confirmed."""
_READING = "cellfleet_reading"
_AT_COMMIT = "cellfleet_at_commit"
_UPGRADE_LOCK = 0x63656C6C
"""Of PostgreSQL's advisory locks: one replica migrates at a time."""


class Database:
    """An engine and its sessions.

    Args:
        url: SQLAlchemy URL.
        root: folder that a relative SQLite file starts from.

    Raises:
        ConfigError: not such a URL.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.url = _parse(url, root)
        self.engine = _engine(self.url)
        self.writing = sessionmaker(self.engine, expire_on_commit=False)
        self._reading = sessionmaker(self.engine.execution_options(**{_READING: True}), expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextlib.contextmanager
    def sessions(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back when the block raises."""
        with self.writing() as db:
            yield db
            db.commit()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one moment and changes nothing; it waits for no writer."""
        with self._reading() as db:
            yield db  # closing ends the transaction; a rollback would also expire what was read

    def upgrade(self) -> None:
        """Bring the schema to its newest version; nothing happens when it is. One replica does it at a time.

        Raises:
            StorageError: the database cannot be reached, or is newer than this program.
        """
        from alembic import command
        from alembic.util.exc import CommandError

        try:
            if self.file is not None:
                with contextlib.suppress(OSError):  # SQLite reports it below
                    self.file.touch(mode=0o600)  # it holds secrets; SQLite gives the files beside it the same rights
            with self.engine.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
                command.upgrade(alembic_config(connection), "head")
        except CommandError as e:
            raise StorageError(
                f"{self.shown}: {e}", hint="the database is newer than this program; install the newer cellfleet"
            ) from e
        except DBAPIError as e:
            raise self.unreachable(e) from e

    def check_there(self) -> None:
        """Check that the database of a fleet server exists, for read-only use. Creates nothing.

        Raises:
            StorageError: it is not, or cannot be reached.
        """
        try:
            if (self.file is None or self.file.is_file()) and inspect(self.engine).has_table("alembic_version"):
                return
        except DBAPIError as e:
            raise self.unreachable(e) from e
        raise StorageError(
            f"{self.shown} is not a database of a fleet server",
            hint="name the project that the server runs in, with -p",
        )

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def unreachable(self, cause: SQLAlchemyError) -> StorageError:
        """The database's own error, in words."""
        reason = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        return StorageError(f"{self.shown}: {reason}", hint="is the database running, and may this user write there?")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def alembic_config(connection: Connection) -> Any:
    """Alembic's configuration: the migrations of this package, on an open connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def insert_or_ignore(db: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, leaving out those whose unique keys are there already; safe under concurrent writers.

    Args:
        rows: attribute name -> value, the same names in every row.

    Returns:
        How many were new.
    """
    if not rows:
        return 0
    make = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    columns = {a.key: a.columns[0] for a in table.__mapper__.column_attrs}
    values = [_with_defaults(columns, row) for row in rows]
    added = 0
    per_statement = max(1, 900 // max(1, len(values[0])))  # SQLite takes a limited number of parameters
    for at in range(0, len(values), per_statement):
        statement = make(cast(Table, table.__table__)).values(values[at : at + per_statement]).on_conflict_do_nothing()
        added += len(db.execute(statement.returning(literal(1))).all())
    return added


def _with_defaults(columns: Mapping[str, Any], row: Mapping[str, Any]) -> dict[Any, Any]:
    out = {columns[name]: value for name, value in row.items()}
    for column in columns.values():
        if column not in out and column.default is not None:
            default = column.default
            out[column] = default.arg(None) if default.is_callable else default.arg
    return out


def at_commit(db: Session, action: Callable[[Session], None]) -> None:
    """Run ``action`` as the last thing before this session commits, in the order of these calls; not after a rollback."""
    if not db.in_transaction():
        db.begin()  # so that a rollback is noticed even when no statement came before it
    db.info.setdefault(_AT_COMMIT, []).append(action)


@event.listens_for(Session, "before_commit")
def _run_at_commit(db: Session) -> None:
    if not db.in_nested_transaction():
        db.flush()
        for action in db.info.pop(_AT_COMMIT, ()):
            action(db)


@event.listens_for(Session, "after_transaction_end")
def _forget(db: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        db.info.pop(_AT_COMMIT, None)


def _parse(url: str, root: Path) -> URL:
    hint = "as in sqlite:///fleet.db or postgresql://user:password@host/name"
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as e:
        raise ConfigError(f"fleet.database: {url!r} is not a database URL", hint=hint) from e
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(f"fleet.database: {backend} is not supported", hint=hint)
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError("fleet.database: SQLite needs a file", hint=hint)
    return parsed.set(drivername="sqlite+pysqlite", database=str((root / parsed.database).absolute()))


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url, pool_size=16, max_overflow=32, pool_pre_ping=True, connect_args={"connect_timeout": 10}
        )
    assert url.database
    make_dir(Path(url.database).parent)
    engine = create_engine(
        url,
        pool_size=16,
        max_overflow=32,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: sqlite3.Connection, _record: object) -> None:
        for pragma in ("journal_mode=WAL", f"synchronous={SYNCHRONOUS}", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READING, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine
