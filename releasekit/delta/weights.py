"""Write the target's weight files.

A file's SHA-256 is taken while it is written, and decides. Tensors have digests too, but
taking them as well would cost a tenth of the time, so they are taken only to tell which
tensor is wrong, and on resuming.

The manifest is the journal. What an interrupted run left is hashed, and believed as far as
its digests are right: whole files, and in an unfinished one the tensors up to the first
that is missing or wrong. Hashing that part is needed in any case, since the file's digest
is a chain from its first byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.blocks import Writer, as_in_file, writer
from releasekit.delta.rebuild import Rebuild
from releasekit.digest import Hash, blake3, sha256, sha256_hex
from releasekit.digest import pieces as read_pieces
from releasekit.errors import IntegrityError, ReleaseKitError
from releasekit.hashing import hash_files
from releasekit.manifest import Manifest, WeightEntry
from releasekit.output import OutputFolder
from releasekit.pipeline import Buffers, Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.writing import reopen, reserve, sync

#: Nothing of a file is there.
_START: Final[tuple[Hash, int, int]] = (sha256(), 0, 0)


def finished_files(
    folder: OutputFolder,
    manifest: Manifest,
    workers: Workers,
    progress: ProgressCallback | None,
) -> tuple[str, ...]:
    """Weight files that an earlier run completed, by path."""
    if not folder.reused:
        return ()
    entries = {entry.file.path: entry.file for entry in manifest.weights}
    whole = [
        name
        for name, entry in entries.items()
        if (path := folder.path(name)).is_file()
        and not path.is_symlink()
        and path.stat().st_size == entry.size
    ]
    if not whole:
        return ()
    stage = Stage(progress, "check kept", sum(entries[name].size for name in whole))
    hashed = hash_files(folder.path(""), whole, workers, stage)
    return tuple(name for name, digest in hashed if digest == entries[name].sha256)


class _FileSink:
    """Chunks of a weight file: written as soon as they are made, hashed in order."""

    def __init__(
        self,
        entry: WeightEntry,
        output: Writer,
        hasher: Hash,
        stage: Stage,
        origin: int = 0,
    ) -> None:
        """Write to `output`, whose first byte is byte `origin` of the weight file."""
        self._starts = {
            placed.spec.name: entry.layout.data_start + placed.begin - origin
            for placed in entry.layout.tensors
        }
        self._output = output
        self._hasher = hasher
        self._stage = stage

    def room(
        self, name: str, start: int, nbytes: int, spare: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Memory that can be written to the file directly."""
        return as_in_file(spare, self._starts[name] + start, nbytes)

    def place(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Write a chunk."""
        self._output.write(self._starts[name] + start, data)

    def consume(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Hash a chunk."""
        self._hasher.update(data.data)
        self._stage.advance(data.size)


def write_weights(
    folder: OutputFolder,
    entry: WeightEntry,
    rebuild: Rebuild,
    workers: Workers,
    buffers: Buffers,
    stage: Stage,
) -> None:
    """Write one weight file, going on with what an earlier run left of it.

    Raises as `Rebuild.tensors` does, and IntegrityError if the file's digest is wrong.
    """
    layout = entry.layout
    name = folder.unfinished(entry.file.path)
    left = folder.reopen(name)
    with left or folder.create(name) as file:
        hasher, complete, end = _left(file, entry, rebuild, stage) if left else _START
        reserve(file, entry.file.size)
        with writer(file, end) as output:
            if not end:
                hasher = sha256(layout.prefix)
                output.write(0, np.frombuffer(layout.prefix, np.uint8))
            stage.advance(layout.data_start)
            names = [placed.spec.name for placed in layout.tensors[complete:]]
            sink = _FileSink(entry, output, hasher, stage)
            # The file's digest covers all of its tensors.
            for _ in rebuild.tensors(names, workers, buffers, sink, check=False):
                pass
        file.truncate(entry.file.size)
        if hasher.hexdigest() != entry.file.sha256:
            with reopen(Path(str(file.name))) as again:
                raise _diagnosis(again, entry, rebuild, hasher.hexdigest())
        sync(file)
    folder.finish(name, entry.file.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some of a weight file that is too large for one part of the work.

    Attributes:
        entry: the file.
        first: index of the first tensor.
        last: index of the last.
        number: which of its pieces, from 0 on.
    """

    entry: WeightEntry
    first: int
    last: int
    number: int

    @property
    def start(self) -> int:
        """Its first byte in the file; the first piece has the header."""
        layout = self.entry.layout
        if not self.number:
            return 0
        return layout.data_start + layout.tensors[self.first].begin

    @property
    def nbytes(self) -> int:
        """Its size."""
        layout = self.entry.layout
        if not layout.tensors:
            return layout.file_size
        last = layout.tensors[self.last]
        return layout.data_start + last.begin + last.spec.nbytes - self.start

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return self.nbytes == self.entry.file.size

    @property
    def place(self) -> str:
        """Its file's name until the weight file is put together."""
        path = sha256_hex(self.entry.file.path.encode())[:32]
        return f"{path}-{self.first}-{self.last}.piece"


def cut(entry: WeightEntry, nbytes: int) -> list[Piece]:
    """Cut a weight file between tensors, into pieces of about so many bytes or more."""
    pieces: list[Piece] = []
    first, size = 0, 0
    tensors = entry.layout.tensors
    if not tensors:
        return [Piece(entry=entry, first=0, last=-1, number=0)]
    for index, placed in enumerate(tensors):
        size += placed.spec.nbytes
        if size >= nbytes or index == len(tensors) - 1:
            number = len(pieces)
            piece = Piece(entry=entry, first=first, last=index, number=number)
            pieces.append(piece)
            first, size = index + 1, 0
    return pieces


def write_piece(
    folder: OutputFolder,
    piece: Piece,
    rebuild: Rebuild,
    workers: Workers,
    buffers: Buffers,
    stage: Stage,
) -> None:
    """Write a piece of a weight file, each tensor held against its digest.

    Raises as `Rebuild.tensors` does.
    """
    layout = piece.entry.layout
    names = [p.spec.name for p in layout.tensors[piece.first : piece.last + 1]]
    place = folder.unfinished(piece.place)
    with folder.scratch(place) as file:
        reserve(file, piece.nbytes)
        with writer(file) as output:
            if not piece.number:
                output.write(0, np.frombuffer(layout.prefix, np.uint8))
            sink = _FileSink(piece.entry, output, sha256(), stage, piece.start)
            for _ in rebuild.tensors(names, workers, buffers, sink):
                pass
        file.truncate(piece.nbytes)
        sync(file)
    folder.keep_scratch(place, piece.place)


def join_pieces(folder: OutputFolder, pieces: Sequence[Piece], stage: Stage) -> None:
    """Put a weight file together.

    Raises:
        IntegrityError: if the disk gave back something else than was written.
    """
    entry = pieces[0].entry
    name = folder.unfinished(entry.file.path)
    hasher, at = sha256(), 0
    with folder.create(name) as file:
        reserve(file, entry.file.size)
        with writer(file) as output:
            for piece in pieces:
                with folder.kept(piece.place).open("rb") as source:
                    for data in read_pieces(source):
                        hasher.update(data)
                        output.write(at, np.frombuffer(data, np.uint8))
                        at += len(data)
                        stage.advance(len(data))
        file.truncate(entry.file.size)
        if hasher.hexdigest() != entry.file.sha256:
            raise IntegrityError(
                f"{folder.partial}: {entry.file.path}: expected sha256 "
                f"{entry.file.sha256}, found {hasher.hexdigest()}, though every tensor was "
                "right when it was written: the disk fails; run again, or choose an --out "
                "on another"
            )
        sync(file)
    folder.finish(name, entry.file.path)


def _diagnosis(
    file: BufferedRandom, entry: WeightEntry, rebuild: Rebuild, found: str
) -> ReleaseKitError:
    """Why a file came out wrong: the first tensor in it that did tells more."""
    fault = f"expected sha256 {entry.file.sha256}, found {found}"
    complete = _left(file, entry, rebuild, Stage(None, "diagnose", 0))[1]
    if complete < len(entry.layout.tensors):
        name = entry.layout.tensors[complete].spec.name
        return rebuild.diagnosis(name, IntegrityError(f"{entry.file.path}: {fault}"))
    return IntegrityError(
        f"{entry.file.path}: {fault}, though every tensor in it is right: the manifest "
        "contradicts itself; ask the publisher for a sound release"
    )


def _left(
    file: BufferedRandom, entry: WeightEntry, rebuild: Rebuild, stage: Stage
) -> tuple[Hash, int, int]:
    """What an interrupted run completed: its digest, number of tensors, and end.

    The manifest is the journal: a tensor on disk is believed if its digest is right.
    """
    prefix = entry.layout.prefix
    hasher, complete, end = sha256(prefix), 0, len(prefix)
    if file.read(len(prefix)) != prefix:
        return _START
    for placed in entry.layout.tensors:
        so_far, tensor = hasher.copy(), blake3()
        for piece in read_pieces(file, placed.spec.nbytes):
            so_far.update(piece)
            tensor.update(piece)
        if tensor.hexdigest() != rebuild.manifest.operations[placed.spec.name].digest:
            break
        hasher, complete, end = so_far, complete + 1, end + placed.spec.nbytes
        stage.advance(placed.spec.nbytes)
    return hasher, complete, end
