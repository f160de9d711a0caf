"""The pages as part of the application: routers, static files, the page of an error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from cellfleet.fleet.context import Context
from cellfleet.fleet.pages.page_request import error_page
from cellfleet.fleet.pages.rendering import STATIC
from cellfleet.fleet.pages.views import (
    audit_pages,
    deployment_pages,
    device_pages,
    fleet_pages,
    people_pages,
    provisioning_pages,
    release_pages,
    sign_in_pages,
)


class KeptFiles(StaticFiles):
    """Static files; one whose address has a digest is cached by browsers permanently."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code in (200, 304):
            kept = scope.get("query_string", b"").startswith(b"v=")
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
        return response


def mount(app: FastAPI, context: Context) -> None:
    """Add the pages to an application whose ``state.context`` is ``context``."""
    app.state.context = context
    modules: tuple[Any, ...] = (
        fleet_pages, device_pages, deployment_pages, release_pages, provisioning_pages, people_pages, audit_pages, sign_in_pages,
    )  # fmt: skip
    for module in modules:
        app.include_router(module.router)
    app.mount("/static", KeptFiles(directory=STATIC), name="static")
    app.state.error_page = error_page
