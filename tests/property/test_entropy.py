"""Entropy coding of any unsigned numbers: pcodec's own decoder gives them back."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.codec import entropy
from tests import stock


@st.composite
def number_arrays(draw: st.DrawFn) -> NDArray[Any]:
    """Mixtures of clusters anywhere, of any width and weight."""
    bits = draw(st.sampled_from([32, 64]))
    dtype = np.dtype(f"u{bits // 8}")
    size = draw(st.integers(1, 40) | st.integers(1, 3000) | st.integers(60_000, 70_000))
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = (1 << bits) - 1
    numbers = np.zeros(size, dtype)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, most) | st.integers(0, 70_000))
        span = min(1 << draw(st.integers(0, bits)), most - start + 1)
        shape = draw(st.sampled_from(["flat", "steep", "one"]))
        part = np.full(size, start, dtype)
        if shape != "one":
            part += source.integers(0, span - 1, size, dtype, endpoint=True)
        if shape == "steep":
            part = start + ((part - start) >> source.integers(0, bits, size).astype(dtype))
        where = source.random(size) < draw(st.sampled_from([0.001, 0.1, 0.5, 1]))
        numbers[where] = part.astype(dtype)[where]
    return numbers


@given(st.lists(number_arrays(), min_size=1, max_size=4))
def test_pcodec_reads_what_is_packed(arrays: list[NDArray[Any]]) -> None:
    groups = [array for array in arrays if array.dtype == arrays[0].dtype]
    numbers = np.concatenate(groups)
    before = numbers.tobytes()
    coded = entropy.pack_groups(numbers, np.array([group.size for group in groups]))
    assert numbers.tobytes() == before
    for group, code in zip(groups, coded, strict=True):
        np.testing.assert_array_equal(stock.unpack(code, group), group)
        assert code == entropy.pack(group)
        assert bool(code) == bool(group.any())


@given(number_arrays())
def test_it_takes_little_more_than_the_numbers_themselves(numbers: NDArray[Any]) -> None:
    assert len(entropy.pack(numbers)) <= numbers.nbytes * 1.01 + 40


@given(st.binary(min_size=1, max_size=3000), st.sampled_from([np.uint8, np.uint16]))
def test_narrow_numbers_are_coded_as_wide_ones(data: bytes, dtype: type[Any]) -> None:
    narrow = np.frombuffer(data + data[:1] * (len(data) % 2), dtype)
    assert entropy.pack(narrow) == entropy.pack(narrow.astype(np.uint32))


@given(
    scale=st.floats(0.05, 2000),
    size=st.integers(1, 20_000),
    seed=st.integers(0, 2**32 - 1),
    heavy=st.booleans(),
)
def test_residuals_take_no_more_than_pcodec_makes_of_them(
    scale: float, size: int, seed: int, heavy: bool
) -> None:
    source = np.random.default_rng(seed)
    draw = source.standard_cauchy if heavy else source.standard_normal
    step = np.rint(np.clip(draw(size) * scale, -(2.0**28), 2.0**28)).astype(np.int64)
    numbers = np.where(step < 0, -2 * step - 1, 2 * step).astype(np.uint32)
    assert len(entropy.pack(numbers)) <= 1.005 * len(stock.pack(numbers)) + 8
