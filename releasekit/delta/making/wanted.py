"""What one make has yet to read of a base, block by block.

A make reads each byte that it wants once, but in chunks that know nothing of blocks, and in
several threads. So the bytes of each block are counted, until all that are wanted of it
have been read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Key(NamedTuple):
    """Which block: of a tensor, the so-and-so-manyth."""

    name: str
    number: int


class Wanted:
    """The blocks that a make has yet to read."""

    def __init__(self, nbytes: Mapping[str, int], block: int) -> None:
        """Nothing is read yet.

        Args:
            nbytes: how much is wanted of each tensor, from its start.
            block: bytes of a block.
        """
        self._nbytes = {name: count for name, count in nbytes.items() if count}
        self._block = block
        self._left = dict(self._nbytes)
        self._parts: dict[Key, int] = {}
        self._done: dict[str, set[int]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether bytes of a block are left to be read."""
        return self._left_of(key) > 0

    def read(self, key: Key, nbytes: int) -> None:
        """Note that some bytes of a block were read."""
        left = self._left_of(key)
        if nbytes < left:
            self._parts[key] = self._parts.get(key, 0) + nbytes
        elif left:
            self._parts.pop(key, None)
            self._done.setdefault(key.name, set()).add(key.number)
            self._left[key.name] -= self._size(key)
            if not self._left[key.name]:
                self.forget(key.name)

    def forget(self, name: str) -> None:
        """Want a tensor no more."""
        self._left.pop(name, None)
        self._done.pop(name, None)

    def _left_of(self, key: Key) -> int:
        if key.name not in self._left or key.number in self._done.get(key.name, ()):
            return 0
        return self._size(key) - self._parts.get(key, 0)

    def _size(self, key: Key) -> int:
        """Bytes of a block that are wanted in all."""
        return max(min(self._block, self._nbytes[key.name] - key.number * self._block), 0)
