"""The application: routers of the API, the pages, and what stands around every request."""

from __future__ import annotations

from types import ModuleType

from fastapi import FastAPI
from fastapi.middleware import Middleware

from cellfleet._version import __version__
from cellfleet.fleet import openapi, problems
from cellfleet.fleet.api import (  # fmt: skip
    artifacts,
    audit,
    claims,
    deployments,
    device_state,  # fmt: skip
    devices,
    groups,
    health,
    lineage,
    people,
    releases,
    results,
    session,
    telemetry,
    trust,
    uploads,
)
from cellfleet.fleet.context import Context
from cellfleet.fleet.middleware import BodyLimit, Envelope
from cellfleet.fleet.pages import registration

TOPICS: tuple[ModuleType, ...] = (
    health, session, people, claims, devices, groups, device_state, trust, artifacts, uploads, releases, deployments, telemetry,
    results, lineage, audit,
)  # fmt: skip
"""Modules whose ``router`` is a part of the API, in the order of its description."""


def create_app(context: Context) -> FastAPI:
    """The fleet server as an ASGI application; ``context`` stays the caller's to close."""
    max_bytes = int(context.settings.max_body_mb * 1_000_000)
    app = FastAPI(
        title="cellfleet",
        version=__version__,
        openapi_url=openapi.PATH,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Envelope, https=context.address.startswith("https:"), defect=problems.defect),
            Middleware(BodyLimit, max_bytes=max_bytes),
        ],
    )
    app.state.context = context
    problems.install(app)
    for topic in TOPICS:
        app.include_router(topic.router)
    registration.mount(app, context)
    openapi.install(app)
    return app
