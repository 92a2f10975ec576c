"""Any range of any view is what numpy makes of the same strides."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from releasekit.checkpoint.files import OpenFile, open_weights
from releasekit.checkpoint.strided import Joined, View, row_major

_WORDS = 1 << 16


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenFile, np.ndarray]:
    path = tmp_path_factory.mktemp("strided") / "words"
    data = np.random.default_rng(0).integers(0, 1 << 16, _WORDS).astype(np.uint16)
    path.write_bytes(data.tobytes())
    kept = ExitStack()
    return open_weights(Path(path), kept), data


@st.composite
def views(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides and first element of a view of `words`."""
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    kind = draw(st.sampled_from(["permuted", "cut", "any"]))
    if kind == "any":
        strides = tuple(draw(st.integers(0, 3000)) for _ in shape)
    else:
        grow = [draw(st.integers(0, 40)) if kind == "cut" else 0 for _ in shape]
        order = draw(st.permutations(range(len(shape))))
        whole = [shape[d] + grow[d] for d in order]
        by_place = dict(zip(order, row_major(whole), strict=True))
        strides = tuple(by_place[d] for d in range(len(shape)))
    extent = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if extent > _WORDS:
        strides, extent = row_major(shape), math.prod(shape)
    return shape, strides, draw(st.integers(0, _WORDS - extent))


@settings(max_examples=2 * settings().max_examples)  # each is quick
@given(made=views(), part=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_range_of_a_view(
    words: tuple[OpenFile, np.ndarray],
    made: tuple[tuple[int, ...], tuple[int, ...], int],
    part: tuple[float, float],
) -> None:
    file, data = words
    shape, strides, first = made
    expected = as_strided(data[first:], shape, [2 * s for s in strides]).reshape(-1)
    low, high = sorted(round(p * expected.size) for p in part)
    view = View(file=file, offset=2 * first, shape=shape, strides=strides, itemsize=2)
    out = np.empty(2 * (high - low), np.uint8)
    Joined(views=(view,)).read(2 * low, out)
    assert np.array_equal(out.view(np.uint16), expected[low:high])


@given(data=st.data())
def test_a_range_of_joined_views(
    words: tuple[OpenFile, np.ndarray], data: st.DataObject
) -> None:
    file, source = words
    shape = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    axis = data.draw(st.integers(0, len(shape) - 1))
    parts, made = [], []
    for length in data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)):
        size = (*shape[:axis], length, *shape[axis + 1 :])
        first = data.draw(st.integers(0, _WORDS - math.prod(size)))
        parts.append(source[first:][: math.prod(size)].reshape(size))
        made.append(
            View(
                file=file,
                offset=2 * first,
                shape=size,
                strides=row_major(size),
                itemsize=2,
            )
        )
    expected = np.concatenate(parts, axis).reshape(-1)
    low, high = sorted(data.draw(st.integers(0, expected.size)) for _ in range(2))
    joined = Joined(views=tuple(made), axis=axis)
    assert joined.shape == np.concatenate(parts, axis).shape
    out = np.empty(2 * (high - low), np.uint8)
    joined.read(2 * low, out)
    assert np.array_equal(out.view(np.uint16), expected[low:high])


@pytest.mark.parametrize("stride", [1, 3, 40, 5000])
def test_long_and_sparse_rows(tmp_path: Path, stride: int) -> None:
    """More than a window of one dimension, dense or not."""
    count = (3 << 20) // (4 * stride) + 7
    data = np.arange(count * stride, dtype=np.uint32)
    (tmp_path / "words").write_bytes(data.tobytes())
    with ExitStack() as kept:
        file = open_weights(tmp_path / "words", kept)
        view = View(file=file, offset=0, shape=(count,), strides=(stride,), itemsize=4)
        out = np.empty(4 * count, np.uint8)
        Joined(views=(view,)).read(0, out)
    assert np.array_equal(out.view(np.uint32), data[::stride])


def test_a_transposed_matrix_by_rows(tmp_path: Path) -> None:
    """Its columns lie apart: each row comes from all over the file."""
    data = np.arange(700 * 900, dtype=np.uint16).reshape(700, 900)
    (tmp_path / "words").write_bytes(data.tobytes())
    with ExitStack() as kept:
        file = open_weights(tmp_path / "words", kept)
        view = View(file=file, offset=0, shape=(900, 700), strides=(1, 900), itemsize=2)
        out = np.empty(2 * 700 * 64, np.uint8)
        for row in (0, 64, 836):
            Joined(views=(view,)).read(2 * 700 * row, out)
            rows = out.view(np.uint16).reshape(64, 700)
            assert np.array_equal(rows, data.T[row : row + 64])


@pytest.mark.parametrize(("start", "nbytes"), [(1, 2), (0, 3), (18, 4), (-2, 2)])
def test_a_range_outside_is_a_mistake(
    words: tuple[OpenFile, np.ndarray], start: int, nbytes: int
) -> None:
    file, _ = words
    view = View(file=file, offset=0, shape=(10,), strides=(1,), itemsize=2)
    with pytest.raises(ValueError, match=r"outside the tensor|part of an element"):
        Joined(views=(view,)).read(start, np.empty(nbytes, np.uint8))
