"""Rebuild the target, chunk by chunk, from base and release: the one decode path.

`apply` and `open_delta` come through here. Each chunk is made in a worker thread, in the
place that its `Sink` chooses; in order, it then runs through the digest of its tensor,
unless a file's digest covers it. What is wrong stops the work, with whose fault it is.

The release's own files are not hashed beforehand: the digests of what is rebuilt say more,
and reading the release twice would cost a tenth of the time. They are hashed only to name
the file that is to be downloaded again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.codec import ulp
from releasekit.codec.chunks import Chunking
from releasekit.codec.kernels import as_words
from releasekit.delta.diagnosis import wanted
from releasekit.delta.predict import Predictor
from releasekit.delta.release import Release
from releasekit.digest import blake3
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    ReleaseKitError,
)
from releasekit.names import shown
from releasekit.pipeline import PAGE, Buffers, Workers
from releasekit.resources import Need


class Sink(Protocol):
    """Where chunks go; each is `data`, the bytes of tensor `name` from `start` on."""

    def room(
        self, name: str, start: int, nbytes: int, spare: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Memory of `nbytes` to make a chunk in: of `spare`, a page larger, or its own."""

    def place(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Called in a worker thread once a chunk is made, before any digest is known."""

    def consume(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Called with the chunks in order, in the thread that drives the rebuild."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How to make one tensor's chunks."""

    payload: str | None  # whose payload corrects the prediction; None if it stands
    frames: list[int]
    predictor: Predictor

    @property
    def chunking(self) -> Chunking:
        """How the tensor is cut."""
        return self.predictor.chunking


class Rebuild:
    """The target's tensors, made from a release and a base."""

    def __init__(
        self, release: Release, base: Checkpoint, combine: ulp.Combine = ulp.combine
    ) -> None:
        self._release = release
        self._base = base
        self._combine = combine
        self.manifest = release.manifest

    def combining(self, combine: ulp.Combine) -> Rebuild:
        """The same, with residuals added by something else."""
        return Rebuild(self._release, self._base, combine)

    def need(self, names: Iterable[str]) -> Need:
        """Memory that the largest chunk of the named tensors needs."""
        predictors = [self._predictor(name) for name in names]
        need = reduce(Need.__or__, map(self._need, predictors), Need(buffer=0, scratch=0))
        read = dict.fromkeys(p.source.name for p in predictors if p.source is not None)
        if not (isinstance(self._base, Rebuild) and read):
            return need
        # What the release before makes comes first, in the same scratch space. Each thread
        # keeps a chunk of that beside its place, and may be making one of another tensor:
        # so the largest of each add up.
        before = self._base.need(read)
        scratch = max(need.scratch, before.scratch) + 2 * before.buffer
        return replace(need, scratch=scratch)

    def _need(self, predictor: Predictor) -> Need:
        chunk = predictor.chunking.chunk_nbytes
        words = chunk // predictor.chunking.word_nbytes
        # The payload is read, its groups are cut out of it, and decoded.
        scratch = 2 * chunk + ulp.decode_nbytes(words, predictor.chunking.word)
        if self._combine is not ulp.combine:
            scratch += 2 * chunk  # residuals on their way to a device
        return Need(buffer=chunk + PAGE + predictor.spare_nbytes, scratch=scratch)

    def _maker(self, name: str) -> str:
        """Whose operation makes a tensor: an alias is made anew, as its source is."""
        return self.manifest.operations[name].of or name

    def _predictor(self, name: str) -> Predictor:
        maker = self._maker(name)
        has_payload = self.manifest.operations[maker].op.has_payload
        return Predictor(
            base=self._base,
            source=self.manifest.predictor(maker),
            target=self.manifest.target[name],
            chunking=self._release.chunking(name),
            plain=self._release.plain if has_payload else None,
            plain_name=maker,
        )

    def _source(self, predictor: Predictor) -> Source:
        """How to make the predicted tensor; reads the table of its payload."""
        maker = self._maker(predictor.target.name)
        has_payload = self.manifest.operations[maker].op.has_payload
        return Source(
            payload=maker if has_payload else None,
            frames=self._release.frame_offsets(maker) if has_payload else [],
            predictor=predictor,
        )

    def _chunk(
        self, source: Source, index: int, out: NDArray[np.uint8], spare: NDArray[np.uint8]
    ) -> None:
        """Make one chunk in `out`."""
        source.predictor.read(index, out, spare)
        if source.payload is None:
            return
        source.predictor.add_plain(index, out, spare)
        ulp.decode(
            self._release.payload(
                source.payload, source.frames[index], source.frames[index + 1]
            ),
            as_words(out, source.chunking.word),
            word=source.chunking.word,
            row=source.chunking.row,
            where=f"{self._release.folder}: payload {shown(source.payload)}[{index}]",
            combine=self._combine,
        )

    def tensors(
        self,
        names: Iterable[str],
        workers: Workers,
        buffers: Buffers,
        sink: Sink,
        *,
        check: bool = True,
    ) -> Generator[str]:
        """Make the named tensors in order.

        Args:
            names: target tensors.
            workers: where chunks are made.
            buffers: large enough for what `need` says of these tensors.
            sink: where they go.
            check: whether to check each tensor's digest; a caller that checks more than
                that, such as a file's, need not.

        Yields:
            Each name once its tensor is complete, and its digest right if it is checked.

        Raises:
            BaseMismatchError: if the base is not the one the delta was made with.
            IntegrityError: if the release is damaged, or the result wrong although base
                and delta are right.
            FormatError: if a payload is malformed.
        """
        predictors = [self._predictor(name) for name in names]

        def make(item: tuple[Source, int], space: NDArray[np.uint8]) -> NDArray[np.uint8]:
            source, index = item
            name, (start, nbytes) = (
                source.predictor.target.name,
                source.chunking.span(index),
            )
            split = source.chunking.chunk_nbytes + PAGE
            data = sink.room(name, start, nbytes, space[:split])
            self._chunk(source, index, data, space[split:])
            sink.place(name, start, data)
            return data

        made = workers.in_order(make, self._items(predictors), buffers)
        with closing(made):
            for predictor in predictors:
                hasher = blake3()
                name, chunking = predictor.target.name, predictor.chunking
                for index in range(chunking.count):
                    try:
                        _, data = next(made)
                    except (BaseMismatchError, FormatError) as error:
                        raise self.diagnosis(name, error) from error
                    if check:
                        hasher.update(data.data)
                    sink.consume(name, chunking.span(index)[0], data)
                wanted, found = self.manifest.operations[name].digest, hasher.hexdigest()
                if check and found != wanted:
                    raise self.diagnosis(
                        name, IntegrityError(f"expected digest {wanted}, found {found}")
                    )
                yield name

    def _items(self, predictors: Iterable[Predictor]) -> Iterator[tuple[Source, int]]:
        for predictor in predictors:
            source = self._source(predictor)
            for index in range(source.chunking.count):
                yield source, index

    def diagnosis(self, name: str, fault: ReleaseKitError) -> ReleaseKitError:
        """Whose fault a wrong tensor is: the release's, the base's, or the machine's."""
        maker = self._maker(name)
        self._release.check_payload(maker)
        if isinstance(fault, FormatError):
            # It may be of a tensor further on, which was worked on ahead.
            self._release.check_payloads()
            return fault
        if self.manifest.predictor(maker) is not None:
            recorded = self.manifest.base[maker].digest
            found = hash_tensor(self._base, maker)
            if found != recorded:
                if isinstance(self._base, Rebuild):  # what made it can tell more
                    wrong = f"expected digest {recorded}, found {found}"
                    return self._base.diagnosis(maker, IntegrityError(wrong))
                return BaseMismatchError(
                    f"{self._base.subject}: tensor {shown(maker)} is not the one that the "
                    f"delta was made with: {wanted(self.manifest)}"
                )
        return IntegrityError(
            f"{self._release.folder}: tensor {shown(name)}: {fault}, though the release's "
            "file and the base's tensor are right: the publisher's release contradicts "
            "itself, or this machine's memory or disk fails; try again, here and elsewhere"
        )
