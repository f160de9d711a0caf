"""Messages with which a device joins a fleet: claim token -> key made on the device -> accepted -> short-lived tokens."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from cellfleet.wire.base import DeviceId, DeviceName, Message, Sha256, Text, Time

DeviceState = Literal["pending", "accepted", "rejected", "revoked"]


class DeviceFacts(Message):
    """Facts that a device reports about itself.

    Attributes:
        cellfleet_version: of its program.
        platform: operating system and machine.
        cpu, cores, memory_mb: of the host.
        gpus: names of the GPUs.
        engines: engine -> version.
    """

    cellfleet_version: Text = Field(examples=["0.1.0"])
    platform: Text = Field(examples=["Linux x86_64"])
    cpu: Text = ""
    cores: int = Field(default=1, ge=1, le=4096)
    memory_mb: float = Field(default=0, ge=0)
    gpus: tuple[Text, ...] = Field(default=(), max_length=32)
    engines: dict[str, str] = Field(default={}, max_length=16)


class ClaimRequest(Message):
    """POST /api/v1/devices/claim

    Attributes:
        claim_token: from ``cellfleet fleet claim``; valid once.
        public_key: Ed25519, PEM (SubjectPublicKeyInfo), made on the device.
        proof: base64 Ed25519 signature over ``claim_statement``: proves that the device owns the private key.
    """

    claim_token: str = Field(min_length=16, max_length=256, examples=["cfc_....0123456789abcdef0123456789abcdef"])
    name: DeviceName
    public_key: str = Field(
        min_length=32, max_length=1000, examples=["-----BEGIN PUBLIC KEY-----\n...\n-----END PUBLIC KEY-----\n"]
    )
    facts: DeviceFacts
    proof: str = Field(min_length=16, max_length=256, examples=["bWFkZSBvbiB0aGUgZGV2aWNl..."])


class ClaimReply(Message):
    """The device is known from now on; ``state`` is usually ``pending`` until an operator accepts it."""

    device_id: DeviceId
    state: DeviceState


class TokenRequest(Message):
    """POST /api/v1/devices/token

    Attributes:
        issued_at: the device's clock; the server accepts a difference of 5 minutes and sends its own time in the Date header.
        nonce: never used before by this device.
        signature: base64 Ed25519 signature over ``token_statement``.
    """

    device_id: DeviceId
    issued_at: Time
    nonce: str = Field(min_length=16, max_length=64, examples=["0f8b1c2d3e4f5a6b"])
    signature: str = Field(min_length=16, max_length=256, examples=["bWFkZSBvbiB0aGUgZGV2aWNl..."])


class TokenReply(Message):
    """A bearer token for ``Authorization: Bearer ...``; request the next one before it expires."""

    token: str = Field(examples=["cfd_..."])
    expires_at: Time


class TrustAnchors(Message):
    """GET /api/v1/trust/anchors: digests of the first root.json of both repositories.

    A claim token ends in ``.`` and the first 32 hex digits of the digest of this message's canonical JSON, so that a
    device with a token trusts the right roots from the start.
    """

    image_root: Sha256
    director_root: Sha256


def claim_statement(claim_token: str, name: str, public_key: str) -> dict[str, Any]:
    """What a device signs (canonical JSON) to prove its key when it claims its place."""
    return {"purpose": "cellfleet-claim", "claim_token": claim_token, "name": name, "public_key": public_key}


def token_statement(device_id: str, issued_at: str, nonce: str) -> dict[str, Any]:
    """What a device signs (canonical JSON) for an access token; ``issued_at`` is ISO 8601 as it stands in the message."""
    return {"purpose": "cellfleet-token", "device_id": device_id, "issued_at": issued_at, "nonce": nonce}
