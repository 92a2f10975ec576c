"""How a tensor is cut into chunks, and how its frames lie in a payload.

A chunk is a whole number of rows where rows are shorter than a chunk, so that row classes
line up; chunks are coded independently of each other, which is what lets work stream,
run in parallel and resume. A payload is the frames, one a chunk, in order, then the table
of their sizes (u32 each, little-endian): at the end, so that a payload can be written and
hashed as it is made.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from releasekit.errors import FormatError
from releasekit.tensors import TensorSpec, Word

#: Rows shorter than this are joined with their neighbours: a class must pay for itself.
_MIN_ROW: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """The cut of one tensor.

    Attributes:
        word: layout of its words.
        words: number of words in the tensor.
        row: words in a row, at most `chunk`; at least 1.
        chunk: words in a chunk, the last of which may be shorter.
    """

    word: Word
    words: int
    row: int
    chunk: int

    @classmethod
    def of(cls, spec: TensorSpec, chunk: int) -> Self:
        """Cut `spec` into chunks of about `chunk` words.

        A row is the smallest run of trailing dimensions of at least 64 words, or the
        whole tensor if that is not a whole number of words (types of 4 and 6 bits).
        """
        word = spec.dtype.word
        words = spec.nbytes * 8 // word.bits
        row_bits = spec.dtype.bits
        for size in reversed(spec.shape[1:]):
            row_bits *= size
            if row_bits >= _MIN_ROW * word.bits and row_bits % word.bits == 0:
                break
        else:
            row_bits = words * word.bits
        row = max(row_bits // word.bits, 1)
        if row > chunk:
            return cls(word=word, words=words, row=chunk, chunk=chunk)
        return cls(word=word, words=words, row=row, chunk=chunk // row * row)

    @property
    def count(self) -> int:
        """Number of chunks; 0 for an empty tensor."""
        return -(-self.words // self.chunk)

    @property
    def word_nbytes(self) -> int:
        """Bytes in a word."""
        return self.word.bits // 8

    @property
    def chunk_nbytes(self) -> int:
        """Size of the largest chunk, in bytes."""
        return min(self.chunk, self.words) * self.word_nbytes

    def span(self, index: int) -> tuple[int, int]:
        """First byte of chunk `index` in the tensor's data, and its size in bytes."""
        start = index * self.chunk
        return (
            start * self.word_nbytes,
            min(self.chunk, self.words - start) * self.word_nbytes,
        )


def pack_table(sizes: Sequence[int]) -> bytes:
    """The table at the end of a payload."""
    return struct.pack(f"<{len(sizes)}I", *sizes)


def table_nbytes(chunks: int) -> int:
    """Size of the table for this many chunks."""
    return 4 * chunks


def parse_table(table: bytes, payload_nbytes: int, where: str) -> list[int]:
    """Where each frame begins in the payload, and, last, where the table does.

    Raises:
        FormatError: if frames and table do not fill the payload exactly.
    """
    stops = np.cumsum(np.frombuffer(table, "<u4").astype(np.int64))
    end = int(stops[-1]) if stops.size else 0
    if end + len(table) != payload_nbytes:
        raise FormatError(
            f"{where}: expected frames to end at byte {payload_nbytes - len(table)}, "
            f"found {end}"
        )
    return [0, *stops.tolist()]
