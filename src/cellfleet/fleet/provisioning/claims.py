"""How a device becomes known: a claim token (good once) -> its key -> a decision by an operator -> short-lived tokens."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cellfleet.canonical import canonical_bytes, digest_of, sha256_hex
from cellfleet.fleet import audit, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.provisioning import alarms
from cellfleet.fleet.refusals import RequestRefused, bad_request, conflict, not_found, unauthorized
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import ClaimToken, Device, Nonce
from cellfleet.wire.base import is_device_id
from cellfleet.wire.enrol import ClaimRequest, TokenReply, TokenRequest, claim_statement, token_statement
from cellfleet.wire.reason import because

CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Claimed:
    """A device that is known now; ``again``: it was already, and asked a second time (its first answer got lost)."""

    device_id: str
    state: str
    again: bool = False


def make(db: Session, context: Context, by: Person, note: str = "", valid_h: float = 24.0) -> tuple[str, ClaimToken]:
    """Make a claim token: the token, which is shown only once, and its row. It ends in the digest of the trust anchors.

    Raises:
        RequestRefused: 503 ``no-trust``, the server has no trust roots yet.
    """
    anchors = digest_of(trust_repository.anchors(db).model_dump(mode="json"))[:32]
    secret = f"{access.new_secret(access.CLAIM_PREFIX)[0]}.{anchors}"
    now = context.clock.now()
    row = ClaimToken(
        token_sha256=sha256_hex(secret.encode()),
        note=note,
        created_by=by.name,
        created_at=now,
        expires_at=now + timedelta(hours=valid_h),
    )
    db.add(row)
    db.flush()
    audit.record(db, context, by.actor, "claim.made", f"claim:{row.id}", note, expires_at=row.expires_at.isoformat())
    return secret, row


def listing(db: Session, *, after: int = 0, limit: int = 100) -> Sequence[ClaimToken]:
    """Claim tokens, newest first; ``after``: only those with a lower number."""
    query = select(ClaimToken).order_by(ClaimToken.id.desc()).limit(limit)
    return db.scalars(query.where(ClaimToken.id < after) if after else query).all()


def revoke(db: Session, context: Context, by: Person, number: int) -> None:
    """Revoke an unused claim token.

    Raises:
        RequestRefused: 404; 409 it was used.
    """
    row = db.scalars(select(ClaimToken).where(ClaimToken.id == number).with_for_update()).one_or_none()
    if row is None:
        raise not_found(f"claim token {number}")
    if row.used_at is not None:
        raise conflict("token-used", "that claim token was used", hint="reject or revoke the device instead")
    row.expires_at = min(row.expires_at, context.clock.now())
    audit.record(db, context, by.actor, "claim.revoked", f"claim:{number}")


def claim(context: Context, request: ClaimRequest) -> Claimed:
    """Take a device into the fleet, pending. The same claim again gives the same answer.

    Raises:
        RequestRefused: 401 unknown, revoked or expired token; 409 ``token-used``, ``key-known`` or ``name-taken``; 422 a name
            that looks like an id, a key or a proof that does not hold.
    """
    key_sha256 = _proven(request)
    with context.sessions() as db:
        token = _token(db, request.claim_token)
        known = db.scalars(select(Device).where(Device.key_sha256 == key_sha256)).one_or_none()
        if known is not None and token.used_by == known.id and known.name == request.name:
            return Claimed(known.id, known.state, again=True)
        refusal = _refusal(context, request.name, token, known)
        if refusal is None:
            return _admit(db, context, request, token, key_sha256)
        audit.record(
            db, context, "nobody", "claim.refused", f"claim:{token.id}", refusal.detail, name=request.name,
            key=key_sha256, word=refusal.code,
        )  # fmt: skip
        if known is not None:
            reason = because("alarm.key-reused", name=request.name)
            alarms.raise_alarm(db, context, known.id, alarms.KEY_REUSED, reason)
    raise refusal


def _token(db: Session, secret: str) -> ClaimToken:
    digest = sha256_hex(secret.encode("utf-8", "replace"))
    token = db.scalars(select(ClaimToken).where(ClaimToken.token_sha256 == digest).with_for_update()).one_or_none()
    if token is None:
        raise unauthorized(
            "unknown-claim-token",
            "this claim token is unknown",
            hint="make another one with `cellfleet fleet claim`, and copy the whole of it",
        )
    return token


def _refusal(context: Context, name: str, token: ClaimToken, known: Device | None) -> RequestRefused | None:
    hint = "make another one with `cellfleet fleet claim`"
    if token.used_at is not None:
        return conflict("token-used", "this claim token was used before; each is good for one device", hint=hint)
    if token.expires_at <= context.clock.now():
        return unauthorized("claim-token-expired", "this claim token has expired", hint=hint)
    if is_device_id(name):
        return bad_request(
            "bad-name", f"{name} looks like the id of an instrument", hint="give it a name, as on its label"
        )
    if known is not None:
        return conflict(
            "key-known",
            f"this key belongs to {known.name} already",
            hint="was the disk copied? each device creates its own key: provision this one in an empty folder",
        )
    return None


def _admit(db: Session, context: Context, request: ClaimRequest, token: ClaimToken, key_sha256: str) -> Claimed:
    now, device_id = context.clock.now(), f"dev-{key_sha256[:12]}"
    _free_name(db, context, request.name)
    row = {
        "id": device_id,
        "name": request.name,
        "public_key": request.public_key,
        "key_sha256": key_sha256,
        "state": "pending",
        "facts": request.facts.model_dump(mode="json"),
        "created_at": now,
    }
    if not insert_or_ignore(db, Device, [row]):
        raise conflict("changed-meanwhile", "another device sent the same claim at the same time", hint="retry")
    token.used_at, token.used_by = now, device_id
    audit.record(
        db, context, f"device:{device_id}", "device.claimed", f"device:{device_id}", token.note, name=request.name,
        claim=token.id, key=key_sha256,
    )  # fmt: skip
    return Claimed(device_id, "pending")


def _free_name(db: Session, context: Context, name: str) -> None:
    """Release the name of a device that is no longer a member."""
    holder = db.scalars(select(Device).where(Device.name == name).with_for_update()).one_or_none()
    if holder is None:
        return
    if holder.state in ("pending", "accepted"):
        raise conflict(
            "name-taken",
            f"there is a device {name} already",
            hint="choose another name, or reject or revoke that device first",
        )
    old = f"{name[:40]}.was-{holder.id[4:]}"
    db.execute(update(Device).where(Device.id == holder.id).values(name=old))
    audit.record(
        db, context, "server", "device.renamed", f"device:{holder.id}", because("audit.renamed", name=name), name=old
    )


def _proven(request: ClaimRequest) -> str:
    """Digest of the key, after the proof that the device has its private half."""
    try:
        key = load_pem_public_key(request.public_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise bad_request("bad-key", "public_key is not a PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise bad_request("bad-key", "public_key is not an Ed25519 key")
    statement = claim_statement(request.claim_token, request.name, request.public_key)
    if not _signed(key, statement, request.proof):
        raise bad_request("bad-proof", "the proof is not a signature of this claim by that key")
    return sha256_hex(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _signed(key: Ed25519PublicKey, statement: Mapping[str, Any], signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), canonical_bytes(dict(statement)))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def token(context: Context, request: TokenRequest, issued_at: str) -> TokenReply:
    """A short-lived access token for an accepted device.

    Args:
        issued_at: as it stands in the message.

    Raises:
        RequestRefused: 401 unknown device, wrong signature, clock off by more than 5 minutes, nonce used before; 403 ``pending``,
            ``rejected`` or ``revoked``.
    """
    now = context.clock.now()
    with context.sessions() as db:
        device = db.get(Device, request.device_id)
        key = load_pem_public_key(device.public_key.encode()) if device is not None else None
        statement = token_statement(request.device_id, issued_at, request.nonce)
        if device is None or not isinstance(key, Ed25519PublicKey) or not _signed(key, statement, request.signature):
            raise unauthorized("bad-signature", f"this is not signed by {request.device_id}", hint="provision it again")
        _check_clock(request.issued_at, now)
        access.refuse_state(device.name, device.state)
        nonce = {"device_id": device.id, "nonce": request.nonce, "at": now}
        if not insert_or_ignore(db, Nonce, [nonce]):
            raise unauthorized("nonce-used", "this request was seen before", hint="sign a new one")
        secret, until = access.issue_device_token(db, context, device)
        return TokenReply(token=secret, expires_at=until)


def _check_clock(issued_at: datetime, now: datetime) -> None:
    off = (issued_at - now).total_seconds()
    if abs(off) > CLOCK_SKEW.total_seconds():
        way = "ahead of" if off > 0 else "behind"
        raise unauthorized(
            "clock", f"the device's clock is {abs(off):.0f} s {way} the server's", hint="the Date header has our time"
        )
