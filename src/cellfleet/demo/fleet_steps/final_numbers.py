"""The last steps: the lineage of a mask, and the numbers."""

from __future__ import annotations

from typing import Any

from cellfleet.cli.common import print_table, say
from cellfleet.demo.fleet_steps.demo_fleet import NAMES, DemoFleet, Instrument
from cellfleet.demo.fleet_steps.frame_count import FrameCount, count_frames
from cellfleet.demo.fleet_steps.rollout_steps import segmented_again
from cellfleet.demo.fleet_steps.waiting import wait_for

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


def lineage(fleet: DemoFleet) -> None:
    """Show the lineage of a mask of an instrument: data, commit, decision and approver."""
    fleet.runner.step(
        "Lineage of a mask in the fleet",
        "From one mask of one instrument back to the data set, as the server reports it.",
    )
    device = NAMES[0]
    row = next(iter(fleet.api.all(f"/api/v1/devices/{device}/results")))
    with fleet.as_user("vera"):
        fleet.runner.run("lineage", f"{device}/{row['experiment']}/{row['frame']}", *fleet.here)


def numbers(fleet: DemoFleet) -> None:
    """Stop the cameras, wait until all frames are segmented and reported, and count them."""
    runner = fleet.runner
    runner.step(
        "The numbers of the fleet",
        "The cameras stop; pending frames are segmented and sent; then all frames are counted.",
    )
    for instrument in fleet.instruments:
        runner.run("device", "camera", str(instrument.home), "stop", "--reason", "the demo ends")
    wait_for("the server knows every frame", lambda: _drained(fleet), fleet.programs.check, _DRAIN_S, every_s=3.0)
    if fleet.resegmenting:
        wait_for("segmented again", lambda: segmented_again(fleet, fleet.resegmenting), fleet.programs.check, _DRAIN_S)
    counted = {i.name: _count(fleet, i) for i in fleet.instruments}
    total = sum(counted.values(), FrameCount())
    devices = [fleet.api.get(f"/api/v1/devices/{name}") for name in NAMES]
    downloaded = sum(s["update"]["bytes_downloaded"] for s in _updates(fleet))
    fleet.numbers |= {
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
    print_table("frames on the instruments' disks and on the server", columns, rows)
    n = fleet.numbers
    say(f"update, from desired state to activation  {n['update_s']:.1f} s (slowest instrument)")
    say(f"pause at the activation                   {n['activation_pause_s']:.2f} s (longest)")
    say(f"from a bad activation to recovery         {n['recovery_s']:.1f} s")
    say(f"downloaded by all instruments             {downloaded / 1e6:.1f} MB in {len(_updates(fleet))} updates")


def _drained(fleet: DemoFleet) -> tuple[bool, str]:
    waiting, lines = False, []
    for i in fleet.instruments:
        status = i.status()
        taken = status["counters"]["taken"]
        known = fleet.api.get(f"/api/v1/devices/{i.name}/counts")
        stopped = status["health"]["camera"] not in ("running", "failing")
        waiting |= not stopped or known["segmented"] + known["unreadable"] < taken or known["taken"] < taken
        lines.append(f"{i.name} {known['segmented']} of {taken}")
    return not waiting, "masks known to the server: " + ", ".join(lines)


def _count(fleet: DemoFleet, instrument: Instrument) -> FrameCount:
    return count_frames(instrument.home / "frames", fleet.api.all(f"/api/v1/devices/{instrument.name}/results"))


def _updates(fleet: DemoFleet) -> list[dict[str, Any]]:
    """The members of all deployments that were offered a release."""
    found = []
    for d in fleet.api.all("/api/v1/deployments"):
        members = fleet.api.all(f"/api/v1/deployments/{d['id']}/members")
        found += [m for m in members if m["update"]]
    return found


def _runs(device: dict[str, Any]) -> str:
    active = (device.get("reported") or {}).get("active") or {}
    return f"{active.get('name', '')} {active.get('version', '')}".strip()
