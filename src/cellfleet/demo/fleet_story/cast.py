"""Who and what takes part in the story of the fleet: people, server, instruments."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellfleet.cli.common import say
from cellfleet.cli.fleet.client import TOKEN_VARIABLE, FleetClient
from cellfleet.config import Settings, load_project
from cellfleet.demo.fleet_story.cable import Cable
from cellfleet.demo.fleet_story.programs import Program, Programs
from cellfleet.demo.fleet_story.scenes import Scene
from cellfleet.demo.fleet_story.watch import deployment_line, wait_for
from cellfleet.demo.story import Story
from cellfleet.errors import DeviceError, FleetError

GROUP = "pilot"
NAMES = ("XYZ-001", "XYZ-002", "XYZ-003")
PEOPLE = {"vera": "viewer", "olga": "operator", "adam": "approver", "ada": "admin"}
SERVER_VARIABLE = "CELLFLEET_SERVER"


@dataclass
class Instrument:
    """One instrument of the story."""

    name: str
    home: Path
    scene: Scene
    program: Program | None = None

    def status(self) -> dict[str, Any]:
        """What its agent wrote last; empty while there is nothing yet."""
        try:
            found: dict[str, Any] = json.loads((self.home / "state" / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def troubles(self) -> list[str]:
        """What is wrong with it now, in words."""
        return [f"{self.name}: {problem}" for problem in self.status().get("health", {}).get("problems", ())]


@dataclass
class Cast:
    """What the chapters work with.

    Attributes:
        story: tells and runs commands.
        root: project folder.
        programs: server and instruments.
        settings: ``--set`` flags of the demo.
        tokens: API token by person.
        numbers: for the table at the end.
        again: instrument whose experiment has still to be segmented again; empty when there is none.
    """

    story: Story
    root: Path
    programs: Programs
    settings: tuple[str, ...] = ()
    instruments: list[Instrument] = field(default_factory=list)
    server: str = ""
    cable: Cable | None = None
    password: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    again: str = ""

    @property
    def here(self) -> tuple[str, ...]:
        """Flags by which commands find the project."""
        return ("-p", str(self.root), *(part for text in self.settings for part in ("--set", text)))

    @property
    def project(self) -> Settings:
        """The settings of the demo's project, with its flags."""
        return load_project(self.root, overrides=self.settings).settings

    @contextlib.contextmanager
    def as_person(self, name: str) -> Iterator[None]:
        """Commands in this block are that person's."""
        before = {key: os.environ.get(key) for key in (SERVER_VARIABLE, TOKEN_VARIABLE)}
        os.environ.update({SERVER_VARIABLE: self.server, TOKEN_VARIABLE: self.tokens[name]})
        say(f"({name}, {PEOPLE[name]})")
        try:
            yield
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    @property
    def api(self) -> FleetClient:
        """The server, for a viewer."""
        return FleetClient(self.server, self.tokens["vera"])

    def deployment(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A deployment and its members."""
        api = self.api
        return api.get(f"/api/v1/deployments/{number}"), list(api.all(f"/api/v1/deployments/{number}/members"))

    def wait_deployment(self, number: int, wanted: str, patience_s: float = 240.0) -> list[dict[str, Any]]:
        """Wait for the end or the halt of a deployment, a line for every change; returns its members.

        Raises:
            FleetError: it ends otherwise.
        """

        def look() -> tuple[bool, str]:
            deployment, members = self.deployment(number)
            troubles = [text for i in self.instruments for text in i.troubles()]
            line = "; ".join([deployment_line(deployment, members), *troubles])
            return deployment["state"] in ("halted", "succeeded", "cancelled"), line

        wait_for(f"deployment {number}", look, self.programs.check, patience_s)
        deployment, members = self.deployment(number)
        if deployment["halted_reason"]:
            say(f"  halted by itself: {deployment['halted_reason']}")
        if deployment["state"] != wanted:
            raise FleetError(
                f"deployment {number} is {deployment['state']}, not {wanted}", hint=f"read {self.root / 'logs'}"
            )
        return members

    def wait_instruments(self, what: str, names: Sequence[str], so: Any, patience_s: float = 120.0) -> float:
        """Wait until ``so(status)`` holds of the named instruments. Returns the seconds that it took.

        Raises:
            FleetError: it does not in time.
        """
        chosen = [i for i in self.instruments if i.name in names]

        def look() -> tuple[bool, str]:
            ready = [i.name for i in chosen if (s := i.status()) and so(s)]
            troubles = [text for i in chosen if i.name not in ready for text in i.troubles()]
            return len(ready) == len(chosen), "; ".join([f"{what}: {', '.join(ready) or 'none yet'}", *troubles])

        return wait_for(what, look, self.programs.check, patience_s)

    def instrument(self, name: str) -> Instrument:
        """One of them.

        Raises:
            DeviceError: there is no such one.
        """
        for i in self.instruments:
            if i.name == name:
                return i
        raise DeviceError(f"there is no instrument {name}", hint="this is a defect of the demo")
