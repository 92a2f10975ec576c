"""Objects read by range, in aligned blocks, ahead of who reads them in order.

A request to object storage takes long to begin and is quick then, so blocks are large; and
whoever reads one after another finds the next ones on their way. Blocks are shared by all
threads: one that several want is asked for once. The oldest are let go. Who only looks at a
few bytes here and there, as at samples, gets these alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.errors import FormatError, IntegrityError
from releasekit.storage.store import Store

#: Bytes of a request: what stores recommend for ranges is 8 to 16 MB.
BLOCK: Final = 1 << 23
#: Blocks that are kept, those on their way included.
KEPT: Final = 16
_AHEAD: Final = 2
_FEW: Final = 1 << 16  # bytes that are no reason to ask for a block
_AT_ONCE: Final = 8


class Blocks:
    """Blocks of a store's objects; a context manager, which ends all requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="storage")
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._ends: dict[str, int] = {}  # where the last read of each object ended

    def few(self, name: str, start: int, nbytes: int, size: int) -> bytes | None:
        """Some bytes of a block, if they are few and apart; None if it is to be had whole.

        Raises as `get`.
        """
        with self._lock:
            follows = self._ends.get(name) == start
            self._ends[name] = start + nbytes
            if nbytes > _FEW or follows or (name, start // BLOCK) in self._blocks:
                return None
        return self._read(name, start, start + nbytes, size)

    def get(self, name: str, index: int, size: int) -> bytes:
        """A block of an object that has `size` bytes.

        Raises:
            IntegrityError: if it is shorter than the object was.
            OSError: if it cannot be had.
        """
        with self._lock:
            in_order = (name, index - 1) in self._blocks
            wanted = self._ask(name, index, size)
            last = (size - 1) // BLOCK
            for further in range(index + 1, min(index + _AHEAD * in_order, last) + 1):
                self._ask(name, further, size)
            self._blocks.move_to_end((name, index))
            while len(self._blocks) > KEPT:
                self._blocks.popitem(last=False)[1].cancel()
        try:
            return wanted.result()
        except (OSError, IntegrityError):
            with self._lock:  # so that who asks again is not told of the past
                self._blocks.pop((name, index), None)
            raise

    def _ask(self, name: str, index: int, size: int) -> Future[bytes]:
        key = name, index
        if key not in self._blocks or self._blocks[key].cancelled():
            self._blocks[key] = self._pool.submit(self._fetch, name, index, size)
        return self._blocks[key]

    def _fetch(self, name: str, index: int, size: int) -> bytes:
        return self._read(name, index * BLOCK, min((index + 1) * BLOCK, size), size)

    def _read(self, name: str, start: int, stop: int, size: int) -> bytes:
        data = self._store.read(name, start, stop)
        if len(data) != stop - start:
            raise IntegrityError(
                f"{self._store.url}/{name}: ends at byte {start + len(data)} of {size}: it "
                "was replaced while it was in use"
            )
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An object: what `releasekit.checkpoint.files.Readable` asks for.

    Attributes:
        path: its place beside the files that are in the cache, for messages.
        size: in bytes.
        name: its path in the store.
        blocks: the store's.
    """

    path: Path
    size: int
    name: str
    blocks: Blocks

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes from `offset` on; see `read_into`."""
        data = np.empty(nbytes, np.uint8)
        self.read_into(offset, data)
        return data.tobytes()

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from `offset` on.

        Raises:
            FormatError: if it ends before.
            IntegrityError: if it is shorter than it was.
            OSError: if it cannot be had.
        """
        if offset + out.size > self.size:
            raise FormatError(
                f"{self.path}: ends at byte {self.size}, before what it says it holds"
            )
        data = self.blocks.few(self.name, offset, out.size, self.size) if out.size else b""
        if data is not None:
            out[:] = np.frombuffer(data, np.uint8)
            return
        filled = 0
        while filled < out.size:
            index, begin = divmod(offset + filled, BLOCK)
            block = self.blocks.get(self.name, index, self.size)
            count = min(out.size - filled, len(block) - begin)
            out[filled : filled + count] = np.frombuffer(block, np.uint8, count, begin)
            filled += count
