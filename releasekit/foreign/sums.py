"""The sum of all weights, which stanford_alpaca's script compares with a constant.

`sum(tensor.sum() for tensor in model.state_dict().values())`, in float32. How torch rounds
inside a tensor depends on the machine, so each tensor is added up in float64 here, which is
nearer to the truth than any of them; from tensor to tensor the script's rounding is done.

The script added up buffers as well, which transformers stored at the time: `inv_freq`, of
which the result has none. So there is a second sum, with them.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.tensors import DType, TensorSpec

#: How far the script lets the sum be from what is expected.
TOLERANCE = 1e-2
_THETA = 10000.0


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
        with np.errstate(invalid="ignore"):  # a model may hold infinities of both signs
            total = float(values.sum(dtype=np.float64))
        with self._lock:
            self._sums[name] += total

    def total(
        self, names: Iterable[str], buffers: Mapping[str, float] | None = None
    ) -> float:
        """The sum over the named tensors, in their order.

        Args:
            names: tensors, and perhaps buffers.
            buffers: the sums of the buffers among them.
        """
        sums = self._sums | dict(buffers or {})
        total = np.float32(0)
        for name in names:
            total += np.float32(sums.get(name, 0.0))
        return float(total)


def sums_of_buffers(
    base: Checkpoint, delta: Checkpoint, names: Iterable[str]
) -> dict[str, float]:
    """The sums that `inv_freq` buffers of base and delta have, added up.

    A base without them is one whose library computes them: for LLaMA of the time from
    10000 (J. Su et al., RoFormer, 2021, section 3.2.2).
    """
    found = {}
    for name in names:
        spec = delta.specs[name]
        total = _sum_of(delta, spec)
        if name in base.specs:
            total += _sum_of(base, base.specs[name])
        else:
            total += sum(_THETA ** (-i / spec.numel) for i in range(spec.numel))
        found[name] = total
    return found


def _sum_of(checkpoint: Checkpoint, spec: TensorSpec) -> float:
    raw = np.empty(spec.nbytes, np.uint8)
    checkpoint.read(spec.name, 0, raw)
    adder = SumOfWeights(checkpoint)
    adder(spec.name, raw)
    return adder.total([spec.name])


def _widened(data: NDArray[np.uint8], dtype: DType) -> NDArray[np.float32]:
    words = as_words(data, dtype.word)
    values = np.empty(words.size, np.float32)
    cast(words, dtype, DType.F32, values.view(np.uint32))
    return values
