"""Figures of tensors, held against numpy and Python's own arithmetic."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.statistics.changes import Change, bucket_range, comparable
from releasekit.statistics.kernels import BLOCK
from releasekit.statistics.narrowing import Extent, common, holders, narrower
from releasekit.statistics.values import Values
from releasekit.statistics.words import OPAQUE, element, table
from releasekit.tensors import DType

FLOATS = (DType.F16, DType.BF16, DType.F32, DType.F64)
NUMBERS: list[DType] = [dtype for dtype in DType if dtype not in OPAQUE]
ORDERED: list[DType] = [dtype for dtype in NUMBERS if dtype is not DType.BOOL]
SIGNED = {DType.I8, DType.I16, DType.I32, DType.I64}


def raw(words: list[int], dtype: DType) -> NDArray[np.uint8]:
    """Words as they lie in a file."""
    width = dtype.word.bits // 8
    data = b"".join(word.to_bytes(width, "little") for word in words)
    return np.frombuffer(bytearray(data), np.uint8)


def number(word: int, dtype: DType) -> float:
    """A word's number, by Python's struct, or by the definition of small floats."""
    dtype = element(dtype)
    if dtype is DType.BF16:
        return float(struct.unpack("<f", (word << 16).to_bytes(4, "little"))[0])
    codes = {DType.F16: "<e", DType.F32: "<f", DType.F64: "<d"}
    if dtype in codes:
        data = word.to_bytes(dtype.bits // 8, "little")
        return float(struct.unpack(codes[dtype], data)[0])
    if dtype is DType.F8_E8M0:
        return math.nan if word == 255 else 2.0 ** (word - 127)
    if not dtype.word.signed_magnitude:
        negative = dtype in SIGNED and word >> (dtype.bits - 1)
        return float(word - (1 << dtype.bits) if negative else word)
    sign = -1 if word >> 7 else 1
    mantissa_bits = dtype.word.mantissa_bits
    fraction, power = word % (1 << mantissa_bits), word % 128 >> mantissa_bits
    if dtype in (DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ):
        if word == 128:
            return math.nan
        bias = 1 << (dtype.word.exponent_bits - 1)
    else:
        bias = (1 << (dtype.word.exponent_bits - 1)) - 1
        if dtype is DType.F8_E4M3 and word % 128 == 127:
            return math.nan
        if dtype is DType.F8_E5M2 and power == 31:
            return math.nan if fraction else sign * math.inf
    whole = fraction + (1 << mantissa_bits) * (power > 0)
    return sign * whole * 2.0 ** (max(power, 1) - bias - mantissa_bits)


def order(word: int, dtype: DType) -> int:
    """The ordered integer of section 5.1 of FORMAT.md, as one that has a sign."""
    bits = dtype.word.bits
    top = word >> (bits - 1)
    if dtype.word.signed_magnitude:
        return (word ^ ((1 << (bits - 1)) - 1)) - (1 << bits) if top else word
    return word - (1 << bits) if dtype in SIGNED and top else word


@st.composite
def sequences(draw: st.DrawFn, dtypes: list[DType], count: int = 1) -> Any:
    """A dtype, and lists of words of one length; many are those that are special."""
    dtype = draw(st.sampled_from(dtypes))
    bits = dtype.word.bits
    if dtype is DType.BOOL:
        words = st.integers(0, 1)
    else:
        top = 1 << (bits - 1)
        inf = ((1 << dtype.word.exponent_bits) - 1) << dtype.word.mantissa_bits
        odd = [0, 1, top, top + 1, top - 1, 2 * top - 1, inf % top, inf % top + 1]
        words = st.one_of(st.sampled_from(odd), st.integers(0, 2 * top - 1))
    length = draw(st.integers(0, 12))
    lists = st.lists(words, min_size=length, max_size=length)
    return dtype, *(draw(lists) for _ in range(count))


def near(found: float | None, expected: float) -> bool:
    if found is None:
        return not math.isfinite(expected)
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-300)


@pytest.mark.parametrize("dtype", [d for d in NUMBERS if d.word.bits == 8], ids=str)
def test_every_pattern_of_a_byte_is_looked_up_right(dtype: DType) -> None:
    expected = [number(word, dtype) for word in range(256)]
    np.testing.assert_array_equal(table(dtype), expected)


@given(sequences(NUMBERS))
def test_values_are_those_of_a_naive_reading(case: Any) -> None:
    dtype, words = case
    numbers = [number(word, dtype) for word in words]
    finite = [x for x in numbers if math.isfinite(x)]
    found = Values.of(raw(words, dtype), dtype)
    assert found is not None
    assert found.count == len(numbers)
    assert found.finite == len(finite)
    assert found.nans == sum(map(math.isnan, numbers))
    assert found.infinities == sum(map(math.isinf, numbers))
    assert found.zeros == numbers.count(0)
    if not finite:
        assert (
            found.least is found.greatest is found.mean is found.std is found.place is None
        )
        return
    assert (found.least, found.greatest) == (min(finite), max(finite))
    sizes = [abs(x) if math.isfinite(x) else -1 for x in numbers]
    assert (found.largest, found.place) == (max(sizes), sizes.index(max(sizes)))
    if max(sizes) < 1e100:
        mean = math.fsum(finite) / len(finite)
        scale = max(sizes)
        assert found.mean is not None
        assert math.isclose(found.mean, mean, rel_tol=1e-9, abs_tol=1e-14 * scale)
        deviations = math.fsum((x - mean) ** 2 for x in finite)
        assert found.std is not None
        std = math.sqrt(deviations / len(finite))
        assert math.isclose(found.std, std, rel_tol=1e-9, abs_tol=1e-14 * scale)


@given(sequences(ORDERED, 2))
def test_distances_are_differences_of_ordered_integers(case: Any) -> None:
    dtype, first, second = case
    found = Change.of(raw(first, dtype), dtype, raw(second, dtype), dtype)
    like = element(dtype)
    apart = [
        abs(order(y, like) - order(x, like)) for x, y in zip(first, second, strict=True)
    ]
    assert found.words == len(apart)
    assert found.same == apart.count(0) == sum(map(int.__eq__, first, second))
    assert found.ulps is not None
    counts: dict[int, int] = {}
    for distance in apart:
        counts[distance.bit_length()] = counts.get(distance.bit_length(), 0) + 1
    assert found.ulps.octaves == counts
    assert near(found.ulps.total, float(sum(apart)))
    assert found.ulps.largest == float(max(apart, default=0))
    if dtype.word.bits <= 32:
        assert found.ulps.total == sum(apart)


@given(sequences(NUMBERS, 2))
def test_the_update_is_that_of_naive_arithmetic(case: Any) -> None:
    dtype, first, second = case
    found = Change.of(raw(first, dtype), dtype, raw(second, dtype), dtype).update
    pairs = [
        (number(x, dtype), number(y, dtype)) for x, y in zip(first, second, strict=True)
    ]
    fine = [(x, y) for x, y in pairs if math.isfinite(y - x)]
    assert found is not None
    assert found.skipped == len(pairs) - len(fine)
    moved = [abs(y - x) for x, y in pairs]
    finite = [d if math.isfinite(d) else 0.0 for d in moved]
    assert found.largest == max(finite, default=0.0)
    assert found.place == (finite.index(max(finite)) if any(finite) else None)
    if max(finite, default=0.0) < 1e100 and all(abs(x) < 1e100 for x, _ in fine):
        assert near(found.squares, math.fsum((y - x) ** 2 for x, y in fine))
        assert near(found.before, math.fsum(x * x for x, _ in fine))


def test_opaque_bytes_are_only_compared() -> None:
    first, second = raw([1, 2, 3], DType.F4), raw([1, 2, 4], DType.F4)
    assert Change.of(first, DType.F4, second, DType.F4) == Change(words=3, same=2)
    assert Values.of(raw([1], DType.F6_E2M3), DType.F6_E2M3) is None


def test_floats_of_two_dtypes_are_compared_as_widened() -> None:
    values = np.array([1.0, -2.5, 0.0, 3.0], np.float16)
    wide = values.astype(np.float32)
    wide[3] = np.nextafter(wide[3], np.float32(4))
    found = Change.of(values.view(np.uint8), DType.F16, wide.view(np.uint8), DType.F32)
    assert (found.words, found.same) == (4, 3)
    assert found.ulps is not None
    assert found.ulps.octaves == {0: 3, 1: 1}
    half = (wide.view(np.uint32) >> 16).astype(np.uint16)
    found = Change.of(values.view(np.uint8), DType.F16, half.view(np.uint8), DType.BF16)
    assert (found.words, found.same) == (4, 4)


def test_what_has_no_exact_common_dtype_is_not_compared() -> None:
    assert comparable(DType.F16, DType.F64)
    assert comparable(DType.BOOL, DType.BOOL)
    assert not comparable(DType.I32, DType.I64)
    assert not comparable(DType.F8_E4M3FNUZ, DType.F16)


def test_buckets_are_octaves() -> None:
    assert [bucket_range(b) for b in (0, 1, 2, 3, 64)] == [
        (0, 0),
        (1, 1),
        (2, 3),
        (4, 7),
        (1 << 63, (1 << 64) - 1),
    ]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_parts_add_up_to_the_whole(dtype: DType, size: int) -> None:
    source = np.random.default_rng(size)
    width = dtype.bits // 8
    a = np.frombuffer(bytearray(source.bytes(size * width)), np.uint8)
    b = np.frombuffer(bytearray(source.bytes(size * width)), np.uint8)
    # Exponents as weights have them, so that sums are finite.
    for data in (a, b):
        if size:
            as_words(data, dtype.word)[:] >>= dtype.word.mantissa_bits // 2
    whole, change = Values.of(a, dtype), Change.of(a, dtype, b, dtype)
    parts, changes = Values(), Change()
    step = 700 * width
    for at in range(0, a.size, step):
        part = Values.of(a[at : at + step], dtype, at // width)
        assert part is not None
        parts += part
        changes += Change.of(
            a[at : at + step], dtype, b[at : at + step], dtype, at // width
        )
    assert whole is not None
    for name in ("count", "finite", "nans", "zeros", "least", "greatest", "largest"):
        assert getattr(parts, name) == getattr(whole, name)
    assert parts.place == whole.place
    if size:
        assert whole.mean is not None
        assert near(parts.mean, whole.mean)
        assert near(parts.deviations, whole.deviations or 0.0)
        assert changes.ulps == change.ulps
        assert changes.same == change.same
        assert changes.update is not None
        assert change.update is not None
        assert changes.update.place == change.update.place
        assert near(changes.update.squares, change.update.squares or 0.0)


def test_numbers_too_large_to_be_squared_are_not_known() -> None:
    a = np.array([1e308, -1e308, 1.0])
    b = np.array([-1e308, 1e308, 2e200])
    change = Change.of(a.view(np.uint8), DType.F64, b.view(np.uint8), DType.F64)
    assert change.update is not None
    assert change.update.skipped == 2
    assert change.update.squares is change.update.norm is change.update.relative is None
    found = Values.of(a.view(np.uint8), DType.F64)
    assert found is not None
    assert (found.greatest, found.std) == (1e308, None)


def test_an_update_of_zeros_has_no_relative_size() -> None:
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    moved = Change.of(zeros.view(np.uint8), DType.F32, ones.view(np.uint8), DType.F32)
    still = Change.of(zeros.view(np.uint8), DType.F32, zeros.view(np.uint8), DType.F32)
    assert moved.update is not None
    assert still.update is not None
    assert (moved.update.relative, still.update.relative) == (None, 0.0)


def kept(words: list[int], source: DType, target: DType) -> bool:
    """Whether the cast there and back gives the same bits, by the cast itself."""
    before = as_words(raw(words, source), source.word)
    there = np.empty(before.size, f"u{target.bits // 8}")
    back = np.empty_like(before)
    cast(before, source, target, there)
    cast(there, target, source, back)
    return bool(np.array_equal(before, back))


@st.composite
def narrow_words(draw: st.DrawFn) -> tuple[DType, list[int]]:
    """Words of a float dtype, most of them numbers of a smaller one."""
    source = draw(st.sampled_from(FLOATS))
    target = draw(st.sampled_from(narrower(source)))
    top = (1 << target.bits) - 1
    special = [0, 1, top, top >> 1, (top >> 1) - 1, 1 << (target.bits - 1)]
    small = draw(
        st.lists(st.one_of(st.sampled_from(special), st.integers(0, top)), max_size=6)
    )
    words = np.empty(len(small), f"u{source.bits // 8}")
    cast(np.array(small, f"u{target.bits // 8}"), target, source, words)
    more = draw(st.lists(st.integers(0, (1 << source.bits) - 1), max_size=1))
    return source, [*words.tolist(), *more]


@given(narrow_words())
def test_a_dtype_holds_what_a_cast_there_and_back_keeps(case: Any) -> None:
    source, words = case
    data = raw(words, source)
    values = Values.of(data, source)
    assert values is not None
    found = holders(source, Extent.of(data, source, values.largest))
    assert found == tuple(t for t in narrower(source) if kept(words, source, t))


def test_smaller_dtypes_are_those_that_a_cast_knows() -> None:
    for dtype in DType:
        for other in narrower(dtype):
            assert castable(dtype, other)
            assert other.bits < dtype.bits
    assert narrower(DType.F8_E5M2) == narrower(DType.I64) == ()


def test_extents_of_parts_add_up() -> None:
    values = np.array([1.5, 65504.0, 2.0**-24, -0.0], np.float32)
    parts = [
        Extent.of(values[i : i + 1].view(np.uint8), DType.F32, abs(float(values[i])))
        for i in range(4)
    ]
    whole = Extent.of(values.view(np.uint8), DType.F32, 65504.0)
    assert sum(parts[1:], parts[0]) == whole
    assert holders(DType.F32, whole) == (DType.F16,)


def test_what_all_tensors_share_is_common() -> None:
    assert common([(DType.F16, DType.BF16), (DType.BF16,)]) == (DType.BF16,)
    assert common([(DType.F16,), ()]) == ()
    assert common([]) == ()
