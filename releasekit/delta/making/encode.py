"""Encode tensors of a target against the base, in one streaming pass.

The pass reads each tensor of base and target once, and takes from it all that the release
needs: frames, the digests of both tensors, the file's digest, and how much was unchanged.
Each frame is decoded again where it was made, as a user will, and compared with the target
word for word while all is still in the cache: a proof of the round trip for a fraction of
what a second pass would cost. A tensor that an interrupted run had coded is only read and
hashed. Plain differences, where the codec has them, are written on the way, each time anew.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import Digesting, hash_from
from releasekit.codec import Ulp, ulp
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import as_words
from releasekit.delta.making.journal import Coded
from releasekit.delta.making.payloads import Payloads
from releasekit.delta.making.plan import choose_op
from releasekit.delta.plain import CHUNKS, PlainFile
from releasekit.delta.predict import Predictor
from releasekit.digest import Hash, blake3
from releasekit.errors import IntegrityError
from releasekit.names import shown
from releasekit.operations import Op
from releasekit.pipeline import Buffers, Workers
from releasekit.progress import Stage
from releasekit.resources import Need
from releasekit.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """How one target tensor is read and coded; an alias is only read."""

    spec: TensorSpec
    op: Op
    predictor: Predictor
    known: Coded | None
    plain: PlainFile | None

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
    """Codes tensors of a target."""

    def __init__(
        self,
        base: Checkpoint,
        target: Checkpoint,
        aliases: Mapping[str, str],
        codec: Ulp,
        payloads: Payloads,
        known: Mapping[str, Coded],
        combine: ulp.Combine = ulp.combine,
    ) -> None:
        """Prepare.

        Args:
            base: the base.
            target: what is released.
            aliases: target tensors whose bytes another one has.
            codec: how to code.
            payloads: where payloads go.
            known: what an earlier run had coded, by name: this is read and hashed alone.
            combine: adds residuals, for proof.
        """
        self._base = base
        self._target = target
        self._aliases = aliases
        self._codec = codec
        self._payloads = payloads
        self._known = known
        self._combine = combine

    def tensors(
        self,
        specs: Iterable[TensorSpec],
        hasher: Hash,
        workers: Workers,
        buffers: Buffers,
        stage: Stage,
        plain: PlainFile | None = None,
    ) -> Generator[Coded]:
        """Code tensors; yields each once it is finished, its payload being on file.

        Args:
            specs: the tensors, in the order of their file.
            hasher: takes in their bytes.
            workers: do it.
            buffers: lend memory for chunks.
            stage: is told of the target's bytes that are done.
            plain: takes the tensors' plain differences, if the codec has any.

        Raises:
            StaleJournalError: if a tensor that is known is not what it was.
            IntegrityError: if what was coded decodes to something else.
        """
        jobs = [self._job(spec, plain) for spec in specs]
        items = ((job, index) for job in jobs for index in range(job.chunking.count))
        with closing(workers.in_order(self._code, items, buffers)) as chunks:
            for job in jobs:
                target, base, unchanged = blake3(), blake3(), 0
                if job.coded:
                    self._payloads.begin(job.spec.name)
                for _ in range(job.chunking.count):
                    _, chunk = next(chunks)
                    hasher.update(chunk.target.data)
                    target.update(chunk.target.data)
                    if not isinstance(self._base, Digesting):
                        base.update(chunk.base.data)
                    if plain is not None:
                        plain.consume(chunk.difference)
                    if job.coded:
                        self._payloads.add(chunk.frame)
                        unchanged += chunk.unchanged
                    stage.advance(chunk.target.size)
                yield self._finish(
                    job, target.hexdigest(), self._base_digest(job, base), unchanged
                )

    def _job(self, spec: TensorSpec, plain: PlainFile | None) -> _Job:
        source = self._base.specs.get(spec.name)
        op = Op.ALIAS if spec.name in self._aliases else choose_op(source, spec)
        return _Job(
            spec=spec,
            op=op,
            predictor=_predictor(self._base, spec, op, self._codec),
            known=self._known.get(spec.name),
            plain=plain,
        )

    def _code(self, item: tuple[_Job, int], buffer: NDArray[np.uint8]) -> _Chunk:
        job, index = item
        chunk = job.chunking.chunk_nbytes
        start, nbytes = job.chunking.span(index)
        target, predicted, proof = (buffer[i * chunk :][:nbytes] for i in range(3))
        self._target.read(job.spec.name, start, target)
        difference = target[:0]
        if job.plain is None:
            base = job.predictor.read(index, predicted, buffer[3 * chunk :])
        else:
            raw, space = buffer[3 * chunk :][:nbytes], buffer[4 * chunk :]
            base = job.predictor.read(index, raw, buffer[(3 + CHUNKS) * chunk :])
            predicted[:] = raw
            source = job.predictor.source
            other = source is not None and source.dtype is not job.spec.dtype
            difference = job.plain.predict(
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
        if isinstance(self._base, Digesting):
            return self._base.digest(source.name)
        hash_from(hasher, self._base, source.name, job.predictor.shared_nbytes)
        digest: str = hasher.hexdigest()
        return digest

    def _finish(self, job: _Job, digest: str, base: str | None, unchanged: int) -> Coded:
        """Settle a tensor's operation, and end its payload if it has one."""
        known = job.known
        if known is not None:
            if (known.digest, known.base) != (digest, base):
                raise StaleJournalError(job.spec.name)
            return known
        same = base == digest and job.predictor.source == job.spec
        op = Op.SAME if same else job.op
        nbytes, payload = 0, None
        if op.has_payload:
            nbytes, payload = self._payloads.end()
        elif job.coded:
            self._payloads.drop()
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


def need(base: Checkpoint, specs: Iterable[TensorSpec], codec: Ulp) -> Need:
    """Memory that the largest chunk of some tensors of a target needs."""
    found = Need(buffer=0, scratch=0)
    for spec in specs:
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
