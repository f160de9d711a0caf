"""Where an update comes from, as the agent asks it: the fleet server or an offline folder. ``sources`` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cellfleet.device.update.journal import Update
from cellfleet.trust.download import Downloaded


class UpdateSource(Protocol):
    """Asks both repositories, and brings the artifact. Called from the agent's worker thread."""

    def check(self, update: Update, installed: Mapping[tuple[str, str], int]) -> None:
        """Refresh both repositories and ask them whether this device may install the release.

        Args:
            update: names the release.
            installed: release counter of the active slot by kind and name.

        Raises:
            TrustError: no.
            NetworkError: they cannot be asked now.
        """
        ...

    def fetch(self, update: Update) -> Downloaded:
        """Bring the artifact that was checked; goes on where it stopped.

        Raises:
            TrustError: other bytes than both repositories name.
            NetworkError: later, perhaps.
            StorageError: the disk refuses.
        """
        ...
