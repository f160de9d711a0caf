"""The camera's heartbeat: ``HOME/state/camera.json``, written by the camera process, read by the agent."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.wire.base import Message, Time, parse
from cellfleet.wire.reason import Reason, StoredReason, because

CameraMode = Literal["running", "waiting", "held", "stopped", "failing"]
BEAT_S = 3.0
_LATE_S = 20.0


class CameraState(Message):
    """State of the camera.

    Attributes:
        reason: why it waits, is held, has stopped or fails; None while it runs.
        taken: frames since provisioning.
    """

    format_version: Literal[1] = 1
    at: Time
    pid: int = Field(ge=0)
    state: CameraMode
    reason: StoredReason = None
    experiment: str = ""
    taken: int = Field(default=0, ge=0)


def write_camera(path: Path, state: CameraState) -> None:
    """Write the heartbeat.

    Args:
        path: of the file.
        state: of the camera.
    """
    write_atomic(path, state.to_json())


def read_camera(path: Path, now: datetime) -> tuple[CameraMode, Reason | None]:
    """Read the heartbeat.

    Args:
        path: of the file.
        now: time; a late heartbeat counts as failing.

    Returns:
        State of the camera, and the reason; None: there is no problem.
    """
    try:
        found = parse(CameraState, path.read_bytes())
    except FileNotFoundError:
        return "stopped", None
    except (OSError, WireError) as e:
        return "failing", because("camera.unreadable", detail=str(e))
    late_s = (now - found.at).total_seconds()
    if found.state != "stopped" and late_s > _LATE_S:
        return "failing", because("camera.late", seconds=late_s)
    return found.state, found.reason if found.state in ("waiting", "failing") else None
