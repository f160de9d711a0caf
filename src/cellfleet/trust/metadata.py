"""TUF metadata as bytes: made and signed, read with distrust. Errors of python-tuf are translated here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import Signer
from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError, UnsignedMetadataError
from tuf.api.serialization import DeserializationError, SerializationError

from cellfleet.trust.layout import max_bytes
from cellfleet.trust.refusals import BadMetadata, BadSignature, ClockWrong, EndlessData, Expired, KeyTrouble, MixedUp
from cellfleet.trust.tuf_types import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

ISSUED_AT = "issued_at"
"""Our own field of signed metadata: when it was signed, which a clock that was set back contradicts."""
_CLOCK_SLACK = timedelta(days=1)
"""How far a clock may be behind: a PC in a lab may take its local time for UTC."""
_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """Metadata that was read; nothing in it is to be believed before its signatures were checked.

    Attributes:
        where: the file in words, for messages.
        data: the file.
        payload: the bytes that signatures cover.
    """

    signed: T
    where: str
    data: bytes
    payload: bytes
    signatures: dict[str, Any]


def load(kind: type[T], data: bytes, where: str) -> Loaded[T]:
    """Read the bytes of a file.

    Raises:
        EndlessData: longer than such a file may be.
        BadMetadata: no metadata of that kind.
    """
    if len(data) > max_bytes(kind.type):
        raise EndlessData(f"{where}: {len(data)} bytes are more than such a file may have")
    try:
        envelope: Metadata[T] = Metadata.from_bytes(data)
        if not isinstance(envelope.signed, kind):
            raise BadMetadata(f"{where}: it is {envelope.signed.type} metadata instead of {kind.type}")
        return Loaded(envelope.signed, where, data, envelope.signed_bytes, envelope.signatures)
    except (DeserializationError, SerializationError, RepositoryError) as e:
        raise BadMetadata(f"{where}: it cannot be read as metadata") from e
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise BadMetadata(f"{where}: it makes no sense as metadata") from e


def check_signatures(loaded: Loaded[T], delegator: Root | Targets, role: str) -> None:
    """The threshold of the role's keys signed it, as the delegator says.

    Raises:
        BadSignature: they did not.
        BadMetadata: the delegator knows no such role, or its keys make no sense.
    """
    try:
        delegator.verify_delegate(role, loaded.payload, loaded.signatures)
    except UnsignedMetadataError as e:
        raise BadSignature(f"{loaded.where}: {str(e).replace('was signed', 'is signed')} that it needs") from e
    except (ValueError, TypeError, KeyError, AttributeError, RepositoryError, SecureSystemsError) as e:
        raise BadMetadata(f"{loaded.where}: its signatures cannot be checked: {e}") from e


def check_life(loaded: Loaded[T], now: datetime) -> None:
    """It has not expired, and was not signed in what this clock says is the future.

    Raises:
        Expired, ClockWrong.
    """
    issued = issued_at(loaded.signed)
    if issued is not None and now < issued - _CLOCK_SLACK:
        raise ClockWrong(
            f"{loaded.where}: it was signed at {issued:{_FORMAT}}, but the clock of this machine says {now:{_FORMAT}}",
            hint="set the clock of this machine",
        )
    expires = loaded.signed.expires
    if now >= expires:
        raise Expired(
            f"{loaded.where}: it expired at {expires:{_FORMAT}}; the clock of this machine says {now:{_FORMAT}}",
            hint="is the clock right? otherwise the publisher or the server must renew it",
        )


def check_bytes(data: bytes, meta: MetaFile, where: str) -> None:
    """The bytes are those that other metadata named, by length and hash.

    Raises:
        MixedUp: they are not, or no hash is named.
    """
    if not meta.hashes or "sha256" not in meta.hashes or meta.length is None:
        raise MixedUp(f"{where}: the metadata that names it gives no length and SHA-256")
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as e:
        raise MixedUp(f"{where}: it is not the file that was named: {e}") from e


def issued_at(signed: Root | Timestamp | Snapshot | Targets) -> datetime | None:
    """When it was signed, as it says itself."""
    value = signed.unrecognized_fields.get(ISSUED_AT)
    try:
        return datetime.strptime(value, _FORMAT).replace(tzinfo=UTC) if isinstance(value, str) else None
    except ValueError:
        return None


def sign(signed: T, signers: Iterable[Signer], now: datetime, life: timedelta) -> bytes:
    """Give it its time and life, and sign it with every key.

    Raises:
        KeyTrouble: a key (or the machine that holds it) fails.
    """
    signed.unrecognized_fields[ISSUED_AT] = now.astimezone(UTC).strftime(_FORMAT)
    signed.expires = now.astimezone(UTC) + life
    envelope: Metadata[T] = Metadata(signed)
    try:
        for signer in signers:
            envelope.sign(signer, append=True)
        return bytes(envelope.to_bytes())
    except (UnsignedMetadataError, SerializationError) as e:
        raise KeyTrouble(f"cannot sign {signed.type} metadata: {e}", hint="check the key and what holds it") from e


def meta_of(version: int, data: bytes) -> MetaFile:
    """How other metadata names a file: version, length, SHA-256."""
    return MetaFile.from_data(version, data, ["sha256"])
