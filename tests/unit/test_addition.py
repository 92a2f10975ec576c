"""Plain differences against torch's, and sums with them against exact ones, rounded."""

import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from releasekit.codec.addition import minus, plain_dtype, plus
from releasekit.tensors import DType

Array = NDArray[Any]

TORCH = {
    DType.F8_E4M3: torch.float8_e4m3fn,
    DType.F8_E5M2: torch.float8_e5m2,
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.F32: torch.float32,
    DType.F64: torch.float64,
}
FLOATS = list(TORCH)
OTHERS = [dtype for dtype in DType if dtype not in TORCH]
INTEGERS = [dtype for dtype in OTHERS if dtype is not DType.BOOL]
HALF_NAN = 0x7E00
BLOCK = 1 << 16
SIZES = [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5]


def noise(seed: int, size: int, dtype: DType) -> Array:
    """Words of any kind."""
    bits = 1 if dtype is DType.BOOL else dtype.word.bits
    word = np.dtype(f"u{dtype.word.bits // 8}")
    source = np.random.default_rng([seed, dtype.bits])
    return source.integers(0, (1 << bits) - 1, size, word, endpoint=True)


def numbers(seed: int, size: int, dtype: DType) -> Array:
    """Words that are numbers as weights are."""
    values = np.random.default_rng(seed).standard_normal(size) * 0.02
    made = torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy()
    return made.view(f"u{dtype.bits // 8}")


def difference(target: Array, base: Array, dtype: DType) -> Array:
    out = np.full(target.size * plain_dtype(dtype).word.bits // 8, 0x55, np.uint8)
    minus(target.view(np.uint8), base.view(np.uint8), dtype, out)
    return out.view(f"u{plain_dtype(dtype).word.bits // 8}")


def total(base: Array, plain: Array, dtype: DType) -> Array:
    out = base.copy()
    plus(out.view(np.uint8), plain.view(np.uint8), dtype)
    return out


def tensor(words: Array, dtype: DType) -> torch.Tensor:
    return torch.from_numpy(words.view(np.uint8).copy()).view(TORCH[dtype])


def of_torch(found: torch.Tensor) -> Array:
    """The words of torch's float16, all NaNs as one."""
    words: Array = found.view(torch.int16).numpy().view(np.uint16).copy()
    words[found.isnan().numpy()] = HALF_NAN
    return words


def test_floats_differ_in_float16_and_others_in_their_own_dtype() -> None:
    assert {dtype: plain_dtype(dtype) for dtype in DType} == (
        dict.fromkeys(FLOATS, DType.F16) | {dtype: dtype for dtype in OTHERS}
    )


@pytest.mark.parametrize("kind", [noise, numbers])
@pytest.mark.parametrize("dtype", [d for d in FLOATS if d is not DType.F64])
def test_differences_are_those_of_torch(dtype: DType, kind: Any) -> None:
    target, base = (kind(seed, BLOCK + 9000, dtype) for seed in (1, 2))
    halves = [tensor(words, dtype).to(torch.float16) for words in (target, base)]
    np.testing.assert_array_equal(
        difference(target, base, dtype), of_torch(halves[0] - halves[1])
    )


@pytest.mark.parametrize("kind", [noise, numbers])
def test_float64_is_rounded_to_float16_once(kind: Any) -> None:
    """torch rounds to float32 first; numpy does not."""
    target, base = (kind(seed, BLOCK + 9000, DType.F64) for seed in (1, 2))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        halves = [words.view(np.float64).astype(np.float16) for words in (target, base)]
        wanted = halves[0] - halves[1]
    words = wanted.view(np.uint16).copy()
    words[np.isnan(wanted)] = HALF_NAN
    np.testing.assert_array_equal(difference(target, base, DType.F64), words)


@pytest.mark.parametrize("kind", [noise, numbers])
@pytest.mark.parametrize("dtype", [DType.BF16, DType.F32])
def test_sums_are_those_of_torch(dtype: DType, kind: Any) -> None:
    base, plain = kind(1, BLOCK + 9000, dtype), kind(2, BLOCK + 9000, DType.F16)
    wide = tensor(base, dtype).float() + tensor(plain, DType.F16).float()
    found = tensor(total(base, plain, dtype), dtype)
    wanted = wide.to(TORCH[dtype])
    assert torch.equal(found.isnan(), wanted.isnan())
    signed = {16: torch.int16, 32: torch.int32}[dtype.bits]
    words = [x.masked_fill(wanted.isnan(), 0).view(signed) for x in (found, wanted)]
    assert torch.equal(*words)


class Format:
    """A binary float, in fractions."""

    def __init__(self, dtype: DType) -> None:
        self.mantissa, exponent = dtype.word.mantissa_bits, dtype.word.exponent_bits
        self.bias = (1 << (exponent - 1)) - 1
        self.sign = 1 << (dtype.bits - 1)
        self.limit = self.sign - (1 << self.mantissa)  # infinity
        if dtype is DType.F8_E4M3:
            self.limit = self.sign - 1  # NaN, which has the place of a number

    def value(self, word: int) -> Fraction:
        """What a finite word stands for."""
        power, part = divmod(word & (self.sign - 1), 1 << self.mantissa)
        significand = part + (bool(power) << self.mantissa)
        scale = Fraction(2) ** (max(power, 1) - self.bias - self.mantissa)
        return significand * scale * (-1 if word & self.sign else 1)

    def nearest(self, value: Fraction, *, negative: bool) -> int:
        """The word nearest to a number, ties to even; beyond the largest, `limit`."""
        size, low, high = abs(value), 0, self.limit
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.value(middle) <= size else (low, middle)
        below, above = size - self.value(low), self.value(high) - size
        up = above < below or (above == below and high % 2 == 0)
        return (high if up else low) | (self.sign if negative else 0)

    def add(self, a: int, b: int) -> int:
        """The word nearest to a sum of two finite words of this format."""
        left, right = self.value(a), self.value(b)
        negative = left + right < 0 or bool(left + right == 0 and a & b & self.sign)
        return self.nearest(left + right, negative=negative)

    def cast(self, word: int, other: "Format") -> int:
        """A word of another format; beyond its largest number, its `limit`."""
        negative = bool(word & self.sign)
        if word & (self.sign - 1) >= self.limit:
            return other.limit | (other.sign if negative else 0)
        return other.nearest(self.value(word), negative=negative)

    def is_finite(self, word: int) -> bool:
        return word & (self.sign - 1) < self.limit


HALF, SINGLE = Format(DType.F16), Format(DType.F32)


def samples(dtype: DType, seed: int) -> list[int]:
    """Finite words: any, and weights, and where something begins or ends."""
    known = Format(dtype)
    edges = [0, 1, 1 << known.mantissa, known.limit - 1, known.bias << known.mantissa]
    found = [*noise(seed, 80, dtype).tolist(), *numbers(seed, 80, dtype).tolist()]
    found += [edge | sign for edge in edges for sign in (0, known.sign)]
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] if known.is_finite(found[i]) else 0 for i in order]


@pytest.mark.parametrize("dtype", FLOATS)
def test_differences_are_exact_ones_rounded(dtype: DType) -> None:
    known = Format(dtype)
    target, base = samples(dtype, 1), samples(dtype, 2)
    wanted = []
    for left, right in zip(target, base, strict=True):
        halves = [known.cast(word, HALF) for word in (left, right)]
        if all(map(HALF.is_finite, halves)):
            wanted.append(HALF.add(halves[0], halves[1] ^ HALF.sign))
        elif HALF.is_finite(halves[0]):
            wanted.append(halves[1] ^ HALF.sign)
        else:
            like = halves[0] == halves[1]
            wanted.append(HALF_NAN if like else halves[0])
    word = f"u{dtype.bits // 8}"
    found = difference(np.array(target, word), np.array(base, word), dtype)
    assert found.tolist() == wanted


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_are_exact_ones_rounded(dtype: DType) -> None:
    """In float32, or float64 in float64; and from there to the dtype."""
    known = Format(dtype)
    wide = known if dtype in (DType.F16, DType.F64) else SINGLE
    base, plain = samples(dtype, 3), samples(DType.F16, 4)
    wanted = []
    for word, half in zip(base, plain, strict=True):
        exact = wide.add(known.cast(word, wide), HALF.cast(half, wide))
        wanted.append(wide.cast(exact, known))
    found = total(np.array(base, f"u{dtype.bits // 8}"), np.array(plain, np.uint16), dtype)
    assert found.tolist() == wanted


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_nan_of_a_sum_is_the_positive_quiet_one(dtype: DType) -> None:
    sign = 1 << (dtype.bits - 1)
    infinity = sign - (1 << dtype.word.mantissa_bits)
    quiet = sign - 1 if dtype is DType.F8_E4M3 else infinity | infinity ^ infinity >> 1
    one = (1 << (dtype.word.exponent_bits - 1)) - 1 << dtype.word.mantissa_bits
    pairs = [(one, half) for half in (0x7C01, 0xFE00, 0xFFFF, 0x7E01)]
    pairs += [(word, 0x3C00) for word in (sign - 1, 2 * sign - 1)]
    if dtype is not DType.F8_E4M3:
        pairs += [(infinity, 0xFC00), (infinity | sign, 0x7C00)]
    base = np.array([pair[0] for pair in pairs], f"u{dtype.bits // 8}")
    plain = np.array([pair[1] for pair in pairs], np.uint16)
    found = total(base, plain, dtype)
    assert set(found.tolist()) == {quiet}


@pytest.mark.parametrize("dtype", OTHERS)
def test_what_is_no_float_is_exact(dtype: DType) -> None:
    target, base = (noise(seed, BLOCK + 9000, dtype) for seed in (1, 2))
    plain = difference(target, base, dtype)
    np.testing.assert_array_equal(total(base, plain, dtype), target)
    if dtype is DType.BOOL:
        assert set(plain.tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_differ_modulo_their_width(dtype: DType) -> None:
    most = (1 << dtype.word.bits) - 1
    word = f"u{dtype.word.bits // 8}"
    target, base = np.array([0, 5, most], word), np.array([1, 3, 0], word)
    assert difference(target, base, dtype).tolist() == [most, 2, most]


def test_equal_numbers_differ_by_a_positive_zero() -> None:
    zeros = np.array([0x8000, 0, 0x3C00, 0xBC00], np.uint16)
    assert difference(zeros, zeros, DType.F16).tolist() == [0, 0, 0, 0]
    assert total(zeros, np.zeros(4, np.uint16), DType.F16).tolist() == [
        0,
        0,
        0x3C00,
        0xBC00,
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DType)
def test_blocks_have_no_borders(dtype: DType, size: int) -> None:
    """What is done at once is what is done piece by piece."""
    target, base = (noise(seed, size, dtype) for seed in (5, 6))
    plain = difference(target, base, dtype)
    whole = total(base, plain, dtype)
    step = 40_000
    for at in range(0, size, step):
        part = slice(at, at + step)
        np.testing.assert_array_equal(
            difference(target[part], base[part], dtype), plain[part]
        )
        np.testing.assert_array_equal(total(base[part], plain[part], dtype), whole[part])


@pytest.mark.parametrize("dtype", DType)
def test_only_the_result_is_written(dtype: DType) -> None:
    target, base = (noise(seed, 1000, dtype) for seed in (7, 8))
    before = target.copy(), base.copy()
    plain = difference(target, base, dtype)
    np.testing.assert_array_equal(target, before[0])
    np.testing.assert_array_equal(base, before[1])
    kept = plain.copy()
    plus(base.view(np.uint8), plain.view(np.uint8), dtype)
    np.testing.assert_array_equal(plain, kept)


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", DType)
def test_words_may_lie_anywhere(dtype: DType, offset: int) -> None:
    """A chunk of an odd number of bytes puts what comes after it there."""
    target, base = (noise(seed, 777, dtype) for seed in (9, 10))
    plain = difference(target, base, dtype)

    def moved(words: Array) -> NDArray[np.uint8]:
        space = np.zeros(words.nbytes + offset, np.uint8)
        space[offset:] = words.view(np.uint8)
        return space[offset:]

    found = moved(np.zeros_like(plain))
    minus(moved(target), moved(base), dtype, found)
    np.testing.assert_array_equal(found, plain.view(np.uint8))
    added = moved(base)
    plus(added, found, dtype)
    np.testing.assert_array_equal(added, total(base, plain, dtype).view(np.uint8))


# Adding is often the first that threads do, and loads the compiled code that it needs.

_AT_ONCE = """
import threading, time
import numpy as np
from releasekit.codec import native
from releasekit.codec.addition import minus
from releasekit.tensors import DType

engines = []
make = native._Engine.__init__

def slowly(self):
    make(self)
    engines.append(self)
    time.sleep(0.2)

native._Engine.__init__ = slowly

def work(dtype):
    data = np.zeros(800, np.uint8)
    minus(data, data, dtype, np.empty(8000, np.uint8)[: 800 * 16 // dtype.bits])

threads = [threading.Thread(target=work, args=[d]) for d in (DType.BF16, DType.F32)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(engines))
"""


def test_threads_that_begin_at_once_share_one_engine() -> None:
    """A second one would go with its code, while that is called: a crash."""
    for dtype in (DType.BF16, DType.F32):  # so that both find their code compiled
        difference(noise(1, 9, dtype), noise(2, 9, dtype), dtype)
    done = subprocess.run(
        [sys.executable, "-c", _AT_ONCE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
