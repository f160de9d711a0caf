"""Long work beside the agent's loop: one function at a time; the loop polls for its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class BackgroundTask(Protocol, Generic[T]):
    """Runs one function at a time."""

    @property
    def busy(self) -> bool:
        """Whether a function was started and its result not taken yet."""
        ...

    def start(self, work: Callable[[], T]) -> None:
        """Start a function; no other may be running."""
        ...

    def result(self) -> T | None:
        """The result, once; None while the function runs. An error of the function is raised here."""
        ...


class ThreadedTask(Generic[T]):
    """Runs functions in a daemon thread, so that the end of the process does not wait for them."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None

    def start(self, work: Callable[[], T]) -> None:
        assert self._thread is None, "one background task at a time"
        self._value = self._error = None

        def run() -> None:
            try:
                self._value = work()
            except BaseException as e:
                self._error = e

        self._thread = threading.Thread(target=run, name="background-task", daemon=True)
        self._thread.start()

    def result(self) -> T | None:
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._error is not None:
            raise self._error
        return self._value


class InlineTask(Generic[T]):
    """Runs a function when ``result`` is called, in the same thread; for `device install` and tests."""

    def __init__(self) -> None:
        self._work: Callable[[], T] | None = None

    @property
    def busy(self) -> bool:
        return self._work is not None

    def start(self, work: Callable[[], T]) -> None:
        self._work = work

    def result(self) -> T | None:
        work, self._work = self._work, None
        return work() if work is not None else None
