"""The API's description: every operation with examples and the problems that it may answer, in the one format of errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cellfleet.fleet.openapi_examples import add_examples
from cellfleet.fleet.refusals import TITLES, RequestRefused
from cellfleet.wire.problem import PROBLEM_TYPE, Problem

PATH = "/api/v1/openapi.json"
DESCRIPTION = """The control plane of a fleet of instruments.

People authenticate with an API token (`Authorization: Bearer cft_...`) or a browser's session, devices with a
short-lived access token (`cfd_...`). Errors are problem details (RFC 9457); `type` ends in a code that programs can
rely on. Lists come in portions: `?limit=&after=`, `next` says where the next one begins."""
TAGS = {
    "server": "Health and version of the server.",
    "session": "Signing in and out.",
    "people": "People and their API tokens.",
    "provisioning": "How a device becomes a member of the fleet.",
    "devices": "Instruments: who they are, what they run, their groups and tags.",
    "groups": "Groups of devices, the targets of deployments.",
    "audit": "Who did what, when and why.",
    "device": "Desired state and reported state of an instrument.",
    "telemetry": "OTLP over HTTP.",
    "uploads": "Files in parts.",
    "artifacts": "Bytes that devices install.",
    "releases": "Artifact versions, signed and published.",
    "deployments": "Deployments of a release to a group, in phases.",
    "results": "What the instruments saw.",
    "lineage": "What stands behind a mask.",
    "trust": "Signed metadata of the two repositories.",
}
_CODES = {400: "bad-request", 401: "not-signed-in", 403: "forbidden", 404: "not-found", 405: "method-not-allowed"}
_ALWAYS = (400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 503, 507)


def install(app: FastAPI) -> None:
    """Replace the application's own description by ours; it is made once, when first asked for."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _describe(app: FastAPI) -> dict[str, Any]:
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    schema = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=tags,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )  # fmt: skip
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["responses"] = {str(status): _problem_response(status) for status in sorted({*TITLES})}
    for operation in _operations(schema):
        answers = operation.setdefault("responses", {})
        answers.pop("422", None)
        more = (*((415,) if "requestBody" in operation else ()), *((416,) if "206" in answers else ()))
        for status in (*_ALWAYS, *more):
            answers.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
        add_examples(operation, schemas)
    return schema


def _operations(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in schema.get("paths", {}).values():
        for method in ("get", "put", "post", "delete", "patch", "head"):
            if method in item:
                yield item[method]


def _problem_response(status: int) -> dict[str, Any]:
    code = _CODES.get(status, TITLES[status].lower().replace(" ", "-"))
    example = RequestRefused(status, code, "what is wrong here", hint="what to do next").problem("/api/v1/...")
    content = {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "example": example.model_dump(mode="json", exclude_defaults=True),
    }
    return {"description": TITLES[status], "content": {PROBLEM_TYPE: content}}
