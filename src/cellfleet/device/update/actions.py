"""What happens in each state before the activation: long work, done in the agent's worker thread, safe to be done twice.

Each action takes the update and gives the event by which its state is left, with the words and numbers for the report.
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
from cellfleet.device.system.home import Home
from cellfleet.device.update.journal import Update
from cellfleet.device.update.policy import limits_of, missing
from cellfleet.device.update.selftest import choose, judge
from cellfleet.device.update.transitions import ActionResult
from cellfleet.device.update.update_source import UpdateSource
from cellfleet.errors import (
    BundleError,
    CellfleetError,
    SelfTestFailed,
    StorageError,
    TrustError,
)
from cellfleet.ports import Clock
from cellfleet.wire.states import UpdateState

SELFTEST_TIMEOUT_S = 600.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActionContext:
    """What actions work with.

    Attributes:
        engines: engine -> version, of this machine.
        source_of: the update's source.
        cancelled: set while a withdrawn update's action still runs; what takes long looks at it.
    """

    home: Home
    settings: Settings
    slots: Slots
    work: Scheduler
    clock: Clock
    engines: dict[str, str]
    source_of: Callable[[Update], UpdateSource]
    cancelled: threading.Event = field(default_factory=threading.Event)


Action = Callable[[ActionContext, Update], ActionResult]


def run_action(tools: ActionContext, state: UpdateState, update: Update) -> ActionResult:
    """Do the action of a state; errors become events with words, so that no bundle can end the agent."""
    try:
        return LONG[state](tools, update)
    except (TrustError, BundleError, SelfTestFailed) as e:
        if getattr(e, "may_pass", False) and state == "checking" and not update.folder:
            return ActionResult(
                "failed", _words(e), temporary=True
            )  # a server that was off, a clock: no attack for good
        return ActionResult("refused", _words(e))
    except CellfleetError as e:
        fetched = update.bytes_downloaded + int(getattr(e, "fetched_bytes", 0))
        changes = {"bytes_downloaded": fetched} if state == "downloading" else {}
        if state == "activating":
            return ActionResult("refused", _words(e), temporary=isinstance(e, StorageError))
        return ActionResult("failed", _words(e), changes=changes, temporary=True)
    except Exception as e:  # a defect, perhaps one that a hostile bundle found
        _LOG.exception("defect in the state %s", state)
        text = f"a defect of cellfleet ({type(e).__name__}: {e}); see agent.log"
        return ActionResult("refused" if state == "activating" else "failed", text, temporary=state != "activating")


def _words(error: CellfleetError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message


def check_trust(tools: ActionContext, update: Update) -> ActionResult:
    """Both repositories are asked; what this machine cannot do is refused before anything is downloaded."""
    _, wrong = limits_of(tools.settings.agent, update.agent)
    if wrong:
        return ActionResult("refused", wrong)
    if update.release.kind != "model":
        return ActionResult(
            "refused", f"this instrument installs models; {update.release.name} is {update.release.kind}"
        )
    tools.source_of(update).check(update, tools.slots.counters())
    return ActionResult("trusted", "both repositories name it for this instrument")


def fetch(tools: ActionContext, update: Update) -> ActionResult:
    """Bring the artifact; a slot that holds it already needs no network."""
    slot = tools.slots.intact(update.release.sha256)
    if slot is not None:
        return ActionResult("downloaded", "it lies on this instrument already", changes={"artifact": str(slot.bundle)})
    _drop_other_downloads(tools.home, update.release.sha256)
    got = tools.source_of(update).fetch(update)
    changes = {"artifact": str(got.path), "bytes_downloaded": update.bytes_downloaded + got.fetched_bytes}
    return ActionResult("downloaded", f"{got.fetched_bytes:,} bytes fetched", changes=changes)


def _drop_other_downloads(home: Home, sha256: str) -> None:
    """What updates before this one left unfinished."""
    for path in home.downloads.iterdir() if home.downloads.is_dir() else []:
        if not path.name.startswith(sha256):
            with contextlib.suppress(OSError):
                path.unlink()


def install(tools: ActionContext, update: Update) -> ActionResult:
    """Open the bundle with distrust, ask what it needs, write its slot, name it candidate."""
    from cellfleet.bundle import open_bundle

    release = update.release
    artifact = Path(update.artifact)
    done = tools.slots.intact(release.sha256)
    if done is not None and (not update.artifact or not artifact.is_file()):
        artifact = done.bundle
    ours = artifact.parent == tools.home.downloads
    if not artifact.is_file():
        return ActionResult("failed", f"{artifact} is not there any more", temporary=True)
    if sha256_file(artifact) != release.sha256:
        if ours:
            artifact.unlink(missing_ok=True)
        return ActionResult("failed", "the downloaded file changed on the disk; it is fetched again", temporary=True)
    manifest = open_bundle(artifact).manifest
    if (manifest.name, manifest.version) != (release.name, release.version):
        text = f"the bundle says it is {manifest.name} {manifest.version}, the release {release.name} {release.version}"
        return ActionResult("refused", text)
    camera = tools.settings.camera
    lacking = missing(manifest.requires, tools.engines, camera.channels, camera.pixel_size_um, cameras_tell=True)
    if lacking:
        return ActionResult("refused", "; ".join(lacking))
    slot = Slot(
        folder=tools.home.slots,
        sha256=release.sha256,
        name=release.name,
        version=release.version,
        counter=release.counter,
        kind=release.kind,
        release_id=None if update.folder else release.release_id,
        deployment_id=update.deployment_id,
        installed_at=tools.clock.now().isoformat(),
    )
    installed = tools.slots.install(artifact, replace(slot, **_tested_facts(done)))
    tools.slots.name_candidate(installed.sha256)
    if ours:
        artifact.unlink(missing_ok=True)
    return ActionResult("installed", f"slot {installed.folder.name}")


def _tested_facts(done: Slot | None) -> dict[str, Any]:
    if done is None:
        return {}
    return {"variant": done.variant, "run_digest": done.run_digest, "numbers": done.numbers}


def self_test(tools: ActionContext, update: Update) -> ActionResult:
    """Run every variant that can run here on golden frames; the fastest that passes is chosen."""
    from cellfleet.bundle import open_bundle

    slot = tools.slots.intact(update.release.sha256)
    if slot is None:
        return ActionResult("failed", "the candidate's slot is damaged", temporary=True)
    limits, _ = limits_of(tools.settings.agent, update.agent)
    active = tools.slots.get("active")
    golden = [slot.bundle, *([active.bundle] if active is not None and active.sha256 != slot.sha256 else [])]
    wanted = tools.settings.device.variant
    judged = []
    for variant in open_bundle(slot.bundle).variants:
        if variant.engine not in tools.engines or wanted not in ("", variant.name):
            continue
        tested = tools.work.selftest(replace(slot, variant=variant.name), golden, SELFTEST_TIMEOUT_S)
        judged.append(judge(tested, limits, active_ap50(active) if len(golden) > 1 else None))
    choice = choose(judged, wanted)
    numbers = {"selftest": choice.numbers}
    if choice.chosen is None:
        return ActionResult("refused", f"self-test: {choice.reason}", numbers)
    best = choice.chosen
    facts = {"selftest": choice.numbers, "ap50": best.numbers["ap50"], "reason": choice.reason}
    tools.slots.note(replace(slot, variant=best.variant, run_digest=best.run_digest, numbers=facts))
    return ActionResult("passed", choice.reason, numbers, {"variant": best.variant})


def active_ap50(active: Slot | None) -> float | None:
    """What the active model reached on its own golden frames here; else what its builder saw."""
    if active is None:
        return None
    measured = active.numbers.get("ap50")
    if isinstance(measured, int | float):
        return float(measured)
    from cellfleet.bundle import open_bundle

    seen = [v.golden_ap50 for v in open_bundle(active.bundle).variants if v.golden_ap50 is not None]
    return max(seen, default=None)


def warm_up(tools: ActionContext, update: Update) -> ActionResult:
    """The candidate's segmenter is started beside the others, so that the switch costs no pause."""
    slot = tools.slots.intact(update.release.sha256)
    if slot is None:
        return ActionResult("refused", "the candidate's slot is damaged", temporary=True)
    if not slot.variant or "selftest" not in slot.numbers:
        return ActionResult("refused", "the candidate was not tested on this instrument", temporary=True)
    warm = tools.work.warm(slot)
    if warm.run_digest and warm.run_digest != slot.run_digest:
        tools.slots.note(replace(slot, run_digest=warm.run_digest, variant=warm.variant or slot.variant))
    return ActionResult("activated", f"{slot.label} ({warm.variant}) is active")


LONG: dict[UpdateState, Action] = {
    "checking": check_trust,
    "downloading": fetch,
    "installing": install,
    "self-testing": self_test,
    "activating": warm_up,
}
