"""Bytes by digest, in a folder: artifacts, thumbnails, uploads. A name is a SHA-256, so no name of a client is a path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from cellfleet.errors import FleetError
from cellfleet.fleet.refusals import bad_request, not_found
from cellfleet.ports import make_dir
from cellfleet.ports.disk import move_into_place, storage_error
from cellfleet.ports.temporary_files import part_path, sweep

CHUNK = 1 << 18
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A content-addressed store: ``<folder>/<first two digits>/<sha256>``. Safe for several threads and processes.

    Args:
        folder: made when the first bytes come.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the bytes are, or would be.

        Raises:
            FleetError: not a digest.
        """
        if not _DIGEST.fullmatch(sha256):
            raise FleetError(f"{sha256[:80]!r} is not a SHA-256 digest", hint="64 lower-case hex digits are")
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """The bytes are here, whole."""
        return self.path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """Length in bytes.

        Raises:
            RequestRefused: 404, not here.
        """
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            raise not_found(f"file {sha256}") from None

    def put(self, chunks: Iterable[bytes], *, sha256: str | None = None, length: int | None = None) -> str:
        """Store bytes durably; they appear whole or not at all.

        Args:
            chunks: the bytes, in order.
            sha256: the digest they must have; None: whatever they have.
            length: the number they must have; reading stops as soon as there are more.

        Returns:
            The digest.

        Raises:
            RequestRefused: 422 ``digest-mismatch`` or ``length-mismatch``; nothing is kept then.
            StorageError: the disk refuses.
        """
        if sha256 is not None:
            self.path(sha256)
        folder = make_dir(self.folder / "incoming")
        sweep(folder)
        part = part_path(folder / (sha256 or "unnamed"))
        try:
            with part.open("xb") as f:
                found, count = _copy(chunks, f, length)
            _check(found, count, sha256, length)
            target = self.path(found)
            make_dir(target.parent)
            move_into_place(part, target)
        except OSError as e:
            raise storage_error("write", part, e) from e
        finally:
            part.unlink(missing_ok=True)
        return found

    def open(self, sha256: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` up to, not including, ``end``, in pieces.

        Raises:
            RequestRefused: 404, not here (at once, not when the first piece is read).
        """
        path = self.path(sha256)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise not_found(f"file {sha256}") from None
        except OSError as e:
            raise storage_error("read", path, e) from e

        def pieces() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = None if end is None else end - start
                while left is None or left > 0:
                    piece = file.read(CHUNK if left is None else min(CHUNK, left))
                    if not piece:
                        return
                    left = None if left is None else left - len(piece)
                    yield piece

        return pieces()

    def read(self, sha256: str) -> bytes:
        """All bytes at once; for small things.

        Raises:
            RequestRefused: 404, not here.
        """
        return b"".join(self.open(sha256))

    def remove(self, sha256: str) -> None:
        """Forget the bytes; no error when they are not here."""
        self.path(sha256).unlink(missing_ok=True)


def _copy(chunks: Iterable[bytes], file: BinaryIO, length: int | None) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    for chunk in chunks:
        count += len(chunk)
        if length is not None and count > length:
            raise bad_request("length-mismatch", f"there are more than the announced {length} bytes")
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest(), count


def _check(found: str, count: int, sha256: str | None, length: int | None) -> None:
    if length is not None and count != length:
        raise bad_request("length-mismatch", f"there are {count} bytes, {length} were announced")
    if sha256 is not None and found != sha256:
        raise bad_request(
            "digest-mismatch", f"the bytes have the digest {found}, {sha256} was announced", hint="send them again"
        )
