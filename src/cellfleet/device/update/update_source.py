"""Source of an update: the fleet server or an offline folder. ``update_sources`` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cellfleet.device.update.journal import Update
from cellfleet.trust.download import Downloaded


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
            TrustError: other bytes than both repositories name.
            NetworkError: it broke off; try again later.
            StorageError: the disk refuses.
        """
        ...
