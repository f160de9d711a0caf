"""Every way in which trust is refused, each an error of its own.

::

    TrustError
     +-- Refusal               metadata or an artifact that must not be used
     |    +-- UnknownRoot      a first root that is not the pinned one
     |    +-- Missing          a file that should be there
     |    +-- BadMetadata      a file that is no metadata, or metadata that makes no sense
     |    +-- BadSignature     too few good signatures
     |    +-- Expired          older than it may be
     |    +-- ClockWrong       the clock of this machine is before the time at which something was signed
     |    +-- RolledBack       an older version than was seen before
     |    +-- MixedUp          files that do not belong together
     |    +-- NotNamed         one of the two repositories does not name it
     |    +-- Disagree         both name it, but not alike
     |    +-- WrongDevice      made for another instrument
     |    +-- Downgrade        a lower release counter without a valid allowance
     |    +-- EndlessData      more bytes than were promised
     |    +-- WrongBytes       an artifact with another length or SHA-256
     |    +-- NotUpward        published metadata that does not follow what is there
     +-- KeyTrouble            a key that is missing, locked or not the one that it should be

    NetworkError
     +-- DownloadBroke         a download that ended early; what came stays and the next one goes on there
"""

from __future__ import annotations

from cellfleet.errors import NetworkError, TrustError

_DISTRUST = "nothing was installed or changed; ask whoever it comes from, and do not work around this"


class Refusal(TrustError):
    """Metadata or an artifact that must not be used; the message says which repository and why.

    Attributes:
        may_pass: nobody need have done wrong, and it may be good another time (a server that was off for a while, a clock).
    """

    may_pass = False

    def __init__(self, message: str, *, hint: str = _DISTRUST) -> None:
        super().__init__(message, hint=hint)


class UnknownRoot(Refusal):
    """A first root that is not the pinned one."""


class Missing(Refusal):
    """A file that should be there."""

    may_pass = True


class BadMetadata(Refusal):
    """A file that is no metadata, or metadata that makes no sense."""


class BadSignature(Refusal):
    """Too few good signatures."""


class Expired(Refusal):
    """Older than it may be."""

    may_pass = True


class ClockWrong(Refusal):
    """The clock of this machine is before the time at which something was signed."""

    may_pass = True


class RolledBack(Refusal):
    """An older version than was seen before."""


class MixedUp(Refusal):
    """Files that do not belong together."""


class NotNamed(Refusal):
    """One of the two repositories does not name it."""


class Disagree(Refusal):
    """Both repositories name it, but not alike."""


class WrongDevice(Refusal):
    """Made for another instrument."""


class Downgrade(Refusal):
    """A lower release counter without a valid allowance."""


class EndlessData(Refusal):
    """More bytes than were promised."""


class WrongBytes(Refusal):
    """An artifact with another length or SHA-256."""


class NotUpward(Refusal):
    """Published metadata that does not follow what is there."""


class KeyTrouble(TrustError):
    """A key that is missing, locked or not the one that it should be."""


class DownloadBroke(NetworkError):
    """A download that ended early; what came stays on the disk.

    Attributes:
        fetched_bytes: over the network this time.
    """

    def __init__(self, message: str, *, fetched_bytes: int, hint: str = "") -> None:
        super().__init__(message, hint=hint or "the next attempt goes on where this one stopped")
        self.fetched_bytes = fetched_bytes
