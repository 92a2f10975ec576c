"""What somebody sees of a release that is being made: at a terminal, or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import click

from releasekit.cli.shell import Shell, printable
from releasekit.progress import Progress, ProgressCallback
from releasekit.releasing.pace import Expected, Pace
from releasekit.releasing.watching import StepResult, Watcher
from releasekit.runs.recorder import Recorder


def watcher_of(
    shell: Shell, stack: ExitStack, clock: Callable[[], float] = time.monotonic
) -> Watcher:
    """Who is told how a release goes.

    Args:
        shell: says whether anybody wants to know.
        stack: closed when the release is over.
        clock: tells seconds.
    """
    watcher = _shown(shell, stack, clock)
    if shell.json or shell.recording.recorder.wanted:
        return _Recorded(shell.recording.recorder, watcher)
    return watcher


def _shown(shell: Shell, stack: ExitStack, clock: Callable[[], float]) -> Watcher:
    if shell.quiet or shell.recording.logs_to_stderr:
        return Watcher()
    if sys.stderr.isatty():
        return _AtTerminal(shell, stack, clock)
    return Watcher() if shell.json else _InLog()


class _Recorded(Watcher):
    """Has a release recorded, and shown as another watcher shows it."""

    def __init__(self, recorder: Recorder, shown: Watcher) -> None:
        self._recorder = recorder
        self._shown = shown

    def turn(self, release: str) -> None:
        self._recorder.turn(release)
        self._shown.turn(release)

    def plan(self, expected: Expected) -> None:
        self._shown.plan(expected)

    def begin(self, name: str, number: int, count: int) -> None:
        self._recorder.step(name, number, count)
        self._shown.begin(name, number, count)

    def show(self, progress: Progress) -> None:
        self._recorder.take(progress)
        self._shown.show(progress)

    def end(self, result: StepResult) -> None:
        self._recorder.step_done(
            result.name, result.state.value, result.said, result.seconds
        )
        self._shown.end(result)

    def fail(self, said: str) -> None:
        self._recorder.step_failed(said)
        self._shown.fail(said)


class _AtTerminal(Watcher):
    """A line a step, a bar a stage, and beside it how long the release will still take."""

    def __init__(self, shell: Shell, stack: ExitStack, clock: Callable[[], float]) -> None:
        self._shell = shell
        self._clock = clock
        self._stack = stack
        self._pace = Pace()
        self._progress: ProgressCallback | None = None
        self._release = ""

    def turn(self, release: str) -> None:
        self._release = f"{release}: "

    def plan(self, expected: Expected) -> None:
        self._pace.expect(expected)

    def begin(self, name: str, number: int, count: int) -> None:
        self._stack.close()  # its stages may be called as those of the step before
        self._pace.begin(name)
        self._progress = self._stack.enter_context(self._shell.bars(self._note))
        left = self._pace.left()
        more = f"; {left}" if left is not None else ""
        told = f"{self._release}step {number} of {count}: {name}{more}"
        click.echo(printable(told), err=True)

    def show(self, progress: Progress) -> None:
        self._pace.take(progress, self._clock())
        if self._progress is not None:
            self._progress(progress)

    def fail(self, said: str) -> None:
        told = printable(f"{self._release}failed: {said}")
        click.echo(f"\n{told}", err=True)  # a bar may be in the line

    def _note(self) -> str:
        left = self._pace.left()
        return f"release: {left}" if left is not None else ""


class _InLog(Watcher):
    """A line where a step begins, and one where it ends."""

    def __init__(self) -> None:
        self._release = ""
        self._step = ""

    def turn(self, release: str) -> None:
        self._release = f"{release}: "

    def begin(self, name: str, number: int, count: int) -> None:
        self._step = f"step {number} of {count}: {name}"
        self._tell("begins")

    def end(self, result: StepResult) -> None:
        self._tell(f"done in {result.seconds:.1f} s: {result.said}")

    def fail(self, said: str) -> None:
        self._tell(f"failed: {said}")

    def _tell(self, said: str) -> None:
        click.echo(printable(f"{self._release}{self._step} {said}"), err=True)
