"""The sum of a base and an additive delta, as a checkpoint.

Nothing is added up until it is read, and then only the range that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.derived import Derived, read_as
from releasekit.codec.arithmetic import add
from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.foreign.mean import mean_row
from releasekit.foreign.recipes import Order, Recipe, Rows
from releasekit.tensors import DType, TensorSpec

_Bytes = NDArray[np.uint8]


class Added(Derived):
    """Base plus delta; has the delta's tensors, without those that `skip` names."""

    def __init__(
        self,
        base: Checkpoint,
        delta: Checkpoint,
        recipe: Recipe,
        skip: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare.

        Args:
            base: has no tensor with more rows than the delta's, or of another shape
                otherwise: the caller has checked that.
            delta: what to add to it.
            recipe: how.
            skip: tensors of the delta that the sum does not have.
        """
        super().__init__(delta)
        self._base = base
        self._recipe = recipe
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name=name, dtype=self._dtype(spec.dtype), shape=spec.shape)
            for name, spec in delta.specs.items()
            if name not in skip
        }
        self._means: Final[dict[str, _Bytes]] = {}
        if recipe.rows is Rows.MEAN:
            for name, spec in self.specs.items():
                source = base.specs.get(name)
                floats = castable(spec.dtype, DType.F32)
                if source is not None and floats and source.numel < spec.numel:
                    self._means[name] = mean_row(base, source, self._sum_dtype(spec.dtype))

    def _dtype(self, dtype: DType) -> DType:
        return self._recipe.dtype if castable(dtype, self._recipe.dtype) else dtype

    def _sum_dtype(self, dtype: DType) -> DType:
        """The dtype of the addition, whose result has `dtype`."""
        wide = self._recipe.order is Order.ADD_CAST and castable(dtype, DType.F32)
        return DType.F32 if wide else dtype

    def read(self, name: str, start: int, out: _Bytes) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        spec = self.specs[name]
        if not castable(spec.dtype, DType.F32):
            self._read_integers(spec, start, out)
            return
        dtype = self._sum_dtype(spec.dtype)
        first, count = (n * 8 // spec.dtype.bits for n in (start, out.size))
        total = out if dtype is spec.dtype else np.empty(count * dtype.bits // 8, np.uint8)
        read_as(self._source, name, first, count, dtype, total)
        if name in self._base.specs:
            base = np.empty_like(total)
            self._read_base(name, first, count, dtype, base)
            words = as_words(total, dtype.word)
            add(as_words(base, dtype.word), words, dtype, words)
        if total is not out:
            words = as_words(total, dtype.word)
            cast(words, dtype, spec.dtype, as_words(out, spec.dtype.word))

    def _read_integers(self, spec: TensorSpec, start: int, out: _Bytes) -> None:
        """What is no float: added modulo its width, and otherwise as it is."""
        self._source.read(spec.name, start, out)
        source = self._base.specs.get(spec.name)
        if source is not None:
            base = np.zeros_like(out)
            self._base.read(spec.name, start, base[: max(source.nbytes - start, 0)])
            words = as_words(out, spec.dtype.word)
            words += as_words(base, spec.dtype.word)

    def _read_base(
        self, name: str, first: int, count: int, dtype: DType, out: _Bytes
    ) -> None:
        """The base's elements; after its last row, what stands for the others."""
        itemsize = dtype.bits // 8
        known = max(min(self._base.specs[name].numel - first, count), 0)
        read_as(self._base, name, first, known, dtype, out[: known * itemsize])
        rest = out[known * itemsize :]
        rest[:] = 0
        if rest.size and name in self._means:
            row = self._means[name]
            begin = (first + known) * itemsize % row.size
            rows = -(-(begin + rest.size) // row.size)
            rest[:] = np.tile(row, rows)[begin : begin + rest.size]

    def close(self) -> None:
        """Close both."""
        self._base.close()
        super().close()
