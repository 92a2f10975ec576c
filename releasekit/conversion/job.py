"""The parts of a conversion: which are done, and having others done.

Parts that look at tensors come first, if `smallest` needs them; then it is known what is to
be written, and that a part writes each file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from releasekit import smallest
from releasekit.checkpoint.sighting import Sighting
from releasekit.conversion.dtypes import SMALLEST
from releasekit.conversion.parts import (
    Converting,
    ShardFacts,
    look_facts,
    look_part,
    looks,
    names_in,
    write_part,
)
from releasekit.conversion.work import AMONG, Casts, Making, Seen, Source
from releasekit.errors import FormatError
from releasekit.model_writer import NEED, ModelWriter
from releasekit.output import OutputFolder, partial_of
from releasekit.parts.outputs import needs_of
from releasekit.parts.records import Done, Records
from releasekit.parts.shares import require_done, run_parts
from releasekit.parts.tasks import Batch, Pool, Task, Work
from releasekit.progress import ProgressCallback
from releasekit.resources import WRITING, Resources, memory_of_headers, share_out
from releasekit.smallest import Obstacles


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How parts are done.

    Attributes:
        threads: of one part; by default two a processor.
        max_memory: of one part, beside the model's header.
        look_nbytes: bytes of tensors that one part looks at.
        progress: called with the state of each stage.
    """

    threads: int | None
    max_memory: int
    look_nbytes: int
    progress: ProgressCallback | None

    @property
    def resources(self) -> Resources:
        """What one part may use; UsageError if that is too little."""
        return share_out(
            NEED, threads=self.threads, each=WRITING, max_memory=self.max_memory
        )


class Job:
    """The parts of a conversion.

    Attributes:
        folder: the output.
        partial: where the records are.
        looks: parts that look at tensors.
    """

    def __init__(self, source: Source, folder: OutputFolder, how: How) -> None:
        self.looks = looks(source.wide, how.look_nbytes)
        self._source = source
        self.folder = folder
        self._how = how
        self.partial = partial_of(folder.out)
        self._records = Records(self.partial).read()
        self._new: set[str] = set()  # done now; file systems may show them here later

    @property
    def done(self) -> list[Done]:
        """The parts that are done, now or before."""
        return list(self._records.values())

    def unseen(self) -> list[Task]:
        """Looks that are not done."""
        found = self._found()
        return [task for task in self.looks if task.name not in found]

    def look(self, pool: Pool, tasks: Sequence[Task]) -> list[Done]:
        """Have parts look at tensors."""
        return self._run(pool, look_part, tasks, (), "read")

    def is_seen(self) -> bool:
        """Whether all was looked at that must be, by whomever."""
        self._records |= Records(self.partial).read()
        return not self.unseen()

    def making(self) -> Making:
        """What is to be written; ReleaseKitError if that takes looks that are not done."""
        if self._source.wish.dtype != SMALLEST:
            return self._source.making(None)
        require_done(self.partial, self.unseen(), self.looks)
        specs, found = self._source.checkpoint.specs, self._found()
        return self._source.making(smallest.merged(specs, AMONG, found.values()))

    def files(self, making: Making) -> list[Task]:
        """Parts that write a file each."""
        return [
            Task(name=shard.name, nbytes=shard.layout.file_size, detail=shard)
            for shard in making.shards
        ]

    def unwritten(self, making: Making) -> list[Task]:
        """Those of them that are not done."""
        written = self._written(making)
        return [task for task in self.files(making) if task.name not in written]

    def write(self, pool: Pool, making: Making, tasks: Sequence[Task]) -> list[Done]:
        """Have files written."""
        return self._run(pool, write_part, tasks, making.casts, "write")

    def told(self, making: Making) -> tuple[ModelWriter, Seen]:
        """A writer that was told of all files; all are there."""
        written = self._written(making)
        writer = ModelWriter(self.folder, making.model, making.shards)
        seen = Seen.of(making.model)  # of which nothing was read here
        for shard in making.shards:
            facts = written[shard.name]
            tensors = dict(zip(names_in(shard), facts.tensors, strict=True))
            writer.take(shard, facts.sha256, tensors)
            seen += facts.seen
        writer.index()
        return writer, seen

    def _found(self) -> dict[str, Obstacles]:
        """What the looks found that are done, in the order of all."""
        found = {}
        for task in self.looks:
            if done := self._records.get(task.name):
                with suppress(FormatError):  # then it is to be done again
                    facts = look_facts(done.facts, task.detail, task.name)
                    if facts is not None:
                        found[task.name] = facts
        return found

    def _written(self, making: Making) -> dict[str, ShardFacts]:
        """What is known of the files that are there."""
        found = {}
        for shard in making.shards:
            name, size = shard.name, shard.layout.file_size
            there = name in self._new or self.folder.holds(name, size)
            done = self._records.get(name)
            if there and done is not None:
                with suppress(FormatError):
                    facts = ShardFacts.parse(done.facts, shard, name)
                    if facts is not None:
                        found[name] = facts
        return found

    def _run(
        self,
        pool: Pool,
        work: Work[Converting],
        tasks: Sequence[Task],
        casts: Casts,
        stage: str,
    ) -> list[Done]:
        if not tasks:
            return []
        source, resources = self._source, self._how.resources
        headers = memory_of_headers(len(source.checkpoint.specs))
        batch = Batch(
            work=work,
            spec=Converting(
                source=source.at.shared,
                sighting=Sighting.of(source.checkpoint),
                out=self.folder.out,
                key=source.key,
                dtype=source.wish.dtype,
                casts=casts,
                threads=self._how.threads,
                max_memory=self._how.max_memory,
            ),
            tasks=tasks,
            needs=needs_of(resources, headers),
            stage=stage,
        )
        done = run_parts(pool, batch, self._how.progress)
        self._records |= {part.name: part for part in done}
        self._new |= {part.name for part in done}
        return done
