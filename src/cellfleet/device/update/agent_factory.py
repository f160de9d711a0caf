"""An agent put together out of what lies in HOME: for its own process, and for ``device install`` while none runs."""

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
from cellfleet.device.update.status_reporter import Self, StatusReporter
from cellfleet.device.update.transitions import ActionResult
from cellfleet.device.update.update_sources import UpdateSources
from cellfleet.errors import DeviceError
from cellfleet.ports import Clock
from cellfleet.ports.http import SystemHttp
from cellfleet.wire.events import AgentMoved, Event, Incident

_LOG = logging.getLogger(__name__)


class LogSink:
    """Events of an instrument without a server: the log has them."""

    def put(self, event: Event) -> None:
        """Write a line; what is told of every frame is in the results already."""
        if isinstance(event, AgentMoved | Incident):
            _LOG.info("%s", event.to_json().decode())

    def backlog(self) -> tuple[int, int]:
        """Nothing waits for anybody."""
        return 0, 0


@dataclass(frozen=True)
class Composed:
    """An agent, and what it talks through."""

    agent: Agent
    contact: ServerSync
    teller: StatusReporter
    retry_s: float


@contextlib.contextmanager
def composed(
    home: Home,
    project: Project,
    clock: Clock,
    errands: BackgroundTask[ActionResult],
    news: News,
    *,
    online: bool = True,
) -> Iterator[Composed]:
    """Put an agent together, and take it apart at the end: segmenters, sender and spool are closed.

    Args:
        online: talk with the server where there is one.

    Raises:
        DeviceError: HOME was not provisioned, or is damaged.
        StorageError: the disk refuses.
    """
    from cellfleet.device.scheduling.scheduler import open_scheduler
    from cellfleet.device.server import telemetry
    from cellfleet.device.server.spool import Spool

    settings, identity = project.settings, identity_of(home)
    client = client_of(identity, project, clock)
    cancelled = threading.Event()
    with contextlib.ExitStack() as stack:
        sink: Spool | LogSink = LogSink()
        if client is not None:
            sink = Spool(home.spool_file, clock)
            stack.callback(sink.close)
            if online:
                stack.callback(telemetry.start(home, settings, sink, client, clock).close)
        facts = device_facts()
        contact = ServerSync(home, client if online else None, clock, retry_s=settings.agent.retry_s, incident=sink.put)
        work = open_scheduler(home, settings, sink, clock)
        stack.callback(work.close)
        tools = ActionContext(
            home=home,
            settings=settings,
            slots=Slots(home),
            work=work,
            clock=clock,
            engines=dict(facts.engines),
            source_of=UpdateSources(home, identity, client, settings.device, clock, cancelled),
            cancelled=cancelled,
        )
        agent = Agent(tools, Journal(home), AgentPorts(contact, sink, errands, news))
        me = Self(identity.record, f"boot-{secrets.token_hex(6)}", facts)
        yield Composed(agent, contact, StatusReporter(agent, contact, me, sink.backlog), settings.agent.retry_s)


def identity_of(home: Home) -> Identity:
    """Who the instrument is.

    Raises:
        DeviceError: it was not provisioned, or is damaged.
    """
    identity = load_identity(home)
    if identity is None:
        raise DeviceError(
            f"{home.root} was not provisioned",
            hint="run `cellfleet device provision HOME --server URL --token TOKEN --name NAME` (or --alone)",
        )
    return identity


def client_of(identity: Identity, project: Project, clock: Clock) -> ServerClient | None:
    """The way to the server; None in a fleet of one. A server named in the settings comes before that of the claim."""
    device = project.settings.device
    url = device.server or identity.record.server
    return ServerClient(url, identity, SystemHttp(timeout_s=device.network_timeout_s), clock) if url else None
