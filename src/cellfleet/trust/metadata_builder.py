"""Make the publisher's metadata: from keys and existing files to new files. Pure; nothing is written."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key, Signer

from cellfleet.canonical import canonical_bytes
from cellfleet.trust.keys import ROOT_NAMES
from cellfleet.trust.layout import (
    ALLOWANCES,
    DELEGATED,
    DIRECTOR,
    LIFE,
    OFFLINE,
    PATHS,
    ROOT,
    ROOT_THRESHOLD,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    AllowanceFacts,
    Facts,
    delegated_role,
    file_name,
    newest,
)
from cellfleet.trust.metadata import load, meta_of, sign
from cellfleet.trust.refusals import BadMetadata
from cellfleet.trust.tuf_types import Delegations, Role, Root, Snapshot, TargetFile, Targets, Timestamp

Keys = Mapping[str, Key]
"""Name of a key -> its public half."""


def image_root(keys: Keys, version: int) -> Root:
    """Make the root of the image repository.

    Args:
        keys: public keys by name.
        version: of the root.

    Returns:
        The root, unsigned.
    """
    return _root(keys, version, {TARGETS: TARGETS, SNAPSHOT: SNAPSHOT, TIMESTAMP: TIMESTAMP})


def director_root(keys: Keys, version: int) -> Root:
    """Make the root of the director: one online key for its roles, and the offline role in a field of its own.

    The field has the form of a delegation in targets metadata. It is part of the root, because the online key could take over a
    role to which it delegates.

    Args:
        keys: public keys by name.
        version: of the root.

    Returns:
        The root, unsigned.
    """
    root = _root(keys, version, {TARGETS: DIRECTOR, SNAPSHOT: DIRECTOR, TIMESTAMP: DIRECTOR})
    key = keys[ALLOWANCES]
    role = delegated_role(ALLOWANCES, [key.keyid])
    role.name, role.paths = OFFLINE, [p for name, paths in PATHS.items() if name != ALLOWANCES for p in paths]
    root.unrecognized_fields[OFFLINE] = Delegations({key.keyid: key}, {OFFLINE: role}).to_dict()
    return root


def offline_delegator(root: Root) -> Targets:
    """The offline role that the director's root names, in the form that ``check_signatures`` takes.

    Raises:
        BadMetadata: the root names none, or an invalid one.
    """
    try:
        return Targets(delegations=Delegations.from_dict(copy.deepcopy(root.unrecognized_fields[OFFLINE])))
    except (KeyError, ValueError, TypeError, AttributeError) as e:
        raise BadMetadata(f"director repository, root {root.version}: it names no role for offline folders") from e


def _root(keys: Keys, version: int, key_of: Mapping[str, str]) -> Root:
    used = {keys[n].keyid: keys[n] for n in (*ROOT_NAMES, *key_of.values())}
    roles = {ROOT: Role([keys[n].keyid for n in ROOT_NAMES], ROOT_THRESHOLD)}
    roles |= {role: Role([keys[name].keyid], 1) for role, name in key_of.items()}
    return Root(version=version, keys=used, roles=roles, consistent_snapshot=True)


def top_targets(keys: Keys, version: int) -> Targets:
    """Make the targets of the image repository: they name no artifact, only the delegated roles.

    Args:
        keys: public keys by name.
        version: of the targets.

    Returns:
        The targets, unsigned.
    """
    used = {keys[n].keyid: keys[n] for n in DELEGATED}
    roles = {n: delegated_role(n, [keys[n].keyid]) for n in DELEGATED}
    return Targets(version=version, delegations=Delegations(used, roles))


def target(path: str, length: int, sha256: str, facts: Facts) -> TargetFile:
    """Make a target with its facts.

    Args:
        path: of the target.
        length: of its bytes.
        sha256: of its bytes, 64 hexadecimal digits.
        facts: what it is.

    Returns:
        The target.
    """
    custom: dict[str, Any] = facts.model_dump(mode="json")
    return TargetFile(length, {"sha256": sha256}, path, {"custom": custom})


def allowance_target(path: str, facts: AllowanceFacts) -> TargetFile:
    """Make the target of an allowance; its content is its own facts.

    Args:
        path: of the target.
        facts: of the allowance.

    Returns:
        The target.
    """
    content = canonical_bytes(facts.model_dump(mode="json"))
    found = TargetFile.from_data(path, content, ["sha256"])
    found.unrecognized_fields["custom"] = facts.model_dump(mode="json")
    return found


class ImageDraft:
    """A change of the publisher's image repository.

    Args:
        files: the repository, by file name; the publisher's own files, so their signatures are not checked here.

    Raises:
        BadMetadata: a file is damaged or missing.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self.new: dict[str, bytes] = {}
        """Files that were made."""
        self._metas = {}
        for role in (TARGETS, *DELEGATED):
            version, data = required(files, role)
            self._metas[f"{role}.json"] = meta_of(version, data)

    def targets(self, role: str) -> Targets:
        """The newest targets of a role, to be changed and passed to ``put``, which sets the version."""
        return load(Targets, required(self._files, role)[1], f"image repository, {role}").signed

    def put(self, role: str, targets: Targets, signers: Iterable[Signer], now: datetime) -> None:
        """Sign targets as the next version of a role.

        Args:
            role: of the targets.
            targets: the content.
            signers: keys that sign.
            now: the time of signing.

        Raises:
            KeyTrouble: a key fails.
        """
        targets.version = required(self._files, role)[0] + 1
        data = sign(targets, signers, now, LIFE[role])
        self.new[file_name(role, targets.version)] = data
        self._metas[f"{role}.json"] = meta_of(targets.version, data)

    def snapshot(self, signers: Iterable[Signer], now: datetime) -> bytes:
        """Sign the next snapshot, which names the newest version of every file.

        Args:
            signers: keys that sign.
            now: the time of signing.

        Returns:
            The bytes of the file.

        Raises:
            KeyTrouble: a key fails.
        """
        version = required(self._files, SNAPSHOT)[0] + 1
        data = sign(Snapshot(version=version, meta=dict(self._metas)), signers, now, LIFE[SNAPSHOT])
        self.new[file_name(SNAPSHOT, version)] = data
        return data


def first_snapshot(files: Mapping[str, bytes], signers: Iterable[Signer], now: datetime) -> bytes:
    """Sign the first snapshot of an image repository.

    Args:
        files: the repository, by file name.
        signers: keys that sign.
        now: the time of signing.

    Returns:
        The bytes of the file.

    Raises:
        BadMetadata: a file is missing.
        KeyTrouble: a key fails.
    """
    metas = {f"{role}.json": meta_of(*required(files, role)) for role in (TARGETS, *DELEGATED)}
    return sign(Snapshot(version=1, meta=metas), signers, now, LIFE[SNAPSHOT])


def timestamp_of(snapshot: bytes, version: int) -> Timestamp:
    """Make a timestamp that names a snapshot.

    Args:
        snapshot: bytes of the snapshot.
        version: of the timestamp.

    Returns:
        The timestamp, unsigned.

    Raises:
        BadMetadata: the snapshot is damaged.
    """
    named = load(Snapshot, snapshot, "snapshot").signed.version
    return Timestamp(version=version, snapshot_meta=meta_of(named, snapshot))


def required(files: Mapping[str, bytes], role: str, repository: str = "image") -> tuple[int, bytes]:
    """The newest file of a role, which must exist.

    Args:
        files: the publisher's files of one repository, by file name.
        role: of the metadata.
        repository: its name, for messages.

    Returns:
        Version and content.

    Raises:
        BadMetadata: there is none.
    """
    found = newest(files, role)
    if found is None:
        message = f"{repository} repository: there is no {role} metadata"
        raise BadMetadata(message, hint="restore the folder from a backup")
    return found
