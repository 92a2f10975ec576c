"""The codec `add-v1`: differences that other tools can add, as plain tensors.

The tools there are (FastChat's `apply_delta`, and what was made after it) load both models
in float16 and add. So the difference is that of both in float16, whatever their dtype:
then the sum is as good as that of a delta which those tools have made themselves. What it
loses, the payloads give back.

Where a dtype has no sums in model libraries the difference only has to undo itself:
integers and opaque bytes are taken modulo 2**bits, booleans by exclusive or, which keeps
them booleans.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.arithmetic import add, subtract
from releasekit.codec.cast import cast
from releasekit.codec.formats import castable
from releasekit.codec.kernels import Words, as_words
from releasekit.tensors import DType

_Bytes = NDArray[np.uint8]

_PLAIN: Final = DType.F16
#: Words that are worked on at once; what they are widened to stays in a cache.
_BLOCK: Final = 1 << 16


def plain_dtype(dtype: DType) -> DType:
    """The dtype of the differences of tensors of `dtype`."""
    return _PLAIN if castable(dtype, _PLAIN) else dtype


def minus(
    target: _Bytes,
    base: _Bytes,
    dtype: DType,
    out: _Bytes,
    base_dtype: DType | None = None,
) -> None:
    """Put the difference of two pieces of tensors into `out`.

    Args:
        target: a piece of a tensor of `dtype`.
        base: what is taken from it: as many elements, or fewer; others count as 0.
        dtype: of the target.
        out: as many elements, of `plain_dtype(dtype)`.
        base_dtype: of the base, if it is another.
    """
    source = base_dtype or dtype
    a, b = as_words(target, dtype.word), as_words(base, source.word)
    plain = plain_dtype(dtype)
    result = as_words(out, plain.word)
    if castable(dtype, plain):
        for at in range(0, a.size, _BLOCK):
            part = slice(at, at + _BLOCK)
            x, known = _as(a[part], dtype, plain), _as(b[part], source, plain)
            y = np.zeros_like(x)
            y[: known.size] = known
            subtract(x, y, plain, result[part])
    elif dtype is DType.BOOL:
        np.bitwise_xor(a, b, out=result)
    else:
        np.subtract(a, b, out=result)


def plus(base: _Bytes, difference: _Bytes, dtype: DType) -> None:
    """Add a difference to a piece of a tensor of `dtype`, in place.

    Floats are added in float32 (float64 in float64), and the sum rounded to `dtype`.
    """
    plain = plain_dtype(dtype)
    a, b = as_words(base, dtype.word), as_words(difference, plain.word)
    if castable(dtype, plain):
        # float16 rounds the same whether or not its sum passes through float32.
        wide = dtype if dtype in (DType.F16, DType.F64) else DType.F32
        for at in range(0, a.size, _BLOCK):
            part = slice(at, at + _BLOCK)
            x, y = _as(a[part], dtype, wide), _as(b[part], plain, wide)
            total = np.empty_like(x)
            add(x, y, wide, total)
            a[part] = _as(total, wide, dtype)
    elif dtype is DType.BOOL:
        np.bitwise_xor(a, b, out=a)
    else:
        np.add(a, b, out=a)


def _as(words: Words, source: DType, target: DType) -> Words:
    """Words of another dtype; the same ones if it is not another."""
    if source is target:
        return words
    out = np.empty(words.size, f"u{target.bits // 8}")
    cast(words, source, target, out)
    return out
