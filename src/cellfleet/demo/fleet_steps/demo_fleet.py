"""The fleet of the demo: users, server, instruments."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellfleet.cli.common import say
from cellfleet.cli.fleet.client import TOKEN_VARIABLE, FleetClient
from cellfleet.config import Settings, load_project
from cellfleet.demo.command_runner import CommandRunner
from cellfleet.demo.fleet_steps.background_programs import Program, Programs
from cellfleet.demo.fleet_steps.breakable_proxy import BreakableProxy
from cellfleet.demo.fleet_steps.camera_scenes import Scene
from cellfleet.demo.fleet_steps.waiting import deployment_line, wait_for
from cellfleet.errors import DeviceError, FleetError

GROUP = "pilot"
NAMES = ("XYZ-001", "XYZ-002", "XYZ-003")
USERS = {"vera": "viewer", "olga": "operator", "adam": "approver", "ada": "admin"}
SERVER_VARIABLE = "CELLFLEET_SERVER"


@dataclass
class Instrument:
    """One instrument of the demo."""

    name: str
    home: Path
    scene: Scene
    program: Program | None = None

    def status(self) -> dict[str, Any]:
        """The latest status that its agent wrote; empty if there is none."""
        try:
            found: dict[str, Any] = json.loads((self.home / "state" / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def problems(self) -> list[str]:
        """Its current problems."""
        return [f"{self.name}: {problem}" for problem in self.status().get("health", {}).get("problems", ())]


@dataclass
class DemoFleet:
    """State of the fleet, shared by the steps.

    Attributes:
        runner: prints steps and runs commands.
        root: project folder.
        programs: server and instruments.
        settings: ``--set`` flags of the demo.
        tokens: API token by user.
        numbers: numbers of the final table.
        resegmenting: instrument whose experiment must still be segmented again; empty: none.
    """

    runner: CommandRunner
    root: Path
    programs: Programs
    settings: tuple[str, ...] = ()
    instruments: list[Instrument] = field(default_factory=list)
    server: str = ""
    proxy: BreakableProxy | None = None
    password: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    resegmenting: str = ""

    @property
    def here(self) -> tuple[str, ...]:
        """Flags with which commands find the project."""
        return ("-p", str(self.root), *(part for text in self.settings for part in ("--set", text)))

    @property
    def project(self) -> Settings:
        """The settings of the demo's project, including its flags."""
        return load_project(self.root, overrides=self.settings).settings

    @contextlib.contextmanager
    def as_user(self, name: str) -> Iterator[None]:
        """Run the commands in this block as this user."""
        before = {key: os.environ.get(key) for key in (SERVER_VARIABLE, TOKEN_VARIABLE)}
        os.environ.update({SERVER_VARIABLE: self.server, TOKEN_VARIABLE: self.tokens[name]})
        say(f"({name}, {USERS[name]})")
        try:
            yield
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    @property
    def api(self) -> FleetClient:
        """An API client with the token of the viewer."""
        return FleetClient(self.server, self.tokens["vera"])

    def deployment(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A deployment and its members."""
        api = self.api
        return api.get(f"/api/v1/deployments/{number}"), list(api.all(f"/api/v1/deployments/{number}/members"))

    def wait_deployment(self, number: int, wanted: str, timeout_s: float = 240.0) -> list[dict[str, Any]]:
        """Wait until a deployment ends or halts; print a line for every change.

        Args:
            number: number of the deployment.
            wanted: state in which it must end.
            timeout_s: limit of the wait, seconds.

        Returns:
            Its members.

        Raises:
            FleetError: it ended in another state, or the time is over.
        """

        def check() -> tuple[bool, str]:
            deployment, members = self.deployment(number)
            problems = [text for i in self.instruments for text in i.problems()]
            line = "; ".join([deployment_line(deployment, members), *problems])
            return deployment["state"] in ("halted", "succeeded", "cancelled"), line

        wait_for(f"deployment {number}", check, self.programs.check, timeout_s)
        deployment, members = self.deployment(number)
        if deployment["halted_reason"]:
            say(f"  halted: {deployment['halted_reason']}")
        if deployment["state"] != wanted:
            raise FleetError(
                f"deployment {number} is {deployment['state']}, not {wanted}", hint=f"read {self.root / 'logs'}"
            )
        return members

    def wait_instruments(
        self, what: str, names: Sequence[str], condition: Callable[[dict[str, Any]], bool], timeout_s: float = 120.0
    ) -> float:
        """Wait until a condition holds for instruments.

        Args:
            what: description for the output and the error.
            names: names of the instruments.
            condition: condition on an instrument's status.
            timeout_s: limit of the wait, seconds.

        Returns:
            Seconds waited.

        Raises:
            FleetError: the condition was not met in time.
        """
        chosen = [i for i in self.instruments if i.name in names]

        def check() -> tuple[bool, str]:
            ready = [i.name for i in chosen if (s := i.status()) and condition(s)]
            problems = [text for i in chosen if i.name not in ready for text in i.problems()]
            return len(ready) == len(chosen), "; ".join([f"{what}: {', '.join(ready) or 'none yet'}", *problems])

        return wait_for(what, check, self.programs.check, timeout_s)

    def instrument(self, name: str) -> Instrument:
        """The instrument with this name.

        Raises:
            DeviceError: there is none.
        """
        for i in self.instruments:
            if i.name == name:
                return i
        raise DeviceError(f"there is no instrument {name}", hint="this is a defect of the demo")
