"""Casts against torch, against exact midpoints where torch rounds twice, and against their
definition, word by word."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from releasekit.codec.cast import Changes, cast, cast_changes
from releasekit.codec.formats import castable
from releasekit.tensors import DType
from tests.unit import cast_reference
from tests.unit.processor import MODES, mode

Array = NDArray[Any]

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
TORCH = {
    DType.F8_E4M3: torch.float8_e4m3fn,
    DType.F8_E5M2: torch.float8_e5m2,
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.F32: torch.float32,
    DType.F64: torch.float64,
}
INFINITY = {
    DType.F8_E4M3: 0x7F,  # has none; what is too large becomes NaN
    DType.F8_E5M2: 0x7C,
    DType.F16: 0x7C00,
    DType.BF16: 0x7F80,
    DType.F32: 0x7F80_0000,
    DType.F64: 0x7FF0_0000_0000_0000,
}
QUIET_NAN = {
    DType.F8_E4M3: 0x7F,
    DType.F8_E5M2: 0x7E,
    DType.F16: 0x7E00,
    DType.BF16: 0x7FC0,
    DType.F32: 0x7FC0_0000,
    DType.F64: 0x7FF8_0000_0000_0000,
}
NARROW = [DType.F8_E4M3, DType.F8_E5M2, DType.F16, DType.BF16]


def converted(words: Array, source: DType, target: DType) -> Array:
    out = np.full(words.size, 0x55, WORDS[target.bits])
    cast(words, source, target, out)
    return out


def by_torch(words: Array, source: DType, target: DType) -> Array:
    signed = words.view(f"i{words.itemsize}")
    tensor = torch.from_numpy(signed).view(TORCH[source]).to(TORCH[target])
    bits = {8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}
    return tensor.view(bits[target.bits]).numpy().view(WORDS[target.bits])


def is_nan(words: Array, dtype: DType) -> NDArray[np.bool_]:
    magnitude = words & words.dtype.type((1 << (dtype.bits - 1)) - 1)
    if dtype is DType.F8_E4M3:
        return np.asarray(magnitude == 0x7F)
    return np.asarray(magnitude > INFINITY[dtype])


@cache
def midpoints(dtype: DType) -> NDArray[np.float64]:
    """What lies half-way between neighbours; exact, as fp64 has the bit more they need."""
    patterns = np.arange(INFINITY[dtype], dtype=WORDS[dtype.bits])
    values = by_torch(patterns, dtype, DType.F64).view(np.float64)
    # Past the largest number stands what would follow it, were there more exponents.
    values = np.append(values, 2 * values[-1] - values[-2])
    return (values[:-1] + values[1:]) / 2


def by_midpoints(words: NDArray[np.uint64], target: DType) -> Array:
    """Rounds fp64 to a narrow dtype: to nearest, ties to the even pattern."""
    values = np.abs(words.view(np.float64))
    between = midpoints(target)
    below = np.searchsorted(between, values, "left")
    tie = between[np.minimum(below, between.size - 1)] == values
    pattern = np.minimum(below + (tie & (below % 2 == 1)), INFINITY[target])
    sign = (words >> np.uint64(63)).astype(np.int64) << (target.bits - 1)
    rounded: Array = (pattern | sign).astype(WORDS[target.bits])
    return rounded


@cache
def patterns(dtype: DType) -> Array:
    """Patterns to convert: all of a narrow dtype; random ones and edges of a wide one.

    Edges are whatever a narrower dtype holds or rounds at, with the neighbours of that.
    """
    if dtype.bits <= 16:
        return np.arange(1 << dtype.bits).astype(WORDS[dtype.bits])
    source = np.random.default_rng(20230721)
    words = WORDS[dtype.bits]
    wide = np.float32 if dtype is DType.F32 else np.float64
    found = [np.frombuffer(source.bytes(100_000 * dtype.bits // 8), words)]
    edges = [midpoints(narrow) for narrow in NARROW]
    edges += [2 * between for between in edges]
    with np.errstate(over="ignore"):
        exact = np.concatenate(edges).astype(wide).view(words)
    found += [exact, exact + words(1), exact - words(1)]
    exponents = np.arange(1 << dtype.word.exponent_bits).astype(words)
    exponents <<= words(dtype.word.mantissa_bits)
    ones = (1 << dtype.word.mantissa_bits) - 1
    for mantissa in (0, 1, ones, ones - 1, ones // 2, ones // 2 + 1, ones // 2 + 2):
        found.append(exponents | words(mantissa))
    positive = np.concatenate(found)
    return np.concatenate([positive, positive ^ words(1 << (dtype.bits - 1))])


@pytest.mark.parametrize("target", TORCH)
@pytest.mark.parametrize("source", TORCH)
def test_numbers_are_rounded_to_the_nearest(source: DType, target: DType) -> None:
    words = patterns(source)
    words = words[~is_nan(words, source)]
    if source is DType.F64 and target in NARROW:
        expected = by_midpoints(words, target)  # torch rounds to fp32 first
    elif target is DType.F8_E4M3:
        # What torch makes of numbers above 464 was NaN once, and is 448 now.
        expected = by_torch(words, source, target)
        exact = by_midpoints(by_torch(words, source, DType.F64), target)
        expected = np.where(is_nan(exact, target), exact, expected)
    else:
        expected = by_torch(words, source, target)
    np.testing.assert_array_equal(converted(words, source, target), expected)


@pytest.mark.parametrize("target", NARROW)
def test_midpoints_agree_with_torch_where_it_rounds_once(target: DType) -> None:
    words = patterns(DType.F32)
    words = words[~is_nan(words, DType.F32)]
    expected = by_midpoints(by_torch(words, DType.F32, DType.F64), target)
    np.testing.assert_array_equal(converted(words, DType.F32, target), expected)


def test_fp64_to_fp16_agrees_with_numpy() -> None:
    words = patterns(DType.F64)
    words = words[~is_nan(words, DType.F64)]
    with np.errstate(over="ignore", under="ignore"):
        expected = words.view(np.float64).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(converted(words, DType.F64, DType.F16), expected)


@pytest.mark.parametrize("target", TORCH)
@pytest.mark.parametrize("source", TORCH)
def test_a_nan_becomes_the_quiet_nan_of_its_sign(source: DType, target: DType) -> None:
    words = patterns(source)
    words = words[is_nan(words, source)]
    sign = (words >> words.dtype.type(source.bits - 1)).astype(WORDS[target.bits])
    sign <<= sign.dtype.type(target.bits - 1)
    assert set(np.unique(sign).tolist()) == {0, 1 << (target.bits - 1)}
    expected = sign | sign.dtype.type(QUIET_NAN[target])
    np.testing.assert_array_equal(converted(words, source, target), expected)


def test_a_double_rounding_would_show() -> None:
    # Just above the middle of 1 and the next bf16; the middle itself once it is fp32.
    word = np.array([1 + 2**-8 + 2**-40]).view(np.uint64)
    assert by_torch(word, DType.F64, DType.BF16).tolist() == [0x3F80]
    assert converted(word, DType.F64, DType.BF16).tolist() == [0x3F81]


@pytest.mark.parametrize(
    ("source", "target", "word", "expected"),
    [
        (DType.F32, DType.BF16, 0x0000_0001, 0x0000),  # the smallest number
        (DType.F32, DType.BF16, 0x8000_0001, 0x8000),  # −0 keeps its sign
        (DType.F32, DType.BF16, 0x3F80_8000, 0x3F80),  # a tie goes to the even pattern
        (DType.F32, DType.BF16, 0x3F81_8000, 0x3F82),
        (DType.F32, DType.BF16, 0x7F7F_FFFF, 0x7F80),  # rounds up into infinity
        (DType.F32, DType.F16, 0x477F_EFFF, 0x7BFF),  # just below 65520
        (DType.F32, DType.F16, 0x477F_F000, 0x7C00),  # 65520
        (DType.F32, DType.F16, 0x3300_0000, 0x0000),  # half the smallest subnormal
        (DType.F32, DType.F16, 0x3300_0001, 0x0001),
        (DType.F32, DType.F8_E4M3, 0x43E8_0000, 0x7E),  # 464: a tie, down to 448
        (DType.F32, DType.F8_E4M3, 0x43E8_0001, 0x7F),
        (DType.F32, DType.F8_E4M3, 0xFF80_0000, 0xFF),  # −inf
        (DType.F32, DType.F8_E5M2, 0x7F80_0000, 0x7C),
        (DType.F16, DType.BF16, 0x0001, 0x3380),  # a subnormal becomes normal
        (DType.BF16, DType.F16, 0x3F80, 0x3C00),
        (DType.BF16, DType.F16, 0x7F7F, 0x7C00),
        (DType.BF16, DType.F32, 0x0001, 0x0001_0000),
        (DType.F8_E4M3, DType.F32, 0x01, 0x3B00_0000),  # 2**-9
        (DType.F64, DType.F32, 0x36A0_0000_0000_0000, 0x0000_0001),  # 2**-149
        (DType.F64, DType.F32, 0x3690_0000_0000_0000, 0x0000_0000),  # half of that
    ],
)
def test_known_values(source: DType, target: DType, word: int, expected: int) -> None:
    found = converted(np.array([word], WORDS[source.bits]), source, target)
    assert hex(int(found[0])) == hex(expected)


def test_only_these_floats_are_cast() -> None:
    for source in DType:
        for target in DType:
            assert castable(source, target) is (source in TORCH and target in TORCH)


@pytest.mark.parametrize(
    ("source", "target"),
    [(DType.I8, DType.F16), (DType.F32, DType.C64), (DType.F8_E8M0, DType.BF16)],
)
def test_other_casts_are_the_callers_mistake(source: DType, target: DType) -> None:
    words = np.zeros(1, np.uint8)
    with pytest.raises(
        ValueError, match=f"^no cast from {source.label} to {target.label}$"
    ):
        cast(words, source, target, words)


def test_an_empty_array_is_cast() -> None:
    assert converted(np.empty(0, np.uint16), DType.F16, DType.BF16).size == 0


def test_all_words_are_cast_into_as_many() -> None:
    words = np.zeros(3, np.uint16)
    with pytest.raises(ValueError, match=r"^3 words do not fill 2$"):
        cast(words, DType.F16, DType.BF16, words[:2])


@cache
def many_patterns(dtype: DType) -> Array:
    """All upper halves, with each lower half next to where some dtype rounds."""
    if dtype.bits <= 16:
        return patterns(dtype)
    word = WORDS[dtype.bits]
    lower = {(1 << bit) + step for bit in range(dtype.bits - 16) for step in (-1, 0, 1)}
    upper = np.arange(1 << 16).astype(word) << word(dtype.bits - 16)
    if dtype is DType.F64:
        upper = upper[::7]
    return np.concatenate(
        [patterns(dtype), (upper[:, None] | np.array(sorted(lower), word)).ravel()]
    )


@pytest.mark.parametrize("target", TORCH)
@pytest.mark.parametrize("source", TORCH)
def test_words_are_cast_as_defined(source: DType, target: DType) -> None:
    words = many_patterns(source)
    expected = np.empty(words.size, WORDS[target.bits])
    cast_reference.cast(words, source, target, expected)
    np.testing.assert_array_equal(converted(words, source, target), expected)


@pytest.mark.slow
@pytest.mark.parametrize("target", NARROW)
def test_every_fp32_is_cast_as_defined(target: DType) -> None:
    expected = np.empty(1 << 24, WORDS[target.bits])
    for start in range(0, 1 << 32, 1 << 24):
        words = np.arange(start, start + (1 << 24)).astype(np.uint32)
        cast_reference.cast(words, DType.F32, target, expected)
        np.testing.assert_array_equal(converted(words, DType.F32, target), expected)


@pytest.mark.parametrize("kind", MODES)
def test_the_processor_s_mode_changes_nothing(kind: str) -> None:
    for source in TORCH:
        for target in TORCH:
            words = patterns(source)
            expected = converted(words, source, target)
            lost = cast_changes(words, source, target)
            found = np.empty_like(expected)
            with mode(kind):
                cast(words, source, target, found)
                assert cast_changes(words, source, target) == lost
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("target", TORCH)
@pytest.mark.parametrize("source", TORCH)
def test_changes_are_counted(source: DType, target: DType) -> None:
    words = patterns(source)
    words = words[~is_nan(words, source)]
    before = by_torch(words, source, DType.F64).view(np.float64)
    cast_words = converted(words, source, target)
    after = by_torch(cast_words, target, DType.F64).view(np.float64)
    expected = Changes(
        rounded=int(np.count_nonzero(after != before)),
        overflowed=int(np.count_nonzero(np.isfinite(before) & ~np.isfinite(after))),
    )
    assert cast_changes(words, source, target) == expected
    nans = patterns(source)[is_nan(patterns(source), source)]
    assert cast_changes(nans, source, target) == Changes()


def test_changes_of_single_numbers() -> None:
    def changes(*numbers: float) -> Changes:
        words = np.array(numbers, np.float32).view(np.uint32)
        return cast_changes(words, DType.F32, DType.F8_E4M3)

    assert changes() == changes(0, -0.0, 448, -448, 2**-9, np.nan) == Changes()
    assert changes(1.01, 2**-20, 450) == Changes(rounded=3)
    assert changes(500, -500) == Changes(rounded=2, overflowed=2)
    assert changes(np.inf, -np.inf) == Changes(rounded=2)  # NaN, but never finite
    assert changes(1.01, 500) + changes(500) == changes(1.01, 500, 500)


def test_changes_between_other_dtypes_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match=r"^no cast from I8 to F16$"):
        cast_changes(np.zeros(1, np.uint8), DType.I8, DType.F16)
