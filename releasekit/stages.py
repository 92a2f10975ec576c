"""What the stages of a run took: told as they go, and kept.

Work tells its caller how far each stage is (`progress`); nothing tells that one begins or
ends. So a stage begins when it is first told of, and ends once all of its bytes are done,
or else when what it is part of is over. Told of again after that, from the beginning or
with another total, it is another stage of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from releasekit.progress import Progress

#: Seconds between two words about how far a stage is.
EVERY: Final = 10.0


class Moment(Enum):
    """What is told of a stage."""

    BEGIN = "begin"
    PROGRESS = "progress"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """What a stage took so far, or in all.

    Attributes:
        name: the stage's, for people.
        step: the step of a release that it is part of; None if there are no steps.
        release: the release, if there are several.
        begun: seconds after the run began.
        seconds: from its beginning to its end, or to what was told last.
        nbytes: bytes done.
        total: bytes in the whole stage.
    """

    name: str
    step: str | None
    release: str | None
    begun: float
    seconds: float
    nbytes: int
    total: int

    @property
    def rate(self) -> int | None:
        """Bytes a second, on average; None if it took no time."""
        return round(self.nbytes / self.seconds) if self.seconds > 0 else None

    @property
    def complete(self) -> bool:
        """Whether all of its bytes are done."""
        return self.nbytes >= self.total


Tell = Callable[[Moment, StageTime], None]


@dataclass(slots=True)
class _Going:
    """A stage: where it stands among all, when it was last told of, and if it is over."""

    place: int
    begun: float
    told: float
    over: bool = False


class Stages:
    """The stages of a run, in the order in which they began."""

    def __init__(self, now: Callable[[], float], tell: Tell, every: float = EVERY) -> None:
        """Nothing has begun.

        Args:
            now: seconds since the run began.
            tell: is told of each stage as it begins and ends, and of its progress.
            every: seconds at least between two words about progress.
        """
        self._now = now
        self._tell = tell
        self._every = every
        self._step: str | None = None
        self._release: str | None = None
        self._times: list[StageTime] = []
        self._going: dict[str, _Going] = {}

    @property
    def times(self) -> tuple[StageTime, ...]:
        """What each stage took; of one that goes on, as far as it was told."""
        return tuple(self._times)

    def step(self, name: str | None, release: str | None = None) -> None:
        """A step of a release begins, or with None ends; what went on before is over."""
        self.close()
        self._step = name
        self._release = release

    def take(self, progress: Progress) -> None:
        """How far a stage is; as `ProgressCallback`."""
        now = self._now()
        going = self._going.get(progress.stage)
        if going is None or self._is_another(self._times[going.place], progress):
            if going is not None:
                self._end(going)
            going = _Going(len(self._times), begun=now, told=now)
            self._going[progress.stage] = going
            self._times.append(self._time(going, progress, now))
            self._tell(Moment.BEGIN, self._times[-1])
        time = self._times[going.place] = self._time(going, progress, now)
        if time.complete:
            self._end(going)
        elif now - going.told >= self._every:
            going.told = now
            self._tell(Moment.PROGRESS, time)

    def close(self) -> None:
        """What the stages are part of is over, however that ended."""
        for going in self._going.values():
            self._end(going)
        self._going = {}

    def _end(self, going: _Going) -> None:
        if going.over:
            return
        going.over = True
        time = self._times[going.place]
        if not time.complete:  # it took until now, also if nothing was done of late
            time = replace(time, seconds=self._now() - going.begun)
            self._times[going.place] = time
        self._tell(Moment.END, time)

    def _time(self, going: _Going, progress: Progress, now: float) -> StageTime:
        return StageTime(
            name=progress.stage,
            step=self._step,
            release=self._release,
            begun=going.begun,
            seconds=now - going.begun,
            nbytes=progress.done,
            total=progress.total,
        )

    @staticmethod
    def _is_another(before: StageTime, progress: Progress) -> bool:
        return progress.done < before.nbytes or progress.total != before.total
