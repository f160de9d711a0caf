"""What both repositories are made of: roles, delegations, paths of targets, and the facts that targets carry.

Facts (``custom``) of foreign targets are read through these types, so nothing unknown is taken for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from cellfleet.trust.refusals import BadMetadata
from cellfleet.trust.tuf_types import DelegatedRole, TargetFile
from cellfleet.wire.base import DeviceId, Key, Message, SemVer, Text, Time

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
MODELS, SOFTWARE, ALLOWANCES, OFFLINE, DIRECTOR = "models", "software", "allowances", "offline", "director"
ROLE_OF_KIND = {"model": MODELS, "software": SOFTWARE}
DELEGATED = (MODELS, SOFTWARE, ALLOWANCES)
ROOT_KEYS = 3
ROOT_THRESHOLD = 2

PATHS: dict[str, list[str]] = {
    MODELS: ["models/*/*", "models/*/*/*", "models/*/*/*/*"],
    SOFTWARE: ["software/*/*", "software/*/*/*", "software/*/*/*/*"],
    ALLOWANCES: ["allowances/*/*/*"],
}
"""What each delegated role may name; in TUF a ``*`` stands for one part of a path."""
LIFE: dict[str, timedelta] = {
    ROOT: timedelta(days=730),
    TARGETS: timedelta(days=365),
    SNAPSHOT: timedelta(days=365),
    TIMESTAMP: timedelta(days=1),
    MODELS: timedelta(days=365),
    SOFTWARE: timedelta(days=365),
    ALLOWANCES: timedelta(days=365),
}
"""How long metadata lives that is signed by hand; the server decides of what it signs itself."""
WARN_BEFORE: dict[str, timedelta] = {ROOT: timedelta(days=60)}
WARN_BEFORE_REST = timedelta(days=30)

MAX_BYTES: dict[str, int] = {ROOT: 1 << 18, TIMESTAMP: 1 << 16, SNAPSHOT: 1 << 20, TARGETS: 1 << 20}
MAX_BYTES_REST = 16 << 20
MAX_ROOT_ROTATIONS = 256
"""Greatest numbers that are read of a foreign repository."""

Kind = Literal["model", "software"]


class Facts(Message):
    """Base of what a target says of itself."""


class ReleaseFacts(Facts):
    """Of a target of the image repository: what it is, and for which hardware."""

    release_counter: int = Field(ge=1, le=2**53)
    kind: Kind
    name: Key
    version: SemVer
    hardware: dict[str, bool | int | str | list[str]] = Field(default={}, max_length=64)
    """No fractions: canonical JSON of TUF has none."""


class DirectorFacts(Facts):
    """Of a target of the director: who is to install it, and by which deployment."""

    release_counter: int = Field(ge=1, le=2**53)
    device_id: DeviceId
    deployment_id: int | None
    generation: int = Field(ge=0, le=2**53)


class AllowanceFacts(Facts):
    """Of an allowance to go back."""

    from_counter: int = Field(ge=1, le=2**53)
    to_counter: int = Field(ge=1, le=2**53)
    device_id: DeviceId | None
    expires: Time
    reason: Text

    @model_validator(mode="after")
    def _goes_back(self) -> AllowanceFacts:
        if self.to_counter >= self.from_counter:
            raise ValueError("an allowance goes from a higher counter to a lower one")
        return self


F = TypeVar("F", bound=Facts)


def facts_of(kind: type[F], target: TargetFile, where: str) -> F:
    """Read the facts (``custom``) of a target.

    Args:
        kind: the expected type.
        target: the target.
        where: repository and role, for messages.

    Returns:
        The facts.

    Raises:
        BadMetadata: they are not of that type.
    """
    try:
        return kind.model_validate(target.custom)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(p) for p in first["loc"])
        raise BadMetadata(f"{where}: {target.path}: {field + ': ' if field else ''}{first['msg']}") from e


def target_path(kind: str, name: str, version: str, sha256: str) -> str:
    """Path of a release in both repositories.

    Args:
        kind: ``model`` or ``software``.
        name, version: of the artifact.
        sha256: of its bytes, 64 hexadecimal digits.

    Returns:
        The path, such as ``models/cells/1.0.0/0123456789ab.bundle.zip``.
    """
    ending = "bundle.zip" if kind == "model" else "zip"
    return f"{ROLE_OF_KIND[kind]}/{name}/{version}/{sha256[:12]}.{ending}"


def allowance_path(kind: str, name: str, from_counter: int, to_counter: int, device_id: str | None) -> str:
    """Path of an allowance to go back.

    Args:
        kind, name: of the artifact.
        from_counter, to_counter: release counters.
        device_id: the instrument; None: every instrument.

    Returns:
        The path, such as ``allowances/model/cells/3-1``.
    """
    return f"allowances/{kind}/{name}/{from_counter}-{to_counter}" + (f"-{device_id}" if device_id else "")


def delegated_role(name: str, keyids: list[str]) -> DelegatedRole:
    """A delegation of the targets of the image repository.

    Args:
        name: of the role; its paths are those of ``PATHS``.
        keyids: keys of which one must sign.

    Returns:
        The delegation; it is terminating.
    """
    return DelegatedRole(name, keyids, 1, terminating=True, paths=list(PATHS[name]))


def file_name(role: str, version: int) -> str:
    """Name of a metadata file.

    Args:
        role: of the metadata.
        version: of the file; ignored for the timestamp, whose name has none.

    Returns:
        The name, such as ``2.root.json`` or ``timestamp.json``.
    """
    return f"{TIMESTAMP}.json" if role == TIMESTAMP else f"{version}.{role}.json"


def max_bytes(role: str) -> int:
    """The greatest length of a file of a role that is read."""
    return MAX_BYTES.get(role, MAX_BYTES_REST)


def newest(files: Mapping[str, bytes], role: str) -> tuple[int, bytes] | None:
    """Find the file of a role with the highest version in its name.

    Args:
        files: content by file name.
        role: of the metadata.

    Returns:
        Version and content; None: there is no such file.
    """
    found = [(version, data) for name, data in files.items() for version in [version_in(name, role)] if version]
    return max(found, default=None)


def version_in(name: str, role: str) -> int:
    """Read the version in a file's name.

    Args:
        name: of the file.
        role: of the metadata.

    Returns:
        The version; 0: it is not a file of that role.
    """
    number, dot, rest = name.partition(".")
    good = dot and rest == f"{role}.json" and number.isascii() and number.isdigit() and not number.startswith("0")
    return int(number) if good and len(number) < 16 else 0
