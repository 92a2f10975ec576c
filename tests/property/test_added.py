"""The sum of base and delta: any range of it is that range of the whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.foreign.added import Added
from releasekit.foreign.recipes import Order, Recipe, Rows
from releasekit.tensors import DType, TensorSpec

Bytes = NDArray[np.uint8]

FLOATS = [DType.F8_E4M3, DType.F8_E5M2, DType.F16, DType.BF16, DType.F32, DType.F64]
ODD = [DType.F6_E2M3, DType.F6_E3M2, DType.C64]  # elements are no words
OTHERS = [dtype for dtype in DType if dtype not in (*FLOATS, *ODD)]
INTEGERS = [
    *(DType.U8, DType.I8, DType.U16, DType.I16, DType.U32, DType.I32),
    *(DType.U64, DType.I64),
]


class Memory:
    """A checkpoint that is in memory; notes that it was closed."""

    subject = "memory"

    def __init__(self, tensors: Mapping[str, tuple[TensorSpec, Bytes]]) -> None:
        self.specs = {name: spec for name, (spec, _) in tensors.items()}
        self._data = {name: data for name, (_, data) in tensors.items()}
        self.closed = False

    def read(self, name: str, start: int, out: Bytes) -> None:
        data = self._data[name][start : start + out.size]
        assert data.size == out.size, "outside the tensor"
        out[:] = data

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


recipes = st.builds(
    Recipe,
    name=st.just("any"),
    dtype=st.sampled_from([DType.F16, DType.BF16, DType.F32]),
    order=st.sampled_from(Order),
    rows=st.sampled_from(Rows),
)
seeds = st.integers(0, 2**32 - 1)


def filled(seed: int, dtype: DType, shape: tuple[int, ...]) -> tuple[TensorSpec, Bytes]:
    """A tensor of noise."""
    spec = TensorSpec(name="w", dtype=dtype, shape=shape)
    data = np.frombuffer(np.random.default_rng(seed).bytes(spec.nbytes), np.uint8)
    if dtype in (DType.F32, DType.F64):
        values = np.random.default_rng(seed).standard_normal(spec.numel)
        data = values.astype(f"f{dtype.bits // 8}").view(np.uint8)
    return spec, data


@st.composite
def sums(draw: st.DrawFn) -> Added:
    """Floats on floats of another dtype and with less rows; or on nothing."""
    columns = draw(st.lists(st.integers(1, 7), max_size=2))
    rows = draw(st.integers(1, 20))
    known = draw(st.integers(1, rows) | st.just(rows) | st.none())
    delta = filled(draw(seeds), draw(st.sampled_from(FLOATS)), (rows, *columns))
    base = {}
    if known is not None:
        dtype = draw(st.sampled_from(FLOATS))
        base["w"] = filled(draw(seeds), dtype, (known, *columns))
    return Added(Memory(base), Memory({"w": delta}), draw(recipes))


def read(checkpoint: Added, start: int, nbytes: int) -> bytes:
    out = np.full(nbytes, 0x55, np.uint8)
    checkpoint.read("w", start, out)
    return out.tobytes()


def check_ranges(added: Added, data: st.DataObject) -> bytes:
    """Holds some ranges of whole words against the whole, which is returned."""
    spec = added.specs["w"]
    step = spec.dtype.word.bits // 8
    whole = read(added, 0, spec.nbytes)
    ranges = st.tuples(*[st.integers(0, spec.nbytes // step)] * 2).map(sorted)
    for first, last in data.draw(st.lists(ranges, min_size=1, max_size=8)):
        start, stop = first * step, last * step
        assert read(added, start, stop - start) == whole[start:stop]
    return whole


@given(added=sums(), data=st.data())
def test_any_range_of_a_sum_is_that_of_the_whole(added: Added, data: st.DataObject) -> None:
    with np.errstate(all="ignore"):
        check_ranges(added, data)


@given(added=sums(), cut=st.integers(0, 1 << 20))
def test_pieces_make_the_whole(added: Added, cut: int) -> None:
    spec = added.specs["w"]
    step = spec.dtype.word.bits // 8
    at = cut % (spec.nbytes // step + 1) * step
    parts = read(added, 0, at), read(added, at, spec.nbytes - at)
    assert b"".join(parts) == read(added, 0, spec.nbytes)


@given(dtype=st.sampled_from(OTHERS), seed=seeds, recipe=recipes, data=st.data())
def test_any_range_of_what_only_the_delta_has_is_the_deltas(
    dtype: DType, seed: int, recipe: Recipe, data: st.DataObject
) -> None:
    shape = (data.draw(st.integers(0, 9)) * 8 // math.gcd(8, dtype.bits),)
    delta = filled(seed, dtype, shape)
    added = Added(Memory({}), Memory({"w": delta}), recipe)
    assert added.specs["w"].dtype is dtype
    assert check_ranges(added, data) == delta[1].tobytes()


@pytest.mark.parametrize("dtype", ODD)
def test_any_word_of_an_element_is_the_deltas(dtype: DType) -> None:
    delta = filled(1, dtype, (8,))
    added = Added(Memory({}), Memory({"w": delta}), Recipe(name="any", dtype=DType.F16))
    step = dtype.word.bits // 8
    words = [read(added, at, step) for at in range(0, added.specs["w"].nbytes, step)]
    assert b"".join(words) == delta[1].tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("known", [5, 3])
def test_integers_are_added_modulo_their_width(dtype: DType, known: int) -> None:
    """As torch adds those of a state dict, such as position_ids."""
    delta, base = filled(1, dtype, (5, 3)), filled(2, dtype, (known, 3))
    added = Added(
        Memory({"w": base}), Memory({"w": delta}), Recipe(name="any", dtype=DType.F16)
    )
    word = f"u{dtype.bits // 8}"
    wanted = delta[1].view(word).copy()
    wanted[: known * 3] += base[1].view(word)
    for first in range(15):
        for last in range(first, 16):
            start, stop = (n * dtype.bits // 8 for n in (first, last))
            assert read(added, start, stop - start) == wanted[first:last].tobytes()


def test_both_are_closed() -> None:
    base, delta = Memory({}), Memory({"w": filled(1, DType.F16, (3,))})
    recipe = Recipe(name="any", dtype=DType.F16)
    with Added(base, delta, recipe, skip=frozenset(["w"])) as added:
        assert added.specs == {}
    assert base.closed
    assert delta.closed
