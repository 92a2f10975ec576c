"""How threads and memory are shared out, before work starts.

Host memory is buffers and scratch space, and their sizes follow from the largest chunk, not
from the model. So the peak is known beforehand: what the interpreter and the libraries
take, plus a buffer for each chunk on its way, plus scratch space for each thread. Where
that would exceed the limit, fewer threads are used; no limit is ever stretched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from releasekit.errors import UsageError
from releasekit.pipeline import AHEAD, Buffer, Buffers, aligned, default_threads

#: Host memory that is used at most unless the caller says otherwise, in bytes.
DEFAULT_MAX_MEMORY: Final = 1 << 30
#: What the interpreter, numpy, and the loaded libraries take, in bytes, rounded up from a
#: measured peak of 117 MiB.
_FIXED: Final = 128 << 20
#: Bytes of memory that a tensor takes each time that a header names it: a release of 92,000
#: and its base took 381 MB, and name each tensor four times.
_ENTRY_NBYTES: Final = 1100
#: Threads that one chain of digests keeps up with: it hashes about a GB a second, while a
#: thread makes about 0.4 on a processor of its own, and there may be two to each.
_THREADS_A_LANE: Final = 4
#: Threads a processor where they write to the disk, and wait for it: others then decode.
#: Two rebuild about a sixth faster than one.
WRITING: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What work on one chunk needs, in bytes.

    Attributes:
        buffer: of memory for as long as the chunk is on its way.
        scratch: of memory in each thread that works on chunks.
    """

    buffer: int
    scratch: int

    def __or__(self, other: Need) -> Need:
        """What serves either."""
        return Need(
            buffer=max(self.buffer, other.buffer), scratch=max(self.scratch, other.scratch)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What work may use.

    Attributes:
        threads: worker threads.
        lanes: files made at once.
        need: what each chunk needs.
        fixed: bytes that the program takes whatever it does.
    """

    threads: int
    lanes: int
    need: Need
    fixed: int

    @property
    def buffer_count(self) -> int:
        """Buffers in use at most."""
        return self.threads + AHEAD * self.lanes

    @property
    def memory_nbytes(self) -> int:
        """Host memory in use at most, in bytes, the program itself included."""
        return (
            self.fixed
            + self.buffer_count * self.need.buffer
            + self.threads * self.need.scratch
        )

    def buffers(self, allocate: Callable[[int], Buffer] = aligned) -> Buffers:
        """The buffers, made as `allocate` makes memory."""
        return Buffers(self.need.buffer, self.buffer_count, allocate)


def share_out(
    need: Need,
    *,
    files: int = 1,
    threads: int | None,
    each: int = 1,
    max_memory: int,
    extra: int = 0,
) -> Resources:
    """Threads and lanes that fit.

    Args:
        need: what the largest chunk needs.
        files: chains of digests that there are in all.
        threads: how many are wanted; by default `each` a processor.
        each: threads a processor.
        max_memory: bytes of host memory that may be used.
        extra: bytes that something beside the chunks takes.

    Raises:
        UsageError: if not even one thread fits, or none is wanted.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads: expected 1 or more, found {threads}")
    for count in range(threads or each * default_threads(), 0, -1):
        lanes = max(min(files, count // _THREADS_A_LANE), 1)
        found = Resources(threads=count, lanes=lanes, need=need, fixed=_FIXED + extra)
        if found.memory_nbytes <= max_memory:
            return found
    raise UsageError(
        f"memory: expected a limit of at least {found.memory_nbytes:,} bytes, which one "
        f"thread needs with chunks of this size, found {max_memory:,}: raise --max-memory"
    )


def memory_of_headers(entries: int) -> int:
    """Bytes of memory that headers take which name so many tensors, repeats counted."""
    return entries * _ENTRY_NBYTES
