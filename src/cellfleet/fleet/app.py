"""The application: routers of the API, the pages, and what stands around every request."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import Any

from fastapi import FastAPI
from fastapi.middleware import Middleware

from cellfleet import __version__
from cellfleet.fleet import api, openapi, problems
from cellfleet.fleet.context import Context
from cellfleet.fleet.middleware import BodyLimit, Envelope


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
    for name in _topics():
        app.include_router(importlib.import_module(name).router)
    pages = _pages()
    if pages is not None:
        pages.mount(app, context)
    openapi.install(app)
    return app


def _topics() -> list[str]:
    found = (m.name for m in pkgutil.iter_modules(api.__path__, f"{api.__name__}."))
    return [name for name in found if hasattr(importlib.import_module(name), "router")]


def _pages() -> Any:
    name = "cellfleet.fleet.pages"
    module = importlib.import_module(name) if importlib.util.find_spec(name) else None
    return module if hasattr(module, "mount") else None
