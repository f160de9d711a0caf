"""Verify what a publisher sends to the server. Files in, verified files out; no database, no clock of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import Field

from cellfleet.canonical import sha256_hex
from cellfleet.errors import WireError
from cellfleet.trust.layout import (
    ALLOWANCES,
    DELEGATED,
    MAX_ROOT_ROTATIONS,
    MODELS,
    ROLE_OF_KIND,
    ROOT,
    SNAPSHOT,
    SOFTWARE,
    TARGETS,
    TIMESTAMP,
    AllowanceFacts,
    ReleaseFacts,
    allowance_path,
    facts_of,
    file_name,
    max_bytes,
    newest,
    target_path,
    version_in,
)
from cellfleet.trust.metadata import load, meta_of
from cellfleet.trust.metadata_fetch import Fetch
from cellfleet.trust.refusals import BadMetadata, NotUpward
from cellfleet.trust.trusted_metadata import TrustedMetadata, check_follows
from cellfleet.trust.tuf_types import Snapshot, TargetFile, Targets, Timestamp
from cellfleet.wire.base import parse_data
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ArtifactRef

_IMAGE, _DIRECTOR = "image", "director"
_BEHIND = "another publisher published first; fetch the files of the server, then publish again"
R = TypeVar("R", bound=ArtifactRef)
_ROLES = (ROOT, SNAPSHOT, TARGETS, *DELEGATED)


class Named(ArtifactRef):
    """An artifact that the image repository names.

    Attributes:
        hardware: that it needs, as of its targets' ``custom``.
    """

    hardware: dict[str, Any] = Field(default={})


@dataclass(frozen=True)
class Accepted:
    """A verified publication that may be stored.

    Attributes:
        files: new files by name.
        snapshot_name, snapshot: the newest snapshot, which the timestamp must name.
        root_version: of the newest root.
        named: every release that the repository names now, by target path.
        added: the releases that it did not name before.
    """

    files: dict[str, bytes]
    snapshot_name: str
    snapshot: bytes
    root_version: int
    named: dict[str, Named]
    added: tuple[Named, ...]


def check_published(current: Mapping[str, bytes], new: Mapping[str, bytes], now: datetime) -> Accepted:
    """Verify files for the image repository against the stored ones.

    Args:
        current: stored files by name, verified earlier; empty: the first root in ``new`` is trusted.
        new: files by name; ``timestamp.json`` is ignored, and files with the stored bytes are accepted.
        now: the time that expiry dates are compared with.

    Returns:
        What may be stored.

    Raises:
        Untrusted: of any kind. NotUpward: a version does not follow, a release is changed or its counter is not higher.
    """
    _no_other_bytes(current, new)
    chain = _follow_roots(_IMAGE, current, new, now)
    merged = {**current, **new}
    found = newest(merged, SNAPSHOT)
    if found is None:
        raise BadMetadata("image repository: there is no snapshot")
    version, snapshot = found
    before, sent = newest(current, SNAPSHOT), newest(new, SNAPSHOT)
    if before and sent and sent[0] < before[0]:
        raise NotUpward(
            f"image repository: snapshot {sent[0]} was sent, but {before[0]} is already published", hint=_BEHIND
        )
    chain.add_snapshot(snapshot, named=meta_of(version, snapshot))
    if before is not None:
        old = load(Snapshot, before[1], "image repository, snapshot").signed
        check_follows(chain.snapshot, old)
    used = {file_name(SNAPSHOT, version)} | {file_name(ROOT, n) for n in range(1, chain.root_version + 1)}
    for role in (TARGETS, *DELEGATED):
        name = file_name(role, chain.targets_meta(role).version)
        if name not in merged:
            raise BadMetadata(f"image repository: the snapshot names {name}, which was not sent")
        chain.add_targets(role, merged[name])
        used.add(name)
    _check_allowances(chain)
    now_named = _named(chain)
    was_named = named(current)
    _check_upward(was_named, now_named)
    return Accepted(
        files={n: d for n, d in new.items() if n in used and n not in current},
        snapshot_name=file_name(SNAPSHOT, version),
        snapshot=snapshot,
        root_version=chain.root_version,
        named=now_named,
        added=tuple(n for path, n in now_named.items() if path not in was_named),
    )


def check_director_roots(current: Mapping[str, bytes], new: Mapping[str, bytes], now: datetime) -> dict[str, bytes]:
    """Verify roots of the director against the stored ones.

    Args:
        current: stored files by name, verified earlier.
        new: files by name.
        now: the time that expiry dates are compared with.

    Returns:
        The new roots by name.

    Raises:
        Untrusted: as ``check_published``.
    """
    _no_other_bytes(current, new)
    chain = _follow_roots(_DIRECTOR, current, new, now)
    wanted = {file_name(ROOT, n) for n in range(1, chain.root_version + 1)}
    return {n: d for n, d in new.items() if n in wanted and n not in current}


def named(files: Mapping[str, bytes]) -> dict[str, Named]:
    """The releases that verified files of an image repository name, by target path; {} of an empty repository.

    Raises:
        BadMetadata: the files are damaged.
    """
    found = newest(files, SNAPSHOT)
    if found is None:
        return {}
    metas = load(Snapshot, found[1], "image repository, snapshot").signed.meta
    out: dict[str, Named] = {}
    for role in (MODELS, SOFTWARE):
        name = file_name(role, metas[f"{role}.json"].version) if f"{role}.json" in metas else ""
        if name not in files:
            raise BadMetadata(f"image repository: {name or role} is missing")
        out |= _named_by(role, load_targets(files[name], role))
    return out


def newer_files(fetch: Fetch, have: Mapping[str, bytes]) -> dict[str, bytes]:
    """Fetch what a server's image repository has and the local files lack: roots, newest snapshot, and the files that it names.

    Nothing is verified here; pass the result to ``check_published`` or ``TrustFolder.adopt``.

    Args:
        fetch: reads files of the server.
        have: local files by name.

    Returns:
        New content by file name.

    Raises:
        BadMetadata, EndlessData: the server sends no metadata.
        NetworkError: the server cannot be reached.
    """
    files: dict[str, bytes] = {}
    stamp = fetch(file_name(TIMESTAMP, 0), max_bytes(TIMESTAMP))
    if stamp is None:
        return files
    known = newest(have, ROOT)
    for version in range((known[0] if known else 0) + 1, MAX_ROOT_ROTATIONS):
        root = fetch(file_name(ROOT, version), max_bytes(ROOT))
        if root is None:
            break
        files[file_name(ROOT, version)] = root
    version = load(Timestamp, stamp, "the server's timestamp").signed.snapshot_meta.version
    wanted: dict[str, str] = {}
    snapshot = have.get(file_name(SNAPSHOT, version)) or fetch(file_name(SNAPSHOT, version), max_bytes(SNAPSHOT))
    if snapshot is not None:
        files[file_name(SNAPSHOT, version)] = snapshot
        metas = load(Snapshot, snapshot, "the server's snapshot").signed.meta
        wanted = {file_name(r, metas[f"{r}.json"].version): r for r in (TARGETS, *DELEGATED) if f"{r}.json" in metas}
    for name, role in wanted.items():
        content = None if name in have or name in files else fetch(name, max_bytes(role))
        if content is not None:
            files[name] = content
    return {name: content for name, content in files.items() if have.get(name) != content}


def load_targets(data: bytes, role: str) -> Mapping[str, TargetFile]:
    """Read the targets in a file that was verified earlier.

    Args:
        data: bytes of the file.
        role: of the targets, for messages.

    Returns:
        Targets by path.

    Raises:
        BadMetadata: the file is damaged.
    """
    return dict(load(Targets, data, f"image repository, {role}").signed.targets)


def anchors_of(image_root_1: bytes, director_root_1: bytes) -> TrustAnchors:
    """The trust anchors: digests of both first roots.

    Args:
        image_root_1, director_root_1: bytes of the first roots.

    Returns:
        The anchors.
    """
    return TrustAnchors(image_root=sha256_hex(image_root_1), director_root=sha256_hex(director_root_1))


def _no_other_bytes(current: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
    for name, data in new.items():
        if name in current and current[name] != data and any(version_in(name, r) for r in _ROLES):
            raise NotUpward(
                f"{name} is already published with other bytes",
                hint=_BEHIND,
            )


def _follow_roots(
    repository: str, current: Mapping[str, bytes], new: Mapping[str, bytes], now: datetime
) -> TrustedMetadata:
    start = newest(current, ROOT)
    if start is None:
        first = new.get(file_name(ROOT, 1))
        if first is None:
            raise BadMetadata(f"{repository} repository: there is no {file_name(ROOT, 1)}")
        start = (1, first)
    chain = TrustedMetadata(repository, start[1], now)
    while (data := new.get(file_name(ROOT, chain.root_version + 1))) is not None:
        chain.add_root(data)
    chain.check_root()
    return chain


def _named(chain: TrustedMetadata) -> dict[str, Named]:
    return _named_by(MODELS, chain.targets(MODELS).targets) | _named_by(SOFTWARE, chain.targets(SOFTWARE).targets)


def _named_by(role: str, targets: Mapping[str, TargetFile]) -> dict[str, Named]:
    out: dict[str, Named] = {}
    for path, found in targets.items():
        facts = facts_of(ReleaseFacts, found, f"image repository, {role}")
        sha256, _ = bytes_of(found)
        if ROLE_OF_KIND[facts.kind] != role or path != target_path(facts.kind, facts.name, facts.version, sha256):
            raise BadMetadata(f"image repository, {role}: the facts of {path} do not match its path")
        out[path] = named_target(Named, found, facts, f"image repository, {role}")
    _check_counters(out.values())
    return out


def bytes_of(found: TargetFile) -> tuple[str, int]:
    """SHA-256 (empty: the target names none) and length of a target."""
    return found.hashes.get("sha256", ""), found.length


def named_target(kind: type[R], found: TargetFile, facts: ReleaseFacts, where: str, **more: Any) -> R:
    """The artifact that a target of the image repository names.

    Args:
        kind: the type of the result.
        found: the target.
        facts: its ``custom``.
        where: repository and role, for messages.
        more: further fields of ``kind``.

    Returns:
        The artifact, with its hardware.

    Raises:
        BadMetadata: path, digest or length are none of an artifact.
    """
    sha256, length = bytes_of(found)
    values = facts.model_dump(exclude={"release_counter"})
    values |= {"counter": facts.release_counter, "target_path": found.path, "sha256": sha256, "length": length}
    try:
        return parse_data(kind, values | more)
    except WireError as e:
        raise BadMetadata(f"{where}: {found.path}: {e.message}") from e


def _check_counters(releases: Iterable[Named]) -> None:
    seen: dict[tuple[str, str, int], str] = {}
    versions: dict[tuple[str, str, str], str] = {}
    for r in releases:
        other = seen.setdefault((r.kind, r.name, r.counter), r.target_path)
        if other != r.target_path:
            raise NotUpward(f"{r.target_path} and {other} have the same release counter {r.counter}")
        other = versions.setdefault((r.kind, r.name, r.version), r.target_path)
        if other != r.target_path:
            raise NotUpward(f"{r.target_path} and {other} are the same version with other bytes")


def _check_upward(old: Mapping[str, Named], new: Mapping[str, Named]) -> None:
    highest: dict[tuple[str, str], int] = {}
    for r in old.values():
        highest[r.kind, r.name] = max(highest.get((r.kind, r.name), 0), r.counter)
        if r.target_path in new and new[r.target_path] != r:
            raise NotUpward(f"{r.target_path} is already published and must not change")
    for r in new.values():
        if r.target_path not in old and r.counter <= highest.get((r.kind, r.name), 0):
            raise NotUpward(
                f"{r.target_path}: its release counter {r.counter} is not above {highest[r.kind, r.name]}",
                hint="publish it again with a counter above those before",
            )


def _check_allowances(chain: TrustedMetadata) -> None:
    for path, found in chain.targets(ALLOWANCES).targets.items():
        facts = facts_of(AllowanceFacts, found, "image repository, allowances")
        kind, name = path.split("/")[1:3] if path.count("/") == 3 else ("", "")
        if path != allowance_path(kind, name, facts.from_counter, facts.to_counter, facts.device_id):
            raise BadMetadata(f"image repository, allowances: the facts of {path} do not match its path")
