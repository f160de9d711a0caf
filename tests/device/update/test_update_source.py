"""Updates out of both repositories, over the (simulated) network and out of a folder, with real signatures."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from cellfleet.device.server.client import ServerClient
from cellfleet.device.system.identity import save_anchors
from cellfleet.device.update.install_requests import InstallRequest, put_request
from cellfleet.device.update.update_source import FolderSource, ServerSource, UpdateSources, anchors_of
from cellfleet.errors import DeviceError, TrustError
from cellfleet.trust.offline_folder import export
from cellfleet.wire.reason import english
from cellfleet.wire.states import ArtifactRef, ReleaseRef
from simulators.server import URL
from simulators.world import World
from support_device import Releases
from support_trust import Site, make_folder, secret


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("trust") / "trust").path


class Fleet:
    """A publisher with real keys, its server, and one instrument."""

    def __init__(self, root: Path, template: Path, releases: Releases) -> None:
        self.site = Site(root / "site", template)
        self.world = World(root / "home", releases.files)
        self.site.clock.at = self.world.clock.at = self.site.clock.at + timedelta(hours=1)
        self.world.clock = self.site.clock
        self.world.server.clock = self.site.clock
        save_anchors(self.world.home, self.site.anchors)
        self.world.boot()
        client = ServerClient(URL, self.world.identity, self.world.server, self.world.clock)
        self.cancelled = threading.Event()
        self.world.source = ServerSource(
            self.world.home, client, self.world.settings.device, self.world.clock, self.cancelled
        )
        self.world.boot()

    @property
    def device_id(self) -> str:
        return self.world.record.device_id

    def publish(self, release: ReleaseRef, files: dict[str, Path]) -> ReleaseRef:
        published = self.site.publish(release.version, files[release.sha256].read_bytes(), name="tiny")
        return ReleaseRef(release_id=release.release_id, **published.model_dump())

    def serve(self, ordered: ArtifactRef | None) -> None:
        """The director orders something, and the server has all files."""
        self.site.order(ordered, device=self.device_id)
        files = self.world.server.files
        files |= {f"/api/v1/trust/image/{n}": d for n, d in self.site.image.items()}
        files |= {
            f"/api/v1/trust/director/{self.device_id}/{n}": d
            for n, d in self.site.director_files(self.device_id).items()
        }
        files |= {f"/api/v1/artifacts/{sha256}": data for sha256, data in self.site.contents.items()}


@pytest.fixture
def fleet(tmp_path: Path, template: Path, releases: Releases) -> Fleet:
    return Fleet(tmp_path, template, releases)


def test_what_both_repositories_name_is_installed(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    world.desire(old)
    world.run(world.idle)
    assert world.update.outcome == "succeeded", world.update.reason
    new = fleet.publish(releases.new, releases.files)
    fleet.serve(new)
    world.desire(new)
    world.run(lambda: world.idle() and world.update.deployment_id == world.generation)
    assert (world.update.outcome, world.active) == ("succeeded", new.sha256)
    assert world.update.bytes_downloaded == new.length
    assert list(world.home.downloads.iterdir()) == []


def test_a_broken_line_is_gone_on_with(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    world.server.break_after = old.length // 2
    world.desire(old)
    world.run(world.idle)
    assert world.update.outcome == "succeeded"
    assert world.update.attempts >= 1
    assert world.update.bytes_downloaded == old.length, "each byte came once"


def test_what_only_the_director_names_is_refused(fleet: Fleet, releases: Releases) -> None:
    fleet.serve(releases.old)
    fleet.world.desire(releases.old)
    fleet.world.run(fleet.world.idle)
    assert fleet.world.update.outcome == "refused"
    assert fleet.world.active == ""


def test_what_only_the_image_repository_names_is_refused(fleet: Fleet, releases: Releases) -> None:
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(None)
    fleet.world.desire(old)
    fleet.world.run(fleet.world.idle)
    assert fleet.world.update.outcome == "refused"


def test_other_bytes_are_refused(fleet: Fleet, releases: Releases) -> None:
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    path = f"/api/v1/artifacts/{old.sha256}"
    fleet.world.server.files[path] = bytes(len(fleet.world.server.files[path]))
    fleet.world.desire(old)
    fleet.world.run(fleet.world.idle)
    assert fleet.world.update.outcome == "refused"
    assert fleet.world.active == ""


def test_a_lower_counter_is_refused(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    new = fleet.publish(releases.new, releases.files)
    fleet.serve(new)
    world.desire(new)
    world.run(world.idle)
    fleet.serve(old)
    world.desire(old)
    world.run(lambda: world.idle() and world.update.deployment_id == world.generation)
    assert (world.update.outcome, world.active) == ("refused", new.sha256)


def test_a_server_with_trouble_is_asked_again(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    world.desire(old)
    world.server_sync.step()
    world.server.broken = 500
    for _ in range(30):
        world.tick(10)
    assert world.update.waits > 1
    assert world.active == ""
    world.server.broken = 0
    world.run(world.idle, seconds=10)
    assert world.update.outcome == "succeeded"


def test_without_anchors_nothing_is_installed(fleet: Fleet) -> None:
    (fleet.world.home.identity / "anchors.json").unlink()
    with pytest.raises(DeviceError, match="no trust anchors"):
        anchors_of(fleet.world.home)


def exported(fleet: Fleet, releases: Releases, out: Path, device_id: str = "") -> ArtifactRef:
    old = fleet.publish(releases.old, releases.files)
    export(
        fleet.site.folder,
        out,
        devices=[device_id or fleet.device_id],
        artifacts=[releases.files[old.sha256]],
        life=timedelta(days=30),
        secrets=secret,
        now=fleet.site.now,
    )
    return old


def test_a_folder_is_a_source_under_the_same_checks(fleet: Fleet, releases: Releases, tmp_path: Path) -> None:
    world, folder = fleet.world, tmp_path / "stick"
    old = exported(fleet, releases, folder)
    world.server.away = True
    source = FolderSource(world.home, folder, fleet.device_id, world.settings.device, world.clock)
    offered = source.offered()
    assert [(r.sha256, r.counter, r.target_path) for r in offered] == [(old.sha256, old.counter, old.target_path)]
    world.source = source
    request = InstallRequest(name="install-1", folder=str(folder), release=offered[0], asked_at=world.clock.now())
    put_request(world.home, request)
    world.run(world.idle)
    assert (world.update.outcome, world.active) == ("succeeded", old.sha256)
    assert world.update.bytes_downloaded == 0
    assert (folder / "artifacts" / old.sha256).is_file(), "the folder stays as it was"


def test_a_folder_for_another_instrument_is_refused(fleet: Fleet, releases: Releases, tmp_path: Path) -> None:
    folder = tmp_path / "stick"
    exported(fleet, releases, folder, "dev-000000000000")
    (folder / "director" / "dev-000000000000").rename(folder / "director" / fleet.device_id)
    source = FolderSource(fleet.world.home, folder, fleet.device_id, fleet.world.settings.device, fleet.world.clock)
    with pytest.raises(TrustError):
        source.offered()


def test_a_folder_with_other_bytes_is_refused(fleet: Fleet, releases: Releases, tmp_path: Path) -> None:
    world, folder = fleet.world, tmp_path / "stick"
    old = exported(fleet, releases, folder)
    (folder / "artifacts" / old.sha256).write_bytes(bytes(old.length))
    world.source = FolderSource(world.home, folder, fleet.device_id, world.settings.device, world.clock)
    put_request(world.home, InstallRequest(name="i1", folder=str(folder), release=old, asked_at=world.clock.now()))
    world.run(world.idle)
    assert (world.update.outcome, world.active) == ("refused", "")


def test_an_instrument_without_a_server_has_no_server_source(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    sources = UpdateSources(world.home, world.identity, None, world.settings.device, world.clock, fleet.cancelled)
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    world.desire(old)
    world.run(world.idle)
    with pytest.raises(DeviceError, match="no server"):
        sources(world.update)


def test_a_nearly_full_disk_means_no_download(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    client = ServerClient(URL, world.identity, world.server, world.clock)
    settings = world.settings.device.model_copy(update={"min_free_mb": 1e12})
    world.source = ServerSource(world.home, client, settings, world.clock, fleet.cancelled)
    world.desire(old)
    world.run(lambda: world.update.attempts == 1)
    assert world.update.bytes_downloaded == 0
    world.tick()
    told = world.server.reports[-1].update
    assert told is not None
    assert "free" in told.reason
    world.source = ServerSource(world.home, client, world.settings.device, world.clock, fleet.cancelled)
    world.run(world.idle, seconds=10)
    assert world.active == old.sha256


def test_a_withdrawn_download_is_broken_off(fleet: Fleet, releases: Releases) -> None:
    world = fleet.world
    old = fleet.publish(releases.old, releases.files)
    fleet.serve(old)
    world.desire(old)
    world.run(world.idle)
    new = fleet.publish(releases.new, releases.files)
    fleet.serve(new)
    world.desire(new)
    fleet.cancelled.set()
    world.run(lambda: world.update.attempts == 1)
    assert "withdrawn" in english(world.update.reason)
    assert world.update.bytes_downloaded < new.length
