"""HTTP over a real loopback server: any status is an answer, a broken network is an error with words."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cellfleet.errors import NetworkError
from cellfleet.ports.http import SystemHttp


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/half":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.path in ("/endless", "/trickle"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._chunks(b"x" * (1000 if self.path == "/endless" else 1))
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._answer(200 if self.path == "/" else 404, self.path.encode() * 100)

    def _chunks(self, chunk: bytes) -> None:
        """Chunks, until the other side has had enough."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
                if self.path == "/trickle":
                    self.server.wanted.wait()  # type: ignore[attr-defined]

    def do_PUT(self) -> None:
        self._answer(201, self.rfile.read(int(self.headers["Content-Length"])) + self.headers["X-Say"].encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    wanted = server.wanted = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    wanted.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_any_status_is_an_answer(url: str) -> None:
    http = SystemHttp()
    found = http.request("GET", url + "/")
    assert (found.status, found.headers["etag"], found.body) == (200, '"e"', b"/" * 100)
    assert http.request("GET", url + "/no").status == 404
    assert http.request("GET", url + "/moved").status == 302
    sent = http.request("PUT", url + "/", headers={"X-Say": "!"}, body=b"hello")
    assert (sent.status, sent.body) == (201, b"hello!")


def test_a_body_can_be_read_piece_by_piece(url: str) -> None:
    with SystemHttp().stream(url + "/") as answer:
        assert answer.status == 200
        assert b"".join(answer.chunks) == b"/" * 100


def test_what_trickles_arrives_as_it_comes(url: str) -> None:
    """One byte was sent and no more: it must not wait for a full piece."""
    with SystemHttp().stream(url + "/trickle") as answer:
        assert next(iter(answer.chunks)) == b"x"


def test_an_answer_without_end_can_be_left(url: str) -> None:
    http = SystemHttp()
    with http.stream(url + "/endless") as answer:
        assert len(next(iter(answer.chunks))) == 1000
    assert http.request("GET", url + "/").status == 200


def test_a_connection_that_breaks_is_an_error(url: str) -> None:
    with pytest.raises(NetworkError, match="/half"):
        SystemHttp().request("GET", url + "/half")


def test_an_answer_without_end_is_refused(url: str) -> None:
    with pytest.raises(NetworkError, match="exceeds the limit of 50 bytes"):
        SystemHttp(max_bytes=50).request("GET", url + "/")


def test_nobody_there_is_an_error_with_a_hint() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]  # bound, so that no other program gets it, and not listening
        with pytest.raises(NetworkError, match=str(port)) as e:
            SystemHttp().request("GET", f"http://127.0.0.1:{port}/")
    assert "server" in e.value.hint
    assert e.value.message == f"http://127.0.0.1:{port}/: Connection refused"


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NetworkError):
        SystemHttp(timeout_s=0.1).request("GET", f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(NetworkError):
        SystemHttp().request("GET", "no address at all")
