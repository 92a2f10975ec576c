"""Ranges of tensors whose elements do not lie end to end in one file.

A PyTorch file may hold a transposed or cut tensor, and Meta's checkpoints hold each tensor
in parts, with the rows of some in another order. Both are *views*: a place in a file, a
shape, and strides; and a tensor is one view or several, joined along an axis. A range of
the tensor in row-major order is at most a few boxes in each dimension, and a box of a view
is gathered in the order in which it lies in the file: in one read if what lies between its
elements is little, otherwise part by part. No tensor is read whole for a range of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from releasekit.checkpoint.files import Readable

#: Bytes that one read takes at most where it reads more than is wanted.
_WINDOW: Final = 1 << 20
#: Bytes that are read sooner than skipped: a call costs as much.
_PAGE: Final = 4096

_Words = NDArray[np.unsignedinteger[Any]]
_Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Elements of a file. The maker has proved that all of them lie in it.

    Attributes:
        file: where they are.
        offset: of the first element, in bytes.
        shape: sizes, outermost first.
        strides: from one element to the next in each dimension, in elements; at least 0.
        itemsize: bytes an element: 1, 2, 4 or 8.
    """

    file: Readable
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int

    def gather(self, starts: Sequence[int], dest: _Words) -> None:
        """Fill `dest`, a box of this view that begins at `starts`."""
        at = sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        # In the file's order, and without the dimensions in which nothing moves.
        order = [d for d in range(dest.ndim) if dest.shape[d] != 1]
        order.sort(key=lambda d: self.strides[d], reverse=True)
        still = [d for d in range(dest.ndim) if dest.shape[d] == 1]
        sizes = [dest.shape[d] for d in order] or [1]
        strides = [self.strides[d] for d in order] or [1]
        dest = dest.transpose(*still, *order).reshape(sizes)  # a view: only ones went
        self._fill(self.offset + at * self.itemsize, strides, dest)

    def _fill(self, offset: int, strides: Sequence[int], dest: _Words) -> None:
        """Fill `dest` with the elements from byte `offset` on, in the file's order."""
        steps = list(zip(dest.shape, strides, strict=True))
        extent = 1 + sum((size - 1) * stride for size, stride in steps)
        nbytes = extent * self.itemsize
        if extent == dest.size and dest.flags.c_contiguous and _end_to_end(steps):
            self._read(offset, dest.reshape(-1))
        elif nbytes <= _PAGE or (
            nbytes <= _WINDOW
            and (extent <= 2 * dest.size or strides[0] * self.itemsize <= _PAGE)
        ):
            words = np.empty(extent, dest.dtype)
            self._read(offset, words)
            byte_strides = [stride * self.itemsize for stride in strides]
            dest[...] = as_strided(words, dest.shape, byte_strides)
        elif dest.ndim == 1:
            step = strides[0] * self.itemsize
            count = _WINDOW // step if step <= _PAGE else 1
            for first in range(0, dest.size, count):
                self._fill_window(offset + first * step, strides, dest[first:][:count])
        else:
            self._fill_parts(offset, strides, dest)

    def _fill_parts(self, offset: int, strides: Sequence[int], dest: _Words) -> None:
        """Fill `dest` with as much as fits in a window at once, or index by index."""
        step = strides[0] * self.itemsize
        count = _WINDOW // step if step else 0
        if 1 < count < dest.shape[0]:
            for first in range(0, dest.shape[0], count):
                self._fill(offset + first * step, strides, dest[first:][:count])
        else:
            for first in range(dest.shape[0]):
                self._fill(offset + first * step, strides[1:], dest[first])

    def _fill_window(self, offset: int, strides: Sequence[int], dest: _Words) -> None:
        """Fill `dest` of one dimension with one read, whatever lies between."""
        words = np.empty(1 + (dest.size - 1) * strides[0], dest.dtype)
        self._read(offset, words)
        dest[...] = words[:: strides[0]]

    def _read(self, offset: int, words: _Words) -> None:
        self.file.read_into(offset, words.view(np.uint8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A tensor made of views.

    Attributes:
        views: at least one; their shapes are equal but along `axis`.
        axis: along which they lie side by side.
    """

    views: tuple[View, ...]
    axis: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the whole."""
        shape = list(self.views[0].shape)
        if shape:
            shape[self.axis] = sum(view.shape[self.axis] for view in self.views)
        return tuple(shape)

    def read(self, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on, in row-major order.

        Raises:
            ValueError: if the range is not one of whole elements in the tensor.
            IntegrityError: if a file has become shorter.
        """
        itemsize, shape = self.views[0].itemsize, self.shape
        if start % itemsize or out.size % itemsize:
            raise ValueError(f"bytes {start} to {start + out.size}: part of an element")
        first, words = start // itemsize, out.view(f"u{itemsize}")
        if first < 0 or first + words.size > math.prod(shape):
            raise ValueError(f"bytes {start} to {start + out.size} are outside the tensor")
        done = 0
        for starts, sizes in _boxes(shape, first, first + words.size):
            count = math.prod(sizes)
            self._box(starts, words[done : done + count].reshape(sizes))
            done += count

    def _box(self, starts: tuple[int, ...], dest: _Words) -> None:
        """Fill `dest`, a box that begins at `starts`, from the views that it meets."""
        if not starts:
            self.views[0].gather((), dest)
            return
        axis, begin = self.axis, 0
        low, high = starts[axis], starts[axis] + dest.shape[axis]
        for view in self.views:
            end = begin + view.shape[axis]
            if low < end and begin < high:
                here = slice(max(begin, low) - low, min(end, high) - low)
                inside = (*starts[:axis], max(begin, low) - begin, *starts[axis + 1 :])
                view.gather(inside, dest[(slice(None),) * axis + (here,)])
            begin = end


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor whose elements lie end to end."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _end_to_end(steps: Sequence[tuple[int, int]]) -> bool:
    sizes = [size for size, _ in steps]
    return all(
        size == 1 or stride == whole
        for (size, stride), whole in zip(steps, row_major(sizes), strict=True)
    )


def _boxes(shape: tuple[int, ...], first: int, last: int) -> Iterator[_Box]:
    """The elements `first` to `last` in row-major order, as boxes in that order."""
    if first == last:
        return
    if not shape:
        yield (), ()
        return
    inner = math.prod(shape[1:])
    row, skip = divmod(first, inner)
    if skip:
        stop = min(inner, last - row * inner)
        for starts, sizes in _boxes(shape[1:], skip, stop):
            yield (row, *starts), (1, *sizes)
        first = row * inner + stop
        row += 1
    whole = (last - first) // inner
    if whole:
        yield (row, *(0 for _ in shape[1:])), (whole, *shape[1:])
        first += whole * inner
    for starts, sizes in _boxes(shape[1:], 0, last - first):
        yield (row + whole, *starts), (1, *sizes)
