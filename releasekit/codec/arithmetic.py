"""Sums and differences of floats, the same to the last bit on every machine.

Words are widened to F32 (F64 stays as it is), added there, and rounded to nearest, ties to
even. That rounds twice, which does no harm: where floats of p bits are added and the sum
is first rounded to 2p + 2 bits or more, it ends where a single rounding takes it
(S. Figueroa, "When is double rounding innocuous?", SIGNUM Newsletter 30(3), 1995). F32 has
24, which is just enough for the 11 of F16; sums so small that they are subnormal are exact.
So this is also what torch computes, and any device whose F32 is that of IEEE 754.

Every NaN becomes the positive quiet one, since processors disagree about the sign and the
payload of NaNs. They agree on everything else, unless a library has set the thread to
flush subnormals to zero or to round otherwise, as loading one built with `-ffast-math`
does, or `torch.set_flush_denormal`. So the loop is first tried on a few sums that would
give that away. Where one does, integers are added in its place, more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np

from releasekit.codec.floats import Helper, Layout, lane, narrower, wide_dtype, widener
from releasekit.codec.formats import castable
from releasekit.codec.kernels import Words
from releasekit.codec.native import Kernel
from releasekit.codec.scratch import scratch
from releasekit.tensors import DType

#: Words that go through scratch space at once, and stay in the first cache.
_BLOCK: Final = 4096


def addable(dtype: DType) -> bool:
    """Whether `add` and `subtract` take words of this dtype."""
    return castable(dtype, DType.F64)


def add(a: Words, b: Words, dtype: DType, out: Words) -> None:
    """Put a + b, word by word, into `out`.

    Args:
        a: (n,) words of `dtype`, unsigned.
        b: as many.
        dtype: what they are words of.
        out: as many; may be `a` or `b`, but must not overlap them otherwise.

    Raises:
        ValueError: if `addable` says no; callers ask first.
    """
    _combine(a, b, dtype, out, negated=False)


def subtract(a: Words, b: Words, dtype: DType, out: Words) -> None:
    """Put a − b, word by word, into `out`; the rest is as for `add`."""
    _combine(a, b, dtype, out, negated=True)


def _combine(a: Words, b: Words, dtype: DType, out: Words, *, negated: bool) -> None:
    """Put a + b into `out`, or a + −b."""
    if not addable(dtype):
        raise ValueError(f"no sums of {dtype.label}")
    if not a.size == b.size == out.size:
        raise ValueError(f"{a.size} and {b.size} words do not fill {out.size}")
    block = scratch("sums", _BLOCK, f"u{dtype.bits // 8}")
    adder = _adder(dtype, _by_processor)
    if not _is_faithful(adder, dtype, block):
        adder = _adder(dtype, _by_integers)
    adder(a, b, Layout(dtype).sign if negated else 0, block, out)


def _is_faithful(adder: Kernel, dtype: DType, block: Words) -> bool:
    """Whether the processor, as this thread has set it, adds as IEEE 754 says."""
    a, b, expected = _trials(dtype)
    found = np.empty_like(expected)
    adder(a, b, 0, block, found)
    return np.array_equal(found, expected)


@cache
def _trials(dtype: DType) -> tuple[Words, Words, Words]:
    """Addends and sums that tell the modes of a processor apart."""
    layout = Layout(dtype)
    minus = layout.sign
    one = layout.bias << layout.mantissa
    half = (layout.bias - layout.mantissa - 1) << layout.mantissa  # of the last place of 1
    smallest = 1 << layout.mantissa
    trials = [
        (one, half, one),  # greater when rounded up
        (minus | one, minus | half, minus | one),  # less when rounded down
        (one + 1, half, one + 2),  # less when rounded towards zero
        (one, minus | one, 0),  # −0 when rounded down
        (1, 1, 2),  # zero when subnormals are read as zeros
        (smallest + 1, minus | smallest, 1),  # zero when they are written as zeros
    ]
    a, b, expected = np.array(trials, f"u{dtype.bits // 8}").T.copy()
    return a, b, expected


@cache
def _adder(dtype: DType, addition: Callable[[DType], Helper]) -> Kernel:
    """Build the loop that adds.

    Its arguments are two addends, the bits to invert in the second, scratch space, and the
    result. A block goes through the scratch space, since the compiler, which must expect
    the result to overlap an addend, vectorises only loops where it finds that it does not.
    """
    wide = wide_dtype(dtype)
    word, _ = lane(wide)
    widen, narrow, plus = widener(dtype, wide), narrower(wide, dtype), addition(wide)
    layout = Layout(dtype)
    mask, sign, largest = word(layout.magnitude), word(layout.sign), word(layout.largest)
    to_wide, wide_mask = word(wide.bits - dtype.bits), word(Layout(wide).magnitude)
    zero = word(0)

    def combine(a, b, flip, block, out):
        inverted = word(flip)
        for start in range(0, out.size, _BLOCK):
            stop = min(start + _BLOCK, out.size)
            left, right, result = a[start:stop], b[start:stop], out[start:stop]
            for i in range(result.size):
                x = word(left[i])
                y = word(word(right[i]) ^ inverted)
                z = plus(
                    word(word(word(x & sign) << to_wide) | widen(word(x & mask))),
                    word(word(word(y & sign) << to_wide) | widen(word(y & mask))),
                )
                found = narrow(word(z & wide_mask))
                minus = word(word(z >> to_wide) & sign)
                block[i] = word(found | (minus if found <= largest else zero))
            for i in range(result.size):
                result[i] = block[i]

    words = f"u{dtype.bits // 8}*"
    return Kernel(
        combine,
        f"{words} {words} u{wide.bits // 8} {words} {words}",
        helpers=(widen, narrow, plus),
        variant=f"_{dtype.label}{addition.__name__}",
    )


def _by_processor(wide: DType) -> Helper:
    """Build the sum of two patterns of F32 or F64 as the processor computes it."""
    word, number = lane(wide)

    def plus(x, y):
        return number(word(x).view(number) + word(y).view(number)).view(word)

    return plus


def _by_integers(wide: DType) -> Helper:
    """Build the same sum in integer arithmetic: what IEEE 754 says, whatever the mode."""
    word, number = lane(wide)
    layout = Layout(wide)
    position, mask, sign = word(layout.mantissa), word(layout.magnitude), word(layout.sign)
    infinity, nan = word(layout.largest), word(layout.nan)
    zero, one, most = word(0), word(1), word(wide.bits - 1)
    # Significands get three bits below (guard, round, sticky), and their sum one above.
    guard, drop, below_half = word(3), word(4), word(7)
    # The exponent field of the number that has only the sum's highest bit.
    highest = word(layout.bias + layout.mantissa + 4)

    def plus(x, y):
        p, q = word(x & mask), word(y & mask)
        big, small = max(p, q), min(p, q)
        unlike = word(x ^ y) >= sign
        # A subnormal has the exponent of the smallest normal number, and no hidden bit.
        exponent = max(word(big >> position), one)
        lower = max(word(small >> position), one)
        augend = word(word(big - word(word(exponent - one) << position)) << guard)
        addend = word(word(small - word(word(lower - one) << position)) << guard)
        distance = min(word(exponent - lower), most)
        aligned = word(addend >> distance)
        sticky = one if word(aligned << distance) != addend else zero
        aligned = word(aligned | sticky)
        total = word(augend - aligned) if unlike else word(augend + aligned)
        # The highest bit moves up to the carry's place, as far as the exponent allows. A
        # float's exponent finds it; without the bit below, no mode rounds to the next one.
        place = word(number(word(total & ~word(total >> one))).view(word) >> position)
        up = min(min(word(highest - place), exponent), most)
        moved = word(total << up)
        odd = word(word(moved >> drop) & one)
        rounded = word(word(word(moved + below_half) + odd) >> drop)
        found = min(word(word(word(exponent - up) << position) + rounded), infinity)
        found = infinity if big == infinity else found
        found = word(found | word((x if p >= q else y) & sign))
        found = zero if unlike & (total == zero) else found
        return nan if (big > infinity) | (unlike & (small == infinity)) else found

    return plus
