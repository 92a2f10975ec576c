"""Writing a large file past the page cache, at any offset, from many threads.

A rebuilt model is larger than most machines' memory, so keeping its pages is no use, and
writing through them costs more time than decoding: the kernel copies, looks up and flushes
every page. So whole blocks go to the disk directly, from the memory in which they were
made, if that lies in a page as the file's bytes do. Bytes at the edges of a piece wait
until their block is complete, since direct and cached writes of one block must not mix.

Where a file system knows no direct writes (tmpfs, some network and FUSE mounts), the same
bytes are written through the cache, and flushed in the background.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from io import BufferedRandom
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.writing import Flusher, named, pwrite

_BLOCK: Final = mmap.PAGESIZE
_BOUNCE: Final = 1 << 20
_ALIGNMENT: Final = 8  # bytes in the widest word


def as_in_file(spare: NDArray[np.uint8], offset: int, nbytes: int) -> NDArray[np.uint8]:
    """Memory of `nbytes` that lies in a page as byte `offset` of a file does.

    From there it can be written directly.

    Args:
        spare: memory that begins at a page, and is a page larger.
        offset: where in the file the bytes will be.
        nbytes: how many.
    """
    # Words stay aligned: kernels expect it.
    phase = offset % _BLOCK // _ALIGNMENT * _ALIGNMENT
    return spare[phase : phase + nbytes]


class Writer(Protocol):
    """Writes to a file from many threads."""

    def write(self, offset: int, data: NDArray[np.uint8]) -> None:
        """Write all of `data` at `offset`. Each byte of the file is written once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: Any) -> None: ...


def writer(file: BufferedRandom, start: int = 0) -> Writer:
    """The best way to write to `file` from byte `start` on; all before is there."""
    if hasattr(os, "O_DIRECT"):
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        output = BlockWriter(file, flags, start)  # reads, which the cache does in any case
        try:
            fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError:
            return Flusher(file)  # this file system cannot
        return output
    return Flusher(file)


class _Edge:
    """A block that is not yet complete."""

    def __init__(self) -> None:
        self.data = mmap.mmap(-1, _BLOCK)  # direct writes need aligned memory
        self.filled = 0


class BlockWriter:
    """Writes blocks directly; at the end the file may be longer, by part of a block."""

    def __init__(self, file: BufferedRandom, flags: int, start: int) -> None:
        self._file = file
        self._flags = flags
        self._edges: dict[int, _Edge] = {}
        self._lock = threading.Lock()
        self._bounces = threading.local()
        if start % _BLOCK:
            edge = self._edges[start // _BLOCK] = _Edge()
            with named(file):
                os.preadv(file.fileno(), [edge.data], start // _BLOCK * _BLOCK)
            edge.filled = start % _BLOCK

    def write(self, offset: int, data: NDArray[np.uint8]) -> None:
        """Write all of `data` at `offset`. Each byte of the file is written once."""
        head = min(-offset % _BLOCK, data.size)
        body = (data.size - head) // _BLOCK * _BLOCK
        self._fill(offset, data[:head])
        whole = data[head : head + body]
        if whole.__array_interface__["data"][0] % _BLOCK == 0:
            self._write(offset + head, whole.data)
        else:
            for at in range(0, body, _BOUNCE):
                piece = self._aligned(whole[at : at + _BOUNCE])
                self._write(offset + head + at, piece)
        self._fill(offset + head + body, data[head + body :])

    def _aligned(self, data: NDArray[np.uint8]) -> memoryview:
        """A copy in aligned memory of this thread."""
        if not hasattr(self._bounces, "memory"):
            self._bounces.memory = np.frombuffer(mmap.mmap(-1, _BOUNCE), np.uint8)
        copy: NDArray[np.uint8] = self._bounces.memory[: data.size]
        copy[:] = data
        return copy.data

    def _fill(self, offset: int, data: NDArray[np.uint8]) -> None:
        """Add to an incomplete block, and write it once it is complete."""
        if not data.size:
            return
        number, at = divmod(offset, _BLOCK)
        with self._lock:
            if number not in self._edges:
                self._edges[number] = _Edge()
            edge = self._edges[number]
            edge.data[at : at + data.size] = data.tobytes()
            edge.filled += data.size
            if edge.filled < _BLOCK:
                return
            del self._edges[number]
        self._write(number * _BLOCK, memoryview(edge.data))

    def _write(self, offset: int, data: memoryview) -> None:
        try:
            pwrite(self._file, offset, data)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # It wants other alignment than pages; the cache takes any.
            fcntl.fcntl(self._file, fcntl.F_SETFL, self._flags)
            pwrite(self._file, offset, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *exc: Any) -> None:
        try:
            if kind is None:
                for number, edge in self._edges.items():
                    self._write(number * _BLOCK, memoryview(edge.data))
        finally:
            fcntl.fcntl(self._file, fcntl.F_SETFL, self._flags)
