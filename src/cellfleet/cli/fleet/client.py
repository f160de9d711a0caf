"""API client of the command line: ``--server`` and ``CELLFLEET_API_TOKEN``, or the credentials of ``fleet login``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import typer

from cellfleet.api_client import ApiClient
from cellfleet.api_client.client import FixedHeaders
from cellfleet.errors import ConfigError, FleetError
from cellfleet.ports import write_atomic
from cellfleet.ports.http import Http, Response, SystemHttp

ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="CELLFLEET_SERVER",
        metavar="URL",
        help="The fleet server (default: the server of `fleet login`).",
    ),
]
TOKEN_VARIABLE = "CELLFLEET_API_TOKEN"
_TIMEOUT_S = 60.0


class FleetClient:
    """API client of a user. Paths start with ``/``; responses are plain JSON data.

    Args:
        base_url: address of the server.
        token: API token; empty: none.
        session: session headers, used instead of a token.
        http: the network.

    Attributes:
        api: sends the requests.

    All methods raise NetworkError (the server cannot be reached or is busy) and ServerRefuses (it refuses the request).
    """

    def __init__(
        self, base_url: str, token: str = "", session: Mapping[str, str] | None = None, http: Http | None = None
    ) -> None:
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigError(f"{base_url!r} is not an address of a server", hint="for example http://127.0.0.1:8460")
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        self.api = ApiClient(base_url, http or SystemHttp(timeout_s=_TIMEOUT_S), FixedHeaders(session or bearer))

    @property
    def base_url(self) -> str:
        """Address without a trailing slash."""
        return self.api.base_url

    def get(self, path: str, **query: str | int | None) -> Any:
        """GET; query values that are None or empty are left out."""
        encoded = urlencode({k: v for k, v in query.items() if v not in (None, "")})
        return _data(self.api.request("GET", f"{path}?{encoded}" if encoded else path))

    def all(self, path: str, **query: str | int | None) -> Iterator[dict[str, Any]]:
        """All entries of a list, requested page by page; query values as in ``get``."""
        after = ""
        while True:
            page = self.get(path, **query, after=after)
            yield from page["items"]
            after = page["next"]
            if not after:
                return

    def post(self, path: str, body: Any = None) -> Any:
        """POST plain JSON data."""
        return _data(self.api.request("POST", path, _json({} if body is None else body)))

    def put(self, path: str, body: Any) -> Any:
        """PUT plain JSON data."""
        return _data(self.api.request("PUT", path, _json(body)))

    def patch(self, path: str, body: Any) -> Any:
        """PATCH plain JSON data."""
        return _data(self.api.request("PATCH", path, _json(body)))

    def delete(self, path: str) -> None:
        """DELETE."""
        self.api.request("DELETE", path)


def part(text: str) -> str:
    """Quote a name for use in a path."""
    return quote(text, safe="")


def open_client(server: str = "") -> FleetClient:
    """Open the client of a command: from the option, the environment, or the credentials of ``fleet login``.

    Raises:
        ConfigError: no server or no token is known.
    """
    kept = Credentials.load()
    url = (server or kept.default).rstrip("/")
    if not url:
        raise ConfigError("no fleet server is set", hint="use --server, or sign in with `cellfleet fleet login`")
    token = os.environ.get(TOKEN_VARIABLE, "") or kept.tokens.get(url, "")
    if not token:
        raise ConfigError(
            f"no API token for {url} is set", hint=f"sign in with `cellfleet fleet login`, or set {TOKEN_VARIABLE}"
        )
    return FleetClient(url, token)


class Credentials:
    """Credentials of ``fleet login``: server -> API token, and the server of the last sign-in."""

    def __init__(self, default: str = "", tokens: Mapping[str, str] | None = None) -> None:
        self.default, self.tokens = default, dict(tokens or {})

    @staticmethod
    def path() -> Path:
        """In the user's configuration folder."""
        return Path(typer.get_app_dir("cellfleet")) / "credentials.json"

    @classmethod
    def load(cls) -> Credentials:
        """Read the file; empty if there is none.

        Raises:
            ConfigError: the file is damaged.
        """
        path = cls.path()
        if not path.is_file():
            return cls()
        try:
            data = json.loads(path.read_bytes())
            return cls(str(data["default"]), {str(k): str(v) for k, v in data["tokens"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise ConfigError(f"{path} cannot be read: {e}", hint="remove it and sign in again") from e

    def save(self) -> None:
        """Write the file, readable by its owner only."""
        content = {"format_version": 1, "default": self.default, "tokens": self.tokens}
        write_atomic(self.path(), _json(content), mode=0o600)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _data(answer: Response) -> Any:
    if not answer.body:
        return None
    try:
        return json.loads(answer.body)
    except ValueError as e:
        raise FleetError(
            "the server's response is not JSON", hint="check that this is the address of a fleet server"
        ) from e
