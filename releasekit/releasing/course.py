"""One release on its way: what is to be done of it, and what has been.

A step is done unless it was done before, with the same inputs, and what it made is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Self

from releasekit.errors import IntegrityError, UsageError
from releasekit.releasing.beforehand import look_over
from releasekit.releasing.file import ReleaseFile
from releasekit.releasing.record import Done, key_of
from releasekit.releasing.steps import ORDER, Step
from releasekit.releasing.steps import steps as all_steps
from releasekit.releasing.sweep import Entry
from releasekit.releasing.volume import Needs, expected, needs
from releasekit.releasing.watching import State, StepResult, Watcher
from releasekit.releasing.work import Means, Work
from releasekit.signing.keys import PrivateKey

#: The first step.
MAKE: Final = "make"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """A release, as far as it has come.

    Attributes:
        path: its `release.toml`.
        file: what that says.
        out: the folder.
        steps: what became of each step, in order.
        needs: what making it would take; of a plan, if there is something to make.
    """

    path: Path
    file: ReleaseFile
    out: Path
    steps: tuple[StepResult, ...]
    needs: Needs | None = None


class Course:
    """A release on its way.

    Attributes:
        work: the release.
        steps: its steps, up to the last that is asked for.
        plan: what would become of each, as far as can be told beforehand.
        done: what became of those that are over, in order.
        now: the step that was begun, and is not over; None if none is.
    """

    def __init__(self, work: Work, steps: list[Step]) -> None:
        self.work = work
        self.steps = steps
        self.plan = _plan(work, steps)
        self.done: list[StepResult] = []
        self.now: str | None = None
        self._made: StepResult | None = None

    @classmethod
    def begin(cls, entry: Entry, key: PrivateKey | None, until: str, means: Means) -> Self:
        """Look at what was done before; raises UsageError without the key it takes."""
        file = entry.file
        if until not in ORDER:
            raise UsageError(f"--until {until}: expected one of {', '.join(ORDER)}")
        if file.sign_key is not None and key is None:
            raise UsageError(
                f"{entry.path}: release.sign_key: names a key, which was not given"
            )
        work = Work(entry, key if file.sign_key is not None else None, means)
        last = ORDER.index(until)
        return cls(work, [s for s in all_steps(work) if ORDER.index(s.name) <= last])

    @property
    def todo(self) -> list[str]:
        """Steps that there is something to do for."""
        return [step.name for step in self.plan if step.state is State.TO_DO]

    @property
    def makes(self) -> bool:
        """Whether there is something to make."""
        return MAKE in self.todo

    def look_over(self) -> None:
        """Refuse what a later step would refuse; raises as `beforehand.look_over`."""
        look_over(self.work, self.todo)

    def needs(self) -> Needs | None:
        """What making it takes; None if there is nothing to make."""
        return needs(self.work) if self.makes else None

    def make(self, run: Callable[[], str]) -> StepResult:
        """Do the first step by other means than its own, which leave the same behind."""
        self.now, step = MAKE, next(step for step in self.steps if step.name == MAKE)
        self._made = _do(self.work, step, run)
        return self._made

    def run(self, watcher: Watcher) -> None:
        """Do what is not done; raises as the steps do, and `done` has what was before."""
        for number, step in enumerate(self.steps, 1):
            self.now = step.name
            if step.name == MAKE and self._made is not None:
                self.done.append(self._made)
            else:
                self.done.append(self._step(step, number, watcher))
        self.now = None

    def result(
        self, takes: Needs | None = None, error: Exception | None = None
    ) -> ReleaseResult:
        """The release as far as it has come; as it is planned, if nothing was begun."""
        work, steps = self.work, self.done or self.plan
        if error is not None and self.now is not None:
            failed = StepResult(
                name=self.now, state=State.FAILED, said=str(error), seconds=0.0
            )
            steps = [*self.done, failed]
        return ReleaseResult(
            path=work.path, file=work.file, out=work.out, steps=tuple(steps), needs=takes
        )

    def _step(self, step: Step, number: int, watcher: Watcher) -> StepResult:
        work = self.work
        if step.idle is not None:
            return _result(step, State.IDLE, step.idle)
        if work.record.is_done(step.name, _key(step), step.made):
            said = work.record.steps[step.name].said + step.doubt()
            return _result(step, State.KEPT, said)
        rest = [n for n in self.todo if ORDER.index(n) > ORDER.index(step.name)]
        watcher.plan(expected(work, [step.name, *rest]))
        watcher.begin(step.name, number, len(self.steps))
        result = _do(work, step, lambda: step.run(watcher.show))
        watcher.end(result)
        return result


def _do(work: Work, step: Step, run: Callable[[], str]) -> StepResult:
    """Do a step, and note that it is done."""
    follows, started = _key(step), time.monotonic()
    said = run()
    made = step.made()
    if made is None:
        raise IntegrityError(
            f"{work.out}: what {step.name} made is gone: something else changes the "
            "folder; run again once nothing does"
        )
    work.record.note(step.name, Done(key=follows, outcome=made, said=said))
    return _result(step, State.DONE, said, time.monotonic() - started)


def _plan(work: Work, steps: list[Step]) -> list[StepResult]:
    """What would become of each step, in order."""
    results: list[StepResult] = []
    todo: set[str] = set()
    for step in steps:
        if step.idle is not None:
            results.append(_result(step, State.IDLE, step.idle))
            continue
        done = work.record.steps.get(step.name)
        if done is None:
            why = "not done yet"
        elif done.key != _key(step):
            why = "what it follows from has changed"
        elif done.outcome != step.made():
            why = "what it made is gone, or was changed"
        elif before := [name for name in step.after if name in todo]:
            why = f"unless the same comes out of: {', '.join(before)}"
        else:
            results.append(_result(step, State.KEPT, done.said + step.doubt()))
            continue
        todo.add(step.name)
        results.append(_result(step, State.TO_DO, why))
    return results


def _key(step: Step) -> str:
    """Tells whether a step is the one that was done: another version does others."""
    return key_of(step.name, version("releasekit"), step.follows())


def _result(step: Step, state: State, said: str, seconds: float = 0.0) -> StepResult:
    return StepResult(name=step.name, state=state, said=said, seconds=seconds)
