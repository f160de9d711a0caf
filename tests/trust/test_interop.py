"""Both repositories are plain TUF: python-tuf's own client, which shares no code with our walk, reads them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from cellfleet.trust.rotation import rotate
from support_trust import DEVICE, Site, secret


class Files(FetcherInterface):
    """Files of a dictionary, below any address."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise DownloadHTTPError(f"no {name}", 404)
        yield self.files[name]


def client(root: Path, files: dict[str, bytes]) -> Updater:
    (root / "client").mkdir(parents=True, exist_ok=True)
    return Updater(str(root / "client"), "http://host/", fetcher=Files(files), bootstrap=files["1.root.json"])


@pytest.fixture
def live(tmp_path: Path) -> Site:
    """A site of today, for that client looks at the clock of this machine; a few keys were rotated."""
    site = Site(tmp_path, None)
    site.clock.at = datetime.now(UTC)
    for name in ("root-1", "snapshot", "models", "director"):
        rotate(site.folder, name, secret, site.now)
    site.serve()
    return site


def test_the_image_repository(live: Site, tmp_path: Path) -> None:
    release = live.publish()
    updater = client(tmp_path / "image", live.image)
    updater.refresh()
    found = updater.get_targetinfo(release.target_path)
    assert found is not None
    assert (found.hashes, found.length) == ({"sha256": release.sha256}, release.length)
    assert found.custom["release_counter"] == 1
    assert updater.get_targetinfo("models/cells/9.9.9/000000000000.bundle.zip") is None


def test_the_director(live: Site, tmp_path: Path) -> None:
    release = live.publish()
    live.order(release)
    found = client(tmp_path / "director", live.director_files()).get_targetinfo(release.target_path)
    assert found is not None
    assert found.custom["device_id"] == DEVICE


def test_that_client_refuses_what_ours_refuses(live: Site, tmp_path: Path) -> None:
    live.forge_image("models", lambda _t: None, live.key("snapshot"))
    updater = client(tmp_path / "image", live.image)
    with pytest.raises(RepositoryError):
        updater.get_targetinfo("models/cells/1.0.0/000000000000.bundle.zip")
