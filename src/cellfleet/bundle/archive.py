"""The container: one stored zip archive, written byte for byte reproducibly and read with distrust.

Format: APPNOTE.TXT 6.3.10 of PKWARE. Every entry is stored, with the fixed time 1980-01-01, no extra fields, no flags but
UTF-8 names. Because that is all that a bundle may hold, a reader can demand it: local headers, directory and file size
must account for every byte, so nothing can hide before, between or behind the entries.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cellfleet.bundle.refusals import NotABundle, TooLarge, UnsafeEntry, UnsafeName
from cellfleet.errors import BundleError

_TIME = (1980, 1, 1, 0, 0, 0)
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_END = struct.Struct("<4sHHHHIIH")
_UTF8 = 0x800
_DIRECTORY_ENTRY = 46  # bytes of a directory entry before its name
_ZIP64 = b"PK\x06\x07"
_ZIP64_SIZE = 20
_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}


@dataclass(frozen=True)
class ArchiveLimits:
    """What a bundle may weigh at most, in bytes and numbers."""

    archive_bytes: int = 2_000_000_000
    file_bytes: int = 1_000_000_000
    files: int = 1_000
    name_chars: int = 200


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of some files: a pure function of names and contents.

    Raises:
        UnsafeName: a name that no reader would accept.
        TooLarge: above the limits.
    """
    limits = ArchiveLimits()
    _check_names(list(files), limits)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, files[name])
    if out.tell() > limits.archive_bytes:
        raise TooLarge(
            f"the bundle would have {out.tell():,} bytes", hint="use a smaller network or fewer golden frames"
        )
    return out.getvalue()


@dataclass(frozen=True)
class Span:
    """Where the bytes of an entry lie in the archive."""

    start: int
    size: int


def index(path: Path, limits: ArchiveLimits) -> dict[str, Span]:
    """The entries of an archive, after everything but their contents was checked.

    Raises:
        NotABundle, TooLarge, UnsafeName, UnsafeEntry: see there.
        BundleError: the file cannot be opened.
    """
    try:
        size = path.stat().st_size
        if size > limits.archive_bytes:
            raise TooLarge(f"{path} has {size:,} bytes, more than the limit of {limits.archive_bytes:,}")
        with path.open("rb") as f:
            return _index(f, path, size, limits)
    except FileNotFoundError as e:
        raise BundleError(f"{path}: no such file", hint="check the path") from e
    except IsADirectoryError as e:
        raise BundleError(f"{path} is a folder, not a bundle", hint="name the .bundle.zip file") from e
    except OSError as e:
        raise BundleError(f"cannot read {path}: {e.strerror}", hint="check the permissions and the disk") from e


def read_span(path: Path, span: Span) -> bytes:
    """The bytes of one entry."""
    try:
        with path.open("rb") as f:
            f.seek(span.start)
            return f.read(span.size)
    except OSError as e:
        raise BundleError(f"cannot read {path}: {e.strerror}", hint="check the permissions and the disk") from e


def _index(f: BinaryIO, path: Path, size: int, limits: ArchiveLimits) -> dict[str, Span]:
    if size < _END.size or f.read(4) != b"PK\x03\x04":
        raise NotABundle(f"{path} is not a bundle: it does not begin as a zip archive")
    f.seek(size - _END.size)
    magic, disk, start_disk, here, total, length, offset, comment = _END.unpack(f.read(_END.size))
    if magic != b"PK\x05\x06":
        raise NotABundle(f"{path} is cut short or has bytes behind its end")
    if disk or start_disk or here != total or comment or offset + length + _END.size != size:
        raise NotABundle(f"{path}: the archive's directory does not fit the file")
    if total > limits.files:
        raise TooLarge(f"{path} holds {total} files, more than {limits.files}")
    infos = _infos(f, path, size)
    if len(infos) != total:
        raise NotABundle(f"{path}: the archive's directory lists {len(infos)} files, not {total}")
    _check_names([i.orig_filename for i in infos], limits)
    if length != sum(_DIRECTORY_ENTRY + len(i.orig_filename) for i in infos):
        raise UnsafeEntry(f"{path}: the archive's directory holds more than its files")
    spans: dict[str, Span] = {}
    position = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        spans[info.orig_filename] = span = _entry(f, info, position, path, limits)
        position = span.start + span.size
    if position != offset:
        raise UnsafeEntry(f"{path}: there are bytes between the last file and the directory")
    return spans


def _infos(f: BinaryIO, path: Path, size: int) -> list[zipfile.ZipInfo]:
    f.seek(max(0, size - _END.size - _ZIP64_SIZE))
    if f.read(len(_ZIP64)) == _ZIP64:
        raise NotABundle(f"{path} uses the 64-bit form of zip, which bundles do not use")
    try:
        with zipfile.ZipFile(f) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as e:
        raise NotABundle(f"{path} is not a readable zip archive: {e}") from e


def _entry(f: BinaryIO, info: zipfile.ZipInfo, position: int, path: Path, limits: ArchiveLimits) -> Span:
    name = info.orig_filename
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise UnsafeEntry(f"{path}: {name} is compressed; the files of a bundle are stored as they are")
    if info.flag_bits & ~_UTF8:
        raise UnsafeEntry(f"{path}: {name} is encrypted or uses features that bundles do not use")
    if info.external_attr >> 16 not in (0o100644, 0) or info.extra or info.comment:
        raise UnsafeEntry(f"{path}: {name} is not a plain file (a link, a folder, or with extra fields)")
    if info.file_size > limits.file_bytes:
        raise TooLarge(f"{path}: {name} has {info.file_size:,} bytes, more than the limit of {limits.file_bytes:,}")
    if info.header_offset != position:
        raise UnsafeEntry(f"{path}: {name} overlaps another file, or bytes lie before it")
    f.seek(position)
    raw = f.read(_LOCAL.size)
    if len(raw) < _LOCAL.size:
        raise NotABundle(f"{path} is cut short at {name}")
    magic, _, flags, method, _, _, crc, packed, unpacked, name_len, extra_len = _LOCAL.unpack(raw)
    encoded = f.read(name_len)
    same = (magic, flags, method, crc, packed, unpacked) == (
        b"PK\x03\x04", info.flag_bits, 0, info.CRC, info.file_size, info.file_size
    )  # fmt: skip
    if not same or extra_len or encoded != name.encode():
        raise UnsafeEntry(f"{path}: the header of {name} contradicts the archive's directory")
    return Span(position + _LOCAL.size + name_len, info.file_size)


def _check_names(names: list[str], limits: ArchiveLimits) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if len(name) > limits.name_chars:
            raise UnsafeName(f"a name of {len(name)} characters in the bundle")
        parts = name.split("/")
        if not _NAME.fullmatch(name) or any(p.strip(".") == "" or p.endswith(".") for p in parts):
            raise UnsafeName(f"the bundle holds the unsafe name {name!r}")
        if any(p.split(".")[0].lower() in _RESERVED for p in parts):
            raise UnsafeName(f"the bundle holds the name {name!r}, which Windows reserves for a device")
        if name.lower() in seen:
            raise UnsafeName(f"the bundle holds {name!r} and {seen[name.lower()]!r}, which are one file on some disks")
        seen[name.lower()] = name
