"""Every way in which a bundle is refused, each an error of its own.

::

    BundleError
     +-- NotABundle            no zip archive, cut short, or bytes where none belong
     +-- TooLarge              archive, file or tensor above the limits
     +-- UnsafeName            a name that leads out of the folder, or two names that are one on some disks
     +-- UnsafeEntry           compressed, encrypted, a link, or a header that contradicts the directory
     +-- UnknownFormat         a format version that this program does not know
     +-- BadDescription        bundle.json or bioimageio.yaml that makes no sense
     +-- WrongFiles            a file missing or too many
     +-- WrongDigest           a file that is not the described one
     +-- HostileModel          an ONNX file that does more than compute, or not what the description promises
     +-- BadFrame              a golden frame or mask that cannot be read
"""

from __future__ import annotations

from cellfleet.errors import BundleError

_AGAIN = "download the bundle again from where it was released; do not use this file"


class BundleRefused(BundleError):
    """A bundle that must not be used; the message says why."""

    def __init__(self, message: str, *, hint: str = _AGAIN) -> None:
        super().__init__(message, hint=hint)


class NotABundle(BundleRefused):
    """No zip archive, cut short, or bytes where none belong."""


class TooLarge(BundleRefused):
    """Above the limits."""


class UnsafeName(BundleRefused):
    """A name that leads out of the folder, or clashes with another."""


class UnsafeEntry(BundleRefused):
    """Compressed, encrypted, a link, or contradictory."""


class UnknownFormat(BundleRefused):
    """A format version that this program does not know."""


class BadDescription(BundleRefused):
    """A description that makes no sense."""


class WrongFiles(BundleRefused):
    """Files missing or too many."""


class WrongDigest(BundleRefused):
    """A file that is not the described one."""


class HostileModel(BundleRefused):
    """An ONNX file that does more than compute, or not what is promised."""


class BadFrame(BundleRefused):
    """A golden frame or mask that cannot be read."""
