"""The steps from a bundle to three instruments and back, with the commands that users type."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellfleet.bundle import ModelFolder
from cellfleet.cli.common import print_table, say
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.demo.fleet_steps import demo_settings
from cellfleet.demo.fleet_steps.breakable_proxy import BreakableProxy
from cellfleet.demo.fleet_steps.camera_scenes import Scene
from cellfleet.demo.fleet_steps.demo_fleet import GROUP, NAMES, USERS, DemoFleet, Instrument
from cellfleet.demo.fleet_steps.faulty_models import Edit, attentive, inverted, make_model
from cellfleet.demo.fleet_steps.waiting import NotInTime, wait_for
from cellfleet.errors import FleetError
from cellfleet.runtime.grid import model_grid

STEPS = 8
OFFLINE_S = 12.0
_MINUTE_S = 60.0


def open_fleet(fleet: DemoFleet) -> None:
    """Make trust roots and users; start the server."""
    runner = fleet.runner
    runner.step("Trust roots and the fleet server", "Signing is separate from serving; 2 of 3 root keys must sign.")
    print_table(
        "settings of the demo that differ from production",
        ["setting", "", "production", "demo"],
        demo_settings.changed_rows(fleet.project),
    )
    runner.run("trust", "init", "-p", str(fleet.root))
    fleet.password = secrets.token_urlsafe(9)
    for name, role in USERS.items():
        flags = ("--role", role, "--password-stdin", "--token")
        fleet.tokens[name] = runner.ask("fleet", "user", "add", name, *flags, *fleet.here, stdin=fleet.password + "\n")[
            "token"
        ]
    program = fleet.programs.start("server", ["fleet", "serve", "--tied", *fleet.here])
    facts = fleet.root / "serve.json"
    wait_for("the fleet server", lambda: (facts.is_file(), "the server starts"), program.check, _MINUTE_S)
    fleet.server = str(json.loads(facts.read_bytes())["address"])
    say(f"pages: {fleet.server}  (sign in as {', '.join(USERS)}; the password is {fleet.password})")


def open_instruments(fleet: DemoFleet, make_scene: Callable[[Path, int], Scene]) -> None:
    """Provision and accept three instruments, and start them.

    Args:
        fleet: fleet of the demo.
        make_scene: makes the images of the n-th camera in a folder.
    """
    runner, root = fleet.runner, fleet.root
    runner.step(
        "Three instruments", "Each runs camera, segmenter and agent as separate processes and replays a time-lapse."
    )
    host, port = fleet.server.rpartition("/")[2].split(":")
    fleet.proxy = BreakableProxy(host, int(port))
    for number, name in enumerate(NAMES, start=1):
        scene = make_scene(root / "scenes" / name, number)
        instrument = Instrument(name, root / "instruments" / name, scene)
        with fleet.as_user("olga"):
            token = runner.ask("fleet", "claim", "--note", f"the lab of {name}")["token"]
        server = fleet.server if name != NAMES[2] else f"http://127.0.0.1:{fleet.proxy.port}"
        flags = [part for text in _settings(fleet, instrument) for part in ("--set", text)]
        runner.run(
            "device", "provision", str(instrument.home), "--server", server, "--token", token, "--name", name, *flags
        )
        instrument.program = fleet.programs.start(name, ["device", "run", str(instrument.home), "--tied"])
        fleet.instruments.append(instrument)
    with fleet.as_user("olga"):
        runner.run("fleet", "group", "add", GROUP)
        runner.run("fleet", "accept", *NAMES, "--group", GROUP, "--reason", "their keys were compared on the phone")
    fleet.wait_instruments("take frames", NAMES, lambda s: s["counters"]["taken"] > 0)


def _settings(fleet: DemoFleet, instrument: Instrument) -> list[str]:
    scene = instrument.scene
    values: dict[str, Any] = {
        "camera.kind": "replay",
        "camera.source": str(scene.folder),
        "camera.frames_per_experiment": scene.frames,
        "camera.channels": list(scene.channels),
        "camera.plate": f"plate of {instrument.name}",
    }
    if scene.pixel_size_um is not None:
        values["camera.pixel_size_um"] = scene.pixel_size_um
    values |= demo_settings.instrument_settings(fleet.project, fleet.settings)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def first_release(fleet: DemoFleet, bundle: Path) -> None:
    """Deploy the bundle in two phases.

    Args:
        fleet: fleet of the demo.
        bundle: bundle of the first half.
    """
    runner = fleet.runner
    runner.step("Release and deploy, in two phases", "One instrument first; the others after it has succeeded.")
    release = publish(fleet, bundle, "olga")
    number = deploy(fleet, release)
    members = fleet.wait_deployment(number, "succeeded")
    updates = [m["update"] for m in members]
    fleet.numbers["update_s"] = max(u["update_s"] for u in updates)
    fleet.numbers["activation_pause_s"] = max(u["activation_pause_s"] for u in updates)
    runner.run("device", "status", str(fleet.instrument(NAMES[0]).home))


def publish(fleet: DemoFleet, bundle: Path, user: str, *more: str) -> int:
    """Publish a bundle.

    Args:
        fleet: fleet of the demo.
        bundle: bundle to publish.
        user: name of the user.
        more: additional flags.

    Returns:
        The number of the release.
    """
    with fleet.as_user(user):
        release = int(fleet.runner.ask("release", "publish", str(bundle), *fleet.here, *more)["release"]["release_id"])
        fleet.runner.run("release", "show", str(release))
    return release


def deploy(fleet: DemoFleet, release: int) -> int:
    """Deploy a release in two phases.

    Args:
        fleet: fleet of the demo.
        release: its number.

    Returns:
        The number of the deployment.
    """
    flags = ("--group", GROUP, "--phase", "1", "--phase", "100%", "--soak-s", f"{demo_settings.SOAK_S:g}")
    with fleet.as_user("olga"):
        facts = fleet.runner.ask("deploy", "start", str(release), *flags, "--reason", "a step of the demo")
    say(f"deployment {facts['id']}: {fleet.server}/deployments/{facts['id']}")
    return int(facts["id"])


def inverted_model(fleet: DemoFleet, run: str) -> None:
    """Show that the gate and, after an override, an instrument's self-test refuse a model that segments wrongly.

    Args:
        fleet: fleet of the demo.
        run: training run of the good model.
    """
    runner = fleet.runner
    runner.step("A model that segments wrongly", "Its heads are inverted; it loads and runs like any other model.")
    bundle = _bad_bundle(fleet, run, "inverted", "0.2.0", inverted)
    runner.must_end(ExitCode.FINDINGS, "evaluate", str(bundle), *fleet.here)
    with fleet.as_user("olga"):
        runner.must_end(ExitCode.REFUSED, "release", "publish", str(bundle), *fleet.here)
    say("the gate refuses the model. An approver overrides the gate with a reason:")
    release = publish(fleet, bundle, "adam", "--override", "for the demo, against the gate")
    before = {m.name: m.status()["active"]["sha256"] for m in fleet.instruments}
    number = deploy(fleet, release)
    members = fleet.wait_deployment(number, "halted")
    _check_untouched(fleet, members, "refused", before)
    _cancel(fleet, number)


def memory_hungry_model(fleet: DemoFleet, run: str) -> None:
    """Show the rollback of a model that passes the self-test and needs too much memory on live frames.

    Args:
        fleet: fleet of the demo.
        run: training run of the good model.
    """
    runner = fleet.runner
    text = "Every patch of a frame attends to every other one: this fits small golden frames, but not live frames."
    runner.step("A model that needs too much memory", text)
    bundle = _bad_bundle(fleet, run, "memory-hungry", "0.3.0", attentive(_side_on_grid(fleet, run)))
    runner.run("evaluate", str(bundle), *fleet.here)
    before = {m.name: m.status()["active"]["sha256"] for m in fleet.instruments}
    number = deploy(fleet, publish(fleet, bundle, "olga"))
    members = fleet.wait_deployment(number, "halted")
    rolled = _check_untouched(fleet, members, "rolled-back", before)
    fleet.numbers["recovery_s"] = _recovered(fleet, number)
    try:
        wait_for("segmented again", lambda: segmented_again(fleet, rolled["name"]), fleet.programs.check, _MINUTE_S)
    except NotInTime:
        say("  this machine is busy with new frames; the check is repeated after the cameras have stopped")
        fleet.resegmenting = rolled["name"]
    _cancel(fleet, number)


def _side_on_grid(fleet: DemoFleet, run: str) -> int:
    """The shorter side of live frames on the model's grid."""
    spec = ModelFolder.load(fleet.root / "runs" / run / "model").spec
    scene = min((i.scene for i in fleet.instruments), key=lambda s: s.side_px)
    return model_grid(spec, scene.side_px, scene.side_px, scene.pixel_size_um, "live frames").height


def _recovered(fleet: DemoFleet, number: int) -> float:
    """Seconds from the bad activation to the first frame that the previous version segmented."""
    found: list[float] = []

    def check() -> tuple[bool, str]:
        found[:] = [s for m in fleet.deployment(number)[1] if (s := m["update"].get("recovery_s")) is not None]
        return bool(found), f"recovered {found[0]:.1f} s after the bad activation" if found else ""

    wait_for("recovery", check, fleet.programs.check, 4 * _MINUTE_S)
    return found[0]


def segmented_again(fleet: DemoFleet, name: str) -> tuple[bool, str]:
    """Check whether the experiment of a bad version was segmented again, so that its older rows are superseded.

    Args:
        fleet: fleet of the demo.
        name: name of the instrument.

    Returns:
        The result, and a description of the state.
    """
    experiments = list(fleet.api.all(f"/api/v1/devices/{name}/experiments"))
    again = [e for e in experiments if e["pin"] > 1 and e["counts"]["superseded"]]
    lines = [f"{e['name']} has pin {e['pin']}, {e['counts']['superseded']} rows are superseded" for e in again]
    return bool(again), "; ".join(lines)


def _bad_bundle(fleet: DemoFleet, run: str, name: str, version: str, edit: Edit) -> Path:
    runs = fleet.root / "runs"
    make_model(runs / run / "model", runs / name / "model", version, edit)
    facts = fleet.runner.ask("bundle", "build", "--run", name, *fleet.here)
    return Path(facts["path"])


def _check_untouched(
    fleet: DemoFleet, members: list[dict[str, Any]], state: str, before: dict[str, str]
) -> dict[str, Any]:
    """Check that only the first instrument was offered the release, and that all run the same slots as before."""
    seen = [m for m in members if m["offered_at"]]
    if [m["state"] for m in seen] != [state]:
        raise FleetError(
            f"{', '.join(m['name'] + ' ' + m['state'] for m in seen)} instead of one instrument that is {state}"
        )
    after = {i.name: i.status()["active"]["sha256"] for i in fleet.instruments}
    if after != before:
        raise FleetError("an instrument does not run its previous slot")
    say(f"  {seen[0]['name']} {state}: {seen[0]['reason']}")
    say(f"  never offered to {', '.join(sorted(i.name for i in fleet.instruments if i.name != seen[0]['name']))}")
    return seen[0]


def _cancel(fleet: DemoFleet, number: int) -> None:
    with fleet.as_user("olga"):
        fleet.runner.run("deploy", "cancel", str(number), "--reason", "the model is withdrawn")


def faults(fleet: DemoFleet) -> None:
    """Kill a segmenter, and disconnect one instrument."""
    fleet.runner.step("Faults", "The demo kills a segmenter and disconnects one instrument for a while.")
    assert fleet.proxy is not None
    second, third = fleet.instrument(NAMES[1]), fleet.instrument(NAMES[2])
    segmented = second.status()["counters"]["segmented"]
    (pid, *_) = [p["pid"] for p in second.status()["pids"]["segmenters"]]
    os.kill(pid, signal.SIGKILL)
    say(f"  killed segmenter {pid} of {second.name}")
    fleet.proxy.cut()
    say(f"  cut the network of {third.name} for {OFFLINE_S:g} s")
    begun = time.monotonic()
    fleet.wait_instruments(
        f"segments again ({second.name})", [second.name], lambda s: s["counters"]["segmented"] > segmented + 1
    )
    while time.monotonic() - begun < OFFLINE_S:
        fleet.programs.check()
        time.sleep(0.2)
    behind = third.status()["health"]["spool_items"]
    fleet.proxy.restore()
    say(f"  restored; {behind} items wait on {third.name}")
    fleet.wait_instruments("has sent everything", [third.name], lambda s: s["health"]["spool_items"] <= 2)
