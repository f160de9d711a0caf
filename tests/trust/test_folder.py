"""The trust folder: what init makes, who can open it, and that a power cut leaves it before or after a change."""

from __future__ import annotations

import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, SecretsHandler, Signature, Signer

from cellfleet.canonical import sha256_hex
from cellfleet.errors import WireError
from cellfleet.trust import OnlineKeys, TrustFolder, check_published
from cellfleet.trust.folder import ArtifactBytes, Publication
from cellfleet.trust.keys import KEY_NAMES, ExternalKey, environment_secrets, new_key
from cellfleet.trust.layout import ROOT, allowance_path, delegated_role, target_path
from cellfleet.trust.metadata import load
from cellfleet.trust.refusals import KeyTrouble, NotUpward
from cellfleet.trust.tuf_types import Root, Targets, Timestamp
from simulators.disk import every_cut
from support_trust import DEVICE, PASSPHRASE, START, Site, make_folder, secret


def publish(folder: TrustFolder, version: str = "1.0.0", content: bytes = b"bytes", name: str = "cells") -> Publication:
    artifact = ArtifactBytes(sha256_hex(content), len(content))
    return folder.publish(artifact, kind="model", name=name, version=version, secrets=secret, now=START)


class Vault(Signer):  # type: ignore[misc]
    """A key holder in this process, found by its URI as a KMS is; it asks for a PIN."""

    keys: ClassVar[dict[str, CryptoSigner]] = {}
    pin = "1234"

    def __init__(self, held: CryptoSigner) -> None:
        self.held = held
        self.signed = 0

    @property
    def public_key(self) -> Key:
        return self.held.public_key

    @classmethod
    def from_priv_key_uri(cls, uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None) -> Vault:
        held = cls.keys[uri.removeprefix("vault:")]
        if public_key.keyid != held.public_key.keyid:
            raise ValueError("another key lies there")
        if secrets_handler is not None and secrets_handler("PIN") not in (cls.pin, PASSPHRASE):
            raise PermissionError("wrong PIN")
        return cls(held)

    def sign(self, payload: bytes) -> Signature:
        return self.held.sign(payload)


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> type[Vault]:
    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "vault", Vault)
    monkeypatch.setattr(Vault, "keys", {})
    return Vault


def put(vault: type[Vault], place: str) -> ExternalKey:
    vault.keys[place] = CryptoSigner.generate_ecdsa()
    return ExternalKey(f"vault:{place}", vault.keys[place].public_key)


# --- init


def test_what_init_makes(site: Site) -> None:
    path = site.folder.path
    made = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    keys = [f"keys/{n}.pem" for n in KEY_NAMES if n not in ("timestamp", "director")]
    image = [f"image/1.{r}.json" for r in ("allowances", "models", "root", "snapshot", "software", "targets")]
    online = ["online/director.pem", "online/timestamp.pem"]
    assert made == sorted([*keys, *online, *image, "image/timestamp.json", "director/1.root.json", "keys.json"])


def test_keys_are_encrypted_and_for_the_owner_only(site: Site) -> None:
    for pem in site.folder.path.rglob("*.pem"):
        assert b"ENCRYPTED PRIVATE KEY" in pem.read_bytes()
        with pytest.raises(TypeError):
            load_pem_private_key(pem.read_bytes(), None)
        if os.name != "nt":
            assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    book = (site.folder.path / "keys.json").read_text()
    assert "PRIVATE" not in book


def test_two_of_three_root_keys_rule_both_repositories(site: Site) -> None:
    for data in (site.image["1.root.json"], site.director_roots["1.root.json"]):
        root = load(Root, data, "root").signed
        assert (root.roles[ROOT].threshold, len(set(root.roles[ROOT].keyids))) == (2, 3)
        others = {k for name, role in root.roles.items() if name != ROOT for k in role.keyids}
        assert not others & set(root.roles[ROOT].keyids)


def test_nothing_that_is_there_is_replaced(site: Site, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in site.folder.path.rglob("*") if p.is_file()}
    with pytest.raises(KeyTrouble, match="not empty") as e:
        TrustFolder.init(site.folder.path, secret, START)
    assert "nothing is replaced" in e.value.hint
    assert {p: p.read_bytes() for p in site.folder.path.rglob("*") if p.is_file()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyTrouble):
        TrustFolder.init(tmp_path / "file", secret, START)


def test_a_short_passphrase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyTrouble, match="shorter than 8"):
        TrustFolder.init(tmp_path / "trust", lambda _: "short", START)


def test_no_passphrase_and_nobody_to_ask(tmp_path: Path) -> None:
    with pytest.raises(KeyTrouble, match="no passphrase") as e:
        TrustFolder.init(tmp_path / "trust", environment_secrets(environ={}), START)
    assert "CELLFLEET_KEY_PASSPHRASE" in e.value.hint
    assert not (tmp_path / "trust").exists()


def test_online_and_offline_keys_have_passphrases_of_their_own() -> None:
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "from the prompt"

    given = environment_secrets(prompt, {"CELLFLEET_ONLINE_PASSPHRASE": "online words"})
    assert [given(n) for n in ("timestamp", "director")] == ["online words"] * 2
    assert [given(n) for n in ("root-1", "models")] == ["from the prompt"] * 2
    assert asked == ["Passphrase of the offline keys"]


# --- load


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyTrouble, match=r"no keys\.json") as e:
        TrustFolder.load(tmp_path)
    assert "trust init" in e.value.hint


def test_a_book_of_an_earlier_version_is_read(site: Site) -> None:
    """A book without a format counts as format 1."""
    path = site.folder.path / "keys.json"
    book = json.loads(path.read_bytes())
    assert book.pop("format") == 1
    path.write_text(json.dumps(book))
    assert TrustFolder.load(site.folder.path).book == site.folder.book


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2, "keys": {}}', '{"format": 1, "keys": {}}'])
def test_a_damaged_book(site: Site, text: str) -> None:
    (site.folder.path / "keys.json").write_text(text)
    with pytest.raises(KeyTrouble, match=r"keys\.json") as e:
        TrustFolder.load(site.folder.path)
    assert "backup" in e.value.hint


def test_a_book_whose_public_key_makes_no_sense(site: Site) -> None:
    path = site.folder.path / "keys.json"
    book = json.loads(path.read_text())
    book["keys"]["models"]["public"] = {"keytype": "none"}
    path.write_text(json.dumps(book))
    with pytest.raises(KeyTrouble, match="is invalid"):
        publish(TrustFolder.load(site.folder.path))


# --- keys


def test_a_wrong_passphrase(site: Site) -> None:
    with pytest.raises(KeyTrouble, match="wrong passphrase") as e:
        site.folder.signer("models", lambda _: "something else")
    assert "CELLFLEET_KEY_PASSPHRASE" in e.value.hint
    with pytest.raises(KeyTrouble) as e:
        site.folder.signer("director", lambda _: "something else")
    assert "CELLFLEET_ONLINE_PASSPHRASE" in e.value.hint


def test_a_key_that_is_not_here(site: Site) -> None:
    (site.folder.path / "keys" / "models.pem").unlink()
    with pytest.raises(KeyTrouble, match="cannot read the key models") as e:
        publish(site.folder)
    assert "copy the key file" in e.value.hint


def test_another_key_in_its_place(site: Site) -> None:
    keys = site.folder.path / "keys"
    (keys / "models.pem").write_bytes((keys / "software.pem").read_bytes())
    with pytest.raises(KeyTrouble, match="not the key models"):
        publish(site.folder)


def test_a_file_that_is_no_key(site: Site) -> None:
    (site.folder.path / "keys" / "models.pem").write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(KeyTrouble, match="models"):
        publish(site.folder)


def test_keys_that_something_else_holds(tmp_path: Path, vault: type[Vault]) -> None:
    """The whole story with a root key, a role's key and an online key behind URIs."""
    names = ("root-2", "models", "director")
    folder = TrustFolder.init(tmp_path / "trust", secret, START, {n: put(vault, n) for n in names})
    assert not list((tmp_path / "trust").rglob("models.pem"))
    assert folder.book.keys["models"].held == "vault"
    made = publish(folder)
    accepted = check_published(folder.image_files(), made.files, START)
    assert [n.counter for n in accepted.added] == [1]
    online = OnlineKeys.load(folder.path, secret)
    assert online.director.public_key.keyid == vault.keys["director"].public_key.keyid


def test_a_key_holder_that_refuses(tmp_path: Path, vault: type[Vault], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = TrustFolder.init(tmp_path / "trust", secret, START, {"models": put(vault, "models")})
    with pytest.raises(KeyTrouble, match=r"vault:models.*wrong PIN"):
        folder.signer("models", lambda _: "9999")
    vault.keys["models"] = CryptoSigner.generate_ecdsa()
    with pytest.raises(KeyTrouble, match="another key lies there"):
        publish(folder)
    monkeypatch.delitem(SIGNER_FOR_URI_SCHEME, "vault")
    with pytest.raises(KeyTrouble, match="vault") as e:
        publish(folder)
    assert "library" in e.value.hint


def test_a_key_holder_that_fails_while_signing(
    tmp_path: Path, vault: type[Vault], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrustFolder.init(tmp_path / "trust", secret, START, {"models": put(vault, "models")})

    def broken(_self: Vault, _payload: bytes) -> Signature:
        raise TimeoutError("the HSM does not answer")

    monkeypatch.setattr(Vault, "sign", broken)
    with pytest.raises(KeyTrouble, match="does not answer"):
        publish(folder)


def test_an_unknown_name_of_a_key(tmp_path: Path, vault: type[Vault]) -> None:
    with pytest.raises(KeyTrouble, match="no key 'root-9'") as e:
        TrustFolder.init(tmp_path / "trust", secret, START, {"root-9": put(vault, "x")})
    assert "root-1" in e.value.hint


def test_a_public_key_is_read_from_a_file(tmp_path: Path) -> None:
    signer = CryptoSigner.generate_ed25519()
    private = load_pem_private_key(signer.private_bytes, None)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(pem)
    assert ExternalKey.read("hsm:2", tmp_path / "key.pub").public.keyid == signer.public_key.keyid
    (tmp_path / "bad.pub").write_bytes(b"no key")
    for name in ("bad.pub", "absent.pub"):
        with pytest.raises(KeyTrouble, match=name):
            ExternalKey.read("hsm:2", tmp_path / name)


# --- publish, keep, allow


def test_publishing_writes_nothing_until_it_is_kept(site: Site) -> None:
    made = publish(site.folder)
    assert site.folder.next_counter("model", "cells") == 1
    assert TrustFolder.load(site.folder.path).image_files() == site.folder.image_files()
    site.folder.keep(made)
    assert site.folder.next_counter("model", "cells") == 2
    assert TrustFolder.load(site.folder.path).next_counter("model", "cells") == 2


def test_publishing_again_is_the_same_publication(site: Site) -> None:
    made = publish(site.folder)
    site.folder.keep(made)
    again = publish(site.folder)
    assert again == made
    site.take(again.files)


def test_a_version_has_one_content(site: Site) -> None:
    site.folder.keep(publish(site.folder))
    with pytest.raises(NotUpward, match=r"cells 1\.0\.0 is already published") as e:
        publish(site.folder, content=b"other bytes")
    assert "higher version" in e.value.hint


@pytest.mark.parametrize(
    "changed",
    [{"name": "../cells"}, {"version": "one"}, {"hardware": {"memory_gb": 1.5}}],
    ids=lambda c: next(iter(c)),
)
def test_facts_that_cannot_be_written(site: Site, changed: dict[str, Any]) -> None:
    given: dict[str, Any] = {"kind": "model", "name": "cells", "version": "1.0.0", **changed}
    with pytest.raises(WireError, match=next(iter(changed)).replace("name", "name|path")):
        site.folder.publish(ArtifactBytes("a" * 64, 3), **given, secrets=secret, now=START)


def test_counters_are_counted_by_name(site: Site) -> None:
    for name, version, counter in (("cells", "1.0.0", 1), ("nuclei", "1.0.0", 1), ("cells", "0.9.0", 2)):
        made = publish(site.folder, version, f"{name}{version}".encode(), name)
        assert made.counter == counter
        site.folder.keep(made)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"to_counter": 7}, "no release of cells has the counter 7"),
        ({"name": "other"}, "no release of other"),
        ({"from_counter": 1, "to_counter": 2}, "lower target counter"),
        ({"from_counter": 1, "to_counter": 1}, "lower target counter"),
        ({"expires": START}, "expiry date in the future"),
        ({"device_id": "me"}, "device_id"),
        ({"reason": "  "}, "a reason"),
    ],
)
def test_allowances_that_make_no_sense(site: Site, changed: dict[str, Any], match: str) -> None:
    site.publish()
    site.publish("1.1.0")
    given: dict[str, Any] = {
        "kind": "model", "name": "cells", "from_counter": 2, "to_counter": 1, "device_id": DEVICE,
        "expires": START + timedelta(days=1), "reason": "because", **changed,
    }  # fmt: skip
    before = site.folder.image_files()
    with pytest.raises((NotUpward, WireError), match=match):
        site.folder.allow(**given, secrets=secret, now=START)
    assert site.folder.image_files() == before


# --- power cuts


def test_a_damaged_plan_is_told(site: Site) -> None:
    (site.folder.path / "pending.json").write_bytes(b"{half")
    with pytest.raises(KeyTrouble, match=r"pending\.json is damaged"):
        TrustFolder.load(site.folder.path)


def test_a_plan_of_an_earlier_version_is_carried_out(site: Site) -> None:
    """It had no format."""
    plan = {"files": {"image/9.models.json": "x"}, "remove": ["keys/root-3.pem", "keys/absent.pem"]}
    (site.folder.path / "pending.json").write_text(json.dumps(plan))
    folder = TrustFolder.load(site.folder.path)
    assert folder.image_files()["9.models.json"] == b"x"
    assert not (folder.path / "keys" / "root-3.pem").exists()
    assert not (folder.path / "pending.json").exists()


def test_a_plan_of_a_later_version_is_left_alone(site: Site) -> None:
    (site.folder.path / "pending.json").write_text('{"format": 2, "files": {}, "remove": []}')
    with pytest.raises(KeyTrouble, match="has format 2") as e:
        TrustFolder.load(site.folder.path)
    assert "newer cellfleet" in e.value.hint
    assert (site.folder.path / "pending.json").exists()


def test_the_folder_is_for_its_owner_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "trust"
    path.mkdir(mode=0o755)
    folder = make_folder(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    first = load(Timestamp, folder.image_files()["timestamp.json"], "timestamp").signed
    assert first.version == 1


def test_a_file_is_no_folder_to_begin_in(tmp_path: Path) -> None:
    (tmp_path / "trust").write_text("")
    with pytest.raises(KeyTrouble, match="exists and is not empty"):
        make_folder(tmp_path / "trust")


def test_an_unknown_counter_names_those_that_are_published(site: Site) -> None:
    site.publish()
    site.publish("1.1.0")
    given: dict[str, Any] = {"kind": "model", "from_counter": 2, "to_counter": 9, "device_id": None, "reason": "x"}
    for name, known in (("cells", "published are: 1, 2"), ("other", "published are: none")):
        with pytest.raises(NotUpward) as e:
            site.folder.allow(**given, name=name, expires=site.now + timedelta(days=1), secrets=secret, now=site.now)
        assert e.value.hint == known


def test_passphrases_come_from_this_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLFLEET_KEY_PASSPHRASE", "of the environment")
    assert environment_secrets()("root-1") == "of the environment"


def test_private_keys_are_for_the_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        entry = new_key(tmp_path, "models", secret)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / entry.uri.removeprefix("file:")).stat().st_mode) == 0o600


@pytest.mark.parametrize(("letters", "good"), [(7, False), (8, True)])
def test_the_shortest_passphrase(tmp_path: Path, letters: int, good: bool) -> None:
    if good:
        new_key(tmp_path, "models", lambda _: "x" * letters)
        return
    with pytest.raises(KeyTrouble, match="shorter than 8 characters"):
        new_key(tmp_path, "models", lambda _: "x" * letters)


def test_our_delegations_are_terminating(site: Site) -> None:
    top = load(Targets, site.folder.image_files()["1.targets.json"], "targets").signed
    assert top.delegations is not None
    assert {name: role.terminating for name, role in (top.delegations.roles or {}).items()} == {
        "models": True, "software": True, "allowances": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "path"),
    [("model", "models/cells/1.0.0/0123456789ab.bundle.zip"), ("software", "software/cells/1.0.0/0123456789ab.zip")],
)
def test_the_path_of_a_release(kind: str, path: str) -> None:
    assert target_path(kind, "cells", "1.0.0", "0123456789abcdef") == path


def test_a_power_cut_at_every_step_leaves_the_folder_before_or_after(site: Site) -> None:
    path = site.folder.path
    old = path / "keys" / "root-3.pem"
    new = {"8.models.json": b"eight", "9.models.json": b"nine"}

    def act() -> None:
        TrustFolder.load(path).write(images=new, book=site.folder.book, remove=[old])

    formats = set()
    for survived in every_cut(path, act):
        if (path / "pending.json").exists():
            formats.add(json.loads((path / "pending.json").read_bytes())["format"])
        found = TrustFolder.load(path).image_files()
        known = {name: found[name] for name in new if name in found}
        assert known == new if survived.done else known in ({}, new), survived
        assert old.exists() == (known == {}), survived
    assert formats == {1}, "a plan says its format"


@pytest.mark.parametrize(("device", "path"), [(None, "3-1"), (DEVICE, f"3-1-{DEVICE}")])
def test_the_path_of_an_allowance(device: str | None, path: str) -> None:
    assert allowance_path("model", "cells", 3, 1, device) == f"allowances/model/cells/{path}"


def test_a_delegation_is_terminating_and_one_key_is_enough() -> None:
    role = delegated_role("models", ["a" * 64])
    assert (role.terminating, role.threshold, role.keyids) == (True, 1, ["a" * 64])


def test_the_book_is_text_in_a_stable_order(site: Site) -> None:
    """So that two backups of it can be compared."""
    site.folder.write(book=site.folder.book)
    text = (site.folder.path / "keys.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
