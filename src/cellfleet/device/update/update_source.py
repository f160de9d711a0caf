"""Sources of updates, with the same checks: the fleet server, and an offline folder of ``trust export``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cellfleet.config.fleet import DeviceSection
from cellfleet.device.server.client import ServerClient
from cellfleet.device.system.home import Home
from cellfleet.device.system.identity import Identity, load_anchors
from cellfleet.device.update.journal import Update
from cellfleet.errors import DeviceError, NetworkError
from cellfleet.ports import Clock
from cellfleet.trust import Verifier, download, folder_fetch, http_fetch
from cellfleet.trust.artifact_download import Downloaded, take
from cellfleet.wire.enrol import TrustAnchors
from cellfleet.wire.states import ArtifactRef

Installed = Mapping[tuple[str, str], int]


class UpdateSource(Protocol):
    """Verifies releases with both repositories and downloads artifacts. Called from the agent's worker thread."""

    def check(self, update: Update, installed: Mapping[tuple[str, str], int]) -> None:
        """Refresh both repositories and verify that this device may install the release.

        Args:
            update: names the release.
            installed: release counter of the active slot by kind and name.

        Raises:
            TrustError: the repositories do not allow it.
            NetworkError: the repositories cannot be reached now.
        """
        ...

    def fetch(self, update: Update) -> Downloaded:
        """Download the artifact; resumes a partial download.

        Args:
            update: names the release that ``check`` verified.

        Raises:
            TrustError: the bytes are not those that both repositories name.
            NetworkError: the download was interrupted; a retry resumes it.
            StorageError: the disk refuses.
        """
        ...


class ServerSource:
    """The fleet server.

    Args:
        cancelled: set when the update was withdrawn; a running download stops.
    """

    def __init__(
        self, home: Home, client: ServerClient, settings: DeviceSection, clock: Clock, cancelled: threading.Event
    ) -> None:
        self._home, self._client, self._settings = home, client, settings
        self._clock, self._cancelled = clock, cancelled

    def check(self, update: Update, installed: Installed) -> None:
        base, http = f"{self._client.base_url}/api/v1/trust", self._client.http
        device_id = self._client.device_id
        verifier = Verifier(
            self._home.trust,
            anchors_of(self._home),
            http_fetch(http, f"{base}/image", clock=self._clock),
            http_fetch(http, f"{base}/director/{device_id}", self._client.headers, self._clock),
            self._clock,
            device_id=device_id,
        )
        try:
            verifier.refresh()
        except NetworkError:
            self._client.forget_token()  # an invalid token may be the reason
            raise
        verifier.check(update.release, installed)

    def fetch(self, update: Update) -> Downloaded:
        sha256 = update.release.sha256
        return download(
            self._client.http,
            f"{self._client.base_url}/api/v1/artifacts/{sha256}",
            update.release,
            self._home.downloads / sha256,
            clock=self._clock,
            headers=self._client.headers,
            min_free_bytes=_kept_free(self._settings),
            min_bytes_per_s=self._settings.min_bytes_per_s,
            progress=self._check_cancelled,
        )

    def _check_cancelled(self, _done: int, _total: int, _note: str) -> None:
        if self._cancelled.is_set():
            raise NetworkError("the update was withdrawn while it was being downloaded")


class FolderSource:
    """An offline folder: ``image/``, ``director/<device id>/``, ``artifacts/``."""

    def __init__(self, home: Home, folder: Path, device_id: str, settings: DeviceSection, clock: Clock) -> None:
        self._home, self._folder, self._device_id = home, folder, device_id
        self._settings, self._clock = settings, clock

    def check(self, update: Update, installed: Installed) -> None:
        verifier = self._verifier()
        verifier.refresh()
        verifier.check(update.release, installed)

    def fetch(self, update: Update) -> Downloaded:
        sha256 = update.release.sha256
        into = self._home.downloads / sha256
        return take(
            self._folder / "artifacts" / sha256, update.release, into, min_free_bytes=_kept_free(self._settings)
        )

    def offered(self) -> list[ArtifactRef]:
        """Models that both repositories of the folder name for this instrument, the newest last.

        Raises:
            TrustError: the folder cannot be trusted.
        """
        verifier = self._verifier()
        verifier.refresh()
        found = sorted((t for t in verifier.offered() if t.kind == "model"), key=lambda t: (t.name, t.counter))
        return [t.artifact for t in found]

    def _verifier(self) -> Verifier:
        return Verifier(
            self._home.trust,
            anchors_of(self._home),
            folder_fetch(self._folder / "image"),
            folder_fetch(self._folder / "director" / self._device_id),
            self._clock,
            device_id=self._device_id,
            offline=True,
        )


class UpdateSources:
    """Chooses the source of an update."""

    def __init__(
        self,
        home: Home,
        identity: Identity,
        client: ServerClient | None,
        settings: DeviceSection,
        clock: Clock,
        cancelled: threading.Event,
    ) -> None:
        self._home, self._identity, self._client = home, identity, client
        self._settings, self._clock, self._cancelled = settings, clock, cancelled

    def __call__(self, update: Update) -> UpdateSource:
        """The source of an update.

        Raises:
            DeviceError: the update comes from a server, and the instrument has none.
        """
        if update.folder:
            folder = Path(update.folder)
            return FolderSource(self._home, folder, self._identity.device_id, self._settings, self._clock)
        if self._client is None:
            raise DeviceError("this instrument has no server", hint="install from a folder, or provision it again")
        return ServerSource(self._home, self._client, self._settings, self._clock, self._cancelled)


def anchors_of(home: Home) -> TrustAnchors:
    """The trust anchors of this instrument.

    Raises:
        DeviceError: it has none, or their file is damaged.
    """
    anchors = load_anchors(home)
    if anchors is None:
        raise DeviceError(
            f"{home.identity} holds no trust anchors, so nothing can be installed",
            hint="provision this instrument again: `cellfleet device provision HOME ...`",
        )
    return anchors


def _kept_free(settings: DeviceSection) -> int:
    return round(settings.min_free_mb * 1e6)
