"""The decision record: bound to bundle, data and policy; any change is refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cellfleet.bundle import Bundle, ModelFolder
from cellfleet.canonical import canonical_bytes
from cellfleet.config.model import GateSection
from cellfleet.data import DataSetVersion
from cellfleet.errors import EvaluateError, LineageError
from cellfleet.evaluate import Champion, decision_payload, policy_digest, verify_decision
from cellfleet.evaluate.assess import assess
from cellfleet.evaluate.champion import open_champion
from cellfleet.evaluate.write import Written
from cellfleet.lineage import RecordStore, SigningKey, sign, trace
from cellfleet.lineage.signing import unverified_payload
from cellfleet.runtime.loader import model_digest

FIELDS = [
    "approver", "bundle", "cellfleet_version", "champion", "checks", "data_set", "decided", "engine", "format_version", "kind",
    "lineage", "model", "numbers", "policy", "reasons", "run_digest", "split", "strata", "thresholds",
    "used_in_training", "variant", "variants", "verdict", "version",
]  # fmt: skip


@pytest.fixture
def envelope(written: Written) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((written.folder / "decision.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture
def trusted(disc_root: Path, written: Written) -> list[bytes]:
    assert written.decision
    return [SigningKey.load(disc_root / "keys" / "decision.pem").public_pem]


def test_it_says_what_was_decided_about_what(
    envelope: dict[str, Any], trusted: list[bytes], written: Written, data: DataSetVersion, bundle: Bundle
) -> None:
    policy = policy_digest(GateSection())
    payload = verify_decision(envelope, trusted, bundle=bundle.sha256, data_set=data.digest, policy=policy)
    assert sorted(payload) == FIELDS
    assert (payload["verdict"], payload["reasons"], payload["approver"]) == ("passed", [], "Ada")
    assert payload["numbers"]["ap50"] == written.assessment.evaluation.summary.overall.ap50
    assert payload["thresholds"]["min_ap50"] == 0.5
    assert payload["used_in_training"] == []
    assert payload["variants"]["onnxruntime/fp32"]["sha256"] == bundle.variants[0].sha256


def test_it_lies_in_the_records_and_in_the_chain(
    written: Written, disc_root: Path, envelope: dict[str, Any], trusted: list[bytes], bundle: Bundle
) -> None:
    store = RecordStore(disc_root / "records")
    assert written.decision is not None
    assert store.get("decision", written.decision) == envelope
    chain = trace(mask=None, bundle=None, bundle_sha256=bundle.sha256, variant="", store=store, trusted=trusted)
    decision = next(link for link in chain.links if link.what == "decision")
    assert (decision.problem, decision.facts["verdict"], decision.facts["approver"]) == ("", "passed", "Ada")


@pytest.mark.parametrize("field", FIELDS)
def test_a_change_of_any_field_is_refused(field: str, envelope: dict[str, Any], trusted: list[bytes]) -> None:
    payload = json.loads(base64.b64decode(envelope["payload"]))
    for changed in ({**payload, field: "else"}, {k: v for k, v in payload.items() if k != field}):
        forged = {**envelope, "payload": base64.b64encode(canonical_bytes(changed)).decode()}
        with pytest.raises(LineageError, match="signature is not good"):
            verify_decision(forged, trusted)


def test_one_signed_by_a_stranger_is_refused(envelope: dict[str, Any], trusted: list[bytes], tmp_path: Path) -> None:
    payload = verify_decision(envelope, trusted)
    stranger = SigningKey.load_or_create(tmp_path / "stranger.pem")
    with pytest.raises(LineageError, match="signature is not good"):
        verify_decision(sign(payload, stranger), trusted)


@pytest.mark.parametrize("what", ["bundle", "data_set", "policy"])
def test_one_about_something_else_is_refused(what: str, envelope: dict[str, Any], trusted: list[bytes]) -> None:
    with pytest.raises(LineageError, match=f"about another {what.split('_')[0]}"):
        verify_decision(envelope, trusted, **{what: "0" * 64})


def test_another_kind_of_signed_record_is_refused(tmp_path: Path) -> None:
    key = SigningKey.load_or_create(tmp_path / "key.pem")
    with pytest.raises(LineageError, match="no decision record"):
        verify_decision(sign({"kind": "run", "format_version": 1}, key), [key.public_pem])


def test_there_is_none_about_a_model_folder(disc_root: Path, data: DataSetVersion, bundle: Bundle) -> None:
    assert bundle.sha256
    found = assess(ModelFolder.load(disc_root / "model"), data, GateSection())
    with pytest.raises(EvaluateError, match="a model folder was measured"):
        decision_payload(found)


def test_it_is_the_same_every_time(written: Written, data: DataSetVersion, bundle: Bundle, disc_root: Path) -> None:
    again = assess(bundle, data, GateSection(), records=RecordStore(disc_root / "records"))
    assert canonical_bytes(decision_payload(again)) == canonical_bytes(decision_payload(written.assessment))


def test_it_says_when(written: Written) -> None:
    record = json.loads((written.folder / "decision.json").read_text(encoding="utf-8"))
    decided = datetime.fromisoformat(unverified_payload(record)["decided"])
    assert abs((datetime.now(UTC) - decided).total_seconds()) < 3600
    later = decision_payload(written.assessment, "a name", decided)
    assert later["decided"] == decided.isoformat(timespec="seconds")


def test_a_champion_is_read_from_what_evaluate_wrote(
    written: Written, data: DataSetVersion, bundle: Bundle, trusted: list[bytes]
) -> None:
    overall = written.assessment.evaluation.summary.overall
    for name in ("decision.json", "metrics.json"):
        champion = open_champion(written.folder / name, trusted, data_set=data.digest, split="test")
        assert isinstance(champion, Champion)
        assert champion.evidence == name.replace("decision.json", "decision record")
        assert (champion.name, champion.version, champion.model) == ("tiny", "1.0.0", bundle.sha256)
        assert champion.numbers["ap50"] == overall.ap50
        assert set(champion.strata) == {"A", "B"}
    source = open_champion(bundle.path, [], data_set=data.digest, split="test")
    assert isinstance(source, Bundle)
    assert model_digest(source) == bundle.sha256


def test_a_champion_of_other_data_or_doubtful_origin_is_refused(
    written: Written, data: DataSetVersion, trusted: list[bytes], tmp_path: Path
) -> None:
    metrics = written.folder / "metrics.json"
    with pytest.raises(EvaluateError, match="was measured on the split test"):
        open_champion(metrics, trusted, data_set=data.digest, split="validation")
    with pytest.raises(EvaluateError, match="was measured on the split test"):
        open_champion(metrics, trusted, data_set="0" * 64, split="test")
    with pytest.raises(LineageError, match="no public key"):
        open_champion(written.folder / "decision.json", [], data_set=data.digest, split="test")
    for content, message in (
        (b"{", "not valid JSON"),
        (b"[]", "is not what"),
        (json.dumps({"data_set": data.digest, "split": "test"}).encode(), "holds no numbers"),
    ):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(EvaluateError, match=message):
            open_champion(tmp_path / "x.json", trusted, data_set=data.digest, split="test")
    with pytest.raises(EvaluateError, match="cannot read"):
        open_champion(tmp_path / "none.json", trusted, data_set=data.digest, split="test")
