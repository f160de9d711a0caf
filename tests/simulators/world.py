"""One instrument in a simulated world: real agent, journal, slots and contact; simulated clock, network, frames, disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cellfleet.config import Settings
from cellfleet.config.fleet import AgentSection
from cellfleet.device.server.client import ServerClient
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.device.slots import Slots
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import DeviceRecord, Identity, load_or_make_key, local_id
from cellfleet.device.update.actions import ActionContext
from cellfleet.device.update.agent import Agent, AgentPorts
from cellfleet.device.update.background_task import InlineTask
from cellfleet.device.update.journal import Journal, Update
from cellfleet.device.update.status_reporter import AgentInfo, StatusReporter
from cellfleet.device.update.transitions import ActionResult
from cellfleet.device.update.update_source import UpdateSource
from cellfleet.errors import CellfleetError
from cellfleet.ports import FixedClock
from cellfleet.trust.artifact_download import Downloaded
from cellfleet.wire.enrol import DeviceFacts
from cellfleet.wire.states import DesiredState, MaintenanceWindow, ReleaseRef
from cellfleet.wire.telemetry_events import AgentMoved, Event, Incident
from simulators.disk import Disk, PowerCut
from simulators.scheduler import SimulatedScheduler
from simulators.server import URL, SimServer

FACTS = DeviceFacts(cellfleet_version="0.1.0", platform="simulated", engines={"onnxruntime": "1.0"})
FREE_MB = 50_000.0
"""What is free on its disk, whatever is free on the machine that runs the tests."""
AGENT = AgentSection(probation_frames=4, probation_s=3600, retry_s=5, keep_slots=2)


class SimSource:
    """Brings artifacts that lie in a folder, and raises what it is told to.

    Attributes:
        check_errors, fetch_errors: raised one after the other, before anything goes well.
    """

    def __init__(self, home: Home, artifacts: Mapping[str, Path]) -> None:
        self._home, self._artifacts = home, artifacts
        self.check_errors: list[CellfleetError] = []
        self.fetch_errors: list[CellfleetError] = []
        self.fetched = 0

    def check(self, update: Update, installed: Mapping[tuple[str, str], int]) -> None:
        """As ``Source.check``."""
        assert update.release.counter >= installed.get((update.release.kind, update.release.name), 0)
        if self.check_errors:
            raise self.check_errors.pop(0)

    def fetch(self, update: Update) -> Downloaded:
        """As ``Source.fetch``."""
        if self.fetch_errors:
            raise self.fetch_errors.pop(0)
        data = self._artifacts[update.release.sha256].read_bytes()
        target = self._home.downloads / update.release.sha256
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.fetched += 1
        return Downloaded(target, len(data))


class Sink:
    """Events, as they came."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def moves(self) -> list[tuple[str, str, str]]:
        """Transitions: from, event, to."""
        return [(e.source, e.trigger, e.target) for e in self.events if isinstance(e, AgentMoved)]

    def incidents(self) -> list[str]:
        """Kinds of incidents."""
        return [e.kind for e in self.events if isinstance(e, Incident)]


class World:
    """An instrument and everything around it; ``boot`` starts its agent from what lies on the disk.

    Args:
        artifacts: SHA-256 -> file, that the source has.
    """

    def __init__(self, root: Path, artifacts: Mapping[str, Path], agent: AgentSection = AGENT) -> None:
        self.home = Home.at(root)
        self.clock = FixedClock(datetime(2026, 3, 2, 12, 0, tzinfo=UTC), 1000.0)
        self.disk, self.server, self.work, self.sink = Disk(), SimServer(self.clock), SimulatedScheduler(), Sink()
        self.source: UpdateSource = SimSource(self.home, artifacts)
        self.settings = Settings(agent=agent)
        key = load_or_make_key(self.home)
        self.record = DeviceRecord(device_id=local_id(key), name="sim-1", server=URL, claimed_at=self.clock.now())
        self.identity = Identity(key, self.record)
        self.generation = 0
        self.boots = 0
        self.boot()

    def boot(self) -> None:
        """A new process of the agent."""
        self.boots += 1
        self.work.power_cut()
        client = ServerClient(URL, self.identity, self.server, self.clock)
        self.server_sync = ServerSync(
            self.home,
            client,
            self.clock,
            retry_s=self.settings.agent.retry_s,
            incident=self.sink.put,
            jitter=lambda: 0.5,
            write=self.disk.write,
        )
        context = ActionContext(
            home=self.home,
            settings=self.settings,
            slots=Slots(self.home, self.disk.write),
            scheduler=self.work,
            clock=self.clock,
            engines={"onnxruntime": "1.0"},
            source_of=lambda _: self.source,
            cancelled=threading.Event(),
        )
        background: InlineTask[ActionResult] = InlineTask()
        ports = AgentPorts(self.server_sync, self.sink, background, lambda _: None, lambda: 0.5, self.disk.write)
        self.agent = Agent(context, Journal(self.home, self.disk.write), ports)
        self.reporter = StatusReporter(
            self.agent,
            self.server_sync,
            AgentInfo(self.record, f"boot-{self.boots}", FACTS),
            lambda: (0, 0),
            lambda _: FREE_MB,
        )
        self.agent.start()

    def has_reported(self) -> bool:
        """The server knows how the latest update ended."""
        update = self.update
        return self.server_sync.has_reported(update.deployment_id, update.outcome, update.recovery_s)

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes, the agent looks once, and talks with the server."""
        self.clock.at += timedelta(seconds=seconds)
        self.clock.elapsed_s += seconds
        self.server_sync.step()
        self.agent.tick()
        self.reporter.report(self.clock.now())
        self.check()

    def run(self, until: Callable[[], bool], ticks: int = 400, seconds: float = 1.0) -> None:
        """Tick until something is so; the power may be cut on the way, then the machine starts again."""
        for _ in range(ticks):
            try:
                self.tick(seconds)
            except PowerCut:
                self.disk.cut_at(0, "before")
                self.boot()
                self.check()
            if until():
                return
        raise AssertionError(f"not so after {ticks} ticks: {self.agent.journal.entry}")

    def desire(
        self,
        release: ReleaseRef | None,
        deployment_id: int | None = None,
        window: MaintenanceWindow | None = None,
        **agent: float,
    ) -> None:
        """What the server wants from now on."""
        self.generation += 1
        self.server.desired = DesiredState(
            device_id=self.record.device_id,
            generation=self.generation,
            deployment_id=deployment_id if deployment_id is not None else self.generation,
            release=release,
            window=window,
            agent=dict(agent),
            poll_s=1,
        )

    def check(self) -> None:
        """What holds at any moment: the pointer names whole slots that were tested here, or nothing."""
        slots = Slots(self.home)
        for role in ("active", "previous"):
            sha256 = getattr(slots.pointer, role)
            slot = slots.intact(sha256)
            assert not sha256 or slot is not None, f"the {role} slot is not whole"
            assert slot is None or ("selftest" in slot.numbers and slot.variant), f"the {role} slot was not tested"

    @property
    def update(self) -> Update:
        """The latest update."""
        update = self.agent.journal.entry.update
        assert update is not None
        return update

    @property
    def active(self) -> str:
        """SHA-256 of the active slot."""
        return self.agent.context.slots.pointer.active

    def idle(self) -> bool:
        """The latest update has ended."""
        entry = self.agent.journal.entry
        return entry.state == "idle" and entry.update is not None and entry.update.settled


def release_of(sha256: str, version: str, counter: int, length: int) -> ReleaseRef:
    """A release of a tiny bundle."""
    return ReleaseRef(
        release_id=counter,
        name="tiny",
        version=version,
        counter=counter,
        target_path=f"models/tiny/{version}/{sha256[:12]}.bundle.zip",
        sha256=sha256,
        length=length,
    )
