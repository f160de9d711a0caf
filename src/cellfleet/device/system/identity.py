"""Identity of an instrument: an Ed25519 key that never leaves it, its id, and the roots that it trusts."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cellfleet.canonical import canonical_bytes, digest_of, sha256_hex
from cellfleet.device.system.home import Home
from cellfleet.errors import DeviceError, WireError
from cellfleet.ports import write_atomic
from cellfleet.wire.base import DeviceId, DeviceName, Message, Text, Time, parse
from cellfleet.wire.enrol import TokenRequest, TrustAnchors, claim_statement, token_statement

_KEY, _FACTS, _ANCHORS = "device.pem", "device.json", "anchors.json"


class DeviceRecord(Message):
    """``identity/device.json``. ``server`` is empty in a fleet of one."""

    format_version: Literal[1] = 1
    device_id: DeviceId
    name: DeviceName
    server: Text = ""
    claimed_at: Time


class _AnchorsFile(TrustAnchors):
    """``identity/anchors.json``."""

    format_version: Literal[1] = 1

    @property
    def anchors(self) -> TrustAnchors:
        """The anchors as a message; a claim token ends in its digest."""
        return TrustAnchors(image_root=self.image_root, director_root=self.director_root)


@dataclass(frozen=True)
class Identity:
    """Key and record of an instrument."""

    key: Ed25519PrivateKey
    record: DeviceRecord

    @property
    def device_id(self) -> str:
        """Id of this instrument."""
        return self.record.device_id

    def token_request(self, at: datetime) -> TokenRequest:
        """A signed request for an access token.

        Args:
            at: current time by the server's clock, as far as it is known.
        """
        nonce = secrets.token_hex(16)
        draft = TokenRequest(device_id=self.device_id, issued_at=at, nonce=nonce, signature="-" * 16)
        issued_at = draft.model_dump(mode="json")["issued_at"]
        return draft.model_copy(update={"signature": sign(self.key, token_statement(self.device_id, issued_at, nonce))})


def sign(key: Ed25519PrivateKey, statement: dict[str, object]) -> str:
    """Sign a statement with Ed25519.

    Args:
        key: of the device.
        statement: plain JSON data; its canonical form is signed.

    Returns:
        The signature in Base64.
    """
    return base64.b64encode(key.sign(canonical_bytes(statement))).decode()


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public half, PEM (SubjectPublicKeyInfo)."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def claim_proof(key: Ed25519PrivateKey, claim_token: str, name: str) -> str:
    """Prove that a device that claims its place owns its key.

    Args:
        key: of the device.
        claim_token: from the operator.
        name: of the device.

    Returns:
        The signature in Base64.
    """
    return sign(key, claim_statement(claim_token, name, public_pem(key)))


def local_id(key: Ed25519PrivateKey) -> str:
    """Id of an instrument without a server, derived from its key."""
    return "dev-" + sha256_hex(public_pem(key).encode())[:12]


def load_or_make_key(home: Home) -> Ed25519PrivateKey:
    """Load the instrument's key, or generate it (mode 0600).

    Raises:
        DeviceError: the file is not an Ed25519 private key.
        StorageError: the disk refuses.
    """
    path = home.identity / _KEY
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        write_atomic(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
        return key
    return load_key(home)


def load_key(home: Home) -> Ed25519PrivateKey:
    """Load the instrument's key.

    Raises:
        DeviceError: it is missing, or not an Ed25519 private key.
    """
    path = home.identity / _KEY
    try:
        loaded = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise DeviceError(
            f"{path} cannot be read as a private key: {e}",
            hint="restore it from a backup; without it, provision this instrument again with another HOME",
        ) from e
    if not isinstance(loaded, Ed25519PrivateKey):
        raise DeviceError(f"{path} is not an Ed25519 key", hint="provision this instrument again with another HOME")
    return loaded


def load_identity(home: Home) -> Identity | None:
    """Load the identity; None when the instrument was not provisioned.

    Raises:
        DeviceError: it is damaged, or its key is missing.
    """
    path = home.identity / _FACTS
    if not path.exists():
        return None
    try:
        record = parse(DeviceRecord, path.read_bytes())
    except (OSError, WireError) as e:
        raise DeviceError(f"{path} cannot be read: {e}", hint="restore it from a backup, or provision again") from e
    return Identity(load_key(home), record)


def save_record(home: Home, record: DeviceRecord) -> None:
    """Write device.json.

    Args:
        home: of the instrument.
        record: id, name and server.
    """
    write_atomic(home.identity / _FACTS, record.to_json())


def load_anchors(home: Home) -> TrustAnchors | None:
    """Load the digests of the roots that this instrument trusts; None: none yet.

    Raises:
        DeviceError: the file is damaged.
    """
    path = home.identity / _ANCHORS
    if not path.exists():
        return None
    try:
        return parse(_AnchorsFile, path.read_bytes()).anchors
    except (OSError, WireError) as e:
        raise DeviceError(f"{path} cannot be read: {e}", hint="restore it from a backup, or provision again") from e


def save_anchors(home: Home, anchors: TrustAnchors) -> None:
    """Write anchors.json.

    Args:
        home: of the instrument.
        anchors: digests of the roots that it trusts.
    """
    write_atomic(home.identity / _ANCHORS, _AnchorsFile(**anchors.model_dump()).to_json())


def anchors_digest(anchors: TrustAnchors) -> str:
    """First 32 hex digits of the digest of the anchors: the end of a claim token."""
    return digest_of(anchors.model_dump(mode="json"))[:32]
