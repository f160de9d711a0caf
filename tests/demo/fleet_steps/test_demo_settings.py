"""Settings of the demo: shorter times, and flags that reach the instruments."""

from __future__ import annotations

from cellfleet.config.project import Settings
from cellfleet.demo.fleet_steps import demo_settings


def test_shorter_times_are_settings_and_flags_reach_the_instruments() -> None:
    settings = Settings.model_validate({"agent": {"tick_s": 0.25, "retry_s": 7}, "camera": {"interval_s": 3.0}})
    flags = ["agent.retry_s=7", "camera.interval_s=3", "training.epochs=2"]
    values = demo_settings.instrument_settings(settings, flags)
    assert set(values) == {*demo_settings.INSTRUMENT, "agent.retry_s", "camera.interval_s"}
    assert (values["agent.tick_s"], values["agent.retry_s"], values["camera.interval_s"]) == (0.25, 7, 3.0)
    shown = {row[0]: row[2:] for row in demo_settings.changed_rows(settings)}
    assert shown["camera.interval_s"] == ["60", "3"]
    assert set(shown) == {*demo_settings.SERVER, *demo_settings.INSTRUMENT}
    assert all(row[1] for row in demo_settings.changed_rows(settings)), "every setting says what it means"
