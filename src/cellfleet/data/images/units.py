"""Lengths: what the files call a unit, in micrometres."""

from __future__ import annotations

import math

from cellfleet.errors import ReadError

_UM = {
    "pm": 1e-6, "å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "m": 1e6, "meter": 1e6, "metre": 1e6, "inch": 25400.0, "in": 25400.0,
}  # fmt: skip


def to_um(unit: str) -> float | None:
    """Micrometres in one ``unit``; None for a unit that is not a length (pixel).

    >>> to_um("mm"), to_um("pixel")
    (1000.0, None)
    """
    return _UM.get(unit.strip().rstrip("\x00").casefold())


def agreed_pixel_size(x_um: float | None, y_um: float | None, source: str) -> float | None:
    """One pixel size from the two sides; None when unknown.

    Raises:
        ReadError: the sides differ by more than 1 %.
    """
    known = [s for s in (x_um, y_um) if s is not None and math.isfinite(s) and s > 0]
    if not known:
        return None
    if max(known) > 1.01 * min(known):
        raise ReadError(
            f"{source}: pixels are not square ({x_um:g} um wide, {y_um:g} um high)", hint="resample it to square pixels"
        )
    return float(f"{known[0]:.9g}")
