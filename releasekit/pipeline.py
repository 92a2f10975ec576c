"""Work on chunks in many threads, results in order, memory bounded.

All hot calls (file reads, pcodec, compiled kernels, hashing) release the GIL, so threads
suffice. Results are handed over in the order of the items, because digests of files and
tensors are chains; a window bounds how far the workers may run ahead, and so how many
buffers exist. Buffers are lent: an item's buffer is the consumer's until it asks for the
next one, then it is reused.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Result = TypeVar("Result")
Buffer = NDArray[np.uint8]

#: Chunks that may be finished or waiting beyond those being worked on.
_AHEAD: Final = 2


def default_threads() -> int:
    """As many as the processors that this process may use."""
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else (os.cpu_count() or 1)
    )


def memory_nbytes(buffer_nbytes: int, threads: int | None) -> int:
    """What `Workers.in_order` holds at most, in bytes, with three scratch buffers each."""
    count = threads or default_threads()
    return (count + _AHEAD) * buffer_nbytes + 3 * count * buffer_nbytes


class Workers:
    """A pool of threads; a context manager that waits for them."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or default_threads()
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="releasekit")

    def in_order(
        self,
        work: Callable[[Item, Buffer], Result],
        items: Iterable[Item],
        buffer_nbytes: int,
    ) -> Generator[tuple[Item, Result]]:
        """Yield `(item, work(item, buffer))` in the order of `items`.

        One iteration at a time.

        Args:
            work: called in a worker thread; may return views of its buffer.
            items: consumed lazily, in the caller's thread.
            buffer_nbytes: size of the buffer that each call is lent.

        An exception of `work` is raised at its item's turn. However the iteration ends,
        no call is left running.
        """
        window = self.threads + _AHEAD
        free: list[Buffer] = []
        pending: deque[tuple[Item, Buffer, Future[Result]]] = deque()
        source = iter(items)

        def submit() -> None:
            for item in source:
                buffer = free.pop() if free else np.empty(buffer_nbytes, np.uint8)
                pending.append((item, buffer, self._pool.submit(work, item, buffer)))
                return

        try:
            for _ in range(window):
                submit()
            while pending:
                item, buffer, future = pending[0]
                result = future.result()
                pending.popleft()
                yield item, result
                free.append(buffer)
                submit()
        finally:
            self._stopping.set()
            for _, _, future in pending:
                future.cancel()
            for _, _, future in pending:
                if not future.cancelled():
                    future.exception()
            self._stopping.clear()

    def check(self) -> None:
        """Called now and then by long work: raises if nobody waits for its result."""
        if self._stopping.is_set():
            raise CancelledError

    def close(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()
