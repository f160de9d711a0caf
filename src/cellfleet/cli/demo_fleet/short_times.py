"""Settings of the demo that differ from production: shorter times, and limits that fit its small frames."""

from __future__ import annotations

from collections.abc import Mapping
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
    "agent.selftest_max_memory_mb": 1200.0,
    "agent.probation_max_memory_mb": 1200.0,
}
BUNDLE: Mapping[str, Any] = {"bundle.golden_px": 320}
SOAK_S = 3.0


def rows() -> list[list[str]]:
    """Setting, what it means, in production (its default), here."""
    out = []
    for key, value in {**SERVER, **INSTRUMENT}.items():
        section, _, name = key.partition(".")
        kind = Settings.model_fields[section].annotation
        info = kind.model_fields[name]  # type: ignore[union-attr]
        out.append([key, info.description or "", f"{info.default:g}", f"{value:g}"])
    return out
