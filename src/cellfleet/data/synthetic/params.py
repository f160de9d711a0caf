"""What a synthetic scene is made of: every effect is a number with a unit, a default and bounds."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellfleet.config import nearest
from cellfleet.errors import DataError


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class CellKind(_Part):
    """One kind of cell: its shape, its behaviour and how it refracts light."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="name; the stratum of its images")
    density_per_mm2: float = Field(default=280, ge=0, le=20000, description="cells per mm2 at the start")
    clustering: float = Field(default=0.4, ge=0, le=1, description="share of cells that start beside another one")
    radius_um: float = Field(default=15, ge=2, le=100, description="radius of a disc of the mean area, um")
    size_spread: float = Field(default=0.18, ge=0, le=0.6, description="spread of sizes (standard deviation / mean)")
    elongation: float = Field(default=1.8, ge=1, le=6, description="length / width of the body without protrusions")
    lobes: int = Field(default=4, ge=0, le=6, description="most protrusions of a cell")
    lobe_reach: float = Field(default=1.5, ge=0, le=3, description="length of a protrusion / radius of the body")
    roughness: float = Field(default=0.1, ge=0, le=0.4, description="waviness of the outline / radius")
    speed_um_h: float = Field(default=14, ge=0, le=200, description="speed, um per hour")
    persistence_h: float = Field(default=3, gt=0, le=100, description="time in which a cell forgets its heading, hours")
    growth: float = Field(default=1, ge=0, le=2, description="gain of area from birth to division / area at birth")
    division_h: float = Field(default=20, gt=0, le=10000, description="mean time from birth to division, hours")
    division_spread: float = Field(default=0.15, ge=0, le=0.4, description="spread of that time (deviation / mean)")
    mitosis_h: float = Field(default=0.9, gt=0, le=5, description="a dividing cell is round for so long, hours")
    rounded_area: float = Field(default=0.36, gt=0.1, le=1, description="area of a rounded cell / area before")
    death_per_h: float = Field(default=0.008, ge=0, le=1, description="chance to begin to die, per hour")
    dying_h: float = Field(default=2.5, gt=0, le=50, description="time from the start of dying until it is gone, hours")
    phase_rad: float = Field(default=0.26, ge=0, le=12, description="phase shift of light through the body, radians")
    rounded_rad: float = Field(
        default=5.5, gt=0, le=12, description="phase shift through a rounded cell, which is thick, radians"
    )
    flatness: float = Field(default=0.75, ge=0, le=1, description="0: a dome, 1: a flat sheet with a steep edge")
    texture: float = Field(default=0.5, ge=0, le=2, description="granules and mottling / phase of the body")
    nucleus_rad: float = Field(default=0.07, ge=0, le=2, description="additional phase shift of the nucleus, radians")

    @model_validator(mode="after")
    def _times_fit(self) -> CellKind:
        if self.division_h <= 2 * self.mitosis_h:
            raise ValueError(f"division_h {self.division_h:g} must be more than twice mitosis_h {self.mitosis_h:g}")
        return self


SPREAD = CellKind(name="spread")
ROUND = CellKind(
    name="round", density_per_mm2=420, clustering=0.6, radius_um=9.5, size_spread=0.14, elongation=1.25, lobes=1,
    lobe_reach=0.35, roughness=0.05, speed_um_h=7, persistence_h=1.5, division_h=24, rounded_area=0.62,
    death_per_h=0.006, phase_rad=2.9, flatness=0.1, texture=0.09, nucleus_rad=0.15,
)  # fmt: skip


class SceneParams(_Part):
    """One scene: the frame, the kinds of cells in it, the optics and the camera.

    Raises:
        DataError: an unknown name or a value out of bounds (through :func:`scene_params` and :meth:`changed`).
    """

    height_px: int = Field(default=448, ge=64, le=8192, description="height of a frame, pixels")
    width_px: int = Field(default=448, ge=64, le=8192, description="width of a frame, pixels")
    pixel_size_um: float = Field(default=0.8, ge=0.05, le=10, description="side of a pixel on the specimen, um")
    frame_interval_s: float = Field(default=600, ge=1, le=7200, description="time between two frames, seconds")
    kinds: tuple[CellKind, ...] = Field(default=(SPREAD, ROUND), min_length=1, max_length=8, description="kinds")
    halo_strength: float = Field(default=0.9, ge=0, le=1, description="bright halo and shade-off; 0 is none")
    halo_width_um: float = Field(default=2.6, gt=0, le=40, description="width of the halo (Gaussian sigma), um")
    plate_transmission: float = Field(default=0.6, ge=0.2, le=1, description="amplitude that the phase ring lets pass")
    vignetting: float = Field(default=0.08, ge=0, le=0.95, description="loss of light in the corners, fraction")
    gradient: float = Field(default=0.06, ge=0, le=0.95, description="difference of light from side to side, fraction")
    gradient_deg: float = Field(default=30, ge=-360, le=360, description="direction of that gradient, degrees")
    flicker: float = Field(default=0.01, ge=0, le=0.5, description="frame to frame change of the lamp, fraction")
    background_rad: float = Field(default=0.009, ge=0, le=0.5, description="roughness of the dish, radians")
    debris: int = Field(default=14, ge=0, le=5000, description="specks in view; never in the labels")
    debris_um: float = Field(default=1.6, ge=0.1, le=20, description="mean radius of a speck, um")
    bubbles: int = Field(default=0, ge=0, le=100, description="air bubbles in view; never in the labels")
    bubble_radius_um: float = Field(default=35, ge=2, le=1000, description="mean radius of a bubble, um")
    defocus_um: float = Field(default=0, ge=-200, le=200, description="distance from the focal plane, um")
    numerical_aperture: float = Field(default=0.3, ge=0.05, le=0.95, description="of the objective (blur of defocus)")
    blur_um: float = Field(default=0.6, ge=0, le=10, description="blur in focus (Gaussian sigma), um")
    exposure: float = Field(default=1, gt=0, le=50, description="light collected / usual light")
    gain: float = Field(default=1, gt=0, le=50, description="amplification after the sensor / usual")
    background_level: float = Field(default=0.49, gt=0, le=1, description="background at exposure and gain 1 / white")
    photons: float = Field(default=5000, ge=1, le=1e7, description="electrons per background pixel (shot noise)")
    read_noise_e: float = Field(default=8, ge=0, le=10000, description="read noise, electrons")
    bit_depth: Literal[8, 16] = Field(default=8, description="8: uint8, 16: uint16")

    @model_validator(mode="after")
    def _names_differ(self) -> SceneParams:
        names = [k.name for k in self.kinds]
        if len(set(names)) != len(names):
            raise ValueError(f"two kinds of cells have the same name ({', '.join(names)})")
        return self

    def changed(self, **values: Any) -> SceneParams:
        """The same scene with other values.

        Raises:
            DataError: an unknown name or a bad value.
        """
        return scene_params({**{name: getattr(self, name) for name in SceneParams.model_fields}, **values})

    def with_settings(self, settings: Iterable[str]) -> SceneParams:
        """Apply ``name=value`` and ``kind.name=value`` strings (``defocus_um=8``, ``round.speed_um_h=20``).

        Raises:
            DataError: no such name, no such kind, a bad value.
        """
        values: dict[str, Any] = {}
        kinds = {k.name: k.model_dump() for k in self.kinds}
        for text in settings:
            path, eq, raw = text.partition("=")
            kind, dot, name = path.strip().rpartition(".")
            known = CellKind.model_fields if dot else SceneParams.model_fields
            if not eq or name in ("kinds", ""):
                raise DataError(f"{text!r} is not name=value", hint="for example defocus_um=8 or round.speed_um_h=20")
            if dot and kind not in kinds:
                raise DataError(f"{text!r}: there is no kind of cell {kind!r}", hint=nearest(kind, kinds))
            if name not in known:
                raise DataError(f"{text!r}: unknown parameter {name!r}", hint=nearest(name, known))
            (kinds[kind] if dot else values)[name] = _value(raw.strip())
        return self.changed(**values, kinds=tuple(kinds.values()))


def scene_params(values: Mapping[str, Any]) -> SceneParams:
    """Make parameters from plain values (as in scene.json).

    Raises:
        DataError: an unknown name or a bad value; the message names it.
    """
    try:
        return SceneParams.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "scene"
        got = f" (got {first['input']!r})" if first["loc"] else ""
        raise DataError(f"synthetic scene: {where}: {first['msg']}{got}", hint="correct that value") from e


def _value(raw: str) -> Any:
    try:
        return tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        return raw
