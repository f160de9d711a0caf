"""What an instrument may install: both repositories are asked, and both must say yes.

The steps, and the error of each:

1. The first root of each repository is the pinned one (UnknownRoot).
2. Each root after it is signed by the threshold of its own keys and of the keys before (BadSignature, RolledBack).
3. The newest root has not expired (Expired); nothing was signed in the future of this machine's clock (ClockWrong).
4. The timestamp is signed, no older than the one before, and alive (BadSignature, RolledBack, Expired).
5. The snapshot is the very file that the timestamp names, signed, alive, and nothing in it is older than before or gone (MixedUp,
   BadSignature, Expired, RolledBack).
6. The targets and the roles to which they delegate are the very files that the snapshot names, signed, alive (as 5).
7. The director's metadata is for this instrument (WrongDevice).
8. Both repositories name the release (NotNamed).
9. They and the desired state agree on length, SHA-256, kind, name, version and release counter (Disagree).
10. The counter is not below that of the installed one, or there is a valid allowance to go back (Downgrade).
11. No file is longer than it may be (EndlessData), and each can be read (BadMetadata); the artifact itself is checked by
    ``download``.

An offline folder has one file of the director's offline role in place of 4 to 6 of the director and of 4 of the image
repository (``cellfleet.trust.offline``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cellfleet.canonical import sha256_hex
from cellfleet.errors import StorageError
from cellfleet.ports import Clock, write_atomic
from cellfleet.trust.chain import Chain
from cellfleet.trust.fetch import Fetch, folder_fetch
from cellfleet.trust.layout import (
    DELEGATED,
    MAX_ROOT_ROTATIONS,
    OFFLINE,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    AllowanceFacts,
    DirectorFacts,
    ReleaseFacts,
    allowance_path,
    facts_of,
    file_name,
    max_bytes,
)
from cellfleet.trust.making import offline_delegator
from cellfleet.trust.metadata import check_life, check_signatures, load
from cellfleet.trust.offline import OFFLINE_FILE, named_snapshot
from cellfleet.trust.online import DEVICE_ID
from cellfleet.trust.refusals import (
    Disagree,
    Downgrade,
    EndlessData,
    Missing,
    NotNamed,
    Refusal,
    RolledBack,
    UnknownRoot,
    WrongDevice,
)
from cellfleet.trust.tuf_types import MetaFile, TargetFile, Targets
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ReleaseRef

_log = logging.getLogger(__name__)
_IMAGE, _DIRECTOR = "image", "director"
_TOO_FEW = "the director and the publisher must both name a release; ask the operator"


@dataclass(frozen=True)
class VerifiedTarget:
    """What both repositories name for this instrument.

    Attributes:
        length: bytes.
        allowance: why the counter may be lower than that of the installed one; empty: it is not.
    """

    path: str
    sha256: str
    length: int
    kind: str
    name: str
    version: str
    counter: int
    hardware: Mapping[str, Any]
    deployment_id: int | None
    generation: int
    allowance: str = ""


class Verifier:
    """Asks both repositories for one instrument and keeps what is trusted in its folder.

    Args:
        folder: ``HOME/trust``; ``image/`` and ``director/`` are made in it.
        anchors: digests of the first roots.
        image_fetch, director_fetch: bring metadata files.
        clock: says what time it is.
        device_id: of this instrument.
        offline: the fetchers read an exported folder.
        write: writes a file atomically.
    """

    def __init__(
        self,
        folder: Path,
        anchors: TrustAnchors,
        image_fetch: Fetch,
        director_fetch: Fetch,
        clock: Clock,
        *,
        device_id: str,
        offline: bool = False,
        write: Callable[[Path, bytes], None] = write_atomic,
    ) -> None:
        self._anchors, self._clock, self._device_id, self._offline = anchors, clock, device_id, offline
        self._image_store = _Store(folder / _IMAGE, image_fetch, write)
        self._director_store = _Store(folder / _DIRECTOR, director_fetch, write)
        self._image: Chain | None = None
        self._wanted: Targets | None = None

    def refresh(self) -> None:
        """Steps 1 to 7: fetch and verify what is new in both repositories.

        Raises:
            Refusal: of the kind that stands at the step.
            NetworkError: a repository cannot be asked now.
            StorageError: the disk refuses.
        """
        now = self._clock.now()
        self._image = self._wanted = None
        order = self._fetch_order() if self._offline else b""
        director = self._roots(_DIRECTOR, self._director_store, self._anchors.director_root, now)
        named: MetaFile | None = None
        if self._offline:
            wanted = self._offline_targets(director, order, now)
            named = named_snapshot(wanted, f"{_DIRECTOR} repository, {OFFLINE}")
        else:
            _to_targets(director, self._director_store, ())
            wanted = director.targets()
            self._check_device(wanted)
        image = self._roots(_IMAGE, self._image_store, self._anchors.image_root, now)
        _to_targets(image, self._image_store, DELEGATED, named)
        self._image, self._wanted = image, wanted

    def check(self, release: ReleaseRef, installed: Mapping[tuple[str, str], int]) -> VerifiedTarget:
        """Steps 8 to 10: may this instrument install that release? After ``refresh``.

        Args:
            release: of the desired state.
            installed: release counter of what is installed, by kind and name.

        Raises:
            Refusal: no, and why.
        """
        found = self._both(release.target_path)
        # 9. the desired state says the same
        said = (release.kind, release.name, release.version, release.counter, release.sha256, release.length)
        if said != (found.kind, found.name, found.version, found.counter, found.sha256, found.length):
            raise Disagree(f"{release.target_path}: the desired state and the repositories describe it differently")
        # 10. not downward
        have = installed.get((found.kind, found.name), 0)
        if found.counter >= have:
            return found
        return _with_allowance(found, self._allowance(found, have))

    def offered(self) -> tuple[VerifiedTarget, ...]:
        """What both repositories name for this instrument now; counters are not compared. After ``refresh``.

        Raises:
            Refusal: they disagree.
        """
        assert self._wanted is not None, "refresh comes first"
        return tuple(self._both(path) for path in sorted(self._wanted.targets))

    def _roots(self, name: str, store: _Store, anchor: str, now: datetime) -> Chain:
        # 1. the pinned root
        first = store.kept(file_name(ROOT, 1))
        if first is None or sha256_hex(first) != anchor:
            first = store.fetch(file_name(ROOT, 1), ROOT)
            if first is None:
                raise Missing(f"{name} repository: it has no first root", hint="is the address or folder right?")
            if sha256_hex(first) != anchor:
                raise UnknownRoot(
                    f"{name} repository: its first root is not the one that this instrument trusts",
                    hint="it is another publisher's; provision the instrument for it on purpose, or use the right server",
                )
            chain = Chain(name, first, now)
            store.keep(file_name(ROOT, 1), first)
        else:
            chain = Chain(name, first, now)
        # 2. one root after the other
        for _ in range(MAX_ROOT_ROTATIONS):
            if not _next_root(chain, store):
                break
        # 3. the newest is alive
        chain.check_root()
        return chain

    def _fetch_order(self) -> bytes:
        data = self._director_store.fetch(OFFLINE_FILE, TARGETS)
        if data is None:
            raise WrongDevice(
                f"the folder holds nothing for the instrument {self._device_id}",
                hint="export it with `cellfleet trust export --device` and this id",
            )
        return data

    def _offline_targets(self, director: Chain, data: bytes, now: datetime) -> Targets:
        store, where = self._director_store, f"{_DIRECTOR} repository, {OFFLINE}"
        delegator = offline_delegator(director.root)
        loaded = load(Targets, data, where)
        check_signatures(loaded, delegator, OFFLINE)
        old = store.kept(OFFLINE_FILE)
        if old is not None:
            try:
                before = load(Targets, old, where)
                check_signatures(before, delegator, OFFLINE)
            except Refusal as e:
                _log.warning("what was trusted before is left out: %s", e)
            else:
                if loaded.signed.version < before.signed.version:
                    raise RolledBack(f"{where}: an older folder than one that was used before", hint="use the newest")
        check_life(loaded, now)
        self._check_device(loaded.signed)
        store.keep(OFFLINE_FILE, data)
        return loaded.signed

    def _check_device(self, wanted: Targets) -> None:
        # 7. for this instrument
        whom = wanted.unrecognized_fields.get(DEVICE_ID)
        if whom != self._device_id:
            raise WrongDevice(f"director repository: it is for {whom}, this instrument is {self._device_id}")

    def _both(self, path: str) -> VerifiedTarget:
        assert self._image is not None, "refresh comes first"
        assert self._wanted is not None, "refresh comes first"
        # 8. both name it
        wanted, published = self._wanted.targets.get(path), self._image.find(path)
        if wanted is None:
            raise NotNamed(f"director repository: it does not name {path} for this instrument", hint=_TOO_FEW)
        if published is None:
            raise NotNamed(f"image repository: it does not name {path}", hint=_TOO_FEW)
        facts = facts_of(ReleaseFacts, published, f"{_IMAGE} repository")
        order = facts_of(DirectorFacts, wanted, f"{_DIRECTOR} repository")
        if order.device_id != self._device_id:
            raise WrongDevice(f"{path}: it is for {order.device_id}, this instrument is {self._device_id}")
        # 9. alike
        if _bytes_of(wanted) != _bytes_of(published):
            raise Disagree(f"{path}: the repositories name other bytes")
        if order.release_counter != facts.release_counter:
            raise Disagree(f"{path}: the repositories name other release counters")
        sha256, length = _bytes_of(published)
        return VerifiedTarget(
            path=path,
            sha256=sha256,
            length=length,
            kind=facts.kind,
            name=facts.name,
            version=facts.version,
            counter=facts.release_counter,
            hardware=facts.hardware,
            deployment_id=order.deployment_id,
            generation=order.generation,
        )

    def _allowance(self, found: VerifiedTarget, have: int) -> AllowanceFacts:
        assert self._image is not None, "refresh comes first"
        text = f"{found.name} {found.version} has the release counter {found.counter}, below the installed {have}"
        hint = "going back on purpose takes `cellfleet trust allow`"
        for whom in (self._device_id, None):
            path = allowance_path(found.kind, found.name, have, found.counter, whom)
            target = self._image.find(path)
            if target is None:
                continue
            facts = facts_of(AllowanceFacts, target, f"{_IMAGE} repository")
            if (facts.from_counter, facts.to_counter) != (have, found.counter) or facts.device_id != whom:
                raise Downgrade(f"{text}; the allowance {path} is for something else", hint=hint)
            if facts.expires <= self._clock.now():
                raise Downgrade(
                    f"{text}; the allowance to go back expired at {facts.expires:%Y-%m-%d %H:%M}", hint=hint
                )
            return facts
        raise Downgrade(f"{text}, and no allowance to go back names it", hint=hint)


@dataclass(frozen=True)
class _Store:
    """Metadata of one repository: what is kept on the disk, and what can be fetched."""

    folder: Path
    source: Fetch
    write: Callable[[Path, bytes], None]

    def kept(self, name: str) -> bytes | None:
        """A file that was trusted before; None: there is none, or it cannot be read."""
        try:
            return folder_fetch(self.folder)(name, max_bytes(""))
        except (StorageError, EndlessData) as e:
            _log.warning("what was trusted before is left out: %s", e)
            return None

    def keep(self, name: str, data: bytes) -> None:
        """Write a file, unless it is there already."""
        if self.kept(name) != data:
            self.write(self.folder / name, data)

    def fetch(self, name: str, role: str, length: int | None = None) -> bytes | None:
        """A file of the repository."""
        return self.source(name, min(length or max_bytes(role), max_bytes(role)))


def _next_root(chain: Chain, store: _Store) -> bool:
    name = file_name(ROOT, chain.root_version + 1)
    old = store.kept(name)
    if old is not None:
        try:
            chain.add_root(old)
        except Refusal as e:
            _log.warning("what was trusted before is left out: %s", e)
        else:
            return True
    data = store.fetch(name, ROOT)
    if data is None:
        return False
    chain.add_root(data)
    store.keep(name, data)
    return True


def _to_targets(chain: Chain, store: _Store, delegated: tuple[str, ...], named: MetaFile | None = None) -> None:
    """Steps 4 to 6; ``named`` is what stands for the timestamp in an offline folder."""
    # 4. timestamp
    known = f"{TIMESTAMP}.json"
    _known(store, known, lambda data: chain.add_timestamp(data, known=True))
    meta = named
    if meta is None:
        stamp = store.fetch(known, TIMESTAMP)
        if stamp is None:
            raise Missing(f"{chain.name} repository: there is no {known}", hint="is the address or folder right?")
        fresh = chain.add_timestamp(stamp)
        if fresh:
            store.keep(known, stamp)
        meta = chain.snapshot_meta()
    # 5. snapshot
    _known(store, f"{SNAPSHOT}.json", lambda data: chain.add_snapshot(data, known=True))
    data = _named_file(store, SNAPSHOT, meta)
    chain.add_snapshot(data, named=meta)
    store.keep(f"{SNAPSHOT}.json", data)
    # 6. targets
    for role in (TARGETS, *delegated):
        if role != TARGETS and role not in chain.delegations():
            continue
        data = _named_file(store, role, chain.targets_meta(role))
        chain.add_targets(role, data)
        store.keep(f"{role}.json", data)


def _known(store: _Store, name: str, add: Callable[[bytes], object]) -> None:
    data = store.kept(name)
    if data is None:
        return
    try:
        add(data)
    except Refusal as e:
        _log.warning("what was trusted before is left out: %s", e)


def _named_file(store: _Store, role: str, meta: MetaFile) -> bytes:
    """The file that other metadata names: the kept one when it is that, or else fetched."""
    kept = store.kept(f"{role}.json")
    if kept is not None and meta.hashes and sha256_hex(kept) == meta.hashes.get("sha256"):
        return kept
    name = file_name(role, meta.version)
    data = store.fetch(name, role, meta.length)
    if data is None:
        raise Missing(f"there is no {name}, though other metadata names it", hint="the repository is incomplete")
    return data


def _bytes_of(target: TargetFile) -> tuple[str, int]:
    return target.hashes.get("sha256", ""), target.length


def _with_allowance(found: VerifiedTarget, facts: AllowanceFacts) -> VerifiedTarget:
    return VerifiedTarget(**{**found.__dict__, "allowance": facts.reason})
