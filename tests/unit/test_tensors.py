"""The dtype table against the formats' own numbers, and what a spec derives."""

import pytest

from releasekit.tensors import DTYPES, DType, TensorSpec


@pytest.mark.parametrize(
    ("dtype", "bits", "exponent", "mantissa"),
    [
        (DType.F8_E5M2, 8, 5, 2),
        (DType.F8_E4M3, 8, 4, 3),
        (DType.F8_E5M2FNUZ, 8, 5, 2),
        (DType.F8_E4M3FNUZ, 8, 4, 3),
        (DType.F16, 16, 5, 10),
        (DType.BF16, 16, 8, 7),
        (DType.F32, 32, 8, 23),
        (DType.F64, 64, 11, 52),
    ],
    ids=lambda value: value.label if isinstance(value, DType) else None,
)
def test_float_layouts(dtype: DType, bits: int, exponent: int, mantissa: int) -> None:
    word = dtype.word
    assert (word.bits, word.exponent_bits, word.mantissa_bits) == (bits, exponent, mantissa)
    assert word.signed_magnitude
    assert dtype.bits == bits


@pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.label)
def test_word_fits_the_dtype(dtype: DType) -> None:
    word = dtype.word
    assert word.bits in {8, 16, 32, 64}
    if word.signed_magnitude:
        assert 1 + word.exponent_bits + word.mantissa_bits == word.bits
    else:
        assert (word.exponent_bits, word.mantissa_bits) == (0, 0)
    # One element is one word, but for the types narrower than a byte and for pairs.
    if dtype in {DType.F4, DType.F6_E2M3, DType.F6_E3M2}:
        assert dtype.bits < word.bits == 8
    elif dtype is DType.C64:
        assert dtype.bits == 2 * word.bits
    else:
        assert dtype.bits == word.bits


def test_labels_are_those_of_the_format() -> None:
    assert list(DTYPES) == [
        *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3"),
        *("F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16"),
        *("I32", "U32", "F32", "C64", "F64", "I64", "U64"),
    ]
    # Members of equal value would be aliases of one another.
    assert [dtype.name for dtype in DTYPES.values()] == list(DTYPES)
    assert len(DType) == len(DTYPES)


@pytest.mark.parametrize(
    ("dtype", "shape", "numel", "nbytes", "described"),
    [
        (DType.BF16, (4096, 11008), 45_088_768, 90_177_536, "BF16[4096, 11008]"),
        (DType.F32, (), 1, 4, "F32[]"),
        (DType.F64, (2, 0), 0, 0, "F64[2, 0]"),
        (DType.F4, (6,), 6, 3, "F4[6]"),
        (DType.F6_E2M3, (2, 4), 8, 6, "F6_E2M3[2, 4]"),
        (DType.C64, (3,), 3, 24, "C64[3]"),
        (DType.U8, (2**62,), 2**62, 2**62, "U8[4611686018427387904]"),
    ],
)
def test_sizes(
    dtype: DType, shape: tuple[int, ...], numel: int, nbytes: int, described: str
) -> None:
    spec = TensorSpec(name="w", dtype=dtype, shape=shape)
    assert (spec.numel, spec.nbytes, spec.describe()) == (numel, nbytes, described)


def test_specs_are_values() -> None:
    spec = TensorSpec(name="w", dtype=DType.BF16, shape=(2,))
    assert spec == TensorSpec(name="w", dtype=DType.BF16, shape=(2,))
    assert spec != TensorSpec(name="w", dtype=DType.F16, shape=(2,))
    with pytest.raises(AttributeError):
        spec.name = "v"  # type: ignore[misc]
