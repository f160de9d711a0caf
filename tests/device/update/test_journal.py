"""The journal keeps its pages over restarts, and reads those of earlier versions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cellfleet.device.system.home import Home
from cellfleet.device.system.versioned_file import VersionedFile
from cellfleet.device.update.journal import Entry, Journal, Tally, Update
from cellfleet.wire.states import ReleaseRef

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
RELEASE = ReleaseRef(
    release_id=3,
    name="cells",
    version="1.2.0",
    counter=3,
    target_path="models/cells/1.2.0/abc.bundle.zip",
    sha256="a" * 64,
    length=10,
)


def page() -> Entry:
    tally = Tally(segmented=3, failed=1, times_ms=(5.0,))
    update = Update(generation=1, deployment_id=7, release=RELEASE, started_at=NOW, changed_at=NOW, tally=tally)
    return Entry(state="probation", entered_at=NOW, source="activating", trigger="activated", update=update)


def test_a_page_survives_a_restart(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    Journal(home).write(page())
    assert Journal(home).entry == page().model_copy(update={"number": 1})


def test_the_tally_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Before, the segmented frames of a probation were stored as `drawn`."""
    home = Home.at(tmp_path)
    stored = page().model_dump(mode="json", exclude={"number"})
    stored["update"]["tally"]["drawn"] = stored["update"]["tally"].pop("segmented")
    VersionedFile(home.state, "journal").write(stored)
    found = Journal(home).entry.update
    assert found is not None
    assert found.tally == Tally(segmented=3, failed=1, times_ms=(5.0,))


def test_a_page_of_another_version_starts_anew(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    VersionedFile(home.state, "journal").write({"state": "dreaming"})
    journal = Journal(home)
    assert (journal.entry.state, journal.entry.number) == ("idle", 1)
    journal.write(Entry(state="checking"))
    assert (Journal(home).entry.state, Journal(home).entry.number) == ("checking", 2)
