"""What is read of a base before work starts: a few tensors, and whose they are.

Samples are small tensors spread over the model, and one that is rotated, of whatever size:
its rows have two orders in the wild. Reading them takes milliseconds. The rest is asked
only about a base that is wrong already, to say what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.derived import read_as
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.digest import blake3
from releasekit.manifest import Manifest
from releasekit.tensors import DType, TensorSpec

_SAMPLES: Final = 8
_SAMPLE_NBYTES: Final = 1 << 24
_READ: Final = 1 << 20  # bytes at once
_ROTATED: Final = ("q_proj.weight", "k_proj.weight")
_MAX_HEAD: Final = 1024  # rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Tensors that were read, by whose they are.

    Attributes:
        right: the base's.
        tuned: the target's, where that has others than the base.
        wrong: neither's.
    """

    right: Sequence[str]
    tuned: Sequence[str]
    wrong: Sequence[str]

    @property
    def count(self) -> int:
        """How many there are in all."""
        return len(self.right) + len(self.tuned) + len(self.wrong)


def take(manifest: Manifest, base: Checkpoint) -> Samples:
    """Read some of the tensors that could be right, by their headers."""
    needed = manifest.predictors
    fitting = {
        name: base.specs[name]
        for name, spec in needed.items()
        if base.specs.get(name) in (spec, manifest.target[name])
    }
    right, tuned, wrong = [], [], []
    for name in choose(manifest, fitting):
        digest, spec = hash_tensor(base, name), fitting[name]
        if spec == needed[name] and digest == manifest.base[name].digest:
            right.append(name)
        elif spec == manifest.target[name] and digest == manifest.operations[name].digest:
            tuned.append(name)
        else:
            wrong.append(name)
    return Samples(right=right, tuned=tuned, wrong=wrong)


def choose(manifest: Manifest, specs: Mapping[str, TensorSpec]) -> list[str]:
    """A few tensors that are quick to read, spread evenly over the model; small ones first.

    At least one of them is changed by the delta, if a small or a rotated one is: else they
    would not tell the target from the base.
    """
    small = [n for n, spec in specs.items() if 0 < spec.nbytes <= _SAMPLE_NBYTES]
    last = max(min(len(small), _SAMPLES) - 1, 1)  # the first and the last are among them
    found = [small[i * (len(small) - 1) // last] for i in range(min(len(small), _SAMPLES))]
    one = smallest((n for n in specs if is_rotated(n)), specs)
    if not any(manifest.operations[n].op.has_payload for n in (*found, *one)):
        changed = (n for n in small if manifest.operations[n].op.has_payload)
        found += smallest(changed, specs)
    found += [name for name in one if name not in found]
    return found or smallest(specs, specs)


def smallest(names: Iterable[str], specs: Mapping[str, TensorSpec]) -> list[str]:
    """The one of the named tensors that is quickest to read; none if there are none."""
    return sorted(names, key=lambda name: specs[name].nbytes)[:1]


def is_rotated(name: str) -> bool:
    """Whether a tensor is one whose rows position embeddings rotate in pairs."""
    return name.endswith(_ROTATED)


def rounds_to_base(manifest: Manifest, base: Checkpoint, dtype: DType) -> bool:
    """Whether tensors of another dtype, rounded to this one, are the delta's base's."""
    specs = {
        name: base.specs[name]
        for name, spec in manifest.predictors.items()
        if name in base.specs
        and spec.dtype is dtype
        and base.specs[name].dtype is not dtype
        and base.specs[name].shape == spec.shape
    }
    return bool(specs) and all(
        _rounded_digest(base, specs[name], dtype) == manifest.base[name].digest
        for name in choose(manifest, specs)
    )


def _rounded_digest(base: Checkpoint, spec: TensorSpec, dtype: DType) -> str:
    hasher = blake3()
    step = _READ * 8 // spec.dtype.bits
    for first in range(0, spec.numel, step):
        count = min(step, spec.numel - first)
        out = np.empty(count * dtype.bits // 8, np.uint8)
        read_as(base, spec.name, first, count, dtype, out)
        hasher.update(out.data)
    return hasher.hexdigest()


def is_reordered(
    base: Checkpoint, name: str, digest: str, heads: Iterable[int], *, meta: bool
) -> bool:
    """Whether a tensor has a digest once the rows of each head are in the other order.

    Args:
        base: the checkpoint that holds it.
        name: the tensor's; it is rotated.
        digest: the digest to find.
        heads: how many rows a head may have.
        meta: whether rows lie in Meta's order, 2i and 2i + 1 together; else in that of
            transformers, where i and i + half a head are.
    """
    spec = base.specs[name]
    if len(spec.shape) != 2 or not spec.numel:
        return False
    return any(
        _reordered_digest(base, spec, rows, meta) == digest
        for rows in dict.fromkeys(heads)
        if 0 < rows <= _MAX_HEAD and rows % 2 == 0 and spec.shape[0] % rows == 0
    )


def _reordered_digest(base: Checkpoint, spec: TensorSpec, rows: int, meta: bool) -> str:
    hasher = blake3()
    row_nbytes = spec.nbytes // spec.shape[0]
    head = np.empty((rows, row_nbytes), np.uint8)
    split = (rows // 2, 2, row_nbytes) if meta else (2, rows // 2, row_nbytes)
    for first in range(0, spec.shape[0], rows):
        base.read(spec.name, first * row_nbytes, head.reshape(-1))
        hasher.update(head.reshape(split).swapaxes(0, 1).tobytes())
    return hasher.hexdigest()
