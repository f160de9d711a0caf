"""For how long was no segmenter able to take frames, while one was wanted? Measured from the segmenters' own times."""

from __future__ import annotations

from cellfleet.device.scheduling.worker import SegmenterWorker


class DowntimeMeter:
    """Watches the segmenter of the active slot; all times are monotonic seconds."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._longest_s = 0.0

    def update(self, wanted: bool, process: SegmenterWorker | None, now_s: float) -> None:
        """Record the current state.

        Args:
            wanted: there is an active slot.
            process: its segmenter; None: there is none.
            now_s: time.
        """
        if not wanted:
            self._since_s = None
        elif process is not None and process.phase == "ready":
            if self._since_s is not None:
                self._note((process.ready_s or now_s) - self._since_s)
            self._since_s = None
        elif self._since_s is None:
            self._since_s = process.ended_s if process is not None and process.ended_s is not None else now_s

    def lost(self, at_s: float) -> None:
        """Record that the active slot's segmenter ended at a time."""
        if self._since_s is None:
            self._since_s = at_s

    def take(self, now_s: float) -> float:
        """The longest downtime since the previous call; one that continues counts up to now, and again in the next call."""
        open_s = now_s - self._since_s if self._since_s is not None else 0.0
        longest, self._longest_s = max(self._longest_s, open_s), 0.0
        return longest

    def _note(self, gap_s: float) -> None:
        self._longest_s = max(self._longest_s, gap_s)
