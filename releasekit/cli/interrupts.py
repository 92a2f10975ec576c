"""Ctrl-C that leaves no lock taken.

Python raises KeyboardInterrupt wherever the main thread is. If that is in the code of a
`threading.Condition`, which executors, events and semaphores are made of, its lock may stay
taken, and who waits for it, as the process does for its threads in the end, waits for ever;
or it is given back twice, which is an error that hides the interruption. So a signal that
finds the main thread there is sent once more, a moment later, unless it has waited at that
place meanwhile: where conditions wait they can be interrupted. No signal is lost.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

_CONDITIONS: Final = threading.Condition.wait.__code__.co_filename
#: These wait for nothing but the lock itself.
_LOCKING: Final = frozenset(
    (threading.Condition.__enter__.__code__, threading.Condition.__exit__.__code__)
)
_MOMENT: Final = 0.002  # seconds


@contextmanager
def orderly() -> Iterator[None]:
    """Within, Ctrl-C is held back as above, unless something else was to come of it."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, Interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupt:
    """A handler of signals that raises KeyboardInterrupt, at once or soon."""

    def __init__(self) -> None:
        self._seen: tuple[CodeType, int] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, or have the signal sent again.

        Args:
            number: of the signal.
            frame: where the main thread is.
        """
        while frame is not None and frame.f_code.co_filename != _CONDITIONS:
            frame = frame.f_back
        if frame is not None:
            place, before = (frame.f_code, frame.f_lasti), self._seen
            self._seen = place
            if frame.f_code in _LOCKING or place != before:
                _thread.start_new_thread(_send_again, (number,))
                return
        self._seen = None
        raise KeyboardInterrupt


def _send_again(number: int) -> None:
    time.sleep(_MOMENT)
    os.kill(os.getpid(), number)
