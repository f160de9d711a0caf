"""Parse phases, windows and settings of a deployment from the command line: ``1,soak-s=3600``, ``100%,approval``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cellfleet.config import nearest
from cellfleet.config.fleet import AgentSection
from cellfleet.errors import ConfigError
from cellfleet.wire.rollout import Phase
from cellfleet.wire.states import MaintenanceWindow

_OPTIONS = tuple(name.replace("_", "-") for name in Phase.model_fields if name not in ("count", "percent"))
_WINDOW = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def phases_of(texts: Sequence[str], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parse phases.

    Args:
        texts: one text per phase; empty: one phase with all instruments.
        defaults: options of phases that do not set them; None is left out.

    Returns:
        Plain JSON data.

    Raises:
        ConfigError: an invalid phase.
    """
    base = {k: v for k, v in defaults.items() if v is not None}
    return [_phase(text, base) for text in texts or ["100%"]]


def _phase(text: str, base: Mapping[str, Any]) -> dict[str, Any]:
    size, *options = [part.strip() for part in text.split(",")]
    facts: dict[str, Any] = dict(base)
    if size == "all":
        facts["percent"] = 100
    elif size.endswith("%"):
        facts["percent"] = size[:-1]
    else:
        facts["count"] = size
    for option in options:
        name, has_value, value = option.partition("=")
        if name not in _OPTIONS:
            raise ConfigError(f"--phase {text}: unknown option {name!r}", hint=nearest(name, _OPTIONS))
        facts[name.replace("-", "_")] = value if has_value else "true"
    try:
        return Phase.model_validate(facts).model_dump(mode="json")
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"]).replace("_", "-") or "phase"
        raise ConfigError(
            f"--phase {text}: {where}: {first['msg']}", hint="for example --phase 1,soak-s=3600 --phase 100%,approval"
        ) from e


def window_of(text: str, utc_offset_min: int, days: str) -> dict[str, Any] | None:
    """Parse a maintenance window.

    Args:
        text: ``HH:MM-HH:MM``.
        utc_offset_min: minutes that local time is ahead of UTC.
        days: ``mon,tue,...``; empty: every day.

    Returns:
        Plain JSON data; None for an empty text.

    Raises:
        ConfigError: an invalid window.
    """
    if not text:
        return None
    hint = "for example --window 22:00-04:00 --window-days mon,tue"
    found = _WINDOW.fullmatch(text.strip())
    names = [d.strip().lower()[:3] for d in days.split(",")] if days else list(_DAYS)
    if found is None or any(d not in _DAYS for d in names):
        raise ConfigError(f"--window {text} {days}".rstrip() + ": not a maintenance window", hint=hint)
    facts = {
        "start": found[1],
        "end": found[2],
        "days": [_DAYS.index(d) for d in names],
        "utc_offset_min": utc_offset_min,
    }
    try:
        return MaintenanceWindow.model_validate(facts).model_dump(mode="json")
    except ValidationError as e:
        raise ConfigError(f"--window {text}: {e.errors()[0]['msg']}", hint=hint) from e


def agent_of(texts: Sequence[str]) -> dict[str, Any]:
    """Parse settings of section [agent] into plain JSON data.

    Raises:
        ConfigError: an unknown setting or an invalid value.
    """
    facts: dict[str, Any] = {}
    for text in texts:
        name, has_value, value = text.partition("=")
        if not has_value:
            raise ConfigError(f"--agent {text}: the value is missing", hint="for example --agent probation_frames=8")
        if name not in AgentSection.model_fields:
            raise ConfigError(f"--agent {text}: unknown setting", hint=nearest(name, AgentSection.model_fields))
        try:
            facts[name] = json.loads(value)
        except ValueError:
            facts[name] = value
    try:
        AgentSection.model_validate(facts)
    except ValidationError as e:
        first = e.errors()[0]
        raise ConfigError(
            f"--agent {first['loc'][0]}: {first['msg']}", hint="see section [agent] in docs/cli.md"
        ) from e
    return facts
