"""What the server signs: for the right snapshot, for one device, always upward, and only with keys that the roots know."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellfleet.trust import Director, OnlineKeys, TrustFolder, renew_timestamp
from cellfleet.trust.layout import DirectorFacts, facts_of
from cellfleet.trust.metadata import load
from cellfleet.trust.online_signing import needs_renewal, next_version
from cellfleet.trust.refusals import BadMetadata, KeyTrouble
from cellfleet.trust.rotation import rotate
from cellfleet.trust.tuf_types import Snapshot, Targets, Timestamp
from support_trust import DEVICE, LIFE_S, START, Site, secret


def test_a_timestamp_names_the_snapshot_and_goes_upward(site: Site) -> None:
    snapshot = site.newest("snapshot")
    first = renew_timestamp(site.online.timestamp, snapshot, None, START, 60)
    second = renew_timestamp(site.online.timestamp, snapshot, first, START, 60)
    loaded = [load(Timestamp, d, "t").signed for d in (first, second)]
    assert loaded[0].version == int(START.timestamp())
    assert loaded[1].version == loaded[0].version + 1
    assert loaded[0].expires == START + timedelta(seconds=60)
    loaded[0].snapshot_meta.verify_length_and_hashes(snapshot)


def test_a_timestamp_is_renewed_at_half_its_life(site: Site) -> None:
    data = site.image["timestamp.json"]
    assert not needs_renewal(data, START + timedelta(seconds=LIFE_S / 2), LIFE_S)
    assert needs_renewal(data, START + timedelta(seconds=LIFE_S / 2 + 1), LIFE_S)


def test_damaged_files_are_told(site: Site) -> None:
    with pytest.raises(BadMetadata):
        renew_timestamp(site.online.timestamp, b"{}", None, START, 60)
    with pytest.raises(BadMetadata):
        needs_renewal(b"{}", START, 60)


@given(st.none() | st.integers(1, 2**50))
def test_versions_go_upward(previous: int | None) -> None:
    found = next_version(previous, START)
    assert found > (previous or 0)
    assert found >= int(START.timestamp())


def test_a_director_says_one_thing_to_one_device(site: Site) -> None:
    release = site.publish()
    made = Director(site.online.director).files(
        DEVICE, release, deployment_id=4, generation=9, version=5, now=START, life_s=60
    )
    assert sorted(made) == ["5.snapshot.json", "5.targets.json", "timestamp.json"]
    targets = load(Targets, made["5.targets.json"], "t").signed
    assert targets.unrecognized_fields["device_id"] == DEVICE
    (found,) = targets.targets.values()
    assert (found.path, found.length, found.hashes) == (
        release.target_path, release.length, {"sha256": release.sha256},
    )  # fmt: skip
    assert facts_of(DirectorFacts, found, "t") == DirectorFacts(
        release_counter=1, device_id=DEVICE, deployment_id=4, generation=9
    )
    load(Snapshot, made["5.snapshot.json"], "s").signed.meta["targets.json"].verify_length_and_hashes(
        made["5.targets.json"]
    )


def test_the_server_needs_no_offline_key(site: Site) -> None:
    for pem in (site.folder.path / "keys").glob("*.pem"):
        pem.unlink()
    OnlineKeys.load(site.folder.path, secret)


def test_online_keys_that_cannot_be_used(site: Site) -> None:
    path = site.folder.path
    with pytest.raises(KeyTrouble, match="wrong passphrase") as e:
        OnlineKeys.load(path, lambda _: "something else")
    assert "CELLFLEET_ONLINE_PASSPHRASE" in e.value.hint
    (path / "online" / "director.pem").unlink()
    with pytest.raises(KeyTrouble, match="director"):
        OnlineKeys.load(path, secret)
    with pytest.raises(KeyTrouble, match="not a trust folder"):
        OnlineKeys.load(path / "image", secret)


@pytest.mark.parametrize(("name", "repository"), [("timestamp", "image"), ("director", "director")])
def test_an_online_key_that_was_rotated_away_is_told(site: Site, name: str, repository: str) -> None:
    book = (site.folder.path / "keys.json").read_bytes()
    rotate(site.folder, name, secret, site.now)
    OnlineKeys.load(site.folder.path, secret)
    (site.folder.path / "keys.json").write_bytes(book)
    with pytest.raises(KeyTrouble, match=f"the {repository} repository's root 2 does not know the key {name}"):
        OnlineKeys.load(site.folder.path, secret)
    (site.folder.path / repository / "2.root.json").unlink()
    (site.folder.path / repository / "1.root.json").unlink()
    with pytest.raises(KeyTrouble, match="holds no root"):
        OnlineKeys.load(site.folder.path, secret)


def test_a_folder_that_lost_its_first_root_has_no_anchors(site: Site) -> None:
    (site.folder.path / "image" / "1.root.json").unlink()
    with pytest.raises(KeyTrouble, match="has no first root"):
        TrustFolder.load(site.folder.path).anchors()
