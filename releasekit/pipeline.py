"""Work on chunks in many threads, results in order, memory bounded.

All hot calls (file reads and writes, pcodec, compiled loops, hashing) release the GIL, so
threads suffice. Results are handed over in the order of the items, because digests of files
and tensors are chains. A chain is no faster than one thread hashes, so where there are many
processors several files are made at once, each in a lane of its own; all lanes share one
pool of threads and one stock of buffers.

Buffers are page-aligned, few, and lent: an item's buffer is the consumer's until it asks
for the next result, then it is reused. They bound the memory and how far work runs ahead.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Result = TypeVar("Result")
Buffer = NDArray[np.uint8]

PAGE: Final = mmap.PAGESIZE
#: Results that a lane may hold finished or waiting beyond those being worked on.
AHEAD: Final = 2
_NONE: Final = np.empty(0, np.uint8)


def default_threads() -> int:
    """As many as the processors that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


def aligned(nbytes: int) -> Buffer:
    """New memory that begins at a page."""
    memory = np.empty(nbytes + PAGE, np.uint8)
    skip = -memory.__array_interface__["data"][0] % PAGE
    return memory[skip : skip + nbytes]


class Buffers:
    """At most `count` buffers of `nbytes` each, made when first needed."""

    def __init__(
        self, nbytes: int, count: int, allocate: Callable[[int], Buffer] = aligned
    ) -> None:
        self._nbytes = nbytes
        self._unmade = count
        self._allocate = allocate
        self._free: list[Buffer] = []
        self._given = threading.Condition()

    def take(self, *, wait: bool) -> Buffer | None:
        """A buffer; None if all are lent and the caller does not wait."""
        with self._given:
            if wait:
                self._given.wait_for(lambda: self._free or self._unmade)
            if self._free:
                return self._free.pop()
            if not self._unmade:
                return None
            self._unmade -= 1
        return self._allocate(self._nbytes)

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back."""
        with self._given:
            self._free.append(buffer)
            self._given.notify()


class Workers:
    """A pool of threads; a context manager that waits for them."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or default_threads()
        self._cancelled = threading.Event()
        self._current = threading.local()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="releasekit")

    def in_order(
        self,
        work: Callable[[Item, Buffer], Result],
        items: Iterable[Item],
        buffers: Buffers | None = None,
    ) -> Generator[tuple[Item, Result]]:
        """Yield `(item, work(item, buffer))` in the order of `items`.

        Args:
            work: called in a worker thread; may return views of its buffer.
            items: consumed lazily, in the caller's thread.
            buffers: from which each call is lent one; None lends empty ones.

        An exception of `work` is raised at its item's turn. However the iteration ends,
        no call is left running.
        """
        pending: deque[tuple[Item, Buffer, Future[Result]]] = deque()
        source = iter(items)
        waiting: list[Item] = []
        stopping = threading.Event()

        def run(item: Item, buffer: Buffer) -> Result:
            self._current.stopping = stopping
            return work(item, buffer)

        def submit() -> bool:
            """Begin the next item if there is one, and a buffer for it."""
            if not waiting:
                waiting.extend(islice(source, 1))
            if not waiting:
                return False
            # Who holds no buffer may wait for one: others hold them, and work.
            buffer = buffers.take(wait=not pending) if buffers else _NONE
            if buffer is None:
                return False
            item = waiting.pop()
            pending.append((item, buffer, self._pool.submit(run, item, buffer)))
            return True

        try:
            while True:
                while len(pending) < self.threads + AHEAD and submit():
                    pass
                if not pending:
                    return
                if self._cancelled.is_set():
                    raise CancelledError
                item, buffer, future = pending[0]
                result = future.result()
                yield item, result
                pending.popleft()
                if buffers:
                    buffers.give(buffer)
        finally:
            stopping.set()
            for _, _, future in pending:
                future.cancel()
            for _, buffer, future in pending:
                if not future.cancelled():
                    future.exception()
                if buffers:
                    buffers.give(buffer)

    def in_lanes(self, jobs: Sequence[Callable[[], None]], lanes: int) -> None:
        """Run jobs that use `in_order`, at most `lanes` at once.

        The first exception ends all of them, and is raised.
        """
        if lanes == 1:
            for job in jobs:
                job()
            return
        with ThreadPoolExecutor(lanes, thread_name_prefix="releasekit-lane") as pool:
            running = [pool.submit(job) for job in jobs]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:
                # For good: after an exception these workers are of no more use.
                self._cancelled.set()
                for future in running:
                    future.cancel()
                raise

    def check(self) -> None:
        """Called now and then by long work: raises if nobody waits for its result."""
        stopping = getattr(self._current, "stopping", None)
        if self._cancelled.is_set() or (stopping is not None and stopping.is_set()):
            raise CancelledError

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
