"""Signed records: DSSE envelopes with Ed25519 keys (https://github.com/secure-systems-lab/dsse).

The signature covers the payload's type and its exact bytes, so nothing is parsed before it is verified.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import CryptoSigner, SSlibKey

from cellfleet.canonical import canonical_bytes
from cellfleet.errors import LineageError
from cellfleet.ports import write_atomic

PAYLOAD_TYPE = "application/vnd.cellfleet.record+json"


class SigningKey:
    """An Ed25519 private key in a PEM file (mode 0600), with the public half beside it as ``<name>.pub``."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public_pem(self) -> bytes:
        """The public key, PEM (SubjectPublicKeyInfo)."""
        return self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """Digest that names the key (as TUF and DSSE do)."""
        return str(_ssl_key(self._private.public_key()).keyid)

    def signer(self) -> CryptoSigner:
        """The key as securesystemslib uses it."""
        return CryptoSigner(self._private, _ssl_key(self._private.public_key()))

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """Read the key, or make one when the file is absent; the public half is written where it is missing.

        Raises:
            LineageError: the file is not an Ed25519 private key.
            StorageError: the disk refuses; no half of a key is left.
        """
        if path.exists():
            key = cls.load(path)
        else:
            key = cls(Ed25519PrivateKey.generate())
            pem = key._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_atomic(path, pem, mode=0o600)
        if not public_path(path).exists():
            write_atomic(public_path(path), key.public_pem)
        return key

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read the key.

        Raises:
            LineageError: absent, or no Ed25519 private key.
        """
        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as e:
            raise LineageError(f"cannot read the key {path}: {e.strerror}", hint="check lineage.key") from e
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise LineageError(
                f"{path} is not a private key in PEM form", hint="name an Ed25519 key in lineage.key"
            ) from e
        if not isinstance(private, Ed25519PrivateKey):
            raise LineageError(f"{path} is not an Ed25519 key", hint="name an Ed25519 key in lineage.key")
        return cls(private)


def public_path(private: Path) -> Path:
    """Where the public half of a key file lies."""
    return private.with_name(private.name + ".pub")


def load_public_key(path: Path) -> bytes:
    """Read a public key (PEM) and check that it is Ed25519.

    Raises:
        LineageError: absent or something else.
    """
    try:
        pem = path.read_bytes()
    except OSError as e:
        raise LineageError(f"cannot read the public key {path}: {e.strerror}", hint="check lineage.key") from e
    _public(pem)
    return pem


def sign(payload: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """Wrap plain JSON data in a signed DSSE envelope (itself plain JSON data).

    Args:
        payload: plain JSON data.
        key: private key that signs.

    Returns:
        The envelope, with one signature.
    """
    envelope = Envelope(canonical_bytes(dict(payload)), PAYLOAD_TYPE, {})
    envelope.sign(key.signer())
    out: dict[str, Any] = envelope.to_dict()
    return out


def verify(envelope: Mapping[str, Any], trusted: Sequence[bytes]) -> dict[str, Any]:
    """Check an envelope against trusted public keys (PEM; one good signature is enough) and return its payload.

    Args:
        envelope: a DSSE envelope as plain JSON data.
        trusted: public keys, PEM.

    Returns:
        The payload.

    Raises:
        LineageError: not an envelope, unsigned, signed by no trusted key, or changed since.
    """
    hint = "do not rely on it; ask its approver for the original"
    try:
        parsed = Envelope.from_dict(copy.deepcopy(dict(envelope)))
        if parsed.payload_type != PAYLOAD_TYPE:
            raise LineageError(f"a record of unknown type {parsed.payload_type!r}", hint=hint)
        parsed.verify([_ssl_key(_public(pem)) for pem in trusted], 1)
        payload: dict[str, Any] = json.loads(parsed.payload)
    except SecureSystemsError as e:
        raise LineageError(
            "the record's signature is not good: it was changed, or another key signed it", hint=hint
        ) from e
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise LineageError(f"not a signed record: {e}", hint=hint) from e
    return payload


def unverified_payload(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The payload without checking any signature; only for finding a record that is then verified."""
    try:
        payload: dict[str, Any] = json.loads(Envelope.from_dict(copy.deepcopy(dict(envelope))).payload)
    except (KeyError, TypeError, ValueError, AttributeError, SecureSystemsError) as e:
        raise LineageError(f"not a signed record: {e}", hint="remove it from the records folder") from e
    return payload


def _public(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise LineageError("no public key in PEM form", hint="name the .pub file of the signer") from e
    if not isinstance(key, Ed25519PublicKey):
        raise LineageError("no Ed25519 public key", hint="name the .pub file of the signer")
    return key


def _ssl_key(key: Ed25519PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(key)
