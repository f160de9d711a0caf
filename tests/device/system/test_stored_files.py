"""Every small file of an instrument has a format version, is read without one as older programs wrote it, and not misread."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cellfleet.device.camera.inhibit_lease import Lease, read_leases, write_lease
from cellfleet.device.interfaces import Slot
from cellfleet.device.slots import Slots
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import (
    DeviceRecord,
    load_anchors,
    load_identity,
    load_or_make_key,
    save_anchors,
    save_record,
)
from cellfleet.device.system.versioned_file import VersionedFile
from cellfleet.device.update.install_requests import InstallRequest, next_request, put_request
from cellfleet.device.update.status_file import read_status, write_status
from cellfleet.errors import StorageError
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ArtifactRef

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SHA256 = "ab" * 32
ARTIFACT = ArtifactRef(
    name="cells", version="1.0.0", counter=1, target_path=f"models/cells/1.0.0/{SHA256[:12]}.bundle.zip", sha256=SHA256,
    length=3,
)  # fmt: skip
RECORD = DeviceRecord(device_id="dev-0123456789ab", name="XYZ-001", claimed_at=NOW)
ANCHORS = TrustAnchors(image_root=SHA256, director_root=SHA256)
LEASE = Lease(holder="reader", reason="busy", expires_at=NOW)
REQUEST = InstallRequest(name="install-1", folder="/media", release=ARTIFACT, asked_at=NOW)


@dataclass(frozen=True)
class Stored:
    """One file: where it lies, how it is written, and what its reader makes of it."""

    path: str
    write: Callable[[Home], Any]
    read: Callable[[Home], Any]


def write_record(home: Home) -> None:
    load_or_make_key(home)
    save_record(home, RECORD)


def write_slot(home: Home) -> None:
    folder = home.slots / SHA256[:12]
    folder.mkdir(parents=True)
    slot = Slot(folder=folder, sha256=SHA256, name="cells", version="1.0.0", counter=1)
    slot.bundle.write_bytes(b"abc")
    Slots(home).note(slot)


def read_slot(home: Home) -> Any:
    found = Slots(home).find(SHA256)
    return None if found is None else replace(found, folder=Path())


FILES = [
    Stored("identity/device.json", write_record, lambda home: getattr(load_identity(home), "record", None)),
    Stored("identity/anchors.json", lambda home: save_anchors(home, ANCHORS), load_anchors),
    Stored("state/journal-1.json", lambda home: VersionedFile(home.state, "journal").write({"a": 1}),
           lambda home: VersionedFile(home.state, "journal").read().content),
    Stored(f"slots/{SHA256[:12]}/slot.json", write_slot, read_slot),
    Stored("inhibit/reader.json", lambda home: write_lease(home.inhibit, "reader", LEASE),
           lambda home: read_leases(home.inhibit)),
    Stored("state/requests/install-1.json", lambda home: put_request(home, REQUEST), next_request),
    Stored("state/status.json", lambda home: write_status(home, {"at": NOW.isoformat(), "state": "idle"}),
           lambda home: read_status(home, NOW).facts.get("state")),
]  # fmt: skip
"""Files of frames, pins and the spool are tested beside their rooms."""


@pytest.mark.parametrize("stored", FILES, ids=lambda s: s.path)
def test_a_file_has_a_format_version_and_is_read_without_one(tmp_path: Path, stored: Stored) -> None:
    home = Home.at(tmp_path)
    stored.write(home)
    path, today = tmp_path / stored.path, stored.read(home)
    facts = json.loads(path.read_bytes())
    assert today
    assert facts.pop("format_version") == 1
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert stored.read(home) == today


def test_a_page_of_a_newer_program_is_not_passed_over_for_an_older_one(tmp_path: Path) -> None:
    pages = VersionedFile(tmp_path, "journal")
    pages.write("old")
    path = tmp_path / f"journal-{pages.write('new')}.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format_version": 2}), encoding="utf-8")
    with pytest.raises(StorageError, match="newer cellfleet"):
        VersionedFile(tmp_path, "journal").read()
