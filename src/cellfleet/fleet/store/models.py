"""Tables of the fleet server, the same on SQLite and PostgreSQL. Migrations in ``migrations/`` follow them.

Times are stored in UTC. JSON columns hold wire messages as plain data. Rows of telemetry are found by natural keys, so
that a batch that comes twice changes nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from cellfleet.wire.rollout import LIVE


class UtcTime(TypeDecorator[datetime]):
    """A time with its zone: stored as UTC, read with UTC (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UtcTime, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


NullableData = JSON(none_as_null=True)
"""JSON data of a column that an earlier version did not have; None is NULL."""
_LIVE = text(f"state IN ({', '.join(repr(state) for state in LIVE)})")
BigId = BigInteger().with_variant(Integer, "sqlite")


class User(Base):
    """A person. Roles: viewer < operator < approver < admin."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(256))
    role: Mapped[str] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]


class ApiToken(Base):
    """An API token of an account; only its digest is stored."""

    __tablename__ = "api_tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(64))
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class WebSession(Base):
    """A person who is signed in; the cookie's digest and the token against forged forms."""

    __tablename__ = "web_sessions"
    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    csrf: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class RateCount(Base):
    """Requests within a minute, so that limits hold over all replicas."""

    __tablename__ = "rate_counts"
    key: Mapped[str] = mapped_column(String(160), primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class ClaimToken(Base):
    """Lets one device claim its place in the fleet, once."""

    __tablename__ = "claim_tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    note: Mapped[str] = mapped_column(String(200), default="")
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[str | None] = mapped_column(String(16))


class DeviceGroup(Base):
    """Devices that are deployed to together; a device is in at most one."""

    __tablename__ = "device_groups"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime]


class Device(Base):
    """An instrument. ``state``: pending, accepted, rejected, revoked.

    ``desired`` and ``reported`` are wire messages; ``desired_generation`` and ``desired_etag`` change with ``desired``.
    ``alarms``: what the server found (two machines with one key, a report that does not hold), name -> English text;
    ``alarms_data``: name -> Reason, for those of them that are data.
    """

    __tablename__ = "devices"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    public_key: Mapped[str] = mapped_column(Text)
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("device_groups.id"), index=True)
    tags: Mapped[list[Any]] = mapped_column(default=list)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(String(64))
    last_seen_at: Mapped[datetime | None] = mapped_column(index=True)
    desired: Mapped[dict[str, Any]] = mapped_column(default=dict)
    desired_generation: Mapped[int] = mapped_column(default=0)
    desired_etag: Mapped[str] = mapped_column(String(64), default="")
    reported: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reported_sequence: Mapped[int] = mapped_column(BigInteger, default=-1)
    boot_id: Mapped[str] = mapped_column(String(128), default="")
    active_sha256: Mapped[str] = mapped_column(String(64), default="", index=True)
    alarms: Mapped[dict[str, Any]] = mapped_column(default=dict)
    alarms_data: Mapped[dict[str, Any] | None] = mapped_column(NullableData)
    token_generation: Mapped[int] = mapped_column(default=0)
    """Raised on revocation: older access tokens die with it."""


class DeviceToken(Base):
    """A device's short-lived access token; only its digest is stored."""

    __tablename__ = "device_tokens"
    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    generation: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Nonce(Base):
    """Nonces that were used in token requests, until they are too old to count."""

    __tablename__ = "nonces"
    device_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)


class Artifact(Base):
    """Bytes in the store, by digest."""

    __tablename__ = "artifacts"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    uploaded_by: Mapped[str] = mapped_column(String(64))
    uploaded_at: Mapped[datetime]


class Release(Base):
    """An artifact version, signed and published.

    ``override``: {reason, by, at} or empty. ``withdrawn_at``: no new deployment may use it; its bytes stay.
    """

    __tablename__ = "releases"
    __table_args__ = (
        UniqueConstraint("kind", "name", "counter"),
        UniqueConstraint("kind", "name", "version"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(64))
    counter: Mapped[int]
    target_path: Mapped[str] = mapped_column(String(512), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    length: Mapped[int] = mapped_column(BigInteger)
    decision_digest: Mapped[str] = mapped_column(String(64), default="")
    verdict: Mapped[str] = mapped_column(String(16), default="")
    approver: Mapped[str] = mapped_column(String(200), default="")
    override: Mapped[dict[str, Any]] = mapped_column(default=dict)
    card: Mapped[dict[str, Any]] = mapped_column(default=dict)
    notes: Mapped[str] = mapped_column(Text, default="")
    published_by: Mapped[str] = mapped_column(String(64))
    published_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]


class LineageRecord(Base):
    """A record of ``cellfleet.lineage``, by kind and digest; never changed."""

    __tablename__ = "lineage_records"
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[dict[str, Any]]
    added_at: Mapped[datetime]


class Deployment(Base):
    """A release aimed at a group in phases. ``request`` is the DeploymentRequest.

    A group has one deployment at a time that has not ended; the database itself holds that. Failures before
    ``resumed_at`` were accepted by the operator who resumed it: they do not count against a threshold.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        Index("one_live_deployment", "group_id", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), index=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("device_groups.id"), index=True)
    state: Mapped[str] = mapped_column(String(24), index=True)
    request: Mapped[dict[str, Any]]
    phase: Mapped[int] = mapped_column(default=0)
    phase_since: Mapped[datetime]
    soak_since: Mapped[datetime | None]
    halted_reason: Mapped[str] = mapped_column(Text, default="")
    halted_data: Mapped[dict[str, Any] | None] = mapped_column(NullableData)
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    approved_by: Mapped[str | None] = mapped_column(String(64))
    approved_phase: Mapped[int] = mapped_column(default=-1)
    """Phases up to this index were approved."""
    resumed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class DeploymentMember(Base):
    """A device in a deployment; ``update`` is the last UpdateReport."""

    __tablename__ = "deployment_members"
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True, index=True)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    phase: Mapped[int | None]
    offered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(Text, default="")
    reason_data: Mapped[dict[str, Any] | None] = mapped_column(NullableData)
    update: Mapped[dict[str, Any]] = mapped_column(default=dict)


class TelemetryBatch(Base):
    """A batch that was taken; the same key again changes nothing."""

    __tablename__ = "telemetry_batches"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    received_at: Mapped[datetime]
    items: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))


class Experiment(Base):
    """One time-lapse on one plate of a device, and the pin that counts now."""

    __tablename__ = "experiments"
    __table_args__ = (UniqueConstraint("device_id", "name"),)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    name: Mapped[str] = mapped_column(String(128))
    plate: Mapped[str] = mapped_column(String(200), default="")
    plate_format: Mapped[int] = mapped_column(default=96)
    started_at: Mapped[datetime] = mapped_column(index=True)
    ended_at: Mapped[datetime | None]
    pin: Mapped[int] = mapped_column(default=0)
    pinned_sha256: Mapped[str] = mapped_column(String(64), default="")
    release_id: Mapped[int | None]
    run_digest: Mapped[str] = mapped_column(String(64), default="")
    history: Mapped[list[Any]] = mapped_column(default=list)
    """All ExperimentStarted messages, oldest first."""


class FrameRow(Base):
    """A frame that a device took. Counted once: (experiment, name) is unique. Events may come before the experiment's."""

    __tablename__ = "frames"
    __table_args__ = (
        UniqueConstraint("device_id", "experiment", "name"),
        Index("frames_when", "device_id", "taken_at"),
        Index("frames_in_order", "device_id", "experiment", "frame_index"),
        Index("frames_of_wells", "device_id", "experiment", "well", "time_s"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    experiment: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(128))
    index: Mapped[int] = mapped_column("frame_index")
    well: Mapped[str] = mapped_column(String(128))
    field: Mapped[int] = mapped_column(default=1)
    time_s: Mapped[float] = mapped_column(Float)
    taken_at: Mapped[datetime]
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    problem: Mapped[str] = mapped_column(Text, default="")


class ResultRow(Base):
    """A mask's row. Identity: (device, experiment, frame, run digest, pin). Append-only: a later pin supersedes."""

    __tablename__ = "results"
    __table_args__ = (
        UniqueConstraint("device_id", "experiment", "frame", "run_digest", "pin"),
        Index("results_of", "device_id", "experiment", "pin"),
    )
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    experiment: Mapped[str] = mapped_column(String(128))
    frame: Mapped[str] = mapped_column(String(128))
    pin: Mapped[int]
    run_digest: Mapped[str] = mapped_column(String(64), index=True)
    bundle_sha256: Mapped[str] = mapped_column(String(64), index=True)
    release_id: Mapped[int | None]
    variant: Mapped[str] = mapped_column(String(128))
    engine_version: Mapped[str] = mapped_column(String(128), default="")
    count: Mapped[int]
    confluence_percent: Mapped[float] = mapped_column(Float)
    per_mm2: Mapped[float | None] = mapped_column(Float)
    total_ms: Mapped[float | None] = mapped_column(Float)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """features, flags and timings_ms of the FrameSegmented message."""
    mask_sha256: Mapped[str] = mapped_column(String(64))
    segmented_at: Mapped[datetime] = mapped_column(index=True)
    superseded_by: Mapped[int | None] = mapped_column(BigInteger)
    """Id of the row that counts instead; None: this one counts."""


class DeviceEvent(Base):
    """What a device reports of itself: transitions of its agent, incidents, frames that failed."""

    __tablename__ = "device_events"
    __table_args__ = (UniqueConstraint("device_id", "digest"), Index("device_events_when", "device_id", "at"))
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    content: Mapped[dict[str, Any]]
    digest: Mapped[str] = mapped_column(String(64))


class GaugePoint(Base):
    """A measurement of a device, the newest hours of it."""

    __tablename__ = "gauge_points"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    unit: Mapped[str] = mapped_column(String(16), default="")


class Upload(Base):
    """A file that comes in parts. ``kind``: thumbnail, overlay, mask, raw, artifact. ``parts``: number -> sha256, bytes."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    experiment: Mapped[str] = mapped_column(String(128), default="")
    frame: Mapped[str] = mapped_column(String(128), default="")
    pin: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    length: Mapped[int] = mapped_column(BigInteger)
    part_bytes: Mapped[int] = mapped_column(BigInteger)
    parts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class Picture(Base):
    """A picture of a frame in the store (``kind``: thumbnail, overlay, mask, raw), by digest of its bytes."""

    __tablename__ = "pictures"
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    experiment: Mapped[str] = mapped_column(String(128), primary_key=True)
    frame: Mapped[str] = mapped_column(String(128), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    pin: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(64))
    stored_at: Mapped[datetime]


class TrustFile(Base):
    """Signed metadata that devices fetch: ``image/<file>``, ``director/<device id>/<file>``, ``director/<root file>``."""

    __tablename__ = "trust_files"
    path: Mapped[str] = mapped_column(String(256), primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime]


class AuditEvent(Base):
    """Who, what, when, why. Append-only: ``hash`` is over the row and the hash before it."""

    __tablename__ = "audit_events"
    seq: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(80), index=True)
    action: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(String(200), index=True)
    reason: Mapped[str] = mapped_column(Text, default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    previous: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)


class AuditHead(Base):
    """The end of the chain of audit events: one row, locked by each append."""

    __tablename__ = "audit_head"
    id: Mapped[int] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))


class Lease(Base):
    """Work that one replica does at a time."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(80))
    expires_at: Mapped[datetime]


class ServerSecret(Base):
    """Random bytes that all replicas share (hex), such as the key that signs addresses of upload parts."""

    __tablename__ = "server_secrets"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime]
