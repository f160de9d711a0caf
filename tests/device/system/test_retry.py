"""Waits after failures: bounded, growing, spread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cellfleet.device.system.retry import Backoff, backoff_s


@given(st.integers(-3, 10_000), st.floats(0.01, 60), st.floats(0, 1))
def test_waits_are_bounded_and_grow(attempt: int, first_s: float, jitter: float) -> None:
    wait_s = backoff_s(attempt, first_s, jitter)
    assert 0.8 * first_s <= wait_s <= 120 * first_s * 1.001
    assert backoff_s(attempt + 1, first_s, jitter) >= wait_s


def test_each_failure_doubles_the_wait_up_to_a_hundredfold() -> None:
    waits = [Backoff(5.0, 0.5).wait_s(attempt) for attempt in (1, 2, 3, 4, 100)]
    assert waits == [5, 10, 20, 40, 500]
