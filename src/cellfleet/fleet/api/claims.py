"""How a device becomes a member of the fleet."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request, Response
from pydantic import Field

from cellfleet.fleet.api.dependencies import Ctx, Db, InPortions, Listing, Operator, RowId, anybody
from cellfleet.fleet.provisioning import claims
from cellfleet.fleet.store.models import ClaimToken
from cellfleet.wire import Message
from cellfleet.wire.base import Time
from cellfleet.wire.enrol import ClaimReply, ClaimRequest, TokenReply, TokenRequest

_KEY = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n"
_SIGNATURE = "5Lq1...88 letters of base64...Bw=="
_CLAIM = {
    "claim_token": "cfc_N1sQ....0123456789abcdef0123456789abcdef",
    "name": "XYZ-007",
    "public_key": _KEY,
    "facts": {"cellfleet_version": "0.2.0", "platform": "Linux x86_64", "cores": 8, "memory_mb": 32000},
    "proof": _SIGNATURE,
}
_TOKEN = {
    "device_id": "dev-0123456789ab",
    "issued_at": "2026-03-02T09:00:00Z",
    "nonce": "5f0c9a3e7d1b4826",
    "signature": _SIGNATURE,
}
router = APIRouter(prefix="/api/v1", tags=["provisioning"])


class NewClaim(Message):
    """The purpose of the token and its lifetime."""

    note: str = Field(default="", max_length=200, examples=["microscope in room 4.12"])
    valid_h: float = Field(default=24, gt=0, le=24 * 90, examples=[24])


class ClaimAnswer(Message):
    """A claim token without its secret. ``used_by``: the device that used it."""

    id: int = Field(examples=[3])
    note: str = Field(examples=["microscope in room 4.12"])
    created_by: str = Field(examples=["anna"])
    created_at: Time
    expires_at: Time
    used_at: Time | None = None
    used_by: str | None = Field(default=None, examples=["dev-0123456789ab"])


class ClaimMade(ClaimAnswer):
    """A claim token with its secret, which is shown only once."""

    token: str = Field(examples=["cfc_....0123456789abcdef0123456789abcdef"])


@router.get("/claims", summary="List claim tokens", description="Newest first, including used and expired tokens.")
def list_claims(db: Db, _by: Operator, portion: InPortions) -> Listing[ClaimAnswer]:
    rows = claims.listing(db, after=portion.after_id, limit=portion.limit)
    more = str(rows[-1].id) if len(rows) == portion.limit else ""
    return Listing[ClaimAnswer](items=tuple(ClaimAnswer(**_facts(r)) for r in rows), next=more)


@router.post(
    "/claims",
    status_code=201,
    summary="Make a claim token",
    description="Valid for one device, once. It ends with the digest of the trust anchors, so the device trusts the right "
    "roots from the start.",
)
def make_claim(context: Ctx, db: Db, by: Operator, body: NewClaim) -> ClaimMade:
    secret, row = claims.make(db, context, by, body.note, body.valid_h)
    return ClaimMade(token=secret, **_facts(row))


@router.delete(
    "/claims/{number}",
    status_code=204,
    summary="Revoke a claim token",
    description="Only a token that is not used yet.",
)
def revoke_claim(context: Ctx, db: Db, by: Operator, number: RowId) -> None:
    claims.revoke(db, context, by, number)


@router.post(
    "/devices/claim",
    status_code=201,
    summary="Claim a place (device)",
    description="A device shows its claim token and proves its key; it is pending until an operator accepts it. The same "
    "claim again gives the same answer, so the device can retry after a lost answer.",
    dependencies=[Depends(anybody)],
    responses={200: {"model": ClaimReply, "description": "The same claim as before."}},
)
def claim(context: Ctx, response: Response, body: Annotated[ClaimRequest, Body(examples=[_CLAIM])]) -> ClaimReply:
    claimed = claims.claim(context, body)
    if claimed.again:
        response.status_code = 200
    return ClaimReply.model_validate({"device_id": claimed.device_id, "state": claimed.state})


async def _issued_at(request: Request) -> str:
    """``issued_at`` exactly as in the message: the device signed that text."""
    try:
        value = json.loads(await request.body())["issued_at"]
    except (ValueError, TypeError, KeyError):
        return ""
    return value if isinstance(value, str) else ""


@router.post(
    "/devices/token",
    summary="Get an access token (device)",
    description="Signed by the device's key, with a nonce that was never used; limit of the clock offset: 5 minutes. 403 with "
    "the code `pending`, `rejected` or `revoked` for a device that is not a member.",
    dependencies=[Depends(anybody)],
)
def token(
    context: Ctx, body: Annotated[TokenRequest, Body(examples=[_TOKEN])], issued_at: Annotated[str, Depends(_issued_at)]
) -> TokenReply:
    return claims.token(context, body, issued_at)


def _facts(row: ClaimToken) -> dict[str, Any]:
    names = ("id", "note", "created_by", "created_at", "expires_at", "used_at", "used_by")
    return {name: getattr(row, name) for name in names}
