"""Provisioning: an instrument joins a fleet, or becomes a fleet of one. Every step may run twice."""

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
    """Result. ``state`` is as the server reports it (``pending`` ...), or ``alone``; ``again``: it was provisioned already."""

    device_id: str
    name: str
    state: str
    again: bool = False


def provision(
    home: Home, http: Http, clock: Clock, *, server: str, token: str, name: str, settings_text: Callable[[], str]
) -> Provisioned:
    """Claim a place in the fleet of a server.

    Args:
        home: folder of the instrument.
        http: the network.
        clock: time.
        server: address of the server.
        token: claim token; it can be used once.
        name: new name of the instrument.
        settings_text: returns the project file to write when there is none.

    Returns:
        The id, name and state.

    Raises:
        TrustError: the server's roots are not those of the token.
        ServerRefuses: the token is unknown or was used, or the name is in use.
        NetworkError: the server cannot be reached; nothing was claimed, try again.
        DeviceError: HOME is another instrument already.
    """
    known = load_identity(home)
    if known is not None:
        if (known.record.server, known.record.name) == (server, name):
            _write_settings(home, settings_text)
            return Provisioned(known.device_id, name, "provisioned already", again=True)
        raise _already_provisioned(home, known.record)
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
    """Provision a fleet of one, without a server.

    Args:
        home: folder of the instrument.
        clock: time.
        trust_anchors: a file with the anchors, or a folder of `trust init` or `trust export`.
        name: new name of the instrument.
        settings_text: returns the project file to write when there is none.

    Returns:
        The id, name and state.

    Raises:
        TrustError: the roots are not found.
        DeviceError: HOME is another instrument already.
    """
    known = load_identity(home)
    if known is None:
        check_name(name)
    elif (known.record.server, known.record.name) != ("", name):
        raise _already_provisioned(home, known.record)
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
    """Read the digests of the first roots.

    Args:
        path: a JSON file with both digests, or a folder with ``image/1.root.json`` and the director's ``1.root.json``.

    Raises:
        TrustError: the roots are not found.
    """
    if path.is_file():
        try:
            return parse(TrustAnchors, path.read_bytes())
        except (OSError, WireError) as e:
            raise TrustError(
                f"{path} holds no trust anchors: {e}", hint="name the file or folder with the trust anchors"
            ) from e
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
    """Check that the server's roots are those that the claim token names.

    Args:
        token: claim token; it ends in a digest of the trust anchors.
        found: trust anchors of the server.

    Raises:
        TrustError: the roots differ, or the token is not a claim token.
    """
    tail = _TAIL.search(token)
    if tail is None:
        raise TrustError(
            "this is not a claim token: it does not end in the digest of the trust anchors",
            hint="copy the whole token that `cellfleet fleet claim` printed",
        )
    if tail[1] != anchors_digest(found):
        raise TrustError(
            "the server's trust anchors are not those that the claim token names; nothing was claimed",
            hint="check the address of the server; if it is right, ask its operator for a new token",
        )


def check_name(name: str) -> None:
    """Check the name of a new instrument.

    Raises:
        DeviceError: it is not a valid name, or it looks like an id.
    """
    try:
        _Name(name=name)
    except ValueError as e:
        raise DeviceError(
            f"{name!r} is not a valid name for an instrument",
            hint="use letters, digits, - . _, at most 64 characters, and begin with a letter or digit",
        ) from e
    if is_device_id(name):
        raise DeviceError(f"{name} looks like the id of an instrument", hint="use the name on its label")


def ask_state(client: ServerClient) -> str:
    """Ask the server for the state of this device: accepted, pending, rejected, revoked.

    Raises:
        NetworkError: the server cannot be reached now.
        ServerRefuses: the server refuses for another reason.
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
            f"{home.identity} holds other trust anchors",
            hint="to trust another fleet, provision the instrument again with another HOME",
        )


def _write_settings(home: Home, text: Callable[[], str]) -> None:
    if not home.project_file.exists():
        write_atomic(home.project_file, text().encode())


def _already_provisioned(home: Home, record: DeviceRecord) -> DeviceError:
    where = f"of {record.server}" if record.server else "of a fleet of one"
    return DeviceError(
        f"{home.root} is already {record.name} {where}", hint="name another HOME, or the same server and name as before"
    )


def _claim_hint(error: ServerRefuses) -> str:
    if error.status == 401:
        return "ask the operator for a new token (`cellfleet fleet claim`)"
    return "choose another --name, or ask the operator for a new token (`cellfleet fleet claim`)"
