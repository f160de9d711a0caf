"""cellfleet as of the commit before features, out of a recording, as processes of its own beside today's.

`scripts/record_previous.py` makes the recordings from the git history. The old programs run with today's libraries and
today's compiled kernels, whose Python signatures are a contract (docs/architecture.md).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cellfleet._kernels
from support_journeys import environment

REVISION = "f65648a"
"""The last commit whose programs do not announce features."""
DATA = Path(__file__).parent / "journeys" / "data"
SIDE = DATA / "previous-side.tar.xz"
"""`src/cellfleet` of REVISION."""
SITE = DATA / "previous-site.tar.xz"
"""A project with its database, and the folder ``home`` of an instrument in the middle of an update, made by SIDE."""
_PROGRAM = "from cellfleet.cli.entry import main; main()"
_WITHOUT_EDITABLE = """\
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "_editable" not in type(f).__module__]
"""
"""An editable install sends every import of cellfleet to today's sources; the folder on PYTHONPATH must win."""


@dataclass(frozen=True)
class Side:
    """One version of cellfleet.

    Attributes:
        name: for test ids.
        folder: what goes on PYTHONPATH; None: today's installation.
    """

    name: str
    folder: Path | None = None

    def environ(self, **variables: str) -> dict[str, str]:
        """Variables of a process of this version."""
        path = {} if self.folder is None else {"PYTHONPATH": str(self.folder)}
        return environment(**path, **variables)

    def run(self, *argv: str | Path, cwd: Path, stdin: str = "", **variables: str) -> str:
        """Run a command to its end; its standard output."""
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *map(str, argv)],
            cwd=cwd, env=self.environ(**variables), input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def facts(self, *argv: str | Path, cwd: Path, stdin: str = "", **variables: str) -> dict[str, Any]:
        """What a command prints with ``--json``."""
        found: dict[str, Any] = json.loads(self.run(*argv, "--json", cwd=cwd, stdin=stdin, **variables))
        return found

    @contextlib.contextmanager
    def program(self, *argv: str | Path, cwd: Path, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs beside the test and ends with it; ``--tied`` ends what it started, too."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *map(str, argv), "--tied"],
                cwd=cwd, env=self.environ(**variables), stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


TODAY = Side("today")


def unpack(archive: Path, into: Path) -> None:
    """Unpack a recording."""
    with tarfile.open(archive) as packed:
        packed.extractall(into, filter="data")


def unpack_side(into: Path) -> None:
    """The old version, unpacked below a folder; ``Side("previous", into)`` runs it with this Python."""
    unpack(SIDE, into)
    kernels = Path(cellfleet._kernels.__file__)
    (into / "cellfleet" / kernels.name).symlink_to(kernels)
    (into / "sitecustomize.py").write_text(_WITHOUT_EDITABLE, encoding="utf-8")
