"""The compiled loops of the `ulp` codec.

numpy has no stable counting sort and no gather that advances a cursor, so these few loops
are compiled with numba. They release the GIL.

Words here are *reduced*: of `bits` bits, without the low zero bits that a chunk shares
(`reduce_words`). Loops over words are built for each number of bits and for floats or
integers, since the compiler vectorises them only when these are constants.

Ordered integers. `x ^ (2**(bits-1) - 1 if the top bit is set else 0)` maps floats, which
are sign and magnitude, to two's complement in the order of the floats. It is its own
inverse and a bijection on all patterns, so -0, NaN payloads and infinities need no special
case. For integers the map is the identity.

Indices are unsigned, since numba gives signed ones Python's meaning of counting from the
end, at a price. Compiled code checks no bounds by itself: every index that derives from a
file or from the base is bounded here by a mask, and the array has that size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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


_ONE = np.uint64(1)
_TWO = np.uint64(2)
_BLOCK: Final = 4096  # words; a block of residuals stays in the first cache


@compiled
def reduce_words(words: Words, shift: np.uint64, bits: np.uint64, out: Words) -> None:
    """Drop `shift` > 0 low bits, to nearest, ties to even; modulo 2**(bits - shift)."""
    half = (_ONE << (shift - _ONE)) - _ONE
    mask = (_ONE << (bits - shift)) - _ONE
    for i in range(words.size):
        word = np.uint64(words[i])
        out[i] = ((word + half + ((word >> shift) & _ONE)) >> shift) & mask


@cache
def difference(bits: int, signed_magnitude: bool) -> Callable[..., None]:
    """Build the loop that takes residuals, for reduced words of `bits` bits.

    The loop's arguments are base, target, position and mask of the exponent field, and two
    results: the zigzagged distance in ULPs of each word, and the base's exponent.
    """
    word = np.uint32 if bits <= 32 else np.uint64
    one, top, mask = word(1), word(bits - 1), word((1 << bits) - 1)
    flip = word((1 << (bits - 1)) - 1 if signed_magnitude else 0)

    def residuals(base, target, mant, kmask, residual, key):  # type: ignore[no-untyped-def]
        for i in range(target.size):
            b = word(base[i])
            t = word(target[i])
            d = ((t ^ (flip * (t >> top))) - (b ^ (flip * (b >> top)))) & mask
            residual[i] = ((d << one) & mask) ^ (mask * (d >> top))
            key[i] = (np.uint64(b) >> mant) & kmask

    return compiled(residuals)


@compiled
def count_groups(
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    table: NDArray[np.uint16],
    count: NDArray[np.int64],
) -> None:
    """Number of words in each group."""
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        keys = key[r * row : min(r * row + row, key.size)]
        groups = table[classes[r] :]
        for i in range(np.uint64(keys.size)):
            count[np.uint64(groups[_TWO * np.uint64(keys[i])])] += 1


@compiled
def group(
    residual: Words,
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    table: NDArray[np.uint16],
    cursor: NDArray[np.uint64],
    grouped: Words,
) -> None:
    """Stable counting sort of the residuals by group; inverse of the order in `rebuild`."""
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        stop = min(r * row + row, residual.size)
        residuals, keys = residual[r * row : stop], key[r * row : stop]
        groups = table[classes[r] :]
        for i in range(np.uint64(keys.size)):
            g = np.uint64(groups[_TWO * np.uint64(keys[i])])
            at = cursor[g]
            cursor[g] = at + _ONE
            grouped[at] = residuals[i]


@compiled
def _gather(
    base: Words,
    grouped: Words,
    table: NDArray[np.uint16],
    cursor: NDArray[np.uint64],
    mant: np.uint64,
    kmask: np.uint64,
    residual: Words,
) -> None:
    """The next residual of each word's group."""
    # Masking costs less than comparing, and keeps a cursor that ran too far in bounds.
    mask = np.uint64(grouped.size - 1)
    for i in range(np.uint64(base.size)):
        g = np.uint64(table[_TWO * ((np.uint64(base[i]) >> mant) & kmask)])
        at = cursor[g]
        cursor[g] = at + _ONE
        residual[i] = grouped[at & mask]


@cache
def rebuilder(bits: int, signed_magnitude: bool) -> Callable[..., None]:
    """Build the loop that adds residuals to the base, the inverse of `difference`.

    Its arguments are base, grouped residuals, row classes, words in a row, table of
    groups, each group's cursor, position and mask of the exponent field, and the result.
    The caller proves that `grouped` has a power of 2 as its size, and that the table has
    `2 * kmask + 256` entries, each below `cursor.size`. Afterwards each cursor has advanced
    by the number of words in its group: if any differs from what was coded, the base is
    not the one that the groups were made with, and the result is worthless.
    """
    word = np.uint32 if bits <= 32 else np.uint64
    zero, one = word(0), word(1)
    top, mask = word(bits - 1), word((1 << bits) - 1)
    flip = word((1 << (bits - 1)) - 1 if signed_magnitude else 0)

    def rebuild(  # type: ignore[no-untyped-def]
        base, grouped, classes, row, table, cursor, mant, kmask, out
    ):
        residual = np.empty(_BLOCK, grouped.dtype)
        for r in range(classes.size):
            stop = min(r * row + row, out.size)
            for start in range(r * row, stop, _BLOCK):
                b_block = base[start : min(start + _BLOCK, stop)]
                o_block = out[start : min(start + _BLOCK, stop)]
                if classes[r] == UNCHANGED_ROW:
                    o_block[:] = b_block
                    continue
                indices = table[classes[r] :]
                _gather(b_block, grouped, indices, cursor, mant, kmask, residual)
                for i in range(b_block.size):
                    b = word(b_block[i])
                    z = word(residual[i])
                    d = (z >> one) ^ (zero - (z & one))
                    o = ((b ^ (flip & (zero - (b >> top)))) + d) & mask
                    o_block[i] = o ^ (flip & (zero - (o >> top)))

    return compiled(rebuild)
