"""The errors of trust, one class per cause.

::

    TrustError
     +-- Untrusted             metadata or an artifact that must not be used
     |    +-- UnknownRoot      a first root other than the pinned one
     |    +-- Missing          a required file does not exist
     |    +-- BadMetadata      a file that is not metadata, or invalid metadata
     |    +-- BadSignature     too few valid signatures
     |    +-- Expired          past its expiry date
     |    +-- ClockWrong       signed later than the time of this machine's clock
     |    +-- RolledBack       an older version than one that was trusted before
     |    +-- MixedUp          files that do not belong together
     |    +-- NotNamed         one of the two repositories does not name it
     |    +-- Disagree         the repositories describe it differently
     |    +-- WrongDevice      made for another instrument
     |    +-- Downgrade        a lower release counter without a valid allowance
     |    +-- EndlessData      more bytes than promised
     |    +-- WrongBytes       an artifact with another length or SHA-256
     |    +-- NotUpward        a publication that does not follow the published metadata
     +-- KeyTrouble            a key that is missing, locked or not the expected one

    NetworkError
     +-- DownloadBroke         a download that stopped early; the received part is kept and the next attempt resumes
"""

from __future__ import annotations

from cellfleet.errors import NetworkError, TrustError

_DISTRUST = "nothing was installed or changed; ask the publisher or the operator; do not bypass this check"


class Untrusted(TrustError):
    """Metadata or an artifact that must not be used; the message names the repository and the reason.

    Attributes:
        may_pass: it can have an innocent cause and go away (a server that was off, a wrong clock), so it is retried.
    """

    may_pass = False

    def __init__(self, message: str, *, hint: str = _DISTRUST) -> None:
        super().__init__(message, hint=hint)


class UnknownRoot(Untrusted):
    """A first root other than the pinned one."""


class Missing(Untrusted):
    """A required file does not exist."""

    may_pass = True


class BadMetadata(Untrusted):
    """A file that is not metadata, or invalid metadata."""


class BadSignature(Untrusted):
    """Too few valid signatures."""


class Expired(Untrusted):
    """Past its expiry date."""

    may_pass = True


class ClockWrong(Untrusted):
    """Signed later than the time of this machine's clock."""

    may_pass = True


class RolledBack(Untrusted):
    """An older version than one that was trusted before."""


class MixedUp(Untrusted):
    """Files that do not belong together."""


class NotNamed(Untrusted):
    """One of the two repositories does not name it."""


class Disagree(Untrusted):
    """The repositories describe it differently."""


class WrongDevice(Untrusted):
    """Made for another instrument."""


class Downgrade(Untrusted):
    """A lower release counter without a valid allowance."""


class EndlessData(Untrusted):
    """More bytes than promised."""


class WrongBytes(Untrusted):
    """An artifact with another length or SHA-256."""


class NotUpward(Untrusted):
    """A publication that does not follow the published metadata."""


class KeyTrouble(TrustError):
    """A key that is missing, locked or not the expected one."""


class DownloadBroke(NetworkError):
    """A download that stopped early; the received part is kept on the disk.

    Attributes:
        fetched_bytes: received over the network in this attempt.
    """

    def __init__(self, message: str, *, fetched_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint or "the next attempt resumes where this one stopped")
        self.fetched_bytes = fetched_bytes
