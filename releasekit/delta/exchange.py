"""The work of a swap: chunks of a model in memory, from base to target and back.

Each chunk is made beside its place and put there whole, and once it is there, what it
takes to undo it is noted. So at any time a chunk is the base's or the target's, and it is
known which, so that whatever stops the work can be taken back. Going back, all frames that
are needed are first held against what was read before; only then does a chunk change.

A payload is undone as `codec.undo` says. Some tensors are not the base's: new ones, rows
that the base lacks, and aliases, which repeat another tensor. What the model held there is
kept as frames on the target's. An alias that repeated the other before, too, is undone by
repeating it again.

Whether the memory is what it should be, digests say in the end, both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import Final

import numpy as np

from releasekit.checkpoint.hashing import hash_tensors
from releasekit.codec import undo
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import as_words
from releasekit.codec.scratch import scratch
from releasekit.codec.undo import Undo
from releasekit.delta.predict import Predictor
from releasekit.delta.release import Release
from releasekit.device.memory import ModelMemory
from releasekit.digest import blake3
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    ReleaseKitError,
)
from releasekit.names import shown
from releasekit.operations import Op
from releasekit.pipeline import PAGE, Buffer, Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import Need, Resources

#: Bytes of BLAKE3 by which a frame is known again.
_DIGEST_NBYTES: Final = 16


class TensorError(Exception):
    """What is wrong with one tensor; the cause says what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How to make one tensor's chunks."""

    name: str
    chunking: Chunking
    predictor: Predictor | None  # None if another tensor is repeated
    frames: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What takes a chunk back, and the digest of the frame that it needs, if any."""

    undo: Undo
    frame: bytes


class Exchange:
    """The tensors that a release changes, in a model that holds its base.

    Attributes:
        memory: the model's tensors, by the names of the target's.
    """

    def __init__(self, release: Release, memory: ModelMemory) -> None:
        """Prepare; reads and changes nothing.

        Args:
            release: the release; it must stay open.
            memory: the model's tensors, which begin with the bytes of the base's.
        """
        self.memory = memory
        self._release = release
        self._manifest = release.manifest
        operations = self._manifest.operations
        self._made = memory.apart(n for n, o in operations.items() if o.op.has_payload)
        repeated = memory.apart(
            name
            for name, operation in operations.items()
            if operation.of and not memory.lie_together(name, operation.of)
        )
        self._repeated = [
            name
            for name in repeated
            if not any(memory.lie_together(name, other) for other in self._made)
        ]
        self._ways: dict[str, _Way] = {}
        self._records: dict[tuple[str, int], _Record] = {}
        self._copies: list[str] = []
        self._before: dict[str, str] = {}

    @property
    def need(self) -> Need:
        """Memory that the largest chunk needs."""
        nothing = Need(buffer=0, scratch=0)
        return reduce(Need.__or__, map(self._need, self._changed), nothing)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept to go back."""
        records = self._records.values()
        return sum(len(record.undo.data) + len(record.frame) for record in records)

    @property
    def pending(self) -> int:
        """How many chunks hold the target's content, which was not the base's."""
        return len(self._records)

    @property
    def _changed(self) -> list[str]:
        return [*self._made, *self._repeated]

    def _need(self, name: str) -> Need:
        chunking = self._release.chunking(name)
        chunk, word = chunking.chunk_nbytes, chunking.word
        predictor = self._predictor(name)
        spare = 0 if predictor is None else predictor.spare_nbytes
        # The payload is read, its groups are cut out of it; what was held is put beside.
        scratch = 4 * chunk + undo.undo_nbytes(chunk // chunking.word_nbytes, word)
        return Need(buffer=chunk + PAGE + spare, scratch=scratch)

    def _predictor(self, name: str) -> Predictor | None:
        if self._manifest.operations[name].of:
            return None
        return Predictor(
            base=self.memory,
            source=self._manifest.predictor(name),
            target=self._manifest.target[name],
            chunking=self._release.chunking(name),
            plain=self._release.plain,
            plain_name=name,
        )

    def _way(self, name: str) -> _Way:
        """How to make a tensor; kept, since nothing is to be read twice but frames."""
        if name in self._ways:
            return self._ways[name]
        predictor = self._predictor(name)
        frames = [] if predictor is None else self._release.frame_offsets(name)
        way = self._ways[name] = _Way(
            name=name,
            chunking=self._release.chunking(name),
            predictor=predictor,
            frames=frames,
        )
        return way

    def swap_in(self, resources: Resources, progress: ProgressCallback | None) -> None:
        """Put the target in the base's place. The base's digests were checked.

        Raises:
            TensorError: if a tensor cannot be made, or is not what it should be.
        """
        self.memory.settle()
        with Workers(resources.threads) as workers:
            self._before = self._digests_before(workers)
            operations = self._manifest.operations
            copies = [n for n in self._repeated if self._repeats(n)]
            others = [n for n in self._repeated if n not in copies]
            stage = self._stage(progress, "swap in", [*self._made, *others])
            self._each(self._swap_chunk, self._made, workers, resources, stage)
            self._each(self._swap_chunk, others, workers, resources, stage)
            self._copies = copies
            for name in copies:
                self.memory.copy(operations[name].of or name, name)
            wanted = {name: operations[name].digest for name in self._changed}
            self._check(wanted, workers, progress)

    def swap_out(
        self,
        resources: Resources,
        progress: ProgressCallback | None,
    ) -> None:
        """Take back all that `swap_in` did, or, once interrupted, what is left of it.

        Args:
            resources: threads and buffers to use.
            progress: called with the state of each stage.

        Raises:
            IntegrityError: if the release's files have changed; nothing has been undone.
            TensorError: if a tensor is not what it was before.
        """
        self.memory.settle()
        with Workers(resources.threads) as workers:
            rank = {name: place for place, name in enumerate(self._changed)}
            keys = sorted(self._records, key=lambda key: (rank[key[0]], key[1]))
            recalled = workers.in_order(lambda key, _: self._recall(*key), keys)
            with closing(recalled):
                for _ in recalled:
                    pass
            nbytes = [self._way(name).chunking.span(index)[1] for name, index in keys]
            stage = Stage(progress, "swap out", sum(nbytes))

            def take_back(key: tuple[str, int], space: Buffer) -> None:
                stage.advance(self._undo_chunk(*key, space))

            undone = workers.in_order(take_back, keys, resources.buffers())
            with closing(undone):
                # A file that cannot be read is not the model's fault.
                _drain(undone, keys, (BaseMismatchError, FormatError))
            for name in self._copies:
                self.memory.copy(self._manifest.operations[name].of or name, name)
            self._check(self._before, workers, progress)

    def _digests_before(self, workers: Workers) -> dict[str, str]:
        """What the model holds where it is to change, as digests."""
        base, operations = self._manifest.base, self._manifest.operations
        known = {
            name: base[name].digest
            for name in self._changed
            if operations[name].op is Op.DELTA  # which were checked
        }
        others = [name for name in self._changed if name not in known]
        stage = self._stage(None, "check", others)
        return known | dict(hash_tensors(self.memory, others, workers, stage))

    def _repeats(self, name: str) -> bool:
        """Whether an alias holds what the tensor does that it is to repeat."""
        source = self._manifest.operations[name].of or name
        specs = self._manifest.target
        held = next((n for n in self._made if self.memory.lie_together(n, source)), None)
        found = self._before[held] if held else self._manifest.operations[source].digest
        return specs[name].nbytes == specs[source].nbytes and self._before[name] == found

    def _stage(
        self, progress: ProgressCallback | None, title: str, names: Iterable[str]
    ) -> Stage:
        total = sum(self._manifest.target[name].nbytes for name in names)
        return Stage(progress, title, total)

    def _each(
        self,
        work: Callable[[_Way, int, Buffer], int],
        names: Iterable[str],
        workers: Workers,
        resources: Resources,
        stage: Stage,
    ) -> None:
        """Do something with each chunk of the named tensors."""
        items: list[tuple[str, int]] = []

        def every() -> Iterator[tuple[_Way, int]]:
            for name in names:
                try:
                    way = self._way(name)
                except (FormatError, IntegrityError) as error:
                    raise TensorError(name) from error
                for index in range(way.chunking.count):
                    items.append((name, index))
                    yield way, index

        def run(item: tuple[_Way, int], space: Buffer) -> None:
            stage.advance(work(*item, space))

        done = workers.in_order(run, every(), resources.buffers())
        with closing(done):
            _drain(done, items, (BaseMismatchError, FormatError, IntegrityError))

    def _swap_chunk(self, way: _Way, index: int, space: Buffer) -> int:
        """Put the target's chunk into its place, and note what was there."""
        start, nbytes = way.chunking.span(index)
        word, row = way.chunking.word, way.chunking.row
        out, spare = space[:nbytes], space[way.chunking.chunk_nbytes + PAGE :]
        frame, predictor = b"", way.predictor
        held = None
        if predictor is None or not _is_held(predictor, start + nbytes):
            held = as_words(scratch("held", nbytes, np.uint8), word)
            self.memory.read(way.name, start, held.view(np.uint8))
        if predictor is None:
            source = self._manifest.operations[way.name].of or way.name
            self.memory.read(source, start, out)
            assert held is not None  # for mypy; said above
            made = undo.replaced(as_words(out, word), held, word=word, row=row)
        else:
            predictor.read(index, out, spare)
            predictor.add_plain(index, out, spare)
            frame = self._frame(way, index)
            made = undo.decode(
                frame,
                as_words(out, word),
                word=word,
                row=row,
                where=self._where(way, index),
                before=held,
            )
        if made.is_nothing:
            return nbytes
        self.memory.write(way.name, start, out)
        known = _digest(frame) if made.needs_frame else b""
        self._records[way.name, index] = _Record(undo=made, frame=known)
        return nbytes

    def _recall(self, name: str, index: int) -> None:
        """See that a frame that is needed is still there."""
        way, known = self._way(name), self._records[name, index].frame
        if known and _digest(self._frame(way, index)) != known:
            raise IntegrityError(
                f"{self._where(way, index)}: has changed since it was swapped in: put the "
                "release's files back as they were"
            )

    def _undo_chunk(self, name: str, index: int, space: Buffer) -> int:
        """Take one chunk back."""
        way, record = self._way(name), self._records[name, index]
        start, nbytes = way.chunking.span(index)
        out = space[:nbytes]
        self.memory.read(way.name, start, out)
        undo.undo(
            record.undo,
            self._frame(way, index) if record.undo.needs_frame else b"",
            as_words(out, way.chunking.word),
            word=way.chunking.word,
            row=way.chunking.row,
            where=self._where(way, index),
        )
        self.memory.write(way.name, start, out)
        del self._records[name, index]
        return nbytes

    def _frame(self, way: _Way, index: int) -> bytes:
        return self._release.payload(way.name, way.frames[index], way.frames[index + 1])

    def _where(self, way: _Way, index: int) -> str:
        return f"{self._release.folder}: payload {shown(way.name)}[{index}]"

    def _check(
        self,
        wanted: Mapping[str, str],
        workers: Workers,
        progress: ProgressCallback | None,
    ) -> None:
        """Hold tensors against their digests."""
        stage = self._stage(progress, "check", wanted)
        for name, found in hash_tensors(self.memory, wanted, workers, stage):
            if found != wanted[name]:
                raise TensorError(name) from IntegrityError(
                    f"expected digest {wanted[name]}, found {found}"
                )


def _drain(
    done: Iterator[object],
    items: list[tuple[str, int]],
    faults: tuple[type[ReleaseKitError], ...],
) -> None:
    """Wait for chunks to be done; TensorError for the first that fails in such a way."""
    count = 0
    try:
        for _ in done:
            count += 1
    except faults as error:
        raise TensorError(items[count][0]) from error


def _is_held(predictor: Predictor, stop: int) -> bool:
    """Whether the prediction, up to byte `stop`, is what the model holds there."""
    source = predictor.source
    return predictor.plain is None and source is not None and stop <= source.nbytes


def _digest(frame: bytes) -> bytes:
    return blake3(frame).digest(length=_DIGEST_NBYTES)
