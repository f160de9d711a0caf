"""The actions of the states before the activation: long work in the agent's worker thread. Each may run twice.

An action takes the update and returns the event that leaves its state, with the reason and the numbers for the report.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cellfleet.canonical import sha256_file
from cellfleet.config import Settings
from cellfleet.device.interfaces import Scheduler, Slot
from cellfleet.device.slots import Slots
from cellfleet.device.system.error_reasons import error_reason
from cellfleet.device.system.home import Home
from cellfleet.device.update.journal import Update
from cellfleet.device.update.policy import limits_of, missing
from cellfleet.device.update.selftest import choose, judge
from cellfleet.device.update.transitions import ActionResult
from cellfleet.device.update.update_source import UpdateSource
from cellfleet.errors import (
    BundleError,
    CellfleetError,
    StorageError,
    TrustError,
)
from cellfleet.ports import Clock
from cellfleet.wire.reason import because, english, joined
from cellfleet.wire.states import UpdateState

SELFTEST_TIMEOUT_S = 600.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActionContext:
    """Settings and services of the actions.

    Attributes:
        engines: engine -> version, of this machine.
        source_of: returns the source of an update.
        cancelled: set while the action of a withdrawn update still runs; long work checks it and stops.
    """

    home: Home
    settings: Settings
    slots: Slots
    scheduler: Scheduler
    clock: Clock
    engines: dict[str, str]
    source_of: Callable[[Update], UpdateSource]
    cancelled: threading.Event = field(default_factory=threading.Event)


Action = Callable[[ActionContext, Update], ActionResult]


def run_action(context: ActionContext, state: UpdateState, update: Update) -> ActionResult:
    """Run the action of a state. Errors become events with a reason, so that no bundle can end the agent.

    Args:
        context: settings and services.
        state: one of ``ACTIONS``.
        update: the update of the journal's page.

    Returns:
        The event, its reason, and the changes of the update.
    """
    try:
        return ACTIONS[state](context, update)
    except (TrustError, BundleError) as e:
        if getattr(e, "may_pass", False) and state == "checking" and not update.folder:
            # an unreachable server or a wrong clock: a retry may succeed
            return ActionResult("failed", error_reason(e), temporary=True)
        return ActionResult("refused", error_reason(e))
    except CellfleetError as e:
        fetched = update.bytes_downloaded + int(getattr(e, "fetched_bytes", 0))
        changes = {"bytes_downloaded": fetched} if state == "downloading" else {}
        if state == "activating":
            return ActionResult("refused", error_reason(e), temporary=isinstance(e, StorageError))
        return ActionResult("failed", error_reason(e), changes=changes, temporary=True)
    except Exception as e:  # a defect, perhaps one that a hostile bundle found
        _LOG.exception("defect in the state %s", state)
        reason = because("update.defect", detail=f"{type(e).__name__}: {e}")
        return ActionResult("refused" if state == "activating" else "failed", reason, temporary=state != "activating")


def check_trust(context: ActionContext, update: Update) -> ActionResult:
    """Verify the release with both repositories. Refuse before the download what this machine cannot install.

    Args:
        context: its source verifies, its slots give the installed release counters.
        update: names the release.

    Returns:
        ``trusted`` or ``refused``.

    Raises:
        TrustError: the repositories do not name the release for this device.
        NetworkError: the repositories cannot be reached now.
    """
    _, invalid = limits_of(context.settings.agent, update.agent)
    if invalid:
        return ActionResult("refused", invalid)
    if update.release.kind != "model":
        reason = because("update.wrong-kind", name=update.release.name, kind=update.release.kind)
        return ActionResult("refused", reason)
    context.source_of(update).check(update, context.slots.counters())
    return ActionResult("trusted", because("update.trusted"))


def fetch(context: ActionContext, update: Update) -> ActionResult:
    """Download the artifact. A slot that holds it already needs no network.

    Args:
        context: its source downloads into HOME.
        update: names the release.

    Returns:
        ``downloaded``, with the path of the artifact.

    Raises:
        TrustError: the bytes are not those that both repositories name.
        NetworkError: the download was interrupted; the next one resumes it.
        StorageError: the disk refuses.
    """
    slot = context.slots.intact(update.release.sha256)
    if slot is not None:
        return ActionResult("downloaded", because("update.present"), changes={"artifact": str(slot.bundle)})
    _drop_other_downloads(context.home, update.release.sha256)
    got = context.source_of(update).fetch(update)
    changes = {"artifact": str(got.path), "bytes_downloaded": update.bytes_downloaded + got.fetched_bytes}
    return ActionResult("downloaded", because("update.downloaded", size_bytes=got.fetched_bytes), changes=changes)


def _drop_other_downloads(home: Home, sha256: str) -> None:
    """Remove the partial downloads of earlier updates."""
    for path in home.downloads.iterdir() if home.downloads.is_dir() else []:
        if not path.name.startswith(sha256):
            with contextlib.suppress(OSError):
                path.unlink()


def install(context: ActionContext, update: Update) -> ActionResult:
    """Validate the untrusted bundle, check its requirements, write its slot, make it the candidate.

    Args:
        context: slots, settings of the camera, engines of this machine.
        update: names the release and the downloaded artifact.

    Returns:
        ``installed``, ``refused`` (the bundle), or ``failed`` (the file on this disk).

    Raises:
        BundleError: the artifact is not a valid bundle.
        DeviceError: the slot does not hold the verified bytes.
        StorageError: the disk refuses.
    """
    from cellfleet.bundle import open_bundle

    release = update.release
    artifact = Path(update.artifact)
    existing = context.slots.intact(release.sha256)
    if existing is not None and (not update.artifact or not artifact.is_file()):
        artifact = existing.bundle
    is_download = artifact.parent == context.home.downloads
    if not artifact.is_file():
        return ActionResult("failed", because("update.file-gone", path=str(artifact)), temporary=True)
    if sha256_file(artifact) != release.sha256:
        if is_download:
            artifact.unlink(missing_ok=True)
        return ActionResult("failed", because("update.file-changed"), temporary=True)
    manifest = open_bundle(artifact).manifest
    if (manifest.name, manifest.version) != (release.name, release.version):
        found, named = f"{manifest.name} {manifest.version}", f"{release.name} {release.version}"
        return ActionResult("refused", because("update.wrong-bundle", found=found, wanted=named))
    camera = context.settings.camera
    lacking = missing(
        manifest.requires, context.engines, camera.channels, camera.pixel_size_um, camera_names_pixel_size=True
    )
    if lacking:
        return ActionResult("refused", joined(lacking))
    slot = Slot(
        folder=context.home.slots,
        sha256=release.sha256,
        name=release.name,
        version=release.version,
        counter=release.counter,
        kind=release.kind,
        release_id=update.release_id,
        deployment_id=update.deployment_id,
        installed_at=context.clock.now().isoformat(),
    )
    installed = context.slots.install(artifact, replace(slot, **_tested_facts(existing)))
    context.slots.name_candidate(installed.sha256)
    if is_download:
        artifact.unlink(missing_ok=True)
    return ActionResult("installed", because("update.installed", slot=installed.folder.name))


def _tested_facts(existing: Slot | None) -> dict[str, Any]:
    if existing is None:
        return {}
    return {"variant": existing.variant, "run_digest": existing.run_digest, "numbers": existing.numbers}


def self_test(context: ActionContext, update: Update) -> ActionResult:
    """Run golden frames with each variant that this machine supports; choose the fastest one that passes.

    Args:
        context: its scheduler runs the segmenters.
        update: names the release; its settings override those of the instrument.

    Returns:
        ``passed`` with the variant, ``refused`` with the reasons, or ``failed`` (the slot is damaged).

    Raises:
        BundleError: a bundle cannot be opened.
    """
    from cellfleet.bundle import open_bundle

    slot = context.slots.intact(update.release.sha256)
    if slot is None:
        return ActionResult("failed", because("update.slot-damaged"), temporary=True)
    limits, _ = limits_of(context.settings.agent, update.agent)
    active = context.slots.get("active")
    golden = [slot.bundle, *([active.bundle] if active is not None and active.sha256 != slot.sha256 else [])]
    wanted = context.settings.device.variant
    judged = []
    for variant in open_bundle(slot.bundle).variants:
        if variant.engine not in context.engines or wanted not in ("", variant.name):
            continue
        tested = context.scheduler.selftest(replace(slot, variant=variant.name), golden, SELFTEST_TIMEOUT_S)
        judged.append(judge(tested, limits, active_ap50(active) if len(golden) > 1 else None))
    choice = choose(judged, wanted)
    numbers = {"selftest": choice.numbers}
    if choice.chosen is None:
        return ActionResult("refused", because("selftest.failed", choice.reason), numbers)
    best = choice.chosen
    facts = {"selftest": choice.numbers, "ap50": best.numbers["ap50"], "reason": english(choice.reason)}
    context.slots.note(replace(slot, variant=best.variant, run_digest=best.run_digest, numbers=facts))
    return ActionResult("passed", choice.reason, numbers, {"variant": best.variant})


def active_ap50(active: Slot | None) -> float | None:
    """AP@0.5 of the active model on its own golden frames: measured here, else on the builder's machine."""
    if active is None:
        return None
    measured = active.numbers.get("ap50")
    if isinstance(measured, int | float):
        return float(measured)
    from cellfleet.bundle import open_bundle

    known = [v.golden_ap50 for v in open_bundle(active.bundle).variants if v.golden_ap50 is not None]
    return max(known, default=None)


def warm_up(context: ActionContext, update: Update) -> ActionResult:
    """Start the candidate's segmenter beside the running ones, so that the switch needs no pause.

    Args:
        context: its scheduler starts the segmenter.
        update: names the release.

    Returns:
        ``activated``, or ``refused`` (the slot is damaged or was not tested here).

    Raises:
        DeviceError: the segmenter does not become ready.
    """
    slot = context.slots.intact(update.release.sha256)
    if slot is None:
        return ActionResult("refused", because("update.slot-damaged"), temporary=True)
    if not slot.variant or "selftest" not in slot.numbers:
        return ActionResult("refused", because("update.untested"), temporary=True)
    warm = context.scheduler.warm(slot)
    if warm.run_digest and warm.run_digest != slot.run_digest:
        context.slots.note(replace(slot, run_digest=warm.run_digest, variant=warm.variant or slot.variant))
    return ActionResult("activated", because("update.active", slot=slot.label, variant=warm.variant))


ACTIONS: dict[UpdateState, Action] = {
    "checking": check_trust,
    "downloading": fetch,
    "installing": install,
    "self-testing": self_test,
    "activating": warm_up,
}
