"""Digests of single tensors, read in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.digest import blake3
from releasekit.pipeline import Workers
from releasekit.progress import Stage

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


def hash_tensor(checkpoint: Checkpoint, name: str) -> str:
    """BLAKE3 of a tensor's bytes."""
    hasher = blake3()
    hash_from(hasher, checkpoint, name, 0)
    return hasher.hexdigest()


def hash_tensors(
    checkpoint: Checkpoint, names: Iterable[str], workers: Workers, stage: Stage
) -> Iterator[tuple[str, str]]:
    """Hash several tensors at once; yields each name with its BLAKE3, in order."""

    def work(name: str, _: object) -> str:
        hasher = blake3()
        hash_from(hasher, checkpoint, name, 0, workers.check)
        stage.advance(checkpoint.specs[name].nbytes)
        return hasher.hexdigest()

    return workers.in_order(work, names)


def hash_from(
    hasher: blake3,
    checkpoint: Checkpoint,
    name: str,
    start: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Take a tensor's bytes from byte `start` on into a digest.

    Args:
        hasher: takes them.
        checkpoint: where the tensor is.
        name: the tensor.
        start: its first byte to take.
        check: called now and then; raises to end the work.
    """
    size = checkpoint.specs[name].nbytes
    buffer = np.empty(min(_READ, size - start), np.uint8)
    for at in range(start, size, _READ):
        check()
        part = buffer[: size - at]
        checkpoint.read(name, at, part)
        hasher.update(part.data)
