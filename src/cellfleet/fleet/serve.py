"""The fleet server as a process: uvicorn and the ticker's thread. It keeps no state, so it can stop at any moment."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from cellfleet.errors import ConfigError, FleetError
from cellfleet.fleet.app import create_app
from cellfleet.fleet.context import Context
from cellfleet.ports import write_atomic

log = logging.getLogger(__name__)

_GRACE_S = 5
_TICKER_ENDS_S = 30.0
_EVERYWHERE = ("0.0.0.0", "::", "")


class Stop:
    """Asks the server to end; ``by`` is the signal that asked first, 0: none."""

    def __init__(self) -> None:
        self._server: uvicorn.Server | None = None
        self._asked = False
        self.by = 0

    def ask(self, by: int = 0) -> None:
        """End gracefully; asked by a signal for the second time: end at once."""
        again = self._asked and by != 0
        self._asked, self.by = True, self.by or by
        if self._server is not None:
            self._server.should_exit = True
            self._server.force_exit = self._server.force_exit or again

    def attach(self, server: uvicorn.Server) -> None:
        """The server that is to end; it may have been asked to before it began."""
        self._server = server
        server.should_exit = server.should_exit or self._asked


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to ``serve``."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    context: Context,
    *,
    host: str | None = None,
    port: int | None = None,
    stop: Stop | None = None,
    on_ready: Callable[[str], None] = lambda _address: None,
    tied: bool = False,
) -> int:
    """Serve until asked to stop.

    Args:
        host, port: instead of the settings'; port 0 takes a free one.
        stop: asks it to end from another thread.
        on_ready: called with the address when it listens.
        tied: end with the end of standard input, too.

    Returns:
        The signal that ended it; 0: none did.

    Raises:
        FleetError: the address is in use or not this machine's.
        ConfigError: no such host.
    """
    stop = stop or Stop()
    settings = context.settings
    with _listening(host or settings.host, settings.port if port is None else port) as listener:
        listening = _address(host or settings.host, listener.getsockname()[1])
        context.address = settings.public_url.rstrip("/") or listening
        facts = facts_file(context)

        def ready() -> None:
            known = {"format_version": 1, "address": context.address, "listening": listening, "pid": os.getpid()}
            write_atomic(facts, json.dumps(known).encode())
            on_ready(context.address)

        config = uvicorn.Config(
            create_app(context),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE_S,
            timeout_keep_alive=75,
        )
        server = _Server(config, ready)
        stop.attach(server)
        with _signals(stop), _ticker(context):
            if tied:
                threading.Thread(target=_end_with_input, args=(stop,), daemon=True).start()
            server.run(sockets=[listener])
        _forget(facts)
    return stop.by


def facts_file(context: Context) -> Path:
    """``serve.json`` beside the database (in the project's folder for PostgreSQL).

    It holds ``address`` (for devices and people), ``listening`` (on this machine) and ``pid``.
    """
    file = context.database.file
    return (file.parent if file else context.root) / "serve.json"


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as e:
        raise ConfigError(f"fleet.host: {host!r}: {e.strerror}", hint="name an address of this machine") from e
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as listener:
        if os.name != "nt":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
            listener.listen(256)
        except OSError as e:
            raise _cannot_listen(host, port, e) from e
        yield listener


def _cannot_listen(host: str, port: int, cause: OSError) -> FleetError:
    hints = {
        errno.EADDRINUSE: "another program (another fleet server?) has it; end that, or choose another with --port",
        errno.EADDRNOTAVAIL: "name an address of this machine with --host",
        errno.EACCES: "ports below 1024 are the administrator's; choose another with --port",
    }
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    return FleetError(f"cannot listen on {host}:{port}: {reason}", hint=hints.get(cause.errno or 0, ""))


def _address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in _EVERYWHERE else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


@contextlib.contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask to stop; only the main thread can have that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.ask(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _ticker(context: Context) -> Iterator[None]:
    """What happens with time, in its own thread."""
    from cellfleet.fleet import ticker

    stop = threading.Event()
    thread = threading.Thread(target=ticker.run, args=(context, stop), name="ticker", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_TICKER_ENDS_S)
        if thread.is_alive():
            log.warning("the ticker did not end in %s s", _TICKER_ENDS_S)


def _end_with_input(stop: Stop) -> None:
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin.buffer.readline(4096):
            pass
    stop.ask()


def _forget(facts: Path) -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        if json.loads(facts.read_bytes())["pid"] == os.getpid():
            facts.unlink()
