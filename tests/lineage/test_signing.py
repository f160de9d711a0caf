"""Signed envelopes: any change, anywhere, is refused."""

from __future__ import annotations

import base64
import json
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.errors import LineageError, StorageError
from cellfleet.lineage import SigningKey, sign, verify
from cellfleet.lineage.signing import load_public_key, public_path

PAYLOAD = {"bundle": "a" * 64, "verdict": "passed", "numbers": {"ap50": 0.71}}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.load_or_create(tmp_path_factory.mktemp("keys") / "decision.pem")


def test_what_was_signed_is_read_back(key: SigningKey) -> None:
    envelope = json.loads(json.dumps(sign(PAYLOAD, key)))
    assert verify(envelope, [key.public_pem]) == PAYLOAD


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_refused(key: SigningKey, at: int, flip: int) -> None:
    envelope = sign(PAYLOAD, key)
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[at % len(payload)] ^= flip
    with pytest.raises(LineageError):
        verify({**envelope, "payload": base64.b64encode(payload).decode()}, [key.public_pem])


def test_a_stranger_s_signature_does_not_count(key: SigningKey, tmp_path: Path) -> None:
    stranger = SigningKey.load_or_create(tmp_path / "other.pem")
    with pytest.raises(LineageError, match="signature is not good"):
        verify(sign(PAYLOAD, stranger), [key.public_pem])


@pytest.mark.parametrize(
    "change",
    [{"signatures": []}, {"payloadType": "text/plain"}, {"payload": "!"}, {"signatures": "x"}, {"signatures": [{}]}],
)
def test_a_damaged_envelope_is_refused(key: SigningKey, change: dict[str, Any]) -> None:
    with pytest.raises(LineageError):
        verify({**sign(PAYLOAD, key), **change}, [key.public_pem])


@given(
    st.dictionaries(st.sampled_from(["payload", "payloadType", "signatures"]), st.text() | st.integers() | st.none())
)
def test_nonsense_is_a_lineage_error(key: SigningKey, envelope: dict[str, Any]) -> None:
    with pytest.raises(LineageError):
        verify(envelope, [key.public_pem])


def test_the_key_is_private_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "decision.pem"
    made = SigningKey.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.load_or_create(path).key_id == made.key_id
    assert load_public_key(public_path(path)) == made.public_pem


def test_the_public_half_is_written_where_it_is_missing(tmp_path: Path) -> None:
    """Killed between the two files, or a key that the user brought."""
    path = tmp_path / "decision.pem"
    made = SigningKey.load_or_create(path)
    public_path(path).unlink()
    SigningKey.load_or_create(path)
    assert load_public_key(public_path(path)) == made.public_pem


def test_a_key_that_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    """A full disk must not leave an empty file that the next run takes for a broken key."""
    path = tmp_path / "decision.pem"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"decision\.pem"):
            SigningKey.load_or_create(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []
    assert SigningKey.load_or_create(path).key_id


def test_files_that_are_no_ed25519_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    path.write_bytes(b"not a key")
    with pytest.raises(LineageError, match="not a private key"):
        SigningKey.load(path)
    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(LineageError, match="not an Ed25519 key"):
        SigningKey.load(path)
    with pytest.raises(LineageError, match="cannot read"):
        SigningKey.load(tmp_path / "absent.pem")
