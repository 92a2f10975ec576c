# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
"""A word as a number, and as an ordered integer: the first steps of compiled loops.

A *number* is an F64, which holds the values of all dtypes exactly, but for large integers
of 64 bits. An *ordered integer* is that of section 5.1 of FORMAT.md: a distance in ULPs is
a difference of two of them. The loops know floats of 16 bits and more, and I64; words of
other dtypes become such first.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.cast import cast
from releasekit.codec.floats import Helper, Layout, lane, wide_dtype, widener
from releasekit.codec.formats import castable
from releasekit.codec.kernels import Words
from releasekit.tensors import DType

#: Steps from a word, the last of which calls those before it.
Steps = tuple[Helper, ...]

#: Dtypes that the loops know as they are.
_KNOWN: Final = (DType.F16, DType.BF16, DType.F32, DType.F64)
_SIGNED: Final = (DType.I8, DType.I16, DType.I32, DType.I64)
#: Two elements and more to three bytes: no byte is a number.
OPAQUE: Final = frozenset((DType.F4, DType.F6_E2M3, DType.F6_E3M2))
#: Dtypes whose words have no distance that would mean anything.
_UNORDERED: Final = frozenset((*OPAQUE, DType.BOOL))


def element(dtype: DType) -> DType:
    """What one word of a dtype holds: half of a complex number is an F32."""
    return DType.F32 if dtype is DType.C64 else dtype


@cache
def table(dtype: DType) -> NDArray[np.float64]:
    """The numbers of all patterns of a dtype of 8 bits.

    Sources: OCP 8-bit Floating Point Specification 1.0 (F8_E4M3 has no infinity, and one
    NaN); OCP Microscaling Formats 1.0, 5.4.1 (F8_E8M0: 2**(x - 127), 255 is NaN);
    arXiv:2206.02915 (FNUZ: the exponent's bias is 1 more than IEEE's, there is neither
    infinity nor -0, and the pattern of -0 is NaN).
    """
    patterns = np.arange(256)
    if dtype is DType.F8_E8M0:
        values: NDArray[np.float64] = np.ldexp(1.0, patterns - 127)
        values[255] = np.nan
        return values
    if not dtype.word.signed_magnitude:
        kind = np.int8 if dtype is DType.I8 else np.uint8
        return patterns.astype(np.uint8).view(kind).astype(np.float64)
    mantissa, exponent = dtype.word.mantissa_bits, dtype.word.exponent_bits
    fraction, power = patterns & ((1 << mantissa) - 1), (patterns & 127) >> mantissa
    significand = np.where(power > 0, fraction + (1 << mantissa), fraction)
    is_fnuz = dtype in (DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ)
    bias = (1 << (exponent - 1)) - (not is_fnuz)
    values = np.ldexp(
        significand.astype(np.float64), np.maximum(power, 1) - bias - mantissa
    )
    if is_fnuz:
        values[128] = np.nan
    elif dtype is DType.F8_E4M3:
        values[[127, 255]] = np.nan
    else:
        top = power == (1 << exponent) - 1
        values[top] = np.where(fraction[top] > 0, np.nan, np.inf)
    values[128:] *= -1
    return values


def ordered_dtype(first: DType, second: DType) -> DType | None:
    """The dtype in whose ULPs two dtypes are compared; None if they cannot be.

    Their own, if they have the same; else a wide one that both floats widen to exactly.
    """
    if first is second:
        return None if first in _UNORDERED else first
    return wide_dtype(first, second) if castable(first, second) else None


def as_numbers(words: Words, dtype: DType) -> tuple[Words, DType]:
    """Words with the same numbers, of a float dtype that the loops know.

    Floats of 16 bits and more are so already; others, which are rare or small, become F64.
    """
    dtype = element(dtype)
    if dtype in _KNOWN:
        return words, dtype
    if dtype.word.bits == 8:
        return table(dtype)[words].view(np.uint64), DType.F64
    return words.view(_kind(dtype)).astype(np.float64).view(np.uint64), DType.F64


def as_ordered(words: Words, dtype: DType) -> tuple[Words, DType]:
    """Words with the same distances from each other, of a dtype that the loops know."""
    dtype = element(dtype)
    if dtype in _KNOWN:
        return words, dtype
    if dtype.word.signed_magnitude:
        patterns = np.arange(256)
        ordered = np.where(patterns > 127, 127 - patterns, patterns)
        return ordered[words].view(np.uint64), DType.I64
    if dtype is DType.U64:
        return words ^ np.uint64(1 << 63), DType.I64
    return words.view(_kind(dtype)).astype(np.int64).view(np.uint64), DType.I64


def widened(words: Words, dtype: DType, wide: DType) -> Words:
    """The same numbers in another dtype that holds them all; a NaN loses its payload."""
    if dtype is wide:
        return words
    out = np.empty(words.size, f"u{wide.bits // 8}")
    cast(words, dtype, wide, out)
    return out


def _kind(dtype: DType) -> str:
    return f"{'i' if dtype in _SIGNED else 'u'}{dtype.word.bits // 8}"


def number_steps(dtype: DType) -> Steps:
    """From a word of a float dtype that the loops know to its number."""
    wide = wide_dtype(dtype)
    word_type, number_type = lane(wide)
    widen = widener(dtype, wide)
    mask = word_type(Layout(dtype).magnitude)
    top, to_top = word_type(dtype.bits - 1), word_type(wide.bits - 1)

    def number(word):
        found = word_type(word)
        sign = word_type(word_type(found >> top) << to_top)
        pattern = word_type(sign | widen(word_type(found & mask)))
        return np.float64(word_type(pattern).view(number_type))

    return (widen, number)


def order_steps(dtype: DType) -> Steps:
    """From a word of a dtype that the loops know to an int64 that orders as its numbers."""
    bits = dtype.word.bits
    kind = getattr(np, f"int{bits}")
    if not dtype.word.signed_magnitude:
        return (lambda word: np.int64(kind(word)),)
    flip, sign = kind((1 << (bits - 1)) - 1), kind(bits - 1)

    def order(word):
        found = kind(word)
        return np.int64(kind(found ^ kind(kind(found >> sign) & flip)))

    return (order,)
