"""Bytes that devices install."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from cellfleet.fleet.api.dependencies import Ctx, Db, DigestPath, OfEither, Operator
from cellfleet.fleet.api.uploads import base_url
from cellfleet.fleet.byte_ranges import BINARY, bytes_answer
from cellfleet.fleet.ingest import uploads
from cellfleet.fleet.people.access import Caller
from cellfleet.fleet.refusals import not_found
from cellfleet.fleet.store.models import Artifact, Deployment, DeploymentMember, Release
from cellfleet.wire.uploads import ArtifactRequest, UploadReply

router = APIRouter(prefix="/api/v1/artifacts", tags=["artifacts"])
ANNOUNCED = {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "length": 8700000}


@router.post(
    "",
    summary="Announce an artifact",
    description="As for files of frames: put the parts to the URLs of the answer, then complete the upload.",
)
def begin(
    context: Ctx, by: Operator, request: Request, body: Annotated[ArtifactRequest, Body(examples=[ANNOUNCED])]
) -> UploadReply:
    return uploads.begin_artifact(context, by, body, base_url(context, request))


@router.get(
    "/{sha256}",
    summary="The bytes of an artifact",
    description="For API users, and for devices to which a release of it was offered, also after its withdrawal. "
    "`Range`, `If-Range` and `If-None-Match` are supported; the ETag is the digest.",
    response_class=Response,
    responses=BINARY,
)
@router.head("/{sha256}", summary="Length and ETag of an artifact", description="As GET.", response_class=Response)
def read(context: Ctx, db: Db, by: OfEither, request: Request, sha256: DigestPath) -> Response:
    if db.get(Artifact, sha256) is None or (isinstance(by, Caller) and not _was_offered(db, by.device_id, sha256)):
        raise not_found(f"artifact {sha256[:12]} for you")
    return bytes_answer(context, request, sha256)


def _was_offered(db: Session, device_id: str, sha256: str) -> bool:
    query = (
        select(DeploymentMember.deployment_id)
        .join(Deployment, Deployment.id == DeploymentMember.deployment_id)
        .join(Release, Release.id == Deployment.release_id)
        .where(
            DeploymentMember.device_id == device_id, DeploymentMember.offered_at.is_not(None), Release.sha256 == sha256
        )
        .limit(1)
    )
    return db.scalars(query).first() is not None
