"""The encoder's compiled statistics: what groupings would cost, from a sample of words.

Residuals are counted in buckets that are exact below 16 and a quarter of an octave wide
above. The entropy of the buckets, plus the bits to tell apart what one bucket holds, comes
close to what the coder will need, for any shape of distribution: one AdamW step moves
weights by nearly the same amount, which in ULPs is a few sharp peaks.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.kernels import UNCHANGED_ROW, Words, compiled

_ONE = np.uint64(1)
_EXACT: Final = 16
_OCTAVE_BUCKETS: Final = 4
#: Buckets for residuals of up to 64 bits: 16, and four for each octave from 2**4 on.
BUCKETS: Final = _EXACT + _OCTAVE_BUCKETS * 60

#: What a group costs besides its words, in bits: 10 bytes in the frame and the coder's
#: head; and for each bucket in use about a bin in the coder's table.
_GROUP_BITS: Final = 160.0
_BUCKET_BITS: Final = 16.0


def _buckets_below(limit: int) -> NDArray[np.uint8]:
    """Bucket of every residual below `limit`."""
    values = np.arange(_EXACT, limit)
    octave = np.floor(np.log2(values)).astype(np.int64)
    quarter = (values >> (octave - 2)) - _OCTAVE_BUCKETS
    above = _EXACT + _OCTAVE_BUCKETS * (octave - 4) + quarter
    return np.concatenate([np.arange(_EXACT), above]).astype(np.uint8)


#: Read-only to the kernels; larger residuals are shifted down 16 bits, 16 octaves.
_TABLE: Final = _buckets_below(1 << 16)
_SHIFT_BUCKETS: Final = 16 * _OCTAVE_BUCKETS
#: Bits to tell apart the residuals of a bucket.
_WITHIN: Final = np.concatenate(
    [np.zeros(_EXACT), np.repeat(np.arange(2.0, 62.0), _OCTAVE_BUCKETS)]
)


@compiled
def row_scales(
    residual: Words,
    key: NDArray[np.uint16],
    row: int,
    weight: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> None:
    """Mean size of the update in each row of `row` words, in units of the largest ULP.

    `weight[k]` is the size of one ULP at exponent `k`; it has an entry for every key.
    """
    n = residual.size
    for r in range(scale.size):
        start = r * row
        stop = min(start + row, n)
        total = 0.0
        for i in range(start, stop):
            z = np.uint64(residual[i])
            total += np.float64((z >> _ONE) + (z & _ONE)) * weight[key[i]]
        scale[r] = total / max(stop - start, 1)


@compiled
def _histogram(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    step: int,
    table: NDArray[np.uint8],
    count: NDArray[np.uint32],
) -> int:
    """Count one word in `step` by index and bucket; returns how many were counted."""
    counted = 0
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        stop = min(r * row + row, residual.size)
        residuals, keys = residual[r * row : stop], key[r * row : stop]
        counts = count[classes[r] :]
        # Starting elsewhere in each row keeps the sample from favouring some columns.
        for i in range(r % step, keys.size, step):
            z = np.uint64(residuals[i])
            bucket = np.int64(0)
            while z >= 65536:
                z >>= np.uint64(16)
                bucket += _SHIFT_BUCKETS
            counts[2 * np.int64(keys[i]), bucket + table[z]] += 1
            counted += 1
    return counted


@compiled
def _cost(
    counts: NDArray[np.float64], within: NDArray[np.float64], group: float, bucket: float
) -> float:
    """Bits for a group with these counts, its own overhead included; 0 if it is empty."""
    total = 0.0
    bits = 0.0
    used = 0
    for b in range(counts.size):
        c = counts[b]
        if c > 0:
            total += c
            used += 1
            bits += c * (within[b] - math.log2(c))
    if total == 0:
        return 0.0
    return bits + total * math.log2(total) + group + bucket * used


@compiled
def _merge(
    count: NDArray[np.uint32],
    scale: float,
    within: NDArray[np.float64],
    group: float,
    bucket: float,
    last: NDArray[np.int64],
) -> tuple[int, float]:
    """Merge neighbouring indices from the lowest up, as long as that costs no more.

    Fills `last` with the last index of each group; returns their number and their bits.
    """
    groups = 0
    bits = 0.0
    current = np.zeros(count.shape[1])
    cost = 0.0
    for index in range(count.shape[0]):
        if not count[index].any():
            continue
        alone = count[index] * scale
        together = current + alone
        alone_cost = _cost(alone, within, group, bucket)
        together_cost = _cost(together, within, group, bucket)
        if groups and together_cost <= cost + alone_cost:
            current, cost = together, together_cost
        else:
            bits += cost
            current, cost = alone, alone_cost
            groups += 1
        last[groups - 1] = index
    return groups, bits + cost


def merged_groups(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    *,
    indices: int,
    step: int,
) -> tuple[NDArray[np.int64], float]:
    """Groups of indices under the given row classes, and what they would cost.

    Args:
        residual: (n,) residuals.
        key: (n,) the base's exponents.
        classes: one class a row.
        row: words in a row.
        indices: number of possible indices, above every `2 * key + class`.
        step: look at one word in this many.

    Returns:
        The last index of each group that the sample met, and bits for the residuals.
    """
    buckets = BUCKETS if residual.itemsize == 8 else _EXACT + _OCTAVE_BUCKETS * 28
    count = np.zeros((indices, buckets), np.uint32)
    counted = _histogram(residual, key, classes, row, step, _TABLE, count)
    words = residual.size - row * int(np.count_nonzero(classes == UNCHANGED_ROW))
    scale = max(words, 1) / max(counted, 1)
    last = np.empty(indices, np.int64)
    groups, bits = _merge(count, scale, _WITHIN, _GROUP_BITS, _BUCKET_BITS, last)
    return last[:groups], bits
