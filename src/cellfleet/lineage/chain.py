"""The chain behind a mask, a row or a bundle, link by link; a link that cannot be shown says why.

Pure: facts come in as dicts (a mask's metadata, a bundle's lineage, records); reading files is the caller's work, save
for the record store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cellfleet.errors import LineageError
from cellfleet.lineage.records import RecordStore
from cellfleet.lineage.signing import unverified_payload, verify


@dataclass(frozen=True)
class Link:
    """One step of the chain.

    Attributes:
        what: the kind of thing (``mask``, ``run``, ``bundle``, ``decision``, ``training``, ``data set`` ...).
        digest: its digest, empty when it has none.
        facts: what is known of it, in reading order.
        problem: why it cannot be shown or trusted; empty when all is well.
    """

    what: str
    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Chain:
    """The links from the thing that was asked about back to its data."""

    links: tuple[Link, ...]

    @property
    def complete(self) -> bool:
        """Every link is there and can be trusted."""
        return not any(link.problem for link in self.links)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "complete": self.complete,
            "links": [
                {"what": x.what, "digest": x.digest, "facts": dict(x.facts), "problem": x.problem} for x in self.links
            ],
        }


def trace(
    *,
    mask: Mapping[str, Any] | None,
    bundle: Mapping[str, Any] | None,
    bundle_sha256: str,
    variant: str,
    store: RecordStore,
    trusted: Sequence[bytes],
) -> Chain:
    """Put the chain together.

    Args:
        mask: metadata of a mask or row (``frame``, ``run_digest``, ``variant`` ...); None for a bundle.
        bundle: facts of the opened bundle (``name``, ``version``, ``lineage``), or None when it is not at hand.
        bundle_sha256: digest of the bundle.
        variant: ``engine/precision`` of the mask, empty for a bundle.
        store: records of the project.
        trusted: public keys (PEM) whose signatures on decision records count.

    Returns:
        The chain from the mask or bundle back to the project; a missing link says that it is missing.
    """
    links: list[Link] = []
    if mask is not None:
        links.append(Link("mask", str(mask.get("sha256", "")), _without(mask, "sha256", "run_digest", "settings")))
        links.append(_run(mask, variant))
    lineage = dict(bundle.get("lineage", {})) if bundle else {}
    links.append(_bundle(bundle, bundle_sha256))
    links.extend(_decisions(bundle_sha256, variant, store, trusted))
    training, record = _training(str(lineage.get("training_run", "")), store)
    lineage = lineage or {k: record[k] for k in ("data_set", "project_commit", "environment") if k in record}
    links.append(training)
    links.append(_data_set(str(lineage.get("data_set", "")), store))
    links.append(_project(lineage))
    return Chain(tuple(links))


def _without(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in facts.items() if k not in names}


def _run(mask: Mapping[str, Any], variant: str) -> Link:
    digest = str(mask.get("run_digest", ""))
    facts = {"variant": variant, **dict(mask.get("settings") or {})}
    return Link("run", digest, facts, "" if digest else "the mask carries no run digest")


def _bundle(bundle: Mapping[str, Any] | None, digest: str) -> Link:
    if bundle is None:
        return Link("bundle", digest, {}, "the bundle's file is not at hand; name it with --bundle")
    return Link("bundle", digest, _without(bundle, "lineage"))


def _decisions(bundle_sha256: str, variant: str, store: RecordStore, trusted: Sequence[bytes]) -> list[Link]:
    """The decisions about a bundle: signed ones first, of those the latest first."""
    good: list[Link] = []
    doubtful: list[Link] = []
    for digest, envelope in store.all("decision"):
        try:
            if unverified_payload(envelope).get("bundle") != bundle_sha256:
                continue
            facts = _decision_facts(verify(envelope, trusted), variant)
            good.append(Link("decision", digest, {**facts, "signature": "good"}))
        except LineageError as e:
            doubtful.append(Link("decision", digest, {}, e.message))
    good.sort(key=lambda link: str(link.facts.get("decided") or ""), reverse=True)
    return good + doubtful or [Link("decision", "", {}, "no decision record of this bundle; run `cellfleet evaluate`")]


def _decision_facts(payload: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """What a decision record says, and its numbers of the mask's variant when the gate judged another variant."""
    keep = (
        "verdict",
        "reasons",
        "approver",
        "decided",
        "variant",
        "data_set",
        "split",
        "policy",
        "numbers",
        "thresholds",
        "champion",
    )
    facts = {k: payload[k] for k in keep if k in payload}
    if variant and variant != payload.get("variant"):
        drew = dict(payload.get("variants", {}).get(variant) or {"reason": "not measured for this record"})
        facts["drawn_by"] = {"variant": variant, **_without(drew, "sha256")}
    return facts


def _training(digest: str, store: RecordStore) -> tuple[Link, dict[str, Any]]:
    if not digest:
        return Link("training", "", {}, "unknown without the bundle"), {}
    try:
        record = store.get("training", digest)
    except LineageError as e:
        return Link("training", digest, {}, e.message), {}
    keep = ("seed", "epochs", "best_epoch", "validation_ap50", "cellfleet_version")
    return Link("training", digest, {k: record[k] for k in keep if k in record}), record


def _data_set(digest: str, store: RecordStore) -> Link:
    if not digest:
        return Link("data set", "", {}, "unknown without the bundle")
    try:
        manifest = store.get("data-set", digest)
    except LineageError as e:
        return Link("data set", digest, {}, e.message)
    counts: dict[str, int] = {}
    for entry in manifest.get("entries", []):
        split = str(entry.get("split", "?"))
        counts[split] = counts.get(split, 0) + 1
    return Link("data set", digest, {"entries": sum(counts.values()), "splits": counts})


def _project(lineage: Mapping[str, Any]) -> Link:
    if not lineage:
        return Link("project", "", {}, "unknown without the bundle")
    commit = lineage.get("project_commit")
    facts = {
        "commit": commit or "no git",
        "uncommitted changes": lineage.get("project_dirty") if commit else "no git",
        "environment": lineage.get("environment"),
        "cellfleet": lineage.get("cellfleet_version"),
    }
    return Link("project", str(commit or ""), facts)
