"""Exit codes: fixed, documented in docs/cli.md, defined only here."""

from __future__ import annotations

from enum import IntEnum

from cellfleet.errors import CellfleetError, ConfigError, GateFailed, StorageError


class ExitCode(IntEnum):
    """The exit codes of commands."""

    OK = 0
    FINDINGS = 1  # findings of level error, a failed gate, data sets that differ
    USAGE = 2  # wrong flags or settings
    REFUSED = 3  # an input that cannot be read, used or trusted
    STORAGE = 4  # the disk failed
    INTERNAL = 70  # a defect of cellfleet
    INTERRUPTED = 130  # Ctrl-C


def code_for(error: CellfleetError) -> ExitCode:
    """The exit code of an error."""
    if isinstance(error, ConfigError):
        return ExitCode.USAGE
    if isinstance(error, StorageError):
        return ExitCode.STORAGE
    if isinstance(error, GateFailed):
        return ExitCode.FINDINGS
    return ExitCode.REFUSED
