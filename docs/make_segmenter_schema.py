"""Writes docs/segmenter.schema.json, the JSON Schema of the segmenter protocol, from ``cellfleet.wire.segmenter``.

Run it with ``python docs/make_segmenter_schema.py``; ``tests/test_docs.py`` holds that the file is current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from cellfleet.wire import segmenter

FILE = Path(__file__).resolve().parent / "segmenter.schema.json"
REQUESTS = (
    segmenter.SegmentRequest,
    segmenter.SelfTestRequest,
    segmenter.TablesRequest,
    segmenter.PingRequest,
)
FIRST_LINES = (segmenter.Ready, segmenter.Refused)
ANSWERS = (segmenter.Segmented, segmenter.Failed, segmenter.SelfTestResult, segmenter.Tables, segmenter.Pong)


def schema() -> str:
    """The whole file. ``Request`` is what the agent writes, ``FirstLine`` and ``Answer`` what a program must write."""
    written = [(kind, "serialization") for kind in REQUESTS]
    read = [(kind, "validation") for kind in (*FIRST_LINES, *ANSWERS)]
    names, whole = models_json_schema([*written, *read])  # type: ignore[list-item]
    definitions: dict[str, Any] = whole["$defs"]
    groups = {"Request": REQUESTS, "FirstLine": FIRST_LINES, "Answer": ANSWERS}
    for group, kinds in groups.items():
        refs = [ref for (kind, _), ref in names.items() if kind in kinds]
        definitions[group] = {"oneOf": sorted(refs, key=lambda ref: ref["$ref"])}
    page = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The segmenter protocol, version 1",
        "description": "Lines between the agent and a segmenter program; docs/fleet.md says what each request promises.",
        "oneOf": [{"$ref": f"#/$defs/{group}"} for group in groups],
        "$defs": dict(sorted(definitions.items())),
    }
    return json.dumps(page, indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(schema(), encoding="utf-8")
    sys.stdout.write(f"wrote {FILE.name}\n")
