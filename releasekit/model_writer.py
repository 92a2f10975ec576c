"""Write a model that is made as it is read: shards, their index, and a list of digests.

Each shard is cut into pieces, made in worker threads, written where they will lie, and
hashed in order: SHA-256 for the file, BLAKE3 for each tensor, so that the model's identity
is known when it is complete. Nobody knows these digests beforehand, as they do for a
release; so a shard that an interrupted run completed is believed if the inputs are what
they were (the folder's key says so), and read again for its digests.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit import digest, sums
from releasekit.blocks import Writer, as_in_file, writer
from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.digest import blake3, sha256, sha256_hex
from releasekit.layout import Placed
from releasekit.manifest import SUMS
from releasekit.output import OutputFolder
from releasekit.pipeline import PAGE, Buffers, Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import WRITING, Need, Resources, share_out
from releasekit.sharding import Shard, index_of
from releasekit.writing import reserve, sync

#: Bytes of a tensor that are made at once: a whole number of any dtype's words.
PIECE: Final = 1 << 20
#: What a piece takes: itself; and, in each thread, as much again of each source, in a
#: dtype up to four times as wide, and what lies between its elements.
NEED: Final = Need(buffer=PIECE + PAGE, scratch=10 * PIECE)

#: Called with the pieces of each tensor in order; of several tensors at once.
Observer = Callable[[str, NDArray[np.uint8]], None]


@dataclass(slots=True, kw_only=True)
class WrittenModel:
    """A model's digests.

    Attributes:
        files: SHA-256 of each file by path.
        tensors: BLAKE3 of each tensor by name.
        nbytes: size of all files.
        kept: shards that an earlier run had completed.
    """

    files: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0
    kept: list[str] = field(default_factory=list)

    def add(self, path: str, size: int, sha256: str) -> None:
        """Take in a file."""
        self.files[path] = sha256
        self.nbytes += size


def resources_for(
    shards: tuple[Shard, ...], threads: int | None, max_memory: int
) -> Resources:
    """What writing these shards may use; raises as `share_out` does."""
    return share_out(
        NEED, files=len(shards), threads=threads, each=WRITING, max_memory=max_memory
    )


class ModelWriter:
    """Writes the tensors of a checkpoint to shards in an output folder."""

    def __init__(
        self,
        folder: OutputFolder,
        model: Checkpoint,
        shards: tuple[Shard, ...],
        observe: Observer | None = None,
    ) -> None:
        """Prepare.

        Args:
            folder: where to.
            model: has the tensors of the shards' layouts.
            shards: the files to write.
            observe: sees all that is written.
        """
        self.written = WrittenModel()
        self._folder = folder
        self._model = model
        self._shards = shards
        self._observe = observe
        self._lock = threading.Lock()

    def write(self, resources: Resources, progress: ProgressCallback | None) -> None:
        """Write the shards and their index."""
        total = sum(shard.layout.file_size for shard in self._shards)
        stage = Stage(progress, "write", total)
        with Workers(resources.threads) as workers:
            buffers = resources.buffers()
            jobs = [
                partial(self._shard, shard, workers, buffers, stage)
                for shard in self._shards
            ]
            workers.in_lanes(jobs, resources.lanes)
        self.index()

    def take(self, shard: Shard, sha256: str, tensors: Mapping[str, str]) -> None:
        """Take in a shard that another process wrote.

        Args:
            shard: the file, which is there.
            sha256: its digest.
            tensors: BLAKE3 of each of its tensors by name.
        """
        with self._lock:
            self.written.add(shard.name, shard.layout.file_size, sha256)
            self.written.tensors |= tensors

    def index(self) -> None:
        """Write the index, if there are several shards."""
        for name, data in index_of(self._shards).items():
            self.small(name, data)

    def small(self, name: str, data: bytes) -> None:
        """Write a small file."""
        self._folder.write(name, data)
        self.written.add(name, len(data), sha256_hex(data))

    def others(self, files: Mapping[str, Path | bytes]) -> None:
        """Write files that are no weights, by their paths: where they are, or content."""
        for name, content in files.items():
            if isinstance(content, bytes):
                self.small(name, content)
            else:
                self.written.add(name, *self._folder.copy(content, name))

    def finish(self) -> str:
        """Write the list of digests, and make the folder appear; the model's identity."""
        self.written.files = dict(sorted(self.written.files.items()))
        self._folder.write(SUMS, sums.format_sums(self.written.files))
        self._folder.keep_only([*self.written.files, SUMS])
        self._folder.commit()
        return digest.identity(
            (placed.spec, self.written.tensors[placed.spec.name])
            for shard in self._shards
            for placed in shard.layout.tensors
        )

    def _shard(
        self, shard: Shard, workers: Workers, buffers: Buffers, stage: Stage
    ) -> None:
        """Write one shard, or read it if it is there."""
        if self._is_there(shard):
            folder = self._folder.path("")
            with SafetensorsCheckpoint.open_files(
                str(folder), folder, [shard.name]
            ) as there:
                self._stream(shard, there, None, workers, buffers, stage)
            self.written.kept.append(shard.name)
            return
        name = self._folder.unfinished(shard.name)
        with self._folder.create(name) as file:
            reserve(file, shard.layout.file_size)
            with writer(file) as output:
                output.write(0, np.frombuffer(shard.layout.prefix, np.uint8))
                self._stream(shard, self._model, output, workers, buffers, stage)
            file.truncate(shard.layout.file_size)
            sync(file)
        self._folder.finish(name, shard.name)

    def _is_there(self, shard: Shard) -> bool:
        """Whether an earlier run of the same work completed a shard."""
        file = self._folder.reopen(shard.name)
        if file is None:
            return False
        with file:
            prefix = file.read(len(shard.layout.prefix))
            size = os.fstat(file.fileno()).st_size
        return (prefix, size) == (shard.layout.prefix, shard.layout.file_size)

    def _stream(
        self,
        shard: Shard,
        source: Checkpoint,
        output: Writer | None,
        workers: Workers,
        buffers: Buffers,
        stage: Stage,
    ) -> None:
        """Read a shard's tensors from `source`, write them, and take their digests."""

        def make(item: tuple[Placed, int], spare: NDArray[np.uint8]) -> NDArray[np.uint8]:
            placed, start = item
            offset = shard.layout.data_start + placed.begin + start
            nbytes = min(PIECE, placed.spec.nbytes - start)
            data = as_in_file(spare, offset, nbytes)
            source.read(placed.spec.name, start, data)
            if output is not None:
                output.write(offset, data)
            return data

        items = (
            (placed, start)
            for placed in shard.layout.tensors
            for start in range(0, placed.spec.nbytes, PIECE)
        )
        hasher = sha256(shard.layout.prefix)
        tensors = {placed.spec.name: blake3() for placed in shard.layout.tensors}
        with closing(workers.in_order(make, items, buffers)) as made:
            for (placed, _), data in made:
                hasher.update(data.data)
                tensors[placed.spec.name].update(data.data)
                if self._observe is not None:
                    self._observe(placed.spec.name, data)
                stage.advance(data.size)
        stage.advance(shard.layout.data_start)
        digests = {name: tensor.hexdigest() for name, tensor in tensors.items()}
        self.take(shard, hasher.hexdigest(), digests)
