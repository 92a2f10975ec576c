"""Entropy coding: pcodec's own decoder reads it, and it is as small as pcodec's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from releasekit.codec import bins, entropy
from tests import stock


def check(numbers: NDArray[Any]) -> int:
    coded = entropy.pack(numbers)
    np.testing.assert_array_equal(stock.unpack(coded, numbers), numbers)
    assert entropy.pack(numbers) == coded
    return len(coded)


DTYPES = [np.uint32, np.uint64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 255, 256, 257, 260, 1000, 70_001])
def test_any_distribution_of_any_length(dtype: DTypeLike, n: int) -> None:
    source = np.random.default_rng(n)
    most = int(np.iinfo(np.dtype(dtype)).max)
    for numbers in (
        source.geometric(0.3, n),
        source.geometric(0.001, n),
        source.geometric(1e-6, n),
        source.random(n) < 0.001,
        np.arange(n),
        np.full(n, 5),
    ):
        check(numbers.astype(dtype))
        check(most - numbers.astype(dtype))
    check(source.integers(0, most, n, dtype, endpoint=True))
    check(np.full(n, most, dtype))
    check(np.where(source.random(n) < 0.5, most, 0).astype(dtype))
    check(np.ones(n, dtype) << source.integers(0, most.bit_length(), n).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_around_each_power_of_two(dtype: DTypeLike) -> None:
    bits = np.dtype(dtype).itemsize * 8
    near = sorted(
        {
            min(max((1 << bit) + step, 0), (1 << bits) - 1)
            for bit in range(bits + 1)
            for step in (-1025, -1024, -1023, -2, -1, 0, 1, 1023, 1024)
        }
    )
    check(np.array(near, dtype))
    for number in near:
        check(np.array([number], dtype))
        check(np.array([number, 0, number], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_more_items_than_there_is_room_for(dtype: DTypeLike) -> None:
    bits = np.dtype(dtype).itemsize * 8
    source = np.random.default_rng(0)
    ladder = np.unique((1.2501 ** np.arange(0, bits / np.log2(1.2501))).astype(dtype))
    for n in (511, 512, 1023, 1024, 30_000):
        check(np.concatenate([source.permutation(n).astype(dtype), ladder]))
        check(np.concatenate([np.repeat(ladder, 50), np.arange(n).astype(dtype) << 7]))
        spread = (2.0 ** (source.random(n) * bits)).astype(dtype)
        check(np.concatenate([spread, ladder]))


def test_groups_are_coded_apart() -> None:
    source = np.random.default_rng(0)
    count = np.array([0, 1, 300, 0, 5, 2000, 0])
    groups = [source.geometric(0.1, n).astype(np.uint32) for n in count]
    groups[2][:] = 0
    coded = entropy.pack_groups(np.concatenate(groups), count)
    assert coded == [entropy.pack(group) for group in groups]
    assert [bool(code) for code in coded] == [False, True, False, False, True, True, False]
    assert entropy.pack_groups(np.empty(0, np.uint64), np.empty(0, np.int64)) == []


def test_the_largest_group() -> None:
    numbers = np.random.default_rng(0).geometric(0.2, 1 << 24).astype(np.uint32)
    share = np.bincount(numbers)[1:] / numbers.size
    share = share[share > 0]
    entropy_nbytes = -(share * np.log2(share)).sum() * numbers.size / 8
    assert entropy_nbytes < check(numbers) < 1.0025 * entropy_nbytes


def test_bytes_are_the_same_everywhere() -> None:
    assert entropy.pack(np.array([7], np.uint32)).hex() == "001000380000000000"
    numbers = np.array([0, 1, 1, 2, 0, 1, 9, 1], np.uint32)
    assert entropy.pack(numbers).hex() == "00100000000000200010211019"


@pytest.mark.parametrize(
    ("kind", "margin"),
    [("bf16", 1.002), ("peaks", 1.002), ("flips", 1.005), ("wide", 1.002), ("rare", 1.02)],
)
@pytest.mark.parametrize("n", [1_500, 60_000])
def test_as_small_as_what_pcodec_makes(kind: str, margin: float, n: int) -> None:
    source = np.random.default_rng(3)
    step = np.rint(source.standard_normal(n) * 2.5).astype(np.int64)
    if kind == "peaks":
        step = np.where(source.random(n) < 0.5, 83, -84) + (source.random(n) < 0.1)
    elif kind == "wide":
        step = np.rint(source.standard_normal(n) * 1e6).astype(np.int64)
    elif kind == "rare":
        step = np.where(source.random(n) < 0.01, step, 0)
    numbers = np.where(step < 0, -2 * step - 1, 2 * step).astype(np.uint32)
    if kind == "flips":
        far = 56_000 + source.standard_normal(n) * 700
        numbers = np.where(source.random(n) < 0.3, far, numbers * 90).astype(np.uint32)
    assert check(numbers) <= margin * len(stock.pack(numbers)) + 8


def test_a_peak_among_wide_numbers_is_resolved() -> None:
    source = np.random.default_rng(0)
    numbers = source.geometric(1e-12, 20_000).astype(np.uint64)
    numbers[::2] = (1 << 60) + source.integers(0, 100, 10_000).astype(np.uint64)
    assert check(numbers) <= 1.01 * len(stock.pack(numbers))


def test_logarithms_are_exact() -> None:
    exact = np.log2(np.arange(4096, 8192) / 4096) * 65536
    assert np.abs(bins.LOG2 - exact).max() < 1.01
    assert bins.LOG2[0] == 0
    assert (np.diff(bins.LOG2.astype(int)) > 0).all()
