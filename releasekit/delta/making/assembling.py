"""Parts of a release in the making that write its payload files, and read them back.

They need nothing but what other parts made, and are done wherever the output is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from releasekit.checkpoint.files import Opener, Readable
from releasekit.checkpoint.locate import approach
from releasekit.delta.making.parts import combined
from releasekit.delta.making.shards import Waiting, header_of, not_read_back, write_shard
from releasekit.delta.making.told import Making
from releasekit.digest import Hash, blake3, sha256
from releasekit.errors import FormatError, IntegrityError
from releasekit.manifest import FileEntry
from releasekit.names import shown
from releasekit.output import OutputFolder
from releasekit.parts.records import Records
from releasekit.parts.tasks import Advance, Task
from releasekit.strictjson import Record

Facts = Mapping[str, object]

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


class OutputPart(Protocol):
    """A part that reads nothing but what others made."""

    def do(self, spec: Making, folder: OutputFolder, advance: Advance) -> Facts:
        """Do it; returns what was found out."""


def output_part(spec: Making, task: Task, advance: Advance) -> Facts:
    """Do a part that reads nothing but what others made."""
    part: OutputPart = task.detail
    with spec.folder as folder:
        return part.do(spec, folder, advance)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPart:
    """A file of the release to write.

    Attributes:
        file: its name.
        payloads: what it holds.
    """

    file: str
    payloads: tuple[Waiting, ...]

    @property
    def content(self) -> str:
        """What the record says of it: other payloads would make it another file."""
        return combined(f"{one.name}\n{one.digest}" for one in self.payloads)

    @property
    def places(self) -> set[str]:
        """The scratch files that hold its payloads."""
        return {payload.place for payload in self.payloads}

    def do(self, spec: Making, folder: OutputFolder, advance: Advance) -> Facts:
        """See `OutputPart.do`."""
        name = folder.unfinished(self.file)
        try:
            entry = write_shard(folder, name, self.payloads, advance)
        except IntegrityError:
            for place in self.places:  # else the next run would come to the same end
                folder.drop(place)
            raise
        folder.finish(name, self.file)
        return {"content": self.content, "size": entry.size, "sha256": entry.sha256}

    def read(self, facts: Record) -> FileEntry:
        """The file as a record tells of it; FormatError if it is of another content."""
        if facts.hex_digest("content") != self.content:
            raise FormatError(f"{self.file}: its record tells of other payloads")
        return FileEntry(
            path=self.file,
            size=facts.integer("size"),
            sha256=facts.hex_digest("sha256"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShardPart:
    """A file of payloads to read back; it must hold what was proved."""

    shard: ShardPart

    def do(self, spec: Making, folder: OutputFolder, advance: Advance) -> Facts:
        """See `OutputPart.do`."""
        header, name = header_of(self.shard.payloads), self.shard.file
        with ExitStack() as stack:
            file = _made(spec, name, stack)
            right = file.read(0, header.data_start) == header.prefix
            starts = (header.data_start + placed.begin for placed in header.tensors)
            for start, payload in zip(starts, self.shard.payloads, strict=True):
                found = _digest(blake3(), file, start, payload.nbytes, advance)
                right = right and found == payload.digest
                if not right:
                    Records(spec.partial).forget(name)  # so that it is written again
                    raise not_read_back(folder, f"payload {shown(payload.name)}")
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlainPart:
    """A file of plain differences to read back.

    Attributes:
        entry: the file.
        maker: the part that made it.
    """

    entry: FileEntry
    maker: str

    def do(self, spec: Making, folder: OutputFolder, advance: Advance) -> Facts:
        """See `OutputPart.do`."""
        with ExitStack() as stack:
            file = _made(spec, self.entry.path, stack)
            found = _digest(sha256(), file, 0, file.size, advance)
        if found != self.entry.sha256:
            Records(spec.partial).forget(self.maker)
            raise not_read_back(folder, shown(self.entry.path))
        return {}


def _made(spec: Making, name: str, stack: ExitStack) -> Readable:
    """A file of the output, wherever that is."""
    at = stack.enter_context(approach(OutputFolder.made_in(spec.partial)))
    return Opener(kept=stack, coming=at.coming).open(at.path / name)


def _digest(hasher: Hash, file: Readable, start: int, nbytes: int, advance: Advance) -> str:
    """The digest of some bytes of a file."""
    buffer = np.empty(min(_READ, nbytes), np.uint8)
    for at in range(0, nbytes, _READ):
        piece = buffer[: nbytes - at]
        file.read_into(start + at, piece)
        hasher.update(piece.data)
        advance(piece.size)
    return hasher.hexdigest()
