"""One base that several makes read side by side: each byte is read and hashed once.

Makes on one base want the same tensors in the same order, each at its own pace. So a tensor
is cut into blocks: whoever is the first to want one reads it, and it is kept until all who
want it have had it. What is kept has a bound. Where that is reached, whoever is ahead waits
for the others. If all that blocks are kept for wait themselves, since their orders differ,
the oldest block is given up, and read again by whoever still wants it: nobody waits for
ever, and what a difference of orders costs is reading.

BLAKE3 of a tensor is taken from its blocks as they come, in order, in the thread that read
the one that is next. Bytes that no make reads, such as those of dropped tensors, are read
once somebody asks for the digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from threading import Condition
from typing import Any, Final, Self

import numpy as np

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import Digesting
from releasekit.delta.making.wanted import Key, Wanted
from releasekit.digest import blake3
from releasekit.pipeline import Buffer
from releasekit.tensors import TensorSpec

#: Bytes of a block.
BLOCK: Final = 1 << 20


class _Block:
    """A block that is kept, or is about to be.

    Attributes:
        memory: that it takes.
        data: its bytes; right once it is ready.
        owed: readers that have yet to have it.
        users: threads that are at it now.
        ready: whether it has been read.
    """

    def __init__(self, memory: Buffer, nbytes: int, owed: set[CommonReader]) -> None:
        self.memory = memory
        self.data = memory[:nbytes]
        self.owed = owed
        self.users = 1
        self.ready = False


class _Digest:
    """The digest of a tensor on its way.

    Attributes:
        hasher: has taken the blocks before `taken`.
        taken: how many blocks.
        count: how many there are.
        busy: whether a thread is at it.
    """

    def __init__(self, count: int) -> None:
        self.hasher = blake3()
        self.taken = 0
        self.count = count
        self.busy = False


class CommonBase:
    """A base, and what of it is kept for those that have yet to read it.

    All readers are asked for before any of them reads: nothing is kept for one that comes
    later.
    """

    def __init__(self, base: Checkpoint, nbytes: int, block: int = BLOCK) -> None:
        """Keep blocks of an open checkpoint, of which somebody else takes care.

        Args:
            base: the checkpoint.
            nbytes: bytes of memory for blocks, of which there is one at least.
            block: bytes of a block.
        """
        self.base = base
        self.block = block
        self._unmade = max(nbytes // block, 1)
        self._free: list[Buffer] = []
        self._blocks: dict[Key, _Block] = {}  # the oldest first
        self._digests: dict[str, _Digest] = {}
        self._readers: list[CommonReader] = []
        self._stopped = False
        self._changed = Condition()

    def reader(self, wanted: Mapping[str, int]) -> CommonReader:
        """A reader; `wanted` are the bytes of each tensor, from its start, it will read."""
        reader = CommonReader(self, wanted)
        with self._changed:
            self._readers.append(reader)
        return reader

    def stop(self) -> None:
        """End all reading: whoever reads, or waits, gets a CancelledError."""
        with self._changed:
            self._stopped = True
            self._tell()

    def leave(self, reader: CommonReader) -> None:
        """Keep nothing more for a reader."""
        with self._changed:
            if reader in self._readers:
                self._readers.remove(reader)
                self._forgive(reader)

    def copy(self, reader: CommonReader, name: str, start: int, out: Buffer) -> None:
        """Fill `out` from byte `start` of a tensor; the bytes lie in one block."""
        key = Key(name, start // self.block)
        block, read = self._claim(reader, key), 0
        try:
            if block is None:
                self.base.read(name, start, out)
            else:
                if not block.ready:
                    self._load(key, block)
                skip = start % self.block
                out[:] = block.data[skip : skip + out.size]
            read = out.size
        finally:
            with self._changed:
                if block is not None:
                    block.users -= 1
                reader.wanted.read(key, read)
                if (kept := self._blocks.get(key)) is not None:
                    if key not in reader.wanted:
                        kept.owed.discard(reader)
                    self._settle(key, kept)

    def digest(self, reader: CommonReader, name: str, check: Callable[[], None]) -> str:
        """BLAKE3 of a tensor; what of it nobody has read yet is read now."""
        with self._changed:
            if reader.begun:  # it has done with the tensor
                reader.wanted.forget(name)
                self._forgive(reader, name)
            digest = self._digest(name)
            while digest.busy:
                self._changed.wait()
            self._check()
            digest.busy = True
        try:
            for index in range(digest.taken, digest.count):
                check()
                self._take(digest, Key(name, index))
        finally:
            with self._changed:
                digest.busy = False
                self._settle_all(name)
        found: str = digest.hasher.hexdigest()
        return found

    def _take(self, digest: _Digest, key: Key) -> None:
        """Take a block into a tensor's digest, whether it is kept or not."""
        with self._changed:
            while (block := self._blocks.get(key)) is not None and not block.ready:
                self._changed.wait()
            self._check()
            if block is not None:
                block.users += 1
        try:
            if block is not None:
                data = block.data
            else:
                data = np.empty(self._size(key), np.uint8)
                self.base.read(key.name, key.number * self.block, data)
            digest.hasher.update(data.data)
            digest.taken = key.number + 1
        finally:
            if block is not None:
                with self._changed:
                    block.users -= 1

    def _claim(self, reader: CommonReader, key: Key) -> _Block | None:
        """A block that is ready; or a new one, which the caller reads; or None."""
        with self._changed:
            while True:
                self._check()
                block = self._blocks.get(key)
                if block is not None and block.ready:
                    block.users += 1
                    return block
                if block is not None:
                    self._changed.wait()
                    continue
                owed = {one for one in self._readers if key in one.wanted}
                if owed <= {reader} and self._is_hashed(key):
                    return None
                memory = self._memory(reader)
                if memory is not None:
                    block = _Block(memory, self._size(key), owed)
                    self._blocks[key] = block
                    return block

    def _load(self, key: Key, block: _Block) -> None:
        try:
            self.base.read(key.name, key.number * self.block, block.data)
        except BaseException:
            with self._changed:
                self._drop(key)  # whoever else wants it tries for itself
            raise
        with self._changed:
            block.ready = True
            self._tell()
        self._hash(key.name)

    def _hash(self, name: str) -> None:
        """Take the blocks that are next in a tensor's digest, as far as they are here."""
        digest = self._digest(name)
        while True:
            with self._changed:
                block = self._blocks.get(Key(name, digest.taken))
                if digest.busy or block is None or not block.ready:
                    return  # who is busy looks for the next block in turn
                digest.busy = True
                block.users += 1
            digest.hasher.update(block.data.data)
            with self._changed:
                key = Key(name, digest.taken)
                digest.taken += 1
                digest.busy = False
                block.users -= 1
                self._settle(key, block)
                self._tell()

    def _memory(self, reader: CommonReader) -> Buffer | None:
        """Memory for a block; None after a wait, since when all may be otherwise."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return np.empty(self.block, np.uint8)
        reader.waiting = True
        if not self._give_up():
            self._changed.wait()
        return None

    def _give_up(self) -> bool:
        """Give up a block, if else nobody could go on; returns whether one was."""
        if any(not one.waiting for block in self._blocks.values() for one in block.owed):
            return False
        idle = [key for key, one in self._blocks.items() if one.ready and not one.users]
        if not idle:
            return False  # somebody is at each, and tells when it is done
        # One that is not hashed yet would be read again for that alone.
        self._drop(next((key for key in idle if self._is_hashed(key)), idle[0]))
        return True

    def _settle(self, key: Key, block: _Block) -> None:
        """Drop a block that nobody needs any more."""
        if block.users:
            return
        if not block.owed and self._is_hashed(key):
            self._drop(key)
        elif any(reader.waiting for reader in self._readers):
            self._tell()  # it may be given up now

    def _settle_all(self, name: str | None = None) -> None:
        for key, block in list(self._blocks.items()):
            if name is None or key.name == name:
                self._settle(key, block)
        self._tell()

    def _drop(self, key: Key) -> None:
        self._free.append(self._blocks.pop(key).memory)
        self._tell()

    def _tell(self) -> None:
        """Have all that wait look again whether they need to."""
        for reader in self._readers:
            reader.waiting = False
        self._changed.notify_all()

    def _forgive(self, reader: CommonReader, name: str | None = None) -> None:
        for key, block in self._blocks.items():
            if name is None or key.name == name:
                block.owed.discard(reader)
        self._settle_all(name)

    def _digest(self, name: str) -> _Digest:
        found = self._digests.get(name)
        if found is None:
            # Two threads may make one at once; the first that is put there counts.
            made = _Digest(-(-self.base.specs[name].nbytes // self.block))
            found = self._digests.setdefault(name, made)
        return found

    def _is_hashed(self, key: Key) -> bool:
        return key.number < self._digest(key.name).taken

    def _size(self, key: Key) -> int:
        return min(self.block, self.base.specs[key.name].nbytes - key.number * self.block)

    def _check(self) -> None:
        if self._stopped:
            raise CancelledError


class CommonReader(Digesting):
    """The base as one of the makes sees it; see `Checkpoint` for the protocol.

    Attributes:
        wanted: what it has yet to read.
        begun: whether anything was read.
        waiting: whether a thread of it waits for memory, and has cause to.
    """

    def __init__(self, common: CommonBase, wanted: Mapping[str, int]) -> None:
        self.wanted = Wanted(wanted, common.block)
        self.begun = False
        self.waiting = False
        self._common = common

    @property
    def subject(self) -> str:
        """What messages call it."""
        return self._common.base.subject

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """All tensors by name."""
        return self._common.base.specs

    def read(self, name: str, start: int, out: Buffer) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on; see `Checkpoint`."""
        self.begun = True
        at, block = 0, self._common.block
        while at < out.size:
            part = out[at : at + block - (start + at) % block]
            self._common.copy(self, name, start + at, part)
            at += part.size

    def digest(self, name: str, check: Callable[[], None] = lambda: None) -> str:
        """BLAKE3 of a tensor; see `Digesting`."""
        return self._common.digest(self, name, check)

    def close(self) -> None:
        """Read no more."""
        self._common.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
