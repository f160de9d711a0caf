"""The trust folder: the publisher's keys and both repositories.

A change of several files is first written to ``pending.json`` and then carried out, so a power cut leaves the folder as it
was before the change or after it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer

from cellfleet.canonical import canonical_bytes
from cellfleet.errors import StorageError
from cellfleet.ports import make_dir, write_atomic
from cellfleet.trust.keys import (
    BOOK_FILE,
    KEY_NAMES,
    ROOT_NAMES,
    ExternalKey,
    KeyBook,
    Secrets,
    file_of,
    new_key,
    read_book,
    signer_of,
)
from cellfleet.trust.layout import (
    ALLOWANCES,
    DELEGATED,
    LIFE,
    ROLE_OF_KIND,
    ROOT,
    ROOT_THRESHOLD,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    AllowanceFacts,
    ReleaseFacts,
    allowance_path,
    file_name,
    newest,
    target_path,
)
from cellfleet.trust.metadata import sign
from cellfleet.trust.metadata_builder import (
    ImageDraft,
    Keys,
    allowance_target,
    director_root,
    first_snapshot,
    image_root,
    target,
    timestamp_of,
    top_targets,
)
from cellfleet.trust.metadata_fetch import read_folder
from cellfleet.trust.publish import anchors_of, check_published, named
from cellfleet.trust.refusals import KeyTrouble, NotUpward
from cellfleet.trust.tuf_types import Targets
from cellfleet.wire.base import parse_data
from cellfleet.wire.enrol import TrustAnchors

_PENDING, _PENDING_FORMAT = "pending.json", 1
IMAGE, DIRECTOR_FOLDER = "image", "director"


@dataclass(frozen=True)
class ArtifactBytes:
    """Length and SHA-256 of a file that is to be published.

    Attributes:
        sha256: 64 hexadecimal digits.
        length: bytes.
    """

    sha256: str
    length: int


@dataclass(frozen=True)
class Publication:
    """A release that is signed but not yet stored: new files of the image repository, and the target that they name."""

    files: dict[str, bytes]
    target_path: str
    counter: int
    sha256: str
    length: int


@dataclass
class TrustFolder:
    """A trust folder.

    Attributes:
        path: the folder.
        book: its keys.
    """

    path: Path
    book: KeyBook
    _images: dict[str, bytes] = field(default_factory=dict)
    _directors: dict[str, bytes] = field(default_factory=dict)

    @staticmethod
    def init(path: Path, secrets: Secrets, now: datetime, keys: Mapping[str, ExternalKey] | None = None) -> TrustFolder:
        """Make keys and both repositories in a new folder.

        Args:
            path: the folder; it does not exist or is empty.
            secrets: gives the passphrases of the new keys.
            now: the time of signing.
            keys: keys that a KMS or an HSM holds, by name.

        Returns:
            The folder.

        Raises:
            KeyTrouble: the folder is not empty, a name is unknown, a key fails, a passphrase is missing or too short.
            StorageError: the disk fails.
        """
        external = dict(keys or {})
        unknown = sorted(set(external) - set(KEY_NAMES))
        if unknown:
            raise KeyTrouble(f"there is no key {unknown[0]!r}", hint=f"the keys are {', '.join(KEY_NAMES)}")
        _must_be_empty(path)
        for name in KEY_NAMES:  # a passphrase that is missing is noticed before anything is made
            if name not in external:
                secrets(name)
        make_dir(path)
        path.chmod(0o700)
        entries = {n: external[n].entry() if n in external else new_key(path, n, secrets) for n in KEY_NAMES}
        folder = TrustFolder(path, KeyBook(keys=entries))
        folder._write_first(secrets, now)
        return TrustFolder.load(path)

    @staticmethod
    def load(path: Path) -> TrustFolder:
        """Open a folder; complete a change that a power cut interrupted.

        Raises:
            KeyTrouble: it is not a trust folder, or it is damaged.
            StorageError: the disk fails.
        """
        _finish(path)
        book = read_book(path)
        missing = [n for n in KEY_NAMES if n not in book.keys]
        if missing:
            raise KeyTrouble(f"{path / BOOK_FILE} names no key {missing[0]}", hint="restore it from a backup")
        return TrustFolder(path, book, read_folder(path / IMAGE), read_folder(path / DIRECTOR_FOLDER))

    def image_files(self) -> dict[str, bytes]:
        """Metadata of the image repository by file name."""
        return dict(self._images)

    def director_files(self) -> dict[str, bytes]:
        """Roots of the director by file name."""
        return dict(self._directors)

    def anchors(self) -> TrustAnchors:
        """Digests of both first roots.

        Raises:
            KeyTrouble: a first root is missing.
        """
        first = file_name(ROOT, 1)
        if first not in self._images or first not in self._directors:
            raise KeyTrouble(f"{self.path} has no first root ({first})", hint="restore it from a backup")
        return anchors_of(self._images[first], self._directors[first])

    def keys(self, book: KeyBook | None = None) -> Keys:
        """The public keys by name."""
        return {name: entry.key() for name, entry in (book or self.book).keys.items()}

    def signer(self, name: str, secrets: Secrets) -> Signer:
        """Open a key for signing.

        Args:
            name: of the key.
            secrets: gives its passphrase.

        Returns:
            The signer.

        Raises:
            KeyTrouble: see ``signer_of``.
        """
        return signer_of(self.path, name, self.book.keys[name], secrets)

    def root_signers(self, secrets: Secrets) -> list[Signer]:
        """Open all root keys that are available; two are enough.

        Raises:
            KeyTrouble: fewer than two are available, or one is locked.
        """
        found = []
        for name in ROOT_NAMES:
            path = file_of(self.path, self.book.keys[name])
            if path is None or path.exists():
                found.append(self.signer(name, secrets))
        if len(found) < ROOT_THRESHOLD:
            raise KeyTrouble(
                f"{len(found)} root key(s) are available, {ROOT_THRESHOLD} must sign",
                hint="copy the files of the root keys into the folder for this command",
            )
        return found

    def next_counter(self, kind: str, name: str) -> int:
        """The next release counter of an artifact.

        Args:
            kind: ``model`` or ``software``.
            name: of the artifact.

        Returns:
            The counter, at least 1.
        """
        counters = [n.counter for n in named(self._images).values() if (n.kind, n.name) == (kind, name)]
        return max(counters, default=0) + 1

    def publish(
        self,
        artifact: ArtifactBytes,
        *,
        kind: str,
        name: str,
        version: str,
        secrets: Secrets,
        now: datetime,
        hardware: Mapping[str, Any] | None = None,
    ) -> Publication:
        """Sign a release without storing it; call ``keep`` when the server has accepted it.

        For an artifact that is published already, the same publication is returned again.

        Args:
            artifact: length and SHA-256 of the file.
            kind: ``model`` or ``software``.
            name, version: of the artifact.
            secrets: gives the passphrases of the keys.
            now: the time of signing.
            hardware: facts about the hardware that it needs; no fractions.

        Returns:
            The signed files.

        Raises:
            NotUpward: the version is published with other bytes.
            WireError: an invalid name, version or hardware fact.
            KeyTrouble: a key fails.
        """
        path = target_path(kind, name, version, artifact.sha256)
        known = named(self._images)
        if path in known:
            return self._again(path, known[path].counter, artifact, ROLE_OF_KIND[kind])
        if any((n.kind, n.name, n.version) == (kind, name, version) for n in known.values()):
            raise NotUpward(
                f"{name} {version} is already published with other bytes", hint="give the new one a higher version"
            )
        facts = parse_data(
            ReleaseFacts,
            {
                "release_counter": self.next_counter(kind, name),
                "kind": kind,
                "name": name,
                "version": version,
                "hardware": dict(hardware or {}),
            },
        )
        draft = ImageDraft(self._images)
        targets = draft.targets(ROLE_OF_KIND[kind])
        targets.targets[path] = target(path, artifact.length, artifact.sha256, facts)
        draft.put(ROLE_OF_KIND[kind], targets, [self.signer(ROLE_OF_KIND[kind], secrets)], now)
        draft.snapshot([self.signer(SNAPSHOT, secrets)], now)
        return Publication(draft.new, path, facts.release_counter, artifact.sha256, artifact.length)

    def _again(self, path: str, counter: int, artifact: ArtifactBytes, role: str) -> Publication:
        found = [(r, newest(self._images, r)) for r in (role, SNAPSHOT)]
        files = {file_name(r, f[0]): f[1] for r, f in found if f is not None}
        return Publication(files, path, counter, artifact.sha256, artifact.length)

    def keep(self, publication: Publication) -> None:
        """Store a publication.

        Raises:
            StorageError: the disk fails; the folder is unchanged.
        """
        self.write(images=publication.files)

    def adopt(self, files: Mapping[str, bytes], now: datetime) -> list[str]:
        """Verify and store files that the server has and this folder lacks.

        Args:
            files: content by file name; ``timestamp.json`` is ignored.
            now: the time that expiry dates are compared with.

        Returns:
            Names of the stored files.

        Raises:
            Untrusted: they do not follow the files of this folder.
        """
        accepted = check_published(self._images, {n: d for n, d in files.items() if n != f"{TIMESTAMP}.json"}, now)
        self.write(images=accepted.files)
        return sorted(accepted.files)

    def allow(
        self,
        *,
        kind: str,
        name: str,
        from_counter: int,
        to_counter: int,
        device_id: str | None,
        expires: datetime,
        reason: str,
        secrets: Secrets,
        now: datetime,
    ) -> Publication:
        """Sign and store an allowance to go back from a release counter to a lower one.

        Args:
            kind, name: of the artifact.
            from_counter, to_counter: release counters; both are published.
            device_id: the instrument; None: every instrument.
            expires: end of the allowance.
            reason: shown wherever the allowance is used.
            secrets: gives the passphrases of the keys.
            now: the time of signing.

        Returns:
            The signed files.

        Raises:
            NotUpward: the counters do not go back or are not published, ``expires`` has passed, or there is no reason.
            WireError: an invalid device id, or a reason that is too long.
            KeyTrouble: a key fails.
        """
        counters = {n.counter for n in named(self._images).values() if (n.kind, n.name) == (kind, name)}
        for counter in (from_counter, to_counter):
            if counter not in counters:
                known = ", ".join(str(c) for c in sorted(counters)) or "none"
                raise NotUpward(f"no release of {name} has the counter {counter}", hint=f"published are: {known}")
        if to_counter >= from_counter or expires <= now or not reason.strip():
            raise NotUpward(
                "an allowance needs a lower target counter, an expiry date in the future and a reason",
                hint="check --from, --to, --days and --reason",
            )
        facts = parse_data(
            AllowanceFacts,
            {
                "from_counter": from_counter,
                "to_counter": to_counter,
                "device_id": device_id,
                "expires": expires,
                "reason": reason,
            },
        )
        path = allowance_path(kind, name, from_counter, to_counter, device_id)
        draft = ImageDraft(self._images)
        targets = draft.targets(ALLOWANCES)
        made = targets.targets[path] = allowance_target(path, facts)
        draft.put(ALLOWANCES, targets, [self.signer(ALLOWANCES, secrets)], now)
        draft.snapshot([self.signer(SNAPSHOT, secrets)], now)
        self.write(images=draft.new)
        return Publication(draft.new, path, to_counter, made.hashes["sha256"], made.length)

    def write(
        self,
        *,
        images: Mapping[str, bytes] | None = None,
        directors: Mapping[str, bytes] | None = None,
        book: KeyBook | None = None,
        remove: Iterable[Path] = (),
    ) -> None:
        """Write files: all of them or none, also after a power cut. ``keys.json`` is written last; then files are removed.

        Args:
            images: new files of the image repository.
            directors: new files of the director's repository.
            book: new keys.
            remove: files below the folder.

        Raises:
            StorageError: the disk fails.
        """
        files = {f"{IMAGE}/{n}": d for n, d in (images or {}).items()}
        files |= {f"{DIRECTOR_FOLDER}/{n}": d for n, d in (directors or {}).items()}
        if book is not None:
            files[BOOK_FILE] = _book_bytes(book)
        plan = {
            "format": _PENDING_FORMAT,
            "files": {name: data.decode() for name, data in files.items()},
            "remove": [p.relative_to(self.path).as_posix() for p in remove],
        }
        write_atomic(self.path / _PENDING, canonical_bytes(plan))
        _finish(self.path)
        self.book = book or self.book
        self._images |= images or {}
        self._directors |= directors or {}

    def _write_first(self, secrets: Secrets, now: datetime) -> None:
        keys = self.keys()
        roots = self.root_signers(secrets)
        images = {
            file_name(ROOT, 1): sign(image_root(keys, 1), roots, now, LIFE[ROOT]),
            file_name(TARGETS, 1): sign(top_targets(keys, 1), [self.signer(TARGETS, secrets)], now, LIFE[TARGETS]),
        }
        for role in DELEGATED:
            images[file_name(role, 1)] = empty_targets(self.signer(role, secrets), now, role)
        images[file_name(SNAPSHOT, 1)] = snapshot = first_snapshot(images, [self.signer(SNAPSHOT, secrets)], now)
        stamp = timestamp_of(snapshot, 1)
        images[file_name(TIMESTAMP, 1)] = sign(stamp, [self.signer(TIMESTAMP, secrets)], now, LIFE[TIMESTAMP])
        directors = {file_name(ROOT, 1): sign(director_root(keys, 1), roots, now, LIFE[ROOT])}
        self.write(images=images, directors=directors, book=self.book)


def empty_targets(signer: Signer, now: datetime, role: str) -> bytes:
    """Make the first targets of a delegated role; they name nothing.

    Args:
        signer: key of the role.
        now: the time of signing.
        role: a delegated role.

    Returns:
        The bytes of the file.

    Raises:
        KeyTrouble: the key fails.
    """
    return sign(Targets(version=1), [signer], now, LIFE[role])


def _book_bytes(book: KeyBook) -> bytes:
    return (json.dumps(book.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def _must_be_empty(path: Path) -> None:
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as e:
        raise KeyTrouble(f"cannot read the folder {path}: {e.strerror}") from e
    if taken:
        raise KeyTrouble(
            f"{path} exists and is not empty",
            hint="its keys may be in use, so nothing is replaced; name another folder, or rotate keys with `trust rotate`",
        )


def _finish(path: Path) -> None:
    """Carry out ``pending.json``; each step may be repeated."""
    pending = path / _PENDING
    try:
        plan = json.loads(pending.read_bytes())
        if plan.get("format", 1) != _PENDING_FORMAT:  # the first versions wrote none
            raise KeyTrouble(f"{pending} has format {plan['format']}", hint="open the folder with a newer cellfleet")
        files, remove = dict(plan["files"]), list(plan["remove"])
    except FileNotFoundError:
        return
    except OSError as e:
        raise StorageError(f"cannot read {pending}: {e.strerror}", hint="check the disk") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise KeyTrouble(f"{pending} is damaged", hint="restore the folder from a backup") from e
    for name, text in files.items():
        write_atomic(path / name, text.encode())
    for name in remove:
        with contextlib.suppress(FileNotFoundError):
            (path / name).unlink()
    pending.unlink(missing_ok=True)
