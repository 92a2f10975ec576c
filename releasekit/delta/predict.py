"""What the base says a target chunk should be, before the payload corrects it.

The base's tensor, cast to the target's dtype if that differs, cut to the target's rows or
continued with zeros; plus the plain difference, if the release has one. Maker and rebuilder
both predict with this code, so they agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.addition import plain_dtype, plus
from releasekit.codec.cast import cast
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import as_words
from releasekit.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Predicts one target tensor.

    Attributes:
        base: the checkpoint to read from.
        source: the base's tensor; None predicts zeros.
        target: the tensor to predict.
        chunking: how the target is cut.
        plain: the release's plain differences, to be added; None if there are none.
        plain_name: the tensor of them to add.
    """

    base: Checkpoint
    source: TensorSpec | None
    target: TensorSpec
    chunking: Chunking
    plain: Checkpoint | None = None
    plain_name: str = ""

    @property
    def spare_nbytes(self) -> int:
        """Size of the spare space that `read` needs: none, unless it casts or adds."""
        cast = self._source_nbytes(self.chunking.chunk_nbytes) if self._casts else 0
        return max(cast, self._plain_nbytes(self.chunking.chunk_nbytes))

    @property
    def shared_nbytes(self) -> int:
        """Bytes of the base's tensor that the predictions read, from its start on."""
        if self.source is None:
            return 0
        return min(self.source.nbytes, self._source_nbytes(self.target.nbytes))

    def read(
        self, index: int, out: NDArray[np.uint8], spare: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Predict a chunk, without the plain difference.

        Args:
            index: which chunk.
            out: filled with the predicted words; as many bytes as the chunk has.
            spare: at least `spare_nbytes` bytes.

        Returns:
            The bytes of the base that were read, a view of `out` or of `spare`.
        """
        start, nbytes = self.chunking.span(index)
        if self.source is None:
            out[:] = 0
            return out[:0]
        at = self._source_nbytes(start)
        shared = max(min(self.source.nbytes - at, self._source_nbytes(nbytes)), 0)
        raw = (spare if self._casts else out)[:shared]
        if shared:
            self.base.read(self.source.name, at, raw)
        known = shared
        if self._casts:
            words = as_words(out, self.chunking.word)
            values = as_words(raw, self.source.dtype.word)
            cast(values, self.source.dtype, self.target.dtype, words[: values.size])
            known = values.size * self.chunking.word_nbytes
        out[known:] = 0
        return raw

    def add_plain(
        self, index: int, out: NDArray[np.uint8], spare: NDArray[np.uint8]
    ) -> None:
        """Add the plain difference, if there is one, to what `read` predicted."""
        if self.plain is None:
            return
        start, nbytes = self.chunking.span(index)
        difference = spare[: self._plain_nbytes(nbytes)]
        self.plain.read(self.plain_name, self._plain_nbytes(start), difference)
        plus(out, difference, self.target.dtype)

    def _plain_nbytes(self, target_nbytes: int) -> int:
        """Bytes of the plain difference that stand for so many bytes of the target."""
        if self.plain is None:
            return 0
        dtype = self.target.dtype
        return target_nbytes * plain_dtype(dtype).bits // dtype.bits

    @property
    def _casts(self) -> bool:
        return self.source is not None and self.source.dtype is not self.target.dtype

    def _source_nbytes(self, target_nbytes: int) -> int:
        """Bytes of the base that stand for so many bytes of the target."""
        if self.source is None or not self._casts:
            return target_nbytes
        return target_nbytes * self.source.dtype.bits // self.target.dtype.bits
