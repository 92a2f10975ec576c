"""Safetensors checkpoints: one file, or shards that are read as one.

Headers are parsed strictly when the checkpoint is opened; data is read by range.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from releasekit import layout
from releasekit.checkpoint.discover import Found
from releasekit.checkpoint.files import OpenFile, check_values, open_weights, pread_into
from releasekit.checkpoint.indexed import check_index, homes
from releasekit.errors import FormatError
from releasekit.layout import Layout
from releasekit.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One open safetensors file: its name in the checkpoint, and its layout."""

    name: str
    file: OpenFile
    layout: Layout

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path


class SafetensorsCheckpoint:
    """Tensors of one or more safetensors files; see `Checkpoint` for the protocol."""

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], kept: ExitStack
    ) -> None:
        self.subject = subject
        self._kept = kept
        self.files = [_open(root / name, name, kept) for name in names]
        self.file_sizes: Mapping[str, int] = {
            file.name: file.file.size for file in sorted(self.files, key=lambda f: f.name)
        }
        self._places = {
            placed.spec.name: (file, placed)
            for file in self.files
            for placed in file.layout.tensors
        }
        self.specs: Mapping[str, TensorSpec] = {
            name: placed.spec for name, (_, placed) in self._places.items()
        }
        self._homes = homes(
            subject,
            (
                (f.name, (placed.spec.name for placed in f.layout.tensors))
                for f in self.files
            ),
        )

    @classmethod
    def open(cls, found: Found) -> Self:
        """Open what `discover.find` found, and hold it against its index."""
        checkpoint = cls.open_files(found.subject, found.root, found.files)
        try:
            check_index(found, checkpoint._homes)
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

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        file, placed = self._places[name]
        if start < 0 or start + out.size > placed.end - placed.begin:
            raise ValueError(f"{name}: bytes {start} to {start + out.size} are outside it")
        begin = file.layout.data_start + placed.begin + start
        pread_into(file.file.fd, begin, out, file.path)
        check_values(out, placed.spec, file.path)

    def home(self, name: str) -> str:
        """The file that holds a tensor, for people."""
        return self._homes[name]

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


def _open(path: Path, name: str, kept: ExitStack) -> WeightFile:
    file = open_weights(path, kept)
    head = os.pread(file.fd, 8, 0)
    length = layout.header_length(head, file.size, str(path))
    parsed = layout.parse(file.read(8, length), file.size, str(path))
    return WeightFile(name=name, file=file, layout=parsed)
