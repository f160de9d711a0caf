"""The types of python-tuf that this package works with, in one place: ``tuf.api.metadata`` does not say that it exports them."""

from __future__ import annotations

from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

__all__ = [
    "DelegatedRole",
    "Delegations",
    "MetaFile",
    "Metadata",
    "Role",
    "Root",
    "Snapshot",
    "TargetFile",
    "Targets",
    "Timestamp",
]
