"""How far a release in the making is, by the records of its parts, and what they came to.

Which payloads share a file of the release follows from what the parts that code found out;
so these files are known once all of them are done. A scratch file of payloads may go once
each shard that it is in is there. If such a file is lost before, or one of these shards
after, the part that made the payloads is done again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from releasekit.delta.making.assembling import ReadPlainPart, ReadShardPart, ShardPart
from releasekit.delta.making.content import Content
from releasekit.delta.making.journal import Coded
from releasekit.delta.making.parts import Encoded, combined
from releasekit.delta.making.pieces import Plan
from releasekit.delta.making.request import Opened
from releasekit.delta.making.shards import Waiting, final_name, grouped
from releasekit.delta.notary import TARGET
from releasekit.errors import FormatError
from releasekit.manifest import FileEntry, Manifest
from releasekit.output import OutputFolder
from releasekit.parts.records import Done
from releasekit.parts.tasks import Task
from releasekit.provenance import Material
from releasekit.strictjson import Record


def results_of(
    tasks: Iterable[Task], done: Mapping[str, Done]
) -> Iterator[tuple[str, Any]]:
    """What parts came to that are done, by their names; a record of no use is none."""
    for task in tasks:
        record = done.get(task.name)
        if record is not None:
            try:
                yield task.name, task.detail.read(Record(record.facts, task.name))
            except FormatError:
                continue


class Standing:
    """What is done of a plan."""

    def __init__(
        self,
        opened: Opened,
        plan: Plan,
        folder: OutputFolder,
        results: Mapping[str, Any],
        done: Mapping[str, Done],
        fresh: Collection[str],
    ) -> None:
        """Look at what is there.

        Args:
            opened: what is to be made.
            plan: the parts that read the inputs.
            folder: where the output is made.
            results: what those of them came to that are done, as `results_of` says.
            done: records of all parts by their names.
            fresh: parts that were done by this run. Their files are not looked for: those
                that another machine has just written may show here a little late.
        """
        self._opened = opened
        self._plan = plan
        self._folder = folder
        self._results = results
        self._done = done
        self._fresh = fresh

    @property
    def todo(self) -> list[Task]:
        """Parts that read the inputs, and have yet to be done."""
        return [
            *(task for task in self._plan.encodes if not self._is_coded(task)),
            *(task for task in self._plan.hashes if task.name not in self._results),
        ]

    def _is_coded(self, task: Task) -> bool:
        """Whether a part is done, and what others need of it is there."""
        found: Encoded | None = self._results.get(task.name)
        if found is None or task.name in self._fresh:
            return found is not None
        plain, place = found.plain, task.detail.place
        if plain is not None and not self._folder.holds(plain.path, plain.size):
            return False
        if self.is_coded and place not in self.needed:
            return True
        return self._folder.holds_kept(place, found.nbytes)

    @cached_property
    def is_coded(self) -> bool:
        """Whether it is known what becomes of every tensor."""
        return all(task.name in self._results for task in self._plan.encodes)

    @cached_property
    def needed(self) -> set[str]:
        """Scratch files of payloads that are in shards which have yet to be written."""
        return {place for task in self.shards_todo for place in task.detail.places}

    @property
    def places(self) -> set[str]:
        """All scratch files of payloads."""
        return {task.detail.place for task in self._plan.encodes}

    @cached_property
    def shards(self) -> list[Task]:
        """The files of payloads; all tensors are coded by now."""
        groups = grouped(self._payloads(), self._opened.order.maker.shard_nbytes)
        names = (final_name(number, len(groups)) for number in range(1, len(groups) + 1))
        return [
            Task(
                name=name,
                nbytes=sum(payload.nbytes for payload in group),
                detail=ShardPart(file=name, payloads=tuple(group)),
            )
            for name, group in zip(names, groups, strict=True)
        ]

    def _payloads(self) -> Iterator[Waiting]:
        """All payloads, in the order of the target's tensors."""
        for task in self._plan.encodes:
            start = 0
            found: Encoded = self._results[task.name]
            for one in found.coded:
                if one.payload is not None:
                    yield Waiting(
                        name=one.name,
                        nbytes=one.nbytes,
                        digest=one.payload,
                        place=task.detail.place,
                        start=start,
                    )
                    start += one.nbytes

    @cached_property
    def _written(self) -> dict[str, FileEntry]:
        """The files of payloads that are there."""
        found: Iterator[tuple[str, FileEntry]] = results_of(self.shards, self._done)
        return {
            name: entry
            for name, entry in found
            if name in self._fresh or self._folder.holds(name, entry.size)
        }

    @property
    def shards_todo(self) -> list[Task]:
        """The files of payloads that have yet to be written."""
        return [task for task in self.shards if task.name not in self._written]

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """The files of payloads; all are there by now."""
        return tuple(self._written[task.name] for task in self.shards)

    @property
    def read_backs(self) -> list[Task]:
        """Parts that read back what was written."""
        shards = [
            Task(
                name=f"read back {task.name}",
                nbytes=task.nbytes,
                detail=ReadShardPart(shard=task.detail),
            )
            for task in self.shards
        ]
        plain = [
            Task(
                name=f"read back {entry.path}",
                nbytes=entry.size,
                detail=ReadPlainPart(entry=entry, maker=task.name),
            )
            for task in self._plan.encodes
            if (entry := self._results[task.name].plain) is not None
        ]
        return [*shards, *plain]

    def changed(self, aliases: Mapping[str, str]) -> list[str]:
        """Files of the target that were not the same for all who read them.

        All parts are done by now that read the inputs. `aliases` are target tensors whose
        bytes another one had when the work was begun.
        """
        target = self._opened.inputs.target
        digests = {coded.name: coded.digest for coded in self._coded()}
        other = {target.home(n) for n, of in aliases.items() if digests[n] != digests[of]}
        for file in target.files:
            whole = self._plan.wholes.get(file.name)
            if whole is not None:
                names = (placed.spec.name for placed in file.layout.tensors)
                found = combined(digests[name] for name in names)
                if self._results[whole.name][1] != found:
                    other.add(file.name)
        return sorted(other)

    def _coded(self) -> Iterator[Coded]:
        """All tensors, in their order."""
        for task in self._plan.encodes:
            found: Encoded = self._results[task.name]
            yield from found.coded

    def content(self, aliases: Mapping[str, str], kept: Collection[str]) -> Content:
        """What the tensors came to; all parts are done by now that read the inputs.

        Args:
            aliases: target tensors whose bytes another one has.
            kept: names of parts that an earlier run had done.
        """
        content = Content(base=self._opened.inputs.base, aliases=aliases)
        for file in self._opened.inputs.target.files:
            for task in self._plan.files[file.name]:
                part: Encoded = self._results[task.name]
                for coded in part.coded:
                    content.take(coded, kept=task.name in kept)
                if part.plain is not None:
                    content.plain.append(part.plain)
            whole = self._plan.wholes.get(file.name)
            digest = part.sha256 if whole is None else self._results[whole.name][0]
            content.close(file, digest)
        for task in self._plan.bases:
            content.digests |= self._results[task.name]
        return content

    def materials(self, manifest: Manifest) -> list[Material]:
        """What went in, given the manifest."""
        digests = {
            f"{TARGET}/{name}": entry.sha256 for name, entry in manifest.rebuilt.items()
        }
        for name, task in self._plan.sources.items():
            digests[name] = self._results[task.name]
        return [
            Material(name=name, sha256=digests[name], uri=source.uri)
            for source in self._opened.order.maker.notary.sources
            for name in (f"{source.role}/{file}" for file in source.files)
        ]
