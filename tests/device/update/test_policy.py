"""Decisions of the agent, pure: what is wanted, waits, settings, leases, what a bundle needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cellfleet.bundle.manifest import Requires
from cellfleet.config.fleet import AgentSection
from cellfleet.device.camera.inhibit_lease import Lease, drop_lease, read_leases, valid, write_lease
from cellfleet.device.interfaces import Slot
from cellfleet.device.update.journal import Update
from cellfleet.device.update.maintenance_window import when_open
from cellfleet.device.update.policy import (
    is_active_already,
    is_recovering,
    is_wanted,
    is_withdrawn,
    limits_of,
    may_retry,
    missing,
    same_update,
    waits_for,
)
from cellfleet.wire.reason import Reason, because, english, text_reason
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


SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("not_before", "so"),
    [
        (None, True),
        (NOW - SECOND, True),
        (NOW, True),
        (NOW + SECOND, False),
        (NOW + DAY, False),
        (NOW + DAY + SECOND, True),
    ],
)
def test_a_backoff_ends_with_its_time_or_with_a_clock_that_was_set_back(not_before: datetime | None, so: bool) -> None:
    assert may_retry(update(not_before=not_before), NOW) is so
    assert is_wanted(desired(), "b" * 64, update(not_before=not_before), NOW) is so


def test_a_backoff_holds_for_its_own_update_only() -> None:
    waiting = update(not_before=NOW + SECOND)
    assert is_wanted(desired(deployment_id=8), "c" * 64, waiting, NOW)
    assert is_wanted(desired("b"), "c" * 64, waiting, NOW)
    assert not is_wanted(desired(), "c" * 64, update(settled=True, not_before=NOW - SECOND), NOW)


def test_a_desired_state_without_a_release_asks_for_nothing() -> None:
    """A running update is withdrawn by it."""
    nothing = desired().model_copy(update={"release": None})
    active = Slot(Path("a"), "a" * 64, "cells", "1.2.0", 3)
    assert not is_wanted(nothing, "", None, NOW)
    assert not is_active_already(nothing, active, None)
    assert not same_update(update(), nothing)
    assert is_withdrawn(update(), nothing)


def test_the_same_update_has_the_same_release_and_deployment() -> None:
    assert same_update(update(), desired(generation=9))
    assert not same_update(update(), desired("b"))
    assert not same_update(update(), desired(deployment_id=8))
    assert not same_update(update(), desired(deployment_id=None))
    assert same_update(update(deployment_id=None), desired(deployment_id=None))


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
    assert not is_active_already(None, active, None)
    assert is_active_already(desired(deployment_id=8), active, update(deployment_id=6)), (
        "another deployment asks for it"
    )
    assert not is_active_already(desired(deployment_id=6), active, update(deployment_id=5))


def test_a_rollback_recovers_until_its_first_frame_or_the_longest_wait() -> None:
    rolled_back = update(outcome="rolled-back", settled=True, previous_sha256="b" * 64)
    assert is_recovering(rolled_back, NOW)
    assert not is_recovering(rolled_back, NOW + timedelta(seconds=121))
    assert not is_recovering(update(outcome="rolled-back", settled=True), NOW), "there is nothing to come back"
    assert not is_recovering(rolled_back.model_copy(update={"recovery_s": 3.0}), NOW)
    assert not is_recovering(rolled_back.model_copy(update={"recovery_s": 0.0}), NOW)
    assert not is_recovering(rolled_back.model_copy(update={"outcome": "succeeded"}), NOW)
    assert is_recovering(rolled_back, NOW + timedelta(seconds=119.9))
    assert not is_recovering(rolled_back, NOW + timedelta(seconds=120))
    changed = rolled_back.model_copy(update={"changed_at": NOW + timedelta(seconds=60)})
    assert is_recovering(changed, NOW + timedelta(seconds=179)), "counts from the rollback, not from the start"


def test_what_is_withdrawn() -> None:
    assert not is_withdrawn(update(), desired())
    assert not is_withdrawn(update(), None)
    assert is_withdrawn(update(), desired("b"))
    assert is_withdrawn(update(), desired(deployment_id=8))
    assert not is_withdrawn(update(), desired("b", generation=1)), "an older desired state does not count"
    assert not is_withdrawn(update(folder="/stick"), desired("b")), "an operator requested it"


def test_settings_of_a_deployment() -> None:
    limits, wrong = limits_of(LIMITS, {"probation_frames": 3})
    assert (limits.probation_frames, wrong) == (3, None)
    same, wrong = limits_of(LIMITS, {"probation_frames": -3})
    assert same == LIMITS
    assert wrong is not None
    assert (wrong.code, wrong.values["name"]) == ("update.setting", "probation_frames")


@pytest.mark.parametrize(
    ("overrides", "name", "detail"),
    [
        ({"probation_frames": 0}, "probation_frames", "greater than or equal to 1"),
        (
            {"retry_s": "soon", "keep_slots": 0},
            "retry_s",
            "a valid number",
        ),
        ({"probation_frame": 3}, "probation_frame", "not permitted"),
    ],
)
def test_a_wrong_setting_of_a_deployment_is_named(overrides: dict[str, object], name: str, detail: str) -> None:
    """The first one; none of them holds then, also not those that are right."""
    own = AgentSection(probation_frames=10, probation_s=50)
    limits, wrong = limits_of(own, {**overrides, "probation_s": 60})
    assert limits is own
    assert wrong is not None
    assert (wrong.code, wrong.values["name"]) == ("update.setting", name)
    assert detail in str(wrong.values["detail"])


def test_settings_that_a_deployment_does_not_name_stay_the_instrument_s_own() -> None:
    own = AgentSection(probation_frames=10, probation_max_errors=7, selftest_max_ms=90, retry_s=3)
    assert limits_of(own, {}) == (own, None)
    limits, wrong = limits_of(own, {"probation_frames": 3, "selftest_max_ms": 80.0})
    assert wrong is None
    assert limits == AgentSection(probation_frames=3, probation_max_errors=7, selftest_max_ms=80, retry_s=3)
    assert own.probation_frames == 10


OPEN, CLOSED = MaintenanceWindow(start="12:00", end="13:00"), MaintenanceWindow(start="11:00", end="12:00")


def lease(holder: str, seconds: float, reason: str = "a run", data: Reason | None = None) -> Lease:
    expires_at = NOW + timedelta(seconds=seconds)
    return Lease(holder=holder, reason=reason, reason_data=data, expires_at=expires_at)


def held(holder: str, until: str, why: Reason) -> Reason:
    return because("update.held", why, holder=holder, until=until)


RUN = text_reason("a run")
HELD_A, HELD_B = held("a", "2026-03-02 12:00:01", RUN), held("b", "2026-03-02 12:01:01", RUN)


@pytest.mark.parametrize(
    ("leases", "window", "reason"),
    [
        ([], None, None),
        ([], OPEN, None),
        ([], CLOSED, when_open(CLOSED)),
        ([lease("a", 0)], None, None),
        ([lease("a", 0)], CLOSED, when_open(CLOSED)),
        ([lease("a", 1)], None, HELD_A),
        ([lease("a", 1)], OPEN, HELD_A),
        ([lease("a", 1)], CLOSED, HELD_A),
        ([lease("a", 1), lease("c", -1), lease("b", 61)], None, because("several", HELD_A, HELD_B)),
        ([lease("a", 1, "")], None, held("a", "2026-03-02 12:00:01", because("rollout.no-reason"))),
        (
            [lease("a", 1, "text", because("update.untested"))],
            None,
            held("a", "2026-03-02 12:00:01", because("update.untested")),
        ),
    ],
)
def test_what_an_activation_waits_for(
    leases: list[Lease], window: MaintenanceWindow | None, reason: Reason | None
) -> None:
    assert waits_for(leases, window, NOW) == reason


@pytest.fixture
def machine_in_taipei(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of this machine is not in UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "TPE-8")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("machine_in_taipei")
def test_the_end_of_a_lease_is_reported_in_utc() -> None:
    end = datetime(2026, 3, 3, 1, 30, tzinfo=timezone(timedelta(hours=8)))
    found = waits_for([Lease(holder="a", reason="a run", expires_at=end)], None, NOW)
    assert found == held("a", "2026-03-02 17:30:00", RUN)


def test_leases(tmp_path: Path) -> None:
    assert read_leases(tmp_path / "none") == ([], [])
    write_lease(tmp_path, "camera", Lease(holder="camera", reason="a run", expires_at=NOW + timedelta(minutes=1)))
    (tmp_path / "odd.json").write_text('{"holder": 1}')
    leases, wrong = read_leases(tmp_path)
    assert [x.holder for x in valid(leases, NOW)] == ["camera"]
    assert wrong == ["odd.json"]
    assert valid(leases, NOW + timedelta(minutes=1)) == []
    waits = waits_for(leases, None, NOW)
    assert english(waits) == "camera holds updates back until 2026-03-02 12:01:00 UTC: a run"
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


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"engines": ("other", "there")}, []),
        ({"channels": ("green", "phase")}, []),
        ({"engines": ("x", "y")}, [because("update.lacks-engine", needed="x, y", here="here, there")]),
        (
            {"channels": ("red", "phase", "blue")},
            [because("update.lacks-channels", needed="red, blue", here="phase, green")],
        ),
        ({"pixel_size": True}, [because("update.lacks-pixel-size")]),
    ],
)
def test_each_unmet_requirement_is_named_with_what_is_there(fields: dict[str, Any], expected: list[Reason]) -> None:
    met = {"bundle_format": 1, "engines": ("here",), "channels": ("phase",), "pixel_size": False}
    requires = Requires(**{**met, **fields})
    engines, channels = {"here": "1", "there": "2"}, ("phase", "green")
    assert missing(requires, engines, channels, None, camera_names_pixel_size=False) == expected


def test_an_instrument_that_has_nothing() -> None:
    requires = Requires(bundle_format=1, engines=("x",), channels=("phase",), pixel_size=False)
    assert missing(requires, {}, (), None, camera_names_pixel_size=False) == [
        because("update.lacks-engine", needed="x", here="none"),
        because("update.lacks-channels", needed="phase", here="none"),
    ]


@pytest.mark.parametrize(
    ("pixel_size_um", "in_files", "lacking"),
    [(None, False, True), (None, True, False), (0.65, False, False), (0.65, True, False)],
)
def test_a_pixel_size_comes_from_the_settings_or_the_camera(
    pixel_size_um: float | None, in_files: bool, lacking: bool
) -> None:
    requires = Requires(bundle_format=1, engines=("x",), channels=("phase",), pixel_size=True)
    found = missing(requires, {"x": "1"}, ("phase",), pixel_size_um, camera_names_pixel_size=in_files)
    assert bool(found) is lacking
