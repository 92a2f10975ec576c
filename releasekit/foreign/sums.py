"""The sum of all weights, which stanford_alpaca's script compares with a constant.

`sum(tensor.sum() for tensor in model.state_dict().values())`, in float32. How torch rounds
inside a tensor depends on the machine, so each tensor is added up in float64 here, which is
nearer to the truth than any of them; from tensor to tensor the script's rounding is done.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.tensors import DType

#: How far the script lets the sum be from what is expected.
TOLERANCE = 1e-2
#: What it expects of tatsu-lab's Alpaca 7B; other models that it made have other sums.
ALPACA_7B = 50637.1836


class SumOfWeights:
    """Adds up what is written; see `model_writer.Observer`."""

    def __init__(self, model: Checkpoint) -> None:
        self._specs = model.specs
        self._sums: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def __call__(self, name: str, data: NDArray[np.uint8]) -> None:
        """Take a piece of a tensor."""
        dtype = self._specs[name].dtype
        if not castable(dtype, DType.F32):
            return
        values = data.view(np.float32) if dtype is DType.F32 else _widened(data, dtype)
        total = float(values.sum(dtype=np.float64))
        with self._lock:
            self._sums[name] += total

    def total(self, names: Iterable[str]) -> float:
        """The sum over the named tensors, in their order."""
        total = np.float32(0)
        for name in names:
            total += np.float32(self._sums.get(name, 0.0))
        return float(total)


def _widened(data: NDArray[np.uint8], dtype: DType) -> NDArray[np.float32]:
    words = as_words(data, dtype.word)
    values = np.empty(words.size, np.float32)
    cast(words, dtype, DType.F32, values.view(np.uint32))
    return values
