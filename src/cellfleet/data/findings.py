"""What is wrong with a data set: one finding, one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        level: ``error`` (the data set cannot be frozen) or ``warning``.
        code: a fixed short name of the kind of finding, for programs.
        file: the file, below the data set's root where possible.
        message: what is wrong.
        what_to_do: the next step.
    """

    level: Level
    code: str
    file: str
    message: str
    what_to_do: str

    def __str__(self) -> str:
        return f"{self.level}: {self.file}: {self.message} [{self.code}]; {self.what_to_do}"

    def to_dict(self) -> dict[str, str]:
        """Plain data for JSON."""
        return asdict(self)


def error(code: str, file: str, message: str, what_to_do: str) -> Finding:
    """A finding that keeps the data set from being frozen."""
    return Finding("error", code, file, message, what_to_do)


def warning(code: str, file: str, message: str, what_to_do: str) -> Finding:
    """A finding that the user should look at."""
    return Finding("warning", code, file, message, what_to_do)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those findings that are errors."""
    return [f for f in findings if f.level == "error"]
