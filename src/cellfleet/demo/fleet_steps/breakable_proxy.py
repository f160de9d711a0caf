"""Simulate a network failure: a proxy on loopback that forwards connections to a server until it is cut."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK = 1 << 16


class BreakableProxy:
    """Listens on a free loopback port and forwards to a server. While cut, it closes connections at once.

    Args:
        host: host of the server.
        port: port of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._connected = True
        threading.Thread(target=self._accept, name="breakable-proxy", daemon=True).start()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Close all connections and refuse new ones."""
        with self._lock:
            self._connected = False
            broken = list(self._open)
        for s in broken:
            _end(s)

    def restore(self) -> None:
        """Forward again."""
        with self._lock:
            self._connected = True

    def close(self) -> None:
        """Stop listening."""
        self.cut()
        _end(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._connected:
                _end(client)
                continue
            try:
                server = socket.create_connection(self._server, timeout=10)
                server.settimeout(None)
            except OSError:
                _end(client)
                continue
            with self._lock:
                self._open |= {client, server}
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, target), name="breakable-proxy", daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(data)
        for s in (source, target):
            _end(s)
        with self._lock:
            self._open -= {source, target}


def _end(s: socket.socket) -> None:
    with contextlib.suppress(OSError):
        s.shutdown(socket.SHUT_RDWR)
    s.close()
