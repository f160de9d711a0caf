"""A filled fleet, and browsers without a window: clients that are signed in with a cookie and ask for pages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access
from cellfleet.fleet.store.models import User
from support_fleet import TestClient
from support_fleet_data import Filled, fill


@pytest.fixture
def filled(context: Context) -> Filled:
    """A fleet of eight instruments with short experiments and pictures."""
    return fill(context, 8, frames=6)


@dataclass
class Tab:
    """A browser's tab of somebody who is signed in."""

    http: TestClient
    csrf: str

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        """The answer to an address."""
        answer = self.http.get(path, headers=headers)
        assert answer.status_code == status, f"{path}: {answer.status_code}\n{answer.text[:3000]}"
        return answer

    def text(self, path: str, status: int = 200) -> str:
        """The page as text without tags."""
        return words(self.get(path, status).text)

    def post(self, path: str, status: int = 303, **fields: str) -> Any:
        """Send a form as the page would."""
        answer = self.http.post(path, data={"csrf": self.csrf, **fields}, follow_redirects=False)
        assert answer.status_code == status, f"{path}: {answer.status_code}\n{words(answer.text)[:3000]}"
        return answer


def words(page: str) -> str:
    """A page's text, spaces made one."""
    body = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", " ", page)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


@pytest.fixture
def tab(context: Context, client: TestClient) -> Callable[..., Tab]:
    """``tab("operator")``: a tab of a person with this role; ``language`` is what the browser prefers."""

    def opened(role: str, language: str = "en") -> Tab:
        with context.sessions() as db:
            user = db.query(User).filter_by(name=role).one_or_none()
            if user is None:
                user = User(name=role, password_hash="", role=role, disabled=False, created_at=context.clock.now())
                db.add(user)
                db.flush()
            cookie, row = access.open_session(db, context, user)
            csrf = row.csrf
        headers = {"accept": "text/html", "accept-language": language}
        http = TestClient(client.app, base_url="http://fleet.test", headers=headers)
        http.cookies.set(access.COOKIE, cookie)
        return Tab(http, csrf)

    return opened
