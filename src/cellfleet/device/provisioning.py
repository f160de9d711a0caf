"""An instrument becomes a member of a fleet, or a fleet of one. Every step may be done twice."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellfleet.api_client import ServerRefuses
from cellfleet.canonical import sha256_file
from cellfleet.device.server.client import ServerClient, anchors, claim
from cellfleet.device.system.home import Home
from cellfleet.device.system.host_info import device_facts
from cellfleet.device.system.identity import (
    DeviceRecord,
    anchors_digest,
    claim_proof,
    load_anchors,
    load_identity,
    load_or_make_key,
    local_id,
    public_pem,
    save_anchors,
    save_record,
)
from cellfleet.errors import DeviceError, TrustError, WireError
from cellfleet.ports import Clock, write_atomic
from cellfleet.ports.http import Http
from cellfleet.wire.base import DeviceName, Message, is_device_id, parse
from cellfleet.wire.enrol import ClaimRequest, TrustAnchors

_TAIL = re.compile(r"\.([0-9a-f]{32})$")


class _Name(Message):
    name: DeviceName


@dataclass(frozen=True)
class Provisioned:
    """How it went. ``state`` is the server's word (``pending`` ...), or ``alone``; ``again``: nothing had to be done."""

    device_id: str
    name: str
    state: str
    again: bool = False


def provision(
    home: Home, http: Http, clock: Clock, *, server: str, token: str, name: str, settings_text: Callable[[], str]
) -> Provisioned:
    """Claim a place at a server with a token that is good once.

    Args:
        settings_text: the project file that is written when there is none.

    Raises:
        TrustError: the server's roots are not those of the token.
        ServerRefuses: the token is unknown or was used, the name is taken.
        NetworkError: the server cannot be reached; nothing was claimed, do it again.
        DeviceError: HOME is another instrument already.
    """
    known = load_identity(home)
    if known is not None:
        if (known.record.server, known.record.name) == (server, name):
            _write_settings(home, settings_text)
            return Provisioned(known.device_id, name, "provisioned already", again=True)
        raise _another(home, known.record)
    check_name(name)
    found = anchors(http, server)
    check_token(token, found)
    key = load_or_make_key(home)
    _save_anchors_once(home, found)
    request = ClaimRequest(
        claim_token=token,
        name=name,
        public_key=public_pem(key),
        facts=device_facts(),
        proof=claim_proof(key, token, name),
    )
    try:
        reply = claim(http, server, request)
    except ServerRefuses as e:
        raise ServerRefuses(e.message, status=e.status, code=e.code, hint=e.hint or _claim_hint(e)) from e
    _write_settings(home, settings_text)  # not before: a refused attempt leaves no settings for the next one to keep
    save_record(home, DeviceRecord(device_id=reply.device_id, name=name, server=server, claimed_at=clock.now()))
    return Provisioned(reply.device_id, name, reply.state)


def provision_alone(
    home: Home, clock: Clock, *, trust_anchors: Path, name: str, settings_text: Callable[[], str]
) -> Provisioned:
    """A fleet of one: the roots come from a file, or from a folder of `trust init` or `trust export`.

    Raises:
        TrustError: no roots there.
        DeviceError: HOME is another instrument already.
    """
    known = load_identity(home)
    if known is None:
        check_name(name)
    elif (known.record.server, known.record.name) != ("", name):
        raise _another(home, known.record)
    found = read_anchors(trust_anchors)
    key = load_or_make_key(home)
    _save_anchors_once(home, found)
    _write_settings(home, settings_text)
    if known is not None:
        return Provisioned(known.device_id, name, "alone", again=True)
    record = DeviceRecord(device_id=local_id(key), name=name, server="", claimed_at=clock.now())
    save_record(home, record)
    return Provisioned(record.device_id, name, "alone")


def read_anchors(path: Path) -> TrustAnchors:
    """The digests of the first roots.

    Args:
        path: a JSON file with both digests, or a folder with ``image/1.root.json`` and the director's ``1.root.json``.

    Raises:
        TrustError: there are none.
    """
    if path.is_file():
        try:
            return parse(TrustAnchors, path.read_bytes())
        except (OSError, WireError) as e:
            raise TrustError(f"{path} holds no trust anchors: {e}", hint="name the file or folder of the trust") from e
    image = path / "image" / "1.root.json"
    directors = [path / "director" / "1.root.json", *sorted((path / "director").glob("dev-*/1.root.json"))]
    director = next((p for p in directors if p.is_file()), None)
    if not image.is_file() or director is None:
        raise TrustError(
            f"{path} holds no roots (image/1.root.json and director/1.root.json)",
            hint="name the folder of `cellfleet trust init` or `trust export`, or a file with the anchors",
        )
    return TrustAnchors(image_root=sha256_file(image), director_root=sha256_file(director))


def check_token(token: str, found: TrustAnchors) -> None:
    """The server's roots are those that whoever made the token meant.

    Raises:
        TrustError: they are not, or the token is none.
    """
    tail = _TAIL.search(token)
    if tail is None:
        raise TrustError(
            "that is no claim token: it does not end in the digest of the trust anchors",
            hint="copy the whole token that `cellfleet fleet claim` printed",
        )
    if tail[1] != anchors_digest(found):
        raise TrustError(
            "the server's trust anchors are not those that the claim token names; nothing was claimed",
            hint="is that the right server? if so, ask its operator for a new token, and compare",
        )


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a new instrument.

    Raises:
        DeviceError: not a DeviceName, or it looks like an id.
    """
    try:
        _Name(name=name)
    except ValueError as e:
        raise DeviceError(
            f"{name!r} cannot be the name of an instrument",
            hint="use letters, digits, - . _, at most 64, beginning with a letter or digit",
        ) from e
    if is_device_id(name):
        raise DeviceError(f"{name} looks like the id of an instrument", hint="give it a name, as on its label")


def ask_state(client: ServerClient) -> str:
    """How the server sees this device: accepted, pending, rejected, revoked.

    Raises:
        NetworkError: it cannot be asked now.
        ServerRefuses: for another reason.
    """
    try:
        client.headers()
    except ServerRefuses as e:
        if e.code in ("pending", "rejected", "revoked"):
            return e.code
        raise
    return "accepted"


def _save_anchors_once(home: Home, found: TrustAnchors) -> None:
    known = load_anchors(home)
    if known is None or load_identity(home) is None:
        save_anchors(home, found)
    elif known != found:
        raise TrustError(
            f"{home.identity} holds other trust anchors than those",
            hint="an instrument that is to trust another fleet is provisioned anew (another HOME)",
        )


def _write_settings(home: Home, text: Callable[[], str]) -> None:
    if not home.project_file.exists():
        write_atomic(home.project_file, text().encode())


def _another(home: Home, record: DeviceRecord) -> DeviceError:
    where = f"of {record.server}" if record.server else "of a fleet of one"
    return DeviceError(
        f"{home.root} is {record.name} {where} already", hint="name another HOME, or the same server and name as then"
    )


def _claim_hint(error: ServerRefuses) -> str:
    if error.status == 401:
        return "ask the operator for a new token (`cellfleet fleet claim`)"
    return "choose another --name, or ask the operator for a new token (`cellfleet fleet claim`)"
