"""Getting bytes onto the disk: at any offset from any thread, and durably.

The kernel holds written bytes back, and `fsync` at the end would wait for all of them. So
a `Flusher` asks for them to be written out while work goes on; the final `sync` then finds
little left to wait for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom, FileIO
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_libc: Final = ctypes.CDLL(None, use_errno=True)

#: Bytes that may be written before the disk is asked to begin.
_FLUSH_NBYTES: Final = 1 << 26


class _File(BufferedRandom):
    """Names itself in an OSError of its close, which writes what is buffered."""

    def close(self) -> None:
        with named(self):
            super().close()


def open_new(path: Path) -> BufferedRandom:
    """Make a file where there is none, and open it; follows no link."""
    return _File(FileIO(path, "x+", opener=_opener))


def reopen(path: Path) -> BufferedRandom:
    """Open an existing file to go on with it; follows no link."""
    return _File(FileIO(path, "r+", opener=_opener))


def write(file: BufferedRandom, data: bytes | memoryview) -> None:
    """Append `data` to a file."""
    with named(file):
        file.write(data)


def pwrite(file: BufferedRandom, offset: int, data: memoryview) -> None:
    """Write all of `data` at `offset`; does not move the file's position."""
    with named(file):
        while data:
            count = os.pwrite(file.fileno(), data, offset)
            data, offset = data[count:], offset + count


def flush(file: BufferedRandom) -> None:
    """Hand what is buffered to the system; it survives the process, not a power cut."""
    with named(file):
        file.flush()


def reserve(file: BufferedRandom, nbytes: int) -> None:
    """Have the disk set blocks aside for the whole file, where it can do so at once.

    A full disk is then known before any work, and several threads can write directly at the
    same time: writes that make a file longer wait for each other. The file gets this size.
    """
    # Not os.posix_fallocate: where the disk cannot, that writes to every block instead.
    allocate = getattr(_libc, "fallocate", None)
    if allocate is None or not nbytes:
        return
    size = ctypes.c_longlong
    if allocate(file.fileno(), 0, size(0), size(nbytes)):
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
            raise OSError(code, os.strerror(code), str(file.name))


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a small file on the disk itself, in place of one that may be there, at once."""
    new = successor(path)
    new.unlink(missing_ok=True)
    with open_new(new) as file:
        os.fchmod(file.fileno(), mode)
        write(file, data)
        sync(file)
    os.replace(new, path)
    sync_folder(path.parent)  # after a power cut, none is there without those before it


def successor(path: Path) -> Path:
    """The name that what `replace` puts at `path` has until it is complete."""
    return path.with_name(f".{path.name}.new")


def sync(file: BufferedRandom) -> None:
    """Flush a file to the disk itself."""
    with named(file):
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush what a folder holds under which names to the disk itself."""
    # Where it is a link, as a user's own folder may be, the folder that it leads to.
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(os.path.realpath(folder), flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def named(file: BufferedRandom) -> Iterator[None]:
    """Name the file in an OSError: calls that take a descriptor know no path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file.name)
        raise


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


class Flusher:
    """Writes to a file from many threads, and has it flushed in the background."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._pending = 0
        self._wake = threading.Condition()
        self._closed = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._flush, name="releasekit-flush")
        self._thread.start()

    def write(self, offset: int, data: NDArray[np.uint8]) -> None:
        """Write all of `data` at `offset`; OSError also if an earlier flush failed."""
        if self._error is not None:
            raise self._error
        pwrite(self._file, offset, data.data)
        with self._wake:
            self._pending += data.size
            if self._pending >= _FLUSH_NBYTES:
                self._wake.notify()

    def _flush(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._pending >= _FLUSH_NBYTES)
                if self._closed:
                    return
                self._pending = 0
            try:
                with named(self._file):
                    os.fdatasync(self._file.fileno())
            except OSError as error:
                self._error = error
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
