"""A PostgreSQL server for tests: installed when missing, started once for all test processes, gone when they are.

The server is kept by a guardian, a process of its own (``python support_postgres.py FOLDER BIN``), that looks after the
test processes by their ids: when the last has ended, however it ended, it stops the server and removes the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from support_waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "postgres-parts.sh"
_LOOK_S = 0.5
_PORTS = 5
"""So many ports are tried: another program may take one before PostgreSQL has it."""
_SETTINGS = (
    "fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=32MB",
    "log_min_messages=fatal", "autovacuum=off",
)  # fmt: skip


class PostgresMissing(RuntimeError):
    """PostgreSQL cannot be installed or started; the message says what to do."""


def server_url() -> str:
    """URL of the server's ``postgres`` database; the server lives as long as this process, and is shared with others.

    Raises:
        PostgresMissing: it can be neither found nor installed, or does not start.
    """
    home = Path(tempfile.gettempdir()) / f"cellfleet-test-postgres-{os.getuid()}"
    home.mkdir(mode=0o755, exist_ok=True)
    with _locked(home / "lock"):
        users = home / "users"
        users.mkdir(exist_ok=True)
        (users / str(os.getpid())).touch()
        facts = home / "server.json"
        if facts.exists():
            known = json.loads(facts.read_text(encoding="utf-8"))
            if psutil.pid_exists(known["guardian"]):
                return str(known["url"])
        return _start(home, facts)


def _start(home: Path, facts: Path) -> str:
    facts.unlink(missing_ok=True)
    with (home / "guardian.log").open("w") as log:
        guardian = subprocess.Popen(
            [sys.executable, __file__, str(home), str(_programs())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(facts.exists, "PostgreSQL starts", alive=lambda: guardian.poll() is None)
    except AssertionError as e:
        text = (home / "guardian.log").read_text(encoding="utf-8", errors="replace")
        raise PostgresMissing(f"PostgreSQL does not start:\n{text[-2000:]}") from e
    guardian.returncode = 0  # it may outlive this process, so nobody waits for it
    return str(json.loads(facts.read_text(encoding="utf-8"))["url"])


def _programs() -> Path:
    """Folder of the server's programs; installs them when they are missing."""
    found = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False)
    folder = Path(found.stdout.strip().splitlines()[-1]) if found.stdout.strip() else Path()
    if found.returncode != 0 or not (folder / "initdb").exists():
        raise PostgresMissing(found.stderr[-2000:] or "PostgreSQL is missing; see scripts/postgres-parts.sh")
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def guard(home: Path, programs: Path) -> None:
    """Run the server until no test process is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    data = Path(tempfile.mkdtemp(prefix="cellfleet-postgres-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        server, port = _launch(data, programs)
        url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        part = home / "server.json.part"
        part.write_text(json.dumps({"url": url, "guardian": os.getpid()}), encoding="utf-8")
        part.replace(home / "server.json")
        while _anybody(home) and server.poll() is None:
            time.sleep(_LOOK_S)
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # "fast": sessions that are left are ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(30)
            server.kill()
        shutil.rmtree(data, ignore_errors=True)


def _launch(data: Path, programs: Path) -> tuple[subprocess.Popen[bytes], int]:
    as_user = _as_postgres(data)
    cluster = data / "cluster"
    made = subprocess.run(
        [programs / "initdb", "-D", cluster, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True, check=False, cwd="/", **as_user,
    )  # fmt: skip
    if made.returncode != 0:
        raise PostgresMissing(made.stderr.decode(errors="replace"))
    settings = [part for text in (*_SETTINGS, f"unix_socket_directories={data}") for part in ("-c", text)]
    for _ in range(_PORTS):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        server = subprocess.Popen(
            [programs / "postgres", "-D", cluster, "-h", "127.0.0.1", "-p", str(port), *settings], cwd="/", **as_user
        )
        ask: list[str | Path] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: not subprocess.run(ask, check=False).returncode,  # noqa: B023
                alive=lambda: server.poll() is None,  # noqa: B023
                every_s=0.05,
            )
            return server, port
        server.kill()
        server.wait()
    raise PostgresMissing("the server does not answer")


def _as_postgres(data: Path) -> dict[str, Any]:
    """PostgreSQL refuses to be run by root; it gets the user that its package makes."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(data, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}


def _anybody(home: Path) -> bool:
    with _locked(home / "lock"):
        alive = False
        for entry in (home / "users").iterdir():
            if psutil.pid_exists(int(entry.name)):
                alive = True
            else:
                entry.unlink()
        if not alive:
            (home / "server.json").unlink(missing_ok=True)
        return alive


if __name__ == "__main__":
    guard(Path(sys.argv[1]), Path(sys.argv[2]))
