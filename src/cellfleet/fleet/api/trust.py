"""Signed metadata of the two repositories."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from cellfleet.fleet import trust_repository
from cellfleet.fleet.api.dependencies import Db, OfDevice, anybody
from cellfleet.fleet.refusals import not_found
from cellfleet.wire.enrol import TrustAnchors

router = APIRouter(prefix="/api/v1/trust", tags=["trust"])
FileName = Annotated[
    str, Path(max_length=60, description="Name of a metadata file.", examples=["1.root.json", "timestamp.json"])
]
DeviceIdPath = Annotated[str, Path(pattern=r"^dev-[0-9a-f]{12}$", examples=["dev-0123456789ab"])]


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


@router.get(
    "/anchors",
    summary="Digests of the first roots",
    description="A claim token carries the digest of this message, so that a device trusts the right roots from the start.",
    dependencies=[Depends(anybody)],
)
def anchors(db: Db) -> TrustAnchors:
    return trust_repository.anchors(db)


@router.get(
    "/image/{file}",
    summary="A file of the image repository",
    description="TUF metadata as its publisher signed it; `timestamp.json` is signed by the server.",
    response_class=Response,
    dependencies=[Depends(anybody)],
)
def image(db: Db, file: FileName) -> Response:
    return _json(trust_repository.read(db, trust_repository.IMAGE + trust_repository.file_name(file)).content)


@router.get(
    "/director/{file}",
    summary="A root of the director",
    description="TUF root metadata, the same for all devices.",
    response_class=Response,
    dependencies=[Depends(anybody)],
)
def director_root(db: Db, file: FileName) -> Response:
    return _json(trust_repository.read(db, trust_repository.DIRECTOR + trust_repository.file_name(file)).content)


@router.get(
    "/director/{device_id}/{file}",
    summary="A file of a device's director repository",
    description="Only for that device. The roots are the same for all devices.",
    response_class=Response,
)
def director(db: Db, by: OfDevice, device_id: DeviceIdPath, file: FileName) -> Response:
    if device_id != by.device_id:
        raise not_found(f"metadata of {device_id} for {by.name}")
    name = trust_repository.file_name(file)
    folder = trust_repository.DIRECTOR if name.endswith(".root.json") else f"{trust_repository.DIRECTOR}{device_id}/"
    return _json(trust_repository.read(db, folder + name).content)
