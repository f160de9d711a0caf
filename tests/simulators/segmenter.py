"""A segmenter program that runs as a thread of the test: the real service and its lines, without a process."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from cellfleet.device.segmenter.main import answer_line
from cellfleet.device.segmenter.service import open_service
from cellfleet.errors import CellfleetError, WireError
from cellfleet.wire.segmenter import REFUSED_EXIT, Refused, SegmentRequest, read_object, read_request

KILLED = -9


class Crash(BaseException):
    """The program ends with this exit code, as by a signal or a call of ``exit``."""

    def __init__(self, code: int = KILLED) -> None:
        super().__init__(code)
        self.code = code


Change = Callable[[bytes, bytes], Sequence[bytes]]
"""What a program writes, given the line that it read (empty before the first one) and the line that it should write."""


def honest(_: bytes, answer: bytes) -> Sequence[bytes]:
    """The line that it should write."""
    return [answer]


class Flags:
    """A folder by which a test says how a segmenter fails: files named ``<how>-<frame>``.

    ``crash`` and ``hang`` happen before the frame is segmented, ``die`` between the row on the disk and the answer. A flag
    works once, unless ``for-ever`` is there, too; ``any`` stands for every frame. A segmenter that hangs makes ``begun``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def taken(self, how: str, line: bytes) -> bool:
        """Whether it fails that way with this request."""
        try:
            request = read_request(read_object(line))
        except WireError:
            return False
        if not isinstance(request, SegmentRequest):
            return False
        found = [f for name in (request.facts.frame, "any") if (f := self._folder / f"{how}-{name}").exists()]
        if found and not (self._folder / "for-ever").exists():
            found[0].unlink()
        if found and how == "hang":
            (self._folder / "begun").touch()
        return bool(found)


class ThreadedSegmenter:
    """A child as ``subprocess.Popen`` gives one.

    Args:
        arguments: of the program: ``--bundle FILE``; the rest is ignored, but for ``--variant NAME``.
        change: what it writes instead of the right lines; may raise ``Crash``.
        at_end: exit code at the end of the input.
        flags: how it fails.

    Attributes:
        killed: set by ``kill``; a program that hangs waits for it.
    """

    def __init__(
        self, arguments: Sequence[str], change: Change = honest, at_end: int = 0, flags: Flags | None = None
    ) -> None:
        self._arguments, self._change, self._at_end, self._flags = list(arguments), change, at_end, flags
        self.killed, self._ended = threading.Event(), threading.Event()
        self._code: int | None = None
        self.pid = os.getpid()
        requests, write = os.pipe()
        read, answers = os.pipe()
        self._requests, self._answers = os.fdopen(requests, "rb"), os.fdopen(answers, "wb", buffering=0)
        self.stdin: IO[bytes] | None = os.fdopen(write, "wb")
        self.stdout: IO[bytes] | None = os.fdopen(read, "rb")
        threading.Thread(target=self._run, name="threaded-segmenter", daemon=True).start()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(self._arguments, timeout or 0.0)
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """It writes nothing more and ends."""
        self.killed.set()
        assert self.stdin is not None
        self.stdin.close()

    def _run(self) -> None:
        code = KILLED
        try:
            code = self._serve()
        except Crash as e:
            code = e.code
        except (BrokenPipeError, ValueError):
            code = 0  # no reader is left
        finally:
            self._code = KILLED if self.killed.is_set() else code
            self._requests.close()
            self._answers.close()
            self._ended.set()

    def _serve(self) -> int:
        try:
            service = open_service(Path(self._option("--bundle")), self._option("--variant"), threads=1, tile_px=1024)
        except CellfleetError as e:
            self._write(b"", Refused(message=e.message, hint=e.hint).to_json())
            return REFUSED_EXIT
        self._write(b"", service.ready().to_json())
        for line in self._requests:
            if self.killed.is_set():
                break
            self._fail("crash", line)
            self._fail("hang", line)
            answer = answer_line(service, line.rstrip(b"\n")).to_json()
            self._fail("die", line)
            self._write(line, answer)
        return self._at_end

    def _fail(self, how: str, line: bytes) -> None:
        if self._flags is not None and self._flags.taken(how, line):
            if how == "hang":
                self.killed.wait()
            raise Crash

    def _option(self, name: str) -> str:
        given = self._arguments
        return given[given.index(name) + 1] if name in given else ""

    def _write(self, request: bytes, answer: bytes) -> None:
        for line in self._change(request, answer):
            if not self.killed.is_set():
                self._answers.write(line + b"\n")
