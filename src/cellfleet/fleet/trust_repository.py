"""TUF metadata in the table ``trust_files``: the image repository as its publisher signed it, timestamp and director signed here.

Paths: ``image/<file>``, ``director/<version>.root.json``, ``director/<device id>/<file>``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, or_, select
from sqlalchemy.orm import Session

from cellfleet.errors import StorageError, TrustError
from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import RequestRefused, conflict, not_found
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import Device, TrustFile
from cellfleet.trust import Director, OnlineKeys, check_published, renew_timestamp
from cellfleet.trust.keys import BOOK_FILE, environment_secrets
from cellfleet.trust.metadata_fetch import read_folder
from cellfleet.trust.online_signing import needs_renewal, next_version
from cellfleet.trust.publish import Named, anchors_of, check_director_roots
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ReleaseRef

IMAGE, DIRECTOR = "image/", "director/"
TIMESTAMP = "timestamp.json"
_FILE = re.compile(r"(?:[1-9]\d{0,11}\.)?[a-z]{1,20}\.json")
_VERSION = re.compile(r"director/(dev-[0-9a-f]{12})/(\d+)\.(?:targets|snapshot)\.json")
_KEPT_VERSIONS = 3
"""A device may be fetching the version before, or the one before that."""
_RENEWED_AT_ONCE = 200


@dataclass(frozen=True)
class Wanted:
    """What the director is to name for a device."""

    device_id: str
    release: ReleaseRef | None
    deployment_id: int | None
    generation: int


class LoadedKeys:
    """The online keys of this replica, loaded when first needed and when they were rotated; ``context.service(LoadedKeys)``."""

    def __init__(self, context: Context) -> None:
        self._context, self._lock = context, threading.Lock()
        self._loaded: OnlineKeys | None = None
        self._book = b""

    def get(self) -> OnlineKeys:
        """The keys.

        Raises:
            RequestRefused: 503 ``trust-keys``, they cannot be loaded.
        """
        folder = self._context.path(self._context.settings.trust)
        with self._lock:
            book = _bytes_of(folder / BOOK_FILE)
            if self._loaded is None or book != self._book:
                try:
                    self._loaded, self._book = OnlineKeys.load(folder, environment_secrets()), book
                except (TrustError, StorageError) as e:
                    hint = e.hint or "make the folder with `cellfleet trust init`"
                    raise RequestRefused(
                        503, "trust-keys", f"the server cannot sign metadata: {e.message}", hint=hint
                    ) from e
            return self._loaded


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def read(db: Session, path: str) -> TrustFile:
    """A file as devices fetch it.

    Raises:
        RequestRefused: 404.
    """
    found = db.get(TrustFile, path)
    if found is None:
        raise not_found(f"metadata file {path}")
    return found


def file_name(text: str) -> str:
    """The name of a metadata file.

    Raises:
        RequestRefused: 404, it cannot be one.
    """
    if not _FILE.fullmatch(text):
        raise not_found(f"metadata file {text[:80]}")
    return text


def image_files(db: Session) -> dict[str, bytes]:
    """The image repository by file name."""
    return _files(db, IMAGE)


def anchors(db: Session) -> TrustAnchors:
    """Digests of the first roots.

    Raises:
        RequestRefused: 503, there are none yet.
    """
    roots = {
        row.path: row.content
        for row in db.scalars(
            select(TrustFile).where(TrustFile.path.in_([f"{IMAGE}1.root.json", f"{DIRECTOR}1.root.json"]))
        )
    }
    if len(roots) < 2:
        hint = "make the folder with `cellfleet trust init` in the server's project and start the server again"
        raise RequestRefused(503, "no-trust", "this server has no trust roots yet", hint=hint)
    return anchors_of(roots[f"{IMAGE}1.root.json"], roots[f"{DIRECTOR}1.root.json"])


def accept(db: Session, context: Context, new: Mapping[str, str]) -> Mapping[str, Named]:
    """Take what a publisher signed, after all of it was verified; the timestamp is signed anew.

    Returns:
        What the image repository names now, by target path.

    Raises:
        RequestRefused: 409 ``metadata-refused``, 503 ``trust-keys``.
    """
    keys = context.service(LoadedKeys).get()
    current = _locked_image_files(db)
    now = context.clock.now()
    if not any(name.endswith(".root.json") for name in current):
        raise RequestRefused(
            503, "no-trust", "this server has no trust roots yet", hint="start it once with its trust folder"
        )
    try:
        accepted = check_published(current, {name: text.encode() for name, text in new.items()}, now)
        fresh = _timestamp(keys, accepted.snapshot, current.get(TIMESTAMP), now, context)
    except TrustError as e:
        raise conflict("metadata-refused", f"the metadata is refused: {e.message}", hint=e.hint) from e
    _store(db, IMAGE, {**accepted.files, TIMESTAMP: fresh}, now)
    return accepted.named


def _timestamp(keys: OnlineKeys, snapshot: bytes, previous: bytes | None, now: datetime, context: Context) -> bytes:
    return renew_timestamp(keys.timestamp, snapshot, previous, now, context.settings.timestamp_s)


class _FolderState:
    """What the operator's folder looked like when there was nothing new in it."""

    def __init__(self, _context: Context) -> None:
        self.listing: tuple[Any, ...] = ()


def _listing(folder: Path) -> tuple[Any, ...]:
    """Names, sizes and times of the files that may be new; empty without a folder."""
    files = [*(folder / "image").glob("*.json"), *(folder / "director").glob("*.root.json")]
    stats = [(str(f), f.stat()) for f in sorted(files)]
    return tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)


def take_folder(context: Context) -> bool:
    """Take what the operator's trust folder has and the database lacks: the roots at first, rotated keys later.

    Returns:
        Whether there was anything new.

    Raises:
        TrustError: the folder cannot be trusted.
        RequestRefused: 503, no keys.
    """
    folder = context.path(context.settings.trust)
    seen = context.service(_FolderState)
    listing = _listing(folder)
    if not listing or listing == seen.listing:
        return False
    image, roots = read_folder(folder / "image"), read_folder(folder / "director")
    with context.reading() as db:
        stored, stored_roots = image_files(db), _files(db, DIRECTOR, roots_only=True)
    fresh = {n: b for n, b in image.items() if n != TIMESTAMP and stored.get(n) != b}
    fresh_roots = {n: b for n, b in roots.items() if n.endswith(".root.json") and stored_roots.get(n) != b}
    if not fresh and not fresh_roots:
        seen.listing = listing
        return False
    keys = context.service(LoadedKeys).get()
    with context.sessions() as db:
        now = context.clock.now()
        current = _locked_image_files(db)
        added = check_director_roots(_files(db, DIRECTOR, roots_only=True), fresh_roots, now) if fresh_roots else {}
        _store(db, DIRECTOR, added, now)
        taken: Mapping[str, bytes] = {}
        if fresh:
            accepted = check_published(current, fresh, now)
            stamp = _timestamp(keys, accepted.snapshot, current.get(TIMESTAMP), now, context)
            taken = accepted.files
            _store(db, IMAGE, {**taken, TIMESTAMP: stamp}, now)
        audit.record(db, context, "server", "trust.taken", "trust:folder", files=sorted([*taken, *added]))
    return True


def renew(context: Context) -> int:
    """Sign again what is at half its life: the timestamp, and the director's files of devices; first ones, too.

    Returns:
        How many files or devices were renewed.
    """
    now, life_s = context.clock.now(), context.settings.timestamp_s
    count = 0
    with context.reading() as db:
        stamp = db.get(TrustFile, IMAGE + TIMESTAMP)
        due = stamp is not None and needs_renewal(stamp.content, now, life_s)
        devices = _devices_due(db, _stale_before(db, now - timedelta(seconds=context.settings.director_s / 2)))
    if not due and not devices:
        return 0
    keys = context.service(LoadedKeys).get()
    with context.sessions() as db:
        current = _locked_image_files(db)
        if due and needs_renewal(current[TIMESTAMP], now, life_s):
            newest = max((n for n in current if n.endswith(".snapshot.json")), key=lambda n: int(n.split(".")[0]))
            _store(db, IMAGE, {TIMESTAMP: _timestamp(keys, current[newest], current[TIMESTAMP], now, context)}, now)
            count += 1
    for device_id in devices:
        with context.sessions() as db:
            device = db.scalars(select(Device).where(Device.id == device_id).with_for_update()).one()
            sign(db, context, [wanted_of(device)])
            count += 1
    return count


def _stale_before(db: Session, half_life_ago: datetime) -> datetime:
    """What is older was signed half a life ago, or with the director's key before it was rotated."""
    roots = select(func.max(TrustFile.updated_at)).where(
        TrustFile.path.like(f"{DIRECTOR}%.root.json"), ~TrustFile.path.like(f"{DIRECTOR}%/%")
    )
    newest = db.scalar(roots)
    return max(half_life_ago, newest) if newest is not None else half_life_ago


def _devices_due(db: Session, before: datetime) -> Sequence[str]:
    """Accepted devices whose director's files are older, or that have none."""
    stamp = DIRECTOR + Device.id + "/" + TIMESTAMP
    query = (
        select(Device.id)
        .outerjoin(TrustFile, TrustFile.path == stamp)
        .where(Device.state == "accepted", (TrustFile.path.is_(None)) | (TrustFile.updated_at < before))
        .order_by(Device.id)
        .limit(_RENEWED_AT_ONCE)
    )
    return db.scalars(query).all()


def wanted_of(device: Device) -> Wanted:
    """What the director names for a device: its desired state."""
    content: dict[str, Any] = device.desired or {}
    release = content.get("release")
    return Wanted(
        device.id,
        None if release is None else ReleaseRef.model_validate(release),
        content.get("deployment_id"),
        device.desired_generation,
    )


def sign(db: Session, context: Context, wanted: Sequence[Wanted]) -> None:
    """Sign the director's metadata of devices, whose rows the caller holds.

    Raises:
        RequestRefused: 503 ``trust-keys``.
    """
    if not wanted:
        return
    director, now = Director(context.service(LoadedKeys).get().director), context.clock.now()
    life_s = context.settings.director_s
    versions = _versions(db, [w.device_id for w in wanted])
    stale: list[str] = []
    for w in wanted:
        known = versions.get(w.device_id, [])
        version = next_version(known[-1] if known else None, now)
        files = director.files(
            w.device_id,
            w.release,
            deployment_id=w.deployment_id,
            generation=w.generation,
            version=version,
            now=now,
            life_s=life_s,
        )
        _store(db, f"{DIRECTOR}{w.device_id}/", files, now)
        old = known[: 1 - _KEPT_VERSIONS]
        stale += [f"{DIRECTOR}{w.device_id}/{v}.{role}.json" for v in old for role in ("targets", "snapshot")]
    if stale:
        db.execute(delete(TrustFile).where(TrustFile.path.in_(stale)))


def _versions(db: Session, device_ids: Sequence[str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for at in range(0, len(device_ids), 100):
        conditions = [
            TrustFile.path.between(f"{DIRECTOR}{d}/", f"{DIRECTOR}{d}0") for d in device_ids[at : at + 100]
        ]  # "0" is the character after "/"
        query = select(TrustFile.path).where(or_(*conditions))
        for path in db.scalars(query):
            if found := _VERSION.fullmatch(path):
                out.setdefault(found[1], []).append(int(found[2]))
    return {d: sorted(set(v)) for d, v in out.items()}


def _files(db: Session, prefix: str, *, roots_only: bool = False) -> dict[str, bytes]:
    query = select(TrustFile).where(TrustFile.path.startswith(prefix, autoescape=True))
    if roots_only:
        query = query.where(TrustFile.path.like(f"{prefix}%.root.json"), ~TrustFile.path.like(f"{prefix}%/%"))
    return {row.path.removeprefix(prefix): row.content for row in db.scalars(query)}


def _locked_image_files(db: Session) -> dict[str, bytes]:
    """The image repository, held by this transaction (its timestamp stands for all of it)."""
    query = select(TrustFile).where(TrustFile.path == IMAGE + TIMESTAMP).with_for_update()
    db.scalars(query.execution_options(populate_existing=True)).one_or_none()
    return image_files(db)


def _store(db: Session, prefix: str, files: Mapping[str, bytes], now: datetime) -> None:
    """Write files; a versioned one never changes once it is there."""
    rows = [{"path": prefix + n, "content": b, "updated_at": now} for n, b in files.items()]
    insert_or_ignore(db, TrustFile, rows)
    changing = [r for r in rows if r["path"] == prefix + TIMESTAMP]
    for row in changing:
        stored = db.get(TrustFile, row["path"], populate_existing=True)
        assert stored is not None
        stored.content, stored.updated_at = files[TIMESTAMP], now
    db.flush()
