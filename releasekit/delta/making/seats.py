"""Makes of several releases on one base, side by side: what each may use, and what of it.

Threads and memory are shared out among them, so that all together take what one would, but
for a thread that each has at least. What memory is left keeps blocks of the base for those
that are behind. Where it does not do for all at once, as few rounds as possible are made of
as many each; the digests that a round has taken serve the next.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec import Ulp
from releasekit.codec.chunks import Chunking
from releasekit.delta.making.common import BLOCK, CommonBase, CommonReader
from releasekit.delta.making.encode import need
from releasekit.delta.making.once import FileDigests
from releasekit.delta.making.plan import choose_op
from releasekit.delta.making.source import list_target
from releasekit.delta.predict import Predictor
from releasekit.operations import Op
from releasekit.pipeline import default_threads
from releasekit.resources import Need, share_out

#: Bytes of a base that are kept at most: enough for whoever is behind for a while.
_MOST: Final = 256 << 20
_NOTHING: Final = Need(buffer=0, scratch=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The place of one make at a base that others read as well.

    Attributes:
        path: where the base is.
        base: the base, open for this make alone.
        digests: of the base's files.
        threads: that it may use.
        max_memory: bytes of host memory that it may use, the program itself included.
    """

    path: Path
    base: CommonReader
    digests: FileDigests
    threads: int
    max_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a make will ask of a base, known from headers.

    Attributes:
        need: memory that its largest chunk takes.
        wanted: bytes of each of the base's tensors, from its start, that it reads.
    """

    need: Need
    wanted: Mapping[str, int]

    @classmethod
    def of(cls, base: Checkpoint, target: Path, exclude: Sequence[str], codec: Ulp) -> Self:
        """Look at a target's headers; raises as `make_delta` does over them."""
        with SafetensorsCheckpoint.open(list_target(target, exclude).found) as opened:
            specs = list(opened.specs.values())
        wanted = {}
        for spec in specs:
            source = base.specs.get(spec.name)
            if source is not None and choose_op(source, spec) is not Op.NEW:
                wanted[spec.name] = Predictor(
                    base=base,
                    source=source,
                    target=spec,
                    chunking=Chunking.of(spec, codec.chunk),
                ).shared_nbytes
        return cls(need=need(base, specs, codec), wanted=wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Makes that go on at the same time.

    Attributes:
        wishes: what they ask for.
        threads: of each.
        memory: bytes that each may use.
        kept: bytes that are left to keep the base in.
    """

    wishes: tuple[Wish, ...]
    threads: tuple[int, ...]
    memory: tuple[int, ...]
    kept: int

    def beside(self, extra: int) -> Round:
        """The same, beside something that takes so many bytes whatever is made."""
        return replace(self, memory=tuple(nbytes + extra for nbytes in self.memory))

    def seats(self, path: Path, common: CommonBase, digests: FileDigests) -> list[Seat]:
        """A seat for each; all of them before any is taken."""
        return [
            Seat(
                path=path,
                base=common.reader(wish.wanted),
                digests=digests,
                threads=threads,
                max_memory=memory,
            )
            for wish, threads, memory in zip(
                self.wishes, self.threads, self.memory, strict=True
            )
        ]


def rounds(
    wishes: Sequence[Wish], *, threads: int | None, max_memory: int, extra: int = 0
) -> list[Round]:
    """As few rounds as the memory allows, in the order of `wishes`.

    Args:
        wishes: of one make or more.
        threads: how many are wanted in all; by default one a processor.
        max_memory: bytes of host memory for all that go on at once.
        extra: bytes that something beside the chunks takes.

    Returns:
        None of them if the memory does not even do for one at a time.
    """
    for size in range(len(wishes), 0, -1):
        count = -(-len(wishes) // size)
        edges = [len(wishes) * number // count for number in range(count + 1)]
        found = [
            _round(wishes[start:stop], threads or default_threads(), max_memory - extra)
            for start, stop in pairwise(edges)
        ]
        fitting = [one for one in found if one is not None]
        if len(fitting) == count:
            return [one.beside(extra) for one in fitting]
    return []


def _round(wishes: Sequence[Wish], threads: int, max_memory: int) -> Round | None:
    """A round of all of them; None if the memory does not do."""
    count = len(wishes)
    for total in range(max(threads, count), count - 1, -1):
        each = tuple(total // count + (n < total % count) for n in range(count))
        pairs = list(zip(wishes, each, strict=True))
        memory = tuple(_nbytes(wish.need, n) for wish, n in pairs)
        kept = max_memory - sum(memory) + (count - 1) * _nbytes(_NOTHING, 1)
        # Whoever is ahead has read as much as its buffers hold; one alone is ahead of none.
        ahead = sum(n * wish.need.buffer for wish, n in pairs) if count > 1 else 0
        if kept >= max(ahead, BLOCK):
            return Round(
                wishes=tuple(wishes), threads=each, memory=memory, kept=min(kept, _MOST)
            )
    return None


def _nbytes(need: Need, threads: int) -> int:
    """Bytes that a make takes with so many threads, the program itself included."""
    return share_out(need, threads=threads, max_memory=sys.maxsize).memory_nbytes
