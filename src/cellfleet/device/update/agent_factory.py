"""Composes an agent from HOME: for the agent's process, and for ``device install`` while no agent runs."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from cellfleet.config import Project
from cellfleet.device.server.client import ServerClient
from cellfleet.device.server.server_sync import ServerSync
from cellfleet.device.slots import Slots
from cellfleet.device.system.home import Home
from cellfleet.device.system.host_info import device_facts
from cellfleet.device.system.identity import Identity, load_identity
from cellfleet.device.update.actions import ActionContext
from cellfleet.device.update.agent import Agent, AgentPorts, News
from cellfleet.device.update.background_task import BackgroundTask
from cellfleet.device.update.journal import Journal
from cellfleet.device.update.status_reporter import AgentInfo, StatusReporter
from cellfleet.device.update.transitions import ActionResult
from cellfleet.device.update.update_source import UpdateSources
from cellfleet.errors import DeviceError
from cellfleet.ports import Clock
from cellfleet.ports.http import SystemHttp
from cellfleet.wire.telemetry_events import AgentMoved, Event, Incident

_LOG = logging.getLogger(__name__)


class LogSink:
    """Writes events to the log, on an instrument without a server."""

    def put(self, event: Event) -> None:
        """Log a transition or an incident; events of frames are in the results already."""
        if isinstance(event, AgentMoved | Incident):
            _LOG.info("%s", event.to_json().decode())

    def backlog(self) -> tuple[int, int]:
        """Unconfirmed items and bytes: none without a server."""
        return 0, 0


@dataclass(frozen=True)
class Composed:
    """An agent with its connections."""

    agent: Agent
    server_sync: ServerSync
    reporter: StatusReporter


@contextlib.contextmanager
def composed(
    home: Home,
    project: Project,
    clock: Clock,
    background: BackgroundTask[ActionResult],
    news: News,
    *,
    online: bool = True,
) -> Iterator[Composed]:
    """Compose an agent, and close its segmenters, sender and spool at the end.

    Args:
        home: HOME of this instrument.
        project: its settings.
        clock: time.
        background: runs long work.
        news: takes progress messages, one line each.
        online: connect to the server where there is one.

    Raises:
        DeviceError: HOME was not provisioned, or is damaged.
        StorageError: the disk refuses.
    """
    from cellfleet.device.scheduling.scheduler import FrameScheduler
    from cellfleet.device.server.spool import Spool
    from cellfleet.device.server.telemetry import Sender

    settings, identity = project.settings, identity_of(home)
    client = client_of(identity, project, clock)
    cancelled = threading.Event()
    with contextlib.ExitStack() as stack:
        sink: Spool | LogSink = LogSink()
        if client is not None:
            sink = Spool(home.spool_file, clock)
            stack.callback(sink.close)
            if online:
                sender = Sender(home, settings, sink, client, clock)
                sender.start()
                stack.callback(sender.close)
        facts = device_facts()
        server_sync = ServerSync(
            home, client if online else None, clock, retry_s=settings.agent.retry_s, incident=sink.put
        )
        scheduler = FrameScheduler(home, settings, sink, clock)
        stack.callback(scheduler.close)
        context = ActionContext(
            home=home,
            settings=settings,
            slots=Slots(home),
            scheduler=scheduler,
            clock=clock,
            engines=dict(facts.engines),
            source_of=UpdateSources(home, identity, client, settings.device, clock, cancelled),
            cancelled=cancelled,
        )
        agent = Agent(context, Journal(home), AgentPorts(server_sync, sink, background, news))
        info = AgentInfo(identity.record, f"boot-{secrets.token_hex(6)}", facts)
        yield Composed(agent, server_sync, StatusReporter(agent, server_sync, info, sink.backlog))


def identity_of(home: Home) -> Identity:
    """The identity of an instrument.

    Raises:
        DeviceError: it was not provisioned, or its identity is damaged.
    """
    identity = load_identity(home)
    if identity is None:
        raise DeviceError(
            f"{home.root} was not provisioned",
            hint="run `cellfleet device provision HOME --server URL --token TOKEN --name NAME` (or --alone)",
        )
    return identity


def client_of(identity: Identity, project: Project, clock: Clock) -> ServerClient | None:
    """The client of the fleet server. A server in the settings overrides that of the claim.

    Args:
        identity: signs the requests.
        project: settings of the instrument.
        clock: time.

    Returns:
        None on an instrument without a server.
    """
    device = project.settings.device
    url = device.server or identity.record.server
    return ServerClient(url, identity, SystemHttp(timeout_s=device.network_timeout_s), clock) if url else None
