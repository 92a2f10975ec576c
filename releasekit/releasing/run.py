"""Run the steps of a release that are not done, in order, up to one that is asked for.

What can be known beforehand is told first: the first step may take hours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from releasekit.errors import IntegrityError, UsageError
from releasekit.received import read_small
from releasekit.releasing.beforehand import look_over
from releasekit.releasing.file import ReleaseFile, parse
from releasekit.releasing.record import Done, key_of
from releasekit.releasing.steps import ORDER, Step
from releasekit.releasing.steps import steps as all_steps
from releasekit.releasing.volume import Needs, expected, needs
from releasekit.releasing.watching import State, StepResult, Watcher
from releasekit.releasing.wording import telling_fields
from releasekit.releasing.work import Means, Work
from releasekit.signing.keys import PrivateKey
from releasekit.stricttoml import MAX_NBYTES

_MEANS: Final = Means()


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


_NOBODY: Final = Watcher()


def read(path: str | Path) -> ReleaseFile:
    """Read a `release.toml`.

    Raises:
        UsageError: if there is none.
        FormatError: with the path of the field that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; `releasekit init` writes one, with what it may say"
        )
    return parse(read_small(path, MAX_NBYTES), str(path))


def release(
    path: str | Path,
    *,
    key: PrivateKey | None = None,
    until: str = ORDER[-1],
    means: Means = _MEANS,
    watcher: Watcher = _NOBODY,
) -> ReleaseResult:
    """Make a release from its file, as far as it is not made yet.

    Args:
        path: the `release.toml`.
        key: the private key that the file's `sign_key` names.
        until: the last step to do.
        means: what the work may use.
        watcher: told of each step and stage.

    Raises:
        UsageError: if the file asks for what cannot be, or `key` is missing.
        FormatError: if the file, or an input, is malformed.
        ReleaseKitError: if the disk surely has too little room; or as the steps do; what
            was done before is kept.
    """
    work, steps = _begin(path, key, until, means)
    with telling_fields():
        plan = _plan(work, steps)
        _look_over(work, plan)
        if _makes(plan):
            needs(work).require()
        results = list(_done(work, steps, plan, watcher))
    return _result_of(work, results)


def plan_release(
    path: str | Path,
    *,
    key: PrivateKey | None = None,
    until: str = ORDER[-1],
    means: Means = _MEANS,
) -> ReleaseResult:
    """Which steps `release` would do; changes nothing, and raises as it does at first.

    That the disk is too small is no error here: `ReleaseResult.needs` says so.
    """
    work, steps = _begin(path, key, until, means)
    with telling_fields():
        results = _plan(work, steps)
        _look_over(work, results)
        return _result_of(work, results, needs(work) if _makes(results) else None)


def _done(
    work: Work,
    steps: list[Step],
    plan: list[StepResult],
    watcher: Watcher,
) -> Iterator[StepResult]:
    """Do what is not done."""
    todo = [step.name for step in plan if step.state is State.TO_DO]
    for number, step in enumerate(steps, 1):
        if step.idle is not None:
            yield _result(step, State.IDLE, step.idle)
            continue
        follows = _key(step)
        if work.record.is_done(step.name, follows, step.made):
            said = work.record.steps[step.name].said + step.doubt()
            yield _result(step, State.KEPT, said)
            continue
        rest = [name for name in todo if ORDER.index(name) > ORDER.index(step.name)]
        watcher.plan(expected(work, [step.name, *rest]))
        watcher.begin(step.name, number, len(steps))
        started = time.monotonic()
        said = step.run(watcher.show)
        made = step.made()
        if made is None:
            raise IntegrityError(
                f"{work.out}: what {step.name} made is gone: something else changes the "
                "folder; run again once nothing does"
            )
        work.record.note(step.name, Done(key=follows, outcome=made, said=said))
        result = _result(step, State.DONE, said, time.monotonic() - started)
        watcher.end(result)
        yield result


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


def _makes(plan: list[StepResult]) -> bool:
    """Whether there is something to make."""
    return any(step.name == "make" and step.state is State.TO_DO for step in plan)


def _look_over(work: Work, plan: list[StepResult]) -> None:
    look_over(work, [step.name for step in plan if step.state is State.TO_DO])


def _key(step: Step) -> str:
    """Tells whether a step is the one that was done: another version does others."""
    return key_of(step.name, version("releasekit"), step.follows())


def _result_of(
    work: Work, results: list[StepResult], takes: Needs | None = None
) -> ReleaseResult:
    return ReleaseResult(
        path=work.path, file=work.file, out=work.out, steps=tuple(results), needs=takes
    )


def _begin(
    path: str | Path, key: PrivateKey | None, until: str, means: Means
) -> tuple[Work, list[Step]]:
    """The work, and its steps up to the last that is asked for."""
    file = read(path)
    if until not in ORDER:
        raise UsageError(f"--until {until}: expected one of {', '.join(ORDER)}")
    if file.sign_key is not None and key is None:
        raise UsageError(f"{path}: release.sign_key: names a key, which was not given")
    work = Work(Path(path), file, key if file.sign_key is not None else None, means)
    last = ORDER.index(until)
    return work, [step for step in all_steps(work) if ORDER.index(step.name) <= last]


def _result(step: Step, state: State, said: str, seconds: float = 0.0) -> StepResult:
    return StepResult(name=step.name, state=state, said=said, seconds=seconds)
