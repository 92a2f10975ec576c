"""Which words share a distribution: the encoder's choice of row classes and groups.

An update of a given size spans more ULPs where the base is small, so the base's exponent
predicts the residual. So does the row: some rows of a matrix move more than others, and
untouched embedding rows do not move at all. Both act as factors, so they combine as a
sum of logarithms, in steps of half an octave:

    index = 2 * exponent + class of the row

where the class grows as the row's mean update shrinks. Rows with no change at all get a
class of their own and cost nothing. Indices whose residuals look alike are then merged
into groups, since each group carries its own table.

What groupings cost is estimated from a sample (`survey`). The decoder needs none of this,
it only reads classes and groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.kernels import UNCHANGED_ROW, Words

#: Rows whose scale is this far below the largest (127 octaves) are lumped together.
_LOWEST_CLASS: Final = 254
#: What a frame of row classes costs besides their entropy, in bits.
_CLASSES_BITS: Final = 400.0
#: One word in this many is sampled, but chunks up to this size are looked at whole.
_STEP, _SMALL = 7, 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Row classes and the groups of indices under them.

    Attributes:
        classes: (rows,) uint8, one class a row.
        last: (G,) highest index of each group.
        bits: what the residuals are expected to cost.
    """

    classes: NDArray[np.uint8]
    last: NDArray[np.int64]
    bits: float


def choose(residual: Words, key: NDArray[np.uint16], row: int, kmask: int) -> Grouping:
    """The cheapest of: no classes, classes for unchanged rows only, all classes."""
    from releasekit.codec import survey  # which a decoder need not load

    # One ULP at exponent k is 2**k; relative to the largest, so that it cannot overflow,
    # and never 0, since a scale of 0 is taken to mean that nothing changed.
    weight = np.exp2(np.maximum(np.arange(kmask + 1) - kmask, -960).astype(np.float64))
    scale = survey.row_scales(residual, key, row, weight)
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
    """Groups under the given classes, which together hold every word that they should."""
    from releasekit.codec import survey

    indices = index_count(kmask)
    step = _STEP if residual.size > _SMALL else 1
    last, bits = survey.merged_groups(
        residual, key, classes, row, indices=indices, step=step
    )
    if last.size:
        last[-1] = indices - 1  # the sample may have missed what lies above
    elif not (classes == UNCHANGED_ROW).all():
        last = np.array([indices - 1])
    return Grouping(classes=classes, last=last, bits=bits + _class_bits(classes))


def _class_bits(classes: NDArray[np.uint8]) -> float:
    """Entropy of the row classes, and what storing them takes; 0 if all are 0."""
    if not classes.any():
        return 0.0
    count = np.bincount(classes)
    count = count[count > 0]
    return _CLASSES_BITS + float((count * np.log2(classes.size / count)).sum())


def survey_nbytes(residual_nbytes: int, kmask: int) -> int:
    """Space that looking for groups takes, in bytes."""
    from releasekit.codec import survey

    return survey.count_nbytes(residual_nbytes, index_count(kmask))


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
