"""Digests: what is hashed with what, and why.

Files carry SHA-256, the language of the Hub, of signatures and of `sha256sum -c`. Tensors
carry BLAKE3, several times as fast: it names the tensor that is wrong while the file
around it is still being made, and it checks tensors that never become a file.

A tensor's digest covers its bytes alone, so that equal content is seen to be equal under
any name. Name, dtype and shape enter with the digest into the identity of a checkpoint,
which therefore does not depend on how the tensors are spread over files.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3 as blake3

from releasekit.tensors import TensorSpec

_IDENTITY: Final = b"releasekit checkpoint identity v1\n"

_PIECE: Final = 1 << 20

sha256 = hashlib.sha256


class Hash(Protocol):
    """A digest on its way."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The digest of what was taken in so far."""

    def copy(self) -> Hash:
        """One that goes on from here on its own."""


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` as 64 hexadecimal digits."""
    return sha256(data).hexdigest()


def hash_file(path: Path, algorithm: Callable[[], Hash] = sha256) -> str:
    """Digest of a file, read in pieces; by default its SHA-256."""
    hasher = algorithm()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file):
            hasher.update(piece)
    return hasher.hexdigest()


def pieces(
    file: BufferedIOBase | RawIOBase, limit: int = sys.maxsize
) -> Iterator[memoryview]:
    """The next `limit` bytes of a file, or all that is left, in pieces of one buffer."""
    buffer = memoryview(bytearray(min(_PIECE, limit)))
    while limit and (count := file.readinto(buffer[: min(_PIECE, limit)])):
        limit -= count
        yield buffer[:count]


def identity(tensors: Iterable[tuple[TensorSpec, str]]) -> str:
    """The identity of a checkpoint: one digest for all of its tensors.

    BLAKE3 over a fixed first line, then one line a tensor, sorted by name as UTF-8: the
    JSON array `[name, dtype, shape, digest]` without spaces, non-ASCII characters as
    themselves.

    Args:
        tensors: each tensor with the BLAKE3 digest of its bytes, in any order.
    """
    hasher = blake3(_IDENTITY)
    for spec, digest in sorted(tensors, key=lambda pair: pair[0].name.encode()):
        line = [spec.name, spec.dtype.label, list(spec.shape), digest]
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        hasher.update(text.encode() + b"\n")
    return hasher.hexdigest()
