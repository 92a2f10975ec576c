"""Encode one target file after another against the base, in one streaming pass.

The pass reads each tensor of base and target once, and takes from it all that the release
needs: frames, the digests of both tensors, the file's digest, and how much was unchanged.
Each frame is decoded again where it was made, as a user will, and compared with the target
word for word while all is still in the cache: a proof of the round trip for a fraction of
what a second pass would cost. A tensor that an interrupted run had coded is only read and
hashed. Plain differences, where the codec has them, are written on the way, each time anew.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint, LaidOut, LaidOutFile
from releasekit.checkpoint.hashing import hash_from, hash_tensors
from releasekit.codec import Ulp, ulp
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import as_words
from releasekit.delta.journal import Coded, Journal
from releasekit.delta.plain import CHUNKS, PlainFile
from releasekit.delta.plan import choose_op
from releasekit.delta.predict import Predictor
from releasekit.delta.shards import ShardWriter
from releasekit.digest import blake3, sha256
from releasekit.errors import IntegrityError
from releasekit.manifest import FileEntry, WeightEntry
from releasekit.names import shown
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.output import OutputFolder
from releasekit.pipeline import Buffers, Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import Need
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


@dataclass(slots=True, kw_only=True)
class _Chunk:
    """What a worker made of one chunk; arrays are views of its buffer."""

    frame: bytes
    target: NDArray[np.uint8]
    base: NDArray[np.uint8]
    difference: NDArray[np.uint8]
    unchanged: int = 0


class StaleJournalError(Exception):
    """A tensor is not what it was when an interrupted run coded it."""


class Encoder:
    """Codes a target; `operations` and `base` fill up as it goes.

    Attributes:
        operations: each finished target tensor's operation.
        base: digests of the base's tensors that were read on the way.
        payloads: BLAKE3 of each payload.
        plain: the files of plain differences, if the codec has them.
        kept: number of tensors that an earlier run had coded.
        unchanged: number of words that equal the base's prediction.
        words: number of words that have a base.
    """

    def __init__(
        self,
        base: Checkpoint,
        target: LaidOut,
        aliases: dict[str, str],
        codec: Ulp,
        shards: ShardWriter,
        journal: Journal,
        folder: OutputFolder,
        combine: ulp.Combine = ulp.combine,
    ) -> None:
        self.operations: dict[str, Operation] = {}
        self.base: dict[str, BaseTensor] = {}
        self.payloads: dict[str, str] = {}
        self.plain: list[FileEntry] = []
        self.kept = 0
        self.unchanged = 0
        self.words = 0
        self._base = base
        self._target = target
        self._aliases = aliases
        self._codec = codec
        self._shards = shards
        self._journal = journal
        self._folder = folder
        self._combine = combine
        self._plain: PlainFile | None = None

    def file(
        self, file: LaidOutFile, workers: Workers, buffers: Buffers, stage: Stage
    ) -> WeightEntry:
        """Code all tensors of one target file."""
        with ExitStack() as stack:
            self._plain = None
            if self._codec.plain:
                self._plain = stack.enter_context(PlainFile(self._folder, file))
            entry = self._file(file, workers, buffers, stage)
            if self._plain is not None:
                self.plain.append(self._plain.finish())
        return entry

    def _file(
        self, file: LaidOutFile, workers: Workers, buffers: Buffers, stage: Stage
    ) -> WeightEntry:
        jobs = [self._job(placed.spec) for placed in file.layout.tensors]
        items = ((job, index) for job in jobs for index in range(job.chunking.count))
        hasher = sha256(file.layout.prefix)
        with closing(workers.in_order(self._code, items, buffers)) as coded:
            for job in jobs:
                target, base, unchanged = blake3(), blake3(), 0
                if job.coded:
                    self._shards.begin(job.spec.name)
                for _ in range(job.chunking.count):
                    _, chunk = next(coded)
                    hasher.update(chunk.target.data)
                    target.update(chunk.target.data)
                    base.update(chunk.base.data)
                    if self._plain is not None:
                        self._plain.consume(chunk.difference)
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
            predictor=_predictor(self._base, spec, op, self._codec),
            known=self._journal.tensors.get(spec.name),
        )

    def _code(self, item: tuple[_Job, int], buffer: NDArray[np.uint8]) -> _Chunk:
        job, index = item
        chunk = job.chunking.chunk_nbytes
        start, nbytes = job.chunking.span(index)
        target, predicted, proof = (buffer[i * chunk :][:nbytes] for i in range(3))
        self._target.read(job.spec.name, start, target)
        difference = target[:0]
        if self._plain is None:
            base = job.predictor.read(index, predicted, buffer[3 * chunk :])
        else:
            raw, space = buffer[3 * chunk :][:nbytes], buffer[4 * chunk :]
            base = job.predictor.read(index, raw, buffer[(3 + CHUNKS) * chunk :])
            predicted[:] = raw
            source = job.predictor.source
            other = source is not None and source.dtype is not job.spec.dtype
            difference = self._plain.predict(
                *(job.spec, start, target, predicted, space),
                raw=(base, source.dtype) if source and other else None,
            )
        made = _Chunk(frame=b"", target=target, base=base, difference=difference)
        if not job.coded:
            return made
        word = job.chunking.word
        words, known = as_words(target, word), as_words(predicted, word)
        row = job.chunking.row
        frame = ulp.encode(known, words, word=word, row=row)
        proof[:] = predicted
        where = f"tensor {shown(job.spec.name)}[{index}]"
        ulp.decode(
            frame,
            as_words(proof, word),
            word=word,
            row=row,
            where=where,
            combine=self._combine,
        )
        if not ulp.same(proof, target):
            raise IntegrityError(
                f"{where}: what was coded decodes to something else: this machine's memory "
                "fails, or releasekit has a defect; try again, and report it if it persists"
            )
        made.frame = frame
        made.unchanged = int(np.count_nonzero(known == words))
        return made

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
        if coded.payload is not None:
            self.payloads[coded.name] = coded.payload
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


def _predictor(base: Checkpoint, spec: TensorSpec, op: Op, codec: Ulp) -> Predictor:
    return Predictor(
        base=base,
        source=base.specs[spec.name] if op in (Op.DELTA, Op.RESIZE) else None,
        target=spec,
        chunking=Chunking.of(spec, codec.chunk),
    )


def need(base: Checkpoint, target: Checkpoint, codec: Ulp) -> Need:
    """Memory that the largest chunk of a target needs."""
    found = Need(buffer=0, scratch=0)
    for spec in target.specs.values():
        op = choose_op(base.specs.get(spec.name), spec)
        predictor = _predictor(base, spec, op, codec)
        chunk, word = predictor.chunking.chunk_nbytes, predictor.chunking.word
        words = chunk * 8 // word.bits
        # Target, prediction, proof, perhaps a plain difference; what is cast; frames as
        # parts and as a whole.
        found |= Need(
            buffer=(3 + CHUNKS * codec.plain) * chunk + predictor.spare_nbytes,
            scratch=2 * chunk + ulp.encode_nbytes(words, word),
        )
    return found


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
    return {
        name: BaseTensor(spec=base.specs[name], digest=digest)
        for name, digest in hash_tensors(base, names, workers, stage)
    }
