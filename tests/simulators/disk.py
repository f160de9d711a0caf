"""A disk whose power is cut at the n-th write: before it, after it, or in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Moment = Literal["before", "after", "torn"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "torn")


class PowerCut(BaseException):
    """The machine is off; nothing catches that."""


class Disk:
    """Atomic writes, counted.

    Attributes:
        writes: names of the files written so far.
    """

    def __init__(self) -> None:
        self.writes: list[str] = []
        self._cut_at = 0
        self._moment: Moment = "before"

    def cut_at(self, number: int, moment: Moment) -> None:
        """Cut the power at that write from now on (1: the next one); 0: never."""
        self._cut_at = len(self.writes) + number if number else 0
        self._moment = moment

    def write(self, target: Path, data: bytes) -> None:
        """As ``ports.write_atomic``, without syncing."""
        self.writes.append(target.name)
        cut = len(self.writes) == self._cut_at
        if cut and self._moment == "before":
            raise PowerCut(target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if cut and self._moment == "torn" and not target.exists():
            target.write_bytes(data[: len(data) // 2])  # a disk that renamed before it wrote
            raise PowerCut(target.name)
        part = target.with_name(f".{target.name}.new")
        part.write_bytes(data)
        part.replace(target)
        if cut:
            raise PowerCut(target.name)
