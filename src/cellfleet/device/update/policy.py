"""Decisions of the agent, as pure functions of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cellfleet.config.fleet import AgentSection
from cellfleet.device.camera.inhibit_lease import Lease, valid
from cellfleet.device.interfaces import Slot
from cellfleet.device.update.journal import Update
from cellfleet.device.update.maintenance_window import is_open, when_open
from cellfleet.wire.reason import Reason, because, joined, read_reason
from cellfleet.wire.states import DesiredState, MaintenanceWindow

if TYPE_CHECKING:
    from cellfleet.bundle.manifest import (
        Requires,  # not at run time: it loads onnx, which the launcher and the camera do not need
    )

MAX_ATTEMPTS = 8
RECOVERY_WAIT_S = 120.0


def is_wanted(desired: DesiredState | None, active: str, last: Update | None, now: datetime) -> bool:
    """Whether the desired state asks for an update that may start now.

    Args:
        desired: newest desired state; None: unknown.
        active: SHA-256 of the active slot, or empty.
        last: the latest update.
        now: time.

    Returns:
        True when the release is not active, has no final outcome, and is not in a backoff.
    """
    if desired is None or desired.release is None or desired.release.sha256 == active:
        return False
    if last is None or not same_update(last, desired):
        return True
    return not last.settled and may_retry(last, now)


def may_retry(update: Update, now: datetime) -> bool:
    """Whether the backoff of an update is over. A clock that is set back extends it by at most a day.

    Args:
        update: the update that failed.
        now: time.
    """
    later = update.not_before
    return later is None or now >= later or later - now > timedelta(days=1)


def is_active_already(desired: DesiredState | None, active: Slot | None, last: Update | None) -> bool:
    """Whether the desired state names the active slot, by a deployment that has no outcome yet.

    Args:
        desired: newest desired state; None: unknown.
        active: the active slot.
        last: the latest update.
    """
    if desired is None or desired.release is None or desired.deployment_id is None or active is None:
        return False
    if desired.release.sha256 != active.sha256:
        return False
    return last is None or (desired.deployment_id != active.deployment_id and not same_update(last, desired))


def is_recovering(last: Update, now: datetime) -> bool:
    """Whether an update was rolled back and the restored slot has not segmented a frame since.

    Limited to ``RECOVERY_WAIT_S``, because there may be no frames.

    Args:
        last: the latest update.
        now: time.
    """
    if last.outcome != "rolled-back" or last.recovery_s is not None or not last.previous_sha256:
        return False
    return (now - last.changed_at).total_seconds() < RECOVERY_WAIT_S


def same_update(update: Update, desired: DesiredState) -> bool:
    """Whether the desired state still asks for the release and the deployment of the update.

    Args:
        update: the running or the latest update.
        desired: the desired state.
    """
    return (
        desired.release is not None
        and desired.release.sha256 == update.release.sha256
        and desired.deployment_id == update.deployment_id
    )


def is_withdrawn(update: Update, desired: DesiredState | None) -> bool:
    """Whether a newer desired state no longer asks for the update.

    Args:
        update: the running update; one from an offline folder is never withdrawn by the server.
        desired: newest desired state; None: unknown.
    """
    if update.folder or desired is None or desired.generation < update.generation:
        return False
    return not same_update(update, desired)


def limits_of(section: AgentSection, overrides: Mapping[str, Any]) -> tuple[AgentSection, Reason | None]:
    """Merge the instrument's settings with those of the deployment.

    Args:
        section: settings of the instrument.
        overrides: settings of the deployment.

    Returns:
        The merged settings and None; the instrument's settings and a reason when ``overrides`` are not valid.
    """
    try:
        return AgentSection.model_validate({**section.model_dump(), **overrides}), None
    except ValidationError as e:
        first = e.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        return section, because("update.setting", name=name, detail=first["msg"])


def waits_for(leases: list[Lease], window: MaintenanceWindow | None, now: datetime) -> Reason | None:
    """Why an activation must wait.

    Args:
        leases: inhibit leases, expired ones too.
        window: maintenance window; None: any time.
        now: time.

    Returns:
        The reason; None when the activation may start now.
    """
    if held := valid(leases, now):
        return joined([_held(lease) for lease in held])
    if window is not None and not is_open(window, now):
        return when_open(window)
    return None


def _held(lease: Lease) -> Reason:
    until = f"{lease.expires_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    why = read_reason(lease.reason, lease.reason_data) or because("rollout.no-reason")
    return because("update.held", why, holder=lease.holder, until=until)


def missing(
    requires: Requires,
    engines: Mapping[str, str],
    channels: Sequence[str],
    pixel_size_um: float | None,
    camera_names_pixel_size: bool,
) -> list[Reason]:
    """Requirements of a bundle that this instrument does not meet.

    Args:
        requires: requirements of the bundle.
        engines: engine -> version, of this machine.
        channels: of the camera.
        pixel_size_um: of the settings; None: not set.
        camera_names_pixel_size: files of the camera may contain their pixel size.

    Returns:
        One reason for each unmet requirement.
    """
    out = []
    if not set(requires.engines) & set(engines):
        here = ", ".join(engines) or "none"
        out.append(because("update.lacks-engine", needed=", ".join(requires.engines), here=here))
    if lacking := [c for c in requires.channels if c not in channels]:
        here = ", ".join(channels) or "none"
        out.append(because("update.lacks-channels", needed=", ".join(lacking), here=here))
    if requires.pixel_size and pixel_size_um is None and not camera_names_pixel_size:
        out.append(because("update.lacks-pixel-size"))
    return out
