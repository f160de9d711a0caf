"""The server as a real process on loopback: quick to start, clear when it cannot, gone when asked, harmless to restart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellfleet.errors import ConfigError, FleetError
from cellfleet.fleet.context import Context
from cellfleet.fleet.serve import Stop, facts_file, serve
from cellfleet.ports.http import SystemHttp
from support_waiting import PATIENCE_S, wait_until


@contextlib.contextmanager
def process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    program = [sys.executable, "-c", "from cellfleet.cli.entry import main; main()"]
    command = [*program, "fleet", "serve", "--json", "--port", "0", *arguments]
    started = subprocess.Popen(
        command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def address_of(folder: Path, server: subprocess.Popen[str]) -> str:
    """The address of a server, when it is up."""

    def address() -> str:
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((folder / "serve.json").read_bytes())
            if known["pid"] == server.pid:
                return str(known["address"])
        return ""

    return wait_until(address, "the server is up", alive=lambda: server.poll() is None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cellfleet.toml").write_text("[fleet]\ntick_s = 0.2\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_when_asked(folder: Path, number: int, code: int) -> None:
    with process(folder) as server:
        address = address_of(folder, server)
        assert SystemHttp().request("GET", f"{address}/readyz").status == 200
        server.send_signal(number)
        out, err = server.communicate(timeout=PATIENCE_S)
        assert server.returncode == code, err
        assert json.loads(out)["address"] == address
        assert "Traceback" not in err
    assert not (folder / "serve.json").exists()


def test_it_ends_with_its_input(folder: Path) -> None:
    with process(folder, "--tied") as server:
        address_of(folder, server)
        server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0


def test_it_is_killed_and_starts_again(folder: Path) -> None:
    for _ in range(2):
        with process(folder) as server:
            address = address_of(folder, server)
            assert SystemHttp().request("GET", f"{address}/readyz").status == 200
            server.kill()
            server.wait(PATIENCE_S)
    assert (folder / "serve.json").exists()
    with process(folder) as server:
        address_of(folder, server)
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=PATIENCE_S)
        assert server.returncode == 0


def test_a_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with process(folder, "--port", str(port)) as server:
            _, err = server.communicate(timeout=PATIENCE_S)
            assert server.returncode == 3
            assert "in use" in err
            assert "--port" in err
            assert "Traceback" not in err


class Running:
    """A server in a thread of this process."""

    def __init__(self, context: Context, **options: object) -> None:
        self.stop, self.address = Stop(), ""
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(context, options))
        self.thread.start()
        assert self.ready.wait(PATIENCE_S)

    def _run(self, context: Context, options: dict[str, object]) -> None:
        def ready(address: str) -> None:
            self.address = address
            self.ready.set()

        try:
            serve(context, port=0, stop=self.stop, on_ready=ready, **options)  # type: ignore[arg-type]
        finally:
            self.ready.set()

    def end(self) -> None:
        self.stop.ask()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def run(context: Context) -> Iterator[Callable[[], Running]]:
    running: list[Running] = []

    def start() -> Running:
        running.append(Running(context))
        return running[-1]

    yield start
    for server in running:
        server.end()


def test_in_a_thread_on_both_databases(context: Context, run: Callable[[], Running]) -> None:
    server = run()
    facts = json.loads(facts_file(context).read_bytes())
    assert server.address == facts["address"] == "http://fleet.test"
    assert SystemHttp().request("GET", facts["listening"] + "/readyz").status == 200


def test_100_mb_at_once_over_a_socket(folder: Path) -> None:
    """The server answers 413 before the body was sent, and closes the connection."""
    with process(folder) as server:
        address = address_of(folder, server)
        port = int(address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as line:
            line.sendall(
                b"POST /api/v1/devices/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100000000\r\n\r\n" + b" " * 1000
            )
            answer = b""
            while piece := line.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"application/problem+json" in answer


def test_an_address_that_is_not_ours(context: Context) -> None:
    with pytest.raises(FleetError, match="cannot listen"):
        serve(context, host="203.0.113.1", port=0)
    with pytest.raises(ConfigError, match=r"fleet\.host"):
        serve(context, host="no such host!", port=0)


def test_the_start_leaves_no_process_behind(folder: Path) -> None:
    import psutil

    with process(folder) as server:
        address_of(folder, server)
        assert psutil.Process(server.pid).children(recursive=True) == []
    assert os.getpid() != server.pid
