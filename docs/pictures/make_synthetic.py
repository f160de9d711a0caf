"""Makes synthetic.png: three frames of each kind of cell, four hours apart, the last one with its exact outlines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cellfleet.data.synthetic import SceneParams, SyntheticFrame, simulate

SIDE = 288
SEED = 3
FRAMES = 4
OUTLINE = (255, 170, 60)


def picture(frame: SyntheticFrame, *, outlines: bool) -> NDArray[np.uint8]:
    """A frame as [H, W, 3], blue first."""
    shown = np.asarray(cv2.cvtColor(frame.pixels, cv2.COLOR_GRAY2BGR), np.uint8)
    if outlines:
        labels = frame.labels
        edge = np.zeros(labels.shape, bool)
        edge[1:] |= labels[1:] != labels[:-1]
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        shown[edge] = OUTLINE
    return shown


def main() -> None:
    """Write the picture beside this file."""
    params = SceneParams(height_px=SIDE, width_px=SIDE)
    rows = []
    for kind in params.kinds:
        film = list(simulate(params.changed(kinds=(kind,)), FRAMES, SEED, stride=24))
        tiles = [picture(f, outlines=i == FRAMES - 1) for i, f in enumerate(film[1:], start=1)]
        rows.append(np.hstack(tiles))
    # a picture for a page: 64 grey levels are enough and halve the file
    strip = np.vstack(rows) & np.uint8(0xFC)
    target = Path(__file__).with_name("synthetic.png")
    cv2.imwrite(str(target), strip, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
