"""Checkpoints, however they are stored: names, specs, and reading a range of a tensor.

`Checkpoint` is all that the rest of releasekit knows of a base or a target. A reader
never loads a tensor whole, and may be read from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.layout import Layout
from releasekit.tensors import TensorSpec

if TYPE_CHECKING:
    from releasekit.checkpoint.discover import Found
    from releasekit.checkpoint.files import Coming


class Checkpoint(Protocol):
    """A set of named tensors that can be read by range."""

    @property
    def subject(self) -> str:
        """What messages call it: the path it was opened with."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """All tensors by name, in the order in which reading them is fastest."""

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on.

        Raises:
            FormatError: if the data is not what its dtype allows.
            IntegrityError: if the file has become shorter than its header says.
        """

    def close(self) -> None:
        """Give back the files."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: Any) -> None: ...


class LaidOutFile(Protocol):
    """A safetensors file that is, or is to be."""

    @property
    def name(self) -> str:
        """Its path in the checkpoint."""

    @property
    def layout(self) -> Layout:
        """Its header, and the places of its tensors."""


class LaidOut(Checkpoint, Protocol):
    """A checkpoint whose safetensors files are known, though they need not exist."""

    @property
    def files(self) -> Sequence[LaidOutFile]:
        """The files, which together hold each tensor once."""


class StoredCheckpoint(Checkpoint, Protocol):
    """A checkpoint in files."""

    @property
    def file_sizes(self) -> Mapping[str, int]:
        """Size in bytes of each weight file by its name, sorted."""

    def home(self, name: str) -> str:
        """The file that holds a tensor, or the files: for people."""


def open_checkpoint(path: str | Path, coming: Coming | None = None) -> StoredCheckpoint:
    """Open the checkpoint at `path`: a file, a folder or an index.

    Args:
        path: where it is.
        coming: files of the folder that are on their way; None if there are none.

    Raises:
        FormatError: if it is malformed, or is no checkpoint that can be read.
        UsageError: if `path` does not name one checkpoint.
    """
    from releasekit.checkpoint.discover import find

    return open_found(find(Path(path), coming=coming))


def open_found(found: Found) -> StoredCheckpoint:
    """Open what `discover.find` found; FormatError if it is malformed."""
    from releasekit.checkpoint.discover import Kind

    if found.kind is Kind.SAFETENSORS:
        from releasekit.checkpoint.safetensors import SafetensorsCheckpoint

        return SafetensorsCheckpoint.open(found)
    if found.kind is Kind.PYTORCH:
        from releasekit.checkpoint.pytorch import PyTorchCheckpoint

        return PyTorchCheckpoint.open(found)
    from releasekit.checkpoint.meta import MetaCheckpoint

    return MetaCheckpoint.open(found.subject, found.root, found.files)
