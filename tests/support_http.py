"""An Http port that answers as a test says, and keeps what was asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cellfleet.ports.http import Response, Stream


@dataclass(frozen=True)
class Asked:
    """One request; names of headers in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_s: float | None


@dataclass
class ScriptedHttp:
    """Gives ``answer(request)``."""

    answer: Callable[[Asked], Response]
    asked: list[Asked] = field(default_factory=list)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """As ``Http.request``."""
        self.asked.append(Asked(method, url, {k.lower(): v for k, v in (headers or {}).items()}, body, timeout_s))
        return self.answer(self.asked[-1])

    def stream(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> contextlib.AbstractContextManager[Stream]:
        """Nothing streams here."""
        raise NotImplementedError(url)
