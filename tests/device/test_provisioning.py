"""Provisioning: what a claim token guarantees, and what happens when something is wrong or done twice."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cellfleet.api_client import ServerRefuses
from cellfleet.canonical import sha256_hex
from cellfleet.device.provisioning import Provisioned, ask_state, provision, provision_alone, read_anchors
from cellfleet.device.server.client import ServerClient
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import (
    DeviceRecord,
    Identity,
    anchors_digest,
    load_anchors,
    load_identity,
    load_or_make_key,
    public_pem,
    save_record,
)
from cellfleet.errors import DeviceError, NetworkError, TrustError
from cellfleet.ports import FixedClock
from cellfleet.wire.enrol import TrustAnchors
from simulators.server import URL, SimServer, problem

ANCHORS = TrustAnchors(image_root="a" * 64, director_root="b" * 64)
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TOKEN = f"cf-claim-0123456789abcdef.{anchors_digest(ANCHORS)}"
CLAIM = "POST /api/v1/devices/claim"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def server(clock: FixedClock) -> SimServer:
    server = SimServer(clock)
    server.anchors = ANCHORS
    server.claims[TOKEN] = ""
    return server


def join(home: Home, server: SimServer, clock: FixedClock, name: str = "XYZ-1", token: str = TOKEN) -> Provisioned:
    return provision(home, server, clock, server=URL, token=token, name=name, settings_text=lambda: f"# {name}\n")


def test_a_device_joins(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    home = Home.at(tmp_path / "home")
    done = join(home, server, clock)
    identity = load_identity(home)
    assert identity is not None
    assert (done.state, done.again, identity.device_id) == ("pending", False, done.device_id)
    assert done.device_id == "dev-" + sha256_hex(public_pem(identity.key).encode())[:12]
    assert load_anchors(home) == ANCHORS
    assert home.project_file.read_text() == "# XYZ-1\n"
    if sys.platform != "win32":
        assert stat.S_IMODE((home.identity / "device.pem").stat().st_mode) == 0o600


def test_the_same_again_changes_nothing(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    home = Home.at(tmp_path)
    first = join(home, server, clock)
    home.project_file.write_text("# mine now\n")
    again = join(home, server, clock)
    assert (again.device_id, again.again) == (first.device_id, True)
    assert home.project_file.read_text() == "# mine now\n"
    assert len([a for a in server.asked if "claim" in a]) == 1


def test_another_device_in_that_home_is_refused(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    home = Home.at(tmp_path)
    join(home, server, clock)
    with pytest.raises(DeviceError, match=r"is already XYZ-1 of http://fleet\.example"):
        join(home, server, clock, name="XYZ-2")


def test_a_token_used_twice(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    join(Home.at(tmp_path / "a"), server, clock)
    with pytest.raises(ServerRefuses, match="was used for XYZ-1") as found:
        join(Home.at(tmp_path / "b"), server, clock, name="XYZ-2")
    assert "token" in found.value.hint
    assert load_identity(Home.at(tmp_path / "b")) is None


def test_an_unknown_token(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    token = f"cf-claim-ffffffffffffffff.{anchors_digest(ANCHORS)}"
    home = Home.at(tmp_path)
    with pytest.raises(ServerRefuses, match="not known"):
        join(home, server, clock, name="XYZ-0", token=token)
    join(home, server, clock)
    assert home.project_file.read_text() == "# XYZ-1\n", "settings of the refused attempt are not kept"


def test_a_name_that_is_taken(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    server.answers[CLAIM] = problem(409, "name-taken", "the name XYZ-1 is taken")
    with pytest.raises(ServerRefuses, match="is taken") as found:
        join(Home.at(tmp_path), server, clock)
    assert found.value.code == "name-taken"
    assert found.value.hint


def test_a_server_that_is_away_and_comes_back(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    home = Home.at(tmp_path)
    server.away = True
    with pytest.raises(NetworkError):
        join(home, server, clock)
    assert load_identity(home) is None
    server.away = False
    assert join(home, server, clock).state == "pending"


def test_other_roots_than_the_token_s(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    server.anchors = TrustAnchors(image_root="c" * 64, director_root="b" * 64)
    with pytest.raises(TrustError, match="not those that the claim token names"):
        join(Home.at(tmp_path), server, clock)
    assert "POST /api/v1/devices/claim" not in server.asked, "the token is not shown to a stranger"
    assert not (tmp_path / "identity").exists()


@pytest.mark.parametrize("token", ["", "short", "cf-claim-0123456789abcdef", TOKEN[:-1], TOKEN + "0", TOKEN.upper()])
def test_what_is_no_token(tmp_path: Path, server: SimServer, clock: FixedClock, token: str) -> None:
    with pytest.raises(TrustError, match="claim token"):
        join(Home.at(tmp_path), server, clock, token=token)


def test_a_name_that_looks_like_an_id(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    name = "dev-0123456789ab"
    with pytest.raises(DeviceError, match="looks like the id"):
        join(Home.at(tmp_path / "new"), server, clock, name=name)
    assert not server.asked, "the token is not shown"
    with pytest.raises(DeviceError, match="looks like the id"):
        provision_alone(Home.at(tmp_path / "new"), clock, trust_anchors=tmp_path, name=name, settings_text=str)
    old = Home.at(tmp_path / "old")
    join(old, server, clock)
    record = load_identity(old)
    assert record is not None
    save_record(old, record.record.model_copy(update={"name": name}))
    assert join(old, server, clock, name=name).again, "an instrument that was provisioned under such a name keeps it"


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-x", "ö"])
def test_what_is_no_name(tmp_path: Path, server: SimServer, clock: FixedClock, name: str) -> None:
    with pytest.raises(DeviceError, match="is not a valid name"):
        join(Home.at(tmp_path), server, clock, name=name)


def test_the_reply_that_was_lost(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    """The server took the claim, the answer did not arrive: the same key claims again, and a server may answer alike."""
    home = Home.at(tmp_path)
    server.lost.add(CLAIM)
    with pytest.raises(NetworkError):
        join(home, server, clock)
    key = public_pem(load_or_make_key(home))
    server.lost.clear()
    server.claims[TOKEN] = ""
    server.keys.clear()
    join(home, server, clock)
    assert public_pem(load_or_make_key(home)) == key


def roots(folder: Path, director: str) -> None:
    for path, text in ((folder / "image", "image root"), (folder / director, "director root")):
        path.mkdir(parents=True, exist_ok=True)
        (path / "1.root.json").write_text(text)


@pytest.mark.parametrize("director", ["director", "director/dev-0123456789ab"])
def test_alone(tmp_path: Path, clock: FixedClock, director: str) -> None:
    roots(tmp_path / "trust", director)
    home = Home.at(tmp_path / "home")
    for again in (False, True):
        done = provision_alone(home, clock, trust_anchors=tmp_path / "trust", name="one", settings_text=lambda: "")
        assert (done.state, done.again) == ("alone", again)
    assert load_anchors(home) == TrustAnchors(
        image_root=sha256_hex(b"image root"), director_root=sha256_hex(b"director root")
    )
    file = tmp_path / "anchors.json"
    file.write_bytes(ANCHORS.to_json())
    assert read_anchors(file) == ANCHORS
    with pytest.raises(TrustError, match="other trust anchors"):
        provision_alone(home, clock, trust_anchors=file, name="one", settings_text=lambda: "")


def test_no_roots(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="holds no roots"):
        read_anchors(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(TrustError, match="no trust anchors"):
        read_anchors(tmp_path / "x.json")


def test_states_at_the_server(tmp_path: Path, server: SimServer, clock: FixedClock) -> None:
    home = Home.at(tmp_path)
    join(home, server, clock)
    identity = load_identity(home)
    assert isinstance(identity, Identity)
    client = ServerClient(URL, identity, server, clock)
    for word in ("pending", "rejected", "revoked"):
        server.refusal = word
        assert ask_state(client) == word
    server.refusal = "odd"
    with pytest.raises(ServerRefuses):
        ask_state(client)
    server.refusal = ""
    assert ask_state(client) == "accepted"


def test_a_lost_key_is_told_and_not_made_anew(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    home.identity.mkdir()
    save_record(home, DeviceRecord(device_id="dev-0123456789ab", name="XYZ-001", claimed_at=NOW))
    with pytest.raises(DeviceError, match=r"device\.pem") as e:
        load_identity(home)
    assert "restore it" in e.value.hint
    assert not (home.identity / "device.pem").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_identity_is_told(tmp_path: Path, content: bytes) -> None:
    home = Home.at(tmp_path)
    home.identity.mkdir()
    (home.identity / "device.pem").write_bytes(content)
    with pytest.raises(DeviceError, match=r"device\.pem"):
        load_or_make_key(home)
    (home.identity / "device.json").write_bytes(content)
    with pytest.raises(DeviceError, match=r"device\.json"):
        load_identity(home)
    (home.identity / "anchors.json").write_bytes(content)
    with pytest.raises(DeviceError, match=r"anchors\.json"):
        load_anchors(home)
