"""The compiled loops of the `ulp` codec.

numpy has no stable counting sort and no gather that advances a cursor, so these few loops
are compiled (`native`). They release the GIL.

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

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.native import Kernel

Words = NDArray[np.unsignedinteger[Any]]

#: Row class of rows in which nothing changed; such rows have no residuals at all.
UNCHANGED_ROW: Final = 255

#: Words whose residuals `rebuilder` gathers before it adds them: they stay in the first
#: cache. Its scratch array has this size.
BLOCK: Final = 4096

_ONE = np.uint64(1)
_TWO = np.uint64(2)


@cache
def reducer(word_nbytes: int) -> Kernel:
    """Build the loop that drops low bits, to nearest, ties to even.

    Its arguments are words, the number of bits to drop (at least 1), the words' bits, and
    the result, modulo 2**(bits - shift).
    """

    def reduce(words, shift, bits, out):
        half = (_ONE << (shift - _ONE)) - _ONE
        mask = (_ONE << (bits - shift)) - _ONE
        for i in range(words.size):
            word = np.uint64(words[i])
            out[i] = ((word + half + ((word >> shift) & _ONE)) >> shift) & mask

    w = f"u{word_nbytes}*"
    return Kernel(reduce, f"{w} u8 u8 {w}", variant=f"_{word_nbytes}")


@cache
def difference(word_nbytes: int, bits: int, signed_magnitude: bool) -> Kernel:
    """Build the loop that takes residuals, for reduced words of `bits` bits.

    The loop's arguments are base, target, position and mask of the exponent field, and two
    results: the zigzagged distance in ULPs of each word, and the base's exponent (uint16).
    """
    word = np.uint32 if bits <= 32 else np.uint64
    one, top, mask = word(1), word(bits - 1), word((1 << bits) - 1)
    flip = word((1 << (bits - 1)) - 1 if signed_magnitude else 0)

    def residuals(base, target, mant, kmask, residual, key):
        for i in range(target.size):
            b = word(base[i])
            t = word(target[i])
            d = ((t ^ (flip * (t >> top))) - (b ^ (flip * (b >> top)))) & mask
            residual[i] = ((d << one) & mask) ^ (mask * (d >> top))
            key[i] = (np.uint64(b) >> mant) & kmask

    w, z = f"u{word_nbytes}*", f"u{residual_nbytes(word_nbytes)}*"
    return Kernel(
        residuals,
        f"{w} {w} u8 u8 {z} u2*",
        variant=f"_{word_nbytes}_{bits}_{signed_magnitude:d}",
    )


def residual_nbytes(word_nbytes: int) -> int:
    """Bytes in a residual of words of this size: pcodec codes no type of 8 bits faster."""
    return 8 if word_nbytes == 8 else 4


def _count_groups(key, classes, row, table, count):
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        keys = key[r * row : min(r * row + row, key.size)]
        groups = table[classes[r] :]
        for i in range(np.uint64(keys.size)):
            count[np.uint64(groups[_TWO * np.uint64(keys[i])])] += 1


#: Counts the words in each group, from exponents, row classes, words in a row, and the
#: table of groups; the counts (int64) begin at 0.
count_groups: Final = Kernel(_count_groups, "u2* u1* i8 u2* i8*")


@cache
def grouper(word_nbytes: int) -> Kernel:
    """Build the stable counting sort of residuals by group, the inverse of the gather.

    Its arguments are residuals, exponents, row classes, words in a row, table of groups,
    each group's cursor (uint64), and the result.
    """

    def group(residual, key, classes, row, table, cursor, grouped):
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

    nbytes = residual_nbytes(word_nbytes)
    return Kernel(group, f"u{nbytes}* u2* u1* i8 u2* u8* u{nbytes}*", variant=f"_{nbytes}")


def _gather(base, grouped, table, cursor, mant, kmask, residual):
    """The next residual of each word's group."""
    # Masking costs less than comparing, and keeps a cursor that ran too far in bounds.
    mask = np.uint64(grouped.size - 1)
    for i in range(np.uint64(base.size)):
        g = np.uint64(table[_TWO * ((np.uint64(base[i]) >> mant) & kmask)])
        at = cursor[g]
        cursor[g] = at + _ONE
        residual[i] = grouped[at & mask]


@cache
def rebuilder(word_nbytes: int, bits: int, signed_magnitude: bool) -> Kernel:
    """Build the loop that adds residuals to the base, the inverse of `difference`.

    Its arguments are words (the base's, replaced by the target's), grouped residuals, row
    classes, words in a row, table of groups, each group's cursor (uint64), position and
    mask of the exponent field, and scratch space for `BLOCK` residuals. The caller proves
    that `grouped` has a power of 2 as its size, and that the table has `2 * kmask + 256`
    entries, each below `cursor.size`. Afterwards each cursor has advanced by the number of
    words in its group: if any differs from what was coded, the base is not the one that the
    groups were made with, and the result is worthless.
    """
    word = np.uint32 if bits <= 32 else np.uint64
    zero, one = word(0), word(1)
    top, mask = word(bits - 1), word((1 << bits) - 1)
    flip = word((1 << (bits - 1)) - 1 if signed_magnitude else 0)

    def rebuild(words, grouped, classes, row, table, cursor, mant, kmask, residual):
        for r in range(classes.size):
            if classes[r] == UNCHANGED_ROW:
                continue
            stop = min(r * row + row, words.size)
            indices = table[classes[r] :]
            for start in range(r * row, stop, BLOCK):
                block = words[start : min(start + BLOCK, stop)]
                _gather(block, grouped, indices, cursor, mant, kmask, residual)
                for i in range(block.size):
                    b = word(block[i])
                    z = word(residual[i])
                    d = (z >> one) ^ (zero - (z & one))
                    o = ((b ^ (flip & (zero - (b >> top)))) + d) & mask
                    block[i] = o ^ (flip & (zero - (o >> top)))

    w, z = f"u{word_nbytes}*", f"u{residual_nbytes(word_nbytes)}*"
    return Kernel(
        rebuild,
        f"{w} {z} u1* i8 u2* u8* u8 u8 {z}",
        helpers=(_gather,),
        variant=f"_{word_nbytes}_{bits}_{signed_magnitude:d}",
    )
