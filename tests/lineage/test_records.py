"""Records: content-addressed, never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.canonical import digest_of
from cellfleet.errors import LineageError
from cellfleet.lineage import RecordStore


def test_a_record_is_named_by_its_digest_and_found_by_its_fields(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    record = {"seed": 3, "name": "細胞"}
    digest = store.put("training", record)
    assert digest == digest_of(record) == store.put("training", record)
    assert store.get("training", digest) == record
    store.put("training", {"seed": 4})
    assert store.find("training", seed=3) == [(digest, record)]
    assert len(list(store.all("training"))) == 2
    assert list(store.all("decision")) == []


def test_a_changed_record_is_refused(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    digest = store.put("training", {"ap50": 0.4})
    file = tmp_path / "training" / f"{digest}.json"
    file.write_bytes(file.read_bytes().replace(b"0.4", b"0.9"))
    with pytest.raises(LineageError, match="was changed"):
        store.get("training", digest)


def test_an_absent_record_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(LineageError) as caught:
        RecordStore(tmp_path).get("training", "0" * 64)
    assert "lineage.records" in caught.value.hint


@pytest.mark.parametrize(("kind", "digest"), [("../etc", "0" * 64), ("training", "../../x"), ("training", "A" * 64)])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, kind: str, digest: str) -> None:
    with pytest.raises(LineageError, match="not a record"):
        RecordStore(tmp_path).get(kind, digest)
