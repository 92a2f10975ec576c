"""Sums of any floats: the number nearest to the exact sum, ties to even."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.codec import arithmetic
from releasekit.codec.arithmetic import add, addable, subtract
from releasekit.tensors import DType


class Float:
    """A float dtype without NaN and infinity, as integers and fractions."""

    def __init__(self, dtype: DType) -> None:
        self.bits = dtype.bits
        self.hidden = 1 << dtype.word.mantissa_bits
        self.sign = 1 << (dtype.bits - 1)
        # The power of 2 that subnormals, and the smallest normal numbers, are multiples of.
        self.least = 2 - (1 << (dtype.word.exponent_bits - 1)) - dtype.word.mantissa_bits
        self.overflow = self.sign - (1 if dtype is DType.F8_E4M3 else self.hidden)

    def value(self, pattern: int) -> Fraction:
        field, fraction = divmod(pattern & ~self.sign, self.hidden)
        steps = fraction + (self.hidden if field else 0)
        magnitude = steps * Fraction(2) ** (self.least + max(field - 1, 0))
        return -magnitude if pattern & self.sign else magnitude

    def nearest(self, value: Fraction) -> int:
        magnitude, field = abs(value) / Fraction(2) ** self.least, 0
        while magnitude >= 2 * self.hidden:
            magnitude, field = magnitude / 2, field + 1
        pattern = min(round(magnitude) + field * self.hidden, self.overflow)  # ties to even
        return pattern | (self.sign if value < 0 else 0)


FLOATS = {dtype: Float(dtype) for dtype in DType if addable(dtype)}


@st.composite
def addends(draw: st.DrawFn) -> tuple[DType, list[tuple[int, int]]]:
    """Pairs of finite patterns, some of them alike or half a unit apart."""
    dtype = draw(st.sampled_from(sorted(FLOATS, key=lambda dtype: dtype.label)))
    kind = FLOATS[dtype]
    magnitudes = st.integers(0, kind.overflow - 1)

    def near(a: int) -> st.SearchStrategy[tuple[int, int]]:
        steps = st.integers(-3, 3) | st.integers(-4, 4).map(lambda n: n * kind.hidden)
        places = st.integers(0, 2 * kind.hidden.bit_length()).map(lambda n: n * kind.hidden)
        other = st.tuples(steps, places).map(lambda pair: abs(a + pair[0] - pair[1]))
        return st.tuples(st.just(a), other.map(lambda b: min(b, kind.overflow - 1)))

    pairs = st.tuples(magnitudes, magnitudes) | magnitudes.flatmap(near)
    signs = st.sampled_from([0, kind.sign])
    signed = st.builds(lambda p, s, t: (p[0] | s, p[1] | t), pairs, signs, signs)
    return dtype, draw(st.lists(signed, min_size=1, max_size=40))


@pytest.mark.parametrize("faithful", [True, False], ids=["processor", "integers"])
@given(case=addends(), negated=st.booleans())
def test_sums_are_the_nearest_numbers(
    faithful: bool, case: tuple[DType, list[tuple[int, int]]], negated: bool
) -> None:
    dtype, pairs = case
    kind = FLOATS[dtype]
    a, b = np.array(pairs, f"u{dtype.bits // 8}").T.copy()
    out = np.empty_like(a)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "_is_faithful", lambda *_: faithful)
        (subtract if negated else add)(a, b, dtype, out)
    for left, right, found in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        other = right ^ kind.sign if negated else right
        exact = kind.value(left) + kind.value(other)
        expected = kind.nearest(exact) if exact else left & other & kind.sign
        if dtype is DType.F8_E4M3 and expected & ~kind.sign == kind.overflow:
            expected = kind.overflow  # a NaN, which has no sign
        assert hex(found) == hex(expected), (dtype, hex(left), hex(right))
