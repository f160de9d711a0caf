"""Commands as users run them, each in a process of its own; and the same stopped at a chosen moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cellfleet.canonical import sha256_file
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import run

_PLAIN = "import sys\nfrom cellfleet.cli.main import main\nmain()\n"
_STOPPED = """\
import os, signal, sys
event, part, count, what = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
del sys.argv[1:5]
seen = 0

def hook(name, args):
    global seen
    if name == event and any(part in os.fspath(a) for a in args if isinstance(a, (str, os.PathLike))):
        seen += 1
        if seen == count:
            os.kill(os.getpid(), what)

sys.addaudithook(hook)
"""

TOML = """
[model]
name = "discs"
[data]
source = "data"
validation_fraction = 0.2
test_fraction = 0.2
[training]
epochs = 3
validate_every = 1
batch_size = 4
crop_px = 32
learning_rate = 0.01
features = [8, 16]
residual_units = 1
threads = 1
[gate]
min_ap50 = 0
min_dice = 0
min_stratum_ap50 = 0
[optimize]
calibration_frames = 2
openvino = false
[bundle]
golden_frames = 2
golden_px = 64
"""
"""A project whose commands take seconds."""


BUNDLE = "bundles/discs-0.1.0.bundle.zip"


def command(*argv: str | Path, code: str = "") -> list[str]:
    """The argument list of a process that runs ``code`` and then cellfleet."""
    return [sys.executable, "-c", code + _PLAIN, *map(str, argv)]


def cellfleet(
    *argv: str | Path, cwd: Path, expect: int = ExitCode.OK, code: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in ``cwd`` and check its exit code; there is never a traceback.

    Args:
        argv: the command and its arguments.
        cwd: where the user is.
        expect: the exit code; a negative one is the signal that killed it.
        code: Python text that runs first.
        variables: of the environment.
    """
    done = subprocess.run(
        command(*argv, code=code), cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def stopped(
    moment: tuple[str, str, int], what: signal.Signals, *argv: str | Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command that gets the signal at a moment.

    Args:
        moment: an audit event of Python (``os.rename``, ``open``), a part of one of its paths, and the how-many-eth time.
        what: SIGINT is Ctrl-C.
        argv, cwd: as above.
    """
    event, part, count = moment
    code = 130 if what == signal.SIGINT else -what
    return cellfleet(event, part, str(count), str(int(what)), *argv, cwd=cwd, expect=code, code=_STOPPED)


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, *texts: str) -> None:
    """Run a command in this process; check its exit code and that standard error says these texts and a hint."""
    capsys.readouterr()
    assert run(argv) == code, argv
    err = capsys.readouterr().err
    flat = " ".join(err.split())
    for text in (*texts, "hint: "):
        assert text in flat, err
    assert "Traceback" not in err


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user, without this process's own settings of cellfleet."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CELLFLEET_", "PYTHONPATH"))}
    return {**kept, "OMP_NUM_THREADS": "1", **variables}


def tree(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Digests of all files below a folder by their paths; databases are left out, and paths with a part of ``without``."""
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    names = {p.relative_to(root).as_posix(): p for p in files}
    return {n: sha256_file(p) for n, p in names.items() if not any(w in n for w in (".db", *without))}


def leftovers(root: Path) -> list[str]:
    """Temporary files and folders below a folder."""
    return sorted(p.name for p in root.rglob(".*") if ".part" in p.name or p.name.endswith(".old"))
