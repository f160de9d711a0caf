"""What the fleet server works with: settings, clock, database, store; passed to every service; nothing is global."""

from __future__ import annotations

import os
import platform
import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from cellfleet.config.fleet import FleetSection
from cellfleet.config.project import Project
from cellfleet.fleet.blobs import Blobs
from cellfleet.fleet.store.database import Database, insert_or_ignore
from cellfleet.fleet.store.models import ServerSecret
from cellfleet.ports import Clock, SystemClock

T = TypeVar("T")


class Context:
    """One replica of the fleet server, without its sockets.

    Attributes:
        settings: section [fleet].
        root: folder of the project; relative paths of the settings start here.
        clock: the time.
        database: engine and sessions.
        blobs: bytes by digest.
        replica: name of this process, other than that of every other replica.
        address: where people and devices reach the server, without a slash at the end; ``serve`` sets it once bound.
    """

    def __init__(self, settings: FleetSection, root: Path, clock: Clock, database: Database, blobs: Blobs) -> None:
        self.settings, self.root, self.clock, self.database, self.blobs = settings, root, clock, database, blobs
        self.replica = f"{platform.node() or 'server'}-{os.getpid()}-{secrets.token_hex(3)}"[:80]
        self.address = settings.public_url.rstrip("/") or f"http://{settings.host}:{settings.port}"
        self._services: dict[Any, Any] = {}
        self._lock = threading.RLock()

    def sessions(self) -> AbstractContextManager[Session]:
        """A session that commits at the end of the block, or rolls back when the block raises."""
        return self.database.sessions()

    def reading(self) -> AbstractContextManager[Session]:
        """A session that only reads; it waits for no writer."""
        return self.database.reading()

    def path(self, relative: str | Path) -> Path:
        """A path of the settings as an absolute path."""
        return (self.root / Path(relative).expanduser()).absolute()

    def service(self, make: Callable[[Context], T]) -> T:
        """The one object of this context that ``make`` (a class or a function) makes; made when first asked for."""
        with self._lock:
            if make not in self._services:
                self._services[make] = make(self)
            return cast(T, self._services[make])

    def secret(self, name: str) -> bytes:
        """32 random bytes, the same in all replicas and after every restart; for signing what comes back to us."""
        return self.service(_Secrets).get(name)

    def close(self) -> None:
        """Close the database's connections."""
        self.database.close()


class _Secrets:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, bytes] = {}

    def get(self, name: str) -> bytes:
        if name not in self._known:
            with self._context.sessions() as db:
                row = {"name": name, "value": secrets.token_hex(32), "created_at": self._context.clock.now()}
                insert_or_ignore(db, ServerSecret, [row])
                stored = db.scalars(select(ServerSecret.value).where(ServerSecret.name == name)).one()
            self._known[name] = bytes.fromhex(stored)
        return self._known[name]


def open_context(project: Project, clock: Clock | None = None, *, upgrade: bool = True) -> Context:
    """Open the database and the store of a project; the database is made or brought up to date.

    Args:
        project: section [fleet] of its settings counts.
        clock: the time (default: this machine's).
        upgrade: bring the schema to its newest version.

    Raises:
        ConfigError: a wrong database URL.
        StorageError: the database cannot be reached, or is newer than this program.
    """
    settings = project.settings.fleet
    database = Database(settings.database, project.root)
    context = Context(settings, project.root, clock or SystemClock(), database, Blobs(project.path(settings.store)))
    try:
        if upgrade:
            database.upgrade()
    except BaseException:
        context.close()
        raise
    return context
