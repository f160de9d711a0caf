"""Files in parts, as in S3: announce, put the parts at presigned addresses, complete. Length and SHA-256 are checked at the end.

Parts lie in ``<store>/uploads/<id>/<number>`` until then; putting a part again replaces it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Caller, Person
from cellfleet.fleet.refusals import RequestRefused, bad_request, conflict, forbidden, not_found, too_large
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import Artifact, Picture, Upload
from cellfleet.ports import make_dir, write_atomic
from cellfleet.wire.uploads import ArtifactRequest, UploadPart, UploadReply, UploadRequest

ARTIFACT = "artifact"
MAX_PICTURE_BYTES = {"thumbnail": 4_000_000, "overlay": 64_000_000, "mask": 256_000_000, "raw": 1_000_000_000}
PART_BYTES = 8_000_000
URL_LIFE_S = 3600
_KEPT_UNFINISHED, _KEPT_FINISHED = timedelta(days=2), timedelta(days=30)
_ID = re.compile(r"up-[0-9a-f]{32}")
_SECRET = "uploads"
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


@dataclass(frozen=True)
class Announced:
    """The announced content of an upload, of a device or an account."""

    owner: str
    kind: str
    sha256: str
    length: int
    experiment: str = ""
    frame: str = ""
    pin: int = 0


def begin_picture(context: Context, caller: Caller, request: UploadRequest, base_url: str) -> UploadReply:
    """A device announces a file of a frame. When the bytes are known, it is stored at once.

    Raises:
        RequestRefused: 413.
    """
    what = Announced(
        f"device:{caller.device_id}",
        request.kind,
        request.sha256,
        request.length,
        request.experiment,
        request.frame,
        request.pin,
    )
    return _begin(context, what, base_url, MAX_PICTURE_BYTES[request.kind])


def begin_artifact(context: Context, person: Person, request: ArtifactRequest, base_url: str) -> UploadReply:
    """Announce an artifact, as an operator.

    Raises:
        RequestRefused: 403, 413.
    """
    person.need("operator")
    what = Announced(person.actor, ARTIFACT, request.sha256, request.length)
    return _begin(context, what, base_url, int(context.settings.max_artifact_mb * 1e6))


def _begin(context: Context, what: Announced, base_url: str, max_bytes: int) -> UploadReply:
    if what.length > max_bytes:
        raise too_large(
            f"the {what.kind} file is too large; the limit is {max_bytes} bytes", hint="send a smaller file"
        )
    key = context.secret(_SECRET)
    now = context.clock.now()
    with context.sessions() as db:
        if context.blobs.has(what.sha256) and context.blobs.size(what.sha256) == what.length:
            _keep(db, context, what)
            return UploadReply(done=True)
        mine = select(Upload).where(
            Upload.owner == what.owner,
            Upload.sha256 == what.sha256,
            Upload.kind == what.kind,
            Upload.experiment == what.experiment,
            Upload.frame == what.frame,
            Upload.pin == what.pin,
            Upload.length == what.length,
            Upload.completed_at.is_(None),
        )
        row = db.scalars(mine.order_by(Upload.created_at)).first()
        if row is None:
            row = Upload(
                id=f"up-{secrets.token_hex(16)}",
                owner=what.owner,
                kind=what.kind,
                experiment=what.experiment,
                frame=what.frame,
                pin=what.pin,
                sha256=what.sha256,
                length=what.length,
                part_bytes=part_bytes(context),
                parts={},
                created_at=now,
            )
            db.add(row)
        count = -(-row.length // row.part_bytes)
        have = _present(context, row)
        expires = int(now.timestamp()) + URL_LIFE_S
        parts = tuple(
            UploadPart(number=n, url=f"{base_url.rstrip('/')}{_path(key, row.id, n, expires)}")
            for n in range(1, count + 1)
            if n not in have
        )
        return UploadReply(id=row.id, part_bytes=row.part_bytes, parts=parts)


def part_bytes(context: Context) -> int:
    """Size of a part; less than the greatest request."""
    return int(min(PART_BYTES, context.settings.max_body_mb * 1e6 * 0.9))


def _path(key: bytes, upload_id: str, number: int, expires: int) -> str:
    signature = _signature(key, upload_id, number, expires)
    return f"/api/v1/uploads/{upload_id}/parts/{number}?expires={expires}&signature={signature}"


def _signature(key: bytes, upload_id: str, number: int, expires: int) -> str:
    return hmac.new(key, f"PUT\n{upload_id}\n{number}\n{expires}".encode(), hashlib.sha256).hexdigest()


def check_address(context: Context, upload_id: str, number: int, expires: int, signature: str) -> None:
    """Check that this server made the address and that it has not expired.

    Raises:
        RequestRefused: 403 ``bad-signature``, ``url-expired``.
    """
    expected = _signature(context.secret(_SECRET), upload_id, number, expires)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
        raise forbidden(
            "this address was not made by this server", code="bad-signature", hint="announce the file again"
        )
    if context.clock.now().timestamp() > expires:
        raise forbidden(
            "this address has expired", code="url-expired", hint="announce the file again for new addresses"
        )


def put_part(context: Context, upload_id: str, number: int, body: bytes) -> None:
    """Keep a part, whose address was checked.

    Raises:
        RequestRefused: 404; 422 ``length-mismatch``.
    """
    with context.reading() as db:
        row = db.get(Upload, upload_id)
    if row is None:
        raise not_found(f"upload {upload_id}", hint="announce the file again")
    if row.completed_at is not None:
        return
    wanted = max(0, min(row.part_bytes, row.length - (number - 1) * row.part_bytes))
    if len(body) != wanted:
        raise bad_request("length-mismatch", f"part {number} has {len(body)} bytes; it must have {wanted}")
    write_atomic(_folder(context, upload_id) / str(number), body)


def complete(context: Context, owner: Caller | Person, upload_id: str) -> None:
    """All parts are there: check and keep the file. Completing it again changes nothing.

    Raises:
        RequestRefused: 404; 409 ``parts-missing``; 422 ``digest-mismatch``, ``length-mismatch`` (then all parts are sent again).
    """
    with context.reading() as db:
        row = db.get(Upload, upload_id)
    if row is None or row.owner != owner.actor:
        raise not_found(f"upload {upload_id[:80]}", hint="announce the file again")
    if row.completed_at is not None:
        return
    count = -(-row.length // row.part_bytes)
    if missing := sorted(set(range(1, count + 1)) - _present(context, row)):
        some = ", ".join(map(str, missing[:10]))
        raise conflict("parts-missing", f"{len(missing)} of {count} parts are missing: {some}", hint="put them first")
    folder = _folder(context, upload_id)
    try:
        context.blobs.put(_joined(folder, count), sha256=row.sha256, length=row.length)
    except RequestRefused:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    with context.sessions() as db:
        held = db.scalars(select(Upload).where(Upload.id == upload_id).with_for_update()).one()
        if held.completed_at is None:
            held.completed_at, held.parts = context.clock.now(), {"count": count}
            what = Announced(held.owner, held.kind, held.sha256, held.length, held.experiment, held.frame, held.pin)
            _keep(db, context, what)
    shutil.rmtree(folder, ignore_errors=True)


def _joined(folder: Path, count: int) -> Iterator[bytes]:
    for number in range(1, count + 1):
        try:
            yield (folder / str(number)).read_bytes()
        except FileNotFoundError:
            raise conflict("parts-missing", f"part {number} is missing", hint="put it first") from None


def _keep(db: Session, context: Context, what: Announced) -> None:
    """Say what the bytes are; they are in the store."""
    now = context.clock.now()
    if what.kind == ARTIFACT:
        row = {"sha256": what.sha256, "length": what.length, "uploaded_by": what.owner[:64], "uploaded_at": now}
        if insert_or_ignore(db, Artifact, [row]):
            audit.record(db, context, what.owner, "artifact.uploaded", f"artifact:{what.sha256}", length=what.length)
        return
    key = (what.owner.removeprefix("device:"), what.experiment, what.frame, what.kind)
    names = dict(zip(("device_id", "experiment", "frame", "kind"), key, strict=True))
    facts = {"pin": what.pin, "sha256": what.sha256, "media_type": media_type(context, what.sha256), "stored_at": now}
    if insert_or_ignore(db, Picture, [{**names, **facts}]):
        return
    picture = db.get_one(Picture, key, with_for_update=True, populate_existing=True)
    if picture.pin <= what.pin:
        for name, value in facts.items():
            setattr(picture, name, value)


def media_type(context: Context, sha256: str) -> str:
    """By the first bytes, not by the announced type; unknown content is plain bytes to a browser."""
    head = next(iter(context.blobs.open(sha256, 0, 16)), b"")
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "application/octet-stream")


def _present(context: Context, row: Upload) -> set[int]:
    """Numbers of the parts that are here, whole."""
    folder = _folder(context, row.id)
    if not folder.is_dir():
        return set()
    return {int(f.name) for f in folder.iterdir() if f.name.isdecimal()}


def _folder(context: Context, upload_id: str) -> Path:
    if not _ID.fullmatch(upload_id):
        raise not_found(f"upload {upload_id[:80]}")
    return context.blobs.folder / "uploads" / upload_id


def sweep(context: Context) -> None:
    """Forget uploads that were not completed in two days, with their parts; and old notes of completed ones."""
    now = context.clock.now()
    with context.sessions() as db:
        old = (Upload.completed_at.is_(None)) & (Upload.created_at < now - _KEPT_UNFINISHED)
        ids = db.scalars(select(Upload.id).where(old)).all()
        db.execute(delete(Upload).where(old))
        db.execute(delete(Upload).where(Upload.completed_at < now - _KEPT_FINISHED))
    make_dir(context.blobs.folder / "uploads")
    for upload_id in ids:
        shutil.rmtree(_folder(context, upload_id), ignore_errors=True)
