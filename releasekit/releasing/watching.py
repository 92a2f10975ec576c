"""What becomes of the steps of a release, and who is told of it while it happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from releasekit.progress import Progress
from releasekit.releasing.pace import Expected


class State(Enum):
    """What became of a step."""

    DONE = "done"  #: in this run
    KEPT = "kept"  #: done before, and nothing has changed
    IDLE = "idle"  #: there is nothing to do
    TO_DO = "to do"  #: of a plan
    FAILED = "failed"  #: in this run, and none after it was begun


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of a step.

    Attributes:
        name: the step's.
        state: what became of it.
        said: a line about it.
        seconds: that it took in this run.
    """

    name: str
    state: State
    said: str
    seconds: float


class Watcher:
    """Is told how a release goes. This one does nothing about it."""

    def plan(self, expected: Expected) -> None:
        """What is to be done from now on; told again where more is known."""

    def turn(self, release: str) -> None:
        """It is another release's turn, of several; or that of some side by side."""

    def begin(self, name: str, number: int, count: int) -> None:
        """A step begins: the so-and-so-manyth of so many."""

    def show(self, progress: Progress) -> None:
        """How far a stage of the step is; as `ProgressCallback`."""

    def end(self, result: StepResult) -> None:
        """A step was done."""

    def fail(self, said: str) -> None:
        """A release comes no further; so one is told only where there are several."""
