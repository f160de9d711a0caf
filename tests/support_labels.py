"""Pairs of small label images for property tests, and their labels without gaps."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

Labels = NDArray[np.int32]


def label_pairs(most: int = 5) -> st.SearchStrategy[tuple[Labels, Labels]]:
    shape = st.tuples(st.integers(1, 10), st.integers(1, 10))
    arrays = shape.flatmap(lambda s: st.tuples(*(hnp.arrays(np.int32, s, elements=st.integers(0, most)) for _ in "tp")))
    return arrays.map(lambda p: (p[0], p[1]))


def compact(a: Labels) -> Labels:
    return np.unique(np.concatenate([[0], a.ravel()]), return_inverse=True)[1][1:].reshape(a.shape).astype(np.int32)
