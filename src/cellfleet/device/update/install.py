"""``device install``: installs a bundle from an offline folder, with the same checks as one from a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellfleet.canonical import sha256_file
from cellfleet.config import Project
from cellfleet.device.system.file_lock import held, is_held
from cellfleet.device.system.home import Home
from cellfleet.device.update.agent_factory import composed, identity_of
from cellfleet.device.update.background_task import InlineTask
from cellfleet.device.update.install_requests import InstallRequest, drop_request, put_request, request_name
from cellfleet.device.update.status_file import read_status
from cellfleet.device.update.update_source import FolderSource
from cellfleet.errors import DeviceError
from cellfleet.ports import Clock
from cellfleet.wire.reason import english
from cellfleet.wire.states import ArtifactRef

_POLL_S = 0.3
_MAX_TICKS = 10_000
News = Callable[[str], None]


@dataclass(frozen=True)
class Installed:
    """Result of an installation.

    Attributes:
        outcome: of the update; ``probation`` while the release is active and on probation.
    """

    release: ArtifactRef
    outcome: str
    reason: str


def find_folder(path: Path) -> tuple[Path, str]:
    """Find the exported folder that a path belongs to.

    Args:
        path: the folder, or a bundle in it.

    Returns:
        The folder, absolute, and the SHA-256 of the bundle; empty when ``path`` is the folder.

    Raises:
        DeviceError: there is no such file, or no signed metadata beside it.
    """
    if path.is_dir():
        folder, sha256 = path, ""
    elif path.is_file():
        sha256 = sha256_file(path)
        folder = next((f for f in path.absolute().parents if (f / "image").is_dir()), path.parent)
    else:
        raise DeviceError(f"{path} is neither a file nor a folder", hint="check the spelling of the path")
    if not (folder / "image").is_dir() or not (folder / "director").is_dir():
        raise DeviceError(
            f"{folder} holds no signed metadata (image/ and director/), so it cannot be trusted",
            hint="make a folder with `cellfleet trust export` and name it, or the bundle within it",
        )
    return folder.absolute(), sha256


def choose_release(home: Home, project: Project, folder: Path, sha256: str, clock: Clock) -> ArtifactRef:
    """Choose the release to install from an offline folder.

    Args:
        home: HOME of this instrument.
        project: its settings.
        folder: as ``trust export`` wrote it.
        sha256: of the wanted bundle; empty: the newest one.
        clock: for the expiry of the metadata.

    Returns:
        The release; the newest of several.

    Raises:
        TrustError: the folder cannot be trusted.
        DeviceError: it holds no release for this instrument.
    """
    identity = identity_of(home)
    source = FolderSource(home, folder, identity.device_id, project.settings.device, clock)
    offered = source.offered()
    chosen = [r for r in offered if sha256 in ("", r.sha256)]
    if not chosen:
        names = ", ".join(f"{r.name} {r.version}" for r in offered) or "no models"
        raise DeviceError(
            f"{folder}: that bundle is not for {identity.record.name}; the folder holds {names}",
            hint=f"export for this instrument: `cellfleet trust export` with device id {identity.device_id}",
        )
    return chosen[-1]


def install(
    home: Home,
    project: Project,
    path: Path,
    clock: Clock,
    news: News,
    *,
    timeout_s: float = 1800.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Installed:
    """Install a bundle from an offline folder: through the agent when it runs, else in this process.

    Args:
        home: HOME of this instrument.
        project: its settings.
        path: the folder, or a bundle in it.
        clock: time.
        news: takes progress messages, one line each.
        timeout_s: longest wait for the running agent.
        sleep: waits between two polls, seconds.

    Returns:
        The release and its outcome.

    Raises:
        TrustError: the folder cannot be trusted; nothing was started.
        DeviceError: the folder holds no release for this instrument, or the agent does not finish in time and continues.
    """
    folder, sha256 = find_folder(path)
    release = choose_release(home, project, folder, sha256, clock)
    now = clock.now()
    request = InstallRequest(name=request_name(now), folder=str(folder), release=release, asked_at=now)
    news(f"{release.name} {release.version} is named by both repositories of {folder}")
    if is_held(home.agent_lock):
        news("the agent is running and installs it")
        put_request(home, request)
        return _wait_for_agent(home, request, clock, news, timeout_s, sleep)
    with held(home.agent_lock, "`cellfleet device install`"):
        put_request(home, request)
        try:
            return _install_here(home, project, request, clock, news, sleep)
        finally:
            drop_request(home, request.name)


def _install_here(
    home: Home,
    project: Project,
    request: InstallRequest,
    clock: Clock,
    news: News,
    sleep: Callable[[float], None],
) -> Installed:
    """Run the agent's steps in this process, without frames; probation continues when the instrument runs."""
    with composed(home, project, clock, InlineTask(), news, online=False) as parts:
        agent = parts.agent
        agent.start()
        for _ in range(_MAX_TICKS):
            agent.tick()
            parts.reporter.report(clock.now())
            if agent.problems:
                raise DeviceError(
                    "; ".join(english(p) for p in agent.problems), hint="solve that, then run the same command again"
                )
            update = agent.journal.entry.update
            if update is None or update.request != request.name:
                if agent.state != "idle":
                    raise DeviceError(
                        f"another update is not finished (state {agent.state})",
                        hint="start the instrument (`cellfleet device run HOME`), then install again",
                    )
            elif agent.state == "probation":
                return Installed(request.release, "probation", "it is active and on probation")
            elif agent.state == "idle" and update.outcome != "running":
                return Installed(request.release, update.outcome, english(update.reason))
            elif agent.state == "idle":
                return Installed(request.release, "failed", english(update.reason))
            elif agent.reason:
                news(english(agent.reason))
                sleep(1.0)
    raise DeviceError("the installation does not finish", hint="see `cellfleet device status HOME`")


def _wait_for_agent(
    home: Home,
    request: InstallRequest,
    clock: Clock,
    news: News,
    timeout_s: float,
    sleep: Callable[[float], None],
) -> Installed:
    deadline = clock.monotonic_s() + timeout_s
    reported = ""
    while clock.monotonic_s() < deadline:
        status = read_status(home, clock.now())
        update = status.facts.get("update") or {}
        if update.get("request") == request.name:
            text = f"{update['state']}: {update['reason']}" if update["reason"] else update["state"]
            if text != reported:
                news(text)
                reported = text
            if update["settled"]:
                return Installed(request.release, update["outcome"], update["reason"])
        sleep(_POLL_S)
    raise DeviceError(
        f"the agent has not finished within {timeout_s:.0f} s; it continues",
        hint="see `cellfleet device status HOME`; a lease or a maintenance window may defer the update",
    )
