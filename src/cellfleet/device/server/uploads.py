"""Upload of one picture of the spool."""

from __future__ import annotations

import io

from cellfleet.api_client import ApiClient, PartRefused, ServerRefuses, upload
from cellfleet.canonical import sha256_hex
from cellfleet.device.server.spool import Picture
from cellfleet.errors import WireError
from cellfleet.wire.uploads import UploadRequest

_NOT_NOW = (401, 403)
"""The server refuses this instrument, not the picture."""
_EXPIRED = "url-expired"
"""Problem of a part that came too late: the next call gets new addresses."""


class PictureRefused(Exception):
    """This picture cannot be uploaded, now or later: its file is gone, or the server does not want it."""


def upload_picture(api: ApiClient, picture: Picture) -> None:
    """Upload a picture; the same call again (after a broken one) sends what has not arrived.

    Args:
        api: the server, as this device.
        picture: what, and where its file is.

    Raises:
        PictureRefused: it never can be.
        NetworkError: later, perhaps.
        ServerRefuses: the server refuses this instrument.
    """
    try:
        data = picture.path.read_bytes()
    except OSError as e:
        raise PictureRefused(f"its file cannot be read: {e.strerror}") from e
    if not data:
        raise PictureRefused("its file is empty")
    request = UploadRequest(
        kind=picture.kind,
        experiment=picture.experiment,
        frame=picture.frame,
        pin=picture.pin,
        sha256=sha256_hex(data),
        length=len(data),
    )
    try:
        upload(api, "/api/v1/uploads", request, io.BytesIO(data))
    except ServerRefuses as e:
        if e.code == _EXPIRED or (e.status in _NOT_NOW and not isinstance(e, PartRefused)):
            raise
        raise PictureRefused(f"the server answers {e.status}: {e.message}") from e
    except WireError as e:
        raise PictureRefused(f"the server's answer is not understood: {e.message}") from e
