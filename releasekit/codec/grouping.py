"""Which words share a distribution: the encoder's choice of row classes and groups.

An update of a given size spans more ULPs where the base is small, so the base's exponent
predicts the residual. So does the row: some rows of a matrix move more than others, and
untouched embedding rows do not move at all. Both act as factors, so they combine as a
sum of logarithms, in steps of half an octave:

    index = 2 * exponent + class of the row

where the class grows as the row's mean update shrinks. Rows with no change at all get a
class of their own and cost nothing. Indices whose residuals look alike are then merged
into groups, since each group carries its own table.

Costs are those of a geometric distribution with the same mean, H(m) = (1 + m) log2(1 + m)
- m log2 m bits a residual: close enough to choose by, and two sums suffice for it. The
decoder needs none of this, it only reads classes and groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec import kernels
from releasekit.codec.kernels import UNCHANGED_ROW, Words

#: What one more group costs: 10 bytes in the frame and the coder's own table, in bits.
_GROUP_BITS: Final = 400.0
#: Rows whose scale is this far below the largest (127 octaves) are lumped together.
_LOWEST_CLASS: Final = 254
#: What a row class costs once coded, in bits, and what a frame of classes costs at least.
_CLASS_BITS, _CLASSES_BITS = 3.5, 200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Row classes and the groups of indices under them.

    Attributes:
        classes: (rows,) uint8, one class a row.
        last: (G,) highest index of each group.
        count: (G,) number of words in each group.
        bits: what the residuals are expected to cost.
    """

    classes: NDArray[np.uint8]
    last: NDArray[np.int64]
    count: NDArray[np.int64]
    bits: float


def choose(residual: Words, key: NDArray[np.uint16], row: int, kmask: int) -> Grouping:
    """The cheapest of: no classes, classes for unchanged rows only, all classes."""
    scale = np.empty(-(-residual.size // row), np.float64)
    # One ULP at exponent k is 2**k; relative to the largest, so that it cannot overflow,
    # and never 0, since a scale of 0 is taken to mean that nothing changed.
    weight = np.exp2(np.maximum(np.arange(kmask + 1) - kmask, -960).astype(np.float64))
    kernels.row_scales(residual, key, row, weight, scale)
    plain = np.zeros(scale.size, np.uint8)
    candidates = [plain]
    if scale.size > 1:
        unchanged = scale == 0
        if unchanged.any():
            candidates.append(np.where(unchanged, UNCHANGED_ROW, 0).astype(np.uint8))
        if not unchanged.all():
            octaves = np.log2(np.where(unchanged, scale.max(), scale))
            classes = np.rint(2 * (octaves.max() - octaves))
            classes = np.minimum(classes, _LOWEST_CLASS)
            candidates.append(np.where(unchanged, UNCHANGED_ROW, classes).astype(np.uint8))
    options = [_group(residual, key, classes, row, kmask) for classes in candidates]
    return min(options, key=lambda option: option.bits)


def _group(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    kmask: int,
) -> Grouping:
    """Merge neighbouring indices from the lowest up, as long as merging costs less."""
    count = np.zeros(index_count(kmask), np.int64)
    total = np.zeros(count.size, np.float64)
    kernels.histogram(residual, key, classes, row, count, total)
    bits = 0.0 if not classes.any() else _CLASSES_BITS + _CLASS_BITS * classes.size
    lasts: list[int] = []
    counts: list[int] = []
    n, s, cost = 0, 0.0, 0.0
    for index in np.flatnonzero(count).tolist():
        more, sum_more = int(count[index]), float(total[index])
        alone = _bits(more, sum_more)
        together = _bits(n + more, s + sum_more)
        if n and together <= cost + alone + _GROUP_BITS:
            n, s, cost = n + more, s + sum_more, together
            lasts[-1] = index
            counts[-1] = n
        else:
            bits += cost + _GROUP_BITS
            n, s, cost = more, sum_more, alone
            lasts.append(index)
            counts.append(n)
    return Grouping(
        classes=classes,
        last=np.array(lasts, np.int64),
        count=np.array(counts, np.int64),
        bits=bits + cost,
    )


def _bits(count: int, total: float) -> float:
    """Entropy of `count` geometric variables with sum `total`, in bits."""
    if total <= 0:
        return 0.0
    mean = total / count
    return count * (math.log2(1 + mean) + mean * math.log2(1 + 1 / mean))


def index_count(kmask: int) -> int:
    """Number of possible indices: exponents in half octaves, plus the row class."""
    return 2 * kmask + UNCHANGED_ROW + 1


def index_table(last: NDArray[np.int64], kmask: int) -> NDArray[np.uint16]:
    """Group of each index; indices above the last group belong to it.

    They hold no words, so a decoder that meets one finds the group exhausted, or finds
    at the end that the counts do not match.
    """
    table = np.searchsorted(last, np.arange(index_count(kmask)))
    return np.minimum(table, max(last.size - 1, 0)).astype(np.uint16)
