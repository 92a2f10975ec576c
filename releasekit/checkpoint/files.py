"""Weight files, open for reading: by range, from any thread, and only if they are such.

Data is read with `pread`, which needs no seek. A mapped file would be as quick, but one
that is cut short while it is read would then kill the process instead of raising an error.
Inputs may be symbolic links (a Hub cache is made of them); outputs never are.

A file may also be on its way, or stay elsewhere: then whoever has it answers for it
(`Coming`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from releasekit.errors import FormatError, IntegrityError
from releasekit.names import shown
from releasekit.progress import Stage
from releasekit.tensors import DType, TensorSpec

_SNIFF: Final = 256
_LFS_POINTER: Final = b"version https://git-lfs"
#: How files begin that are no weights of ours, and what to do about each.
_OTHERS: Final = (
    (b"GGUF", "a GGUF file, whose weights are quantised: get the original weights"),
    (b"ggjt", "a GGML file, whose weights are quantised: get the original weights"),
    (b"tjgg", "a GGML file, whose weights are quantised: get the original weights"),
    (b"lmgg", "a GGML file, whose weights are quantised: get the original weights"),
    (b"\x89HDF", "an HDF5 file (Keras): get the weights as safetensors or for PyTorch"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)


class Readable(Protocol):
    """A file that can be read by range, from any thread."""

    @property
    def path(self) -> Path:
        """Where it is, or will be; for messages."""

    @property
    def size(self) -> int:
        """Its size in bytes."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes from `offset` on; raises as `read_into`."""

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from `offset` on; IntegrityError if the file ends before."""


class Coming(Protocol):
    """Files of a folder that have not all arrived."""

    @property
    def names(self) -> frozenset[str]:
        """Their paths in the folder."""

    def open(self, path: Path) -> Readable | None:
        """One of them by its place; None if it is none of them."""


class Incoming(Coming, Protocol):
    """The same, with what it takes to bring them here, if they are brought at all."""

    @property
    def place(self) -> Path:
        """The folder that they come to."""

    @property
    def nbytes(self) -> int:
        """Bytes that have yet to come."""

    def nbytes_of(self, names: Iterable[str]) -> int:
        """The size of some of them together, as far as they come."""

    def lacking(self, names: Iterable[str]) -> list[int]:
        """Bytes that have yet to come of some of them, by content."""

    def expect(self, name: str, nbytes: int, sha256: str) -> None:
        """Say what a file must be, by the publisher's word; IntegrityError if it cannot."""

    def start(self, names: Iterable[str], stage: Stage, check: Callable[[], None]) -> None:
        """Begin to bring files, in this order; all reads wait for them from now on."""

    def bring(self, names: Iterable[str]) -> None:
        """Bring files now; raises what goes wrong."""

    def check(self) -> None:
        """Raise what went wrong with any file so far."""

    def finish(self) -> None:
        """Wait until all that was begun is here; raises what went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens the files of a checkpoint.

    Attributes:
        kept: closes them.
        coming: those that are on their way; None if there are none.
    """

    kept: ExitStack
    coming: Coming | None = None

    def open(self, path: Path) -> Readable:
        """Open a file that should hold weights; raises as `open_weights`."""
        file = self.coming.open(path) if self.coming is not None else None
        return file if file is not None else open_weights(path, self.kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A regular file, open for reading.

    Attributes:
        path: where it is, for messages.
        fd: its descriptor.
        size: its size in bytes when it was opened.
    """

    path: Path
    fd: int
    size: int

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes from `offset` on; IntegrityError if the file ends before."""
        data = np.empty(nbytes, np.uint8)
        self.read_into(offset, data)
        return data.tobytes()

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from `offset` on; IntegrityError if the file ends before."""
        _pread_into(self.fd, offset, out, self.path)


def open_weights(path: Path, kept: ExitStack) -> OpenFile:
    """Open a file that should hold weights; `kept` closes it.

    Raises:
        FormatError: if it is recognised as something else.
    """
    # Not waiting, as for the other end of a FIFO: such a thing is refused below.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kept.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: is not a regular file")
    refuse_non_weights(os.pread(fd, _SNIFF, 0), path)
    return OpenFile(path=path, fd=fd, size=status.st_size)


def _pread_into(fd: int, offset: int, out: NDArray[np.uint8], path: Path) -> None:
    """Fill `out` from `offset` of a file; IntegrityError if the file ends before."""
    view = out.data
    while view:
        try:
            count = os.preadv(fd, [view], offset)
        except OSError as error:
            error.filename = str(path)  # preadv knows only the descriptor
            raise
        if not count:
            raise IntegrityError(
                f"{path}: ends at byte {offset}, {len(view)} bytes before its tensor does: "
                "the file was cut short while it was in use"
            )
        offset += count
        view = view[count:]


def check_values(out: NDArray[np.uint8], spec: TensorSpec, path: Path) -> None:
    """Refuse bytes of a tensor that its dtype does not allow; FormatError."""
    if spec.dtype is DType.BOOL and out.size and int(out.max()) > 1:
        raise FormatError(
            f"{path}: tensor {shown(spec.name)}: expected BOOL bytes 0 or 1, "
            f"found {int(out.max())}"
        )


def refuse_non_weights(head: bytes, path: Path) -> None:
    """Name what is often found in a weight file's place after a download went wrong."""
    if head.startswith(_LFS_POINTER):
        raise FormatError(
            f"{path}: is a Git LFS pointer, not the weights: run `git lfs pull`, or "
            "download the file itself"
        )
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise FormatError(
            f"{path}: is an HTML page, not weights: the download answered with an error; "
            "download the file again"
        )
    for magic, words in _OTHERS:
        if head.startswith(magic):
            raise FormatError(f"{path}: is {words}")
