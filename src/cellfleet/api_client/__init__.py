"""The client side of the fleet server's API, used by instruments (``device``) and the command line (``cli``).

It implements what every client must do in the same way: read problems (RFC 9457), separate temporary failures (NetworkError,
ServerBusy) from refusals (ServerRefuses), renew a refused token, announce features, and upload a file in parts.

>>> from cellfleet.ports.http import Response
>>> problem = b'{"type": "urn:cellfleet:problem:gate-failed", "title": "Conflict", "status": 409, "detail": "AP50 is 0.1"}'
>>> try:
...     check(Response(409, {}, problem), "POST /api/v1/releases")
... except ServerRefuses as e:
...     print(e.code, "|", e)
gate-failed | AP50 is 0.1
"""

from cellfleet.api_client.answers import ServerBusy, ServerRefuses, check
from cellfleet.api_client.client import ApiClient, TokenSource
from cellfleet.api_client.uploads import PartRefused, upload

__all__ = ["ApiClient", "PartRefused", "ServerBusy", "ServerRefuses", "TokenSource", "check", "upload"]
