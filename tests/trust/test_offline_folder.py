"""An exported folder: bound to its instruments, no online key involved, the same refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.errors import WireError
from cellfleet.trust import Verifier, folder_fetch
from cellfleet.trust.artifact_download import take
from cellfleet.trust.metadata import load, sign
from cellfleet.trust.metadata_builder import offline_delegator
from cellfleet.trust.offline_folder import OFFLINE_FILE, OfflineFolder, export
from cellfleet.trust.online_signing import director_targets
from cellfleet.trust.refusals import (
    BadMetadata,
    BadSignature,
    Downgrade,
    Expired,
    KeyTrouble,
    Missing,
    NotNamed,
    RolledBack,
    WrongBytes,
    WrongDevice,
)
from cellfleet.trust.rotation import rotate
from cellfleet.trust.tuf_types import Root, Targets
from cellfleet.wire.states import ArtifactRef
from support_trust import DEVICE, OTHER, Site, secret


@pytest.fixture
def bundle(site: Site) -> Path:
    """A published artifact."""
    return artifact(site, site.publish())


def artifact(site: Site, release: ArtifactRef) -> Path:
    path = site.root / f"{release.name}-{release.version}.zip"
    path.write_bytes(site.contents[release.sha256])
    return path


def exported(site: Site, *artifacts: Path, devices: tuple[str, ...] = (DEVICE,), out: str = "usb") -> OfflineFolder:
    return export(
        site.folder,
        site.root / out,
        devices=devices,
        artifacts=artifacts,
        life=timedelta(days=90),
        secrets=secret,
        now=site.now,
    )


def instrument(site: Site, device: str = DEVICE, folder: str = "usb", home: str = "home") -> Verifier:
    usb = site.root / folder
    return Verifier(
        site.root / home / device / "trust",
        site.anchors,
        folder_fetch(usb / "image"),
        folder_fetch(usb / "director" / device),
        site.clock,
        device_id=device,
        offline=True,
    )


def offered(site: Site, **where: str) -> list[str]:
    verifier = instrument(site, **where)
    verifier.refresh()
    return [t.version for t in verifier.offered()]


def test_a_folder_is_enough_to_install(site: Site, bundle: Path) -> None:
    done = exported(site, bundle, devices=(DEVICE, OTHER))
    assert (done.devices, [r.version for r in done.releases]) == ((DEVICE, OTHER), ["1.0.0"])
    for device in (DEVICE, OTHER):
        verifier = instrument(site, device)
        verifier.refresh()
        (found,) = verifier.offered()
        ref = done.releases[0].artifact
        assert verifier.check(ref, {}) == found
        assert found.deployment_id is None
        got = take(site.root / "usb" / "artifacts" / found.sha256, found, site.root / device)
        assert got.path.read_bytes() == bundle.read_bytes()


def test_no_online_key_is_needed_and_none_counts(site: Site, bundle: Path) -> None:
    shutil.rmtree(site.folder.path / "online")
    exported(site, bundle)
    assert not (site.root / "usb" / "image" / "timestamp.json").exists()
    assert offered(site) == ["1.0.0"]


def test_it_lives_longer_than_what_the_server_signs(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    site.pass_time(days=89)
    assert offered(site) == ["1.0.0"]
    site.pass_time(days=1)
    with pytest.raises(Expired, match="director repository, offline"):
        offered(site)


def test_it_is_bound_to_its_instruments(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    with pytest.raises(WrongDevice, match="holds no metadata for") as e:
        offered(site, device=OTHER)
    assert "--device" in e.value.hint
    director = site.root / "usb" / "director"
    shutil.copytree(director / DEVICE, director / OTHER)
    with pytest.raises(WrongDevice, match=DEVICE):
        offered(site, device=OTHER)


def forge(site: Site, key: str, change: Callable[[Targets], None] = lambda _t: None) -> None:
    path = site.root / "usb" / "director" / DEVICE / OFFLINE_FILE
    targets = load(Targets, path.read_bytes(), "offline").signed
    change(targets)
    path.write_bytes(sign(targets, [site.key(key)], site.now, timedelta(days=999)))


@pytest.mark.parametrize("key", ["director", "timestamp", "models", "snapshot", "targets", "root-1"])
def test_no_other_key_can_make_it(site: Site, bundle: Path, key: str) -> None:
    """Above all not the director's, which lies on a server."""
    exported(site, bundle)
    forge(site, key)
    with pytest.raises(BadSignature, match="offline"):
        offered(site)


def test_a_stolen_offline_key_cannot_install_what_is_not_published(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    evil = ArtifactRef(
        name="cells", version="9.0.0", counter=9, target_path="models/cells/9.0.0/abcdefabcdef.bundle.zip",
        sha256="0" * 64, length=3,
    )  # fmt: skip
    made = director_targets(DEVICE, [evil], None, 1, 1)
    forge(site, "allowances", lambda t: t.targets.update(made.targets))
    with pytest.raises(NotNamed, match="image repository"):
        offered(site)


def test_an_older_folder_after_a_newer_one(site: Site, bundle: Path) -> None:
    exported(site, bundle, out="old")
    site.pass_time(days=1)
    exported(site, bundle)
    assert offered(site, folder="old") == ["1.0.0"]
    assert offered(site) == ["1.0.0"]
    with pytest.raises(RolledBack, match="older than a folder"):
        offered(site, folder="old")


def test_an_older_image_repository_under_a_newer_order(site: Site, bundle: Path) -> None:
    exported(site, bundle, out="old")
    site.pass_time(days=1)
    second = artifact(site, site.publish("1.1.0"))
    exported(site, second)
    assert offered(site) == ["1.1.0"]
    shutil.rmtree(site.root / "old" / "director")
    shutil.copytree(site.root / "usb" / "director", site.root / "old" / "director")
    with pytest.raises(Missing, match=r"3\.snapshot\.json"):
        offered(site, folder="old", home="new")


def test_going_back_takes_an_allowance_here_too(site: Site, bundle: Path) -> None:
    site.publish("1.1.0")
    exported(site, bundle)
    verifier = instrument(site)
    verifier.refresh()
    ref = site.ref(verifier.offered()[0].target_path)
    with pytest.raises(Downgrade):
        verifier.check(ref, {("model", "cells"): 2})
    given: dict[str, Any] = {"kind": "model", "name": "cells", "from_counter": 2, "to_counter": 1}
    site.folder.allow(
        **given,
        device_id=DEVICE,
        expires=site.now + timedelta(days=30),
        reason="the new one misses cells",
        secrets=secret,
        now=site.now,
    )
    site.pass_time(minutes=1)
    exported(site, bundle)
    again = instrument(site)
    again.refresh()
    assert again.check(ref, {("model", "cells"): 2}).allowance == "the new one misses cells"


def test_an_instrument_may_be_online_and_offline_in_turn(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    assert offered(site) == ["1.0.0"]
    site.pass_time(hours=1)
    second = site.publish("1.1.0")
    site.order(second)
    assert site.refreshed().check(second, {("model", "cells"): 1}).version == "1.1.0"
    with pytest.raises(RolledBack, match="image repository, snapshot"):
        offered(site)
    exported(site, artifact(site, second))
    assert offered(site) == ["1.1.0"]
    site.stamp()
    site.order(second)
    site.refreshed()


def test_a_rotated_offline_key_is_taken_and_the_old_one_is_not(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    assert offered(site) == ["1.0.0"]
    old = (site.root / "usb" / "director" / DEVICE / OFFLINE_FILE).read_bytes()
    rotate(site.folder, "allowances", secret, site.now)
    site.pass_time(minutes=1)
    exported(site, bundle)
    assert offered(site) == ["1.0.0"]
    (site.root / "usb" / "director" / DEVICE / OFFLINE_FILE).write_bytes(old)
    with pytest.raises(BadSignature):
        offered(site)


def test_what_is_not_published_is_not_exported(site: Site, bundle: Path) -> None:
    bundle.write_bytes(b"other bytes")
    with pytest.raises(NotNamed, match="not published") as e:
        exported(site, bundle)
    assert "release publish" in e.value.hint
    assert not (site.root / "usb").exists()


def test_an_image_repository_that_has_expired_is_not_exported(site: Site, bundle: Path) -> None:
    site.pass_time(days=366)
    with pytest.raises(Expired):
        exported(site, bundle)


def test_a_device_id_that_is_none(site: Site, bundle: Path) -> None:
    for bad in ("../../etc", "dev-1", ""):
        with pytest.raises(WireError, match="device_id"):
            exported(site, bundle, devices=(bad,))
    assert not (site.root / "usb").exists()


def test_a_locked_key_is_told(site: Site, bundle: Path) -> None:
    (site.folder.path / "keys" / "allowances.pem").unlink()
    with pytest.raises(KeyTrouble, match="allowances"):
        exported(site, bundle)
    assert not (site.root / "usb").exists()


@pytest.mark.parametrize("field", ["image_snapshot", "device_id"])
def test_an_order_that_lacks_a_field(site: Site, bundle: Path, field: str) -> None:
    exported(site, bundle)
    forge(site, "allowances", lambda t: t.unrecognized_fields.pop(field))
    with pytest.raises((BadMetadata, WrongDevice)):
        offered(site)


def test_a_folder_for_another_instrument_leaves_nothing_behind(site: Site, bundle: Path) -> None:
    """Its version may be higher; if it were kept, the right folder would count as older."""
    exported(site, bundle)
    own = site.root / "usb" / "director" / DEVICE / OFFLINE_FILE
    right = own.read_bytes()
    site.pass_time(hours=1)
    exported(site, bundle, devices=(OTHER,), out="theirs")
    own.write_bytes((site.root / "theirs" / "director" / OTHER / OFFLINE_FILE).read_bytes())
    with pytest.raises(WrongDevice, match=OTHER):
        offered(site)
    own.write_bytes(right)
    assert offered(site) == ["1.0.0"]


def test_what_lies_on_the_disk_counts_as_seen_before_only_if_the_right_key_signed_it(site: Site, bundle: Path) -> None:
    exported(site, bundle)
    own = site.root / "usb" / "director" / DEVICE / OFFLINE_FILE
    right = own.read_bytes()
    forge(site, "models", lambda t: setattr(t, "version", 2**50))
    kept = site.root / "home" / DEVICE / "trust" / "director" / OFFLINE_FILE
    kept.parent.mkdir(parents=True)
    shutil.copyfile(own, kept)
    own.write_bytes(right)
    assert offered(site) == ["1.0.0"]


def test_the_offline_role_is_read_without_changing_the_root(site: Site) -> None:
    root = load(Root, site.director_files()["1.root.json"], "root").signed
    assert offline_delegator(root).to_dict() == offline_delegator(root).to_dict()


def test_an_export_says_until_when_and_is_carried_once(site: Site, bundle: Path) -> None:
    assert exported(site, bundle).expires == site.now + timedelta(days=90)
    carried = site.root / "usb" / "artifacts" / sha256_hex(bundle.read_bytes())
    before = carried.stat().st_ino
    exported(site, bundle)
    assert carried.stat().st_ino == before
    carried.write_bytes(b"damaged")
    exported(site, bundle)
    assert carried.read_bytes() == bundle.read_bytes()


def test_an_artifact_that_changes_while_it_is_copied(site: Site, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(_source: Path, target: Path) -> None:
        target.write_bytes(b"written to meanwhile")

    monkeypatch.setattr("shutil.copyfile", copy)
    with pytest.raises(WrongBytes, match="changed while it was copied"):
        exported(site, bundle)
    assert list((site.root / "usb" / "artifacts").iterdir()) == []
