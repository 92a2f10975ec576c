"""Entropy coding of groups of numbers, into bytes that pcodec reads.

pcodec's format is stable, and its decoder is as fast as reading memory allows; its encoder
takes several times as long, since it serves any numbers: it sorts them to find its bins and
then searches the bin of each. Residuals are mostly small, so that counting replaces sorting
and a table replaces the search. This encoder writes the same format, to the bit; how many
bits it takes is its own matter (`bins`, `tans`), and any pcodec 1.x reads them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec import bins, tans

#: Histogram, items, bins of some dozens of groups, states.
_TABLES_NBYTES: Final = 3 << 20


def pack_nbytes(size: int, itemsize: int) -> int:
    """Scratch space that coding this many numbers takes in each thread, in bytes, about."""
    # Buckets; bits as they are coded, and in their place; tables.
    return size * 2 + 2 * size * (max(itemsize, 4) + 2) + _TABLES_NBYTES


def pack(numbers: NDArray[Any]) -> bytes:
    """Code numbers; see `pack_groups`."""
    return pack_groups(numbers, np.array([numbers.size]))[0]


def pack_groups(numbers: NDArray[Any], count: NDArray[np.int64]) -> list[bytes]:
    """Code each group of numbers.

    Args:
        numbers: (n,) unsigned integers, group after group; at most 2**24 in each.
        count: (G,) numbers in each group, n in all.

    Returns:
        For each group, pcodec's metadata of a chunk and its one page, in the wrapped format
        4.1, as of uint64 if they are, else of uint32; nothing at all if all numbers are 0,
        or none are there.
    """
    return tans.code(numbers, count, bins.choose(numbers, count))
