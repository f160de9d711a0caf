"""Decisions of the agent, pure: waits, windows, leases, self-test, probation, what a bundle needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cellfleet.bundle.manifest import Requires
from cellfleet.canonical import canonical_bytes
from cellfleet.config.fleet import AgentSection
from cellfleet.device.camera.inhibit_lease import Lease, drop_lease, read_leases, valid, write_lease
from cellfleet.device.interfaces import FrameOutcome, GoldenOutcome, SegmenterFailure, SelfTested, Slot, WorkSnapshot
from cellfleet.device.update.journal import Tally, Update
from cellfleet.device.update.policy import (
    is_active_already,
    is_recovering,
    is_wanted,
    is_withdrawn,
    limits_of,
    missing,
    waits_for,
)
from cellfleet.device.update.probation import add
from cellfleet.device.update.probation import judge as judge_probation
from cellfleet.device.update.selftest import choose
from cellfleet.device.update.selftest import judge as judge_selftest
from cellfleet.wire.reason import because, english, text_reason
from cellfleet.wire.states import DesiredState, MaintenanceWindow, ReleaseRef

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
LIMITS = AgentSection(probation_frames=10)


def release(digit: str = "a") -> ReleaseRef:
    return ReleaseRef(
        release_id=3,
        name="cells",
        version="1.2.0",
        counter=3,
        target_path="models/cells/1.2.0/abc.bundle.zip",
        sha256=digit * 64,
        length=10,
    )


def desired(digit: str = "a", deployment_id: int | None = 7, generation: int = 2) -> DesiredState:
    return DesiredState(
        device_id="dev-0123456789ab", generation=generation, deployment_id=deployment_id, release=release(digit)
    )


def update(**fields: object) -> Update:
    base = Update(generation=2, deployment_id=7, release=release(), started_at=NOW, changed_at=NOW)
    return base.model_copy(update=fields)


def test_what_is_wanted() -> None:
    other = "b" * 64
    assert is_wanted(desired(), other, None, NOW)
    assert not is_wanted(None, other, None, NOW)
    assert not is_wanted(desired(), "a" * 64, None, NOW)
    assert not is_wanted(desired(), other, update(settled=True), NOW)
    assert is_wanted(desired(deployment_id=8), other, update(settled=True), NOW)
    assert not is_wanted(desired(), other, update(not_before=NOW + timedelta(seconds=5)), NOW)
    assert is_wanted(desired(), other, update(not_before=NOW - timedelta(seconds=5)), NOW)
    assert is_wanted(desired(), other, update(not_before=NOW + timedelta(days=400)), NOW), "the clock was set back"


def test_what_is_there_already() -> None:
    active = Slot(Path("a"), "a" * 64, "cells", "1.2.0", 3, deployment_id=6)
    assert is_active_already(desired(), active, None)
    assert is_active_already(desired(deployment_id=8), active, update(settled=True))
    assert not is_active_already(desired(), active, update(settled=True))
    assert not is_active_already(desired(deployment_id=6), active, update(settled=True)), "that deployment brought it"
    assert is_active_already(desired(deployment_id=6), active, None), "a journal that was lost"
    assert not is_active_already(desired(deployment_id=None), active, None)
    assert not is_active_already(desired("b"), active, None)
    assert not is_active_already(desired(), None, None)


def test_a_rollback_is_told_with_its_times() -> None:
    rolled_back = update(outcome="rolled-back", settled=True, previous_sha256="b" * 64)
    assert is_recovering(rolled_back, NOW)
    assert not is_recovering(rolled_back, NOW + timedelta(seconds=121))
    assert not is_recovering(update(outcome="rolled-back", settled=True), NOW), "there is nothing to come back"
    assert not is_recovering(rolled_back.model_copy(update={"recovery_s": 3.0}), NOW)


def test_what_is_withdrawn() -> None:
    assert not is_withdrawn(update(), desired())
    assert not is_withdrawn(update(), None)
    assert is_withdrawn(update(), desired("b"))
    assert is_withdrawn(update(), desired(deployment_id=8))
    assert not is_withdrawn(update(), desired("b", generation=1)), "an older desired state does not count"
    assert not is_withdrawn(update(folder="/stick"), desired("b")), "a person asked for it"


def test_settings_of_a_deployment() -> None:
    limits, wrong = limits_of(LIMITS, {"probation_frames": 3})
    assert (limits.probation_frames, wrong) == (3, None)
    same, wrong = limits_of(LIMITS, {"probation_frames": -3})
    assert same == LIMITS
    assert wrong is not None
    assert (wrong.code, wrong.values["name"]) == ("update.setting", "probation_frames")


def test_leases(tmp_path: Path) -> None:
    assert read_leases(tmp_path / "none") == ([], [])
    write_lease(tmp_path, "camera", Lease(holder="camera", reason="a run", expires_at=NOW + timedelta(minutes=1)))
    (tmp_path / "odd.json").write_text('{"holder": 1}')
    leases, wrong = read_leases(tmp_path)
    assert [x.holder for x in valid(leases, NOW)] == ["camera"]
    assert wrong == ["odd.json"]
    assert valid(leases, NOW + timedelta(minutes=1)) == []
    held = waits_for(leases, None, NOW)
    assert english(held) == "camera holds updates back until 2026-03-02 12:01:00 UTC: a run"
    closed = waits_for([], MaintenanceWindow(start="13:00", end="14:00"), NOW)
    assert closed is not None
    assert (closed.code, closed.values["start"]) == ("update.window-daily", "13:00")
    assert waits_for([], None, NOW) is None
    drop_lease(tmp_path, "camera")
    drop_lease(tmp_path, "camera")


def test_what_an_instrument_lacks() -> None:
    requires = Requires(bundle_format=1, engines=("onnxruntime",), channels=("phase",), pixel_size=True)
    assert missing(requires, {"onnxruntime": "1"}, ("phase",), None, camera_names_pixel_size=True) == []
    found = missing(requires, {"openvino": "1"}, ("green",), None, camera_names_pixel_size=False)
    assert [r.code for r in found] == ["update.lacks-engine", "update.lacks-channels", "update.lacks-pixel-size"]


def golden(**fields: object) -> GoldenOutcome:
    base = {"of": "x", "ap50": 0.8, "agreement": 0.99, "least_ap50": 0.7, "least_agreement": 0.9, "worst_ms": 50.0}
    return GoldenOutcome(**{**base, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "other", "codes"),
    [
        (golden(), golden(), []),
        (golden(ap50=0.69), golden(), ["selftest.ap50"]),
        (golden(ap50=float("nan")), golden(), ["selftest.ap50"]),
        (golden(agreement=0.89), golden(), ["selftest.agreement"]),
        (golden(agreement=float("nan")), golden(), ["selftest.agreement"]),
        (golden(worst_ms=float("inf")), golden(), ["selftest.time"]),
        (golden(), golden(ap50=0.5), ["selftest.ap50-loss"]),
        (golden(), golden(ap50=0.3, least_ap50=0.0), ["selftest.ap50-active"]),
        (golden(), golden(agreement=0.0), []),
        (golden(problem="unreadable"), golden(), ["selftest.frames"]),
        (golden(), None, ["selftest.active-not-run"]),
    ],
)
def test_self_test(own: GoldenOutcome, other: GoldenOutcome | None, codes: list[str]) -> None:
    tested = SelfTested("onnxruntime/fp32", "run", 100.0, (own,) if other is None else (own, other))
    reasons = judge_selftest(tested, LIMITS, active_ap50=0.8).reasons
    assert [r.code for r in reasons] == codes


def test_nonsense_is_told_once_of_each_bundle() -> None:
    nonsense = golden(ap50=0.01, least_ap50=0.0)
    reasons = judge_selftest(SelfTested("v", "run", 100.0, (nonsense, nonsense)), LIMITS, active_ap50=0.8).reasons
    assert [r.code for r in reasons] == ["selftest.ap50", "selftest.ap50-active"]
    assert [r.values["ap50"] for r in reasons] == [0.01, 0.01]


def test_numbers_can_be_written() -> None:
    wild = golden(ap50=float("nan"), agreement=float("-inf"), worst_ms=float("inf"))
    numbers = judge_selftest(SelfTested("v", "run", float("inf"), (wild, wild)), LIMITS, 0.8).numbers
    assert canonical_bytes(numbers)
    assert numbers["ap50"] is None


def test_the_fastest_that_passes_is_chosen() -> None:
    def judged(variant: str, worst_ms: float, problem: str = "") -> object:
        results = () if problem else (golden(worst_ms=worst_ms),)
        return judge_selftest(
            SelfTested(variant, "run", 10.0, results, text_reason(problem) if problem else None), LIMITS, None
        )

    found = [judged("a/fp32", 30), judged("b/int8", 10), judged("c/fp32", 1, "crashed")]
    choice = choose(found)  # type: ignore[arg-type]
    assert choice.chosen is not None
    assert choice.chosen.variant == "b/int8"
    fastest = "b/int8 is the fastest that passed: b/int8 10 ms, a/fp32 30 ms"
    assert english(choice.reason) == f"{fastest}; not used: c/fp32: crashed"
    wanted = choose(found, "a/fp32")  # type: ignore[arg-type]
    assert wanted.chosen is not None
    assert wanted.chosen.variant == "a/fp32"
    assert choose(found, "c/fp32").chosen is None  # type: ignore[arg-type]
    assert choose([]).reason == because("selftest.no-variant")


def frame(slot: str = "s", milliseconds: float = 100.0, memory_mb: float = 10.0, *, ok: bool = True) -> FrameOutcome:
    result, reason = ("segmented", None) if ok else ("failed", text_reason("it broke"))
    return FrameOutcome("e", "f", slot, result, milliseconds, memory_mb, True, NOW, reason)  # type: ignore[arg-type]


def test_a_tally_counts_its_own_slot_only() -> None:
    seen = WorkSnapshot(
        frames=(frame(), frame("other"), frame(ok=False), frame("")),
        failures=(
            SegmenterFailure("s", "hang", text_reason("no answer"), NOW),
            SegmenterFailure("other", "crash", text_reason("x"), NOW),
        ),
        memory_mb={"s": 55.0, "other": 900.0},
    )
    tally = add(Tally(), seen, "s")
    assert (tally.segmented, tally.failed, tally.crashes, tally.hangs) == (1, 1, 0, 1)
    assert (tally.memory_mb, tally.last_trouble) == (55.0, text_reason("no answer"))


@pytest.mark.parametrize(
    ("frames", "base_ms", "event"),
    [
        ([100.0] * 9, 90.0, None),
        ([100.0] * 10, 90.0, "good"),
        ([100.0] * 4 + [900.0], 90.0, None),
        ([900.0] * 5, 90.0, "bad"),
        ([900.0] * 4, 90.0, None),
        ([900.0] * 10, None, "good"),
        ([20_000.0] * 5, None, "bad"),
    ],
)
def test_probation(frames: list[float], base_ms: float | None, event: str | None) -> None:
    tally = Tally(base_ms=base_ms)
    for ms in frames:
        tally = add(tally, WorkSnapshot(frames=(frame(milliseconds=ms),)), "s")
    assert judge_probation(tally, LIMITS, NOW, NOW).event == event


@pytest.mark.parametrize(
    ("frames", "memory_mb", "event"), [(0, 4097, None), (4, 8192, None), (5, 4097, "bad"), (0, 8193, "bad")]
)
def test_memory_is_judged_with_some_frames_or_at_once_when_it_is_far_too_much(
    frames: int, memory_mb: float, event: str | None
) -> None:
    tally = add(Tally(), WorkSnapshot(frames=(frame(),) * frames, memory_mb={"s": memory_mb}), "s")
    assert LIMITS.probation_max_memory_mb == 4096
    assert judge_probation(tally, LIMITS, NOW, NOW).event == event


def test_probation_has_patience_for_some_time() -> None:
    verdict = judge_probation(Tally(), LIMITS, NOW, NOW + timedelta(seconds=LIMITS.probation_s))
    assert (verdict.event, verdict.reason.code) == ("good", "probation.time-over")
    bad = judge_probation(Tally(crashes=1, hangs=1), LIMITS, NOW, NOW + timedelta(days=9))
    assert bad.event == "bad"
