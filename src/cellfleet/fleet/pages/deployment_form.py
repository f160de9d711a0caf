"""The form of a new deployment as a DeploymentRequest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cellfleet.fleet.pages.page_request import Form
from cellfleet.fleet.refusals import bad_request
from cellfleet.wire.reason import because
from cellfleet.wire.rollout import DeploymentRequest

PHASES = 4
_EMPTY = {"size": "", "soak": "", "failures": "0", "success": "100", "silent": "60", "approval": ""}
_FIRST = {"size_0": "1", "soak_0": "60", "size_1": "100%"}
DEFAULTS: Mapping[str, str] = {
    "release_id": "", "group": "", "reason": "", "needs_approval": "", "window_start": "", "window_end": "",
    "window_offset": "",
    **{f"{name}_{i}": value for i in range(PHASES) for name, value in _EMPTY.items()},
    **_FIRST,
}  # fmt: skip
"""Fields of an untouched form: one instrument, a soak time of one hour, then the rest."""


def request_of(form: Form) -> DeploymentRequest:
    """Read the form.

    Raises:
        RequestRefused: 422, names the wrong field.
    """
    phases = [p for p in (_phase(form, i) for i in range(PHASES)) if p]
    if not phases:
        raise bad_request("no-phase", because("problem.no-phase"), hint=because("hint.phase-size"))
    values: dict[str, Any] = {
        "release_id": form.number("release_id", 0),
        "group": form.text("group", longest=128),
        "phases": phases,
        "needs_approval": bool(form.text("needs_approval")),
        "reason": form.text("reason"),
        "window": _window(form),
    }
    try:
        return DeploymentRequest.model_validate(
            {**values, "release_id": int(values["release_id"]), "phases": tuple(phases)}
        )
    except ValidationError as e:
        first = e.errors()[0]
        where = " ".join(str(p) for p in first["loc"])
        raise bad_request("not-understood", f"{where}: {first['msg']}") from e


def _phase(form: Form, i: int) -> dict[str, Any] | None:
    size = form.text(f"size_{i}", longest=8).replace(" ", "")
    if not size:
        return None
    made: dict[str, Any] = {
        "max_failures": int(form.number(f"failures_{i}", 0)),
        "soak_s": 60 * form.number(f"soak_{i}", 0),
        "min_success_percent": form.number(f"success_{i}", 100),
        "silent_after_s": 60 * form.number(f"silent_{i}", 60),
        "approval": bool(form.text(f"approval_{i}")),
    }
    number = size.removesuffix("%").removesuffix("％")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if value != value or value <= 0 or (number == size and value != int(value)):
        raise bad_request(
            "bad-size", because("problem.bad-size", phase=i + 1, size=size), hint=because("hint.phase-size")
        )
    return {**made, **({"count": int(value)} if number == size else {"percent": value})}


def _window(form: Form) -> dict[str, Any] | None:
    start, end = form.text("window_start", longest=5), form.text("window_end", longest=5)
    if not start and not end:
        return None
    offset = round(60 * form.number("window_offset", 0))
    return {"start": start or "00:00", "end": end or "23:59", "utc_offset_min": offset}
