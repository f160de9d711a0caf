"""The metadata of one repository, verified in the order of TUF: bytes in, trusted facts or an exception out; no I/O here.

Source: https://theupdateframework.github.io/specification/latest/#detailed-client-workflow. The numbers of the steps are
those of ``cellfleet.trust.verify``. Metadata that was trusted earlier is added first (``known=True``): newer metadata must
not have a lower version. Known metadata that the keys of the present root did not sign is ignored, so a rotated key also
recovers from versions that a stolen key has driven up.
"""

from __future__ import annotations

from datetime import datetime

from cellfleet.trust.layout import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from cellfleet.trust.metadata import LoadedMetadata, check_bytes, check_life, check_signatures, load
from cellfleet.trust.refusals import BadMetadata, MixedUp, RolledBack
from cellfleet.trust.tuf_types import DelegatedRole, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp


class TrustedMetadata:
    """The metadata of one repository that was verified so far.

    Args:
        name: name of the repository, for messages.
        first_root: bytes of the first root; the caller already trusts it.
        now: the time that expiry dates are compared with.

    Raises:
        Untrusted: of the kinds that each method lists.
    """

    def __init__(self, name: str, first_root: bytes, now: datetime) -> None:
        self.name, self._now = name, now
        loaded = load(Root, first_root, self._where(ROOT))
        check_signatures(loaded, loaded.signed, ROOT)
        self._root = loaded
        self._timestamp: LoadedMetadata[Timestamp] | None = None
        self._snapshot: LoadedMetadata[Snapshot] | None = None
        self._targets: dict[str, LoadedMetadata[Targets]] = {}

    @property
    def root(self) -> Root:
        return self._root.signed

    @property
    def root_version(self) -> int:
        return int(self._root.signed.version)

    @property
    def snapshot(self) -> LoadedMetadata[Snapshot]:
        """The snapshot; only after one was added."""
        assert self._snapshot is not None, "a snapshot is added first"
        return self._snapshot

    def add_root(self, data: bytes) -> None:
        """Step 2: add the next root, which the keys of the present root and its own keys must sign.

        Args:
            data: bytes of the file.

        Raises:
            BadMetadata, BadSignature, EndlessData.
            RolledBack: its version is not the next one.
        """
        loaded = load(Root, data, self._where(ROOT, self.root_version + 1))
        check_signatures(loaded, self._root.signed, ROOT)
        check_signatures(loaded, loaded.signed, ROOT)
        if loaded.signed.version != self.root_version + 1:
            raise RolledBack(f"{loaded.where}: its content has version {loaded.signed.version}")
        self._root = loaded

    def check_root(self) -> None:
        """Step 3: the newest root has not expired.

        Raises:
            Expired, ClockWrong.
        """
        check_life(self._root, self._now)

    def add_timestamp(self, data: bytes, *, known: bool = False) -> bool:
        """Step 4: add the timestamp: signed, not older than the known one, not expired.

        Args:
            data: bytes of the file.
            known: it was trusted earlier; only its signatures are checked.

        Returns:
            Whether it is newer than the known one.

        Raises:
            BadMetadata, BadSignature, EndlessData, RolledBack, Expired, ClockWrong.
        """
        loaded = load(Timestamp, data, self._where(TIMESTAMP))
        check_signatures(loaded, self._root.signed, TIMESTAMP)
        if known:
            self._timestamp = loaded
            return False
        old, fresh = self._timestamp, True
        if old is not None:
            _not_older(loaded.where, loaded.signed.version, old.signed.version)
            before, after = old.signed.snapshot_meta.version, loaded.signed.snapshot_meta.version
            _not_older(f"{loaded.where}, the snapshot that it names", after, before)
            fresh = loaded.signed.version > old.signed.version
        taken = loaded if old is None or fresh else old  # of two with one number the first stays
        check_life(taken, self._now)
        self._timestamp = taken
        return fresh

    def snapshot_meta(self) -> MetaFile:
        """Version, length and hashes of the snapshot that the timestamp names."""
        assert self._timestamp is not None, "a timestamp is added first"
        return self._timestamp.signed.snapshot_meta

    def add_snapshot(self, data: bytes, *, known: bool = False, named: MetaFile | None = None) -> None:
        """Step 5: add the snapshot that the timestamp names: signed, not expired, nothing in it older than before or missing.

        Args:
            data: bytes of the file.
            known: it was trusted earlier; only its signatures are checked.
            named: version, length and hashes, where no timestamp gives them.

        Raises:
            BadMetadata, BadSignature, EndlessData, MixedUp, RolledBack, Expired, ClockWrong.
        """
        if known:
            loaded = load(Snapshot, data, self._where(SNAPSHOT))
            check_signatures(loaded, self._root.signed, SNAPSHOT)
            self._snapshot = loaded
            return
        meta = named or self.snapshot_meta()
        where = self._where(SNAPSHOT, meta.version)
        check_bytes(data, meta, where)
        loaded = load(Snapshot, data, where)
        check_signatures(loaded, self._root.signed, SNAPSHOT)
        if loaded.signed.version != meta.version:
            raise MixedUp(f"{where}: its content has version {loaded.signed.version}")
        if self._snapshot is not None:
            check_follows(loaded, self._snapshot.signed)
        check_life(loaded, self._now)
        self._snapshot = loaded

    def delegations(self) -> dict[str, DelegatedRole]:
        """The roles to which the targets delegate, in their order."""
        found = self.targets().delegations
        return dict(found.roles or {}) if found else {}

    def targets_meta(self, role: str) -> MetaFile:
        """Version, length and hashes that the snapshot gives for a targets file.

        Raises:
            MixedUp: the snapshot does not name the role.
        """
        meta = self.snapshot.signed.meta.get(f"{role}.json")
        if meta is None:
            raise MixedUp(f"{self.snapshot.where}: it names no {role}")
        return meta

    def add_targets(self, role: str, data: bytes) -> None:
        """Step 6: add the targets, or those of a delegated role: the file that the snapshot names, signed, not expired.

        Args:
            role: ``targets`` or a delegated role; ``targets`` comes first.
            data: bytes of the file.

        Raises:
            BadMetadata, BadSignature, EndlessData, MixedUp, Expired, ClockWrong.
        """
        meta = self.targets_meta(role)
        where = self._where(role, meta.version)
        check_bytes(data, meta, where)
        loaded = load(Targets, data, where)
        delegator = self._root.signed if role == TARGETS else self._targets[TARGETS].signed
        check_signatures(loaded, delegator, role)
        if loaded.signed.version != meta.version:
            raise MixedUp(f"{where}: its content has version {loaded.signed.version}")
        check_life(loaded, self._now)
        self._targets[role] = loaded

    def targets(self, role: str = TARGETS) -> Targets:
        """The targets of a role that was added."""
        return self._targets[role].signed

    def find(self, path: str) -> TargetFile | None:
        """The target with that path.

        The targets themselves come first, then the delegated roles in their order. A terminating role that may name the path ends
        the search.

        Returns:
            The target, or None.

        Raises:
            BadMetadata: a role that may name the path was not added.
        """
        top = self.targets()
        if path in top.targets:
            return top.targets[path]
        for name, role in self.delegations().items():
            if role.is_delegated_path(path):
                if name not in self._targets:
                    raise BadMetadata(f"{self._where(TARGETS)}: it delegates to the unknown role {name}")
                found = self._targets[name].signed.targets.get(path)
                if found is not None or role.terminating:
                    return found
        return None

    def _where(self, role: str, version: int | None = None) -> str:
        return f"{self.name} repository, {role}" + (f" {version}" if version else "")


def check_follows(new: LoadedMetadata[Snapshot], old: Snapshot) -> None:
    """Check that a snapshot is not older than an earlier one, and that nothing in it is older or missing.

    Args:
        new: the new snapshot.
        old: the earlier one.

    Raises:
        RolledBack.
    """
    _not_older(new.where, new.signed.version, old.version)
    for name, meta in old.meta.items():
        if name not in new.signed.meta:
            raise RolledBack(f"{new.where}: {name} is missing, but was named before")
        _not_older(f"{new.where}, {name}", new.signed.meta[name].version, meta.version)


def _not_older(where: str, new: int, old: int) -> None:
    if new < old:
        raise RolledBack(f"{where}: version {new} is older than {old}, which was trusted before")
