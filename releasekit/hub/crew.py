"""Threads for transfers: a few at once, in the order that they are asked for.

Stopping them is a matter of moments, unless a server has fallen silent: then of as long as
its silence is borne.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any, Final, Self, TypeVar

Result = TypeVar("Result")

#: Files that are transferred at once, as many as huggingface_hub's own.
CONNECTIONS: Final = 8
#: Seconds between looks at whether anybody still wants a result.
_LOOK: Final = 0.1


class Crew:
    """A context manager that stops its threads when it is left.

    Attributes:
        stop: set once nobody wants their results; work looks at it often.
    """

    def __init__(self, threads: int = CONNECTIONS) -> None:
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="releasekit-hub")

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Do `work` in a thread, after what was submitted before it has begun."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Stop, and wait until nothing is written any more."""
        self.stop.set()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def wait(future: Future[Result], check: Callable[[], None]) -> Result:
    """The result of what a crew does; `check` is called meanwhile, and may raise."""
    check()
    while not wait_for((future,), _LOOK).done:
        check()
    return future.result()
