"""Rebuild the target, chunk by chunk, from base and release: the one decode path.

`apply`, the proof at the end of `make`, and `open_delta` all come through here. Each chunk
is made in a worker thread; in order, it then runs through the digest of its tensor, and
the first tensor that is wrong stops the work, with whose fault it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec import ulp
from releasekit.codec.chunks import Chunking
from releasekit.delta.predict import Predictor, as_words
from releasekit.delta.release import Release
from releasekit.digest import blake3
from releasekit.errors import BaseMismatchError, IntegrityError, ReleaseKitError
from releasekit.names import shown
from releasekit.pipeline import Workers

_READ: Final = 1 << 22  # bytes at once where a whole tensor is hashed

#: Takes a tensor's name, the first byte of a chunk in it, and the chunk's bytes, which are
#: valid during the call.
Consume = Callable[[str, int, NDArray[np.uint8]], None]


def _nowhere(name: str, start: int, data: NDArray[np.uint8]) -> None:
    pass


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

    def __init__(self, release: Release, base: Checkpoint) -> None:
        self._release = release
        self._base = base
        self.manifest = release.manifest

    def _maker(self, name: str) -> str:
        """Whose operation makes a tensor: an alias is made anew, as its source is."""
        return self.manifest.operations[name].of or name

    def _predictor(self, name: str) -> Predictor:
        return Predictor(
            base=self._base,
            source=self.manifest.predictor(self._maker(name)),
            target=self.manifest.target[name],
            chunking=self._release.chunking(name),
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
        self, source: Source, index: int, buffer: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Make one chunk in `buffer`; returns the part of it that holds the result."""
        _, nbytes = source.chunking.span(index)
        split = source.predictor.buffer_nbytes
        predicted, _ = source.predictor.read(index, buffer[:split])
        if source.payload is None:
            return buffer[:nbytes]
        out = buffer[split : split + nbytes]
        ulp.decode(
            self._release.payload(
                source.payload, source.frames[index], source.frames[index + 1]
            ),
            predicted,
            as_words(out, source.chunking.word),
            word=source.chunking.word,
            row=source.chunking.row,
            where=f"{self._release.folder}: payload {shown(source.payload)}[{index}]",
        )
        return out

    def tensors(
        self,
        names: Iterable[str],
        workers: Workers,
        consume: Consume,
        place: Consume = _nowhere,
    ) -> Generator[str]:
        """Make the named tensors in order, checked.

        Args:
            names: target tensors.
            workers: where chunks are made.
            consume: called in order with each chunk, in the caller's thread.
            place: called with each chunk as soon as it is made, in a worker thread; the
                tensor's digest is not yet known to be right.

        Yields:
            Each name once its tensor is complete and its digest right.

        Raises:
            BaseMismatchError: if the base is not the one the delta was made with.
            IntegrityError: if the result is wrong although base and delta are right.
            FormatError: if a payload is malformed.
        """
        predictors = [self._predictor(name) for name in names]
        buffer = max(
            (p.buffer_nbytes + p.chunking.chunk_nbytes for p in predictors), default=0
        )

        def make(item: tuple[Source, int], space: NDArray[np.uint8]) -> NDArray[np.uint8]:
            source, index = item
            data = self._chunk(source, index, space)
            place(source.predictor.target.name, source.chunking.span(index)[0], data)
            return data

        made = workers.in_order(make, self._items(predictors), buffer)
        with closing(made):
            for predictor in predictors:
                hasher = blake3()
                name, chunking = predictor.target.name, predictor.chunking
                for index in range(chunking.count):
                    try:
                        _, data = next(made)
                    except BaseMismatchError as error:
                        raise self._diagnosis(name, str(error)) from error
                    hasher.update(data.data)
                    consume(name, chunking.span(index)[0], data)
                wanted, found = self.manifest.operations[name].digest, hasher.hexdigest()
                if found != wanted:
                    raise self._diagnosis(name, f"expected digest {wanted}, found {found}")
                yield name

    def _items(self, predictors: Iterable[Predictor]) -> Iterator[tuple[Source, int]]:
        for predictor in predictors:
            source = self._source(predictor)
            for index in range(source.chunking.count):
                yield source, index

    def _diagnosis(self, name: str, fault: str) -> ReleaseKitError:
        """Whose fault a wrong tensor is: the base's, or the release's or machine's."""
        maker = self._maker(name)
        if self.manifest.predictor(maker) is not None:
            recorded = self.manifest.base[maker].digest
            if hash_tensor(self._base, maker) != recorded:
                return BaseMismatchError(
                    f"{self._base.subject}: tensor {shown(maker)} is not the one that the "
                    "delta was made with: expected the base with identity "
                    f"{self.manifest.base_identity}; get that base, in the revision that "
                    "the release names"
                )
        return IntegrityError(
            f"{self._release.folder}: tensor {shown(name)}: {fault}, though the base's "
            "tensor is right: the release or this machine's memory is damaged; run "
            "`releasekit verify` on the release, then try again"
        )


def hash_tensor(checkpoint: Checkpoint, name: str) -> str:
    """BLAKE3 of a tensor's bytes."""
    hasher = blake3()
    hash_from(hasher, checkpoint, name, 0)
    return hasher.hexdigest()


def hash_from(hasher: blake3, checkpoint: Checkpoint, name: str, start: int) -> None:
    """Take a tensor's bytes from byte `start` on into a digest."""
    size = checkpoint.specs[name].nbytes
    buffer = np.empty(min(_READ, size - start), np.uint8)
    for at in range(start, size, _READ):
        part = buffer[: size - at]
        checkpoint.read(name, at, part)
        hasher.update(part.data)
