"""Canonical JSON and digests: the same facts give the same bytes on every machine.

The form is RFC 8785 (JCS) restricted to what cellfleet stores: keys sorted by code point, no white space, UTF-8,
no NaN or infinity. Floats keep Python's shortest round-trip form.

>>> digest_of({"b": 1, "a": [True, None]})[:12]
'e9cd9eb02aee'
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def canonical_bytes(value: Any) -> bytes:
    """Encode plain JSON data (dict, list, str, int, float, bool, None) canonically.

    Raises:
        ValueError: for NaN or infinity.
        TypeError: for anything that is not plain JSON data.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes | memoryview) -> str:
    """SHA-256 of bytes, as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``."""
    return sha256_hex(canonical_bytes(value))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, read in chunks; OSError passes through to the caller."""
    h = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK):
            h.update(chunk)
    return h.hexdigest()
