"""Settings of the demo that differ from production: shorter times, and limits that fit its small frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellfleet.config import Settings

INTERVAL_S = 1.0
SERVER: Mapping[str, Any] = {
    "fleet.port": 0,
    "fleet.poll_s": 2.0,
    "fleet.tick_s": 1.0,
    "fleet.silent_after_s": 30.0,
}
INSTRUMENT: Mapping[str, Any] = {
    "device.threads": 1,
    "camera.interval_s": INTERVAL_S,
    "agent.tick_s": 0.5,
    "agent.retry_s": 1.0,
    "agent.frame_timeout_s": 30.0,
    "agent.probation_frames": 6,
    "agent.selftest_max_memory_mb": 800.0,
    "agent.probation_max_memory_mb": 800.0,
}
BUNDLE: Mapping[str, Any] = {"bundle.golden_px": 320}
SOAK_S = 3.0


def changed_rows(settings: Settings) -> list[list[str]]:
    """Make table rows: setting, meaning, default (production), value in the demo.

    Args:
        settings: of the demo's project.
    """
    out = []
    for key in (*SERVER, *INSTRUMENT):
        section, _, name = key.partition(".")
        here = getattr(settings, section)
        info = type(here).model_fields[name]
        out.append([key, info.description or "", f"{info.default:g}", f"{getattr(here, name):g}"])
    return out


def instrument_settings(settings: Settings, flags: Sequence[str]) -> dict[str, Any]:
    """Collect the settings of an instrument of the demo: those above, and those given with ``--set``.

    Args:
        settings: settings of the demo's project, including its flags.
        flags: ``section.key=value``, as given to the demo.
    """
    given = [text.partition("=")[0].strip() for text in flags]
    keys = dict.fromkeys(
        [*INSTRUMENT, *(key for key in given if key.partition(".")[0] in ("device", "camera", "agent"))]
    )
    return {key: getattr(getattr(settings, key.partition(".")[0]), key.partition(".")[2]) for key in keys}
