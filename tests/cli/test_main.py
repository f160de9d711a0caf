"""The program as a whole: help, version, errors and their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cellfleet import __version__, errors
from cellfleet.bundle import refusals
from cellfleet.cli import main
from cellfleet.cli.exit_codes import ExitCode, code_for
from cellfleet.cli.main import COMMANDS, run


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert [c for c in COMMANDS if f"\n  {c} " not in out] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == f"cellfleet {__version__}"


@pytest.mark.parametrize("argv", [["nonsense"], ["train", "--nonsense"], ["segment"], ["data", "frieze"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.err
    assert "Traceback" not in captured.err


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    known = {
        errors.ConfigError: ExitCode.USAGE,
        errors.StorageError: ExitCode.STORAGE,
        errors.GateFailed: ExitCode.FINDINGS,
    }
    kinds = [v for m in (errors, refusals) for v in vars(m).values() if isinstance(v, type)]
    for kind in kinds:
        if issubclass(kind, errors.CellfleetError) and kind is not errors.CellfleetError:
            wanted = next((c for k, c in known.items() if issubclass(kind, k)), ExitCode.REFUSED)
            assert code_for(kind("message", hint="hint")) == wanted, kind


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_wanted: str) -> object:
        raise error

    monkeypatch.setattr(main, "build_app", fails)


def test_a_defect_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(ZeroDivisionError("division by zero"), monkeypatch)
    assert run(["init", "x"]) == ExitCode.INTERNAL
    err = capsys.readouterr().err
    assert "defect of cellfleet" in err
    assert "ZeroDivisionError" in err


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(MemoryError(), monkeypatch)
    assert run(["init", "x"]) == ExitCode.INTERNAL
    assert "not enough memory" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cellfleet.cli.main import run\nfrom cellfleet.cli import common\n"
        "sys.stdin.read()\nsys.exit(run(['init', sys.argv[1], '--json']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "p")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
    assert process.stderr is not None
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0, err
    assert "Traceback" not in err


def test_ctrl_c_while_the_program_is_being_loaded() -> None:
    code = """
import os, signal, sys
def hook(name, args):
    if name == "import" and args[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
from cellfleet.cli.entry import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.INTERRUPTED
    assert done.stderr == "error: interrupted\n"
