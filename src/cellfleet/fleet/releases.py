"""Releases: an artifact, its signed metadata and its decision record, taken after all of it was verified.

1. The artifact is in the store, of the named length.
2. Neither the version nor the artifact was released before.
3. The decision record is signed by a key of ``fleet.decision_keys``, is about these very bytes, and says ``passed``; otherwise
   an approver overrides that with a reason, which is shown wherever the release is shown.
4. The metadata is signed by the publisher's keys and names exactly this artifact with this counter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellfleet.canonical import digest_of
from cellfleet.errors import LineageError
from cellfleet.fleet import audit, trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.people.access import Person
from cellfleet.fleet.refusals import RequestRefused, conflict, not_found
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import Artifact, LineageRecord, Release
from cellfleet.lineage.signing import load_public_key
from cellfleet.trust.publish import Named
from cellfleet.wire.rollout import ReleaseRequest
from cellfleet.wire.states import ArtifactRef

DECISION = "decision"
PASSED = "passed"


def find(db: Session, release_id: int) -> Release:
    """A release.

    Raises:
        RequestRefused: 404.
    """
    found = db.get(Release, release_id)
    if found is None:
        raise not_found(f"release {release_id}")
    return found


def listing(db: Session, *, before: int = 0, limit: int = 100, name: str = "") -> Sequence[Release]:
    """Releases, newest first; ``before``: only those with a lower number (0: all)."""
    query = select(Release).order_by(Release.id.desc()).limit(limit)
    if before:
        query = query.where(Release.id < before)
    if name:
        query = query.where(Release.name == name)
    return db.scalars(query).all()


def publish(db: Session, context: Context, person: Person, request: ReleaseRequest) -> tuple[Release, bool]:
    """Take a release; the same release again changes nothing.

    Returns:
        The release, and whether it is new.

    Raises:
        RequestRefused: 403; 409 ``artifact-missing``, ``release-exists``, ``decision-missing``, ``decision-untrusted``,
            ``gate-failed``, ``metadata-refused``; 503 ``no-trust``, ``trust-keys``.
    """
    person.need("operator")
    ref = request.release
    _check_artifact(db, context, ref)
    known = _known(db, ref)
    if known is not None:
        return known, False
    payload, override = _gate(context, person, request)
    _check_named(trust_repository.accept(db, context, request.metadata), ref)
    digest = digest_of(request.decision) if request.decision is not None else ""
    release = Release(
        **ref.artifact.model_dump(),
        decision_digest=digest,
        verdict=str(payload.get("verdict", ""))[:16],
        approver=str(payload.get("approver", ""))[:200],
        override=override,
        card=request.card,
        notes=request.notes,
        published_by=person.name,
        published_at=context.clock.now(),
    )
    db.add(release)
    try:
        db.flush()
    except IntegrityError as e:
        raise conflict("release-exists", f"{ref.name} {ref.version} has just been released by another request") from e
    _keep_records(db, context, request, digest)
    _audit(db, context, person, release)
    return release, True


def withdraw(db: Session, context: Context, person: Person, release_id: int, reason: str) -> Release:
    """Withdraw a release: new deployments cannot use it; running downloads continue, and devices that run it keep it.

    Raises:
        RequestRefused: 403, 404, 409 ``release-withdrawn``.
    """
    person.need("operator")
    query = select(Release).where(Release.id == release_id).with_for_update().execution_options(populate_existing=True)
    release = db.scalars(query).one_or_none()
    if release is None:
        raise not_found(f"release {release_id}")
    if release.withdrawn_at is not None:
        raise conflict("release-withdrawn", f"it was withdrawn at {release.withdrawn_at:%Y-%m-%d %H:%M} UTC already")
    release.withdrawn_at = context.clock.now()
    audit.record(db, context, person.actor, "release.withdrawn", f"release:{release.id}", reason)
    return release


def decision_of(db: Session, context: Context, release: Release) -> tuple[dict[str, Any] | None, str]:
    """The payload of a release's decision record, and what is wrong with it (empty: its signature is good)."""
    if not release.decision_digest:
        return None, "it was released without a decision record"
    record = db.get(LineageRecord, (DECISION, release.decision_digest))
    if record is None or digest_of(record.content) != release.decision_digest:
        return None, "the stored decision record was removed or changed"
    try:
        return _verified(record.content, trusted_keys(context), release.sha256), ""
    except LineageError as e:
        return None, e.message


def trusted_keys(context: Context) -> list[bytes]:
    """Public keys (PEM) whose decision records count; those that cannot be read are left out."""
    found = []
    for name in context.settings.decision_keys:
        try:
            found.append(load_public_key(context.path(name)))
        except LineageError:
            continue
    return found


def _verified(envelope: Mapping[str, Any], trusted: Sequence[bytes], bundle: str) -> dict[str, Any]:
    from cellfleet.evaluate.decision import verify_decision  # takes the runtime along; a server starts without it

    if not trusted:
        raise LineageError(
            "the server has no public key to check decision records with",
            hint="name the signer's public key in fleet.decision_keys",
        )
    return verify_decision(envelope, trusted, bundle=bundle)


def _check_artifact(db: Session, context: Context, ref: ArtifactRef) -> None:
    artifact = db.get(Artifact, ref.sha256)
    if artifact is None or not context.blobs.has(ref.sha256):
        hint = "upload it first: POST /api/v1/artifacts; `cellfleet release publish` does it all"
        raise conflict("artifact-missing", f"the artifact {ref.sha256[:12]} is missing", hint=hint)
    if artifact.length != ref.length:
        raise conflict("artifact-missing", f"the artifact has {artifact.length} bytes, the release says {ref.length}")


def artifact_of(release: Release) -> ArtifactRef:
    """The artifact of a release."""
    return ArtifactRef.model_validate({name: getattr(release, name) for name in ArtifactRef.model_fields})


def _known(db: Session, ref: ArtifactRef) -> Release | None:
    """The release, when it is there already."""
    query = select(Release).where(
        (Release.sha256 == ref.sha256)
        | ((Release.kind == ref.kind) & (Release.name == ref.name) & (Release.version == ref.version))
        | ((Release.kind == ref.kind) & (Release.name == ref.name) & (Release.counter == ref.counter))
    )
    found = db.scalars(query.order_by(Release.id)).first()
    if found is None:
        return None
    if artifact_of(found) == ref.artifact:
        return found
    raise conflict(
        "release-exists",
        f"release {found.id} is {found.name} {found.version} ({found.sha256[:12]}, counter {found.counter}) already",
        hint="a version is released once; raise model.version and build the bundle again",
    )


def _gate(context: Context, person: Person, request: ReleaseRequest) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The decision's payload, and the override that was needed (empty: none).

    A record without a trusted signature is never accepted, not even with an override.
    """
    payload: Mapping[str, Any] = {}
    refusal: RequestRefused | None
    if request.decision is None:
        refusal = conflict(
            "decision-missing",
            f"{request.release.name} {request.release.version} has no decision record",
            hint="evaluate the bundle with `cellfleet evaluate`; an approver may override this with a reason",
        )
    else:
        try:
            payload = _verified(request.decision, trusted_keys(context), request.release.sha256)
        except LineageError as e:
            raise conflict("decision-untrusted", f"the decision record is refused: {e.message}", hint=e.hint) from e
        refusal = _verdict(payload, request.release)
    if refusal is None:
        return payload, {}
    if request.override is None:
        raise refusal
    person.need("approver")
    at = context.clock.now().isoformat(timespec="seconds")
    return payload, {"reason": request.override.reason, "by": person.name, "at": at, "against": refusal.detail}


def _verdict(payload: Mapping[str, Any], ref: ArtifactRef) -> RequestRefused | None:
    if payload.get("verdict") == PASSED:
        return None
    reasons = "; ".join(str(r) for r in payload.get("reasons") or ()) or "no reason is given"
    return conflict(
        "gate-failed",
        f"the gate refused {ref.name} {ref.version}: {reasons}"[:1500],
        hint="train a better one; an approver may override this with a reason",
    )


def _check_named(names: Mapping[str, Named], ref: ArtifactRef) -> None:
    target = names.get(ref.target_path)
    hint = "publish with `cellfleet release publish`, which signs what it sends"
    if target is None:
        raise conflict("metadata-refused", f"the signed metadata does not name {ref.target_path}", hint=hint)
    if target.artifact != ref.artifact:
        raise conflict("metadata-refused", f"the signed metadata says something else of {ref.target_path}", hint=hint)


def _keep_records(db: Session, context: Context, request: ReleaseRequest, decision_digest: str) -> None:
    now = context.clock.now()
    rows = [
        {"kind": kind, "digest": digest_of(record), "content": record, "added_at": now}
        for kind, records in request.records.items()
        for record in records
    ]
    if request.decision is not None:
        rows.append({"kind": DECISION, "digest": decision_digest, "content": request.decision, "added_at": now})
    insert_or_ignore(db, LineageRecord, list({(r["kind"], r["digest"]): r for r in rows}.values()))


def _audit(db: Session, context: Context, person: Person, release: Release) -> None:
    subject = f"release:{release.id}"
    facts = {"name": release.name, "version": release.version, "counter": release.counter, "sha256": release.sha256}
    audit.record(
        db,
        context,
        person.actor,
        "release.published",
        subject,
        release.notes,
        **facts,
        decision=release.decision_digest,
        verdict=release.verdict,
    )
    if release.override:
        audit.record(
            db,
            context,
            person.actor,
            "release.overridden",
            subject,
            release.override["reason"],
            against=release.override["against"],
        )
