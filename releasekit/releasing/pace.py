"""How long a release will still take, by the bytes that are left and the rates so far.

    left = sum over stages: bytes left ÷ rate
    rate = bytes done ÷ seconds taken, of the stage; else of all stages that read and write

What each step reads or writes is known roughly before it begins, and exactly once its
stages say. Nothing is guessed: until something has been timed for long enough, or while
a step's bytes are not known at all, there is no estimate. How fast files go to the Hub
shows only once they do, so until then an estimate leaves that out, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from releasekit.progress import Progress

#: What is sent to the Hub, which the disk's pace tells nothing of.
UPLOAD: Final = "upload"
#: Seconds that a pace must have been seen for.
_ENOUGH: Final = 2.0

#: Bytes of each stage by its name; None if they are not known. By step, in order.
Expected = Mapping[str, Mapping[str, int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How long it will still take.

    Attributes:
        seconds: about so many.
        upload: whether an upload comes on top of that, of which nothing is known yet.
    """

    seconds: float
    upload: bool = False

    def __str__(self) -> str:
        more = ", and the upload" if self.upload else ""
        return f"{_shown(self.seconds)} left{more}"


@dataclass(slots=True)
class _Seen:
    """A stage: what was done of it, and how long that took."""

    nbytes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes a second; None if it was not seen for long enough."""
        if not self.nbytes or self.seconds < _ENOUGH:
            return None
        return self.nbytes / self.seconds


class Pace:
    """Watches the stages of a release, and tells how long the rest will take."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, int] | None] = {}
        self._seen: dict[str, _Seen] = {}
        self._now: dict[str, tuple[int, float]] = {}
        self._step = ""

    def expect(self, steps: Expected) -> None:
        """What is to be done from now on, in order; what was expected before is not."""
        self._left = {
            name: dict(stages) if stages is not None else None
            for name, stages in steps.items()
        }

    def begin(self, step: str) -> None:
        """A step begins: those before it are over."""
        names = list(self._left)
        for name in names[: names.index(step)] if step in self._left else names:
            del self._left[name]
        self._step = step
        self._now = {}

    def take(self, progress: Progress, now: float) -> None:
        """How far a stage of the step is, and at which second by any clock."""
        name = progress.stage
        done, before = self._now.get(name, (0, now))
        seen = self._seen.setdefault(name, _Seen())
        seen.nbytes += progress.done - done
        seen.seconds += now - before
        self._now[name] = (progress.done, now)
        stages = self._left.get(self._step)
        if stages is not None:
            stages[name] = progress.total - progress.done

    def left(self) -> Left | None:
        """How long all will still take; None as long as that cannot be said."""
        seconds, upload = 0.0, False
        for stages in self._left.values():
            if stages is None:
                return None
            for name, nbytes in stages.items():
                rate = self._rate(name)
                if not nbytes:
                    continue
                if rate is not None:
                    seconds += nbytes / rate
                elif name == UPLOAD:
                    upload = True
                else:
                    return None
        return Left(seconds=seconds, upload=upload) if seconds else None

    def _rate(self, name: str) -> float | None:
        seen = self._seen.get(name)
        if name == UPLOAD or (seen is not None and seen.rate is not None):
            return seen.rate if seen is not None else None
        local = [one for stage, one in self._seen.items() if stage != UPLOAD]
        return _Seen(
            sum(one.nbytes for one in local), sum(one.seconds for one in local)
        ).rate


def _shown(seconds: float) -> str:
    """Seconds as people round them."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"about {round(seconds, -1):.0f} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"
