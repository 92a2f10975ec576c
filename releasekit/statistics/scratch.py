"""Memory that the loops work in, one set for each call: it is small, and never shared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from releasekit.statistics.kernels import BLOCK, NUMBERS, OCTAVES, SUMS


class Scratch:
    """Arrays that the loops fill.

    Attributes:
        numbers: of a block.
        sums: partial ones.
        apart: distances of a block.
        octave: buckets of a block.
        count: of distances by bucket, four times, to be added up.
        out: results.
    """

    def __init__(self) -> None:
        self.numbers: NDArray[np.float64] = np.empty(NUMBERS)
        self.sums: NDArray[np.float64] = np.empty(SUMS)
        self.apart = np.empty(BLOCK, np.uint64)
        self.octave = np.empty(BLOCK, np.uint8)
        self.count = np.zeros(4 * OCTAVES, np.uint64)
        self.out: NDArray[np.float64] = np.zeros(9)
