"""The recorded cast: a base of one float dtype as a predictor for a target of another.

A base in fp16 and a fine-tune in bf16 still share most of their bits once one is rounded
to the other. The cast need only be the same everywhere, for ever: `floats` converts bit
patterns, so no processor's rounding mode, flush-to-zero setting or NaN convention can
change a released byte. It rounds to nearest, ties to even (IEEE 754-2019, 4.3.1),
overflows to infinity (to NaN in F8_E4M3, which has no infinity), and turns every NaN into
the quiet NaN of its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from releasekit.codec.floats import Layout, lane, narrower, wide_dtype, widener
from releasekit.codec.formats import castable
from releasekit.codec.kernels import Words
from releasekit.codec.native import Kernel
from releasekit.tensors import DType


def cast(words: Words, source: DType, target: DType, out: Words) -> None:
    """Convert (n,) words of `source` into (n,) words of `target`, both unsigned.

    Raises:
        ValueError: if `castable` says no; callers ask first.
    """
    _check(source, target)
    if words.size != out.size:
        raise ValueError(f"{words.size} words do not fill {out.size}")
    _converter(source, target)(words, out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a cast loses. NaNs are not counted.

    Attributes:
        rounded: numbers that the target's dtype lacks, and others stand for.
        overflowed: those of them that were finite, and became infinite or NaN.
    """

    rounded: int = 0
    overflowed: int = 0

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            rounded=self.rounded + other.rounded,
            overflowed=self.overflowed + other.overflowed,
        )


def cast_changes(words: Words, source: DType, target: DType) -> Changes:
    """What `cast` loses of (n,) words.

    Raises:
        ValueError: if `castable` says no; callers ask first.
    """
    _check(source, target)
    count = np.zeros(2, np.uint64)
    _counter(source, target)(words, count)
    rounded, overflowed = count.tolist()
    return Changes(rounded=rounded, overflowed=overflowed)


def _check(source: DType, target: DType) -> None:
    if not castable(source, target):
        raise ValueError(f"no cast from {source.label} to {target.label}")


@cache
def _converter(source: DType, target: DType) -> Kernel:
    wide = wide_dtype(source, target)
    word, _ = lane(wide)
    widen, narrow = widener(source, wide), narrower(wide, target)
    mask = word(Layout(source).magnitude)
    top, to_top = word(source.bits - 1), word(target.bits - 1)

    def convert(words, out):
        for i in range(words.size):
            found = word(words[i])
            sign = word(word(found >> top) << to_top)
            out[i] = word(sign | narrow(widen(word(found & mask))))

    return Kernel(
        convert,
        f"u{source.bits // 8}* u{target.bits // 8}*",
        helpers=(widen, narrow),
        variant=f"_{source.label}_{target.label}",
    )


@cache
def _counter(source: DType, target: DType) -> Kernel:
    wide = wide_dtype(source, target)
    word, _ = lane(wide)
    widen, narrow, widen_again = (
        widener(source, wide),
        narrower(wide, target),
        widener(target, wide),
    )
    mask = word(Layout(source).magnitude)
    infinity, overflow = word(Layout(wide).largest), word(Layout(target).overflow)

    def count(words, counts):
        rounded = overflowed = np.uint64(0)
        for i in range(words.size):
            exact = widen(word(word(words[i]) & mask))
            found = narrow(exact)
            rounded += np.uint64((widen_again(found) != exact) & (exact <= infinity))
            overflowed += np.uint64((found >= overflow) & (exact < infinity))
        counts[0] = rounded
        counts[1] = overflowed

    return Kernel(
        count,
        f"u{source.bits // 8}* u8*",
        helpers=(widen, narrow, widen_again),
        variant=f"_{source.label}_{target.label}",
    )
