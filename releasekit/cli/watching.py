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


def watcher_of(
    shell: Shell, stack: ExitStack, clock: Callable[[], float] = time.monotonic
) -> Watcher:
    """Who is told how a release goes.

    Args:
        shell: says whether anybody wants to know.
        stack: closed when the release is over.
        clock: tells seconds.
    """
    if shell.quiet:
        return Watcher()
    if sys.stderr.isatty():
        return _AtTerminal(shell, stack, clock)
    return Watcher() if shell.json else _InLog()


class _AtTerminal(Watcher):
    """A line a step, a bar a stage, and beside it how long the release will still take."""

    def __init__(self, shell: Shell, stack: ExitStack, clock: Callable[[], float]) -> None:
        self._shell = shell
        self._clock = clock
        self._stack = stack
        self._pace = Pace()
        self._progress: ProgressCallback | None = None

    def plan(self, expected: Expected) -> None:
        self._pace.expect(expected)

    def begin(self, name: str, number: int, count: int) -> None:
        self._stack.close()  # its stages may be called as those of the step before
        self._pace.begin(name)
        self._progress = self._stack.enter_context(self._shell.progress(self._note))
        left = self._pace.left()
        more = f"; {left}" if left is not None else ""
        click.echo(f"step {number} of {count}: {name}{more}", err=True)

    def show(self, progress: Progress) -> None:
        self._pace.take(progress, self._clock())
        if self._progress is not None:
            self._progress(progress)

    def _note(self) -> str:
        left = self._pace.left()
        return f"release: {left}" if left is not None else ""


class _InLog(Watcher):
    """A line where a step begins, and one where it ends."""

    def __init__(self) -> None:
        self._step = ""

    def begin(self, name: str, number: int, count: int) -> None:
        self._step = f"step {number} of {count}: {name}"
        click.echo(f"{self._step} begins", err=True)

    def end(self, result: StepResult) -> None:
        said = printable(f"done in {result.seconds:.1f} s: {result.said}")
        click.echo(f"{self._step} {said}", err=True)
