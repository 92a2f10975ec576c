"""A release in the making: has its parts done, and completes it once they are.

Records say what is done, whoever did it and when; see `Standing` for what follows from
them. Scratch files of payloads go as soon as the files made of them are recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from releasekit.checkpoint.locate import approach
from releasekit.delta.making.assembling import output_part
from releasekit.delta.making.made import MakeResult
from releasekit.delta.making.parts import EncodePart, InputPart, input_part
from releasekit.delta.making.pieces import Plan
from releasekit.delta.making.request import Opened
from releasekit.delta.making.standing import Standing, results_of
from releasekit.delta.making.told import Inputs, Making
from releasekit.delta.plain import plain_layout
from releasekit.delta.release import Release
from releasekit.errors import FormatError, IntegrityError
from releasekit.names import listed
from releasekit.output import OutputFolder
from releasekit.parts.outputs import needs_of
from releasekit.parts.records import Done, Records
from releasekit.parts.shares import require_done, run_parts
from releasekit.parts.tasks import (
    Advance,
    Batch,
    Here,
    Pool,
    Task,
    Work,
    perform,
    reports,
)
from releasekit.pipeline import Workers
from releasekit.progress import Stage
from releasekit.resources import memory_of_headers
from releasekit.strictjson import Record

_ALIASES: Final = "find aliases"


class Job:
    """A release in the making.

    Attributes:
        opened: what was asked for.
        spec: what every part is told.
        plan: the parts that read the inputs.
    """

    def __init__(
        self, opened: Opened, spec: Making, folder: OutputFolder, piece_nbytes: int
    ) -> None:
        """Begin, or go on with what others have begun.

        Args:
            opened: what was asked for.
            spec: what every part is told.
            folder: where the output is made.
            piece_nbytes: as for `Plan`.
        """
        self.opened = opened
        self.spec = spec
        self._folder = folder
        self._records = Records(spec.partial)
        self._done = self._records.read()
        self._fresh: set[str] = set()
        self._aliases = self._find_aliases()
        self.plan = Plan(opened, self._aliases, piece_nbytes)
        self._results = dict(results_of(self.plan.parts, self._done))

    def _find_aliases(self) -> dict[str, str]:
        """Target tensors whose bytes another has; who is the first to know notes it."""
        done = self._done.pop(_ALIASES, None)
        if done is not None:
            try:
                return _aliases(Record(done.facts, _ALIASES))
            except FormatError:
                self._records.forget(_ALIASES)
        with Workers() as workers:
            found = self.opened.order.maker.find_aliases(workers)

        def tell(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
            pairs = found.items()
            return {"aliases": [{"name": name, "of": source} for name, source in pairs]}

        perform(tell, self.spec, Task(name=_ALIASES, nbytes=0), lambda nbytes: None)
        return found

    @property
    def standing(self) -> Standing:
        """How far it is."""
        where = self.opened, self.plan, self._folder
        return Standing(*where, self._results, self._done, self._fresh)

    def encode(self, pool: Pool) -> frozenset[str]:
        """Have all parts done that read the inputs; returns those that were done before."""
        todo = self.standing.todo
        kept = {task.name for task in self.plan.parts} - {task.name for task in todo}
        self._require_space(todo)
        while todo:  # again, if payloads are found to be needed that are gone
            self._read_inputs(pool, todo, input_part)
            todo = self.standing.todo
        return frozenset(kept)

    def encode_share(self, mine: Iterable[Task]) -> list[Done]:
        """Do those of some such parts that have yet to be done, here."""
        names = {task.name for task in mine}
        todo = [task for task in self.standing.todo if task.name in names]
        self._require_space(todo)
        # They are open here already; that takes longer than many a part.
        return self._read_inputs(Here(), todo, partial(_with_inputs, self.opened.inputs))

    def require_encoded(self) -> None:
        """Refuse to complete what lacks parts; raises ReleaseKitError."""
        require_done(self.spec.partial, self.standing.todo, self.plan.parts)

    def _require_space(self, todo: Iterable[Task]) -> None:
        """As `Maker.space`: less than an eighth of the target is rare."""
        sizes = [t.nbytes // 8 for t in todo if isinstance(t.detail, EncodePart)]
        self._folder.require_space([*sizes, *self._plain_sizes()])

    def _plain_sizes(self) -> list[int]:
        if not self.spec.codec.plain:
            return []
        return [plain_layout(file).file_size for file in self.opened.inputs.target.files]

    def _read_inputs(
        self, pool: Pool, todo: Sequence[Task], work: Work[Making]
    ) -> list[Done]:
        encodes = [task for task in todo if isinstance(task.detail, EncodePart)]
        hashes = [task for task in todo if not isinstance(task.detail, EncodePart)]
        done = [
            *self._run(pool, self._batch(work, encodes, "encode")),
            *self._run(pool, self._single(work, hashes, "hash")),
        ]
        self._results |= results_of(todo, self._done)
        return done

    def _batch(
        self, work: Work[Making], tasks: Sequence[Task], stage: str
    ) -> Batch[Making]:
        inputs, resources = self.opened.inputs, self.opened.order.maker.resources
        headers = memory_of_headers(len(inputs.base.specs) + len(inputs.target.specs))
        return Batch(
            work=work,
            spec=self.spec,
            tasks=tasks,
            needs=needs_of(resources, headers, self.spec.device),
            stage=stage,
        )

    def _single(
        self, work: Work[Making], tasks: Sequence[Task], stage: str
    ) -> Batch[Making]:
        """Parts that hash or copy, each in one thread."""
        batch = self._batch(work, tasks, stage)
        return replace(batch, needs=replace(batch.needs, threads=1, gpus=0.0))

    def _run(self, pool: Pool, batch: Batch[Making]) -> list[Done]:
        done = run_parts(pool, batch, self.opened.order.maker.progress)
        for part in done:
            self._note(part)
        return done

    def _note(self, done: Done) -> None:
        self._done[done.name] = done
        self._fresh.add(done.name)

    def complete(self, pool: Pool, kept: frozenset[str], *, alone: bool) -> MakeResult:
        """Make the release appear, once all parts are done that read the inputs.

        Args:
            pool: does the others.
            kept: names of parts that an earlier run had done.
            alone: whether only what this run did is told of in the result.

        Raises:
            IntegrityError: if a file was not the same for all who read it, or the disk
                gives back something else than was written.
        """
        self._refuse_changed()
        content = self.standing.content(self._aliases, kept)
        self._assemble(pool)
        standing, order = self.standing, self.opened.order
        content.shards = standing.entries
        self._run(pool, self._single(output_part, standing.read_backs, "read back"))
        manifest, published = order.complete(self._folder, content, standing.materials)
        made = OutputFolder.made_in(self.spec.partial)
        with approach(made) as at, Release.open(at.path, coming=at.coming):
            pass  # as a user would
        self._folder.commit()
        done = [p for p in self._done.values() if p.name in self._fresh or not alone]
        result = order.result(
            self.spec.out,
            manifest,
            content,
            published=published,
            device=self.spec.device,
            seconds=0.0,
            workers=reports(done),
        )
        return replace(result, excluded=self.opened.excluded)

    def _refuse_changed(self) -> None:
        changed = self.standing.changed(self._aliases)
        wholes = [self.plan.wholes[name] for name in changed if name in self.plan.wholes]
        for task in (
            *wholes,
            *(task for name in changed for task in self.plan.files[name]),
        ):
            self._records.forget(task.name)
        if changed:
            self._records.forget(_ALIASES)
            raise IntegrityError(
                f"{self.opened.inputs.target.subject}: {listed(changed)}: not the same "
                "for all who read it: it was changed meanwhile, or a machine or a disk "
                "fails: run again, and it is read anew"
            )

    def _assemble(self, pool: Pool) -> None:
        """Have the files of payloads written that have yet to be."""
        standing = self.standing
        todo = {task.name: task for task in standing.shards_todo}
        left = Counter(place for task in todo.values() for place in task.detail.places)
        for place in standing.places - left.keys():
            self._folder.drop(place)
        if not todo:
            return
        sizes = [task.nbytes for task in standing.shards]
        self._folder.require_space([*sizes, *self._plain_sizes()])
        batch = self._single(output_part, list(todo.values()), "assemble")
        total = sum(task.nbytes for task in batch.tasks)
        stage = Stage(self.opened.order.maker.progress, batch.stage, total)
        for done in pool.run(batch, stage.advance):
            self._note(done)
            for place in todo[done.name].detail.places:
                left[place] -= 1
                if not left[place]:
                    self._folder.drop(place)


def _aliases(facts: Record) -> dict[str, str]:
    return {one.text("name"): one.text("of") for one in facts.records("aliases")}


def _with_inputs(
    inputs: Inputs, spec: Making, task: Task, advance: Advance
) -> Mapping[str, object]:
    """Do a part that reads the inputs, which are open."""
    part: InputPart = task.detail
    return part.do(spec, inputs, advance)
