"""The API of the fleet server as its clients use it: instruments (``device``) and people's programs (``cli``).

One place for what every client must do alike: read problems (RFC 9457), tell "later" (NetworkError, ServerBusy) from "no"
(ServerRefuses), renew a token that was refused, announce features, and send a file in parts.

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
