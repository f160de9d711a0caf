"""Background tasks: a result comes once, an error is raised where the result is taken."""

from __future__ import annotations

import pytest

from cellfleet.device.update.background_task import InlineTask, ThreadedTask
from cellfleet.errors import NetworkError
from support_waiting import wait_until


def result_of(threaded: ThreadedTask[int]) -> int | None:
    return wait_until(threaded.result, "the result")


def test_one_after_the_other() -> None:
    threaded: ThreadedTask[int] = ThreadedTask()
    threaded.start(lambda: 7)
    assert threaded.busy
    assert (result_of(threaded), threaded.busy) == (7, False)

    def fail() -> int:
        raise NetworkError("no")

    threaded.start(fail)
    with pytest.raises(NetworkError):
        result_of(threaded)
    inline: InlineTask[int] = InlineTask()
    inline.start(lambda: 8)
    assert (inline.busy, inline.result(), inline.result()) == (True, 8, None)
