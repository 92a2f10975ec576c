"""Encode one target file after another against the base, in one streaming pass.

The pass reads each tensor of base and target once, and takes from it all that the release
needs: frames, the digests of both tensors, the file's digest, and how much was unchanged.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint, WeightFile
from releasekit.codec import Ulp, ulp
from releasekit.codec.chunks import Chunking
from releasekit.delta.plan import choose_op
from releasekit.delta.predict import Predictor, as_words
from releasekit.delta.rebuild import hash_tensor
from releasekit.delta.shards import ShardWriter
from releasekit.digest import blake3, sha256
from releasekit.manifest import BaseTensor, FileEntry, Op, Operation, WeightEntry
from releasekit.pipeline import Workers
from releasekit.progress import Stage
from releasekit.tensors import TensorSpec

_READ: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """How one target tensor is read and coded; an alias is only read."""

    spec: TensorSpec
    op: Op
    predictor: Predictor

    @property
    def chunking(self) -> Chunking:
        return self.predictor.chunking


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coded:
    """What a worker made of one chunk; arrays are views of its buffer."""

    frame: bytes
    target: NDArray[np.uint8]
    base: NDArray[np.uint8]
    unchanged: int


class Encoder:
    """Codes a target; `operations`, `base` and `published` fill up as it goes.

    Attributes:
        operations: each finished target tensor's operation.
        base: digests of the base's tensors that were read on the way.
        published: size of each tensor's payload, 0 if it has none.
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
    ) -> None:
        self.operations: dict[str, Operation] = {}
        self.base: dict[str, BaseTensor] = {}
        self.published: dict[str, int] = {}
        self.unchanged = 0
        self.words = 0
        self._base = base
        self._target = target
        self._aliases = aliases
        self._codec = codec
        self._shards = shards

    def file(self, file: WeightFile, workers: Workers, stage: Stage) -> WeightEntry:
        """Code all tensors of one target file."""
        jobs = [self._job(placed.spec) for placed in file.layout.tensors]
        items = ((job, index) for job in jobs for index in range(job.chunking.count))
        hasher = sha256(file.layout.prefix)
        buffer = max((_buffer_nbytes(job) for job in jobs), default=0)
        with closing(workers.in_order(self._code, items, buffer)) as coded:
            for job in jobs:
                target, base = blake3(), blake3()
                self._shards.begin(job.chunking.count)
                for _ in range(job.chunking.count):
                    _, chunk = next(coded)
                    hasher.update(chunk.target.data)
                    target.update(chunk.target.data)
                    base.update(chunk.base.data)
                    self._shards.add(chunk.frame)
                    if job.predictor.source is not None and job.op is not Op.ALIAS:
                        self.unchanged += chunk.unchanged
                        self.words += chunk.target.size // job.chunking.word_nbytes
                    stage.advance(chunk.target.size)
                if job.predictor.source is not None and job.op is not Op.ALIAS:
                    self._finish_base(job, base)
                self._finish(job, target.hexdigest())
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
        )

    def _code(self, item: tuple[_Job, int], buffer: NDArray[np.uint8]) -> _Coded:
        job, index = item
        start, nbytes = job.chunking.span(index)
        target, rest = buffer[:nbytes], buffer[job.chunking.chunk_nbytes :]
        self._target.read(job.spec.name, start, target)
        if job.op is Op.ALIAS:
            return _Coded(frame=b"", target=target, base=rest[:0], unchanged=0)
        predicted, base = job.predictor.read(index, rest)
        words = as_words(target, job.chunking.word)
        frame = ulp.encode(
            predicted,
            words,
            word=job.chunking.word,
            row=job.chunking.row,
            level=self._codec.level,
        )
        return _Coded(
            frame=frame,
            target=target,
            base=base,
            unchanged=int(np.count_nonzero(predicted == words)),
        )

    def _finish_base(self, job: _Job, hasher: blake3) -> None:
        """Complete the digest of a base tensor with the rows that the target cut off."""
        source = job.predictor.source
        assert source is not None
        read = job.predictor.shared_nbytes
        buffer = np.empty(min(_READ, source.nbytes - read), np.uint8)
        for at in range(read, source.nbytes, _READ):
            part = buffer[: source.nbytes - at]
            self._base.read(source.name, at, part)
            hasher.update(part.data)
        self.base[source.name] = BaseTensor(spec=source, digest=hasher.hexdigest())

    def _finish(self, job: _Job, digest: str) -> None:
        name = job.spec.name
        of = self._aliases.get(name)
        known = self.base.get(name)
        same = known is not None and (known.spec, known.digest) == (job.spec, digest)
        op = Op.SAME if same and of is None else job.op
        if op.has_payload:
            self.published[name] = self._shards.end(name)
        else:
            self._shards.drop()
            self.published[name] = 0
        self.operations[name] = Operation(op=op, digest=digest, of=of)


def _buffer_nbytes(job: _Job) -> int:
    return job.chunking.chunk_nbytes + job.predictor.buffer_nbytes


def hash_base(
    base: Checkpoint, names: list[str], workers: Workers
) -> dict[str, BaseTensor]:
    """Digests of base tensors that no operation reads, for the base's identity."""
    hashed = workers.in_order(lambda name, _: hash_tensor(base, name), names, 0)
    return {
        name: BaseTensor(spec=base.specs[name], digest=digest) for name, digest in hashed
    }
