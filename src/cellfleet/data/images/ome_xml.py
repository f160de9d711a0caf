"""What cellfleet takes from OME-XML (2016-06 and older namespaces alike)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

from cellfleet.data.files import damaged
from cellfleet.data.images.units import agreed_pixel_size, to_um

_MAX_XML = 64 << 20
_TIME_MS = {"ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3}


@dataclass(frozen=True)
class OmeImage:
    """The first image of an OME-XML document.

    Attributes:
        channels: names, one per channel; empty when the document names none of them.
        pixel_size_um: from PhysicalSizeX and PhysicalSizeY.
        metadata: image_name, exposure_ms, focus_um, time_s of the first plane, where present.
    """

    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def parse_ome_xml(text: str | None, source: str) -> OmeImage:
    """Read the first image's channel names, pixel size and first plane.

    Raises:
        ReadError: the XML is broken, or its pixels are not square.
    """
    if not text:
        return OmeImage()
    if len(text) > _MAX_XML:
        raise damaged(source, "its OME-XML is larger than 64 MB")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as e:
        raise damaged(source, f"its OME-XML is broken: {e}") from e
    image = next((e for e in root if _tag(e) == "Image"), None)
    pixels = next((e for e in image if _tag(e) == "Pixels"), None) if image is not None else None
    if image is None or pixels is None:
        return OmeImage()
    names = tuple(e.get("Name") or "" for e in pixels if _tag(e) == "Channel")
    size = agreed_pixel_size(_length(pixels, "PhysicalSizeX"), _length(pixels, "PhysicalSizeY"), source)
    return OmeImage(names if any(names) else (), size, _metadata(image, pixels))


def _tag(e: ElementTree.Element) -> str:
    return e.tag.rpartition("}")[2]


def _number(e: ElementTree.Element, key: str) -> float | None:
    try:
        value = float(e.get(key) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _length(e: ElementTree.Element, key: str) -> float | None:
    value, scale = _number(e, key), to_um(e.get(f"{key}Unit", "µm"))
    return None if value is None or scale is None else value * scale


def _metadata(image: ElementTree.Element, pixels: ElementTree.Element) -> dict[str, str]:
    out = {"image_name": image.get("Name") or ""}
    plane = next((e for e in pixels if _tag(e) == "Plane"), None)
    if plane is not None:
        exposure, delta = _number(plane, "ExposureTime"), _number(plane, "DeltaT")
        focus = _length(plane, "PositionZ") if plane.get("PositionZUnit") else None
        exposure_scale = _TIME_MS.get(plane.get("ExposureTimeUnit", "s"))
        delta_scale = _TIME_MS.get(plane.get("DeltaTUnit", "s"))
        out["exposure_ms"] = f"{exposure * exposure_scale:g}" if exposure is not None and exposure_scale else ""
        out["time_s"] = f"{delta * delta_scale / 1e3:g}" if delta is not None and delta_scale else ""
        out["focus_um"] = f"{focus:g}" if focus is not None else ""
    return {k: v for k, v in out.items() if v}
