"""Facts of this machine."""

from __future__ import annotations

from cellfleet.device.system.host_info import device_facts, engines


def test_facts_of_this_machine() -> None:
    facts = device_facts()
    assert facts.cores >= 1
    assert "onnxruntime" in engines()
    assert facts.memory_mb > 100
