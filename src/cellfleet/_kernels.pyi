"""The hot kernels (C++, see cpp/). All arrays are C-contiguous; TypeError for other dtypes or shapes."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_P = TypeVar("_P", np.uint8, np.uint16)

def moments(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> tuple[float, float]: ...
def resample(pixels: NDArray[_P], height: int, width: int) -> NDArray[_P]: ...
def quantise(p: NDArray[np.float32]) -> NDArray[np.uint16]: ...
def objects(
    foreground: NDArray[np.uint16],
    distance: NDArray[np.uint16],
    *,
    foreground_threshold: int,
    seed_threshold: int,
    smooth_passes: int,
    min_seed_area: int,
    min_area: int,
) -> tuple[NDArray[np.uint32], int]: ...
def measure(
    labels: NDArray[np.uint32],
    count: int,
    intensity: NDArray[np.uint8] | NDArray[np.uint16],
    foreground: NDArray[np.uint16],
) -> dict[str, NDArray[np.float64]]: ...
