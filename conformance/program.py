"""A segmenter program under judgement: lines to it, lines from it, each judged by the schema as it comes."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import jsonschema_rs

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "segmenter.schema.json"
Facts = dict[str, Any]


class Child(Protocol):
    """A running program; ``subprocess.Popen`` is one."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; ``subprocess.TimeoutExpired`` when it goes on."""
        ...

    def kill(self) -> None:
        """End it by force."""
        ...


Start = Callable[[Sequence[str]], Child]
"""Starts the program with these arguments."""


class PromiseBroken(AssertionError):
    """The program does not do what the protocol promises."""


def require(is_kept: object, text: str) -> None:
    """Say that a promise is broken unless it is kept.

    Args:
        is_kept: true or not.
        text: what was promised, and what was found.

    Raises:
        PromiseBroken: it is not kept.
    """
    if not is_kept:
        raise PromiseBroken(text)


class Program:
    """One run of the program.

    Args:
        child: just started.
        timeout_s: longest wait for a line, and for the end.
    """

    def __init__(self, child: Child, timeout_s: float) -> None:
        self._child, self._timeout_s = child, timeout_s
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()

    def first_line(self) -> Facts:
        """The first line, judged by the schema."""
        return self._next("FirstLine")

    def send(self, request: Facts | bytes) -> int:
        """Write a request with an id of its own, or bytes as they are; gives the id."""
        self._number += 1
        line = request if isinstance(request, bytes) else json.dumps({"id": self._number, **request}).encode()
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line + b"\n")
            self._child.stdin.flush()
        except OSError as e:
            raise PromiseBroken(f"the program reads no input any more: {e}") from e
        return self._number

    def answer(self) -> Facts:
        """The next line, judged by the schema."""
        return self._next("Answer")

    def ask(self, request: Facts) -> Facts:
        """Write a request and wait for its answer."""
        number = self.send(request)
        found = self.answer()
        require(found["id"] == number, f"the answer to request {number} has the id {found['id']}: {found}")
        return found

    def end(self) -> int:
        """End its input and give its exit code."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        try:
            return self._child.wait(self._timeout_s)
        except Exception as e:
            raise PromiseBroken(f"the program has not ended after {self._timeout_s:.0f} s") from e

    def rest(self) -> list[bytes]:
        """The lines that were not asked for; call it after the end."""
        found = []
        while line := self._line():
            found.append(line)
        return found

    def kill(self) -> None:
        """End it, whatever it does."""
        self._child.kill()
        self._child.wait(self._timeout_s)
        if self._child.stdin is not None:
            self._child.stdin.close()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(b"")

    def _line(self) -> bytes:
        try:
            line = self._lines.get(timeout=self._timeout_s)
        except queue.Empty as e:
            raise PromiseBroken(f"there is no line after {self._timeout_s:.0f} s") from e
        if not line:
            self._lines.put(b"")  # there will be no more, however often the question is put
        return line

    def _next(self, group: str) -> Facts:
        line = self._line()
        require(line, "the program has ended its output")
        try:
            found: Facts = json.loads(line, parse_constant=_no_number)
        except ValueError as e:
            raise PromiseBroken(f"a line that is no JSON ({e}): {line[:200]!r}") from e
        _judge(group, found)
        return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _judge(group: str, line: Any) -> None:
    """By the class of the line that it says it is: that gives better texts than all alternatives at once."""
    schema = json.loads(SCHEMA.read_bytes())
    kinds = {
        schema["$defs"][name]["properties"]["event"]["const"]: name
        for name in (ref["$ref"].rpartition("/")[2] for ref in schema["$defs"][group]["oneOf"])
    }
    require(isinstance(line, dict), f"a line that is no JSON object: {line!r}")
    event = line.get("event")
    require(event in kinds, f"the event {event!r} is none of {sorted(kinds)}: {line}")
    kind = schema["$defs"][kinds[event]] | {"$defs": schema["$defs"]}
    found = [": ".join((*_where(e), e.message)) for e in jsonschema_rs.iter_errors(kind, line)]
    require(not found, f"{kinds[event]} differs from its schema: {'; '.join(found)}")


def _where(error: jsonschema_rs.ValidationError) -> list[str]:
    """The path of the wrong field; nothing for the line as a whole."""
    return [".".join(map(str, error.instance_path))] if error.instance_path else []
