"""A fleet server without sockets, on both databases. ``CELLFLEET_TEST_DATABASES=sqlite`` runs one, while developing."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from sqlalchemy import create_engine, text

from cellfleet.config.fleet import FleetSection
from cellfleet.config.project import Project, Settings
from cellfleet.fleet.app import create_app
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.people import access
from cellfleet.fleet.store import database
from cellfleet.fleet.store.database import Database
from cellfleet.ports import FixedClock
from cellfleet.trust import TrustFolder
from support_fleet import TestClient, World
from support_fleet_lineage import Story, new_story
from support_postgres import server_url
from support_rollout import PASSPHRASE, Publisher, secrets

DATABASES = os.environ.get("CELLFLEET_TEST_DATABASES", "sqlite,postgresql").split(",")
START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="session", autouse=True)
def synchronous() -> Iterator[str]:
    """As fsync=off of the tests' PostgreSQL: no test here cuts the power. Gives the setting that is shipped."""
    shipped = database.SYNCHRONOUS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "SYNCHRONOUS", "OFF")
        yield shipped


@pytest.fixture(scope="session", autouse=True)
def password_hasher() -> Iterator[PasswordHasher]:
    """Passwords of the tests are cheap to hash. Gives the hasher that is shipped."""
    shipped = access.HASHER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        yield shipped


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with all tables, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    made = Database("sqlite:///fleet.db", folder)
    made.upgrade()
    with made.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    made.close()
    return folder / "fleet.db"


@pytest.fixture(scope="session")
def empty_postgresql() -> Iterator[str]:
    """URL of a PostgreSQL database with all tables, to be copied."""
    with postgresql_database("template1") as url:
        made = Database(url, Path())
        made.upgrade()
        made.close()
        yield url


class postgresql_database:  # noqa: N801
    """A database of its own on the tests' server, removed at the end."""

    def __init__(self, template: str) -> None:
        self._template, self._name = template, f"t_{uuid.uuid4().hex}"
        self._server = create_engine(server_url(), isolation_level="AUTOCOMMIT")

    def __enter__(self) -> str:
        self._run(f"CREATE DATABASE {self._name} TEMPLATE {self._template}")
        return self._server.url.set(database=self._name).render_as_string(hide_password=False)

    def __exit__(self, *_error: object) -> None:
        self._run(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")
        self._server.dispose()

    def _run(self, statement: str) -> None:
        with self._server.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database of this test's own, with all tables and no rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_sqlite"), tmp_path / "fleet.db")
        yield "sqlite:///fleet.db"
        return
    template = request.getfixturevalue("empty_postgresql").rsplit("/", 1)[-1]
    with postgresql_database(template) as url:
        yield url


@pytest.fixture
def clock() -> FixedClock:
    """A clock that moves when told: ``clock.at += timedelta(...)``."""
    return FixedClock(START)


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    """Section [fleet] of the tests; a test module may override this fixture."""
    return FleetSection(database=database_url, public_url="http://fleet.test")


@pytest.fixture
def reopen(tmp_path: Path, fleet_settings: FleetSection, clock: FixedClock) -> Iterator[Callable[[], Context]]:
    """Another context on the same database and folder, as after a restart or in another replica."""
    opened: list[Context] = []
    project = Project(root=tmp_path, settings=Settings(fleet=fleet_settings), found=True)

    def again() -> Context:
        opened.append(open_context(project, clock, upgrade=False))
        return opened[-1]

    yield again
    for context in opened:
        context.close()


@pytest.fixture
def context(reopen: Callable[[], Context]) -> Context:
    """A fleet server's context; its database has all tables and no rows."""
    return reopen()


@pytest.fixture
def app(context: Context) -> FastAPI:
    """The application."""
    return create_app(context)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Nobody's HTTP client; see ``world`` for people and devices."""
    with TestClient(app, base_url="http://fleet.test") as http:
        yield http


@pytest.fixture
def world(context: Context, client: TestClient) -> World:
    """People, devices and groups, made when asked for."""
    return World(context, client)


@pytest.fixture
def as_role(world: World) -> Callable[[str], TestClient]:
    """``as_role("operator")``: an HTTP client with an API token of that role."""
    return world.as_role


@pytest.fixture
def later(clock: FixedClock) -> Callable[[float], None]:
    """``later(60)``: a minute passes."""

    def pass_by(seconds: float) -> None:
        clock.at += timedelta(seconds=seconds)

    return pass_by


@pytest.fixture(scope="session")
def trust_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trust folder, to be copied."""
    folder = tmp_path_factory.mktemp("trust") / "trust"
    TrustFolder.init(folder, secrets, START)
    return folder


@pytest.fixture
def publisher(context: Context, trust_template: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Publishes releases; the server has taken its trust folder."""
    monkeypatch.setenv("CELLFLEET_ONLINE_PASSPHRASE", PASSPHRASE)
    return Publisher.at(context, trust_template)


@pytest.fixture
def story(context: Context, publisher: Publisher, as_role: Callable[[str], TestClient], world: World) -> Story:
    """A release and a device that segments with it."""
    return new_story(context, publisher, as_role, world)
