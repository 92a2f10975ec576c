"""One chunk, there and back: what undoing it takes, and what it takes for granted."""

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit.codec import ulp, undo
from releasekit.codec.undo import Undo
from releasekit.codec.undo_kernels import mark_reader
from releasekit.errors import BaseMismatchError, FormatError
from releasekit.tensors import DType, Word
from tests.property.test_ulp import chunks
from tests.unit.test_ulp import WORDS, normal, nudged, rounded, updated

BF16 = DType.BF16.word
F32 = DType.F32.word
U8 = DType.U8.word

Array = NDArray[Any]


def there_and_back(
    base: Array, target: Array, word: Word, row: int = 64, *, before: Array | None = None
) -> Undo:
    """Swaps a chunk, and swaps it back; what was kept for that."""
    frame = ulp.encode(base, target, word=word, row=row)
    words = base.copy()
    kept = undo.decode(frame, words, word=word, row=row, where="w", before=before)
    np.testing.assert_array_equal(words, target)
    undo.undo(kept, frame, words, word=word, row=row, where="w")
    np.testing.assert_array_equal(words, base if before is None else before)
    assert len(kept.data) <= target.nbytes + 1
    return kept


@given(chunk=chunks(), row=st.integers(1, 40) | st.sampled_from([64, 1000, 5000]))
def test_what_was_decoded_is_undone(chunk: tuple[Array, Array, Word], row: int) -> None:
    base, target, word = chunk
    there_and_back(base, target, word, row)


@given(chunk=chunks(), seed=st.integers(0, 99))
def test_other_words_than_were_predicted_come_back(
    chunk: tuple[Array, Array, Word], seed: int
) -> None:
    base, target, word = chunk
    before = np.random.default_rng(seed).permutation(base)
    assert not there_and_back(base, target, word, before=before).needs_frame


def test_a_usual_update_takes_few_marks() -> None:
    base = (rounded(normal(1 << 17)) >> 16).astype(np.uint16)
    kept = there_and_back(base, updated(base), BF16, row=4096)
    assert kept.needs_frame
    assert len(kept.data) < 0.03 * base.nbytes


def test_nothing_is_kept_of_a_chunk_that_does_not_change() -> None:
    base = np.arange(100, dtype=np.uint16)
    assert there_and_back(base, base, BF16).is_nothing
    assert not there_and_back(base, base, BF16, before=base + np.uint16(1)).is_nothing


def test_integers_take_no_marks_at_all() -> None:
    base = np.random.default_rng(0).integers(0, 1 << 32, 5000).astype(np.uint32)
    kept = there_and_back(base, nudged(base, 0.2), DType.I32.word)
    assert kept == Undo(data=b"", needs_frame=True)


def test_fp32_that_holds_bf16_takes_marks() -> None:
    base = rounded(normal(1 << 15))
    update = updated((base >> 16).astype(np.uint16)).astype(np.uint32) << np.uint32(16)
    assert there_and_back(base, update, F32).needs_frame


def test_bits_that_the_target_has_not_are_kept() -> None:
    base = normal(1 << 13)
    kept = there_and_back(base, rounded(base), F32)
    assert not kept.needs_frame
    assert len(kept.data) > base.nbytes // 3  # 16 of 32 bits are the base's alone


@pytest.mark.parametrize("dtype", DType)
def test_a_raw_frame_is_undone_by_a_frame(dtype: DType) -> None:
    source = np.random.default_rng(0)
    base, target = (
        np.frombuffer(source.bytes(1000 * dtype.word.bits // 8), WORDS[dtype.word.bits])
        for _ in range(2)
    )
    assert not there_and_back(base, target, dtype.word).needs_frame


def test_words_that_all_change_groups_are_undone_by_a_frame() -> None:
    # Each word is doubled, in turn or not at all: as many marks as words, and two groups.
    source = np.random.default_rng(0)
    exponents = source.choice([100, 140], 8192).astype(np.uint16)
    base = (exponents << np.uint16(7)) + np.uint16(5)
    target = (np.uint16(240) - exponents << np.uint16(7)) + np.uint16(5)
    kept = there_and_back(base, target, BF16)
    assert len(kept.data) <= len(ulp.encode(base, target, word=BF16, row=64)) + 2000


def test_distant_groups_and_distant_words_are_marked() -> None:
    base = np.full(1 << 16, 0x3F80, np.uint16)  # 1.0
    rng = np.random.default_rng(1)
    base[:] += rng.integers(0, 100, base.size).astype(np.uint16)
    base[40_000:] = 0x0080 + rng.integers(0, 100, base.size - 40_000).astype(np.uint16)
    base[20_000:30_000] = 0xC480 + rng.integers(0, 60, 10_000).astype(np.uint16)
    target = base + rng.integers(0, 3, base.size).astype(np.uint16)
    for at, value in ((0, 0x7F80), (39_999, 0x0001), (40_000, 0xFFFF), (65_535, 0x8000)):
        target[at] = value
    kept = there_and_back(base, target, BF16, row=1 << 16)
    assert kept.needs_frame
    assert len(kept.data) < 100


def swapped(seed: int = 0) -> tuple[Undo, bytes, Array]:
    """What is kept of a chunk, its frame, and the target's words."""
    base = (rounded(normal(5000, seed)) >> 16).astype(np.uint16)
    frame = ulp.encode(base, updated(base), word=BF16, row=100)
    words = base.copy()
    kept = undo.decode(frame, words, word=BF16, row=100, where="w")
    assert len(kept.data) > 50
    return kept, frame, words


def test_words_that_were_changed_meanwhile_are_found_out_or_differ() -> None:
    kept, frame, words = swapped()
    words[1000:2000] ^= np.uint16(0x0F00)
    with pytest.raises(BaseMismatchError, match=r"^w: the base's exponents are not those"):
        undo.undo(kept, frame, words, word=BF16, row=100, where="w")


def test_another_frame_is_refused() -> None:
    kept, _, words = swapped()
    _, other, _ = swapped(seed=7)
    with pytest.raises(BaseMismatchError, match=r"^w: the base's exponents are not those"):
        undo.undo(kept, other, words, word=BF16, row=100, where="w")
    with pytest.raises(FormatError, match=r"^w: unknown kind of frame 9 of 5 bytes$"):
        undo.undo(kept, b"\x09abcd", words, word=BF16, row=100, where="w")


@given(data=st.binary(max_size=200), keep=st.integers(0, 60))
def test_marks_of_any_bytes_stay_within_bounds(data: bytes, keep: int) -> None:
    kept, frame, words = swapped()
    spoilt = Undo(data=kept.data[:keep] + data, needs_frame=True)
    guarded = np.concatenate([words, np.full(64, 0xABCD, np.uint16)])
    with suppress(BaseMismatchError):  # unless they happen to be good
        undo.undo(spoilt, frame, guarded[:-64], word=BF16, row=100, where="w")
    assert (guarded[-64:] == 0xABCD).all()


@pytest.mark.parametrize(
    "data",
    [
        b"\x85",  # ends within a number
        b"\xff\xff\xff\xff\xff\x01",  # a number too large
        b"\x02\x01",  # ends within a group
        bytes([0xFF, 0xFF, 0x03]),  # behind the last word
    ],
)
def test_malformed_marks_are_told(data: bytes) -> None:
    room = np.zeros(len(data), np.uint32), np.zeros(len(data), np.uint16)
    found = mark_reader(np.frombuffer(data, np.uint8), 1000, *room)
    assert found > len(data)


def test_marks_are_what_is_written_down() -> None:
    marks = bytes([3, 5 * 7 + 1, 0x80 | ((5 * 300 + 2) & 127), (5 * 300 + 2) >> 7, 1, 2])
    position, change = np.zeros(6, np.uint32), np.zeros(6, np.uint16)
    assert mark_reader(np.frombuffer(marks, np.uint8), 1000, position, change) == 3
    assert position[:3].tolist() == [0, 7, 307]
    assert change[:3].tolist() == [3, 1, 5 + 0x201]


def test_its_own_scratch_space_is_counted() -> None:
    assert undo.undo_nbytes(1000, BF16) > ulp.encode_nbytes(1000, BF16) + 2 * 1000
