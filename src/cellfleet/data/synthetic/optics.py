"""From a phase map to a photograph: phase contrast, blur, bubbles, lamp and camera.

Phase contrast is computed as it arises (Zernike): the light that the specimen bends, ``e^(i phase) - direct``, meets the
direct light, which the phase plate delays by a quarter wave and weakens. The ring of the plate is not a point, so that
the "direct" light contains what the specimen bends by small angles: hence the bright halo around a cell and the
shade-off within it. Thick (rounded, dying) cells shift light by more than a quarter wave and turn bright by themselves.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic.params import SceneParams
from cellfleet.data.synthetic.population import stream

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8] | NDArray[np.uint16]

_WIDE = 3.5
"""The halo has a long tail: a second Gaussian, wider by this factor."""
_WIDE_SHARE = 0.25


def halo_reach_px(params: SceneParams) -> int:
    """Pixels around a frame that shine into it."""
    return min(math.ceil(2 * params.halo_width_um / params.pixel_size_um), 200) + 8


def phase_contrast(phase: Floats, params: SceneParams) -> Floats:
    """Light behind the phase plate, relative to an empty field (1.0); float32, the shape of ``phase``."""
    real, imaginary = np.cos(phase) - np.float32(1), np.sin(phase)
    sigma = params.halo_width_um / params.pixel_size_um
    strength = np.float32(params.halo_strength)
    direct_re, direct_im = strength * _spread(real, sigma), strength * _spread(imaginary, sigma)
    t = np.float32(params.plate_transmission)
    # direct light is (1 + direct_re + i direct_im), times -i t behind the plate
    re = real - direct_re + t * direct_im
    im = imaginary - direct_im - t * (1 + direct_re)
    light: Floats = (re * re + im * im) / (t * t)
    return light


def _spread(image: Floats, sigma: float) -> Floats:
    near = _blur(image, sigma)
    small = np.asarray(cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), np.float32)
    far = cv2.resize(_blur(small, _WIDE * sigma / 4), image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return near * np.float32(1 - _WIDE_SHARE) + np.asarray(far, np.float32) * np.float32(_WIDE_SHARE)


def _blur(image: Floats, sigma: float) -> Floats:
    if sigma < 0.05:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def focus_blur_px(params: SceneParams) -> float:
    """Gaussian sigma of the blur in pixels: that in focus, and that of a cone of light ``defocus_um`` from its tip."""
    cone = abs(params.defocus_um) * math.tan(math.asin(params.numerical_aperture)) / 2
    return math.hypot(params.blur_um, cone) / params.pixel_size_um


class Camera:
    """Turns light into grey levels; what does not change from frame to frame is computed once.

    Args:
        params: of the scene.
        seed: of the scene.
    """

    def __init__(self, params: SceneParams, seed: int) -> None:
        self._params = params
        self._seed = seed
        self._lamp = _lamp(params)
        self._bubbles = _bubbles(params, seed)

    def photograph(self, light: Floats, pad: int, frame: int) -> Pixels:
        """Photograph number ``frame``: blur, crop, bubbles, lamp, shot and read noise; uint8 or uint16 [H, W]."""
        p = self._params
        blurred = _blur(light, focus_blur_px(p))
        height, width = p.height_px, p.width_px
        seen = np.ascontiguousarray(blurred[pad : pad + height, pad : pad + width])
        for bubble in self._bubbles:
            bubble.cover(seen, frame, focus_blur_px(p))
        random = stream(self._seed, 6, frame)
        lamp = p.exposure * (1 + p.flicker * float(np.clip(random.standard_normal(), -2.5, 2.5)))
        electrons = seen * self._lamp * np.float32(p.photons * max(lamp, 0))
        noise = random.standard_normal((height, width), dtype=np.float32)
        electrons += noise * np.sqrt(np.maximum(electrons, 0) + np.float32(p.read_noise_e**2))
        white = (1 << p.bit_depth) - 1
        grey = electrons * np.float32(p.gain * p.background_level * white / p.photons)
        whole = np.clip(np.rint(grey), 0, white)
        pixels: Pixels = whole.astype(np.uint8) if p.bit_depth == 8 else whole.astype(np.uint16)
        return pixels


def _lamp(params: SceneParams) -> Floats:
    """Light of the lamp over the field, mean about 1: a slope from side to side, and darker corners."""
    y = np.linspace(-1, 1, params.height_px).astype(np.float32)[:, None]
    x = np.linspace(-1, 1, params.width_px).astype(np.float32)[None]
    angle = math.radians(params.gradient_deg)
    slope = np.float32(params.gradient / 2) * (np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y)
    return np.asarray((1 + slope) * (1 - np.float32(params.vignetting) * (y * y + x * x) / 2), np.float32)


def _bubbles(params: SceneParams, seed: int) -> list[_Bubble]:
    random = stream(seed, 5)
    um, out = params.pixel_size_um, []
    for _ in range(params.bubbles):
        y, x, size = random.random(3)
        way = random.standard_normal(2) * 3 / um
        radius = params.bubble_radius_um * (0.6 + 0.8 * size) / um
        out.append(_Bubble(float(y) * params.height_px, float(x) * params.width_px, float(radius), way))
    return out


class _Bubble:
    """An air bubble: bright within, a thick dark rim with a bright line, over whatever lies below."""

    def __init__(self, y: float, x: float, radius: float, way: NDArray[np.float64]) -> None:
        self.y, self.x, self.radius, self.way = y, x, radius, way

    def cover(self, light: Floats, frame: int, blur_px: float) -> None:
        """Draw the bubble of a frame into the light [H, W], in place."""
        height, width = light.shape
        y = (self.y + frame * self.way[0]) % height
        x = (self.x + frame * self.way[1]) % width
        ys = (np.arange(height, dtype=np.float32) - np.float32(y))[:, None]
        xs = (np.arange(width, dtype=np.float32) - np.float32(x))[None]
        far = np.sqrt(ys * ys + xs * xs) / np.float32(self.radius)
        soft = np.float32(max(0.05, 0.6 * blur_px / self.radius))
        inside = 1 / (1 + np.exp(np.clip((far - 1) / soft * 4, -30, 30)))
        rim = np.float32(0.85) * np.exp(-(((far - np.float32(0.97)) / np.float32(0.1)) ** 2))
        line = np.float32(0.9) * np.exp(-(((far - np.float32(0.78)) / np.float32(0.05)) ** 2))
        light *= 1 - np.float32(0.75) * inside
        light += inside * np.float32(0.75) * (np.float32(1.25) - np.float32(0.25) * far * far) + line
        light *= 1 - rim
