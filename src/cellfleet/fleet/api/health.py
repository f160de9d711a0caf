"""Health and version of the server."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import text

from cellfleet._version import __version__
from cellfleet.fleet.api.dependencies import Ctx
from cellfleet.wire import PROTOCOL, Message

router = APIRouter(tags=["server"])


class Alive(Message):
    """The server answers."""

    status: str = Field(examples=["ok"])


class VersionAnswer(Message):
    """Versions of the program and of the messages between devices and server."""

    version: str = Field(examples=["0.2.0"])
    protocol: int = Field(examples=[1])


@router.get("/healthz", summary="Alive?", description="Answers while the process runs; checks nothing else.")
async def healthz() -> Alive:
    return Alive(status="ok")


@router.get("/readyz", summary="Ready?", description="Answers while the database answers; 503 otherwise.")
def readyz(context: Ctx) -> Alive:
    with context.reading() as db:
        db.execute(text("SELECT 1"))
    return Alive(status="ready")


@router.get("/version", summary="Version", description="Of the program and of the messages.")
async def version() -> VersionAnswer:
    return VersionAnswer(version=__version__, protocol=PROTOCOL)
