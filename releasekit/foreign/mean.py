"""The mean of a tensor's rows, to the last bit as torch computes it.

stanford_alpaca's script sets rows that it adds to `embeddings.mean(dim=0)`, so the rebuilt
rows have the publisher's bits only if the sum is rounded in the same order. torch adds up
rows in a cascade (`aten/src/ATen/native/cpu/SumKernel.cpp`, `multi_row_sum`): a few running
sums, each of which is added to the next once it has taken in a power of two of rows, which
keeps the error small. Each column is on its own, so this is done here for all columns at
once, while the rows stream by. Where the number of columns is no multiple of 64, torch adds
up the last few in an order that depends on the processor, and their last bits are anyone's.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.derived import read_as
from releasekit.codec.cast import cast
from releasekit.codec.kernels import as_words
from releasekit.tensors import DType, TensorSpec

_LEVELS: Final = 4
_READ: Final = 1 << 20  # bytes of the tensor at once, at least a row


class CascadeSum:
    """Adds up rows of float32 as torch does."""

    def __init__(self, rows: int, columns: int) -> None:
        """Prepare to take `rows` rows of (columns,) float32."""
        self._power = max(4, -(-(max(rows, 1) - 1).bit_length() // _LEVELS))
        self._step = 1 << self._power
        self._rows = rows
        self._done = 0
        self._sums = np.zeros((_LEVELS, columns), np.float32)

    def add(self, row: NDArray[np.float32]) -> None:
        """Take the next row."""
        sums = self._sums
        sums[0] += row
        self._done += 1
        # Rows after the last whole step stay in the first sum.
        if self._done % self._step:
            return
        for level in range(1, _LEVELS):
            sums[level] += sums[level - 1]
            sums[level - 1] = 0
            if self._done & ((self._step - 1) << (level * self._power)):
                break

    def total(self) -> NDArray[np.float32]:
        """The sum of all rows: (columns,) float32."""
        total: NDArray[np.float32] = self._sums[0].copy()
        for level in range(1, _LEVELS):
            total += self._sums[level]
        return total


def mean_row(base: Checkpoint, spec: TensorSpec, dtype: DType) -> NDArray[np.uint8]:
    """The mean of all rows of a float tensor, in float32, rounded to `dtype`.

    Args:
        base: holds the tensor.
        spec: the tensor: (rows, columns).
        dtype: of the result.

    Returns:
        The bytes of one row.
    """
    rows = spec.shape[0]
    columns = spec.numel // rows
    row_nbytes = columns * spec.dtype.bits // 8
    cascade = CascadeSum(rows, columns)
    count = max(_READ // row_nbytes, 1)
    values = np.empty((count, columns), np.float32)
    for first in range(0, rows, count):
        here = min(count, rows - first)
        part = values[:here].reshape(-1).view(np.uint8)
        read_as(base, spec.name, first * columns, here * columns, DType.F32, part)
        with np.errstate(over="ignore", invalid="ignore"):  # as torch adds, without a word
            for row in values[:here]:
                cascade.add(row)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = cascade.total() / np.float32(rows)
    if dtype is DType.F32:
        return np.frombuffer(mean.tobytes(), np.uint8)
    out = np.empty(columns * dtype.bits // 8, np.uint8)
    cast(mean.view(np.uint32), DType.F32, dtype, as_words(out, dtype.word))
    return out
