"""The last chapters: one mask's lineage, and the numbers."""

from __future__ import annotations

from typing import Any

from cellfleet.cli.common import print_table, say
from cellfleet.demo.fleet_story.cast import NAMES, Cast, Instrument
from cellfleet.demo.fleet_story.chapters import segmented_again
from cellfleet.demo.fleet_story.frame_count import Counted, count
from cellfleet.demo.fleet_story.watch import wait_for

_DRAIN_S = 240.0
NUMBERS = (
    "frames_taken",
    "frames_stored",
    "frames_segmented",
    "frames_lost",
    "frames_doubled",
    "update_s",
    "activation_pause_s",
    "recovery_s",
    "bytes_downloaded",
)


def lineage(cast: Cast) -> None:
    """From one mask on one instrument back to data, commit, decision and approver."""
    cast.story.chapter("Who drew this mask?", "One mask of one instrument, asked for at the server.")
    device = NAMES[0]
    row = next(iter(cast.api.all(f"/api/v1/devices/{device}/results")))
    with cast.as_person("vera"):
        cast.story.run("lineage", f"{device}/{row['experiment']}/{row['frame']}", *cast.here)


def numbers(cast: Cast) -> None:
    """The cameras stop, everything is segmented and told, and everything is counted."""
    story = cast.story
    story.chapter(
        "The numbers of the fleet", "The cameras stop; what is under way is finished; then everything is counted."
    )
    for instrument in cast.instruments:
        story.run("device", "camera", str(instrument.home), "stop", "--reason", "the story is told")
    wait_for("the server knows every frame", lambda: _drained(cast), cast.programs.check, _DRAIN_S, every_s=3.0)
    if cast.again:
        wait_for("segmented again", lambda: segmented_again(cast, cast.again), cast.programs.check, _DRAIN_S)
    counted = {i.name: _count(cast, i) for i in cast.instruments}
    total = sum(counted.values(), Counted())
    devices = [cast.api.get(f"/api/v1/devices/{name}") for name in NAMES]
    downloaded = sum(s["update"]["bytes_downloaded"] for s in _updates(cast))
    cast.numbers |= {
        "frames_taken": total.taken,
        "frames_stored": total.stored,
        "frames_segmented": total.segmented,
        "frames_lost": total.lost,
        "frames_doubled": total.doubled,
        "bytes_downloaded": downloaded,
    }
    columns = ["instrument", "taken", "stored", "segmented", "lost", "doubled", "runs"]
    rows = [
        [name, c.taken, c.stored, c.segmented, c.lost, c.doubled, _runs(device)]
        for (name, c), device in zip(counted.items(), devices, strict=True)
    ]
    rows.append(["all", total.taken, total.stored, total.segmented, total.lost, total.doubled, ""])
    print_table("frames: on the instruments' disks, and as the server knows them", columns, rows)
    n = cast.numbers
    say(f"update, from the wish to its activation   {n['update_s']:.1f} s (slowest instrument)")
    say(f"pause at the activation                   {n['activation_pause_s']:.2f} s (longest)")
    say(f"from a bad activation to recovery         {n['recovery_s']:.1f} s")
    say(f"downloaded by all instruments             {downloaded / 1e6:.1f} MB in {len(_updates(cast))} updates")


def _drained(cast: Cast) -> tuple[bool, str]:
    waiting, lines = False, []
    for i in cast.instruments:
        status = i.status()
        taken = status["counters"]["taken"]
        known = cast.api.get(f"/api/v1/devices/{i.name}/counts")
        stopped = status["health"]["camera"] not in ("running", "failing")
        waiting |= not stopped or known["segmented"] + known["unreadable"] < taken or known["taken"] < taken
        lines.append(f"{i.name} {known['segmented']} of {taken}")
    return not waiting, "masks known to the server: " + ", ".join(lines)


def _count(cast: Cast, instrument: Instrument) -> Counted:
    return count(instrument.home / "frames", cast.api.all(f"/api/v1/devices/{instrument.name}/results"))


def _updates(cast: Cast) -> list[dict[str, Any]]:
    """The members of all deployments that were offered something."""
    found = []
    for d in cast.api.all("/api/v1/deployments"):
        members = cast.api.all(f"/api/v1/deployments/{d['id']}/members")
        found += [m for m in members if m["update"]]
    return found


def _runs(device: dict[str, Any]) -> str:
    active = (device.get("reported") or {}).get("active") or {}
    return f"{active.get('name', '')} {active.get('version', '')}".strip()
