"""The encoder's compiled statistics: what groupings would cost, from a sample of words.

Residuals are counted in buckets that are exact below 16 and a quarter of an octave wide
above. The entropy of the buckets, plus the bits to tell apart what one bucket holds, comes
close to what the coder will need, for any shape of distribution: one AdamW step moves
weights by nearly the same amount, which in ULPs is a few sharp peaks.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.kernels import UNCHANGED_ROW, Words
from releasekit.codec.native import Kernel

_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_FOUR = np.uint64(4)
_EXACT: Final = 16
_OCTAVE_BUCKETS: Final = 4

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


def _size(residual):
    """The absolute difference behind a zigzagged one."""
    z = np.uint64(residual)
    return np.float64((z >> _ONE) + (z & _ONE))


def _row_scales(residual, key, row, weight, scale):
    for r in range(scale.size):
        stop = min(r * row + row, residual.size)
        residuals, keys = residual[r * row : stop], key[r * row : stop]
        # Four sums: one would wait for itself from word to word.
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        i, end = np.uint64(0), np.uint64(residuals.size)
        while i + _THREE < end:
            a += _size(residuals[i]) * weight[np.uint64(keys[i])]
            b += _size(residuals[i + _ONE]) * weight[np.uint64(keys[i + _ONE])]
            c += _size(residuals[i + _TWO]) * weight[np.uint64(keys[i + _TWO])]
            d += _size(residuals[i + _THREE]) * weight[np.uint64(keys[i + _THREE])]
            i += _FOUR
        while i < end:
            a += _size(residuals[i]) * weight[np.uint64(keys[i])]
            i += _ONE
        scale[r] = ((a + b) + (c + d)) / residuals.size


def _histogram(residual, key, classes, row, step, table, count, buckets):
    """Count one word in `step` by index and bucket; returns how many were counted."""
    counted = 0
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        stop = min(r * row + row, residual.size)
        residuals, keys = residual[r * row : stop], key[r * row : stop]
        counts = count[np.int64(classes[r]) * buckets :]
        # Starting elsewhere in each row keeps the sample from favouring some columns.
        i = r % step
        while i < keys.size:  # a range of variable step may raise, which code here must not
            z = np.uint64(residuals[i])
            bucket = np.int64(0)
            while z >= 65536:
                z >>= np.uint64(16)
                bucket += _SHIFT_BUCKETS
            bucket += table[z]
            counts[2 * np.int64(keys[i]) * buckets + bucket] += 1
            counted += 1
            i += step
    return counted


def _cost(counts, within, group, bucket):
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


def _merge(count, scale, within, group, bucket, current, alone, together, last, cost):
    """Merge neighbouring indices from the lowest up, as long as that costs no more.

    Fills `last` with the last index of each group, and `cost` with the bits of all; returns
    the number of groups.
    """
    groups = 0
    bits = 0.0
    buckets = current.size
    so_far = 0.0
    for b in range(buckets):
        current[b] = 0.0
    for index in range(last.size):
        used = False
        for b in range(buckets):
            alone[b] = count[index * buckets + b] * scale
            together[b] = current[b] + alone[b]
            used = used or alone[b] > 0
        if not used:
            continue
        alone_cost = _cost(alone, within, group, bucket)
        together_cost = _cost(together, within, group, bucket)
        joined = groups > 0 and together_cost <= so_far + alone_cost
        for b in range(buckets):
            current[b] = together[b] if joined else alone[b]
        if joined:
            so_far = together_cost
        else:
            bits += so_far
            so_far = alone_cost
            groups += 1
        last[groups - 1] = index
    cost[0] = bits + so_far
    return groups


@cache
def _row_scaler(nbytes: int) -> Kernel:
    return Kernel(
        _row_scales, f"u{nbytes}* u2* i8 f8* f8*", helpers=(_size,), variant=f"_{nbytes}"
    )


@cache
def _counter(nbytes: int) -> Kernel:
    signature = f"u{nbytes}* u2* u1* i8 i8 u1* u4* i8"
    return Kernel(_histogram, signature, returns="i8", variant=f"_{nbytes}")


_merger: Final = Kernel(
    _merge, "u4* f8 f8* f8 f8 f8* f8* f8* i8* f8*", returns="i8", helpers=(_cost,)
)


def row_scales(
    residual: Words, key: NDArray[np.uint16], row: int, weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean size of the update in each row of `row` words, in units of the largest ULP.

    `weight[k]` is the size of one ULP at exponent `k`; it has an entry for every key.
    """
    scale = np.empty(-(-residual.size // row), np.float64)
    _row_scaler(residual.itemsize)(residual, key, row, weight, scale)
    return scale


def _buckets(residual_nbytes: int) -> int:
    """Buckets of all residuals of this size."""
    return _EXACT + _OCTAVE_BUCKETS * (8 * residual_nbytes - 4)


def count_nbytes(residual_nbytes: int, indices: int) -> int:
    """Space that `merged_groups` takes for its counts, in bytes."""
    return 4 * indices * _buckets(residual_nbytes)


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
    buckets = _buckets(residual.itemsize)
    count = np.zeros(indices * buckets, np.uint32)
    counter = _counter(residual.itemsize)
    counted = counter(residual, key, classes, row, step, _TABLE, count, buckets)
    words = residual.size - row * int(np.count_nonzero(classes == UNCHANGED_ROW))
    scale = max(words, 1) / max(counted, 1)
    last = np.empty(indices, np.int64)
    work, cost = np.empty((3, buckets), np.float64), np.empty(1, np.float64)
    groups = _merger(
        count, scale, _WITHIN[:buckets], _GROUP_BITS, _BUCKET_BITS, *work, last, cost
    )
    return last[:groups], float(cost[0])
