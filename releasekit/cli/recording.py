"""How a run of the command line is recorded: `--log-json`, `--run-report`, its end.

A log on stderr has that to itself: what else is written there, by whomever, becomes a line
of it. Where a run is recorded, SIGTERM ends it as Ctrl-C does, so that it can be told.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import click
from click.core import ParameterSource

from releasekit.cli.interrupts import Interrupt
from releasekit.errors import UsageError
from releasekit.runs.recorder import Recorder

LOG_OPTION: Final = "--log-json"
REPORT_OPTION: Final = "--run-report"
_SEND: Final = "send it to the maintainers, with what you wanted to do"
_DEFAULTS: Final = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)


class Recording:
    """What is written down of a run; a context manager, within which it takes place.

    Attributes:
        recorder: keeps what happens, and tells the log.
        logs_to_stderr: whether stderr is the log's alone.
        terminated: whether the run was told to end, by SIGTERM.
        unread: whether whoever read the output went away.
    """

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.logs_to_stderr = False
        self.terminated = False
        self.unread = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.close()
        if self.unread:
            sys.stderr.close()  # else Python says there that it cannot write to stdout

    def log_to(self, target: str) -> None:
        """Have what happens written as lines of JSON: to a file, or with `-` to stderr.

        Raises:
            UsageError: if the file cannot be written.
        """
        from releasekit.runs.log import Lines, LogFile, stream_writer

        if target == "-":
            self.recorder.log_to(stream_writer(sys.stderr))
            lines = Lines(self.recorder.say, sys.stderr)
            self._stack.callback(lines.flush)
            self._stack.enter_context(redirect_stderr(lines))
            self.logs_to_stderr = True
            return
        file = LogFile(Path(target))
        self._stack.callback(file.close)
        self.recorder.log_to(file.write)

    def report_to(self, target: str) -> None:
        """Have a report written at the end.

        Raises:
            UsageError: if it cannot be, or would replace something else.
        """
        self.recorder.report_to(Path(target))

    def begin(self, context: click.Context) -> None:
        """It is known what is to be done."""
        if self.recorder.wanted:
            self._stack.enter_context(self._ending_on_sigterm())
        # Those by default depend on nothing but the version.
        given = {
            _label(parameter): context.params[parameter.name]
            for parameter in context.command.params
            if parameter.name in context.params
            and context.get_parameter_source(parameter.name) not in _DEFAULTS
        }
        self.recorder.begin(_name(context), given)

    def refused(self, error: click.ClickException, arguments: Sequence[str]) -> None:
        """Click refuses the arguments, maybe before it came to ours."""
        if not self.recorder.wanted:
            with suppress(UsageError):  # what it refused is told first
                self._find_options(arguments)
        context = error.ctx if isinstance(error, click.UsageError) else None
        if context is not None:
            self.recorder.begin(_name(context), {})

    def end(self, code: int) -> list[str]:
        """The run is over.

        Returns:
            Sentences about what could not be written.
        """
        fault = self.recorder.end(code)
        lacks = []
        if fault is not None:
            path = self.recorder.report
            lacks.append(f"{path}: the run's report was not written: {fault.strerror}")
        if self.recorder.log is not None and self.recorder.log.lost is not None:
            lacks.append(f"the log is not complete: {self.recorder.log.lost}")
        return lacks

    def explain_bug(self, error: BaseException) -> None:
        """Has Python say what to do about a bug where it shows it, unless the log does."""
        report = self.recorder.report
        if report is not None and report.exists():
            hint = f"Look through {report}, and {_SEND}."
        else:
            hint = (
                f"Run the same command with {REPORT_OPTION} FILE, look through the file, "
                f"and {_SEND}."
            )
        error.add_note(f"This is a bug in releasekit. {hint}")
        if self.logs_to_stderr:
            sys.excepthook = lambda *_: None

    def _find_options(self, arguments: Sequence[str]) -> None:
        uses = {LOG_OPTION: self.log_to, REPORT_OPTION: self.report_to}
        for at, argument in enumerate(arguments):
            name, equals, value = argument.partition("=")
            if name not in uses:
                continue
            if not equals:
                value = "".join(arguments[at + 1 : at + 2])
            if value == "-" or not value.startswith("-"):  # another option is no value
                uses[name](value)

    @contextmanager
    def _ending_on_sigterm(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may say what a signal does
            return

        interrupt = Interrupt()

        def end(number: int, frame: FrameType | None) -> None:
            self.terminated = True
            try:
                interrupt(number, frame)
            except KeyboardInterrupt:
                # Whoever sends it once more means it.
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                raise

        before = signal.signal(signal.SIGTERM, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _label(parameter: click.Parameter) -> str:
    """What users call an option: `sign-key`; an argument is called as here."""
    return max(parameter.opts, key=len).lstrip("-")


def _name(context: click.Context) -> str:
    """What a command is called: `trust add`."""
    return context.command_path.removeprefix("releasekit").strip() or "releasekit"
