"""The codec on any words of any dtype: what is decoded is what was encoded."""

from typing import Any, Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.codec import ulp
from releasekit.tensors import DTYPES, Word

Words = NDArray[Any]

WORDS: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def special(word: Word) -> list[int]:
    """Zeros, ones, infinities, NaNs, the largest and the smallest, each of both signs."""
    top = 1 << (word.bits - 1)
    infinity = (top - 1) >> word.mantissa_bits << word.mantissa_bits
    smallest = 1 << word.mantissa_bits
    positive = [0, 1, infinity, infinity - 1, smallest, smallest - 1, top // 2, top - 1]
    if word.mantissa_bits > 1:  # NaNs: the quiet one, and one with a payload
        positive += [infinity | smallest >> 1, infinity | 1]
    return positive + [pattern | top for pattern in positive]


def some_words(source: np.random.Generator, kind: str, size: int, word: Word) -> Words:
    if kind == "any":
        return np.frombuffer(source.bytes(size * word.bits // 8), WORDS[word.bits])
    if kind == "special":
        return source.choice(np.array(special(word), WORDS[word.bits]), size)
    if kind == "weights" and word.bits >= 16:
        values = (source.standard_normal(size) * 0.02).astype(np.float32).view(np.uint32)
        wide = values.astype(np.uint64) << np.uint64(32) >> np.uint64(64 - word.bits)
        return wide.astype(WORDS[word.bits])
    return np.zeros(size, WORDS[word.bits])


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Words, Words, Word]:
    """Base and target of a chunk, more or less alike, and the layout of their words."""
    word = DTYPES[draw(st.sampled_from(sorted(DTYPES)))].word
    size = draw(st.integers(1, 40) | st.integers(1, 3000))
    kinds = st.sampled_from(["any", "special", "weights", "zeros"])
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base = some_words(source, draw(kinds), size, word)
    if draw(st.booleans()):  # related: some words are a few steps away
        steps = source.integers(-(1 << draw(st.integers(1, 7))), 2, size)
        steps[source.random(size) < draw(st.sampled_from([0, 0.5, 0.99, 1]))] = 0
        target = base + steps.astype(base.dtype)
    else:
        target = some_words(source, draw(kinds), size, word)
    if draw(st.booleans()):  # rows that did not change
        row = draw(st.integers(1, 100))
        still = source.random(-(-size // row)) < 0.5
        target = np.where(np.repeat(still, row)[:size], base, target)
    # Loops are compiled for each number of low zero bits, so few numbers are tried.
    limit = word.mantissa_bits if word.exponent_bits else word.bits - 1
    zeros = base.dtype.type(draw(st.sampled_from([0, 0, limit])))
    target = target >> zeros << zeros
    target[source.integers(size)] |= base.dtype.type(1) << zeros
    return base, target, word


@given(chunk=chunks(), row=st.integers(1, 40) | st.sampled_from([64, 1000, 5000]))
def test_decode_inverts_encode(chunk: tuple[Words, Words, Word], row: int) -> None:
    base, target, word = chunk
    before = base.tobytes(), target.tobytes()
    frame = ulp.encode(base, target, word=word, row=row)
    assert len(frame) <= target.nbytes + 1
    assert ulp.encode(base.copy(), target, word=word, row=row) == frame
    out = base.copy()
    ulp.decode(frame, out, word=word, row=row, where="w")
    np.testing.assert_array_equal(out, target)
    assert before == (base.tobytes(), target.tobytes())


@given(chunk=chunks(), row=st.integers(1, 200))
def test_a_chunk_that_equals_its_base_is_one_byte(
    chunk: tuple[Words, Words, Word], row: int
) -> None:
    base, _, word = chunk
    assert ulp.encode(base, base.copy(), word=word, row=row) == b"\1"
