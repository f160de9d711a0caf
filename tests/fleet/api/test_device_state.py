"""The desired state for an instrument of this version and for older ones: each gets the fields that it announced."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from cellfleet.fleet.rollout import desired_state
from cellfleet.wire import parse
from cellfleet.wire.features import ANNOUNCEMENT, FEATURES, HEADER, features_of, read_announcement
from cellfleet.wire.states import DesiredState
from support_features import FEATURE, NewerDesired
from support_fleet import TestClient, World

PATH = "/api/v1/device/desired"


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's desired state has a field that older instruments do not know."""
    monkeypatch.setattr(desired_state, "DesiredState", NewerDesired)


@pytest.mark.usefixtures("newer")
def test_an_instrument_gets_the_fields_that_it_announced(world: World) -> None:
    http = world.device("XYZ-001").http
    assert http is not None
    old, new = http.get(PATH), http.get(PATH, headers={HEADER: f"other,{FEATURE}"})
    assert parse(DesiredState, old.content).device_id == parse(NewerDesired, new.content).device_id
    assert parse(NewerDesired, new.content).note == "from a newer server"
    assert old.headers["etag"] != new.headers["etag"]
    assert old.headers["vary"] == new.headers["vary"] == HEADER


@pytest.mark.usefixtures("newer")
def test_an_etag_is_that_of_what_was_sent(world: World) -> None:
    http = world.device("XYZ-001").http
    assert http is not None
    old = http.get(PATH).headers["etag"]
    updated = http.get(PATH, headers={HEADER: FEATURE, "If-None-Match": old})
    assert updated.status_code == 200, "the same instrument after its update has not seen the newer fields"
    again = http.get(PATH, headers={HEADER: f"{FEATURE},other", "If-None-Match": updated.headers["etag"]})
    assert again.status_code == 304, "a feature that changes nothing in this message changes no tag"
    assert http.get(PATH, headers={"If-None-Match": old}).status_code == 304


@pytest.mark.parametrize("path", ["/healthz", "/api/v1/nothing", "/api/v1/device/desired", "/sign-in"])
def test_every_answer_announces_what_the_server_understands(client: TestClient, path: str) -> None:
    assert read_announcement(client.get(path).headers[HEADER]) == FEATURES
    assert ANNOUNCEMENT[HEADER] == client.get(path).headers[HEADER]


def test_answers_to_instruments_with_newer_fields_are_those_that_are_filtered(app: FastAPI) -> None:
    filtered = {PATH}
    unfiltered = [
        route.path
        for route in app.routes
        if isinstance(route, APIRoute) and route.path not in filtered and _of_instruments(route)
        and isinstance(route.response_model, type) and issubclass(route.response_model, BaseModel)
        and features_of(route.response_model)
    ]  # fmt: skip
    assert unfiltered == [], "these answers need PeerFeatures, as the desired state has"


def _of_instruments(route: APIRoute) -> bool:
    """Instruments parse the answer as a message, which refuses unknown fields; people's programs read plain data."""
    return str(getattr(route.response_model, "__module__", "")).startswith("cellfleet.wire.")
