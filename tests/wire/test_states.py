"""Artifacts and releases: one description, compared by what is installed, with or without the server's number."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cellfleet.device.update.install_requests import InstallRequest
from cellfleet.device.update.journal import Update
from cellfleet.errors import WireError
from cellfleet.wire import parse, parse_data
from cellfleet.wire.rollout import ReleaseRequest
from cellfleet.wire.states import ArtifactRef, ReleaseRef

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "kind": "model",
    "name": "cells",
    "version": "1.2.3",
    "counter": 4,
    "target_path": "models/cells/1.2.3/0123456789ab.bundle.zip",
    "sha256": "a" * 64,
    "length": 10,
}
RELEASE, ARTIFACT = ReleaseRef(release_id=7, **FIELDS), ArtifactRef(**FIELDS)


def test_the_form_on_the_wire_is_that_of_before() -> None:
    assert RELEASE.to_data() == {**FIELDS, "release_id": 7}
    assert parse_data(ReleaseRef, {**FIELDS, "release_id": 7}) == RELEASE
    with pytest.raises(WireError, match="release_id"):
        parse_data(ReleaseRef, FIELDS)


def test_an_artifact_is_compared_without_the_number_of_the_release() -> None:
    assert RELEASE.artifact == ARTIFACT == ARTIFACT.artifact
    for name, value in [("counter", 5), ("sha256", "b" * 64), ("length", 11), ("kind", "software")]:
        assert RELEASE.model_copy(update={name: value}).artifact != ARTIFACT, name


@pytest.mark.parametrize(
    ("release", "folder", "number"),
    [(RELEASE, "", 7), (ARTIFACT, "/media/stick", None), (RELEASE, "/media/stick", None)],
)
def test_an_update_keeps_its_release_in_the_journal(release: ArtifactRef, folder: str, number: int | None) -> None:
    """The last case is a journal of a program that made up a number for what came from a folder."""
    update = Update(
        generation=1, deployment_id=None, release=release, folder=folder, started_at=NOW, changed_at=NOW
    )  # fmt: skip
    again = parse(Update, update.to_json())
    assert again == update
    assert type(again.release) is type(release)
    assert again.release_id == number


@pytest.mark.parametrize("release", [RELEASE, ARTIFACT])
def test_requests_of_today_and_of_older_programs_are_read(release: ArtifactRef) -> None:
    request = InstallRequest(name="install-1", folder="/media/stick", release=release, asked_at=NOW)
    assert parse(InstallRequest, request.to_json()).release.artifact == ARTIFACT
    published = ReleaseRequest(release=release, metadata={"1.models.json": "{}"})
    assert parse(ReleaseRequest, published.to_json()).release.artifact == ARTIFACT
