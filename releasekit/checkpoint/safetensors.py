"""Safetensors checkpoints: one file, or shards that are read as one.

Headers are parsed strictly when the checkpoint is opened; data is read by range with
`pread`, which needs no seek and so serves any number of threads. Inputs may be symbolic
links (a Hub cache is made of them); outputs never are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit import layout
from releasekit.checkpoint.discover import Found
from releasekit.errors import FormatError, IntegrityError
from releasekit.layout import Layout, Placed
from releasekit.names import shown
from releasekit.tensors import DType, TensorSpec

_LFS_POINTER: Final = b"version https://git-lfs"
_SNIFF: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One open safetensors file: its name in the checkpoint, path, descriptor, layout."""

    name: str
    path: Path
    fd: int
    layout: Layout


class SafetensorsCheckpoint:
    """Tensors of one or more safetensors files; see `Checkpoint` for the protocol."""

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], kept: ExitStack
    ) -> None:
        self.subject = subject
        self._kept = kept
        self.files = [_open(root / name, name, kept) for name in names]
        self._places: dict[str, tuple[WeightFile, Placed]] = {}
        for file in self.files:
            for placed in file.layout.tensors:
                other = self._places.setdefault(placed.spec.name, (file, placed))[0]
                if other is not file:
                    raise FormatError(
                        f"{subject}: tensor {shown(placed.spec.name)} stands in two files, "
                        f"{other.name} and {file.name}"
                    )
        self.specs: Mapping[str, TensorSpec] = {
            name: placed.spec for name, (_, placed) in self._places.items()
        }

    @classmethod
    def open(cls, found: Found) -> Self:
        """Open what `discover.find` found, and hold it against its index."""
        checkpoint = cls.open_files(found.subject, found.root, found.files)
        if found.weight_map is not None:
            try:
                checkpoint._check_index(
                    found.weight_map, str(found.root / str(found.index))
                )
            except FormatError:
                checkpoint.close()
                raise
        return checkpoint

    @classmethod
    def open_files(cls, subject: str, root: Path, names: Sequence[str]) -> Self:
        """Open the named files below `root` as one checkpoint."""
        with ExitStack() as kept:
            checkpoint = cls(subject, root, names, kept)
            checkpoint._kept = kept.pop_all()
        return checkpoint

    def _check_index(self, weight_map: Mapping[str, str], where: str) -> None:
        for tensor, name in weight_map.items():
            if tensor not in self._places:
                raise FormatError(
                    f"{where}: weight_map: tensor {shown(tensor)} is not in {name}"
                )
            if self._places[tensor][0].name != name:
                raise FormatError(
                    f"{where}: weight_map: tensor {shown(tensor)}: expected in {name}, "
                    f"found in {self._places[tensor][0].name}"
                )
        for tensor, (file, _) in self._places.items():
            if tensor not in weight_map:
                raise FormatError(
                    f"{where}: weight_map: tensor {shown(tensor)} of {file.name} "
                    "is not listed"
                )

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        file, placed = self._places[name]
        if start < 0 or start + out.size > placed.end - placed.begin:
            raise ValueError(f"{name}: bytes {start} to {start + out.size} are outside it")
        pread_into(file.fd, file.layout.data_start + placed.begin + start, out, file.path)
        if placed.spec.dtype is DType.BOOL and out.size and int(out.max()) > 1:
            raise FormatError(
                f"{file.path}: tensor {shown(name)}: expected BOOL bytes 0 or 1, "
                f"found {int(out.max())}"
            )

    def file_of(self, name: str) -> WeightFile:
        """The file that holds a tensor."""
        return self._places[name][0]

    def close(self) -> None:
        """Close all files."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def pread_into(fd: int, offset: int, out: NDArray[np.uint8], path: Path) -> None:
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


def _open(path: Path, name: str, kept: ExitStack) -> WeightFile:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    kept.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{path}: is not a regular file")
    size = status.st_size
    head = os.pread(fd, _SNIFF, 0)
    _refuse_non_weights(head, path)
    length = layout.header_length(head[:8], size, str(path))
    header = np.empty(length, np.uint8)
    pread_into(fd, 8, header, path)
    return WeightFile(
        name=name, path=path, fd=fd, layout=layout.parse(header.tobytes(), size, str(path))
    )


def _refuse_non_weights(head: bytes, path: Path) -> None:
    """Name what is often found in a shard's place after a download went wrong."""
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
