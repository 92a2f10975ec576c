"""Writes payloads into safetensors shards.

A safetensors header stands before the data and holds its offsets, which are known only
once the payloads are coded. So payloads are spooled into one file, and copied behind their
header when the shard is full: the extra disk is one shard, the extra writing one copy of
what is, after all, the small side.
"""

from __future__ import annotations

from io import BufferedRandom
from typing import Final

from releasekit import layout
from releasekit.codec.chunks import pack_table, table_nbytes
from releasekit.digest import pieces, sha256
from releasekit.manifest import FileEntry
from releasekit.output import OutputFolder, sync
from releasekit.tensors import DType, TensorSpec

_SPOOL: Final = "payloads.spool"
_COPY: Final = 1 << 20
_METADATA: Final = {"format": "releasekit-delta"}


class ShardWriter:
    """Collects payloads, and writes a shard whenever enough have come together.

    For each payload call `begin`, `add` once a frame, then `end` or `drop`; at last
    `close`. A payload is never split, so one larger than a shard has a shard to itself.
    """

    def __init__(self, folder: OutputFolder, shard_nbytes: int) -> None:
        self._folder = folder
        self._shard_nbytes = shard_nbytes
        self._spool: BufferedRandom = folder.scratch(_SPOOL)
        self._specs: list[TensorSpec] = []
        self._start = 0
        self._sizes: list[int] = []
        self._shards: list[FileEntry] = []

    def begin(self, chunks: int) -> None:
        """Start a payload of `chunks` frames."""
        self._sizes = []
        self._spool.seek(self._start + table_nbytes(chunks))

    def add(self, frame: bytes) -> None:
        """Append a frame."""
        self._sizes.append(len(frame))
        self._spool.write(frame)

    def end(self, name: str) -> int:
        """Finish the payload of tensor `name`; returns its size in bytes."""
        nbytes = table_nbytes(len(self._sizes)) + sum(self._sizes)
        self._spool.seek(self._start)
        self._spool.write(pack_table(self._sizes))
        if self._start and self._start + nbytes > self._shard_nbytes:
            # The payload stays where it is in the spool, and begins the next shard.
            self._write_shard(self._start, carry=nbytes)
        self._specs.append(TensorSpec(name=name, dtype=DType.U8, shape=(nbytes,)))
        self._start += nbytes
        return nbytes

    def drop(self) -> None:
        """Forget the payload begun last: the tensor turned out to need none."""
        self._spool.seek(self._start)

    def close(self) -> tuple[FileEntry, ...]:
        """Write the last shard and give all of them their names."""
        if self._specs:
            self._write_shard(self._start, carry=0)
        self._spool.close()
        count = len(self._shards)
        named = []
        for number, entry in enumerate(self._shards, 1):
            name = f"delta-{number:05}-of-{count:05}.safetensors"
            self._folder.finish(entry.path, name)
            named.append(FileEntry(path=name, size=entry.size, sha256=entry.sha256))
        return tuple(named)

    def _write_shard(self, nbytes: int, carry: int) -> None:
        """Write the first `nbytes` of the spool as a shard; keep the `carry` after them."""
        header = layout.build(self._specs, _METADATA)
        name = self._folder.unfinished(f"delta-{len(self._shards) + 1:05}")
        hasher = sha256(header.prefix)
        with self._folder.create(name) as shard:
            shard.write(header.prefix)
            self._spool.seek(0)
            for piece in pieces(self._spool, nbytes):
                hasher.update(piece)
                shard.write(piece)
            sync(shard)
        self._shards.append(
            FileEntry(path=name, size=header.file_size, sha256=hasher.hexdigest())
        )
        self._specs, self._start = [], 0
        self._move_to_front(nbytes, carry)

    def _move_to_front(self, start: int, nbytes: int) -> None:
        for at in range(0, nbytes, _COPY):
            self._spool.seek(start + at)
            piece = self._spool.read(min(_COPY, nbytes - at))
            self._spool.seek(at)
            self._spool.write(piece)
        self._spool.truncate(nbytes)
