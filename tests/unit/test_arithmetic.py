"""Sums against torch's, in both ways to add, and in any mode of the processor."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from releasekit.codec import arithmetic
from releasekit.codec.arithmetic import add, addable, subtract
from releasekit.codec.cast import cast
from releasekit.tensors import DType
from tests.unit.processor import MODES, mode

Array = NDArray[Any]
Operation = Callable[[Array, Array, DType, Array], None]

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
TORCH = {
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.F32: torch.float32,
    DType.F64: torch.float64,
}
QUIET_NAN = {
    DType.F8_E4M3: 0x7F,
    DType.F8_E5M2: 0x7E,
    DType.F16: 0x7E00,
    DType.BF16: 0x7FC0,
    DType.F32: 0x7FC0_0000,
    DType.F64: 0x7FF8_0000_0000_0000,
}


@pytest.fixture(params=["processor", "integers"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    faithful = request.param == "processor"
    monkeypatch.setattr(arithmetic, "_is_faithful", lambda *_: faithful)


both_ways = pytest.mark.usefixtures("_both_ways")
operations = pytest.mark.parametrize("operation", [add, subtract])


def result(operation: Operation, a: Array, b: Array, dtype: DType) -> Array:
    out = np.full(a.size, 0x55, a.dtype)
    operation(a, b, dtype, out)
    return out


def by_torch(operation: Operation, a: Array, b: Array, dtype: DType) -> Array:
    left, right = (
        torch.from_numpy(words.view(f"i{words.itemsize}")).view(TORCH[dtype])
        for words in (a, b)
    )
    found = left + right if operation is add else left - right
    signed = {16: torch.int16, 32: torch.int32, 64: torch.int64}[dtype.bits]
    words: Array = found.view(signed).numpy().view(a.dtype)
    words[found.isnan().numpy()] = QUIET_NAN[dtype]
    return words


def boundaries(dtype: DType) -> Array:
    """Where something begins or ends, with the neighbours, of both signs."""
    hidden = 1 << dtype.word.mantissa_bits
    sign = 1 << (dtype.bits - 1)
    infinity = sign - hidden
    one = infinity // 2 // hidden * hidden
    ulps = [one - (dtype.word.mantissa_bits + step) * hidden for step in range(4)]
    starts = [0, hidden // 2, hidden, 2 * hidden, *ulps, one, infinity, QUIET_NAN[dtype]]
    found = {start + step for start in starts for step in (-1, 0, 1)} - {-1}
    positive = np.array(sorted(found), WORDS[dtype.bits])
    return np.concatenate([positive, positive | WORDS[dtype.bits](sign)])


def crossed(left: Array, right: Array) -> tuple[Array, Array]:
    """Each of the left with each of the right."""
    return np.repeat(left, right.size), np.tile(right, left.size)


@both_ways
@operations
@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_narrow_sums_are_those_of_torch(operation: Operation, dtype: DType) -> None:
    a, b = crossed(np.arange(1 << 16).astype(np.uint16), boundaries(dtype))
    np.testing.assert_array_equal(
        result(operation, a, b, dtype), by_torch(operation, a, b, dtype)
    )
    np.testing.assert_array_equal(
        result(operation, b, a, dtype), by_torch(operation, b, a, dtype)
    )


@both_ways
@operations
@pytest.mark.parametrize("dtype", TORCH)
def test_sums_of_any_words_are_those_of_torch(operation: Operation, dtype: DType) -> None:
    source = np.random.default_rng(20240229)
    word = WORDS[dtype.bits]
    a, b = source.integers(0, 1 << dtype.bits, (2, 1 << 18), word)
    # Alike in size, so that much is cancelled.
    near = a ^ (b >> word(1) & word((1 << dtype.word.mantissa_bits + 2) - 1))
    edges = crossed(boundaries(dtype), boundaries(dtype))
    for left, right in ((a, b), (a, near), edges):
        np.testing.assert_array_equal(
            result(operation, left, right, dtype), by_torch(operation, left, right, dtype)
        )


@both_ways
@operations
@pytest.mark.parametrize("dtype", [DType.F8_E4M3, DType.F8_E5M2])
def test_sums_of_bytes_are_exact_sums_rounded(operation: Operation, dtype: DType) -> None:
    patterns = np.arange(256).astype(np.uint8)
    a, b = crossed(patterns, patterns)
    wide = [np.empty(a.size, np.uint64) for _ in range(2)]
    for words, out in zip((a, b), wide, strict=True):
        cast(words, dtype, DType.F64, out)
    left, right = (words.view(np.float64) for words in wide)
    with np.errstate(invalid="ignore"):
        exact = left + right if operation is add else left - right
    expected = np.empty_like(a)
    cast(exact.view(np.uint64), DType.F64, dtype, expected)
    expected[expected & 0x7F >= QUIET_NAN[dtype]] = QUIET_NAN[dtype]
    np.testing.assert_array_equal(result(operation, a, b, dtype), expected)


@both_ways
@operations
def test_sums_of_halves_are_exact_sums_rounded_once(operation: Operation) -> None:
    # 53 bits hold the sum of any two fp16 numbers.
    a, b = crossed(np.arange(0, 0x7C00, 5).astype(np.uint16), boundaries(DType.F16))
    finite = np.isfinite(b.view(np.float16))
    a, b = a[finite], b[finite]
    left, right = (words.view(np.float16).astype(np.float64) for words in (a, b))
    exact = left + right if operation is add else left - right
    expected = np.empty_like(a)
    cast(exact.view(np.uint64), DType.F64, DType.F16, expected)
    np.testing.assert_array_equal(result(operation, a, b, DType.F16), expected)


@both_ways
@operations
@pytest.mark.parametrize("dtype", QUIET_NAN)
def test_every_nan_is_the_positive_quiet_one(operation: Operation, dtype: DType) -> None:
    sign = 1 << (dtype.bits - 1)
    nans = [QUIET_NAN[dtype], QUIET_NAN[dtype] | sign, sign - 1, 2 * sign - 1]
    pairs = [*product(nans, [0, sign, 1, *nans]), *product([0, sign, 1], nans)]
    if dtype is not DType.F8_E4M3:
        infinity = sign - (1 << dtype.word.mantissa_bits)
        pairs.append((infinity, infinity | sign if operation is add else infinity))
        pairs += [(infinity | 1, 0), (0, infinity | sign | 1)]  # signalling ones
    else:
        pairs.append((sign - 2, sign - 2 | (0 if operation is add else sign)))  # too large
        pairs.append((2 * sign - 2, sign - 2 | (sign if operation is add else 0)))
    a, b = np.array(pairs, WORDS[dtype.bits]).T.copy()
    assert set(result(operation, a, b, dtype).tolist()) == {QUIET_NAN[dtype]}


@both_ways
@operations
@pytest.mark.parametrize("size", [0, 1, 5, 4095, 4096, 4097, 10_000])
def test_the_result_may_take_an_addend_s_place(operation: Operation, size: int) -> None:
    source = np.random.default_rng(size)
    a, b = source.integers(0, 1 << 16, (2, size), np.uint16)
    expected = by_torch(operation, a, b, DType.BF16)
    out = a.copy()
    operation(out, b, DType.BF16, out)
    np.testing.assert_array_equal(out, expected)
    out = b.copy()
    operation(a, out, DType.BF16, out)
    np.testing.assert_array_equal(out, expected)
    out = a.copy()
    operation(out, out, DType.BF16, out)
    np.testing.assert_array_equal(out, by_torch(operation, a, a, DType.BF16))


def is_faithful(dtype: DType) -> bool:
    adder = arithmetic._adder(dtype, arithmetic._by_processor)
    return arithmetic._is_faithful(adder, dtype, np.empty(4096, WORDS[dtype.bits]))


@operations
@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("dtype", QUIET_NAN)
def test_the_processor_s_mode_changes_nothing(
    operation: Operation, kind: str, dtype: DType
) -> None:
    a, b = crossed(boundaries(dtype), boundaries(dtype))
    expected = result(operation, a, b, dtype)
    assert is_faithful(dtype)
    with mode(kind):
        found = result(operation, a, b, dtype)
        noticed = not is_faithful(dtype)
    np.testing.assert_array_equal(found, expected)
    if dtype in (DType.F32, DType.F64):  # of others, some sums are right in any mode
        assert noticed


def test_subnormals_survive_a_processor_that_flushes_them() -> None:
    words = np.array([0x0001, 0x0080], np.uint16)
    others = np.array([0x0001, 0x8081], np.uint16)
    with mode("flush to zero"):
        assert not is_faithful(DType.BF16)
        assert result(add, words, others, DType.BF16).tolist() == [0x0002, 0x8001]


def test_only_floats_are_added() -> None:
    assert {dtype for dtype in DType if addable(dtype)} == set(QUIET_NAN)


@operations
@pytest.mark.parametrize("dtype", [DType.U8, DType.C64, DType.F8_E8M0])
def test_other_sums_are_the_caller_s_mistake(operation: Operation, dtype: DType) -> None:
    words = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match=f"^no sums of {dtype.label}$"):
        operation(words, words, dtype, words)


@operations
def test_words_are_combined_one_by_one(operation: Operation) -> None:
    words = np.zeros(3, np.uint16)
    with pytest.raises(ValueError, match=r"^3 and 2 words do not fill 3$"):
        operation(words, words[:2], DType.F16, words)
    with pytest.raises(ValueError, match=r"^3 and 3 words do not fill 2$"):
        operation(words, words, DType.F16, words[:2])
