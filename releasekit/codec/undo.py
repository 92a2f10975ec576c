"""Undoing a chunk: from the target's words back to the base's, to the bit.

Residuals are differences modulo 2**bits, so they can be taken off again; but a frame holds
them group by group, and a word's group follows from the *base's* exponent, which is gone
once the target is in its place. Few words change groups, since few cross a power of 2. So
as a chunk is decoded, the places where the target's group is another are noted with the
base's group: these *marks*, with the frame read once more, give the base again.

That fails where the frame says nothing of the base, or not all: raw frames; low bits that
the target has not, and the base had; predictions that are not the base's own words. There
the way back is coded as another frame, from target to base, which takes about as many bytes
as the one it undoes, and at most one more than the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from releasekit.codec import frame as frames
from releasekit.codec import kernels, ulp
from releasekit.codec.kernels import Words
from releasekit.codec.scratch import scratch
from releasekit.codec.ulp import Residuals
from releasekit.codec.undo_kernels import MARK_NBYTES, mark_reader, marker, restorer
from releasekit.tensors import Word

#: Marks may take this many bytes even where the frame is smaller.
_FEW_NBYTES: Final = 16 * MARK_NBYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What it takes to undo one chunk.

    Attributes:
        data: marks, which need the frame that made the chunk; or a frame of its own.
        needs_frame: whether they are marks.
    """

    data: bytes
    needs_frame: bool

    @property
    def is_nothing(self) -> bool:
        """Whether the chunk was not changed."""
        return not self.needs_frame and self.data == bytes([frames.UNCHANGED])


def decode(
    frame: bytes,
    words: Words,
    *,
    word: Word,
    row: int,
    where: str,
    before: Words | None = None,
) -> Undo:
    """Rebuild one chunk in place, as `ulp.decode` does, and say how to undo it.

    Args:
        frame: the coded chunk.
        words: (n,) predicted words, n > 0; replaced by the target's. Unspecified content
            after an error.
        word: layout of the words.
        row: words in a row.
        where: names the chunk in errors.
        before: the words to go back to, if they are not those predicted.

    Raises:
        FormatError, BaseMismatchError: as `ulp.decode`.
    """
    base = before
    if base is None:
        base = scratch("words before", words.size, words.dtype)
        base[:] = words
    marks: list[bytes] = []

    def combine(residuals: Residuals, words: Words) -> bool:
        fits = ulp.combine(residuals, words)
        if fits and before is None:
            found = _marks(base, words, residuals, max(len(frame), _FEW_NBYTES))
            marks.extend([] if found is None else [found])
        return fits

    ulp.decode(frame, words, word=word, row=row, where=where, combine=combine)
    if marks:
        return Undo(data=marks[0], needs_frame=True)
    return replaced(words, base, word=word, row=row)


def replaced(words: Words, before: Words, *, word: Word, row: int) -> Undo:
    """How to undo words that were put in the place of others, without their frame.

    Args:
        words: (n,) words as they are now, n > 0.
        before: (n,) words to go back to.
        word: layout of both.
        row: words in a row.
    """
    data = ulp.encode(words, before, word=word, row=row)
    return Undo(data=data, needs_frame=False)


def undo(
    kept: Undo, frame: bytes, words: Words, *, word: Word, row: int, where: str
) -> None:
    """Go back one chunk, in place; the inverse of `decode`.

    Args:
        kept: what `decode` returned.
        frame: what it decoded; not looked at unless `kept.needs_frame`.
        words: (n,) words of the target, replaced by those before it. Unspecified content
            after an error.
        word: layout of the words.
        row: words in a row.
        where: names the chunk in errors.

    Raises:
        FormatError: if the frame is malformed.
        BaseMismatchError: if frame or words are not those that `decode` left.
    """
    if not kept.needs_frame:
        ulp.decode(kept.data, words, word=word, row=row, where=where)
        return
    combine = partial(_take_off, kept.data)
    ulp.decode(frame, words, word=word, row=row, where=where, combine=combine)


def undo_nbytes(words: int, word: Word) -> int:
    """Scratch space that `decode` and `undo` take in each thread, in bytes."""
    nbytes = word.bits // 8
    # The words before; marks, or their positions and changes; groups of a block.
    marks = 6 * words * nbytes + _FEW_NBYTES + 2 * kernels.BLOCK
    return ulp.encode_nbytes(words, word) + words * nbytes + marks


def _marks(base: Words, target: Words, residuals: Residuals, limit: int) -> bytes | None:
    """Where groups changed, in at most `limit` bytes; None if that is not the way back."""
    reduced = residuals.reduced
    if reduced.shift and int(np.bitwise_or.reduce(base)) & ((1 << reduced.shift) - 1):
        return None  # rounded off, so that the frame does not know them
    out = scratch("marks", limit, np.uint8)
    # Low bits that are 0 do not move the exponent in the whole word.
    used = marker(target.itemsize)(
        base,
        target,
        residuals.classes,
        residuals.row,
        residuals.table,
        reduced.word.mantissa_bits,
        reduced.kmask,
        out,
    )
    return bytes(out[:used].data) if used <= limit else None


def _take_off(marks: bytes, residuals: Residuals, words: Words) -> bool:
    """`Combine`, the other way round."""
    reduced, count = residuals.reduced, residuals.count
    # A mark takes a byte at least.
    position = scratch("mark positions", len(marks), np.uint32)
    change = scratch("mark changes", len(marks), np.uint16)
    found = mark_reader(np.frombuffer(marks, np.uint8), words.size, position, change)
    if found > len(marks):
        return False
    if reduced.shift:
        np.right_shift(words, reduced.shift, out=words)
    ends = (np.cumsum(count) if count.size else np.zeros(1)).astype(np.uint64)
    cursor = ends - (count.astype(np.uint64) if count.size else 0)
    used = restorer(words.itemsize, reduced.bits, reduced.word.signed_magnitude)(
        words,
        residuals.grouped,
        residuals.classes,
        residuals.row,
        residuals.table,
        cursor,
        *reduced.exponent,
        scratch("block", kernels.BLOCK, reduced.container),
        position[:found],
        change[:found],
        scratch("groups of a block", kernels.BLOCK, np.uint16),
    )
    if reduced.shift:
        np.left_shift(words, reduced.shift, out=words)
    return bool(used == found) and np.array_equal(cursor, ends)
