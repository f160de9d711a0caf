"""Keys of the trust folder: the role of each key, where its private half is, and how it is unlocked.

A private half is a file (``file:keys/root-1.pem``: PKCS 8, encrypted), or it stays in a KMS or an HSM and is named by a URI
that ``securesystemslib`` knows. ``keys.json`` holds the public halves: showing and checking keys needs no secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import Field
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from cellfleet.errors import WireError
from cellfleet.ports import write_atomic
from cellfleet.trust.layout import ALLOWANCES, DIRECTOR, MODELS, ROOT_KEYS, SNAPSHOT, SOFTWARE, TARGETS, TIMESTAMP
from cellfleet.trust.refusals import KeyTrouble
from cellfleet.wire.base import Message, parse

ROOT_NAMES = tuple(f"root-{n}" for n in range(1, ROOT_KEYS + 1))
ONLINE_NAMES = (TIMESTAMP, DIRECTOR)
KEY_NAMES = (*ROOT_NAMES, TARGETS, MODELS, SOFTWARE, ALLOWANCES, SNAPSHOT, *ONLINE_NAMES)
BOOK_FILE = "keys.json"
KEY_VARIABLE, ONLINE_VARIABLE = "CELLFLEET_KEY_PASSPHRASE", "CELLFLEET_ONLINE_PASSPHRASE"
MIN_LETTERS = 8
_FILE = "file:"

Secrets = Callable[[str], str]
"""Gives the passphrase of a key, by its name."""


class KeyEntry(Message):
    """One key.

    Attributes:
        uri: of the private half.
        public: key type, scheme and value, as in TUF metadata.
    """

    uri: str = Field(min_length=1, max_length=2000)
    keyid: str = Field(pattern=r"^[0-9a-f]{64}$")
    public: dict[str, Any]

    def key(self) -> Key:
        """The public half.

        Raises:
            KeyTrouble: it is invalid.
        """
        try:
            return Key.from_dict(self.keyid, dict(self.public))
        except (ValueError, KeyError, TypeError, SecureSystemsError) as e:
            raise KeyTrouble(f"the key {self.keyid[:12]} in {BOOK_FILE} is invalid: {e}") from e

    @property
    def held(self) -> str:
        """What holds the private half: ``file``, or the scheme of the URI."""
        return self.uri.partition(":")[0]


class KeyBook(Message):
    """``keys.json``: name of a key -> the key."""

    format: Literal[1] = 1
    keys: dict[str, KeyEntry]


@dataclass(frozen=True)
class ExternalKey:
    """A key that a KMS, an HSM or another folder holds.

    Attributes:
        uri: of the private half, as ``securesystemslib`` knows it.
        public: the public half.
    """

    uri: str
    public: Key

    @staticmethod
    def read(uri: str, public_pem: Path) -> ExternalKey:
        """Name a key by its URI and the PEM file of its public half.

        Args:
            uri: of the private half, as ``securesystemslib`` knows it.
            public_pem: file with the public half.

        Returns:
            The key.

        Raises:
            KeyTrouble: the file cannot be read, or holds no public key.
        """
        try:
            return ExternalKey(uri, SSlibKey.from_crypto(load_pem_public_key(public_pem.read_bytes())))
        except OSError as e:
            raise KeyTrouble(f"cannot read the public key {public_pem}: {e.strerror}") from e
        except (ValueError, UnsupportedAlgorithm, SecureSystemsError) as e:
            raise KeyTrouble(f"{public_pem} is not a usable public key", hint="give the public half in PEM form") from e

    def entry(self) -> KeyEntry:
        """The key as it is written into ``keys.json``."""
        return KeyEntry(uri=self.uri, keyid=self.public.keyid, public=self.public.to_dict())


def environment_secrets(
    prompt: Callable[[str], str] | None = None, environ: Mapping[str, str] | None = None
) -> Secrets:
    """Passphrases from the environment, or else from a prompt.

    Args:
        prompt: asks the operator, given a text; None: there is no prompt.
        environ: the environment (default: that of this process).

    Returns:
        A function that gives the passphrase of a key. It raises KeyTrouble when there is none.
    """
    asked: dict[str, str] = {}
    variables = os.environ if environ is None else environ

    def secret(name: str) -> str:
        variable, what = (ONLINE_VARIABLE, "online") if name in ONLINE_NAMES else (KEY_VARIABLE, "offline")
        given = variables.get(variable) or asked.get(variable, "")
        if not given and prompt is not None:
            given = asked[variable] = prompt(f"Passphrase of the {what} keys")
        if not given:
            raise KeyTrouble(f"the key {name} is encrypted and no passphrase is given", hint=f"set {variable}")
        return given

    return secret


def read_book(folder: Path) -> KeyBook:
    """Read the keys of a trust folder.

    Raises:
        KeyTrouble: it is not a trust folder, or ``keys.json`` cannot be read.
    """
    path = folder / BOOK_FILE
    try:
        return parse(KeyBook, path.read_bytes())
    except FileNotFoundError as e:
        raise KeyTrouble(
            f"{folder} is not a trust folder: it has no {BOOK_FILE}", hint="make one with `cellfleet trust init`"
        ) from e
    except OSError as e:
        raise KeyTrouble(f"cannot read {path}: {e.strerror}") from e
    except WireError as e:
        raise KeyTrouble(f"{path} is damaged: {e.message}", hint="restore it from a backup") from e


def new_key(folder: Path, name: str, secrets: Secrets, *, rotated: bool = False) -> KeyEntry:
    """Make an Ed25519 key and write its private half, encrypted (mode 0600).

    Args:
        folder: the trust folder.
        name: of the key.
        secrets: gives its passphrase.
        rotated: the file gets a name of its own, because the old one still exists.

    Returns:
        The entry for ``keys.json``.

    Raises:
        KeyTrouble: the passphrase is too short.
        StorageError: the disk fails.
    """
    passphrase = secrets(name)
    if len(passphrase) < MIN_LETTERS:
        raise KeyTrouble(f"the passphrase of the key {name} is shorter than {MIN_LETTERS} characters")
    private = Ed25519PrivateKey.generate()
    public = SSlibKey.from_crypto(private.public_key())
    ending = f"-{public.keyid[:8]}" if rotated else ""
    place = f"{'online' if name in ONLINE_NAMES else 'keys'}/{name}{ending}.pem"
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))
    write_atomic(folder / place, pem, mode=0o600)
    return KeyEntry(uri=_FILE + place, keyid=public.keyid, public=public.to_dict())


def file_of(folder: Path, entry: KeyEntry) -> Path | None:
    """The file of the private half.

    Args:
        folder: the trust folder.
        entry: the key.

    Returns:
        The file; None: a KMS or an HSM holds the key.
    """
    return folder / entry.uri.removeprefix(_FILE) if entry.uri.startswith(_FILE) else None


def signer_of(folder: Path, name: str, entry: KeyEntry, secrets: Secrets) -> Signer:
    """Open a key for signing.

    Args:
        folder: the trust folder.
        name: of the key.
        entry: the key.
        secrets: gives its passphrase or PIN.

    Returns:
        The signer.

    Raises:
        KeyTrouble: the key is missing or locked, or is not that of ``keys.json``.
    """
    path = file_of(folder, entry)
    if path is not None:
        return _file_signer(path, name, entry, secrets)
    try:
        return Signer.from_priv_key_uri(entry.uri, entry.key(), lambda _what: secrets(name))
    except KeyTrouble:
        raise
    except Exception as e:  # what holds it may raise anything
        raise KeyTrouble(
            f"the key {name} ({entry.uri}) cannot be used: {e}",
            hint="check its URI, the installed library for it, and the permissions of this user",
        ) from e


def _file_signer(path: Path, name: str, entry: KeyEntry, secrets: Secrets) -> Signer:
    try:
        pem = path.read_bytes()
    except OSError as e:
        raise KeyTrouble(
            f"cannot read the key {name}: {path}: {e.strerror}", hint="copy the key file here for this command"
        ) from e
    try:
        private = load_pem_private_key(pem, secrets(name).encode())
    except TypeError:
        private = _plain(pem, path)
    except (ValueError, UnsupportedAlgorithm) as e:
        variable = ONLINE_VARIABLE if name in ONLINE_NAMES else KEY_VARIABLE
        raise KeyTrouble(
            f"the key {name} ({path}) cannot be opened: wrong passphrase, or a damaged file", hint=f"check {variable}"
        ) from e
    try:
        return CryptoSigner(private, entry.key())
    except (ValueError, SecureSystemsError) as e:
        raise KeyTrouble(f"{path} is not the key {name} of {BOOK_FILE}", hint="restore it from a backup") from e


def _plain(pem: bytes, path: Path) -> Any:
    """A private key that was stored without encryption."""
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise KeyTrouble(f"{path} is not a private key in PEM form") from e
