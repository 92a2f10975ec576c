"""The lossless codec `ulp`: the distance from base to target in units in the last place.

A chunk of words is coded in four steps, each undone in reverse by the decoder:

1. Float patterns become ordered integers (`kernels`), so that a difference counts ULPs.
2. The difference, modulo 2**bits and zigzagged, is the residual.
3. Residuals are grouped by the base's exponent and the row's scale (`grouping`). The
   decoder holds the base, so the order within the groups costs no bytes.
4. Each group is coded by pcodec, whose bins follow the group's distribution closely.

A chunk that would not shrink is stored raw; one that equals the base takes one byte. A
tensor without a base is coded against zeros, which leaves its own distribution.

Residuals go to pcodec as 32-bit integers (64-bit for 64-bit words): it codes them in the
same number of bits as narrower ones, and faster.

pcodec's own format is stable: any pcodec 1.x reads what an earlier one wrote.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec, wrapped

from releasekit.codec import frame as frames
from releasekit.codec import grouping, kernels
from releasekit.codec.kernels import UNCHANGED_ROW, Words
from releasekit.errors import BaseMismatchError, FormatError, ReleaseKitError
from releasekit.tensors import Word

#: The first bytes of a pcodec stream: format version 4.1. Fixed by the codec's version.
_PCODEC_HEADER: Final = b"\x04\x01"


def encode(base: Words, target: Words, *, word: Word, row: int, level: int) -> bytes:
    """Code one chunk.

    Args:
        base: (n,) words of the base, already of the target's dtype.
        target: (n,) words to code, n > 0.
        word: layout of the words.
        row: words in a row; the chunk begins at the start of one.
        level: pcodec's compression level.

    Returns:
        One frame, at most one byte longer than the target's bytes.
    """
    if np.array_equal(base, target):
        return bytes([frames.UNCHANGED])
    shape = _Reduced(word, _common_zeros(target, word))
    residual = _scratch("residual", target.size, shape.container)
    key = _scratch("key", target.size, np.uint16)
    kernels.difference(target.itemsize, shape.bits, word.signed_magnitude)(
        shape.reduce(base),
        target >> shape.shift if shape.shift else target,
        *shape.exponent,
        residual,
        key,
    )
    chosen = grouping.choose(residual, key, row, shape.kmask)
    table = grouping.index_table(chosen.last, shape.kmask)
    count = np.zeros(chosen.last.size, np.int64)
    kernels.count_groups(key, chosen.classes, row, table, count)
    stops = np.cumsum(count)
    grouped = _scratch("grouped", target.size, shape.container)
    cursor = (stops - count).astype(np.uint64)
    group = kernels.grouper(target.itemsize)
    group(residual, key, chosen.classes, row, table, cursor, grouped)
    coded = frames.Grouped(
        shift=shape.shift,
        last=chosen.last,
        count=count,
        rows=_pack(chosen.classes.astype(np.uint32), level),
        groups=tuple(
            _pack(grouped[stop - size : stop], level)
            for stop, size in zip(stops.tolist(), count.tolist(), strict=True)
        ),
    ).pack()
    if len(coded) > target.nbytes:
        return bytes([frames.RAW]) + target.tobytes()
    return coded


def decode(
    frame: bytes, base: Words, out: Words, *, word: Word, row: int, where: str
) -> None:
    """Rebuild one chunk into `out`; the inverse of `encode`.

    Args:
        frame: the coded chunk.
        base: (n,) words of the base, already of the target's dtype.
        out: (n,) words to fill, n > 0. Unspecified content after an error.
        word: layout of the words.
        row: words in a row.
        where: names the chunk in errors.

    Raises:
        FormatError: if the frame is malformed.
        BaseMismatchError: if it is well-formed but was made with another base.
    """
    kind = frame[0] if frame else None
    if kind == frames.UNCHANGED and len(frame) == 1:
        out[:] = base
    elif kind == frames.RAW:
        if len(frame) - 1 != out.nbytes:
            raise FormatError(
                f"{where}: expected {out.nbytes} raw bytes, found {len(frame) - 1}"
            )
        out[:] = np.frombuffer(frame, out.dtype, out.size, 1)
    elif kind == frames.GROUPED:
        _decode_grouped(frame, base, out, word, row, where)
    else:
        raise FormatError(f"{where}: unknown kind of frame {kind} of {len(frame)} bytes")


def _decode_grouped(
    frame: bytes, base: Words, out: Words, word: Word, row: int, where: str
) -> None:
    kmask = (1 << word.exponent_bits) - 1
    parts = frames.parse(
        frame,
        words=out.size,
        shifts=_shift_limit(word),
        indices=grouping.index_count(kmask),
        where=where,
    )
    shape = _Reduced(word, parts.shift)
    classes = _unpack_classes(parts.rows, -(-out.size // row), where)
    # A power of 2, which keeps every cursor in bounds whatever the base holds.
    grouped = _scratch("grouped", 1 << (out.size - 1).bit_length(), shape.container)
    stops = np.cumsum(parts.count)
    for stop, count, coded in zip(
        stops.tolist(), parts.count.tolist(), parts.groups, strict=True
    ):
        _unpack(coded, grouped[stop - count : stop], where)
    # One group at least, so that the table has somewhere to point: an empty one.
    ends = (stops if stops.size else np.zeros(1)).astype(np.uint64)
    cursor = (stops - parts.count if stops.size else np.zeros(1)).astype(np.uint64)
    table = grouping.index_table(parts.last, kmask)
    kernels.rebuilder(out.itemsize, shape.bits, word.signed_magnitude)(
        shape.reduce(base),
        grouped,
        classes,
        row,
        table,
        cursor,
        *shape.exponent,
        _scratch("block", kernels.BLOCK, shape.container),
        out,
    )
    if not np.array_equal(cursor, ends):
        raise BaseMismatchError(
            f"{where}: the base's exponents are not those that this delta was made "
            "with: the base differs from the maker's, or the delta is damaged"
        )
    if shape.shift:
        np.left_shift(out, shape.shift, out=out)


def _pack(numbers: NDArray[Any], level: int) -> bytes:
    """Code numbers with pcodec; none at all if they are all 0."""
    if not numbers.any():
        return b""
    config = ChunkConfig(
        compression_level=level,
        mode_spec=ModeSpec.classic(),
        delta_spec=DeltaSpec.no_op(),
        paging_spec=PagingSpec.exact_page_sizes([numbers.size]),
    )
    file = wrapped.FileCompressor()
    if file.write_header() != _PCODEC_HEADER:
        raise ReleaseKitError(
            f"the installed pcodec writes format {list(file.write_header())}, expected "
            f"{list(_PCODEC_HEADER)} of this codec: install pcodec 1.1"
        )
    coder = file.chunk_compressor(numbers, config)
    return bytes(coder.write_meta()) + bytes(coder.write_page(0))


def _unpack_classes(coded: bytes, rows: int, where: str) -> NDArray[np.uint8]:
    classes = np.empty(rows, np.uint32)
    _unpack(coded, classes, f"{where}: row classes")
    if rows and int(classes.max()) > UNCHANGED_ROW:
        raise FormatError(
            f"{where}: row classes: expected at most {UNCHANGED_ROW}, "
            f"found {int(classes.max())}"
        )
    return classes.astype(np.uint8)


class _Reduced:
    """A word without the low zero bits of its chunk.

    Attributes:
        shift: number of bits dropped.
        bits: number of bits left.
        kmask: mask of the exponent field, 0 without one.
        exponent: position of the field and the mask, as the kernels want them.
        container: dtype of residuals.
    """

    def __init__(self, word: Word, shift: int) -> None:
        self.shift = shift
        self.bits = word.bits - shift
        self.kmask = (1 << word.exponent_bits) - 1
        # An integer has no exponent: mask 0 gives all words key 0, whatever the position.
        position = max(word.mantissa_bits - shift, 0)
        self.exponent = (position, self.kmask)
        nbytes = kernels.residual_nbytes(word.bits // 8)
        self.container: DTypeLike = np.dtype(f"u{nbytes}")

    def reduce(self, base: Words) -> Words:
        """The base's words without those bits, rounded."""
        if not self.shift:
            return base
        reduced = _scratch("reduced", base.size, base.dtype)
        reduce = kernels.reducer(base.itemsize)
        reduce(base, self.shift, self.bits + self.shift, reduced)
        return reduced


def _shift_limit(word: Word) -> int:
    """Shifts below this keep the exponent, or the top bit of an integer, in place."""
    return word.mantissa_bits + 1 if word.exponent_bits else word.bits


def _common_zeros(words: Words, word: Word) -> int:
    """Number of low bits that are 0 in all words, as far as they may be dropped."""
    union = int(np.bitwise_or.reduce(words))
    zeros = (union & -union).bit_length() - 1 if union else word.bits
    return min(zeros, _shift_limit(word) - 1)


def _unpack(coded: bytes, out: NDArray[Any], where: str) -> None:
    """Inverse of `_pack`: fill `out` exactly, or raise FormatError."""
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


_buffers = threading.local()


def _scratch(name: str, size: int, dtype: DTypeLike) -> NDArray[Any]:
    """A buffer of this thread, kept between chunks: fresh pages cost more than filling.

    Its content is unspecified, and it is valid until the same name is asked for again.
    """
    wanted = np.dtype(dtype)
    buffer: NDArray[np.uint8] | None = getattr(_buffers, name, None)
    if buffer is None or buffer.size < size * wanted.itemsize:
        buffer = np.empty(size * wanted.itemsize, np.uint8)
        setattr(_buffers, name, buffer)
    return buffer[: size * wanted.itemsize].view(wanted)
