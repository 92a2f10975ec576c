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
from releasekit.tensors import Word

Words = NDArray[np.unsignedinteger[Any]]
_WORDS: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}

#: Row class of rows in which nothing changed; such rows have no residuals at all.
UNCHANGED_ROW: Final = 255

#: Words that the loops work through in several steps: scratch arrays have this size, and
#: stay in the first cache.
BLOCK: Final = 4096

_ONE = np.uint64(1)
_TWO = np.uint64(2)
_THREE = np.uint64(3)
_FOUR = np.uint64(4)


def as_words(data: NDArray[np.uint8], word: Word) -> Words:
    """See bytes as words; the size must be a whole number of them."""
    return data.view(_WORDS[word.bits])


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

    w = f"u{word_nbytes}*"
    return Kernel(
        residuals,
        f"{w} {w} u8 u8 {w} u2*",
        variant=f"_{word_nbytes}_{bits}_{signed_magnitude:d}",
    )


def coded_nbytes(word_nbytes: int) -> int:
    """Bytes of the integers as which residuals of words of this size are coded.

    pcodec decodes integers of 32 bits as fast as narrower ones, or faster.
    """
    return max(word_nbytes, 4)


def _count_groups(key, classes, row, table, count):
    size = np.uint64(count.size >> 2)
    c0, c1 = count[:size], count[size : _TWO * size]
    c2, c3 = count[_TWO * size : _THREE * size], count[_THREE * size :]
    for r in range(classes.size):
        if classes[r] == UNCHANGED_ROW:
            continue
        keys = key[r * row : min(r * row + row, key.size)]
        groups = table[classes[r] :]
        stop, i = np.uint64(keys.size), np.uint64(0)
        while i + _THREE < stop:
            c0[np.uint64(groups[_TWO * np.uint64(keys[i])])] += 1
            c1[np.uint64(groups[_TWO * np.uint64(keys[i + _ONE])])] += 1
            c2[np.uint64(groups[_TWO * np.uint64(keys[i + _TWO])])] += 1
            c3[np.uint64(groups[_TWO * np.uint64(keys[i + _THREE])])] += 1
            i += _FOUR
        while i < stop:
            c0[np.uint64(groups[_TWO * np.uint64(keys[i])])] += 1
            i += _ONE


_counter: Final = Kernel(_count_groups, "u2* u1* i8 u2* i8*")


def count_groups(
    key: NDArray[np.uint16],
    classes: NDArray[np.uint8],
    row: int,
    table: NDArray[np.uint16],
    groups: int,
) -> NDArray[np.int64]:
    """Number of words in each group.

    Args:
        key: (n,) exponents.
        classes: one a row.
        row: words in a row.
        table: group of each index, below `groups`.
        groups: number of groups.
    """
    # Four counters a group: one would wait for itself from word to word.
    count = np.zeros((4, groups), np.int64)
    _counter(key, classes, row, table, count.reshape(-1))
    total: NDArray[np.int64] = count.sum(axis=0)
    return total


def _ranks(key, table, cursor, rank):
    """The place of each word among those of its group."""
    stop, i = np.uint64(key.size), np.uint64(0)
    while i + _THREE < stop:
        a = np.uint64(table[_TWO * np.uint64(key[i])])
        b = np.uint64(table[_TWO * np.uint64(key[i + _ONE])])
        c = np.uint64(table[_TWO * np.uint64(key[i + _TWO])])
        d = np.uint64(table[_TWO * np.uint64(key[i + _THREE])])
        at = cursor[a]
        cursor[a] = at + _ONE
        rank[i] = at
        at = cursor[b]
        cursor[b] = at + _ONE
        rank[i + _ONE] = at
        at = cursor[c]
        cursor[c] = at + _ONE
        rank[i + _TWO] = at
        at = cursor[d]
        cursor[d] = at + _ONE
        rank[i + _THREE] = at
        i += _FOUR
    while i < stop:
        a = np.uint64(table[_TWO * np.uint64(key[i])])
        rank[i] = cursor[a]
        cursor[a] += _ONE
        i += _ONE


@cache
def grouper(word_nbytes: int) -> Kernel:
    """Build the stable counting sort of residuals by group, the inverse of the gather.

    Its arguments are residuals, exponents, row classes, words in a row, table of groups,
    each group's cursor (uint64), scratch space for `BLOCK` ranks (uint32), and the result.
    """

    def group(residual, key, classes, row, table, cursor, rank, grouped):
        # Ranks first, then residuals, takes half the time of both at once: a processor
        # that does not yet know where a store goes holds back the loads behind it.
        for r in range(classes.size):
            if classes[r] == UNCHANGED_ROW:
                continue
            stop = min(r * row + row, residual.size)
            groups = table[classes[r] :]
            for start in range(r * row, stop, BLOCK):
                end = min(start + BLOCK, stop)
                _ranks(key[start:end], groups, cursor, rank)
                block = residual[start:end]
                for i in range(np.uint64(block.size)):
                    grouped[np.uint64(rank[i])] = block[i]

    w = f"u{word_nbytes}*"
    return Kernel(
        group,
        f"{w} u2* u1* i8 u2* u8* u4* {w}",
        helpers=(_ranks,),
        variant=f"_{word_nbytes}",
    )


def _gather(base, grouped, table, cursor, mant, kmask, residual):
    """The next residual of each word's group."""
    # Masking costs less than comparing, and keeps a cursor that ran too far in bounds.
    # Four at once: more than one load can be under way.
    mask = np.uint64(grouped.size - 1)
    stop, i = np.uint64(base.size), np.uint64(0)
    while i + _THREE < stop:
        a = np.uint64(table[_TWO * ((np.uint64(base[i]) >> mant) & kmask)])
        b = np.uint64(table[_TWO * ((np.uint64(base[i + _ONE]) >> mant) & kmask)])
        c = np.uint64(table[_TWO * ((np.uint64(base[i + _TWO]) >> mant) & kmask)])
        d = np.uint64(table[_TWO * ((np.uint64(base[i + _THREE]) >> mant) & kmask)])
        at_a = cursor[a]
        cursor[a] = at_a + _ONE
        at_b = cursor[b]
        cursor[b] = at_b + _ONE
        at_c = cursor[c]
        cursor[c] = at_c + _ONE
        at_d = cursor[d]
        cursor[d] = at_d + _ONE
        residual[i] = grouped[at_a & mask]
        residual[i + _ONE] = grouped[at_b & mask]
        residual[i + _TWO] = grouped[at_c & mask]
        residual[i + _THREE] = grouped[at_d & mask]
        i += _FOUR
    while i < stop:
        a = np.uint64(table[_TWO * ((np.uint64(base[i]) >> mant) & kmask)])
        residual[i] = grouped[cursor[a] & mask]
        cursor[a] += _ONE
        i += _ONE


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

    w, z = f"u{word_nbytes}*", f"u{coded_nbytes(word_nbytes)}*"
    return Kernel(
        rebuild,
        f"{w} {z} u1* i8 u2* u8* u8 u8 {z}",
        helpers=(_gather,),
        variant=f"_{word_nbytes}_{bits}_{signed_magnitude:d}",
    )
