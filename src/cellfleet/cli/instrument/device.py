"""``cellfleet device``: provision, run and inspect an instrument."""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from cellfleet.cli.common import JsonOption, out_console, print_json, print_table, say, stop
from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.instrument.provision import provision
from cellfleet.device import Home
from cellfleet.errors import DeviceError
from cellfleet.ports import SystemClock, write_atomic

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.command("provision")(provision)

HomeArgument = Annotated[Path, typer.Argument(metavar="HOME", help="Folder of the instrument.")]
_HOLD = "operator"


@app.command("run")
def run(
    home: HomeArgument,
    tied: Annotated[bool, typer.Option("--tied", help="End when standard input ends.")] = False,
) -> None:
    """Run the instrument (camera, segmenters and agent) until Ctrl-C or SIGTERM."""
    from cellfleet.device.launcher import Launcher
    from cellfleet.device.update.agent_factory import identity_of

    place, clock = Home.at(home), SystemClock()
    place.project()
    record = identity_of(place).record
    lock = threading.Lock()

    def print_line(who: str, text: str) -> None:
        with lock:
            try:
                sys.stdout.write(f"{clock.now().astimezone():%H:%M:%S} {who}: {text}\n")
                sys.stdout.flush()
            except (OSError, ValueError):
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # the reader has ended; keep running

    launcher = Launcher(place, clock, print_line)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        launcher.stop()

    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    if tied:
        threading.Thread(target=_stop_at_end_of_input, args=(launcher.stop,), daemon=True).start()
    print_line(record.name, f"starts ({place.root}); Ctrl-C ends it")
    launcher.run()
    print_line(record.name, "ended")


@app.command("status")
def status(
    home: HomeArgument,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
) -> None:
    """Show the status of the instrument. Exit 0: it runs, 1: it does not run."""
    from cellfleet.device.update.status_file import read_status, status_lines

    place, clock = Home.at(home), SystemClock()
    place.project()
    while True:
        found = read_status(place, clock.now())
        if as_json:
            print_json({"running": found.running, "age_s": found.age_s, **found.facts})
        else:
            if watch:
                out_console().clear()
            for name, text in status_lines(found):
                say(f"{name:<11} {text}")
        if not watch:
            break
        try:
            threading.Event().wait(1.0)
        except KeyboardInterrupt:
            return
    if not found.running:
        stop(ExitCode.FINDINGS)


@app.command("doctor")
def doctor(home: HomeArgument, as_json: JsonOption = False) -> None:
    """Check disk, clock, engines, server, trust, key, slots, camera and spool. Exit 0: no problem, 1: a check failed."""
    from cellfleet.device.doctor import examine

    place = Home.at(home)
    findings = examine(place, place.project(), SystemClock())
    if as_json:
        print_json([vars(f) for f in findings])
    else:
        print_table("", ("what", "", "found", "to do"), [(f.what, f.grade, f.text, f.advice) for f in findings])
    if any(f.grade == "bad" for f in findings):
        stop(ExitCode.FINDINGS)


@app.command("install")
def install(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE|FOLDER", help="Folder of `trust export`, or a bundle in it.")
    ],
    home: HomeArgument,
    as_json: JsonOption = False,
) -> None:
    """Install a bundle from a folder, with the same checks as from a server."""
    from cellfleet.device.update.install import install as install_from

    place = Home.at(home)
    news = (lambda _: None) if as_json else say
    done = install_from(place, place.project(), bundle, SystemClock(), news)
    label = f"{done.release.name} {done.release.version}"
    if as_json:
        print_json({"name": done.release.name, "version": done.release.version, "sha256": done.release.sha256,
                    "outcome": done.outcome, "reason": done.reason})  # fmt: skip
    if done.outcome not in ("succeeded", "probation"):
        raise DeviceError(f"{label}: {done.outcome}: {done.reason}", hint="the previous slot, if any, stays in use")
    if not as_json:
        say(f"{label}: {done.outcome}; {done.reason}")


@app.command("hold")
def hold(
    home: HomeArgument,
    reason: Annotated[str, typer.Option("--reason", help="Reason for the block.")],
    hours: Annotated[float, typer.Option("--hours", min=0.01, max=24 * 31, help="Maximum duration.")] = 12.0,
) -> None:
    """Block the activation of updates for a limited time; `release-hold` ends the block early."""
    from cellfleet.device.camera.inhibit_lease import Lease, write_lease

    place = Home.at(home)
    place.project()
    until = SystemClock().now() + timedelta(hours=hours)
    write_lease(place.inhibit, _HOLD, Lease(holder=_user(), reason=reason, expires_at=until))
    say(f"updates are blocked until {until.astimezone():%Y-%m-%d %H:%M}: {reason}")


@app.command("release-hold")
def release_hold(home: HomeArgument) -> None:
    """End the block that `hold` started."""
    from cellfleet.device.camera.inhibit_lease import drop_lease

    place = Home.at(home)
    place.project()
    drop_lease(place.inhibit, _HOLD)
    say("the operator's block of updates is removed")


@app.command("camera")
def camera(
    home: HomeArgument,
    action: Annotated[
        Literal["stop", "start"],
        typer.Argument(help="stop: end the experiment and take no frames; start: take frames again."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason, shown in the status.")] = "",
) -> None:
    """Stop or start the camera; frames already taken are still segmented."""
    import json

    place = Home.at(home)
    place.project()
    if action == "start":
        place.camera_hold.unlink(missing_ok=True)
        say("the camera takes frames while the instrument runs")
        return
    facts = {"format_version": 1, "holder": _user(), "reason": reason, "at": SystemClock().now().isoformat()}
    write_atomic(place.camera_hold, json.dumps(facts).encode())
    say("the camera ends its experiment and takes no frames until `cellfleet device camera HOME start`")


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"


def _stop_at_end_of_input(end: object) -> None:
    assert callable(end)
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    except (OSError, ValueError):
        pass
    end()
