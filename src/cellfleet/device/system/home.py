"""Paths in the folder of an instrument (docs/fleet.md, "The folder of an instrument")."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellfleet.config import PROJECT_FILE, Project, load_project
from cellfleet.errors import DeviceError


@dataclass(frozen=True)
class Home:
    """The folder of an instrument; its properties are paths and touch no files.

    Attributes:
        root: the folder, absolute.
    """

    root: Path

    @staticmethod
    def at(path: Path) -> Home:
        """The home at a path; the folder need not exist."""
        return Home(path.absolute())

    @property
    def project_file(self) -> Path:
        return self.root / PROJECT_FILE

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def trust(self) -> Path:
        return self.root / "trust"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def slots(self) -> Path:
        return self.root / "slots"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def status_file(self) -> Path:
        return self.state / "status.json"

    @property
    def camera_file(self) -> Path:
        """Heartbeat of the camera process: counts, state, reason."""
        return self.state / "camera.json"

    @property
    def camera_hold(self) -> Path:
        """While this file exists, the camera takes no frames (``device camera HOME stop``)."""
        return self.state / "camera-hold.json"

    @property
    def children_file(self) -> Path:
        """Processes that the launcher started: name -> process id."""
        return self.state / "children.json"

    @property
    def frames(self) -> Path:
        return self.root / "frames"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def spool_file(self) -> Path:
        return self.root / "spool" / "spool.db"

    @property
    def inhibit(self) -> Path:
        return self.root / "inhibit"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def run_lock(self) -> Path:
        """Locked by the launcher while the instrument runs."""
        return self.state / "run.lock"

    @property
    def agent_lock(self) -> Path:
        """Locked by the process that changes slots: the agent, or ``device install`` while no agent runs."""
        return self.state / "agent.lock"

    @property
    def requests(self) -> Path:
        """Requests of other programs to the running agent (``device install``)."""
        return self.state / "requests"

    def project(self, settings: tuple[str, ...] = ()) -> Project:
        """The instrument's settings.

        Raises:
            DeviceError: the folder is not an instrument.
            ConfigError: the project file is invalid.
        """
        if not self.project_file.is_file():
            raise DeviceError(
                f"{self.root} is not an instrument: it holds no {PROJECT_FILE}",
                hint="make one with `cellfleet device provision HOME ...`, or name the right folder",
            )
        return load_project(self.project_file, overrides=settings)
