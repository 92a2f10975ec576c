"""Decide, before any work, how each target tensor will be made from the base.

Each target tensor gets exactly one operation. `same` is decided only once both tensors
have been read, so the plan says `delta` for it. Aliases are found here: tensors of equal
dtype, shape, first and last bytes are hashed whole, and equal ones share one payload.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.digest import blake3
from releasekit.operations import Op, fits, is_buffer
from releasekit.tensors import TensorSpec

_PROBE: Final = 4096


def choose_op(base: TensorSpec | None, target: TensorSpec) -> Op:
    """The operation that uses most of the base: delta, resize, or new.

    Buffers that some copies of a base have and others lack never use it.
    """
    if is_buffer(target.name):
        return Op.NEW
    return next(
        op for op in (Op.DELTA, Op.RESIZE, Op.NEW) if fits(op, base, target) is None
    )


def find_aliases(base: Checkpoint, target: Checkpoint) -> dict[str, str]:
    """Target tensors whose bytes another one has: alias to source.

    The source is the first in the target's order. A tensor that equals the base's of its
    name is left alone, since that costs no bytes either and is read only once.
    """
    probes: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, spec in target.specs.items():
        if spec.nbytes:
            probes[spec.dtype, spec.shape, _probe(target, spec)].append(name)
    aliases: dict[str, str] = {}
    for names in probes.values():
        if len(names) > 1:
            aliases |= _equal(_changed(base, target, names))
    return aliases


def _probe(checkpoint: Checkpoint, spec: TensorSpec) -> bytes:
    size = min(_PROBE, spec.nbytes)
    ends = np.empty(2 * size, np.uint8)
    checkpoint.read(spec.name, 0, ends[:size])
    checkpoint.read(spec.name, spec.nbytes - size, ends[size:])
    return bytes(blake3(ends.data).digest())


def _changed(base: Checkpoint, target: Checkpoint, names: list[str]) -> dict[str, str]:
    """Digests of the named target tensors that differ from the base's."""
    digests = {}
    for name in names:
        digest = hash_tensor(target, name)
        same_type = base.specs.get(name) == target.specs[name] and not is_buffer(name)
        if not same_type or hash_tensor(base, name) != digest:
            digests[name] = digest
    return digests


def _equal(digests: Mapping[str, str]) -> dict[str, str]:
    sources: dict[str, str] = {}
    aliases = {}
    for name, digest in digests.items():
        source = sources.setdefault(digest, name)
        if source != name:
            aliases[name] = source
    return aliases
