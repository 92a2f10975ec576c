"""What a tensor is on disk: its dtype's bit layout, its shape, its place.

The codec never does float arithmetic, so a dtype here is only a *word* layout: how many
bits a word has and where its sign and exponent lie. Types narrower than a byte (F4, F6)
are carried as opaque bytes, complex numbers as pairs of floats; both still compress and
still rebuild exactly.

Names are those of the safetensors format, whose order of definition is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The unit that a codec works on: an unsigned integer and the float fields inside it.

    Attributes:
        bits: width of the word, 8, 16, 32 or 64.
        exponent_bits: width of the exponent field; 0 for integers and opaque bytes.
        mantissa_bits: width of the mantissa field, which is also the exponent's shift.
        signed_magnitude: True if the top bit is a sign over a magnitude (floats), False
            if the word already orders as an integer modulo 2**bits.
    """

    bits: int
    exponent_bits: int = 0
    mantissa_bits: int = 0
    signed_magnitude: bool = False


def _float(bits: int, exponent: int, mantissa: int) -> Word:
    return Word(
        bits=bits, exponent_bits=exponent, mantissa_bits=mantissa, signed_magnitude=True
    )


def _integer(bits: int) -> Word:
    return Word(bits=bits)


class DType(Enum):
    """A safetensors dtype: `(bits per element, word)`.

    Layouts: IEEE 754-2019 for F16, F32, F64; bfloat16 as the upper half of F32; OCP 8-bit
    Floating Point Specification 1.0 for F8_E4M3 and F8_E5M2; OCP Microscaling Formats 1.0
    for F8_E8M0, F6 and F4.
    """

    BOOL = ("BOOL", 8, _integer(8))
    F4 = ("F4", 4, _integer(8))
    F6_E2M3 = ("F6_E2M3", 6, _integer(8))
    F6_E3M2 = ("F6_E3M2", 6, _integer(8))
    U8 = ("U8", 8, _integer(8))
    I8 = ("I8", 8, _integer(8))
    F8_E5M2 = ("F8_E5M2", 8, _float(8, 5, 2))
    F8_E4M3 = ("F8_E4M3", 8, _float(8, 4, 3))
    F8_E8M0 = ("F8_E8M0", 8, _integer(8))
    F8_E4M3FNUZ = ("F8_E4M3FNUZ", 8, _float(8, 4, 3))
    F8_E5M2FNUZ = ("F8_E5M2FNUZ", 8, _float(8, 5, 2))
    I16 = ("I16", 16, _integer(16))
    U16 = ("U16", 16, _integer(16))
    F16 = ("F16", 16, _float(16, 5, 10))
    BF16 = ("BF16", 16, _float(16, 8, 7))
    I32 = ("I32", 32, _integer(32))
    U32 = ("U32", 32, _integer(32))
    F32 = ("F32", 32, _float(32, 8, 23))
    C64 = ("C64", 64, _float(32, 8, 23))
    F64 = ("F64", 64, _float(64, 11, 52))
    I64 = ("I64", 64, _integer(64))
    U64 = ("U64", 64, _integer(64))

    def __init__(self, label: str, bits: int, word: Word) -> None:
        self.label = label
        self.bits = bits
        self.word = word


DTYPES: Final = {dtype.label: dtype for dtype in DType}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, dtype and shape of one tensor, without its data.

    Attributes:
        name: the tensor's key in its checkpoint.
        dtype: element type.
        shape: sizes, outermost first; `()` is a scalar.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements: 1 for a scalar, 0 if any dimension is 0."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes; exact, since layouts refuse a part of a byte."""
        return self.numel * self.dtype.bits // 8

    def describe(self) -> str:
        """`BF16[4096, 4096]`: how messages speak of a tensor's type."""
        return f"{self.dtype.label}{list(self.shape)}"
