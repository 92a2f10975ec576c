"""A frame: the bytes of one coded chunk, and nothing but its bytes.

    u8   kind         0 raw, 1 unchanged, 2 grouped
    ---- kind 0: the chunk's words, verbatim
    ---- kind 1: nothing; the chunk equals the base
    ---- kind 2:
    u8   shift        low zero bits that all words of the chunk share
    u16  groups       number of groups, G
    u32  rows_nbytes  size of the coded row classes; 0 if all classes are 0
    G x {u16 last, u32 count, u32 nbytes}
    rows_nbytes bytes, then the G groups' bytes, in order

All integers are little-endian. A word's index is `2 * exponent + row class`; group g
holds the indices above the previous group's `last` up to and including its own. `count`
is its number of words, `nbytes` its coded size, 0 if all its residuals are 0.

Parsing checks all that can be checked without the base: sizes add up, the order of the
indices, counts no larger than the chunk. What depends on the base is checked while it
is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.errors import FormatError

RAW: Final = 0
UNCHANGED: Final = 1
GROUPED: Final = 2

_HEAD: Final = struct.Struct("<BBHI")
_GROUP: Final = np.dtype([("last", "<u2"), ("count", "<u4"), ("nbytes", "<u4")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """The parts of a frame of kind 2.

    Attributes:
        shift: low zero bits of every word.
        last: (G,) highest index in each group, strictly increasing.
        count: (G,) words in each group.
        rows: coded row classes, empty if there are none.
        groups: the G groups' coded bytes.
    """

    shift: int
    last: NDArray[np.int64]
    count: NDArray[np.int64]
    rows: bytes
    groups: tuple[bytes, ...]

    def pack(self) -> bytes:
        """The frame's bytes; inverse of `parse`."""
        table = np.empty(len(self.groups), _GROUP)
        table["last"] = self.last
        table["count"] = self.count
        table["nbytes"] = [len(coded) for coded in self.groups]
        head = _HEAD.pack(GROUPED, self.shift, len(self.groups), len(self.rows))
        return b"".join((head, table.tobytes(), self.rows, *self.groups))


def parse(frame: bytes, *, words: int, shifts: int, indices: int, where: str) -> Grouped:
    """Read a frame of kind 2.

    Args:
        frame: all of its bytes.
        words: number of words in the chunk.
        shifts: shifts must be below this.
        indices: indices must be below this.
        where: names the frame in errors.

    Raises:
        FormatError: if anything does not add up.
    """
    if len(frame) < _HEAD.size:
        raise FormatError(f"{where}: frame ends within its head")
    _, shift, groups, rows_nbytes = _HEAD.unpack_from(frame)
    if shift >= shifts:
        raise FormatError(f"{where}: shift: expected less than {shifts}, found {shift}")
    at = _HEAD.size + groups * _GROUP.itemsize
    if len(frame) < at:
        raise FormatError(f"{where}: frame ends within its table of {groups} groups")
    table = np.frombuffer(frame, _GROUP, groups, _HEAD.size)
    last = table["last"].astype(np.int64)
    count = table["count"].astype(np.int64)
    nbytes = table["nbytes"].astype(np.int64)
    if groups and (np.any(np.diff(last) <= 0) or int(last[-1]) >= indices):
        raise FormatError(
            f"{where}: group indices: expected an increasing order below {indices}"
        )
    if int(count.sum()) > words:
        raise FormatError(
            f"{where}: group counts: expected at most {words} words in all, "
            f"found {int(count.sum())}"
        )
    expected = at + rows_nbytes + int(nbytes.sum())
    if len(frame) != expected:
        raise FormatError(f"{where}: expected {expected} bytes, found {len(frame)}")
    stops = at + rows_nbytes + np.cumsum(nbytes)
    return Grouped(
        shift=shift,
        last=last,
        count=count,
        rows=frame[at : at + rows_nbytes],
        groups=tuple(
            frame[stop - size : stop]
            for stop, size in zip(stops.tolist(), nbytes.tolist(), strict=True)
        ),
    )
