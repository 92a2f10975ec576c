"""The decoder for devices on any chunk: right, and at one with the CPU's on wrong input."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from releasekit.codec import entropy, grouping, ulp
from releasekit.codec import frame as frames
from releasekit.errors import BaseMismatchError
from releasekit.tensors import DTYPES, Word
from tests.property.test_ulp import Words, chunks, some_words
from tests.unit.test_device_ungroup import parts_of, rebuild

KINDS = st.sampled_from(["any", "special", "weights", "zeros"])
ROWS = st.integers(1, 40) | st.sampled_from([64, 1000, 5000])


def agree(frame: bytes, base: Words, word: Word, row: int) -> None:
    """Decodes a frame of groups for any base, on the CPU and as on a device."""
    words = rebuild(parts_of(frame, base.size, word, row), base, word, row)
    out = base.copy()
    try:
        ulp.decode(frame, out, word=word, row=row, where="w")
    except BaseMismatchError:
        assert words is None
    else:
        assert words is not None
        np.testing.assert_array_equal(words, out)


@given(chunk=chunks(), row=ROWS)
def test_rebuild_inverts_encode(chunk: tuple[Words, Words, Word], row: int) -> None:
    base, target, word = chunk
    frame = ulp.encode(base, target, word=word, row=row)
    assume(frame[0] == 2)
    parts = parts_of(frame, base.size, word, row)
    np.testing.assert_array_equal(rebuild(parts, base, word, row), target)


@given(chunk=chunks(), row=ROWS, kind=KINDS, data=st.data())
def test_another_base_gives_what_it_gives_on_the_cpu(
    chunk: tuple[Words, Words, Word], row: int, kind: str, data: st.DataObject
) -> None:
    base, target, word = chunk
    frame = ulp.encode(base, target, word=word, row=row)
    assume(frame[0] == 2)
    source = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    other = some_words(source, kind, base.size, word)
    other = np.where(source.random(base.size) < data.draw(st.floats(0, 1)), other, base)
    agree(frame, other, word, row)


@given(data=st.data(), kind=KINDS, row=ROWS, size=st.integers(1, 40) | st.integers(1, 3000))
def test_any_frame_gives_what_it_gives_on_the_cpu(
    data: st.DataObject, kind: str, row: int, size: int
) -> None:
    word = DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))].word
    source = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    base = some_words(source, kind, size, word)
    limit = word.mantissa_bits if word.exponent_bits else word.bits - 1
    # Loops are compiled for each number of low zero bits, so few numbers are tried.
    shift = data.draw(st.sampled_from([0, 0, limit // 2, limit]))
    kmask = (1 << word.exponent_bits) - 1
    indices = grouping.index_count(kmask)
    groups = data.draw(st.integers(0, 3) | st.integers(0, min(indices, 600)))
    last = np.sort(source.choice(indices, groups, replace=False))
    classes = source.choice(
        np.array(data.draw(st.lists(st.integers(0, 255), min_size=1)), np.uint8),
        -(-size // row),
    )
    # Counts that match, so that words are compared; then perhaps others.
    wide, one = base.astype(np.uint64), np.uint64(1)
    if shift:
        wide = wide + (one << np.uint64(shift - 1)) - one + (wide >> np.uint64(shift) & one)
    key = wide >> np.uint64(word.mantissa_bits) & np.uint64(kmask)
    index = 2 * key.astype(np.int64) + np.repeat(classes, row)[:size]
    index = index[np.repeat(classes != 255, row)[:size]]
    group = grouping.index_table(last, kmask)[index]
    count = np.bincount(group, minlength=groups)[:groups]
    if groups and data.draw(st.booleans()):
        count = source.permutation(count)
        count[source.integers(groups)] //= 2
    # All that a reduced word can hold; in words below 64 bits, more than that.
    numbers: Words = np.frombuffer(source.bytes(8 * int(count.sum())), np.uint64)
    numbers = numbers >> np.uint64(shift) if word.bits == 64 else numbers.astype(np.uint32)
    parts = np.split(numbers, np.cumsum(count)[:-1])[:groups]
    frame = frames.Grouped(
        shift=shift,
        last=last,
        count=count,
        rows=entropy.pack(classes.astype(np.uint32)),
        groups=tuple(entropy.pack(part) for part in parts),
    ).pack()
    agree(frame, base, word, row)
