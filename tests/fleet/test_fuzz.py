"""The whole API fuzzed from its own description: no request makes the server fail, and every answer is as described."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi.checks import UndefinedContentType, UndefinedStatusCode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cellfleet.config.fleet import FleetSection
from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from support_fleet import TestClient, World
from support_rollout import Publisher, instruments, start, tick

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
FAILURES = (AssertionError, UndefinedContentType, UndefinedStatusCode)
EXAMPLES = {("sqlite", "admin"): 10, ("postgresql", "admin"): 5, ("sqlite", "device"): 6, ("sqlite", "nobody"): 3}
"""Requests of every operation, by database and by who sends them."""


@schemathesis.serializer("application/x-protobuf")
def protobuf(_context: schemathesis.SerializationContext, value: Any) -> Any:
    """Whatever bytes or text the fuzzer comes up with, as they are."""
    data = getattr(value, "data", value)
    return data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")


@pytest.fixture
def fleet_settings(database_url: str) -> FleetSection:
    return FleetSection(
        database=database_url,
        public_url="http://fleet.test",
        max_requests_per_min=1_000_000,
        max_logins_per_min=1_000_000,
        device_token_s=86400,
    )


@pytest.fixture
def known(world: World, publisher: Publisher) -> dict[str, list[Any]]:
    """Things that are there, by the names of path parameters, so that the fuzzer gets beyond 404."""
    admin = world.as_role("admin")
    members = instruments(world, "pilot", 2)
    release = publisher.publish(admin, "1.0.0")
    publisher.publish(admin, "1.1.0")
    deployment = start(admin, release, "pilot", [{"percent": 100}])
    tick(world.context)
    claim = admin.post("/api/v1/claims", json={}).json()
    upload = admin.post("/api/v1/artifacts", json={"sha256": "ab" * 32, "length": 10}).json()
    devices = [members[0].device.device_id, members[1].device.name]
    return {
        "ref": devices,
        "device": devices,
        "device_id": devices[:1],
        "name": ["pilot", "admin"],
        "number": [1, claim["id"]],
        "deployment_id": [deployment],
        "release_id": [release],
        "sha256": list(publisher.bytes_of),
        "upload_id": [upload.get("id", "x")],
        "file": ["1.root.json", "timestamp.json"],
    }


@pytest.fixture
def schema(app: FastAPI) -> Any:
    return schemathesis.openapi.from_dict(app.openapi())


def sender(world: World, who: str) -> Callable[[], TestClient]:
    """A client of who is to send the requests; made anew for each operation, since the fuzzer may have revoked it."""
    if who == "nobody":
        return lambda: world.client
    if who == "device":
        return lambda: world.device(group="fuzz").http  # type: ignore[return-value]
    return lambda: world.as_role("admin", f"fuzz-{next(COUNT)}")


COUNT: Iterator[int] = iter(range(10**9))


def strategy(operation: Any) -> st.SearchStrategy[Any]:
    """Requests as described, and requests that are not."""
    return st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))


def send(http: TestClient, case: Any) -> list[str]:
    """Send one request; what is wrong with the answer."""
    arguments = case.as_transport_kwargs(base_url="http://fleet.test")
    arguments.pop("cookies", None)
    if "authorization" in http.headers:  # else the fuzzer makes up a token of its own, and gets 401 for most requests
        arguments["headers"] = {k: v for k, v in arguments["headers"].items() if k.lower() != "authorization"}
    method, url = arguments.pop("method"), arguments.pop("url")
    response = http.request(method, url, **{k: v for k, v in arguments.items() if v is not None})
    try:
        case.validate_response(response, checks=CHECKS)
    except BaseExceptionGroup as group:
        return [f"{case.method} {case.operation.path}: {e}" for e in group.exceptions]
    except FAILURES as e:
        return [f"{case.method} {case.operation.path}: {e}"]
    return []


def fuzz(operation: Any, http: TestClient, known: dict[str, list[Any]], examples: int) -> list[str]:
    """Requests of one operation; what is wrong with the answers."""
    wrong: list[str] = []

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy(operation), use=st.integers(0, 3))
    def run(case: Any, use: int) -> None:
        for name in case.path_parameters or {}:
            if use and name in known:
                case.path_parameters[name] = known[name][use % len(known[name])]
        wrong.extend(send(http, case))

    run()
    return wrong


@pytest.mark.parametrize(
    ("database_url", "who", "examples"), [(*key, n) for key, n in EXAMPLES.items()], indirect=["database_url"]
)
def test_no_request_makes_the_server_fail(
    schema: Any, world: World, known: dict[str, list[Any]], context: Context, who: str, examples: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fuzzer's own libraries
        client, operations = sender(world, who), [found.ok() for found in schema.get_all_operations()]
        wrong = [text for o in operations for text in fuzz(o, client(), known, examples)]
    assert len(operations) > 50
    assert not wrong, "\n".join(wrong[:20])
    with context.reading() as db:
        assert audit.verify(db).broken_at is None
