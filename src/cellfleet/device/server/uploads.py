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
"""Problem code of a part that came too late: the next call gets new addresses."""


class PictureRefused(Exception):
    """This picture can never be uploaded: its file is missing, or the server refuses it."""


def upload_picture(api: ApiClient, picture: Picture) -> None:
    """Upload a picture; after a broken upload, another call resumes it.

    Args:
        api: client of this device.
        picture: the picture and its file.

    Raises:
        PictureRefused: it can never be uploaded.
        NetworkError: the upload failed; a retry may succeed.
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
        raise PictureRefused(f"the server's answer is not valid: {e.message}") from e
