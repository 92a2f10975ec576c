"""One part of a conversion, in whatever process: a file, or a look at some tensors.

A part that writes makes a whole file: its SHA-256 is a chain from its first byte, which no
two processes can take together. `smallest` needs a pass over all wide floats before any
file is written; a part of that looks at tensors of a few GB.

What a part found out (digests, what was rounded, what smaller dtypes would hold) is kept
beside the output as the facts of its record, so that whoever completes the folder reads no
weights again. Facts that cannot be read, or are of other work, make the part be done anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from releasekit import smallest
from releasekit.checkpoint import StoredCheckpoint, open_checkpoint
from releasekit.checkpoint.locate import reach
from releasekit.checkpoint.sighting import Sighting
from releasekit.codec.cast import Changes
from releasekit.conversion.work import AMONG, Casts, Seen, derive
from releasekit.digest import sha256_hex
from releasekit.model_writer import ModelWriter, resources_for
from releasekit.parts.keeping import keeper
from releasekit.parts.outputs import Output
from releasekit.parts.tasks import Advance, Task, as_progress
from releasekit.sharding import Shard
from releasekit.smallest import Obstacles
from releasekit.strictjson import Record, is_hex_digest
from releasekit.tensors import DTYPES, DType, TensorSpec

#: Bytes of tensors that one part looks at.
LOOK_NBYTES: Final = 4_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Converting(Output):
    """What every part of a conversion is told.

    Attributes:
        source: where the model is.
        sighting: what it looks like.
        dtype: what floats become, as in `convert`.
        casts: for the smallest: what floats of each dtype become, once that is known.
        threads: of each part.
        max_memory: likewise.
    """

    source: Path
    sighting: Sighting
    dtype: str | None
    casts: Casts
    threads: int | None
    max_memory: int

    @contextmanager
    def opened(self) -> Iterator[StoredCheckpoint]:
        """The model, as this process finds it.

        Raises:
            IntegrityError: if it is not the one that the work was begun with.
        """
        with (
            reach(self.source) as at,
            open_checkpoint(at.path, at.coming) as checkpoint,
        ):
            self.sighting.check(checkpoint)
            yield checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Tensors at which one part looks.

    Attributes:
        names: theirs.
    """

    names: tuple[str, ...]

    @property
    def id(self) -> str:
        """Tells it from a look at others."""
        return sha256_hex(json.dumps(self.names).encode())


def looks(wide: Sequence[TensorSpec], nbytes: int) -> list[Task]:
    """Parts that look at tensors, each at about so many bytes, or at one tensor."""
    groups: list[list[TensorSpec]] = []
    room = 0
    for spec in wide:
        if not groups or spec.nbytes > room:
            groups.append([])
            room = nbytes
        groups[-1].append(spec)
        room -= spec.nbytes
    return [
        Task(
            name=f"look {number} of {len(groups)}",
            nbytes=sum(spec.nbytes for spec in group),
            detail=Look(names=tuple(spec.name for spec in group)),
        )
        for number, group in enumerate(groups, 1)
    ]


def look_part(spec: Converting, task: Task, advance: Advance) -> Mapping[str, object]:
    """See which smaller dtypes hold the values of some tensors."""
    look: Look = task.detail
    found = smallest.survey(
        keeper().get(spec, Converting.opened),
        AMONG,
        names=frozenset(look.names),
        threads=spec.threads,
        max_memory=spec.max_memory,
        progress=as_progress(advance),
    )
    return {
        "look": look.id,
        "obstacles": {
            dtype.label: {other.label: name for other, name in others.items()}
            for dtype, others in found.obstacles.items()
        },
    }


def look_facts(facts: Mapping[str, object], look: Look, where: str) -> Obstacles | None:
    """What `look_part` found; None if it looked at something else.

    Raises:
        FormatError: if these are no such facts; `where` begins the message.
    """
    record = Record(facts, where)
    if record.hex_digest("look") != look.id:
        return None
    obstacles = record.record("obstacles")
    return {
        dtype: {other: others.text(other.label) for other in _dtypes(others)}
        for dtype in _dtypes(obstacles)
        for others in (obstacles.record(dtype.label),)
    }


def write_part(spec: Converting, task: Task, advance: Advance) -> Mapping[str, object]:
    """Write one file."""
    shard: Shard = task.detail
    model = derive(keeper().get(spec, Converting.opened), spec.dtype, spec.casts)
    with spec.folder as folder:
        writer = ModelWriter(folder, model, (shard,))
        resources = resources_for((shard,), spec.threads, spec.max_memory)
        writer.write(resources, as_progress(advance))
    return ShardFacts.of(shard, writer, Seen.of(model)).document()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """What is known of a file that was written.

    Attributes:
        header: SHA-256 of all before its data.
        sha256: of the whole file.
        tensors: BLAKE3 of each tensor, in their order in the file.
        seen: what was noticed of their values.
    """

    header: str
    sha256: str
    tensors: tuple[str, ...]
    seen: Seen

    @classmethod
    def of(cls, shard: Shard, writer: ModelWriter, seen: Seen) -> Self:
        """What a writer knows of a file that it wrote."""
        written = writer.written
        return cls(
            header=sha256_hex(shard.layout.prefix),
            sha256=written.files[shard.name],
            tensors=tuple(written.tensors[name] for name in names_in(shard)),
            seen=seen,
        )

    def document(self) -> dict[str, object]:
        """The same as JSON values."""
        return {
            "header": self.header,
            "sha256": self.sha256,
            "tensors": list(self.tensors),
            "rounded": self.seen.changes.rounded,
            "overflowed": self.seen.changes.overflowed,
            "holders": {
                dtype.label: [other.label for other in others]
                for dtype, others in self.seen.holders.items()
            },
        }

    @classmethod
    def parse(cls, facts: Mapping[str, object], shard: Shard, where: str) -> Self | None:
        """Read them; None if they are of a file with another header.

        Raises:
            FormatError: if these are no such facts; `where` begins the message.
        """
        record = Record(facts, where)
        tensors = record.texts("tensors")
        if not all(map(is_hex_digest, tensors)):
            raise record.fault("tensors", "digests")
        header = record.hex_digest("header")
        if header != sha256_hex(shard.layout.prefix) or len(tensors) != len(
            shard.layout.tensors
        ):
            return None
        holders = record.record("holders")
        return cls(
            header=header,
            sha256=record.hex_digest("sha256"),
            tensors=tensors,
            seen=Seen(
                changes=Changes(
                    rounded=record.integer("rounded"),
                    overflowed=record.integer("overflowed"),
                ),
                holders={
                    dtype: tuple(
                        DTYPES[n] for n in holders.texts(dtype.label) if n in DTYPES
                    )
                    for dtype in _dtypes(holders)
                },
            ),
        )


def names_in(shard: Shard) -> list[str]:
    """The tensors of a file, in their order in it."""
    return [placed.spec.name for placed in shard.layout.tensors]


def _dtypes(record: Record) -> list[DType]:
    """The dtypes that are a record's fields."""
    return [DTYPES[label] for label in record.keys() if label in DTYPES]  # noqa: SIM118
