"""The chain behind a release: bundle, decision, training, data set, commit."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from cellfleet.fleet import releases
from cellfleet.fleet.context import Context
from cellfleet.fleet.lineage import Records
from cellfleet.fleet.store.models import Release
from cellfleet.lineage import trace
from cellfleet.lineage.chain import Link


def links_of_release(db: Session, context: Context, release: Release) -> Sequence[Link]:
    """The links from the bundle back to its data; where it comes from is taken from the signed record if there is one."""
    payload, _ = releases.decision_of(db, context, release)
    lineage = (payload or {}).get("lineage") or release.card.get("lineage") or {}
    bundle = {"name": release.name, "version": release.version, "lineage": lineage if isinstance(lineage, dict) else {}}
    chain = trace(
        mask=None,
        bundle=bundle,
        bundle_sha256=release.sha256,
        variant="",
        store=Records(db, release.decision_digest),
        trusted=releases.trusted_keys(context),
    )
    return chain.links
