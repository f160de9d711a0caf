"""Rotate keys and renew metadata of a trust folder: new roots, and new signatures of what they name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Signer

from cellfleet.errors import CellfleetError
from cellfleet.trust.folder import TrustFolder
from cellfleet.trust.keys import (
    KEY_NAMES,
    ONLINE_NAMES,
    ROOT_NAMES,
    ExternalKey,
    Secrets,
    file_of,
    new_key,
)
from cellfleet.trust.layout import (
    ALLOWANCES,
    DELEGATED,
    DIRECTOR,
    LIFE,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    WARN_BEFORE,
    WARN_BEFORE_REST,
    file_name,
    newest,
)
from cellfleet.trust.metadata import load, sign
from cellfleet.trust.metadata_builder import ImageDraft, director_root, image_root, required, timestamp_of, top_targets
from cellfleet.trust.refusals import KeyTrouble
from cellfleet.trust.tuf_types import Root, Snapshot, Targets, Timestamp

RENEWABLE = (ROOT, TARGETS, *DELEGATED, SNAPSHOT)


@dataclass(frozen=True)
class RoleStatus:
    """State of a role.

    Attributes:
        repository: ``image`` or ``director``.
        keys: names of its keys, with what holds each.
        threshold: how many of them must sign.
        version: of the newest file; 0: the folder holds none.
        state: ``ok``, ``soon`` (renew it), ``expired``, ``server`` (the server renews it).
        expires_in_s: seconds until ``expires``; None: the folder holds no file of the role.
    """

    repository: str
    role: str
    keys: tuple[str, ...]
    threshold: int
    version: int
    expires: datetime | None
    expires_in_s: float | None
    state: str


def status(folder: TrustFolder, now: datetime) -> list[RoleStatus]:
    """The state of each role; needs no passphrase.

    Args:
        folder: the trust folder.
        now: the current time.

    Returns:
        One row per role.

    Raises:
        BadMetadata: a file is damaged.
    """
    images, directors = folder.image_files(), folder.director_files()
    rows = [_row(folder, "image", ROOT, newest(images, ROOT), now)]
    rows += [_row(folder, "image", role, newest(images, role), now) for role in (TARGETS, *DELEGATED, SNAPSHOT)]
    stamp = images.get(f"{TIMESTAMP}.json")
    rows.append(_row(folder, "image", TIMESTAMP, None if stamp is None else (0, stamp), now))
    rows.append(_row(folder, "director", ROOT, newest(directors, ROOT), now))
    rows.append(_row(folder, "director", DIRECTOR, None, now))
    return rows


def _row(folder: TrustFolder, repository: str, role: str, found: tuple[int, bytes] | None, now: datetime) -> RoleStatus:
    names = ROOT_NAMES if role == ROOT else (role,)
    held = tuple(f"{n} ({_held(folder, n)})" for n in names)
    threshold, version, expires = (2 if role == ROOT else 1), 0, None
    if found is not None:
        signed = _signed(role, found[1], f"{repository} repository, {role}")
        version, expires = signed.version, signed.expires
        if isinstance(signed, Root):
            threshold = signed.roles[ROOT].threshold
    left = None if expires is None else (expires - now).total_seconds()
    return RoleStatus(repository, role, held, threshold, version, expires, left, _state(role, left))


def _signed(role: str, data: bytes, where: str) -> Root | Snapshot | Timestamp | Targets:
    if role == ROOT:
        return load(Root, data, where).signed
    if role == SNAPSHOT:
        return load(Snapshot, data, where).signed
    if role == TIMESTAMP:
        return load(Timestamp, data, where).signed
    return load(Targets, data, where).signed


def _held(folder: TrustFolder, name: str) -> str:
    entry = folder.book.keys[name]
    path = file_of(folder.path, entry)
    if path is None:
        return entry.held
    return "file" if path.exists() else "not here"


def _state(role: str, left_s: float | None) -> str:
    if role in ONLINE_NAMES:
        return "server"
    if left_s is None or left_s <= 0:
        return "expired"
    return "soon" if left_s < WARN_BEFORE.get(role, WARN_BEFORE_REST).total_seconds() else "ok"


def rotate(
    folder: TrustFolder, name: str, secrets: Secrets, now: datetime, external: ExternalKey | None = None
) -> list[str]:
    """Replace a key by a new one. A lost root key can be replaced, because the two others sign.

    Args:
        folder: the trust folder.
        name: of the key, as in ``keys.json``.
        secrets: gives the passphrases of the keys.
        now: the time of signing.
        external: the new key in a KMS or an HSM; None: a key file is made.

    Returns:
        Names of the written files, ``image/...`` and ``director/...``.

    Raises:
        KeyTrouble: there is no such key; a key that must sign is missing or locked.
        StorageError: the disk fails; the folder is unchanged.
    """
    if name not in KEY_NAMES:
        raise KeyTrouble(f"there is no key {name!r}", hint=f"the keys are {', '.join(KEY_NAMES)}")
    entry = external.entry() if external else new_key(folder.path, name, secrets, rotated=True)
    made = file_of(folder.path, entry)
    try:
        if entry.keyid in {e.keyid for e in folder.book.keys.values()}:
            raise KeyTrouble(f"that key is already in use; {name} needs a key of its own")
        book = folder.book.model_copy(update={"keys": {**folder.book.keys, name: entry}})
        after = TrustFolder(folder.path, book, folder.image_files(), folder.director_files())
        images, directors = _resigned(folder, after, name, secrets, now)
    except CellfleetError:
        if made is not None and external is None:
            made.unlink(missing_ok=True)
        raise
    old = file_of(folder.path, folder.book.keys[name])
    gone = [] if old is None else [old]
    folder.write(images=images, directors=directors, book=book, remove=gone)
    return _names(images, directors)


def renew(folder: TrustFolder, role: str, secrets: Secrets, now: datetime) -> list[str]:
    """Sign the metadata of a role again with its present key, for a new life.

    Args:
        folder: the trust folder.
        role: one of ``RENEWABLE``.
        secrets: gives the passphrases of the keys.
        now: the time of signing.

    Returns:
        Names of the written files, ``image/...`` and ``director/...``.

    Raises:
        KeyTrouble: there is no such role; a key that must sign is missing or locked.
    """
    if role not in RENEWABLE:
        raise KeyTrouble(f"{role!r} cannot be renewed by hand", hint=f"renewable are {', '.join(RENEWABLE)}")
    images: dict[str, bytes] = {}
    directors: dict[str, bytes] = {}
    if role == ROOT:
        images, directors = _roots(folder, folder, secrets, now, image=True, director=True)
    else:
        draft = ImageDraft(folder.image_files())
        if role != SNAPSHOT:
            draft.put(role, draft.targets(role), [folder.signer(role, secrets)], now)
        draft.snapshot([folder.signer(SNAPSHOT, secrets)], now)
        images = draft.new
    folder.write(images=images, directors=directors)
    return _names(images, directors)


def _resigned(
    before: TrustFolder, after: TrustFolder, name: str, secrets: Secrets, now: datetime
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    in_image_root = name in (*ROOT_NAMES, TARGETS, SNAPSHOT, TIMESTAMP)
    in_director_root = name in (*ROOT_NAMES, DIRECTOR, ALLOWANCES)
    images, directors = _roots(before, after, secrets, now, image=in_image_root, director=in_director_root)
    if name in (TARGETS, SNAPSHOT, *DELEGATED):
        draft = ImageDraft(after.image_files())
        if name != SNAPSHOT:
            top = draft.targets(TARGETS)
            top.delegations = top_targets(after.keys(), 1).delegations
            draft.put(TARGETS, top, [after.signer(TARGETS, secrets)], now)
        if name in DELEGATED:
            draft.put(name, draft.targets(name), [after.signer(name, secrets)], now)
        draft.snapshot([after.signer(SNAPSHOT, secrets)], now)
        images |= draft.new
    if name == TIMESTAMP:
        images[f"{TIMESTAMP}.json"] = _stamp(after, after.signer(TIMESTAMP, secrets), now)
    return images, directors


def _roots(
    before: TrustFolder, after: TrustFolder, secrets: Secrets, now: datetime, *, image: bool, director: bool
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The next roots, signed by the threshold of the keys before and of those after."""
    if not (image or director):
        return {}, {}
    signers = {s.public_key.keyid: s for f in (before, after) for s in f.root_signers(secrets)}
    keys = after.keys()
    out: list[dict[str, bytes]] = []
    for wanted, repository, files, make in (
        (image, "image", before.image_files(), image_root),
        (director, "director", before.director_files(), director_root),
    ):
        made: dict[str, bytes] = {}
        if wanted:
            version = required(files, ROOT, repository)[0] + 1
            made[file_name(ROOT, version)] = sign(make(keys, version), signers.values(), now, LIFE[ROOT])
        out.append(made)
    return out[0], out[1]


def _stamp(folder: TrustFolder, signer: Signer, now: datetime) -> bytes:
    images = folder.image_files()
    _, snapshot = required(images, SNAPSHOT)
    old = images.get(f"{TIMESTAMP}.json")
    version = load(Timestamp, old, "timestamp").signed.version + 1 if old else 1
    return sign(timestamp_of(snapshot, version), [signer], now, LIFE[TIMESTAMP])


def _names(images: dict[str, bytes], directors: dict[str, bytes]) -> list[str]:
    return sorted([*(f"image/{n}" for n in images), *(f"director/{n}" for n in directors)])
