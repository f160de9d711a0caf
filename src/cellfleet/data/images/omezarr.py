"""OME-Zarr images (0.4 and 0.5): the folder's bytes first, so that the digest and the pixels belong together.

Level 0, the full resolution, is read. An image of several times or z planes is refused unless one is named. The folder of
a plate is refused with the names of its images. Metadata is checked by yaozarrs; pixels are read by zarr from memory.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from cellfleet.data.files import check_size, damaged, read_bytes
from cellfleet.data.images.frame import Decoded
from cellfleet.data.images.units import agreed_pixel_size, to_um
from cellfleet.errors import ReadError

_MISSING = "OME-Zarr needs libraries that are not installed"
_EXTRA = "pip install 'cellfleet[formats]'"


def load_tree(folder: Path) -> dict[str, bytes]:
    """All files of an OME-Zarr image by their ``/``-separated relative names; labels and lower resolutions are left out.

    Raises:
        ReadError: not an OME-Zarr image, or unreadable.
    """
    if not any((folder / name).is_file() for name in (".zattrs", "zarr.json")):
        raise ReadError(f"{folder}: not an OME-Zarr image", hint="name the folder that holds zarr.json or .zattrs")
    level = str(_multiscale(_attributes(folder), str(folder)).datasets[0].path)
    out: dict[str, bytes] = {}
    for name in (".zattrs", ".zgroup", "zarr.json"):
        if (folder / name).is_file():
            out[name] = read_bytes(folder / name)
    base = folder / level
    if not base.resolve().is_relative_to(folder.resolve()) or not base.is_dir():
        raise damaged(str(folder), f"level {level!r} is not there")
    for here, _, files in os.walk(base):
        for name in files:
            path = Path(here) / name
            try:
                out[path.relative_to(folder).as_posix()] = path.read_bytes()
            except OSError as e:
                raise ReadError(f"{path}: {e.strerror}", hint="check the permissions and the disk") from e
    return out


def decode_zarr(files: Mapping[str, bytes], source: str, *, time: int | None, z: int | None) -> Decoded:
    """Decode what ``load_tree`` read: [C, H, W], channel names from omero, pixel size from the scale in um.

    Raises:
        ReadError: damaged, several times or z planes of which none is named, or a library is missing.
    """
    attributes = _parse(files, source)
    image = _multiscale(attributes, source)
    axes = [str(a.name) for a in image.axes]
    array = _open(files, str(image.datasets[0].path), source)
    if len(axes) != array.ndim or axes[-2:] != ["y", "x"] or set(axes) - set("tczyx"):
        raise ReadError(
            f"{source}: axes {axes} of an array of shape {list(array.shape)}", hint="save it with axes t c z y x"
        )
    chosen = tuple(
        _plane(n, int(array.shape[i]), {"z": z, "t": time}[n], source) if n in "zt" else slice(None)
        for i, n in enumerate(axes)
    )
    check_size(math.prod(n for n, c in zip(array.shape, chosen, strict=True) if isinstance(c, slice)), source)
    try:
        pixels: NDArray[Any] = np.asarray(array[chosen])
    except Exception as e:  # zarr's codecs raise errors of their own
        raise damaged(source, str(e)) from e
    pixels = pixels if "c" in axes else pixels[None]
    names = tuple(str(c.get("label", "")) for c in _omero(attributes))
    return Decoded(pixels, names if len(names) == pixels.shape[0] else (), pixel_size_um=_pixel_size(image, source))


def _plane(name: str, count: int, wanted: int | None, source: str) -> int:
    if wanted is None and count > 1:
        raise ReadError(
            f"{source}: {count} planes along {name}, one is needed", hint="save one time and one z plane per image"
        )
    if wanted is not None and not 0 <= wanted < count:
        raise ReadError(f"{source}: no plane {wanted} along {name}, there are {count}", hint="count from 0")
    return wanted or 0


def _attributes(folder: Path) -> dict[str, Any]:
    files = {n: read_bytes(folder / n) for n in (".zattrs", "zarr.json") if (folder / n).is_file()}
    return _parse(files, str(folder))


def _parse(files: Mapping[str, bytes], source: str) -> dict[str, Any]:
    try:
        if "zarr.json" in files:
            value = json.loads(files["zarr.json"]).get("attributes", {}).get("ome", {})
        else:
            value = json.loads(files[".zattrs"])
    except (ValueError, KeyError, AttributeError) as e:
        raise damaged(source, f"its metadata: {e}") from e
    return value if isinstance(value, dict) else {}


def _multiscale(attributes: dict[str, Any], source: str) -> Any:
    """The image's pyramid, checked against the schema of its version; omero is left out, writers differ too much."""
    if "plate" in attributes or "well" in attributes:
        raise ReadError(f"{source}: a plate or a well, not an image", hint="name one field, such as plate.zarr/A/1/0")
    found = attributes.get("multiscales")
    if not isinstance(found, list) or not found:
        raise ReadError(f"{source}: no OME-Zarr image (no multiscales)", hint="name the folder of one image")
    try:
        from yaozarrs import v04, v05
    except ImportError as e:
        raise ReadError(f"{source}: {_MISSING}", hint=_EXTRA) from e
    kind = v05.Image if "version" in attributes else v04.Image
    document = {k: attributes[k] for k in ("version", "multiscales") if k in attributes}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice to writers of files, such as the preferred names of units
            return kind.model_validate(document).multiscales[0]
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReadError(
            f"{source}: not valid OME-Zarr 0.4 or 0.5: {where}: {first['msg']}", hint="write it again as 0.4 or 0.5"
        ) from e


def _omero(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    channels = attributes.get("omero", {}).get("channels", [])
    return [c for c in channels if isinstance(c, dict)] if isinstance(channels, list) else []


def _pixel_size(image: Any, source: str) -> float | None:
    sides: list[float | None] = []
    for i in (-1, -2):
        unit = to_um(str(getattr(image.axes[i], "unit", None) or ""))
        scale = _scale(image.datasets[0].coordinateTransformations, i) * _scale(image.coordinateTransformations, i)
        sides.append(None if unit is None else scale * unit)
    return agreed_pixel_size(sides[0], sides[1], source)


def _scale(transformations: Any, axis: int) -> float:
    return math.prod(float(t.scale[axis]) for t in transformations or [] if t.type == "scale")


def _open(files: Mapping[str, bytes], level: str, source: str) -> Any:
    try:
        import zarr
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import MemoryStore
    except ImportError as e:
        raise ReadError(f"{source}: {_MISSING}", hint=_EXTRA) from e
    make = default_buffer_prototype().buffer.from_bytes
    try:
        return zarr.open_array(
            MemoryStore({k: make(v) for k, v in files.items()}, read_only=True), path=level, mode="r"
        )
    except Exception as e:  # zarr's errors share no base
        raise damaged(source, str(e).splitlines()[0] if str(e) else type(e).__name__) from e
