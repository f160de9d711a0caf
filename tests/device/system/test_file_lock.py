"""Locks between real processes: one holder, whose name others learn, until its process ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellfleet.device.system.file_lock import held, holder_of, is_held
from cellfleet.errors import DeviceError, StorageError

HOLDER = """\
import sys
from pathlib import Path
from cellfleet.device.system.file_lock import held
with held(Path(sys.argv[1]), "the agent"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state" / "a.lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        yield process
        process.kill()


def test_another_process_is_named(path: Path, holder: subprocess.Popen[bytes]) -> None:
    assert is_held(path)
    message = rf"home is in use by the agent \(process {holder.pid}\)"
    with pytest.raises(DeviceError, match=message) as e, held(path, "a test", hint="wait"):
        raise AssertionError("two holders")
    assert e.value.hint == "wait"
    assert is_held(path)


def test_a_lock_ends_with_a_process_that_is_killed(path: Path, holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    assert not is_held(path)
    with held(path, "a test"):
        assert holder_of(path) == f"a test (process {os.getpid()})"


def test_a_holder_that_is_about_to_end_is_waited_for(path: Path, holder: subprocess.Popen[bytes]) -> None:
    got = threading.Event()

    def want() -> None:
        with held(path, "a test", wait_s=600):
            got.set()

    thread = threading.Thread(target=want)
    thread.start()
    assert holder.stdin is not None
    holder.stdin.close()
    thread.join()
    assert got.is_set()


def test_a_lock_is_given_back_and_taken_again(path: Path) -> None:
    assert not is_held(path)
    assert not path.exists(), "asking makes no file"
    for who in ("one", "two"):
        with held(path, who):
            assert is_held(path)
            assert holder_of(path) == f"{who} (process {os.getpid()})"
        assert not is_held(path)
    with pytest.raises(ZeroDivisionError), held(path, "three"):
        raise ZeroDivisionError
    assert not is_held(path)


def test_the_holder_of_an_older_version_is_named(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(json.dumps({"who": "the agent", "pid": 7}).encode())
    assert holder_of(path) == "the agent (process 7)"
    path.with_suffix(".holder").write_bytes(b"cut sho")
    assert holder_of(path) == "the agent (process 7)"


def test_a_disk_that_refuses_is_a_storage_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StorageError), held(path, "a test"):
        raise AssertionError("a folder was locked")
