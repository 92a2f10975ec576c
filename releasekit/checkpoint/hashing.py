"""Digests of single tensors, read in pieces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.digest import blake3
from releasekit.pipeline import Workers
from releasekit.progress import Stage

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


class Digesting(ABC):
    """A checkpoint that takes the digests of its tensors itself, while they are read.

    Each byte is then hashed once, however many want to know.
    """

    @abstractmethod
    def digest(self, name: str, check: Callable[[], None] = lambda: None) -> str:
        """BLAKE3 of a tensor's bytes; `check` is called as by `hash_from`."""


def hash_tensor(
    checkpoint: Checkpoint, name: str, check: Callable[[], None] = lambda: None
) -> str:
    """BLAKE3 of a tensor's bytes; `check` is called as by `hash_from`."""
    if isinstance(checkpoint, Digesting):
        return checkpoint.digest(name, check)
    hasher = blake3()
    hash_from(hasher, checkpoint, name, 0, check)
    return hasher.hexdigest()


def hash_tensors(
    checkpoint: Checkpoint, names: Iterable[str], workers: Workers, stage: Stage
) -> Iterator[tuple[str, str]]:
    """Hash several tensors at once; yields each name with its BLAKE3, in order."""

    def work(name: str, _: object) -> str:
        digest = hash_tensor(checkpoint, name, workers.check)
        stage.advance(checkpoint.specs[name].nbytes)
        return digest

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
