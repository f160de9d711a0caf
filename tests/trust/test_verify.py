"""What an instrument accepts, and every way in which it refuses. Somebody with stolen keys is ``site.forge_...``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.errors import NetworkError
from cellfleet.trust.metadata import load, meta_of, sign
from cellfleet.trust.refusals import (
    BadSignature,
    ClockWrong,
    Expired,
    Missing,
    MixedUp,
    NotNamed,
    RolledBack,
    UnknownRoot,
)
from cellfleet.trust.rotation import rotate
from cellfleet.trust.tuf_types import Root, Timestamp
from support_trust import DEVICE, NOTHING, START, Site, check, files_fetch, no_network, secret, stranger

# --- the good way


def test_what_both_repositories_name_may_be_installed(site: Site) -> None:
    release = site.publish(content=b"weights")
    site.order(release)
    found = site.refreshed().check(release, NOTHING)
    assert (found.target_path, found.sha256, found.length) == (release.target_path, sha256_hex(b"weights"), 7)
    assert (found.kind, found.name, found.version, found.counter) == ("model", "cells", "1.0.0", 1)
    assert (found.deployment_id, found.generation, found.allowance) == (7, 3, "")
    assert site.refreshed().offered() == (found,)


def test_only_what_is_new_is_fetched(site: Site) -> None:
    site.order(site.publish())
    site.refreshed()
    log: list[str] = []
    site.verifier(image=files_fetch(site.image, log), director=files_fetch(site.director_files(), log)).refresh()
    assert log == ["2.root.json", "timestamp.json"] * 2
    site.publish("1.1.0")
    site.order(None)
    log.clear()
    site.verifier(image=files_fetch(site.image, log), director=files_fetch(site.director_files(), log)).refresh()
    assert "3.models.json" in log
    assert "1.targets.json" not in log


def test_an_instrument_for_which_nothing_is_ordered_is_offered_nothing(site: Site) -> None:
    release = site.publish()
    site.order(None)
    verifier = site.refreshed()
    assert verifier.offered() == ()
    with pytest.raises(NotNamed, match="director"):
        verifier.check(release, NOTHING)


def test_the_same_or_a_higher_counter_needs_no_allowance(site: Site) -> None:
    site.publish()
    release = site.publish("1.1.0")
    site.order(release)
    assert check(site, release, installed=1) == ""
    assert check(site, release, installed=2) == ""


def test_a_server_that_is_away_is_no_refusal(site: Site) -> None:
    site.order(None)
    site.refreshed()
    with pytest.raises(NetworkError):
        site.verifier(image=no_network).refresh()
    with pytest.raises(NetworkError):
        site.verifier(director=no_network).refresh()


# --- steps 1 to 3: roots


def test_another_publishers_root_is_unknown(site: Site, tmp_path: Path) -> None:
    site.order(None)
    other = Site(tmp_path / "other")
    other.order(None)
    with pytest.raises(UnknownRoot, match="director"):
        site.verifier(director=files_fetch(other.director_files())).refresh()
    with pytest.raises(UnknownRoot, match="image"):
        site.verifier(image=files_fetch(other.image)).refresh()
    with pytest.raises(UnknownRoot):
        site.verifier(anchors=other.anchors).refresh()
    with pytest.raises(Missing, match="first root is missing"):
        site.verifier(director=files_fetch({}), home="bare").refresh()


def test_roots_are_followed_one_after_the_other(site: Site) -> None:
    release = site.publish()
    site.order(release)
    site.refreshed()
    for name in ("root-1", "root-2", "root-3"):  # at the end no key of the first root is left
        rotate(site.folder, name, secret, site.now)
    site.serve()
    site.order(release)
    assert check(site, release) == ""
    assert (site.root / "home" / DEVICE / "trust" / "image" / "4.root.json").exists()
    fresh = site.verifier(home="another")
    fresh.refresh()
    assert fresh.offered()[0].counter == 1


def test_a_root_that_is_left_out_cannot_be_skipped(site: Site) -> None:
    site.order(None)
    for name in ("root-1", "root-2", "timestamp"):
        rotate(site.folder, name, secret, site.now)
    site.serve()
    site.image["2.root.json"] = site.image["3.root.json"]
    with pytest.raises((RolledBack, BadSignature), match="root 2"):
        site.refreshed()
    del site.image["2.root.json"]  # kept back: the keys after it are not trusted
    with pytest.raises(BadSignature, match="timestamp"):
        site.refreshed()


def _forged_root(site: Site, signers: list[Any], version: int = 2) -> bytes:
    root = load(Root, site.image["1.root.json"], "root").signed
    root.version = version
    return sign(root, signers, site.now, timedelta(days=9))


def test_one_root_key_is_not_enough(site: Site) -> None:
    site.order(None)
    site.image["2.root.json"] = _forged_root(site, [site.key("root-1"), stranger()])
    with pytest.raises(BadSignature, match=r"root 2.*1/2"):
        site.refreshed()


def test_the_keys_of_the_new_root_alone_are_not_enough(site: Site, tmp_path: Path) -> None:
    site.order(None)
    other = Site(tmp_path / "other")
    site.image["2.root.json"] = _forged_root(other, [other.key("root-1"), other.key("root-2")])
    with pytest.raises(BadSignature, match="root 2"):
        site.refreshed()


def test_the_keys_of_the_root_before_alone_are_not_enough(site: Site) -> None:
    """Whoever asks for new keys must also have them."""
    site.order(None)
    root = load(Root, site.image["1.root.json"], "root").signed
    root.version = 2
    new = [stranger(), stranger()]
    for keyid in list(root.roles["root"].keyids):
        root.revoke_key(keyid, "root")
    for signer in new:
        root.add_key(signer.public_key, "root")
    old = [site.key("root-1"), site.key("root-2")]
    for signers in (old, [*old, new[0]]):
        site.image["2.root.json"] = sign(root, signers, site.now, timedelta(days=9))
        with pytest.raises(BadSignature, match=rf"root 2.*{len(signers) - 2}/2"):
            site.refreshed()
    site.image["2.root.json"] = sign(root, [*old, *new], site.now, timedelta(days=9))
    site.refreshed()


def test_a_root_with_another_version_than_its_name(site: Site) -> None:
    site.order(None)
    site.image["2.root.json"] = _forged_root(site, [site.key("root-1"), site.key("root-2")], version=3)
    with pytest.raises(RolledBack, match="version 3"):
        site.refreshed()


def test_a_root_that_has_expired(site: Site) -> None:
    site.order(None)
    site.pass_time(days=731)
    with pytest.raises(Expired, match="root") as e:
        site.refreshed()
    assert "clock" in e.value.hint


# --- step 4: timestamps, and the clock


@pytest.mark.parametrize("repository", ["image", "director"])
def test_a_timestamp_that_has_expired(site: Site, repository: str) -> None:
    site.order(None)
    site.pass_time(hours=25)
    if repository == "director":
        site.stamp()
    else:
        site.order(None)
    with pytest.raises(Expired, match=f"{repository} repository, timestamp"):
        site.refreshed()


def test_it_is_alive_to_its_last_second(site: Site) -> None:
    site.order(None)
    site.pass_time(seconds=86399)
    site.refreshed()
    site.pass_time(seconds=1)
    with pytest.raises(Expired):
        site.refreshed()


def test_a_clock_that_was_set_back_revives_nothing(site: Site) -> None:
    site.pass_time(days=3)
    site.stamp()
    site.order(None)
    site.clock.at = START + timedelta(days=1)
    with pytest.raises(ClockWrong, match="2026-03-04") as e:
        site.refreshed()
    assert "clock" in e.value.hint


def test_a_clock_that_is_less_than_a_day_behind_is_no_trouble(site: Site) -> None:
    site.order(None)
    site.clock.at = START - timedelta(hours=23)
    site.refreshed()


@pytest.mark.parametrize("repository", ["image", "director"])
def test_an_older_timestamp_is_a_rollback(site: Site, repository: str) -> None:
    site.order(None)
    old_image, old_director = dict(site.image), site.director_files()
    site.pass_time(hours=1)
    site.publish()
    site.order(None)
    site.refreshed()
    old: dict[str, Any] = (
        {"image": files_fetch(old_image)} if repository == "image" else {"director": files_fetch(old_director)}
    )
    with pytest.raises(RolledBack, match=f"{repository} repository, timestamp"):
        site.verifier(**old).refresh()


def test_a_newer_timestamp_for_an_older_snapshot_is_a_rollback(site: Site) -> None:
    site.order(None)
    before = site.newest("snapshot")
    site.publish()
    site.refreshed()
    site.pass_time(hours=1)
    site.stamp(before)
    with pytest.raises(RolledBack, match="snapshot that it names"):
        site.refreshed()


@pytest.mark.parametrize("signers", [[], [stranger()]], ids=["unsigned", "stranger"])
def test_a_timestamp_that_nobody_trusted_signed(site: Site, signers: list[Any]) -> None:
    site.order(None)
    site.forge_timestamp(lambda _t: None, signers)
    with pytest.raises(BadSignature, match=r"timestamp.*0/1"):
        site.refreshed()


def test_of_two_timestamps_with_one_version_the_first_stays(site: Site) -> None:
    site.order(None)
    site.refreshed()
    kept = site.root / "home" / DEVICE / "trust" / "image" / "timestamp.json"
    before = kept.read_bytes()
    site.pass_time(minutes=1)
    site.forge_timestamp(lambda _t: None)
    site.refreshed()
    assert kept.read_bytes() == before


def test_a_timestamp_that_has_expired_still_forbids_older_ones(site: Site) -> None:
    """Also of the same snapshot: only the version of the timestamp itself is lower."""
    site.order(None)
    site.refreshed()
    site.pass_time(hours=25)
    site.order(None)
    site.forge_timestamp(lambda t: setattr(t, "version", t.version - 1))
    with pytest.raises(RolledBack, match=r"image repository, timestamp: version"):
        site.refreshed()


def test_signing_the_same_version_again_does_not_make_it_live_longer(site: Site) -> None:
    site.order(None)
    site.refreshed()
    site.pass_time(hours=25)
    site.order(None)
    site.forge_timestamp(lambda _t: None)
    with pytest.raises(Expired, match="image repository, timestamp"):
        site.refreshed()


def test_roots_after_a_stored_one_are_followed(site: Site) -> None:
    for _ in range(3):
        rotate(site.folder, "timestamp", secret, site.now)
        del site.image["timestamp.json"]
        site.serve()
        site.order(None)
        site.refreshed()
    assert (site.root / "home" / DEVICE / "trust" / "image" / "4.root.json").exists()


def test_rotating_a_key_recovers_from_a_version_driven_up(site: Site) -> None:
    site.order(None)
    site.forge_timestamp(lambda t: setattr(t, "version", 2**50))
    site.refreshed()
    site.stamp()
    honest = site.image["timestamp.json"]
    assert load(Timestamp, honest, "t").signed.version > 2**50
    rotate(site.folder, "timestamp", secret, site.now)
    del site.image["timestamp.json"]
    site.serve()
    assert load(Timestamp, site.image["timestamp.json"], "t").signed.version < 2**50
    site.refreshed()


def test_a_director_of_another_key_is_refused_and_a_rotated_one_is_taken(site: Site) -> None:
    release = site.publish()
    site.order(release)
    site.refreshed()
    stolen = site.online
    rotate(site.folder, "director", secret, site.now)
    site.serve()
    site.order(release)
    assert check(site, release) == ""
    site.online = stolen
    site.order(release)
    with pytest.raises(BadSignature, match="director"):
        site.refreshed()


# --- step 5: snapshots


def test_a_snapshot_that_the_timestamp_does_not_name(site: Site) -> None:
    site.order(None)
    name = "1.snapshot.json"
    site.image[name] = site.image[name].replace(b'"snapshot"', b'"snapshot" ', 1)
    with pytest.raises(MixedUp, match="snapshot 1"):
        site.refreshed()


def test_a_snapshot_of_a_stranger_under_a_stolen_timestamp_key(site: Site) -> None:
    site.order(None)
    site.forge_snapshot(lambda _s: None, stranger())
    with pytest.raises(BadSignature, match="snapshot 2"):
        site.refreshed()


def test_a_snapshot_without_hashes_is_not_taken(site: Site) -> None:
    site.order(None)
    site.forge_timestamp(lambda t: setattr(t.snapshot_meta, "hashes", None))
    with pytest.raises(MixedUp, match="no length and SHA-256"):
        site.refreshed()


def test_a_snapshot_with_an_older_file_in_it(site: Site) -> None:
    site.publish()
    site.order(None)
    site.refreshed()
    site.pass_time(minutes=1)
    old = site.image["1.models.json"]
    site.forge_snapshot(lambda s: s.meta.update({"models.json": meta_of(1, old)}))
    with pytest.raises(RolledBack, match=r"models\.json"):
        site.refreshed()


def test_a_snapshot_from_which_a_role_is_gone(site: Site) -> None:
    site.order(None)
    site.refreshed()
    site.pass_time(minutes=1)
    site.forge_snapshot(lambda s: s.meta.pop("allowances.json"))
    with pytest.raises(RolledBack, match=r"allowances\.json is missing, but was named before"):
        site.refreshed()
    with pytest.raises(MixedUp, match="names no allowances"):
        site.verifier(home="new").refresh()


def test_a_snapshot_that_has_expired(site: Site) -> None:
    site.pass_time(days=366)
    site.stamp()
    site.order(None)
    with pytest.raises(Expired, match="snapshot 1"):
        site.refreshed()


def test_a_missing_file_that_is_named(site: Site) -> None:
    site.order(None)
    for name in ("1.snapshot.json", "1.software.json"):
        without = {n: d for n, d in site.image.items() if n != name}
        with pytest.raises(Missing, match=name):
            site.verifier(image=files_fetch(without), home=name).refresh()
    with pytest.raises(Missing, match=r"timestamp\.json"):
        site.verifier(image=files_fetch({"1.root.json": site.image["1.root.json"]}), home="bare").refresh()
