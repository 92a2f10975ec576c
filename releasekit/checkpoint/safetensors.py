"""Safetensors checkpoints: one file, or shards that are read as one.

Headers are parsed strictly when the checkpoint is opened; data is read by range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from releasekit import layout
from releasekit.checkpoint.files import Opener, Readable, check_values
from releasekit.checkpoint.indexed import Files, homes_of
from releasekit.layout import Layout
from releasekit.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One open safetensors file: its name in the checkpoint, and its layout."""

    name: str
    file: Readable
    layout: Layout

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.file.path


class SafetensorsCheckpoint(Files):
    """Tensors of one or more safetensors files; see `Checkpoint` for the protocol."""

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], opener: Opener
    ) -> None:
        self.subject = subject
        self._kept = opener.kept
        self.files = [_open(root / name, name, opener) for name in names]
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
        self.homes = homes_of(
            subject,
            (
                (f.name, (placed.spec.name for placed in f.layout.tensors))
                for f in self.files
            ),
        )

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        file, placed = self._places[name]
        if start < 0 or start + out.size > placed.end - placed.begin:
            raise ValueError(f"{name}: bytes {start} to {start + out.size} are outside it")
        begin = file.layout.data_start + placed.begin + start
        file.file.read_into(begin, out)
        check_values(out, placed.spec, file.path)

    def file_of(self, name: str) -> WeightFile:
        """The file that holds a tensor."""
        return self._places[name][0]


def _open(path: Path, name: str, opener: Opener) -> WeightFile:
    file = opener.open(path)
    head = file.read(0, min(8, file.size))
    length = layout.header_length(head, file.size, str(path))
    parsed = layout.parse(file.read(8, length), file.size, str(path))
    return WeightFile(name=name, file=file, layout=parsed)
