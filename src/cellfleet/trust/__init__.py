"""Trust: two update repositories (TUF, Uptane). The publisher signs one offline; the director signs the other per instrument.

The three sides share only the formats: ``TrustFolder`` publishes, ``OnlineKeys`` and ``Director`` sign on the server,
``Verifier`` and ``download`` verify on an instrument.

>>> from datetime import UTC, datetime
>>> from pathlib import Path
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as d:
...     folder = TrustFolder.init(Path(d) / "trust", lambda key: "a long passphrase", datetime.now(UTC))
...     accepted = check_published({}, folder.image_files(), datetime.now(UTC))
>>> accepted.root_version, accepted.snapshot_name
(1, '1.snapshot.json')
"""

from cellfleet.trust.artifact_download import download
from cellfleet.trust.folder import TrustFolder
from cellfleet.trust.metadata_fetch import folder_fetch, http_fetch
from cellfleet.trust.online_signing import Director, OnlineKeys, renew_timestamp
from cellfleet.trust.publish import check_published
from cellfleet.trust.verify import Verifier

__all__ = [
    "Director",
    "OnlineKeys",
    "TrustFolder",
    "Verifier",
    "check_published",
    "download",
    "folder_fetch",
    "http_fetch",
    "renew_timestamp",
]
