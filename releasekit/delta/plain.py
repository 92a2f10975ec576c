"""Writes plain differences, which the codec `add-v1` publishes beside its payloads.

There is a file for each of the target's, with the same tensors in the same order. Pieces
are made and written in the threads that code chunks, and hashed in order. They are not in
the journal: after an interruption they are made again, which takes far less than coding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.blocks import writer
from releasekit.checkpoint import LaidOutFile
from releasekit.codec.addition import minus, plain_dtype, plus
from releasekit.digest import sha256
from releasekit.errors import UsageError
from releasekit.layout import Layout, build
from releasekit.manifest import FileEntry
from releasekit.names import folded, shown
from releasekit.output import OutputFolder
from releasekit.sharding import METADATA
from releasekit.tensors import DType, TensorSpec
from releasekit.writing import reserve, sync

_Bytes = NDArray[np.uint8]

#: Names of a release's own files, folded.
_OWN: Final = re.compile(r"delta-\d{5}-of-\d{5}\.safetensors|target(/.*)?")

#: Chunks' worth of memory that a plain difference takes: what the base has, apart from the
#: prediction, and the difference, in a dtype up to twice as wide.
CHUNKS: Final = 3


def plain_layout(file: LaidOutFile) -> Layout:
    """The layout of the differences of a file's tensors, in their order."""
    specs = [placed.spec for placed in file.layout.tensors]
    return build([replace(s, dtype=plain_dtype(s.dtype)) for s in specs], METADATA)


def refuse_names(files: Iterable[LaidOutFile], subject: str) -> None:
    """Refuse weight files whose names a release needs for its own files; UsageError."""
    for file in files:
        name = folded(file.name)
        if _OWN.fullmatch(name):
            raise UsageError(
                f"{subject}: weight file {shown(file.name)}: a release has a file of that "
                "name itself, and plain differences bear those of the weights: rename it"
            )


class PlainFile:
    """A file of plain differences in the making; a context manager."""

    def __init__(self, folder: OutputFolder, file: LaidOutFile) -> None:
        """Begin the file that goes with one of the target's."""
        self._folder = folder
        self._name = file.name
        self._unfinished = folder.unfinished(file.name)
        self._layout = plain_layout(file)
        self._starts = {
            placed.spec.name: self._layout.data_start + placed.begin
            for placed in self._layout.tensors
        }
        self._hasher = sha256(self._layout.prefix)
        self._file = folder.create(self._unfinished)
        with ExitStack() as stack:
            stack.enter_context(self._file)
            reserve(self._file, self._layout.file_size)
            self._output = writer(self._file)
            self._writing = ExitStack()
            self._writing.enter_context(self._output)
            stack.pop_all()
        self._output.write(0, np.frombuffer(self._layout.prefix, np.uint8))

    def predict(
        self,
        spec: TensorSpec,
        start: int,
        target: _Bytes,
        base: _Bytes,
        out: _Bytes,
        raw: tuple[_Bytes, DType] | None = None,
    ) -> _Bytes:
        """Write a piece of a difference, and predict the target with it.

        Args:
            spec: the target's tensor.
            start: the piece's first byte in it.
            target: the piece.
            base: what the base predicts; becomes the sum with the difference.
            out: memory for the difference.
            raw: the base itself and its dtype, if that is another than the target's: the
                tools that add round it to float16 at once. May lack the last rows.

        Returns:
            The difference, for `consume`.
        """
        plain, bits = plain_dtype(spec.dtype).bits, spec.dtype.bits
        difference = out[: target.size * plain // bits]
        if raw is None:
            minus(target, base, spec.dtype, difference)
        else:
            minus(target, raw[0], spec.dtype, difference, raw[1])
        self._output.write(self._starts[spec.name] + start * plain // bits, difference)
        plus(base, difference, spec.dtype)
        return difference

    def consume(self, difference: _Bytes) -> None:
        """Hash the next piece."""
        self._hasher.update(difference.data)

    def finish(self) -> FileEntry:
        """Complete the file."""
        self._writing.close()
        self._file.truncate(self._layout.file_size)
        sync(self._file)
        self._folder.finish(self._unfinished, self._name)
        return FileEntry(
            path=self._name,
            size=self._layout.file_size,
            sha256=self._hasher.hexdigest(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        with self._file:
            self._writing.close()
