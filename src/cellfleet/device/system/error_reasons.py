"""Converts errors to reasons: the class of an error gives the code, its message and hint the detail."""

from __future__ import annotations

from collections.abc import Mapping

from cellfleet.errors import CellfleetError
from cellfleet.wire.reason import Reason, because

CODES: Mapping[str, str] = {
    # cellfleet.errors
    "BundleError": "bundle.other",
    "CameraError": "camera.fails",
    "NetworkError": "error.network",
    "StorageError": "error.storage",
    "TrustError": "trust.other",
    "WireError": "error.wire",
    # cellfleet.trust.refusals
    "BadMetadata": "trust.bad-metadata",
    "BadSignature": "trust.bad-signature",
    "ClockWrong": "trust.clock",
    "Disagree": "trust.disagree",
    "Downgrade": "trust.downgrade",
    "EndlessData": "trust.endless",
    "Expired": "trust.expired",
    "KeyTrouble": "trust.key",
    "Missing": "trust.missing",
    "MixedUp": "trust.mixed",
    "NotNamed": "trust.not-named",
    "NotUpward": "trust.not-upward",
    "RolledBack": "trust.rolled-back",
    "UnknownRoot": "trust.unknown-root",
    "WrongBytes": "trust.wrong-bytes",
    "WrongDevice": "trust.wrong-device",
    # cellfleet.bundle.refusals
    "BadDescription": "bundle.bad-description",
    "BadFrame": "bundle.bad-frame",
    "HostileModel": "bundle.hostile-model",
    "NotABundle": "bundle.not-a-bundle",
    "TooLarge": "bundle.too-large",
    "UnknownFormat": "bundle.unknown-format",
    "UnsafeEntry": "bundle.unsafe-entry",
    "UnsafeName": "bundle.unsafe-name",
    "WrongDigest": "bundle.wrong-digest",
    "WrongFiles": "bundle.wrong-files",
}
"""Class name of an error -> code. By name, because importing ``bundle`` loads libraries that the camera does not need."""


def error_reason(error: CellfleetError) -> Reason:
    """The reason for an error; the code is that of the nearest class in ``CODES``."""
    code = next((CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in CODES), "error.other")
    detail = f"{error.message}; {error.hint}" if error.hint else error.message
    return because(code, detail=detail)
