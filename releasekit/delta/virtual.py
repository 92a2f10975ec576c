"""A release on its base, as a checkpoint that can be read by range: nothing is written.

Reads are quickest where they begin and end as the release's chunks do (`piece`): then each
chunk is decoded once. Whoever reads all of a tensor can hold it against its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec import ulp
from releasekit.codec.kernels import as_words
from releasekit.delta.predict import Predictor
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.release import Release
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    ReleaseKitError,
)
from releasekit.names import shown
from releasekit.resources import Need
from releasekit.tensors import TensorSpec


class VirtualCheckpoint:
    """What a release rebuilds; see `Checkpoint` for the protocol.

    Attributes:
        subject: what messages call it.
        specs: the target's tensors.
    """

    def __init__(self, release: Release, base: Checkpoint) -> None:
        """Read `release` on `base`, which stay the caller's to close."""
        self.subject = str(release.folder)
        self.specs: Mapping[str, TensorSpec] = release.manifest.target
        self._release = release
        self._base = base
        self._rebuild = Rebuild(release, base)

    def need(self, names: Iterable[str]) -> Need:
        """Memory that reading the named tensors takes, beside what they are read into."""
        return self._rebuild.need(names)

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
            whole = (at, end) == (begin, begin + nbytes)
            chunk = place if whole else np.empty(nbytes, np.uint8)
            try:
                self._make(name, index, chunk)
            except (BaseMismatchError, FormatError) as error:
                raise self._diagnosis(name, error) from error
            if not whole:
                place[:] = chunk[at - begin : end - begin]

    def _make(self, name: str, index: int, out: NDArray[np.uint8]) -> None:
        """Make one chunk."""
        manifest = self._release.manifest
        maker = manifest.operations[name].of or name
        has_payload = manifest.operations[maker].op.has_payload
        chunking = self._release.chunking(name)
        predictor = Predictor(
            base=self._base,
            source=manifest.predictor(maker),
            target=manifest.target[name],
            chunking=chunking,
            plain=self._release.plain if has_payload else None,
            plain_name=maker,
        )
        spare = np.empty(predictor.spare_nbytes, np.uint8)
        predictor.read(index, out, spare)
        if not has_payload:
            return
        predictor.add_plain(index, out, spare)
        frames = self._release.frame_offsets(maker)
        ulp.decode(
            self._release.payload(maker, frames[index], frames[index + 1]),
            as_words(out, chunking.word),
            word=chunking.word,
            row=chunking.row,
            where=f"{self.subject}: payload {shown(maker)}[{index}]",
        )

    def check(self, name: str, digest: str) -> None:
        """Hold the BLAKE3 of all that was read of a tensor against the release.

        Raises:
            BaseMismatchError, IntegrityError: with whose fault it is that they differ.
        """
        wanted = self._release.manifest.operations[name].digest
        if digest != wanted:
            fault = IntegrityError(f"expected digest {wanted}, found {digest}")
            raise self._diagnosis(name, fault) from fault

    def _diagnosis(self, name: str, fault: ReleaseKitError) -> ReleaseKitError:
        """Whose fault it is that a tensor could not be read, or is wrong."""
        return self._rebuild.diagnosis(name, fault)

    def close(self) -> None:
        """Nothing: release and base are the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
