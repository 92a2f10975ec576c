"""Checkpoints made of others as they are read: in another dtype, watched, in other files.

Nothing is written, and nothing is held: a range of a derived tensor is made from the same
range of its source.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.cast import Changes, cast, cast_changes
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.errors import IntegrityError
from releasekit.names import shown
from releasekit.operations import is_buffer
from releasekit.sharding import Shard
from releasekit.statistics.narrowing import Holding, is_held
from releasekit.tensors import DType, TensorSpec


def read_as(
    source: Checkpoint,
    name: str,
    first: int,
    count: int,
    dtype: DType,
    out: NDArray[np.uint8],
) -> None:
    """Read elements of a float tensor, rounded to another dtype.

    Args:
        source: the checkpoint that holds it.
        name: the tensor.
        first: the first element to read.
        count: how many.
        dtype: what to round to; if it is the tensor's own, it may be any dtype.
        out: as many bytes as they take in that dtype.
    """
    stored = source.specs[name].dtype
    if stored is dtype:
        source.read(name, first * dtype.bits // 8, out)
        return
    raw = np.empty(count * stored.bits // 8, np.uint8)
    source.read(name, first * stored.bits // 8, raw)
    cast(as_words(raw, stored.word), stored, dtype, as_words(out, dtype.word))


class Derived:
    """What checkpoints share that read from another."""

    def __init__(self, source: Checkpoint) -> None:
        self._source = source
        self.subject = source.subject
        self.specs: Mapping[str, TensorSpec] = source.specs

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        self._source.read(name, start, out)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


class Cast(Derived):
    """Floats in another dtype, rounded to nearest, ties to even; the rest as it is.

    Attributes:
        changes: what was lost of the values read so far.
    """

    def __init__(
        self,
        source: Checkpoint,
        to: DType | Mapping[str, DType],
        *,
        lossless: bool = False,
    ) -> None:
        """Derive it.

        Args:
            source: the checkpoint to read from.
            to: what floats become: all of them, or those of the tensors named.
            lossless: reading refuses a value that the other dtype does not hold, bit for
                bit. NaNs count, too.
        """
        super().__init__(source)
        self.changes = Changes()
        self._lossless = lossless
        self._lock = threading.Lock()
        self.specs = {
            name: TensorSpec(name=name, dtype=dtype, shape=spec.shape)
            if (dtype := to if isinstance(to, DType) else to.get(name))
            and castable(spec.dtype, dtype)
            else spec
            for name, spec in source.specs.items()
        }

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        spec, source = self.specs[name], self._source.specs[name]
        if spec == source:
            self._source.read(name, start, out)
            return
        raw = np.empty(out.size * source.dtype.bits // spec.dtype.bits, np.uint8)
        self._source.read(name, start * source.dtype.bits // spec.dtype.bits, raw)
        words = as_words(raw, source.dtype.word)
        cast(words, source.dtype, spec.dtype, as_words(out, spec.dtype.word))
        if self._lossless:
            if not is_held(raw, source.dtype, spec.dtype):
                raise IntegrityError(
                    f"{self.subject}: expected only values of {spec.dtype.label} in tensor "
                    f"{shown(name)}, as when it was read before, found others: it changes "
                    "while it is read; run this again once nothing writes to it"
                )
            return
        changes = cast_changes(words, source.dtype, spec.dtype)
        with self._lock:
            self.changes += changes


class Watched(Derived):
    """The same checkpoint; what is read of it is noted.

    Attributes:
        holding: which smaller dtypes hold all that was read.
    """

    def __init__(self, source: Checkpoint, holding: Holding) -> None:
        super().__init__(source)
        self.holding: Final = holding

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        self._source.read(name, start, out)
        dtype = self.specs[name].dtype
        if self.holding.holders(dtype) and not is_buffer(name):  # else none does, or may
            self.holding.take(dtype, self.holding.look(out, dtype))


class Sharded(Derived):
    """The tensors of a checkpoint, laid out in files that need not exist.

    Attributes:
        files: the files.
    """

    def __init__(self, source: Checkpoint, files: Sequence[Shard]) -> None:
        super().__init__(source)
        self.files: Final = files
        self.specs = {
            placed.spec.name: placed.spec
            for file in files
            for placed in file.layout.tensors
        }
