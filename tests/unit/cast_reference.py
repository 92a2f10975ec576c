"""The cast as it is defined: one word after the other, with branches, for any two layouts.

`releasekit.codec.cast` must give the same words.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.native import Kernel
from releasekit.tensors import DType

_ONE = np.uint64(1)
_ZERO = np.uint64(0)


def cast(words: NDArray[Any], source: DType, target: DType, out: NDArray[Any]) -> None:
    """Convert words of `source` into words of `target`."""
    converter = _converter(words.itemsize, out.itemsize)
    converter(words, *_layout(source), *_layout(target), out)


def _layout(dtype: DType) -> tuple[int, int, int, bool]:
    """Word bits, mantissa bits, exponent bias, and whether it has infinities."""
    word = dtype.word
    bias = (1 << (word.exponent_bits - 1)) - 1
    return word.bits, word.mantissa_bits, bias, dtype is not DType.F8_E4M3


def _convert_word(
    word: Any,
    bits: Any,
    mantissa: Any,
    bias: Any,
    infinite: Any,
    to_bits: Any,
    to_mantissa: Any,
    to_bias: Any,
    to_infinite: Any,
) -> Any:
    magnitude = word & ((_ONE << np.uint64(bits - 1)) - _ONE)
    sign = (word >> np.uint64(bits - 1)) << np.uint64(to_bits - 1)
    top = (_ONE << np.uint64(to_bits - 1)) - _ONE  # the largest magnitude
    hidden = _ONE << np.uint64(mantissa)
    to_hidden = _ONE << np.uint64(to_mantissa)
    to_nan = limit = top  # F8_E4M3: all ones is NaN, and stands for what is too large
    if to_infinite:
        limit = top & ~(to_hidden - _ONE)
        to_nan = limit | (to_hidden >> _ONE)
    if infinite:
        infinity = ((_ONE << np.uint64(bits - 1)) - _ONE) & ~(hidden - _ONE)
        if magnitude > infinity:
            return sign | to_nan
        if magnitude == infinity:
            return sign | limit
    elif magnitude == (_ONE << np.uint64(bits - 1)) - _ONE:
        return sign | to_nan
    field = np.int64(magnitude >> np.uint64(mantissa))
    significand = magnitude & (hidden - _ONE)
    if field > 0:
        significand |= hidden
    else:
        field = np.int64(1)
    if significand == _ZERO:
        return sign
    quantum = field - bias - mantissa  # value = significand * 2**quantum
    length = 0
    rest = significand
    while rest != _ZERO:
        rest >>= _ONE
        length += 1
    exponent = quantum + length - 1  # of the leading bit
    normal = exponent + to_bias > 0
    to_quantum = exponent - to_mantissa if normal else 1 - to_bias - to_mantissa
    drop = to_quantum - quantum
    if drop <= 0:
        rounded = significand << np.uint64(-drop)
    elif drop > length:
        rounded = _ZERO  # less than half a unit
    else:
        s = np.uint64(drop)
        odd = (significand >> s) & _ONE
        rounded = (significand + ((_ONE << (s - _ONE)) - _ONE) + odd) >> s
    if normal:
        # A carry out of the mantissa moves into the exponent, as it should.
        rounded += np.uint64(exponent + to_bias - 1) << np.uint64(to_mantissa)
        if exponent + to_bias >= (1 << (to_bits - 1 - to_mantissa)):
            return sign | limit
    return sign | min(rounded, limit)


@cache
def _converter(source_nbytes: int, target_nbytes: int) -> Kernel:
    layout = "i8 i8 i8 u1"
    return Kernel(
        _convert,
        f"u{source_nbytes}* {layout} {layout} u{target_nbytes}*",
        helpers=(_convert_word,),
        variant=f"_{source_nbytes}_{target_nbytes}",
    )


def _convert(
    words: Any,
    bits: Any,
    mantissa: Any,
    bias: Any,
    infinite: Any,
    to_bits: Any,
    to_mantissa: Any,
    to_bias: Any,
    to_infinite: Any,
    out: Any,
) -> None:
    for i in range(words.size):
        out[i] = _convert_word(
            np.uint64(words[i]),
            bits,
            mantissa,
            bias,
            infinite,
            to_bits,
            to_mantissa,
            to_bias,
            to_infinite,
        )
