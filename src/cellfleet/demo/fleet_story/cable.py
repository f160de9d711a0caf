"""A network cable that can be pulled: forwards connections on loopback to a server until it is cut."""

from __future__ import annotations

import contextlib
import socket
import threading

_CHUNK = 1 << 16


class Cable:
    """Listens on a free port of loopback and forwards to another one. While it is cut, connections are closed at once.

    Args:
        host, port: of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = True
        threading.Thread(target=self._accept, name="cable", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Break what is connected, and refuse what comes."""
        with self._lock:
            self._whole = False
            broken = list(self._open)
        for s in broken:
            _end(s)

    def mend(self) -> None:
        """Forward again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """The end; nothing listens any more."""
        self.cut()
        _end(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
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
                threading.Thread(target=self._copy, args=(source, target), name="cable", daemon=True).start()

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
