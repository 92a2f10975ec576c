"""Writes payloads into safetensors shards.

A safetensors header stands before the data and holds its offsets, which are known only
once the payloads are coded. So each payload waits in a file of its own, and is copied
behind its shard's header when the shard is full: the extra disk is one shard, the extra
writing one copy of what is, after all, the small side.

Which payloads share a shard follows from their sizes and order alone, so a work that goes
on after an interruption makes the same shards, and finds finished ones in the journal.
"""

from __future__ import annotations

from io import BufferedRandom
from typing import Any, Final, Self

import numpy as np

from releasekit import layout
from releasekit.blocks import writer
from releasekit.codec.chunks import pack_table
from releasekit.delta.journal import Coded, Journal, Shard, payload_name, shard_name
from releasekit.digest import blake3, pieces, sha256
from releasekit.manifest import FileEntry
from releasekit.output import OutputFolder
from releasekit.tensors import DType, TensorSpec
from releasekit.writing import flush, sync, write

_METADATA: Final = {"format": "releasekit-delta"}


class ShardWriter:
    """Collects payloads, and writes a shard whenever enough have come together.

    For each payload call `begin`, `add` once a frame, then `end` or `drop`; `keep` for one
    of an earlier run; at last `close`. A payload is never split, so one larger than a shard
    has a shard to itself.
    """

    def __init__(self, folder: OutputFolder, shard_nbytes: int, journal: Journal) -> None:
        self._folder = folder
        self._shard_nbytes = shard_nbytes
        self._journal = journal
        self._waiting: list[TensorSpec] = []
        self._waiting_nbytes = 0
        self._shards: list[FileEntry] = []
        self._name = ""
        self._sizes: list[int] = []
        self._hasher = blake3()
        self._file: BufferedRandom | None = None

    def begin(self, name: str) -> None:
        """Start the payload of tensor `name`."""
        self._name = name
        self._sizes = []
        self._hasher = blake3()
        self._file = self._folder.scratch(payload_name(name))

    def add(self, frame: bytes) -> None:
        """Append a frame."""
        self._sizes.append(len(frame))
        self._write(frame)

    def end(self) -> tuple[int, str]:
        """Finish the payload; returns its size and its BLAKE3."""
        assert self._file is not None, "begin comes first"
        table = pack_table(self._sizes)
        self._write(table)
        flush(self._file)
        self._file.close()
        nbytes = sum(self._sizes) + len(table)
        self._append(self._name, nbytes)
        return nbytes, self._hasher.hexdigest()

    def _write(self, data: bytes) -> None:
        assert self._file is not None, "begin comes first"
        self._hasher.update(data)
        write(self._file, data)

    def drop(self) -> None:
        """Forget the payload begun last: the tensor turned out to need none."""
        assert self._file is not None, "begin comes first"
        self._file.close()
        self._journal.payload_path(self._name).unlink()

    def keep(self, coded: Coded) -> None:
        """Take the payload of an earlier run."""
        self._append(coded.name, coded.nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._file is not None:
            self._file.close()

    def close(self) -> tuple[FileEntry, ...]:
        """Write the last shard and give all of them their names."""
        if self._waiting:
            self._close_shard()
        count = len(self._shards)
        named = []
        for number, entry in enumerate(self._shards, 1):
            name = f"delta-{number:05}-of-{count:05}.safetensors"
            self._folder.finish(entry.path, name)
            named.append(FileEntry(path=name, size=entry.size, sha256=entry.sha256))
        return tuple(named)

    def _append(self, name: str, nbytes: int) -> None:
        if self._waiting and self._waiting_nbytes + nbytes > self._shard_nbytes:
            self._close_shard()
        self._waiting.append(TensorSpec(name=name, dtype=DType.U8, shape=(nbytes,)))
        self._waiting_nbytes += nbytes

    def _close_shard(self) -> None:
        """Write the shard of the payloads that wait, unless an earlier run has."""
        names = tuple(spec.name for spec in self._waiting)
        path = shard_name(f"{len(self._shards) + 1:05}")
        known = self._journal.shards.get(path)
        if known is not None and known.tensors == names:
            self._shards.append(known.file)
        else:
            entry = self._write_shard(path)
            self._journal.add_shard(Shard(file=entry, tensors=names))
            self._shards.append(entry)
        for name in names:
            self._journal.payload_path(name).unlink(missing_ok=True)
        self._waiting = []
        self._waiting_nbytes = 0

    def _write_shard(self, path: str) -> FileEntry:
        header = layout.build(self._waiting, _METADATA)
        hasher = sha256(header.prefix)
        with self._folder.create(path) as shard:
            with writer(shard) as output:
                output.write(0, np.frombuffer(header.prefix, np.uint8))
                at = header.data_start
                for spec in self._waiting:
                    with self._journal.payload_path(spec.name).open("rb") as payload:
                        for piece in pieces(payload):
                            hasher.update(piece)
                            output.write(at, np.frombuffer(piece, np.uint8))
                            at += len(piece)
            shard.truncate(header.file_size)
            sync(shard)
        return FileEntry(path=path, size=header.file_size, sha256=hasher.hexdigest())
