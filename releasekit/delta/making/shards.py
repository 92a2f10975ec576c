"""Writes payloads into safetensors shards.

A safetensors header stands before the data and holds its offsets, which are known only
once the payloads are coded. So each payload waits in a scratch file, and is copied behind
its shard's header when the shard is full: the extra disk is one shard, the extra writing
one copy of what is, after all, the small side.

Which payloads share a shard follows from their sizes and order alone, so a work that goes
on after an interruption makes the same shards, and so do others that make one each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from itertools import groupby
from typing import Any, Final, Self

import numpy as np

from releasekit import layout
from releasekit.blocks import writer
from releasekit.delta.making.journal import Coded, Journal, Shard, payload_name, shard_name
from releasekit.delta.making.payloads import PayloadWriter
from releasekit.digest import blake3, pieces, sha256
from releasekit.errors import IntegrityError
from releasekit.layout import Layout
from releasekit.manifest import FileEntry
from releasekit.names import shown
from releasekit.output import OutputFolder
from releasekit.tensors import DType, TensorSpec
from releasekit.writing import flush, sync

#: Size at which a payload shard is closed, in bytes: what one failed upload may cost.
DEFAULT_SHARD_NBYTES: Final = 2_000_000_000
_METADATA: Final = {"format": "releasekit-delta"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A payload that waits for its shard.

    Attributes:
        name: the tensor's.
        nbytes: its size.
        digest: its BLAKE3.
        place: the scratch file in which it is.
        start: its first byte there.
    """

    name: str
    nbytes: int
    digest: str
    place: str
    start: int = 0


def final_name(number: int, count: int) -> str:
    """The name of one of `count` shards, counted from 1 on."""
    return f"delta-{number:05}-of-{count:05}.safetensors"


def header_of(payloads: Iterable[Waiting]) -> Layout:
    """The header of a shard, and where each payload lies in it."""
    specs = [
        TensorSpec(name=one.name, dtype=DType.U8, shape=(one.nbytes,)) for one in payloads
    ]
    return layout.build(specs, _METADATA)


class Group:
    """Payloads that share a shard: as many in a row as do not exceed its size.

    A payload is never split, so one that is larger has a shard to itself.
    """

    def __init__(self, shard_nbytes: int) -> None:
        self.payloads: list[Waiting] = []
        self._shard_nbytes = shard_nbytes
        self._nbytes = 0

    def has_room(self, payload: Waiting) -> bool:
        """Whether the next payload is one of them."""
        return not self.payloads or self._nbytes + payload.nbytes <= self._shard_nbytes

    def add(self, payload: Waiting) -> None:
        """Take the next payload."""
        self.payloads.append(payload)
        self._nbytes += payload.nbytes


def grouped(payloads: Iterable[Waiting], shard_nbytes: int) -> list[list[Waiting]]:
    """All payloads of a release by the shard that they share."""
    groups: list[Group] = []
    for payload in payloads:
        if not groups or not groups[-1].has_room(payload):
            groups.append(Group(shard_nbytes))
        groups[-1].add(payload)
    return [group.payloads for group in groups]


def write_shard(
    folder: OutputFolder,
    name: str,
    payloads: Sequence[Waiting],
    advance: Callable[[int], None] = lambda nbytes: None,
) -> FileEntry:
    """Write the shard of some payloads as the file `name` of the output.

    Raises:
        IntegrityError: if the disk gives back another payload than was written.
    """
    header = header_of(payloads)
    hasher = sha256(header.prefix)
    with folder.create(name) as shard:
        with writer(shard) as output:
            output.write(0, np.frombuffer(header.prefix, np.uint8))
            at = header.data_start
            for place, those in groupby(payloads, lambda payload: payload.place):
                with folder.kept(place).open("rb") as source:
                    for payload in those:
                        source.seek(payload.start)
                        found = blake3()
                        for piece in pieces(source, payload.nbytes):
                            hasher.update(piece)
                            found.update(piece)
                            output.write(at, np.frombuffer(piece, np.uint8))
                            at += len(piece)
                            advance(len(piece))
                        if found.hexdigest() != payload.digest:
                            raise not_read_back(folder, f"payload {shown(payload.name)}")
        shard.truncate(header.file_size)
        sync(shard)
    return FileEntry(path=name, size=header.file_size, sha256=hasher.hexdigest())


def not_read_back(folder: OutputFolder, what: str) -> IntegrityError:
    """What is raised where a disk fails."""
    return IntegrityError(
        f"{folder.partial}: {what}: reads back as something else than was written: the "
        "disk fails; choose an --out on another"
    )


class ShardWriter:
    """Collects payloads, and writes a shard whenever enough have come together.

    Each payload waits in a file of its own, and is `put` into a shard once its tensor is
    noted; at last `close`. See `Payloads` for the rest.
    """

    def __init__(self, folder: OutputFolder, shard_nbytes: int, journal: Journal) -> None:
        self._folder = folder
        self._shard_nbytes = shard_nbytes
        self._journal = journal
        self._group = Group(shard_nbytes)
        self._shards: list[FileEntry] = []
        self._place = ""
        self._file: BufferedRandom | None = None
        self._payload: PayloadWriter | None = None

    def begin(self, name: str) -> None:
        """See `Payloads.begin`."""
        self._place = payload_name(name)
        self._file = self._folder.scratch(self._place)
        self._payload = PayloadWriter(self._file)

    def add(self, frame: bytes) -> None:
        """See `Payloads.add`."""
        assert self._payload is not None, "begin comes first"
        self._payload.add(frame)

    def end(self) -> tuple[int, str]:
        """See `Payloads.end`."""
        assert self._payload is not None, "begin comes first"
        assert self._file is not None, "begin comes first"
        made = self._payload.end()
        flush(self._file)
        self._file.close()
        return made

    def drop(self) -> None:
        """See `Payloads.drop`."""
        assert self._file is not None, "begin comes first"
        self._file.close()
        self._folder.drop(self._place)

    def put(self, coded: Coded) -> None:
        """Take a tensor's payload, which is on file; of this run or an earlier one."""
        assert coded.payload is not None, "its operation has one"
        payload = Waiting(
            name=coded.name,
            nbytes=coded.nbytes,
            digest=coded.payload,
            place=payload_name(coded.name),
        )
        if not self._group.has_room(payload):
            self._close_shard()
        self._group.add(payload)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._file is not None:
            self._file.close()

    def close(self) -> tuple[FileEntry, ...]:
        """Write the last shard and give all of them their names."""
        if self._group.payloads:
            self._close_shard()
        count = len(self._shards)
        named = []
        for number, entry in enumerate(self._shards, 1):
            name = final_name(number, count)
            self._folder.finish(entry.path, name)
            named.append(FileEntry(path=name, size=entry.size, sha256=entry.sha256))
        return tuple(named)

    def _close_shard(self) -> None:
        """Write the shard of the payloads that wait, unless an earlier run has."""
        payloads = self._group.payloads
        names = tuple(payload.name for payload in payloads)
        path = shard_name(f"{len(self._shards) + 1:05}")
        known = self._journal.shards.get(path)
        if known is not None and known.tensors == names:
            self._shards.append(known.file)
        else:
            entry = write_shard(self._folder, path, payloads)
            self._journal.add_shard(Shard(file=entry, tensors=names))
            self._shards.append(entry)
        for payload in payloads:
            self._folder.drop(payload.place)
        self._group = Group(self._shard_nbytes)
