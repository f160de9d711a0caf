"""The agent's decisions: facts in, an event or words out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cellfleet.config.fleet import AgentSection
from cellfleet.device.camera.inhibit import Lease, valid
from cellfleet.device.interfaces import Slot
from cellfleet.device.update.journal import Update
from cellfleet.device.update.window import is_open, words
from cellfleet.wire.states import DesiredState, MaintenanceWindow

if TYPE_CHECKING:
    from cellfleet.bundle.manifest import Requires  # loads onnx, which the launcher and the camera need not

MAX_ATTEMPTS = 8
RECOVERY_PATIENCE_S = 120.0
_MOST_DOUBLINGS = 100.0


def backoff_s(attempt: int, first_s: float, jitter: float = 0.5) -> float:
    """How long to wait after the given number of failures (1, 2 ...): doubled up to a hundredfold, spread by a fifth.

    Args:
        jitter: from 0 to 1, random.
    """
    factor = min(_MOST_DOUBLINGS, 2.0 ** min(max(attempt - 1, 0), 30))
    return first_s * factor * (0.8 + 0.4 * jitter)


def is_wanted(desired: DesiredState | None, active: str, last: Update | None, now: datetime) -> bool:
    """The desired state asks for something that is not active, was not refused for good, and whose time has come."""
    if desired is None or desired.release is None or desired.release.sha256 == active:
        return False
    if last is None or not same_update(last, desired):
        return True
    return not last.settled and its_time_has_come(last, now)


def its_time_has_come(update: Update, now: datetime) -> bool:
    """An update that failed may be tried again; a clock that was set back does not hold it up for long."""
    later = update.not_before
    return later is None or now >= later or later - now > timedelta(days=1)


def is_there_already(desired: DesiredState | None, active: Slot | None, last: Update | None) -> bool:
    """The desired state names the active slot, by a deployment that has not been answered yet."""
    if desired is None or desired.release is None or desired.deployment_id is None or active is None:
        return False
    if desired.release.sha256 != active.sha256:
        return False
    return last is None or (desired.deployment_id != active.deployment_id and not same_update(last, desired))


def is_recovering(last: Update, now: datetime) -> bool:
    """It was rolled back, and the slot before has not drawn a frame since; not for ever, for there may be none to draw."""
    if last.outcome != "rolled-back" or last.recovery_s is not None or not last.previous_sha256:
        return False
    return (now - last.changed_at).total_seconds() < RECOVERY_PATIENCE_S


def same_update(update: Update, desired: DesiredState) -> bool:
    """The desired state still asks for what the update is about."""
    return (
        desired.release is not None
        and desired.release.sha256 == update.release.sha256
        and desired.deployment_id == update.deployment_id
    )


def is_withdrawn(update: Update, desired: DesiredState | None) -> bool:
    """The server asks for something else by now, or for nothing."""
    if update.folder or desired is None or desired.generation < update.generation:
        return False
    return not same_update(update, desired)


def limits_of(section: AgentSection, overrides: Mapping[str, Any]) -> tuple[AgentSection, str]:
    """Settings that hold for an update, and what is wrong with those that the server sent (empty: nothing)."""
    try:
        return AgentSection.model_validate({**section.model_dump(), **overrides}), ""
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        return section, f"the deployment's setting agent.{where}: {first['msg']}"


def waits_for(leases: list[Lease], window: MaintenanceWindow | None, now: datetime) -> str:
    """Why an activation has to wait; empty: it may be done now."""
    if held := valid(leases, now):
        return "; ".join(f"{x.holder} holds updates back until {x.expires_at:%H:%M:%S}: {x.reason}" for x in held)
    if window is not None and not is_open(window, now):
        return f"the maintenance window is {words(window)}"
    return ""


def missing(
    requires: Requires,
    engines: Mapping[str, str],
    channels: Sequence[str],
    pixel_size_um: float | None,
    cameras_tell: bool,
) -> list[str]:
    """What a bundle needs and this instrument does not have.

    Args:
        engines: engine -> version, of this machine.
        channels: of the camera.
        pixel_size_um: of the settings; None: not set.
        cameras_tell: the camera's files may tell their pixel size themselves.
    """
    out = []
    if not set(requires.engines) & set(engines):
        out.append(f"it needs one of the engines {', '.join(requires.engines)}; here is {', '.join(engines) or 'none'}")
    if lacking := [c for c in requires.channels if c not in channels]:
        out.append(f"it needs the channels {', '.join(lacking)}; the camera gives {', '.join(channels) or 'none'}")
    if requires.pixel_size and pixel_size_um is None and not cameras_tell:
        out.append("it needs frames of known pixel size; set camera.pixel_size_um")
    return out
