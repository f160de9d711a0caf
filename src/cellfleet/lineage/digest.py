"""The run digest: the identity of everything that decides a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellfleet.canonical import digest_of

RUN_FORMAT = 1


def run_digest(bundle_sha256: str, variant: str, engine: str, engine_version: str, settings: Mapping[str, Any]) -> str:
    """SHA-256 over bundle, variant, engine with version, and settings; a result is (experiment, frame, run digest).

    Args:
        bundle_sha256: digest of the bundle's bytes.
        variant: ``engine/precision``.
        engine: name of the engine.
        engine_version: version of the engine's library.
        settings: everything else that can change a mask (tile size, object parameters, pixel-size handling), as plain
            JSON data.

    Returns:
        64 hex digits.

    Raises:
        TypeError, ValueError: when ``settings`` is not plain JSON data.
    """
    return digest_of(
        {
            "format_version": RUN_FORMAT,
            "bundle": bundle_sha256,
            "variant": variant,
            "engine": engine,
            "engine_version": engine_version,
            "settings": dict(settings),
        }
    )
