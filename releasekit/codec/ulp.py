"""The lossless codec `ulp`: the distance from base to target in units in the last place.

A chunk of words is coded in four steps, each undone in reverse by the decoder:

1. Float patterns become ordered integers (`kernels`), so that a difference counts ULPs.
2. The difference, modulo 2**bits and zigzagged, is the residual.
3. Residuals are grouped by the base's exponent and the row's scale (`grouping`). The
   decoder holds the base, so the order within the groups costs no bytes.
4. Each group is coded in pcodec's format, whose bins follow the group's distribution
   closely: by an encoder of our own (`entropy`), decoded by pcodec.

A chunk that would not shrink is stored raw; one that equals the base takes one byte. A
tensor without a base is coded against zeros, which leaves its own distribution.

Residuals are coded as 32-bit integers (64-bit for 64-bit words): they take as many bits as
narrower ones, and pcodec decodes them as fast, or faster.

pcodec's own format is stable: any pcodec 1.x reads what an earlier one wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pcodec import wrapped

from releasekit.codec import frame as frames
from releasekit.codec import grouping, kernels
from releasekit.codec.kernels import UNCHANGED_ROW, Words
from releasekit.codec.scratch import scratch
from releasekit.errors import BaseMismatchError, FormatError
from releasekit.tensors import Word

#: The first bytes of a pcodec stream: format version 4.1. Fixed by the codec's version.
_PCODEC_HEADER: Final = b"\x04\x01"


def encode(base: Words, target: Words, *, word: Word, row: int) -> bytes:
    """Code one chunk.

    Args:
        base: (n,) words of the base, already of the target's dtype.
        target: (n,) words to code, n > 0.
        word: layout of the words.
        row: words in a row; the chunk begins at the start of one.

    Returns:
        One frame, at most one byte longer than the target's bytes.
    """
    from releasekit.codec import entropy  # which a decoder need not load

    if same(base, target):
        return bytes([frames.UNCHANGED])
    shape = Reduced(word, _common_zeros(target, word))
    residual = scratch("residual", target.size, target.dtype)
    key = scratch("key", target.size, np.uint16)
    minuend, subtrahend = target, base
    if shape.shift:
        minuend = np.right_shift(target, shape.shift)
        subtrahend = scratch("base", base.size, base.dtype)
        shape.reduce(base, subtrahend)
    kernels.difference(target.itemsize, shape.bits, word.signed_magnitude)(
        subtrahend, minuend, *shape.exponent, residual, key
    )
    chosen = grouping.choose(residual, key, row, shape.kmask)
    table = grouping.index_table(chosen.last, shape.kmask)
    count = kernels.count_groups(key, chosen.classes, row, table, chosen.last.size)
    stops = np.cumsum(count)
    grouped = scratch("residuals by group", target.size, target.dtype)
    cursor = (stops - count).astype(np.uint64)
    group = kernels.grouper(target.itemsize)
    rank = scratch("rank", kernels.BLOCK, np.uint32)
    group(residual, key, chosen.classes, row, table, cursor, rank, grouped)
    coded = frames.Grouped(
        shift=shape.shift,
        last=chosen.last,
        count=count,
        rows=entropy.pack(chosen.classes),
        groups=tuple(entropy.pack_groups(grouped[: int(stops[-1])], count)),
    ).pack()
    if len(coded) > target.nbytes:
        return bytes([frames.RAW]) + target.tobytes()
    return coded


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """The residuals of a grouped frame, ready to be added to the base's words.

    Attributes:
        reduced: how words are reduced.
        grouped: residuals, group after group, zigzagged; followed by unspecified ones up to
            a power of 2, which keeps every cursor in bounds whatever the base holds.
        count: (G,) words in each group.
        classes: (rows,) row classes.
        row: words in a row.
        table: (indices,) uint16, the group of each index; all are 0 where there is none.
    """

    reduced: Reduced
    grouped: NDArray[Any]
    count: NDArray[np.int64]
    classes: NDArray[np.uint8]
    row: int
    table: NDArray[np.uint16]


#: Adds residuals to the base's words, in place. Returns whether each group had as many
#: words as it was coded with: if not, the result is worthless.
Combine = Callable[[Residuals, Words], bool]


def combine(residuals: Residuals, words: Words) -> bool:
    """`Combine` on the processor."""
    reduced, count = residuals.reduced, residuals.count
    if reduced.shift:
        reduced.reduce(words, words)
    # One group at least, so that the table has somewhere to point: an empty one.
    ends = (np.cumsum(count) if count.size else np.zeros(1)).astype(np.uint64)
    cursor = ends - (count.astype(np.uint64) if count.size else 0)
    kernels.rebuilder(words.itemsize, reduced.bits, reduced.word.signed_magnitude)(
        words,
        residuals.grouped,
        residuals.classes,
        residuals.row,
        residuals.table,
        cursor,
        *reduced.exponent,
        scratch("block", kernels.BLOCK, reduced.container),
    )
    if reduced.shift:
        np.left_shift(words, reduced.shift, out=words)
    return np.array_equal(cursor, ends)


def decode(
    frame: bytes,
    words: Words,
    *,
    word: Word,
    row: int,
    where: str,
    combine: Combine = combine,
) -> None:
    """Rebuild one chunk in place; the inverse of `encode`.

    Args:
        frame: the coded chunk.
        words: (n,) words of the base, already of the target's dtype, n > 0; replaced by
            the target's. Unspecified content after an error.
        word: layout of the words.
        row: words in a row.
        where: names the chunk in errors.
        combine: adds the residuals.

    Raises:
        FormatError: if the frame is malformed.
        BaseMismatchError: if it is well-formed but was made with another base.
    """
    kind = frame[0] if frame else None
    if kind == frames.UNCHANGED and len(frame) == 1:
        return
    if kind == frames.RAW:
        if len(frame) - 1 != words.nbytes:
            raise FormatError(
                f"{where}: expected {words.nbytes} raw bytes, found {len(frame) - 1}"
            )
        words[:] = np.frombuffer(frame, words.dtype, words.size, 1)
    elif kind == frames.GROUPED:
        if not combine(_residuals(frame, words.size, word, row, where), words):
            raise BaseMismatchError(
                f"{where}: the base's exponents are not those that this delta was made "
                "with: the base differs from the maker's, or the delta is damaged"
            )
    else:
        raise FormatError(f"{where}: unknown kind of frame {kind} of {len(frame)} bytes")


def encode_nbytes(words: int, word: Word) -> int:
    """Scratch space that `encode` and `decode` take in each thread, in bytes."""
    from releasekit.codec import entropy

    nbytes = word.bits // 8
    kmask = (1 << word.exponent_bits) - 1
    # Residuals, as such and grouped, exponents, reduced words, and what coding them takes.
    return (
        words * (4 * nbytes + 2)
        + entropy.pack_nbytes(words, nbytes)
        + grouping.survey_nbytes(nbytes, kmask)
        + decode_nbytes(words, word)
    )


def decode_nbytes(words: int, word: Word) -> int:
    """Scratch space that `decode` keeps in each thread, in bytes."""
    container = kernels.coded_nbytes(word.bits // 8)
    return container * ((1 << max(words - 1, 0).bit_length()) + kernels.BLOCK)


def same(left: Words, right: Words) -> bool:
    """Whether two arrays of one size have the same bytes."""
    if not left.nbytes % 8:  # in as few comparisons as there can be
        left, right = left.view(np.uint64), right.view(np.uint64)
    return np.array_equal(left, right)


def _residuals(frame: bytes, words: int, word: Word, row: int, where: str) -> Residuals:
    """Undo the coding of a frame of kind 2; valid until the next call in this thread."""
    kmask = (1 << word.exponent_bits) - 1
    parts = frames.parse(
        frame,
        words=words,
        shifts=_shift_limit(word),
        indices=grouping.index_count(kmask),
        where=where,
    )
    reduced = Reduced(word, parts.shift)
    grouped = scratch("grouped", 1 << (words - 1).bit_length(), reduced.container)
    stops = np.cumsum(parts.count)
    for stop, count, coded in zip(
        stops.tolist(), parts.count.tolist(), parts.groups, strict=True
    ):
        _unpack(coded, grouped[stop - count : stop], where)
    return Residuals(
        reduced=reduced,
        grouped=grouped,
        count=parts.count,
        classes=_unpack_classes(parts.rows, -(-words // row), where),
        row=row,
        table=grouping.index_table(parts.last, kmask),
    )


def _unpack_classes(coded: bytes, rows: int, where: str) -> NDArray[np.uint8]:
    classes = np.empty(rows, np.uint32)
    _unpack(coded, classes, f"{where}: row classes")
    if rows and int(classes.max()) > UNCHANGED_ROW:
        raise FormatError(
            f"{where}: row classes: expected at most {UNCHANGED_ROW}, "
            f"found {int(classes.max())}"
        )
    return classes.astype(np.uint8)


class Reduced:
    """A word without the low zero bits of its chunk.

    Attributes:
        word: layout of the whole word.
        shift: number of bits dropped.
        bits: number of bits left.
        kmask: mask of the exponent field, 0 without one.
        exponent: position of the field and the mask, as the kernels want them.
        container: dtype of residuals.
    """

    def __init__(self, word: Word, shift: int) -> None:
        self.word = word
        self.shift = shift
        self.bits = word.bits - shift
        self.kmask = (1 << word.exponent_bits) - 1
        # An integer has no exponent: mask 0 gives all words key 0, whatever the position.
        position = max(word.mantissa_bits - shift, 0)
        self.exponent = (position, self.kmask)
        nbytes = kernels.coded_nbytes(word.bits // 8)
        self.container: DTypeLike = np.dtype(f"u{nbytes}")

    def reduce(self, words: Words, out: Words) -> None:
        """Drop those bits, rounding; `out` may be `words`."""
        kernels.reducer(words.itemsize)(words, self.shift, self.word.bits, out)


def _shift_limit(word: Word) -> int:
    """Shifts below this keep the exponent, or the top bit of an integer, in place."""
    return word.mantissa_bits + 1 if word.exponent_bits else word.bits


def _common_zeros(words: Words, word: Word) -> int:
    """Number of low bits that are 0 in all words, as far as they may be dropped."""
    union = int(np.bitwise_or.reduce(words))
    zeros = (union & -union).bit_length() - 1 if union else word.bits
    return min(zeros, _shift_limit(word) - 1)


def _unpack(coded: bytes, out: NDArray[Any], where: str) -> None:
    """Inverse of `entropy.pack`: fill `out` exactly, or raise FormatError."""
    if not coded:
        out[:] = 0
        return
    try:
        decoder, _ = wrapped.FileDecompressor.new(_PCODEC_HEADER)
        chunk, used = decoder.chunk_decompressor(coded, f"u{out.dtype.itemsize * 8}")
        progress, page = chunk.read_page_into(coded[used:], out.size, out)
    except (RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: pcodec: {error}") from error
    if progress.n_processed != out.size or used + page != len(coded):
        raise FormatError(
            f"{where}: pcodec: expected {out.size} numbers in {len(coded)} bytes, found "
            f"{progress.n_processed} in {used + page}"
        )
