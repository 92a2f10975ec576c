"""Encode one target file after another against the base, in one streaming pass.

The pass reads each tensor of base and target once, and takes from it all that the release
needs: frames, the digests of both tensors, the file's digest, and how much was unchanged.
A tensor that an interrupted run had coded is only read and hashed.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint, WeightFile
from releasekit.codec import Ulp, ulp
from releasekit.codec.chunks import Chunking
from releasekit.delta.journal import Coded, Journal
from releasekit.delta.plan import choose_op
from releasekit.delta.predict import Predictor, as_words
from releasekit.delta.rebuild import hash_from, hash_tensor
from releasekit.delta.shards import ShardWriter
from releasekit.digest import blake3, sha256
from releasekit.manifest import FileEntry, WeightEntry
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """How one target tensor is read and coded; an alias is only read."""

    spec: TensorSpec
    op: Op
    predictor: Predictor
    known: Coded | None

    @property
    def chunking(self) -> Chunking:
        return self.predictor.chunking

    @property
    def coded(self) -> bool:
        """Whether chunks are coded, rather than only read."""
        return self.known is None and self.op is not Op.ALIAS

    @property
    def buffer_nbytes(self) -> int:
        return self.chunking.chunk_nbytes + self.predictor.buffer_nbytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """What a worker made of one chunk; arrays are views of its buffer."""

    frame: bytes
    target: NDArray[np.uint8]
    base: NDArray[np.uint8]
    unchanged: int


class StaleJournalError(Exception):
    """A tensor is not what it was when an interrupted run coded it."""


class Encoder:
    """Codes a target; `operations` and `base` fill up as it goes.

    Attributes:
        operations: each finished target tensor's operation.
        base: digests of the base's tensors that were read on the way.
        kept: number of tensors that an earlier run had coded.
        unchanged: number of words that equal the base's prediction.
        words: number of words that have a base.
    """

    def __init__(
        self,
        base: Checkpoint,
        target: SafetensorsCheckpoint,
        aliases: dict[str, str],
        codec: Ulp,
        shards: ShardWriter,
        journal: Journal,
    ) -> None:
        self.operations: dict[str, Operation] = {}
        self.base: dict[str, BaseTensor] = {}
        self.kept = 0
        self.unchanged = 0
        self.words = 0
        self._base = base
        self._target = target
        self._aliases = aliases
        self._codec = codec
        self._shards = shards
        self._journal = journal

    def file(self, file: WeightFile, workers: Workers, stage: Stage) -> WeightEntry:
        """Code all tensors of one target file."""
        jobs = [self._job(placed.spec) for placed in file.layout.tensors]
        items = ((job, index) for job in jobs for index in range(job.chunking.count))
        hasher = sha256(file.layout.prefix)
        buffer = max((job.buffer_nbytes for job in jobs), default=0)
        with closing(workers.in_order(self._code, items, buffer)) as coded:
            for job in jobs:
                target, base, unchanged = blake3(), blake3(), 0
                if job.coded:
                    self._shards.begin(job.spec.name, job.chunking.count)
                for _ in range(job.chunking.count):
                    _, chunk = next(coded)
                    hasher.update(chunk.target.data)
                    target.update(chunk.target.data)
                    base.update(chunk.base.data)
                    if job.coded:
                        self._shards.add(chunk.frame)
                        unchanged += chunk.unchanged
                    stage.advance(chunk.target.size)
                self._finish(
                    job, target.hexdigest(), self._base_digest(job, base), unchanged
                )
        return WeightEntry(
            file=FileEntry(
                path=file.name, size=file.layout.file_size, sha256=hasher.hexdigest()
            ),
            layout=file.layout,
        )

    def _job(self, spec: TensorSpec) -> _Job:
        source = self._base.specs.get(spec.name)
        op = Op.ALIAS if spec.name in self._aliases else choose_op(source, spec)
        return _Job(
            spec=spec,
            op=op,
            predictor=Predictor(
                base=self._base,
                source=source if op in (Op.DELTA, Op.RESIZE) else None,
                target=spec,
                chunking=Chunking.of(spec, self._codec.chunk),
            ),
            known=self._journal.tensors.get(spec.name),
        )

    def _code(self, item: tuple[_Job, int], buffer: NDArray[np.uint8]) -> _Chunk:
        job, index = item
        start, nbytes = job.chunking.span(index)
        target, rest = buffer[:nbytes], buffer[job.chunking.chunk_nbytes :]
        self._target.read(job.spec.name, start, target)
        predicted, base = job.predictor.read(index, rest)
        if not job.coded:
            return _Chunk(frame=b"", target=target, base=base, unchanged=0)
        words = as_words(target, job.chunking.word)
        frame = ulp.encode(
            predicted,
            words,
            word=job.chunking.word,
            row=job.chunking.row,
            level=self._codec.level,
        )
        return _Chunk(
            frame=frame,
            target=target,
            base=base,
            unchanged=int(np.count_nonzero(predicted == words)),
        )

    def _base_digest(self, job: _Job, hasher: blake3) -> str | None:
        """Complete the digest of a base tensor with the rows that the target cut off."""
        source = job.predictor.source
        if source is None:
            return None
        hash_from(hasher, self._base, source.name, job.predictor.shared_nbytes)
        digest: str = hasher.hexdigest()
        self.base[source.name] = BaseTensor(spec=source, digest=digest)
        return digest

    def _finish(self, job: _Job, digest: str, base: str | None, unchanged: int) -> None:
        """Settle a tensor's operation, and keep its payload if it has one."""
        coded = job.known
        if coded is None:
            same = base == digest and job.predictor.source == job.spec
            coded = self._coded(job, Op.SAME if same else job.op, digest, base, unchanged)
            self._journal.add_tensor(coded)
        elif (coded.digest, coded.base) != (digest, base):
            raise StaleJournalError(job.spec.name)
        elif coded.payload is not None:
            self._shards.keep(coded)
        self.kept += job.known is not None
        self.unchanged += coded.unchanged
        self.words += coded.words
        self.operations[coded.name] = Operation(
            op=coded.op, digest=digest, of=self._aliases.get(coded.name)
        )

    def _coded(
        self, job: _Job, op: Op, digest: str, base: str | None, unchanged: int
    ) -> Coded:
        nbytes, payload = 0, None
        if op.has_payload:
            nbytes, payload = self._shards.end()
        elif job.coded:
            self._shards.drop()
        predicted = job.predictor.source is not None
        return Coded(
            name=job.spec.name,
            op=op,
            digest=digest,
            base=base,
            nbytes=nbytes,
            payload=payload,
            unchanged=unchanged if predicted else 0,
            words=job.chunking.words if predicted else 0,
        )


def hash_base(
    base: Checkpoint,
    names: list[str],
    workers: Workers,
    progress: ProgressCallback | None,
) -> dict[str, BaseTensor]:
    """Digests of base tensors that no operation reads, for the base's identity."""
    if not names:
        return {}
    stage = Stage(progress, "hash base", sum(base.specs[name].nbytes for name in names))
    tensors = {}
    hashed = workers.in_order(lambda name, _: hash_tensor(base, name), names, 0)
    for name, digest in hashed:
        tensors[name] = BaseTensor(spec=base.specs[name], digest=digest)
        stage.advance(base.specs[name].nbytes)
    return tensors
