"""A log stays small, and a disk that refuses costs lines alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cellfleet.device.system.rotating_log import RotatingLog


def test_a_log_is_rotated(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "x.log", max_bytes=100, kept=2)
    for i in range(60):
        log.write(f"line {i:02d}")
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert all(p.stat().st_size <= 110 for p in tmp_path.iterdir())
    lines = [line for n in ("x.log.2", "x.log.1", "x.log") for line in (tmp_path / n).read_text().splitlines()]
    assert lines == [f"line {i:02d}" for i in range(60 - len(lines), 60)]


def test_a_log_goes_on_after_a_restart_and_after_it_was_closed(tmp_path: Path) -> None:
    for text in ("one", "two"):
        log = RotatingLog(tmp_path / "x.log")
        log.write(text)
        log.close()
        log.write(f"{text} again")
        log.close()
    assert (tmp_path / "x.log").read_text() == "one\none again\ntwo\ntwo again\n"


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "x.log")
    log.write("100 %s of %(x)s {y} \ud800 細胞")
    log.close()
    assert (tmp_path / "x.log").read_text("utf-8") == "100 %s of %(x)s {y} ? 細胞\n"


def test_a_disk_that_refuses_costs_lines_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    log = RotatingLog(tmp_path / "log" / "x.log")
    log.write("lost")
    (tmp_path / "log").unlink()
    log.write("kept")
    log.close()
    assert (tmp_path / "log" / "x.log").read_text() == "kept\n"
    assert capfd.readouterr() == ("", "")


def test_a_log_that_cannot_be_rotated_grows_on(tmp_path: Path) -> None:
    blocked = tmp_path / "x.log.1"
    blocked.mkdir()
    (blocked / "file").touch()
    log = RotatingLog(tmp_path / "x.log", max_bytes=20, kept=1)
    for i in range(10):
        log.write(f"line {i}")
    log.close()
    assert (tmp_path / "x.log").read_text().splitlines() == [f"line {i}" for i in range(10)]


def test_threads_do_not_mix_lines(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "x.log", max_bytes=500, kept=99)

    def write(name: str) -> None:
        for i in range(50):
            log.write(f"{name}{i}" * 9)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = sorted(line for p in tmp_path.iterdir() for line in p.read_text().splitlines())
    assert lines == sorted(f"{n}{i}" * 9 for n in "abcd" for i in range(50))
