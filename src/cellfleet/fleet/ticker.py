"""What happens with time: deployments go on, metadata is renewed, what is too old is forgotten. One replica at a time.

The lease only spares work: every step holds what it changes and may be done twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import delete, or_, update

from cellfleet.fleet import trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import uploads
from cellfleet.fleet.people.rate_limits import RateLimits
from cellfleet.fleet.rollout import reconcile
from cellfleet.fleet.store.database import insert_or_ignore
from cellfleet.fleet.store.models import DeviceToken, GaugePoint, Lease, Nonce, TelemetryBatch, WebSession

log = logging.getLogger(__name__)

LEASE = "ticker"
GAUGES_KEPT = timedelta(hours=24)
BATCHES_KEPT = timedelta(days=30)
NONCES_KEPT = timedelta(hours=1)
_SWEEP_EVERY_S = 600.0


def run(context: Context, stop_event: threading.Event) -> None:
    """Tick every ``fleet.tick_s`` until the event is set; an error is logged and the next tick tries again."""
    swept_at = float("-inf")
    while True:
        try:
            if hold(context):
                tick(context)
                if context.clock.monotonic_s() - swept_at >= _SWEEP_EVERY_S:
                    swept_at = context.clock.monotonic_s()
                    sweep(context)
        except Exception:  # a thread that ended would stop all deployments without a word
            log.exception("a tick failed; the next one tries again")
        if stop_event.wait(context.settings.tick_s):
            break
    with_errors_logged(lambda: release(context))


def hold(context: Context) -> bool:
    """Take or renew the lease; False: another replica has it."""
    now = context.clock.now()
    until = now + timedelta(seconds=max(15.0, 4 * context.settings.tick_s))
    with context.sessions() as db:
        insert_or_ignore(db, Lease, [{"name": LEASE, "holder": context.replica, "expires_at": until}])
        mine = or_(Lease.holder == context.replica, Lease.expires_at <= now)
        taken = update(Lease).where(Lease.name == LEASE, mine).values(holder=context.replica, expires_at=until)
        return bool(db.execute(taken).rowcount)  # type: ignore[attr-defined]


def release(context: Context) -> None:
    """Give the lease back, so that another replica need not wait for its end."""
    with context.sessions() as db:
        db.execute(delete(Lease).where(Lease.name == LEASE, Lease.holder == context.replica))


def tick(context: Context) -> None:
    """Do all that is due now; each part in its own transaction, so that one failure does not stop the others."""
    with_errors_logged(lambda: trust_repository.take_folder(context))
    with context.reading() as db:
        ids = reconcile.live_ids(db)
    for deployment_id in ids:
        with_errors_logged(lambda i=deployment_id: reconcile.reconcile(context, i))  # type: ignore[misc]
    with_errors_logged(lambda: trust_repository.renew(context))


def sweep(context: Context) -> None:
    """Forget what has had its time: measurements, keys of old batches, tokens, unfinished uploads."""
    now = context.clock.now()
    with context.sessions() as db:
        db.execute(delete(GaugePoint).where(GaugePoint.at < now - GAUGES_KEPT))
        db.execute(delete(TelemetryBatch).where(TelemetryBatch.received_at < now - BATCHES_KEPT))
        db.execute(delete(Nonce).where(Nonce.at < now - NONCES_KEPT))
        db.execute(delete(DeviceToken).where(DeviceToken.expires_at < now))
        db.execute(delete(WebSession).where(WebSession.expires_at < now))
    context.service(RateLimits).sweep()
    uploads.sweep(context)


def with_errors_logged(step: Callable[[], object]) -> None:
    """Run a step; an error of the database, the disk or the metadata, or a defect of ours, is logged."""
    try:
        step()
    except Exception:
        log.exception("a step of the ticker failed; the next tick tries again")
