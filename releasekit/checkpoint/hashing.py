"""Digests of single tensors, read in pieces."""

from __future__ import annotations

from typing import Final

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.digest import blake3

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


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
