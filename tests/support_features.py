"""Messages as a later version would have them: a field of the feature ``tests``, which today's programs do not know."""

from __future__ import annotations

from typing import Annotated

from cellfleet.wire.features import Since
from cellfleet.wire.states import DesiredState, Health, ReportedState
from cellfleet.wire.telemetry_events import Incident

FEATURE = "tests"


class NewerIncident(Incident):
    """An event with a newer field."""

    detail: Annotated[str, Since(FEATURE)] = ""


class NewerHealth(Health):
    """A part of a report with a newer field."""

    temperature_c: Annotated[float | None, Since(FEATURE)] = None


class NewerReport(ReportedState):
    """A report with a newer part."""

    health: NewerHealth = NewerHealth()


class NewerDesired(DesiredState):
    """A desired state with a newer field."""

    note: Annotated[str, Since(FEATURE)] = "from a newer server"
