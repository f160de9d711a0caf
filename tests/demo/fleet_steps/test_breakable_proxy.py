"""A network that is cut and comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cellfleet.demo.fleet_steps.breakable_proxy import BreakableProxy
from support_waiting import PATIENCE_S


@contextmanager
def echo() -> Iterator[int]:
    """A server on loopback that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(peer: socket.socket) -> None:
            with peer:
                while data := peer.recv(1000):
                    peer.sendall(data)

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def answers(port: int) -> bool:
    """A new connection carries bytes there and back."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as s:
            s.sendall(b"hello")
            return s.recv(10) == b"hello"
    except OSError:
        return False


def ended(s: socket.socket) -> bool:
    """The other side is gone."""
    try:
        return s.recv(10) == b""
    except ConnectionError:
        return True


def test_a_proxy_that_is_cut_breaks_connections_and_forwards_again_when_restored() -> None:
    with echo() as port:
        proxy = BreakableProxy("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S) as s:
            s.sendall(b"hello")
            assert s.recv(10) == b"hello"
            proxy.cut()
            assert ended(s)
        assert not answers(proxy.port)
        proxy.restore()
        assert answers(proxy.port)
        was = proxy.port
        proxy.close()
        assert not answers(was)


def test_a_proxy_to_nowhere_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    proxy = BreakableProxy("127.0.0.1", port)
    assert not answers(proxy.port)
    proxy.close()
