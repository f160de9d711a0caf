"""The segmenter protocol: messages between the agent and a segmenter program, one JSON object per line.

The program writes ``Ready`` or ``Refused`` first, then one ``Answer`` for each ``Request`` that it reads. A reader ignores
fields that it does not know, so either side may be newer. ``docs/segmenter.schema.json`` is generated
from this module; docs/fleet.md describes what each request does.

The agent reads leniently, because other vendors' programs run on instruments: texts are cleaned, an invalid memory size
counts as 0, and fields that programs omitted before there was a schema may be missing.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cellfleet.errors import WireError
from cellfleet.wire.base import Message, Text
from cellfleet.wire.plain_json import made_plain, words
from cellfleet.wire.telemetry_events import FrameTaken, SegmentedRow

PROTOCOL: Literal[1] = 1
REFUSED_EXIT = 3
"""Exit code of a program that refuses its bundle."""

FailureKind = Literal["frame", "disk", "model"]
"""Cause of a failure: the frame's bytes, the disk (a retry may succeed), or the model (all else)."""
_KINDS = ("frame", "disk", "model")
_DIGEST: dict[str, Any] = {"pattern": "^[0-9a-f]{64}$", "examples": ["2b77b9af54c8" + "0" * 52]}
_MOST_MB = 1e9


def _megabytes(value: Any) -> float:
    """Memory as a program reports it; 0 for an invalid size."""
    return float(value) if isinstance(value, int | float) and 0 <= value < _MOST_MB else 0.0


def _cleaned(value: Any) -> str:
    return words(value if isinstance(value, str) else str(value))


def _object(value: Any) -> Any:
    return made_plain(value) if isinstance(value, dict) else {}


def _paths(value: Any) -> dict[str, str]:
    files = value if isinstance(value, dict) else {}
    return {str(k): v for k, v in files.items() if isinstance(v, str)}


def _require_tag(schema: dict[str, Any]) -> None:
    """Every line names its kind, although our own classes know it by themselves."""
    tags = [tag for tag in ("do", "event") if "const" in schema["properties"].get(tag, {})]
    schema["required"] = [*tags, *(name for name in schema.get("required", []) if name not in tags)]


_LINE = ConfigDict(
    frozen=True,
    extra="ignore",
    allow_inf_nan=False,
    json_schema_extra=_require_tag,
    json_schema_serialization_defaults_required=True,
)
_SIZE: dict[str, Any] = {"minimum": 0, "description": "Resident memory of the program now."}
MemoryMb = Annotated[float, BeforeValidator(_megabytes), Field(json_schema_extra=_SIZE)]
CleanText = Annotated[Text, BeforeValidator(_cleaned)]
RequestId = Annotated[
    int, Field(ge=0, description="Number of the request, chosen by the agent; its answer repeats it.")
]


class Line(Message):
    """Base of the messages of this protocol: unknown fields are ignored."""

    model_config = _LINE


class FrameFacts(FrameTaken):
    """What the camera knows of a frame."""

    model_config = _LINE


class MaskRow(SegmentedRow):
    """The numbers of a mask."""

    model_config = _LINE


class SegmentRequest(Line):
    """Segment a frame and write the results.

    Attributes:
        frame: path of the raw file.
        channels: names of the file's channels, in order; empty: those of the model.
        pixel_size_um: counts before what the file says.
        default_pixel_size_um: where neither the request nor the file gives one.
        out: ``results/<experiment>``, made by the program.
        overlay: also write a picture of the outlines.
        thumbnail: path of a small picture to write; empty: none.
    """

    do: Literal["segment"] = "segment"
    id: RequestId = 0
    frame: str
    facts: FrameFacts
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    default_pixel_size_um: float | None = None
    out: str
    overlay: bool = True
    thumbnail: str = ""


class SelfTestRequest(Line):
    """Segment and score the golden frames of bundles; ``golden_of`` holds their paths."""

    do: Literal["selftest"] = "selftest"
    id: RequestId = 0
    golden_of: tuple[str, ...]


class TablesRequest(Line):
    """Write frames.csv and objects.csv of what is segmented so far in ``out``."""

    do: Literal["tables"] = "tables"
    id: RequestId = 0
    out: str


class PingRequest(Line):
    """Answer, and do nothing."""

    do: Literal["ping"] = "ping"
    id: RequestId = 0


class Ready(Line):
    """First line of a program that has loaded its bundle.

    Attributes:
        run_digest: digest of all that decides a mask: bundle, variant, engine, settings. Every row repeats it.
        variant: ``engine/precision``.
        origin: more about the run; plain JSON data.
    """

    event: Literal["ready"] = "ready"
    protocol: Literal[1]
    run_digest: CleanText = Field(json_schema_extra=_DIGEST)
    variant: CleanText
    engine: CleanText = ""
    engine_version: CleanText = ""
    memory_mb: MemoryMb = 0.0
    origin: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _before_the_schema(cls, data: Any) -> Any:
        return {"protocol": PROTOCOL, "run_digest": "", "variant": "", **data} if isinstance(data, dict) else data


class Refused(Line):
    """First and only line of a program that cannot use its bundle; it then exits with code 3."""

    event: Literal["refused"] = "refused"
    message: CleanText = ""
    hint: CleanText = ""


class Segmented(Line):
    """A frame has a mask on the disk.

    Attributes:
        files: kind (``mask``, ``overlay``, ``thumbnail``, ``thumbnail_overlay``) -> path.
    """

    event: Literal["segmented"] = "segmented"
    id: RequestId
    row: MaskRow
    files: Annotated[dict[str, str], BeforeValidator(_paths)] = Field(default={})
    memory_mb: MemoryMb = 0.0


class Failed(Line):
    """A request could not be done; ``id`` is null for a line that was not understood."""

    event: Literal["failed"] = "failed"
    id: RequestId | None
    kind: Annotated[FailureKind, BeforeValidator(lambda v: v if v in _KINDS else "model")] = "model"
    message: CleanText = ""
    hint: CleanText = ""
    memory_mb: MemoryMb = 0.0


class GoldenFrameResult(Line):
    """One golden frame: AP at IoU 0.5 against its ground truth, objects found, time."""

    name: CleanText
    ap50: float
    count: int
    ms: float


class GoldenResult(Line):
    """Golden frames of one bundle, segmented by the program's own model.

    Attributes:
        of: the bundle's path, as the request names it.
        ap50: mean AP at IoU 0.5 against the ground truth.
        agreement: AP at IoU 0.5 with the masks that the bundle expects of this variant; 1 when it expects none.
        least_ap50, least_agreement: what the bundle demands of this variant; 0 for another bundle.
        worst_ms: the slowest frame.
        problem: why they could not be segmented; empty: they were.
    """

    of: CleanText
    frames: tuple[GoldenFrameResult, ...] = ()
    ap50: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)
    least_ap50: float = Field(ge=0, le=1)
    least_agreement: float = Field(ge=0, le=1)
    worst_ms: float = Field(ge=0)
    problem: CleanText = ""


class SelfTestResult(Line):
    """Golden frames of all bundles of the request, in its order."""

    event: Literal["selftest"] = "selftest"
    id: RequestId
    results: tuple[GoldenResult, ...]
    memory_mb: MemoryMb = 0.0


class Tables(Line):
    """The tables are written; ``frames`` and ``objects`` are their numbers of rows."""

    event: Literal["tables"] = "tables"
    id: RequestId
    frames: int = Field(default=0, ge=0)
    objects: int = Field(default=0, ge=0)
    memory_mb: MemoryMb = 0.0


class Pong(Line):
    """The answer to a ping."""

    event: Literal["pong"] = "pong"
    id: RequestId
    memory_mb: MemoryMb = 0.0


Request = Annotated[SegmentRequest | SelfTestRequest | TablesRequest | PingRequest, Field(discriminator="do")]
FirstLine = Annotated[Ready | Refused, Field(discriminator="event")]
Answer = Annotated[Segmented | Failed | SelfTestResult | Tables | Pong, Field(discriminator="event")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_FIRST: TypeAdapter[FirstLine] = TypeAdapter(FirstLine)
_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


_REQUESTS = ("segment", "selftest", "tables", "ping")
T = TypeVar("T")


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        WireError: it holds no JSON object.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise WireError("not understood", hint="one JSON object per line") from e
    if not isinstance(found, dict):
        raise WireError("not understood", hint="one JSON object per line")
    return found


def read_request(data: dict[str, Any]) -> Request:
    """A request from plain JSON data.

    Raises:
        WireError: no such request; the text names the first wrong field.
    """
    if "do" in data and data["do"] not in _REQUESTS:
        raise WireError(f"unknown request {data['do']!r:.40}", hint="use an agent and a segmenter of matching versions")
    return _read(_REQUEST, data)


def read_first_line(data: dict[str, Any]) -> FirstLine:
    """The first line of a program from plain JSON data.

    Raises:
        WireError: no such line, or another protocol; the text names the first wrong field.
    """
    return _read(_FIRST, data)


def read_answer(data: dict[str, Any]) -> Answer:
    """An answer from plain JSON data.

    Raises:
        WireError: no such answer; the text names the first wrong field.
    """
    return _read(_ANSWER, data)


def _read(adapter: TypeAdapter[T], data: dict[str, Any]) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise WireError(f"{where}{': ' if where else ''}{first['msg']}", hint="see docs/fleet.md") from e
