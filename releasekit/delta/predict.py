"""What the base says a target chunk should be, before the payload corrects it.

The base's tensor, cast to the target's dtype if that differs, cut to the target's rows or
continued with zeros. Maker and rebuilder both predict with this code, so they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.cast import cast
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import Words
from releasekit.tensors import TensorSpec, Word

_WORDS: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def as_words(data: NDArray[np.uint8], word: Word) -> Words:
    """See bytes as words; the size must be a whole number of them."""
    return data.view(_WORDS[word.bits])


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """Predicts one target tensor.

    Attributes:
        base: the checkpoint to read from.
        source: the base's tensor; None predicts zeros.
        target: the tensor to predict.
        chunking: how the target is cut.
    """

    base: Checkpoint
    source: TensorSpec | None
    target: TensorSpec
    chunking: Chunking

    @property
    def spare_nbytes(self) -> int:
        """Size of the spare space that `read` needs: none, unless it casts."""
        return self._source_nbytes(self.chunking.chunk_nbytes) if self._casts else 0

    @property
    def shared_nbytes(self) -> int:
        """Bytes of the base's tensor that the predictions read, from its start on."""
        if self.source is None:
            return 0
        return min(self.source.nbytes, self._source_nbytes(self.target.nbytes))

    def read(
        self, index: int, out: NDArray[np.uint8], spare: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Predict a chunk.

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

    @property
    def _casts(self) -> bool:
        return self.source is not None and self.source.dtype is not self.target.dtype

    def _source_nbytes(self, target_nbytes: int) -> int:
        """Bytes of the base that stand for so many bytes of the target."""
        if self.source is None or not self._casts:
            return target_nbytes
        return target_nbytes * self.source.dtype.bits // self.target.dtype.bits
