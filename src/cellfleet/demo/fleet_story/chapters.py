"""The chapters from a bundle to three instruments and back, told with the commands that people would type."""

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
from cellfleet.demo.fleet_story import short_times
from cellfleet.demo.fleet_story.cable import Cable
from cellfleet.demo.fleet_story.cast import GROUP, NAMES, PEOPLE, Cast, Instrument
from cellfleet.demo.fleet_story.faulty_models import Edit, attentive, inverted, make_model
from cellfleet.demo.fleet_story.scenes import Scene
from cellfleet.demo.fleet_story.watch import NotInTime, wait_for
from cellfleet.errors import FleetError
from cellfleet.runtime.grid import model_grid

CHAPTERS = 8
AWAY_S = 12.0
_MINUTE_S = 60.0


def open_fleet(cast: Cast) -> None:
    """Trust roots, people, server."""
    story = cast.story
    story.chapter("Trust roots and the fleet server", "Keys are kept apart from serving; 2 of 3 root keys must sign.")
    print_table(
        "what is shorter or smaller here than in production",
        ["setting", "", "there", "here"],
        short_times.rows(cast.project),
    )
    story.run("trust", "init", "-p", str(cast.root))
    cast.password = secrets.token_urlsafe(9)
    for name, role in PEOPLE.items():
        flags = ("--role", role, "--password-stdin", "--token")
        cast.tokens[name] = story.ask("fleet", "user", "add", name, *flags, *cast.here, stdin=cast.password + "\n")[
            "token"
        ]
    program = cast.programs.start("server", ["fleet", "serve", "--tied", *cast.here])
    facts = cast.root / "serve.json"
    wait_for("the fleet server", lambda: (facts.is_file(), "the server starts"), program.check, _MINUTE_S)
    cast.server = str(json.loads(facts.read_bytes())["address"])
    say(f"pages: {cast.server}  (sign in as {', '.join(PEOPLE)}; the password is {cast.password})")


def open_instruments(cast: Cast, make_scene: Callable[[Path, int], Scene]) -> None:
    """Three instruments claim their places, are accepted, and begin to take frames."""
    story, root = cast.story, cast.root
    story.chapter(
        "Three instruments", "Camera, segmenter and agent, as processes of their own; each replays a time-lapse."
    )
    host, port = cast.server.rpartition("/")[2].split(":")
    cast.cable = Cable(host, int(port))
    for number, name in enumerate(NAMES, start=1):
        scene = make_scene(root / "scenes" / name, number)
        instrument = Instrument(name, root / "instruments" / name, scene)
        with cast.as_person("olga"):
            token = story.ask("fleet", "claim", "--note", f"the lab of {name}")["token"]
        server = cast.server if name != NAMES[2] else f"http://127.0.0.1:{cast.cable.port}"
        flags = [part for text in _settings(cast, instrument) for part in ("--set", text)]
        story.run(
            "device", "provision", str(instrument.home), "--server", server, "--token", token, "--name", name, *flags
        )
        instrument.program = cast.programs.start(name, ["device", "run", str(instrument.home), "--tied"])
        cast.instruments.append(instrument)
    with cast.as_person("olga"):
        story.run("fleet", "group", "add", GROUP)
        story.run("fleet", "accept", *NAMES, "--group", GROUP, "--reason", "their keys were compared on the phone")
    cast.wait_instruments("take frames", NAMES, lambda s: s["counters"]["taken"] > 0)


def _settings(cast: Cast, instrument: Instrument) -> list[str]:
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
    values |= short_times.of_instrument(cast.project, cast.settings)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def first_release(cast: Cast, bundle: Path) -> None:
    """The good bundle, in two phases."""
    story = cast.story
    story.chapter("Release and deploy, in two phases", "One instrument first; the others when it has proved itself.")
    release = publish(cast, bundle, "olga")
    number = deploy(cast, release)
    members = cast.wait_deployment(number, "succeeded")
    updates = [m["update"] for m in members]
    cast.numbers["update_s"] = max(u["update_s"] for u in updates)
    cast.numbers["activation_pause_s"] = max(u["activation_pause_s"] for u in updates)
    story.run("device", "status", str(cast.instrument(NAMES[0]).home))


def publish(cast: Cast, bundle: Path, who: str, *more: str) -> int:
    """Publish a bundle as somebody; returns the number of the release."""
    with cast.as_person(who):
        release = int(cast.story.ask("release", "publish", str(bundle), *cast.here, *more)["release"]["release_id"])
        cast.story.run("release", "show", str(release))
    return release


def deploy(cast: Cast, release: int) -> int:
    """Deploy in two phases; returns the number of the deployment."""
    flags = ("--group", GROUP, "--phase", "1", "--phase", "100%", "--soak-s", f"{short_times.SOAK_S:g}")
    with cast.as_person("olga"):
        facts = cast.story.ask("deploy", "start", str(release), *flags, "--reason", "the story of the demo")
    say(f"deployment {facts['id']}: {cast.server}/deployments/{facts['id']}")
    return int(facts["id"])


def nonsense(cast: Cast, run: str) -> None:
    """A model that draws nonsense is stopped twice: by the gate, and, forced past it, by an instrument's self-test."""
    story = cast.story
    story.chapter("A model that draws nonsense", "The sign of its heads is wrong; it loads and runs like any other.")
    bundle = _bad_bundle(cast, run, "nonsense", "0.2.0", inverted)
    story.must_end(ExitCode.FINDINGS, "evaluate", str(bundle), *cast.here)
    with cast.as_person("olga"):
        story.must_end(ExitCode.REFUSED, "release", "publish", str(bundle), *cast.here)
    say("the gate refuses it. It is forced past the gate, by somebody who may, with a reason:")
    release = publish(cast, bundle, "adam", "--override", "wanted for a demonstration, against the gate")
    before = {m.name: m.status()["active"]["sha256"] for m in cast.instruments}
    number = deploy(cast, release)
    members = cast.wait_deployment(number, "halted")
    _check_untouched(cast, members, "refused", before)
    _cancel(cast, number)


def greedy(cast: Cast, run: str) -> None:
    """A model that passes the self-test, and is slow and hungry on live frames: probation rolls it back."""
    story = cast.story
    text = "Every patch of a frame looks at every other one: fine on small golden frames, slow and hungry on live ones."
    story.chapter("A model that grows slow", text)
    bundle = _bad_bundle(cast, run, "greedy", "0.3.0", attentive(_side_on_grid(cast, run)))
    story.run("evaluate", str(bundle), *cast.here)
    before = {m.name: m.status()["active"]["sha256"] for m in cast.instruments}
    number = deploy(cast, publish(cast, bundle, "olga"))
    members = cast.wait_deployment(number, "halted")
    rolled = _check_untouched(cast, members, "rolled-back", before)
    cast.numbers["recovery_s"] = _recovered(cast, number)
    try:
        wait_for("segmented again", lambda: segmented_again(cast, rolled["name"]), cast.programs.check, _MINUTE_S)
    except NotInTime:
        say("  new frames keep this machine busy; it is looked at again when the cameras have stopped")
        cast.again = rolled["name"]
    _cancel(cast, number)


def _side_on_grid(cast: Cast, run: str) -> int:
    """The shorter side of live frames, as the network sees them."""
    spec = ModelFolder.load(cast.root / "runs" / run / "model").spec
    scene = min((i.scene for i in cast.instruments), key=lambda s: s.side_px)
    return model_grid(spec, scene.side_px, scene.side_px, scene.pixel_size_um, "live frames").height


def _recovered(cast: Cast, number: int) -> float:
    """Seconds from the bad activation to the first frame that the version before drew again."""
    found: list[float] = []

    def look() -> tuple[bool, str]:
        found[:] = [s for m in cast.deployment(number)[1] if (s := m["update"].get("recovery_s")) is not None]
        return bool(found), f"recovered {found[0]:.1f} s after the bad activation" if found else ""

    wait_for("recovery", look, cast.programs.check, 4 * _MINUTE_S)
    return found[0]


def segmented_again(cast: Cast, name: str) -> tuple[bool, str]:
    """Whether the experiment that a bad version began was drawn anew, so that its older rows are superseded."""
    experiments = list(cast.api.all(f"/api/v1/devices/{name}/experiments"))
    again = [e for e in experiments if e["pin"] > 1 and e["counts"]["superseded"]]
    lines = [f"{e['name']} has pin {e['pin']}, {e['counts']['superseded']} rows are superseded" for e in again]
    return bool(again), "; ".join(lines)


def _bad_bundle(cast: Cast, run: str, name: str, version: str, edit: Edit) -> Path:
    runs = cast.root / "runs"
    make_model(runs / run / "model", runs / name / "model", version, edit)
    facts = cast.story.ask("bundle", "build", "--run", name, *cast.here)
    return Path(facts["path"])


def _check_untouched(cast: Cast, members: list[dict[str, Any]], state: str, before: dict[str, str]) -> dict[str, Any]:
    """Only the first instrument has seen it; all of them run what they ran before."""
    seen = [m for m in members if m["offered_at"]]
    if [m["state"] for m in seen] != [state]:
        raise FleetError(f"{', '.join(m['name'] + ' ' + m['state'] for m in seen)} instead of one that is {state}")
    after = {i.name: i.status()["active"]["sha256"] for i in cast.instruments}
    if after != before:
        raise FleetError("an instrument does not run what it ran before")
    say(f"  {seen[0]['name']} {state}: {seen[0]['reason']}")
    say(f"  never offered to {', '.join(sorted(i.name for i in cast.instruments if i.name != seen[0]['name']))}")
    return seen[0]


def _cancel(cast: Cast, number: int) -> None:
    with cast.as_person("olga"):
        cast.story.run("deploy", "cancel", str(number), "--reason", "the model is withdrawn")


def troubles(cast: Cast) -> None:
    """A segmenter is killed, and one instrument's network is cut."""
    cast.story.chapter("Ordinary trouble", "A segmenter is killed, and one instrument loses its network for a while.")
    assert cast.cable is not None
    second, third = cast.instrument(NAMES[1]), cast.instrument(NAMES[2])
    drawn = second.status()["counters"]["segmented"]
    (pid, *_) = [p["pid"] for p in second.status()["pids"]["segmenters"]]
    os.kill(pid, signal.SIGKILL)
    say(f"  killed segmenter {pid} of {second.name}")
    cast.cable.cut()
    say(f"  cut the network of {third.name} for {AWAY_S:g} s")
    begun = time.monotonic()
    cast.wait_instruments(
        f"segments again ({second.name})", [second.name], lambda s: s["counters"]["segmented"] > drawn + 1
    )
    while time.monotonic() - begun < AWAY_S:
        cast.programs.check()
        time.sleep(0.2)
    behind = third.status()["health"]["spool_items"]
    cast.cable.mend()
    say(f"  mended; {behind} items wait on {third.name}")
    cast.wait_instruments("has told everything", [third.name], lambda s: s["health"]["spool_items"] <= 2)
