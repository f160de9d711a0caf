"""Keys change and metadata is renewed without an instrument noticing; what is lost or locked is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner

from cellfleet.trust import TrustFolder
from cellfleet.trust.keys import KEY_NAMES, ExternalKey
from cellfleet.trust.metadata import load, sign
from cellfleet.trust.refusals import BadMetadata, KeyTrouble
from cellfleet.trust.rotation import RENEWABLE, RoleStatus, renew, rotate, status
from cellfleet.trust.tuf_types import Root
from support_trust import PASSPHRASE, START, Site, secret


def rows(site: Site) -> dict[tuple[str, str], RoleStatus]:
    return {(r.repository, r.role): r for r in status(TrustFolder.load(site.folder.path), site.now)}


@pytest.mark.parametrize("name", KEY_NAMES)
def test_every_key_can_be_replaced(site: Site, name: str) -> None:
    release = site.publish()
    site.order(release)
    site.refreshed()
    old = site.folder.book.keys[name]
    old_file = site.folder.path / old.uri.removeprefix("file:")
    files = rotate(site.folder, name, secret, site.now)
    assert files
    assert not old_file.exists()
    reloaded = TrustFolder.load(site.folder.path)
    assert reloaded.book.keys[name].keyid != old.keyid
    reloaded.signer(name, secret)
    site.folder = reloaded
    site.serve()
    second = site.publish("1.1.0")
    site.order(second)
    assert site.refreshed().check(second, {("model", "cells"): 1}).counter == 2
    fresh = site.verifier(home="new")
    fresh.refresh()
    assert [t.version for t in fresh.offered()] == ["1.1.0"]


def test_a_lost_root_key_is_replaced_by_the_two_others(site: Site) -> None:
    site.order(None)
    (site.folder.path / "keys" / "root-2.pem").unlink()
    rotate(site.folder, "root-2", secret, site.now)
    site.serve()
    site.refreshed()


def test_two_lost_root_keys_cannot_be_replaced(site: Site) -> None:
    for n in (1, 2):
        (site.folder.path / "keys" / f"root-{n}.pem").unlink()
    with pytest.raises(KeyTrouble, match=r"1 root key\(s\) are available, 2 must sign"):
        rotate(site.folder, "root-1", secret, site.now)
    assert sorted(p.name for p in (site.folder.path / "keys").glob("root-*")) == ["root-3.pem"]


def test_a_rotation_that_fails_leaves_the_folder_as_it_was(site: Site) -> None:
    before = {p: p.read_bytes() for p in site.folder.path.rglob("*") if p.is_file()}
    with pytest.raises(KeyTrouble, match="wrong passphrase"):
        rotate(site.folder, "models", lambda _: "not the passphrase", site.now)
    with pytest.raises(KeyTrouble, match="no key 'modles'"):
        rotate(site.folder, "modles", secret, site.now)
    assert {p: p.read_bytes() for p in site.folder.path.rglob("*") if p.is_file()} == before


def test_a_file_becomes_a_uri(site: Site) -> None:
    """From a file to another key holder: securesystemslib's own signer of plain files stands for it."""
    signer = CryptoSigner.generate_rsa()
    key_file = site.root / "elsewhere.pem"
    key_file.write_bytes(signer.private_bytes)
    assert "file2" in SIGNER_FOR_URI_SCHEME
    rotate(site.folder, "models", secret, site.now, ExternalKey(f"file2:{key_file}", signer.public_key))
    assert not (site.folder.path / "keys" / "models.pem").exists()
    site.folder = TrustFolder.load(site.folder.path)
    site.serve()
    release = site.publish()
    site.order(release)
    assert site.refreshed().check(release, {}).counter == 1


def test_one_key_has_one_role(site: Site) -> None:
    taken = ExternalKey("file2:somewhere", site.folder.book.keys["software"].key())
    with pytest.raises(KeyTrouble, match="already in use"):
        rotate(site.folder, "models", secret, site.now, taken)


@pytest.mark.parametrize("role", RENEWABLE)
def test_every_role_can_be_renewed(site: Site, role: str) -> None:
    site.order(site.publish())
    site.refreshed()
    before = rows(site)["image", role]
    site.pass_time(days=1)
    assert renew(site.folder, role, secret, site.now)
    after = rows(site)["image", role]
    assert after.version == before.version + 1
    assert before.expires is not None
    assert after.expires == before.expires + timedelta(days=1)
    assert after.keys == before.keys
    site.serve()
    site.order(None)
    site.refreshed()


@pytest.mark.parametrize("role", ["timestamp", "director", "root-1", ""])
def test_what_is_not_renewed_by_hand(site: Site, role: str) -> None:
    with pytest.raises(KeyTrouble, match="cannot be renewed by hand"):
        renew(site.folder, role, secret, site.now)


def test_status_of_a_new_folder(site: Site) -> None:
    found = rows(site)
    assert {r.state for r in found.values()} == {"ok", "server"}
    root = found["image", "root"]
    assert (root.threshold, root.version, root.expires) == (2, 1, START + timedelta(days=730))
    assert root.keys == ("root-1 (file)", "root-2 (file)", "root-3 (file)")
    assert found["image", "timestamp"].state == "server"
    assert found["director", "director"].version == 0


def test_status_tells_what_expires_and_which_key_is_elsewhere(site: Site) -> None:
    (site.folder.path / "keys" / "models.pem").unlink()
    site.pass_time(days=336)
    assert {role for (_, role), r in rows(site).items() if r.state == "soon"} == {
        "targets", "models", "software", "allowances", "snapshot",
    }  # fmt: skip
    assert rows(site)["image", "models"].keys == ("models (not here)",)
    site.pass_time(days=30)
    assert rows(site)["image", "models"].state == "expired"
    assert rows(site)["image", "root"].state == "ok"
    site.pass_time(days=310)
    assert rows(site)["image", "root"].state == "soon"


def test_status_needs_no_passphrase(site: Site) -> None:
    for pem in site.folder.path.rglob("*.pem"):
        pem.unlink()
    assert PASSPHRASE not in repr(rows(site))
    assert rows(site)["director", "root"].keys[0] == "root-1 (not here)"


def test_status_of_each_role(site: Site) -> None:
    found = rows(site)
    assert {row.threshold for (_, role), row in found.items() if role == "root"} == {2}
    assert {row.threshold for (_, role), row in found.items() if role != "root"} == {1}
    stamp = found["image", "timestamp"]
    assert (stamp.version, stamp.expires) == (1, START + timedelta(days=1))
    (site.folder.path / "image" / "timestamp.json").unlink()  # it comes from the server
    stamp = rows(site)["image", "timestamp"]
    assert (stamp.version, stamp.expires, stamp.expires_in_s, stamp.state) == (0, None, None, "server")


def test_the_threshold_is_that_of_the_root(site: Site) -> None:
    root = load(Root, site.folder.image_files()["1.root.json"], "root").signed
    root.roles["root"].threshold = 3
    signers = [site.key(f"root-{n}") for n in (1, 2, 3)]
    (site.folder.path / "image" / "1.root.json").write_bytes(sign(root, signers, site.now, timedelta(days=730)))
    assert rows(site)["image", "root"].threshold == 3


def test_status_says_what_holds_a_key(site: Site) -> None:
    signer = CryptoSigner.generate_ed25519()
    entry = ExternalKey("hsm:slot", signer.public_key).entry()
    site.folder.write(book=site.folder.book.model_copy(update={"keys": {**site.folder.book.keys, "models": entry}}))
    assert rows(site)["image", "models"].keys == ("models (hsm)",)


def test_the_limits_of_soon_and_expired(site: Site) -> None:
    def state() -> str:
        return rows(site)["image", "models"].state

    site.pass_time(days=335)  # thirty days are left
    assert state() == "ok"
    site.pass_time(seconds=1)
    assert state() == "soon"
    site.pass_time(days=30, seconds=-2)
    assert state() == "soon"
    site.pass_time(seconds=1)
    assert state() == "expired"


def test_renewing_the_root_renews_that_of_the_director_too(site: Site) -> None:
    site.pass_time(days=1)
    assert renew(site.folder, "root", secret, site.now) == ["director/2.root.json", "image/2.root.json"]
    assert rows(site)["director", "root"].version == 2
    assert "2.root.json" in TrustFolder.load(site.folder.path).director_files()


def test_a_new_timestamp_key_signs_the_next_timestamp(site: Site) -> None:
    rotate(site.folder, "timestamp", secret, site.now)
    assert rows(site)["image", "timestamp"].version == 2
    (site.folder.path / "image" / "timestamp.json").unlink()
    rotate(TrustFolder.load(site.folder.path), "timestamp", secret, site.now)
    assert rows(site)["image", "timestamp"].version == 1


def test_a_folder_without_a_snapshot_is_damaged(site: Site) -> None:
    (site.folder.path / "image" / "1.snapshot.json").unlink()
    with pytest.raises(BadMetadata, match="no snapshot"):
        rotate(TrustFolder.load(site.folder.path), "timestamp", secret, site.now)


def test_a_key_file_that_the_publisher_brought_stays_when_it_is_refused(site: Site) -> None:
    """It is not ours to remove, unlike one that was just made."""
    taken = ExternalKey("file:keys/software.pem", site.folder.book.keys["software"].key())
    with pytest.raises(KeyTrouble, match="already in use"):
        rotate(site.folder, "models", secret, site.now, taken)
    assert (site.folder.path / "keys" / "software.pem").exists()


def test_a_uri_becomes_a_file(site: Site) -> None:
    signer = CryptoSigner.generate_rsa()
    key_file = site.root / "elsewhere.pem"
    key_file.write_bytes(signer.private_bytes)
    rotate(site.folder, "models", secret, site.now, ExternalKey(f"file2:{key_file}", signer.public_key))
    rotate(site.folder, "models", secret, site.now)
    assert key_file.exists()
    assert TrustFolder.load(site.folder.path).book.keys["models"].held == "file"


def test_only_the_keys_that_must_sign_are_needed(site: Site) -> None:
    for n in (1, 2, 3):
        (site.folder.path / "keys" / f"root-{n}.pem").unlink()
    assert sorted(rotate(site.folder, "models", secret, site.now)) == [
        "image/2.models.json", "image/2.snapshot.json", "image/2.targets.json",
    ]  # fmt: skip


def test_a_folder_that_lost_its_newest_root_makes_no_new_first_one(site: Site) -> None:
    for repository in ("director", "image"):
        root = site.folder.path / repository / "1.root.json"
        kept = root.read_bytes()
        root.unlink()
        folder = TrustFolder.load(site.folder.path)
        with pytest.raises(BadMetadata, match=f"{repository} repository: there is no root metadata"):
            rotate(folder, "root-1", secret, site.now)
        row = {(r.repository, r.role): r for r in status(folder, site.now)}[repository, "root"]
        assert (row.version, row.threshold, row.state) == (0, 2, "expired")
        root.write_bytes(kept)
