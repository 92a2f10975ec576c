"""The compiled loops of the `ulp` codec.

numpy has no stable counting sort and no fused gather, so these few loops are compiled
with numba. All of them work in unsigned 64-bit arithmetic and narrow only when they
store, so that one body serves every word width, and nothing depends on how a platform
rounds floats. They release the GIL.

Words. A word of `bits` bits may carry `shift` low zero bits (a bf16 value stored as fp32
has 16). Such words are handled without them: the target's exactly, the base's rounded to
nearest, ties to even. `fields` describes the *reduced* word, in this order:

    shift   low bits that were dropped
    top     index of the highest bit, `bits - shift - 1`
    mant    position of the exponent field
    kmask   mask of the exponent field after shifting; 0 if there is none
    flip    `2**top - 1` for sign-magnitude words (floats), 0 for integers

Ordered integers. `x ^ (flip if the top bit is set else 0)` maps sign-magnitude words to
two's complement in the order of the floats. It is its own inverse and a bijection on all
patterns, so -0, NaN payloads and infinities need no special case.

Compiled code checks no bounds by itself: every index that derives from a file or from
the base is compared here, or is bounded by a mask whose table has that size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]

#: Row class of rows in which nothing changed; such rows have no residuals at all.
UNCHANGED_ROW: Final = 255

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """Compile on first call, cached on disk where any place for a cache is writable."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        # numba raises this when neither the package's folder nor the user's cache folder
        # can be written. Compiling anew in each process is slower, but it works.
        return numba.njit(nogil=True, cache=False)(function)  # type: ignore[no-any-return]


_inlined = numba.njit(inline="always")

_ONE = np.uint64(1)
_ZERO = np.uint64(0)


@_inlined
def _reduced(word, shift, mask):  # type: ignore[no-untyped-def]
    """Drop `shift` low bits, rounding to nearest even; wraps at the top, as it must."""
    if shift == _ZERO:
        return word
    half = (_ONE << (shift - _ONE)) - _ONE
    return ((word + half + ((word >> shift) & _ONE)) >> shift) & mask


@compiled
def residuals(
    base: Words,
    target: Words,
    fields: NDArray[np.uint64],
    residual: Words,
    key: NDArray[np.uint16],
) -> int:
    """Zigzag ULP distance of each word and the base's exponent; returns how many differ."""
    shift, top, mant, kmask, flip = fields[0], fields[1], fields[2], fields[3], fields[4]
    mask = (_ONE << top) | ((_ONE << top) - _ONE)
    changed = 0
    for i in range(target.size):
        b = _reduced(np.uint64(base[i]), shift, mask)
        t = np.uint64(target[i]) >> shift
        d = ((t ^ (flip * (t >> top))) - (b ^ (flip * (b >> top)))) & mask
        residual[i] = ((d << _ONE) & mask) ^ (mask * (d >> top))
        key[i] = (b >> mant) & kmask
        changed += d != _ZERO
    return changed


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
def histogram(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    count: NDArray[np.int64],
    total: NDArray[np.float64],
) -> None:
    """Number and sum of the residuals under each index `2 * key + class`."""
    n = residual.size
    for r in range(classes.size):
        c = np.int64(classes[r])
        if c == UNCHANGED_ROW:
            continue
        for i in range(r * row, min(r * row + row, n)):
            index = 2 * np.int64(key[i]) + c
            count[index] += 1
            total[index] += np.float64(residual[i])


@compiled
def group(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    table: NDArray[np.uint16],
    cursor: NDArray[np.int64],
    grouped: Words,
) -> None:
    """Stable counting sort of the residuals by group; inverse of the order in `rebuild`."""
    n = residual.size
    for r in range(classes.size):
        c = np.int64(classes[r])
        if c == UNCHANGED_ROW:
            continue
        for i in range(r * row, min(r * row + row, n)):
            g = table[2 * np.int64(key[i]) + c]
            grouped[cursor[g]] = residual[i]
            cursor[g] += 1


@compiled
def rebuild(
    base: Words,
    grouped: Words,
    classes: NDArray[np.uint8],
    row: int,
    table: NDArray[np.uint16],
    cursor: NDArray[np.int64],
    end: NDArray[np.int64],
    fields: NDArray[np.uint64],
    out: Words,
) -> bool:
    """Take each word's residual from its group and add it to the base.

    The table has `2 * kmask + 256` entries, each below `cursor.size`, and every `end` is
    at most `grouped.size`: the caller proves this. Returns False as soon as a group runs
    out, which only happens when the base is not the one that the groups were made with.
    """
    shift, top, mant, kmask, flip = fields[0], fields[1], fields[2], fields[3], fields[4]
    mask = (_ONE << top) | ((_ONE << top) - _ONE)
    n = out.size
    for r in range(classes.size):
        c = np.int64(classes[r])
        start = r * row
        stop = min(start + row, n)
        if c == UNCHANGED_ROW:
            for i in range(start, stop):
                out[i] = _reduced(np.uint64(base[i]), shift, mask) << shift
            continue
        for i in range(start, stop):
            b = _reduced(np.uint64(base[i]), shift, mask)
            g = table[2 * np.int64((b >> mant) & kmask) + c]
            at = cursor[g]
            if at >= end[g]:
                return False
            cursor[g] = at + 1
            z = np.uint64(grouped[at])
            d = (z >> _ONE) ^ (mask * (z & _ONE))
            o = ((b ^ (flip * (b >> top))) + d) & mask
            out[i] = (o ^ (flip * (o >> top))) << shift
    return True
