"""Floats inside compiled loops: exact widening, and rounding to the nearest.

Loops that cast or add floats work in a *wide* dtype: F64 if one of theirs is F64, else
F32. All others widen to it exactly, and one rounding leads back. Both steps are built here
as helpers of a `Kernel`, from constants and without branches, so that the compiler
vectorises them. They take and return *magnitudes*: patterns without their sign.

Nothing that a library may set in the processor changes their results. They are integer
arithmetic but for one product, which is exact, and normal or zero like its factors: neither
a rounding mode nor flushing subnormals to zero has anything to act on.

Each intermediate result is put into the wide dtype's word at once. numba computes on
integers in 64 bits, and the compiler finds its way back to 32, with twice as many words in
a register, only if it is told so all the way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from releasekit.tensors import DType

#: What `Kernel` takes as a helper.
Helper = Callable[..., Any]


def wide_dtype(*dtypes: DType) -> DType:
    """The dtype in which a loop over these works."""
    return DType.F64 if DType.F64 in dtypes else DType.F32


def lane(wide: DType) -> tuple[Any, Any]:
    """The types of a wide dtype's patterns and of its numbers."""
    return (np.uint64, np.float64) if wide is DType.F64 else (np.uint32, np.float32)


class Layout:
    """The patterns of a float dtype that have a meaning of their own.

    Attributes:
        mantissa: bits of the mantissa, which is also the exponent's position.
        exponent: bits of the exponent.
        bias: what an exponent of 0 is stored as.
        sign: the top bit.
        magnitude: all bits but the sign.
        largest: the largest magnitude that is not NaN: infinity, if there is one.
        overflow: what is too large: infinity; in F8_E4M3, which has none, NaN.
        nan: the quiet NaN with only the highest mantissa bit set; in F8_E4M3 its NaN.
    """

    def __init__(self, dtype: DType) -> None:
        word = dtype.word
        self.mantissa = word.mantissa_bits
        self.exponent = word.exponent_bits
        self.bias = (1 << (word.exponent_bits - 1)) - 1
        self.sign = 1 << (word.bits - 1)
        self.magnitude = self.sign - 1
        if dtype is DType.F8_E4M3:
            self.nan = self.overflow = self.magnitude
            self.largest = self.nan - 1
        else:
            self.largest = self.overflow = self.magnitude >> self.mantissa << self.mantissa
            self.nan = self.overflow | 1 << (self.mantissa - 1)


def widener(source: DType, wide: DType) -> Helper:
    """Build the exact cast of a magnitude of `source` to `wide`; a NaN becomes any NaN."""
    word, number = lane(wide)
    narrow, broad = Layout(source), Layout(wide)
    shift = word(broad.mantissa - narrow.mantissa)
    if narrow.exponent == broad.exponent:
        return lambda magnitude: word(magnitude << shift)

    normal, special = word(1 << narrow.mantissa), word(narrow.overflow)
    rebias = word((broad.bias - narrow.bias) << broad.mantissa)
    to_special = word(broad.largest - narrow.largest)
    smallest = number(2.0 ** (1 - narrow.bias - narrow.mantissa))

    def widen(magnitude):
        subnormal = number(number(np.int32(magnitude)) * smallest).view(word)
        moved = word(word(magnitude << shift) + rebias)
        found = moved if magnitude >= normal else subnormal
        return word(magnitude + to_special) if magnitude >= special else found

    return widen


def narrower(wide: DType, target: DType) -> Helper:
    """Build the cast of a magnitude of `wide` to `target`: nearest, ties to even.

    What is too large becomes `Layout.overflow`, and every NaN `Layout.nan`.
    """
    word, _ = lane(wide)
    broad, narrow = Layout(wide), Layout(target)
    infinity, nan, overflow = word(broad.largest), word(narrow.nan), word(narrow.overflow)
    one, drop = word(1), broad.mantissa - narrow.mantissa
    # In both, a carry out of the mantissa moves into the exponent, as it should.
    if narrow.exponent == broad.exponent:
        shift, odd_mask = word(drop), word(drop > 0)
        below_half = word(max((1 << drop >> 1) - 1, 0))

        def narrow_mantissa(magnitude):
            odd = word(word(magnitude >> shift) & odd_mask)
            rounded = word(word(word(magnitude + below_half) + odd) >> shift)
            return nan if magnitude > infinity else rounded

        return narrow_mantissa

    position, to_position = word(broad.mantissa), word(narrow.mantissa)
    hidden, fraction = word(1 << broad.mantissa), word((1 << broad.mantissa) - 1)
    first = word(broad.bias - narrow.bias + 1)  # exponent of the smallest normal number
    least, most = word(drop), word(broad.mantissa + 2)

    def narrow_both(magnitude):
        exponent = word(magnitude >> position)
        base = max(exponent, first)
        # A bit more is dropped for each step below the normal numbers; at most all. What
        # is subnormal in the wide dtype is read as normal: it vanishes either way.
        shift = min(word(word(base - exponent) + least), most)
        significand = word(word(magnitude & fraction) | hidden)
        below_half = word(word(word(one << shift) >> one) - one)
        odd = word(word(significand >> shift) & one)
        rounded = word(word(word(significand + below_half) + odd) >> shift)
        found = word(word(word(base - first) << to_position) + rounded)
        return nan if magnitude > infinity else min(found, overflow)

    return narrow_both
