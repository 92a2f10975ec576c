"""What a few small reads tell of a checkpoint, whichever model it is.

Norms begin as ones, and training leaves them between about 0.1 and 2; of a difference
between two models they are around 0. They are small, and there are some in each layer. And
a file that was reserved for a download which never came is full of zeros.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.tensors import DType, TensorSpec

_NORMS: Final = 8
_NBYTES: Final = 1 << 20
_BLANKS: Final = 16
_END_NBYTES: Final = 4096  # a whole number of any dtype's words


def sizes_of_norms(checkpoint: Checkpoint) -> dict[str, float]:
    """The mean absolute value of some norms' weights, spread over the model, by name."""
    norms = [spec for spec in checkpoint.specs.values() if _is_norm(spec)]
    some = norms[:: -(-len(norms) // _NORMS) or 1]
    return {spec.name: _mean_size(checkpoint, spec) for spec in some}


def is_blank(checkpoint: Checkpoint) -> bool:
    """Whether only zeros are found at both ends of some tensors, spread over the model."""
    specs = [spec for spec in checkpoint.specs.values() if spec.nbytes]
    ends = np.empty(_END_NBYTES, np.uint8)
    for spec in specs[:: -(-len(specs) // _BLANKS) or 1]:
        part = ends[: spec.nbytes]
        for start in (0, spec.nbytes - part.size):
            checkpoint.read(spec.name, start, part)
            if part.any():
                return False
    return bool(specs)


def _is_norm(spec: TensorSpec) -> bool:
    return (
        "norm" in spec.name.lower()
        and not spec.name.endswith(".bias")
        and len(spec.shape) == 1
        and castable(spec.dtype, DType.F64)
        and 0 < spec.nbytes <= _NBYTES
    )


def _mean_size(checkpoint: Checkpoint, spec: TensorSpec) -> float:
    raw = np.empty(spec.nbytes, np.uint8)
    checkpoint.read(spec.name, 0, raw)
    words = np.empty(spec.numel, np.uint64)
    cast(as_words(raw, spec.dtype.word), spec.dtype, DType.F64, words)
    return float(np.abs(words.view(np.float64)).mean())
