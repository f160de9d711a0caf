"""Templates to answers: one Jinja environment, what every template can use, ETags, static files with their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import ChainableUndefined, Environment, FileSystemLoader, StrictUndefined
from jinja2.utils import missing
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from cellfleet._version import __version__
from cellfleet.fleet.context import Context
from cellfleet.fleet.pages import formatting
from cellfleet.fleet.pages.charts import MEMBER_STATES, member_bar
from cellfleet.fleet.pages.i18n import LANGUAGES, Translator
from cellfleet.fleet.people.access import Person

STATIC = Path(str(resources.files("cellfleet.fleet").joinpath("static")))
TEMPLATES = Path(str(resources.files("cellfleet.fleet").joinpath("templates")))
LANGUAGE_COOKIE = "cellfleet_language"
DONE: Mapping[str, str] = {
    "accepted": formatting.N_("The instrument is accepted. It requests its first release within a minute."),
    "rejected": formatting.N_("The instrument is rejected."),
    "revoked": formatting.N_("The instrument is revoked. Its tokens are no longer valid."),
    "changed": formatting.N_("The change is saved."),
    "made": formatting.N_("Created."),
    "started": formatting.N_("The deployment is created."),
    "approved": formatting.N_("The deployment is approved."),
    "halted": formatting.N_("The deployment is halted. The release is not offered to more instruments."),
    "resumed": formatting.N_("The deployment is resumed."),
    "cancelled": formatting.N_("The deployment is cancelled."),
    "withdrawn": formatting.N_("The release is withdrawn. New deployments cannot use it."),
    "signed-out": formatting.N_("You are signed out."),
}
"""Message after a form, by the value of ``done`` in the address."""


class Lenient(ChainableUndefined):
    """A field that a message does not have is empty; a name that no template should use is an error."""

    def __new__(cls, hint: str | None = None, obj: Any = missing, name: str | None = None, *more: Any) -> Any:
        if obj is missing:
            return StrictUndefined(hint, obj, name, *more)
        return super().__new__(cls)


@cache
def environment() -> Environment:
    """The templates. Texts are escaped."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=Lenient,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters["at"] = parsed_time
    return env


@cache
def static_address(name: str) -> str:
    """The address of a static file; it changes with its content, so browsers can cache the file permanently."""
    data = (STATIC / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(data).hexdigest()[:12]}"


def parts_there() -> bool:
    """The JavaScript libraries were fetched when this was installed."""
    return (STATIC / "vendor" / "htmx.org" / "htmx.min.js").is_file() and (
        STATIC / "vendor" / "echarts" / "echarts.common.min.js"
    ).is_file()


def parsed_time(value: Any) -> datetime | None:
    """A time of a message (ISO 8601) as a datetime in UTC; None when it is none."""
    if isinstance(value, datetime):
        return value
    try:
        at = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def json_for_script(value: Any) -> Markup:
    """JSON that can stand inside a script element of type application/json."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@dataclass(frozen=True)
class Shared:
    """What all templates get from the request."""

    request: Request
    context: Context
    person: Person | None
    language: Translator
    pending: int = 0

    def values(self) -> dict[str, Any]:
        """Names for a template."""
        _, query = self.language, dict(self.request.query_params)
        query.pop("lang", None)
        done = DONE.get(query.pop("done", ""))
        now = self.context.clock.now()
        return {
            "_": _,
            "plural": _.plural,
            "languages": LANGUAGES,
            "person": self.person,
            "version": __version__,
            "csrf_token": self.person.csrf if self.person else "",
            "parts": parts_there(),
            "static": static_address,
            "pending_count": self.pending,
            "flash": {"tone": "good", "text": _(done)} if done else None,
            "in_language": lambda code: self.address(lang=code, part=None, done=None),
            "here_with": self.address,
            "state": formatting.state,
            "stage_words": formatting.STAGES,
            "member_bar": member_bar,
            "member_states": MEMBER_STATES,
            "number_words": formatting.NUMBERS,
            "link_words": formatting.LINKS,
            "fact_words": formatting.FACTS,
            "action_words": formatting.ACTIONS,
            "fact": formatting.fact_text,
            "record_fact": lambda name, value: formatting.record_text(name, value, _),
            "check_word": lambda name: formatting.check_text(name, _),
            "role_word": lambda r: _(formatting.ROLES.get(r, r)),
            "when": lambda at: formatting.when_text(at, _),
            "since": lambda at: formatting.ago_text(at, now, _),
            "size": formatting.size_text,
            "number": formatting.number_text,
            "duration": lambda s: formatting.duration_text(s, _),
            "reason_text": lambda reason: formatting.reason_text(reason, _),
            "stored_reason": lambda text, data: formatting.stored_reason_text(text, data, _),
            "flag_word": lambda name: _(formatting.FLAGS.get(name, name)),
            "without_reason": lambda detail: {k: v for k, v in detail.items() if k != "reason_data"},
            "json_for_script": json_for_script,
            "now": now,
            "may": lambda role: bool(self.person and self.person.may(role)),
        }

    def address(self, **changes: Any) -> str:
        """The address of this page with some of its query changed; None takes a name away."""
        query = dict(self.request.query_params)
        for name, value in changes.items():
            query.pop(name, None)
            if value not in (None, ""):
                query[name] = str(value)
        path = self.request.url.path
        return f"{path}?{urlencode(query)}" if query else path


def answer(shared: Shared, template: str, status: int = 200, **values: Any) -> Response:
    """Render a template. A page that did not change since the browser last saw it is answered with 304."""
    text = environment().get_template(template).render(**shared.values(), **values)
    data = text.encode()
    headers = {
        "Cache-Control": "private, no-cache",
        "Vary": "Cookie, Accept-Language",
        "Content-Language": shared.language.language,
    }
    if status == 200:
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if shared.request.method == "GET" and shared.request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
    response = Response(data, status_code=status, media_type="text/html; charset=utf-8", headers=headers)
    asked = shared.request.query_params.get("lang", "")
    if asked in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, asked, max_age=31536000, samesite="lax", httponly=True)
    return response
