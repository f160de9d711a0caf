"""People and devices of a fleet server under test; through the tables where the tests of provisioning do it by the API."""

from __future__ import annotations

import base64
import itertools
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cellfleet.canonical import canonical_bytes, sha256_hex
from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.store.models import ApiToken, Device, DeviceGroup, TrustFile, User
from cellfleet.wire.enrol import DeviceFacts, claim_statement, token_statement
from cellfleet.wire.problem import Problem
from support_waiting import wait_until

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # starlette announces another HTTP client for this; any module may import it from here
    from starlette.testclient import TestClient

__all__ = ["FACTS", "TestClient", "TestDevice", "World", "new_client", "wait_until_blocked"]

FACTS = DeviceFacts(cellfleet_version="0.2.0", platform="Linux x86_64", cpu="test", cores=4, memory_mb=8000)


def code_of(answer: Any) -> str:
    """The code of the problem that an answer is."""
    return Problem.model_validate(answer.json()).code


def new_client(client: TestClient, token: str) -> TestClient:
    """Another client of the same application that sends this token."""
    return TestClient(client.app, base_url="http://fleet.test", headers={"Authorization": f"Bearer {token}"})


@dataclass
class TestDevice:
    """An instrument's side of provisioning: a key, and what it signs."""

    __test__ = False
    name: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    device_id: str = ""
    http: TestClient | None = None

    @property
    def public_key(self) -> str:
        public = self.key.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, statement: Mapping[str, Any]) -> str:
        return base64.b64encode(self.key.sign(canonical_bytes(dict(statement)))).decode()

    def claim(self, token: str) -> dict[str, Any]:
        """Body of POST /api/v1/devices/claim."""
        proof = self.sign(claim_statement(token, self.name, self.public_key))
        facts = FACTS.model_dump(mode="json")
        return {
            "claim_token": token, "name": self.name, "public_key": self.public_key, "facts": facts, "proof": proof,
        }  # fmt: skip

    def token_request(self, at: datetime, nonce: str) -> dict[str, Any]:
        """Body of POST /api/v1/devices/token."""
        issued_at = at.isoformat().replace("+00:00", "Z")
        signature = self.sign(token_statement(self.device_id, issued_at, nonce))
        return {"device_id": self.device_id, "issued_at": issued_at, "nonce": nonce, "signature": signature}


class World:
    """Makes people, groups and accepted devices on a context."""

    def __init__(self, context: Context, client: TestClient) -> None:
        self.context, self.client = context, client
        self._numbers = itertools.count(1)

    def token(self, role: str, name: str = "") -> str:
        """An API token of a person with this role; the person is made when there is none of that name."""
        secret, digest = access.new_secret(access.API_PREFIX)
        name, now = name or role, self.context.clock.now()
        with self.context.sessions() as db:
            user = db.query(User).filter_by(name=name).one_or_none()
            if user is None:
                user = User(name=name, password_hash="", role=role, disabled=False, created_at=now)
                db.add(user)
                db.flush()
            db.add(ApiToken(user_id=user.id, name="tests", token_sha256=digest, role=role, created_at=now))
        return secret

    def as_role(self, role: str, name: str = "") -> TestClient:
        """An HTTP client of a person with this role."""
        return new_client(self.client, self.token(role, name))

    def trust(self) -> None:
        """First roots, so that claim tokens can be made. Nobody looks into them here."""
        now = self.context.clock.now()
        with self.context.sessions() as db:
            for path in ("image/1.root.json", "director/1.root.json"):
                db.merge(TrustFile(path=path, content=path.encode(), updated_at=now))

    def group(self, name: str) -> int:
        """A device group; its number."""
        with self.context.sessions() as db:
            row = db.query(DeviceGroup).filter_by(name=name).one_or_none()
            if row is None:
                row = DeviceGroup(name=name, created_at=self.context.clock.now())
                db.add(row)
                db.flush()
            return row.id

    def device(self, name: str = "", *, group: str = "", state: str = "accepted") -> TestDevice:
        """A device of the fleet, with ``http`` that sends its access token when it is accepted."""
        number = next(self._numbers)
        device = TestDevice(name or f"XYZ-{number:03}")
        key_sha256 = sha256_hex(device.public_key.encode())
        device.device_id = f"dev-{key_sha256[:12]}"
        group_id, now = self.group(group) if group else None, self.context.clock.now()
        with self.context.sessions() as db:
            row = Device(
                id=device.device_id, name=device.name, public_key=device.public_key, key_sha256=key_sha256, state=state,
                group_id=group_id, facts=FACTS.model_dump(mode="json"), created_at=now,
            )  # fmt: skip
            db.add(row)
            db.flush()
            if state == "accepted":
                device.http = new_client(self.client, access.issue_device_token(db, self.context, row)[0])
        return device


def wait_until_blocked(context: Context, other: threading.Thread) -> None:
    """Until another thread waits for a lock of the database, or has ended.

    On SQLite it waits before its first statement, and nothing tells of it: no waiting here.
    """
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def blocked() -> bool:
        with context.database.engine.connect() as connection:
            return bool(connection.exec_driver_sql(query).scalar_one())

    wait_until(lambda: context.database.is_sqlite or not other.is_alive() or blocked(), "it neither waits nor ends")
