"""Decide, before any work, how each target tensor will be made from the base.

Each target tensor gets exactly one operation. `same` is decided only once both tensors
have been read, so the plan says `delta` for it. Aliases are found here: tensors of equal
dtype, shape, first and last bytes are hashed whole, and equal ones share one payload.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensors
from releasekit.digest import blake3
from releasekit.operations import Op, fits, is_buffer
from releasekit.pipeline import Workers
from releasekit.progress import Stage
from releasekit.tensors import TensorSpec

_PROBE: Final = 4096  # bytes
_RUN: Final = 64  # tensors that one thread probes in a row


def choose_op(base: TensorSpec | None, target: TensorSpec) -> Op:
    """The operation that uses most of the base: delta, resize, or new.

    Buffers that some copies of a base have and others lack never use it.
    """
    if is_buffer(target.name):
        return Op.NEW
    return next(
        op for op in (Op.DELTA, Op.RESIZE, Op.NEW) if fits(op, base, target) is None
    )


def find_aliases(base: Checkpoint, target: Checkpoint, workers: Workers) -> dict[str, str]:
    """Target tensors whose bytes another one has: alias to source.

    The source is the first in the target's order. A tensor that equals the base's of its
    name is left alone, since that costs no bytes either and is read only once.
    """
    names = [name for name, spec in target.specs.items() if spec.nbytes]
    alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for name, probe in _probes(target, names, workers):
        spec = target.specs[name]
        alike[spec.dtype, spec.shape, probe].append(name)
    groups = [group for group in alike.values() if len(group) > 1]
    digests = _changed(base, target, [name for group in groups for name in group], workers)
    aliases: dict[str, str] = {}
    for group in groups:
        aliases |= _equal({name: digests[name] for name in group if name in digests})
    return aliases


def _probes(
    checkpoint: Checkpoint, names: list[str], workers: Workers
) -> Iterator[tuple[str, bytes]]:
    """Each tensor with a digest of its ends."""

    def work(some: list[str], _: object) -> list[bytes]:
        return [_probe(checkpoint, checkpoint.specs[name]) for name in some]

    runs = (names[at : at + _RUN] for at in range(0, len(names), _RUN))
    for some, probes in workers.in_order(work, runs):
        yield from zip(some, probes, strict=True)


def _probe(checkpoint: Checkpoint, spec: TensorSpec) -> bytes:
    size = min(_PROBE, spec.nbytes)
    ends = np.empty(2 * size, np.uint8)
    checkpoint.read(spec.name, 0, ends[:size])
    checkpoint.read(spec.name, spec.nbytes - size, ends[size:])
    return bytes(blake3(ends.data).digest())


def _changed(
    base: Checkpoint, target: Checkpoint, names: list[str], workers: Workers
) -> dict[str, str]:
    """Digests of the named target tensors that differ from the base's."""
    stage = Stage(None, "find aliases", 0)
    digests = dict(hash_tensors(target, names, workers, stage))
    same_type = [
        name
        for name in names
        if base.specs.get(name) == target.specs[name] and not is_buffer(name)
    ]
    for name, digest in hash_tensors(base, same_type, workers, stage):
        if digests[name] == digest:
            del digests[name]
    return digests


def _equal(digests: Mapping[str, str]) -> dict[str, str]:
    sources: dict[str, str] = {}
    aliases = {}
    for name, digest in digests.items():
        source = sources.setdefault(digest, name)
        if source != name:
            aliases[name] = source
    return aliases
