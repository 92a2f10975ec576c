"""A release on its base, as a checkpoint that can be read by range: nothing is written.

Reads are quickest where they begin and end as the release's chunks do (`piece`): then each
chunk is decoded once. Others make a chunk beside, which each thread keeps until it needs
another, so that a chunk that is read bit by bit is not decoded for each bit; and what one
thread keeps, or makes, serves the others that want it meanwhile. Whoever reads all of a
tensor can hold it against its digest.

The base may be such a checkpoint itself: so v1.1 is read on v1.0 on the base of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from threading import Lock, local
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.release import Release
from releasekit.errors import BaseMismatchError, FormatError, IntegrityError
from releasekit.tensors import TensorSpec

#: Tensors whose tables of frames are kept: more than are read at one time.
_TABLES: Final = 64


class _Beside:
    """A chunk in memory of its own; it lasts as long as some thread keeps it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.data: NDArray[np.uint8] | None = None


class VirtualCheckpoint(Rebuild):
    """What a release rebuilds; see `Checkpoint` for the protocol.

    Attributes:
        subject: what messages call it.
        specs: the target's tensors.
    """

    def __init__(self, release: Release, base: Checkpoint) -> None:
        """Read `release` on `base`, which stay the caller's to close."""
        super().__init__(release, base)
        self.subject = str(release.folder)
        self.specs: Mapping[str, TensorSpec] = release.manifest.target
        self._sources = lru_cache(_TABLES)(lambda n: self._source(self._predictor(n)))
        self._kept = local()
        self._shared: WeakValueDictionary[tuple[str, int], _Beside] = WeakValueDictionary()
        self._sharing = Lock()

    def piece(self, name: str) -> int:
        """Words of a tensor that are best read at once."""
        return self._release.chunking(name).chunk

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`.

        Raises:
            BaseMismatchError: if the base is not the one that the release was made with.
        """
        chunking = self._release.chunking(name)
        stop = start + out.size
        step = chunking.chunk * chunking.word_nbytes
        for index in range(start // step, -(-stop // step)):
            begin, nbytes = chunking.span(index)
            at, end = max(start, begin), min(stop, begin + nbytes)
            place = out[at - start : end - start]
            if (at, end) == (begin, begin + nbytes):
                self._make(name, index, place)
            else:
                place[:] = self._beside(name, index, nbytes)[at - begin : end - begin]

    def _beside(self, name: str, index: int, nbytes: int) -> NDArray[np.uint8]:
        """A chunk in memory of its own; made, unless some thread keeps it."""
        with self._sharing:
            chunk = self._shared.get((name, index))
            if chunk is None:
                chunk = self._shared[name, index] = _Beside()
        self._kept.chunk = chunk  # before more is made: a thread keeps one
        with chunk.lock:
            if chunk.data is None:
                data = np.empty(nbytes, np.uint8)
                self._make(name, index, data)
                chunk.data = data
            return chunk.data

    def _make(self, name: str, index: int, out: NDArray[np.uint8]) -> None:
        """Make one chunk; raises whose fault it is if that fails."""
        try:
            source = self._sources(name)
            spare = np.empty(source.predictor.spare_nbytes, np.uint8)
            self._chunk(source, index, out, spare)
        except (BaseMismatchError, FormatError) as error:
            raise self.diagnosis(name, error) from error

    def check(self, name: str, digest: str) -> None:
        """Hold the BLAKE3 of all that was read of a tensor against the release.

        Raises:
            BaseMismatchError, IntegrityError: with whose fault it is that they differ.
        """
        wanted = self.manifest.operations[name].digest
        if digest != wanted:
            fault = IntegrityError(f"expected digest {wanted}, found {digest}")
            raise self.diagnosis(name, fault) from fault

    def close(self) -> None:
        """Nothing: release and base are the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
