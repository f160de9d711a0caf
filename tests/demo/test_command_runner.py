"""Steps of the demo: commands as a user types them, in their order, until one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.demo.command_runner import CommandFailed, CommandRunner


def test_the_demo_stops_where_a_command_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = CommandRunner(steps=2)
    runner.step("First", "What it is about.")
    assert runner.run("init", str(tmp_path / "p")) == ExitCode.OK
    with pytest.raises(CommandFailed) as caught:
        runner.run("init", str(tmp_path / "p"))
    assert caught.value.code == ExitCode.USAGE
    runner.step("Second", "Goes on.")
    assert list(runner.seconds) == ["First"]
    out = capsys.readouterr().out
    assert "1/2  First" in out
    assert "2/2  Second" in out
    assert "$ cellfleet init" in out


def test_findings_are_noted(tmp_path: Path) -> None:
    runner = CommandRunner(steps=1)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    code = runner.run("data", "validate", str(tmp_path), may_find=True)
    assert code in (ExitCode.FINDINGS, ExitCode.OK)
    assert bool(runner.findings) == (code == ExitCode.FINDINGS)
    with pytest.raises(CommandFailed):
        runner.run("data", "show", str(tmp_path / "absent.json"), may_find=True)


def test_without_torch_there_is_no_torch(tmp_path: Path) -> None:
    """Training says what is missing, and does not crash."""
    runner = CommandRunner(steps=1)
    with pytest.raises(CommandFailed) as caught:
        runner.run_without_torch("train", "-p", str(tmp_path))
    assert caught.value.code == ExitCode.REFUSED
