"""How long work tells its caller how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step of long work.

    Attributes:
        stage: what is being done, for people: "encode", "rebuild".
        done: bytes done so far, since the stage began.
        total: bytes in the whole stage.
    """

    stage: str
    done: int
    total: int


#: Called often, from any thread, but one call at a time; should return quickly.
ProgressCallback = Callable[[Progress], None]


def in_turn(callback: ProgressCallback | None) -> ProgressCallback | None:
    """The same callback, for stages that go on at the same time."""
    if callback is None:
        return None
    lock = threading.Lock()

    def call(progress: Progress) -> None:
        with lock:
            callback(progress)

    return call


class Stage:
    """Counts the bytes of one stage for a callback, which may be None."""

    def __init__(self, callback: ProgressCallback | None, stage: str, total: int) -> None:
        self._callback = callback
        self._stage = stage
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self.advance(0)

    def advance(self, nbytes: int) -> None:
        """Tell that `nbytes` more are done."""
        with self._lock:
            self._done += nbytes
            if self._callback is not None:
                self._callback(
                    Progress(stage=self._stage, done=self._done, total=self._total)
                )
