"""Limits of rate that hold over all replicas: requests are counted by minute in a table.

A process reserves a portion of the minute's allowance at a time, so that most requests touch no table.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from sqlalchemy import delete, select, update

from cellfleet.canonical import sha256_hex
from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import too_many
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import RateCount
from cellfleet.wire.reason import because

_PORTIONS = 20
"""A process reserves one part in so many of the allowance at once."""
_KEPT_MIN = 5
_EXHAUSTED = -1


@dataclass
class _Minute:
    number: int = 0
    left: dict[str, int] = field(default_factory=dict)


class RateLimits:
    """The counters of one replica; ``context.service(Limits)``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._minute = _Minute()

    def take(self, key: str, per_min: int, *, what: str) -> None:
        """Count one request.

        Args:
            key: who or what is limited; any text.
            per_min: greatest number in a minute.
            what: for the message, such as "requests of this device".

        Raises:
            RequestRefused: 429 with Retry-After.
        """
        seconds = int(self._context.clock.now().timestamp())
        minute = seconds // 60
        name = key if len(key) <= 160 else sha256_hex(key.encode("utf-8", "replace"))
        left = self.use(name, minute)
        if left == 0:
            granted = self._reserve(name, minute, per_min)
            left = self.use(name, minute, granted=granted or _EXHAUSTED)
        if left < 0:
            raise too_many(because("problem.rate", limit=per_min, what=what), 60 - seconds % 60)

    def use(self, name: str, minute: int, *, granted: int = 0) -> int:
        """Take one of what is left, after adding ``granted``: what was left; 0: ask the table; below 0: no more."""
        with self._lock:
            if self._minute.number != minute:
                self._minute = _Minute(minute)
            left = self._minute.left.get(name, 0)
            if granted > 0:
                left = max(0, left) + granted  # another thread may have noted meanwhile that there is no more
            elif granted < 0 and left <= 0:
                left = granted
            self._minute.left[name] = left - 1 if left > 0 else left
            return left

    def _reserve(self, name: str, minute: int, per_min: int) -> int:
        """How many requests this process may let through; 0: none."""
        portion = max(1, per_min // _PORTIONS)
        with self._context.sessions() as db:
            insert_or_ignore(db, RateCount, [{"key": name, "minute": minute, "count": 0}])
            row = (RateCount.key == name, RateCount.minute == minute)
            used = db.scalars(select(RateCount.count).where(*row).with_for_update()).one()
            granted = max(0, min(portion, per_min - used))
            if granted:
                db.execute(update(RateCount).where(*row).values(count=RateCount.count + granted))
            return granted

    def sweep(self) -> None:
        """Forget minutes that are over."""
        minute = int(self._context.clock.now().timestamp()) // 60
        with self._context.sessions() as db:
            db.execute(delete(RateCount).where(RateCount.minute < minute - _KEPT_MIN))
