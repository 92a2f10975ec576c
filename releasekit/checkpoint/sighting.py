"""What a checkpoint looks like at a glance, by which others tell whether they see the same.

Where parts of some work are done on several machines, each opens the inputs under the path
that it is told. A copy that is older there, or another model of the same shape, would pass
unnoticed into the result. So sizes of files, all names, dtypes and shapes, and a page of
some tensors, the largest of each file among them, are compared: hardly any page of a
fine-tune is as in its base. That tells what is different by mistake; it is no proof, as
digests would be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from releasekit.checkpoint import StoredCheckpoint
from releasekit.digest import blake3, sha256_hex
from releasekit.errors import IntegrityError
from releasekit.names import shown
from releasekit.tensors import TensorSpec

_SAMPLES: Final = 32  # tensors of which some bytes are read, and one of each file
_SAMPLE: Final = 4096  # bytes of each; words of any dtype
_SAME: Final = (
    "every machine must find the same model under this path, and nothing may write to it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What was seen of a checkpoint; small, hashable, and can be pickled.

    Attributes:
        sizes: name and size in bytes of each weight file.
        header: digest of all tensors' names, dtypes and shapes.
        samples: names of some tensors, and digests of some of their bytes.
    """

    sizes: tuple[tuple[str, int], ...]
    header: str
    samples: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, checkpoint: StoredCheckpoint) -> Self:
        """Look at a checkpoint; raises as its `read` does."""
        return cls(
            sizes=tuple(checkpoint.file_sizes.items()),
            header=_header(checkpoint.specs),
            samples=tuple(_samples(checkpoint).items()),
        )

    def check(self, checkpoint: StoredCheckpoint) -> None:
        """Hold another process's checkpoint against it.

        Raises:
            IntegrityError: if that is another one, or was changed.
        """
        subject, sizes = checkpoint.subject, dict(self.sizes)
        for name in sorted({*sizes, *checkpoint.file_sizes}):
            expected, found = sizes.get(name), checkpoint.file_sizes.get(name)
            if expected != found:
                raise IntegrityError(
                    f"{subject}: {shown(name)}: expected {_size(expected)}, as where the "
                    f"work was begun, found {_size(found)}: {_SAME}"
                )
        if _header(checkpoint.specs) != self.header:
            raise IntegrityError(
                f"{subject}: expected the tensors that were there where the work was "
                f"begun, found others, or other dtypes or shapes: {_SAME}"
            )
        found_samples = _samples(checkpoint)
        for name, digest in self.samples:
            if found_samples[name] != digest:
                raise IntegrityError(
                    f"{subject}: expected in tensor {shown(name)} the values that were "
                    f"there where the work was begun, found others: {_SAME}"
                )


def _size(nbytes: int | None) -> str:
    return "no such file" if nbytes is None else f"{nbytes:,} bytes"


def _header(specs: Mapping[str, TensorSpec]) -> str:
    lines = [[s.name, s.dtype.label, s.shape] for s in specs.values()]
    return sha256_hex(json.dumps(lines).encode())


def _samples(checkpoint: StoredCheckpoint) -> dict[str, str]:
    """Digests of bytes from the middle of tensors: of each file, and spread over all."""
    specs = [spec for spec in checkpoint.specs.values() if spec.nbytes]
    largest: dict[str, TensorSpec] = {}
    for spec in specs:
        known = largest.setdefault(checkpoint.home(spec.name), spec)
        if spec.nbytes > known.nbytes:
            largest[checkpoint.home(spec.name)] = spec
    spread = specs[:: -(-len(specs) // _SAMPLES) or 1]
    found = {}
    for spec in {one.name: one for one in (*spread, *largest.values())}.values():
        start = (spec.nbytes - min(_SAMPLE, spec.nbytes)) // 2 // _SAMPLE * _SAMPLE
        data = np.empty(min(_SAMPLE, spec.nbytes - start), np.uint8)
        checkpoint.read(spec.name, start, data)
        found[spec.name] = blake3(data.data).hexdigest()
    return found
