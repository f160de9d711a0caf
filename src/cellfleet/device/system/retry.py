"""Waits before a retry. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_FACTOR = 100.0


def backoff_s(attempt: int, first_s: float, jitter: float = 0.5) -> float:
    """Wait after a failure: doubles with each failure, up to 100 times the first wait, with a jitter of 20 %.

    Args:
        attempt: failures so far: 1, 2 ...
        first_s: wait after the first failure, without jitter.
        jitter: random number from 0 to 1.

    Returns:
        Seconds.
    """
    factor = min(_MAX_FACTOR, 2.0 ** min(max(attempt - 1, 0), 30))
    return first_s * factor * (0.8 + 0.4 * jitter)


@dataclass(frozen=True)
class Backoff:
    """The waits between attempts.

    Attributes:
        retry_s: wait after the first failure.
        jitter: random number from 0 to 1.
    """

    retry_s: float
    jitter: float

    def wait_s(self, attempt: int) -> float:
        """Seconds to wait after ``attempt`` failures."""
        return backoff_s(attempt, self.retry_s, self.jitter)
