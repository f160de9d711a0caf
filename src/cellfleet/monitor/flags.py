"""Flags with a reason: out-of-focus, blank, saturated, bubble. A good frame gets none; thresholds depend on the light."""

from __future__ import annotations

from dataclasses import dataclass

from cellfleet.monitor.air_bubbles import covered_percent, find_bubbles
from cellfleet.monitor.quality import Features, Plane, image_features


@dataclass(frozen=True)
class FrameFlag:
    """What a reader of a frame's numbers should know.

    Attributes:
        name: ``blank``, ``saturated``, ``out-of-focus`` or ``bubble``.
        reason: one sentence with the numbers.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class FlagLimits:
    """From where a frame is flagged.

    Attributes:
        saturated: part of the pixels at the sensor's greatest value; rounded cells and the walls of a chamber alone
            reach 0.025 in real phase frames that are good.
        structure: least spread in noise sigmas; below it nothing is in the frame.
        focus_fine, focus_coarse: least ratios (``cellfleet.monitor.quality``); out of focus when either is below.
        bubbles: look for bubbles.
    """

    saturated: float = 0.04
    structure: float = 1.3
    focus_fine: float = 0.02
    focus_coarse: float = 0.025
    bubbles: bool = False


TRANSMITTED = FlagLimits(focus_fine=0.15, focus_coarse=0.25, bubbles=True)
"""Light through the cells, which shows fine detail everywhere: 82 real phase frames have at least 0.24 and 0.7, the same
blurred by 2 pixels at most 0.07 and 0.8, by 4 pixels 0.02 and 0.2."""

FLUORESCENCE = FlagLimits()
"""Stained nuclei are smooth even in focus: 120 real frames have at least 0.027 and 0.034. The limits catch blur of 4 pixels
in 95 % of them and of 2 pixels in a third; less is for drift detectors, which know how this stain looks here."""

_TRANSMITTED_NAMES = ("phase", "brightfield", "bright", "bf", "dic", "trans", "pc", "ph")


def limits_for(channel: str) -> FlagLimits:
    """The limits for a channel by its name; one that is not transmitted light is taken for fluorescence."""
    first = channel.casefold().replace("_", "-").split("-")[0].rstrip("0123456789")
    return TRANSMITTED if first in _TRANSMITTED_NAMES else FLUORESCENCE


def watch_image(plane: Plane, channel: str, limits: FlagLimits | None = None) -> tuple[Features, tuple[FrameFlag, ...]]:
    """Features of a frame's first channel, and its flags.

    Args:
        plane: uint8 or uint16 [H,W].
        channel: its name.
        limits: None: ``limits_for(channel)``.

    Returns:
        The features of ``image_features``, where bubbles are looked for with ``bubbles`` and ``bubble_percent`` (of the
        frame) beside them; flags in a fixed order.
    """
    limits = limits or limits_for(channel)
    features = image_features(plane)
    found = find_bubbles(plane) if limits.bubbles else ()
    if limits.bubbles:
        features |= {"bubbles": float(len(found)), "bubble_percent": covered_percent(found, plane)}
    return features, _flags(features, limits, str(plane.dtype))


def _flags(f: Features, limits: FlagLimits, dtype: str) -> tuple[FrameFlag, ...]:
    out = []
    if blank := _blank(f, limits):
        out.append(FrameFlag("blank", blank))
    if f["saturated_high"] >= limits.saturated:
        text = f"{100 * f['saturated_high']:.1f} % of the pixels have the greatest value, {f['p99']:.0f} of {dtype}"
        out.append(FrameFlag("saturated", text))
    if not blank and (unsharp := _unsharp(f, limits)):
        out.append(FrameFlag("out-of-focus", unsharp))
    if f.get("bubbles", 0) > 0:
        text = f"{f['bubbles']:.0f} air bubble{'s' * (f['bubbles'] > 1)} on {f['bubble_percent']:.1f} % of the frame"
        out.append(FrameFlag("bubble", text))
    return tuple(out)


def _blank(f: Features, limits: FlagLimits) -> str:
    if f["std"] == 0:
        return "all pixels have the same value"
    if f["structure"] < limits.structure:
        return (
            f"nothing stands out of the noise (structure {f['structure']:.2f}, at least {limits.structure:g} expected)"
        )
    return ""


def _unsharp(f: Features, limits: FlagLimits) -> str:
    for name, least in (("focus_fine", limits.focus_fine), ("focus_coarse", limits.focus_coarse)):
        if f[name] < least:
            return f"fine detail is missing ({name} {f[name]:.3f}, at least {least:g} expected)"
    return ""
