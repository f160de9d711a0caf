"""TUF metadata as bytes: make and sign it, read it without trusting it. Errors of python-tuf are translated here."""

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
class LoadedMetadata(Generic[T]):
    """Metadata that was parsed. Nothing in it is trusted before its signatures are checked.

    Attributes:
        signed: the content.
        where: repository and role, for messages.
        data: the file.
        payload: the bytes that signatures cover.
        signatures: signature by key id.
    """

    signed: T
    where: str
    data: bytes
    payload: bytes
    signatures: dict[str, Any]


def load(kind: type[T], data: bytes, where: str) -> LoadedMetadata[T]:
    """Parse the bytes of a file.

    Args:
        kind: the expected type of metadata.
        data: the file.
        where: repository and role, for messages.

    Returns:
        The metadata; its signatures are not checked.

    Raises:
        EndlessData: it is longer than a file of that type may be.
        BadMetadata: it is not metadata of that type.
    """
    if len(data) > max_bytes(kind.type):
        raise EndlessData(f"{where}: {len(data)} bytes are more than such a file may have")
    try:
        envelope: Metadata[T] = Metadata.from_bytes(data)
        if not isinstance(envelope.signed, kind):
            raise BadMetadata(f"{where}: it is {envelope.signed.type} metadata instead of {kind.type}")
        return LoadedMetadata(envelope.signed, where, data, envelope.signed_bytes, envelope.signatures)
    except (DeserializationError, SerializationError, RepositoryError) as e:
        raise BadMetadata(f"{where}: it cannot be read as metadata") from e
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise BadMetadata(f"{where}: it is invalid metadata") from e


def check_signatures(loaded: LoadedMetadata[T], delegator: Root | Targets, role: str) -> None:
    """Check that the threshold of keys that the delegator gives for the role signed the metadata.

    Args:
        loaded: the metadata.
        delegator: names the keys and the threshold.
        role: the role that must sign.

    Raises:
        BadSignature: there are too few good signatures.
        BadMetadata: the delegator does not know the role, or its keys are invalid.
    """
    try:
        delegator.verify_delegate(role, loaded.payload, loaded.signatures)
    except UnsignedMetadataError as e:
        raise BadSignature(f"{loaded.where}: {str(e).replace('was signed', 'is signed')} that it needs") from e
    except (ValueError, TypeError, KeyError, AttributeError, RepositoryError, SecureSystemsError) as e:
        raise BadMetadata(f"{loaded.where}: its signatures cannot be checked: {e}") from e


def check_life(loaded: LoadedMetadata[T], now: datetime) -> None:
    """Check that metadata has not expired and was not signed in the future.

    Args:
        loaded: the metadata.
        now: the time of this machine's clock.

    Raises:
        Expired: ``now`` is at or after its expiry date.
        ClockWrong: it was signed more than a day after ``now``.
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
            hint="check the clock; if it is right, the publisher or the server must renew the metadata",
        )


def check_bytes(data: bytes, meta: MetaFile, where: str) -> None:
    """Check the length and the hash that other metadata gives for a file.

    Args:
        data: the file.
        meta: length and hashes, as other metadata names them.
        where: repository and role, for messages.

    Raises:
        MixedUp: they differ, or no length and SHA-256 are named.
    """
    if not meta.hashes or "sha256" not in meta.hashes or meta.length is None:
        raise MixedUp(f"{where}: the metadata that names it gives no length and SHA-256")
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as e:
        raise MixedUp(f"{where}: it is not the file that was named: {e}") from e


def issued_at(signed: Root | Timestamp | Snapshot | Targets) -> datetime | None:
    """When the metadata says that it was signed; None: it gives no valid time."""
    value = signed.unrecognized_fields.get(ISSUED_AT)
    try:
        return datetime.strptime(value, _FORMAT).replace(tzinfo=UTC) if isinstance(value, str) else None
    except ValueError:
        return None


def sign(signed: T, signers: Iterable[Signer], now: datetime, life: timedelta) -> bytes:
    """Set the time of signing and the expiry date, and sign.

    Args:
        signed: the content; it is changed.
        signers: keys; each of them signs.
        now: the time of signing.
        life: how long it is valid.

    Returns:
        The bytes of the file.

    Raises:
        KeyTrouble: a key, or the device that holds it, fails.
    """
    signed.unrecognized_fields[ISSUED_AT] = now.astimezone(UTC).strftime(_FORMAT)
    signed.expires = now.astimezone(UTC) + life
    envelope: Metadata[T] = Metadata(signed)
    try:
        for signer in signers:
            envelope.sign(signer, append=True)
        return bytes(envelope.to_bytes())
    except (UnsignedMetadataError, SerializationError) as e:
        raise KeyTrouble(
            f"cannot sign {signed.type} metadata: {e}", hint="check the key and the device that holds it"
        ) from e


def meta_of(version: int, data: bytes) -> MetaFile:
    """How other metadata names a file.

    Args:
        version: the version of the file.
        data: its bytes.

    Returns:
        Version, length and SHA-256.
    """
    return MetaFile.from_data(version, data, ["sha256"])
