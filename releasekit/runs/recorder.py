"""What happens in a run: told to a log as it happens, and kept for a report.

Nothing is written unless a log or a report was asked for, and what only they take is not
imported before; stages are timed all the same, since results show them.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from releasekit.progress import Progress
from releasekit.runs.log import EventLog, Now, utc_now
from releasekit.runs.records import Failure, RunRecord, stage_document
from releasekit.stages import Moment, Stages, StageTime

#: The version of the log's fields.
_SCHEMA: Final = 1
#: Warnings that a report keeps.
_MOST: Final = 1000
#: What the log tells of a stage that has begun.
_MEASURED: Final = ("seconds", "nbytes", "total_nbytes", "nbytes_per_second")


class Recorder:
    """Records one run.

    Attributes:
        run: names the run.
        stages: what its stages took.
        log: where events go; None if no log was asked for.
        report: where the report goes; None if none was asked for.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        now: Now = utc_now,
    ) -> None:
        """A run begins.

        Args:
            environment: variables by name.
            clock: tells seconds.
            now: tells the time.
        """
        self.run: Final = uuid.uuid4().hex
        self.log: EventLog | None = None
        self.report: Path | None = None
        self.stages: Final = Stages(self._seconds, self._stage)
        self._environment = environment
        self._clock = clock
        self._now = now
        self._begun = now()
        self._zero = clock()
        self._command: str | None = None
        self._options: dict[str, object] = {}
        self._told = False
        self._release: str | None = None
        self._steps: list[dict[str, object]] = []
        self._workers: list[Mapping[str, object]] = []
        self._warnings: list[str] = []
        self._failure: Failure | None = None

    @property
    def wanted(self) -> bool:
        """Whether a log or a report was asked for."""
        return self.log is not None or self.report is not None

    def log_to(self, write_line: Callable[[str], object]) -> None:
        """Have events written, each as a line."""
        from releasekit.redaction import hider, secrets_of

        hide = hider(secrets_of(self._environment))
        self.log = EventLog(write_line, run=self.run, hide=hide, now=self._now)

    def report_to(self, path: Path) -> None:
        """Have a report written at the end.

        Raises:
            UsageError: if it cannot be, or would replace something else.
        """
        from releasekit.runs.report import check_place

        check_place(path)
        self.report = path.absolute()  # wherever the run goes

    def begin(self, command: str, options: Mapping[str, object]) -> None:
        """It is known what is to be done; only the first word of it counts.

        Args:
            command: such as `trust add`.
            options: those that were given, by name; paths as such.
        """
        if self._command is None:
            self._command = command
            self._options = dict(options)
            self._tell_begin()

    def turn(self, release: str) -> None:
        """It is the turn of one of several releases."""
        self._release = release

    def step(self, name: str, number: int, count: int) -> None:
        """A step of a release begins: the so-and-so-manyth of so many."""
        self.stages.step(name, self._release)
        message = f"step {number} of {count}: {name} begins"
        begun = {"release": self._release, "step": name, "number": number, "count": count}
        self._tell("step.begin", message, begun)

    def step_done(self, name: str, state: str, said: str, seconds: float) -> None:
        """A step of a release was done."""
        self.stages.step(None)
        done: dict[str, object] = {"step": name, "state": state, "said": said}
        done["seconds"] = round(seconds, 3)
        if self._release is not None:
            done = {"release": self._release, **done}
        self._steps.append(done)
        self._tell("step.end", f"step {name}: {state}: {said}", done)

    def step_failed(self, said: str) -> None:
        """One of several releases comes no further."""
        self.stages.step(None)
        self._tell("release.failed", said, {"release": self._release}, "error")

    def take(self, progress: Progress) -> None:
        """How far a stage is; as `ProgressCallback`."""
        self.stages.take(progress)

    def warn(self, message: str) -> None:
        """What is no error, but ought to be known."""
        if len(self._warnings) < _MOST:
            self._warnings.append(message)
        self._tell("warning", message, {}, "warning")

    def say(self, line: str) -> None:
        """A line that somebody wrote to stderr, where the log goes."""
        self._tell("text", line, {})

    def worker(self, worker: Mapping[str, object]) -> None:
        """What one of several processes did."""
        self._workers.append(worker)
        name = worker.get("name")
        told = {"worker": name, **{k: v for k, v in worker.items() if k != "name"}}
        self._tell("worker", f"worker {name} is done", told)

    def fault(self, kind: str, message: str) -> None:
        """Something that is wrong, though there is a result; the run fails of the first."""
        self.fail(kind, message)
        error = {"type": kind, "message": message}
        self._tell("error", message, {"error": error}, "error")

    def fail(self, kind: str, message: str, error: BaseException | None = None) -> None:
        """Why the run fails; the first reason counts.

        Args:
            kind: the error's class.
            message: what it says.
            error: of a bug, the error itself.
        """
        if self._failure is None:
            self._failure = Failure(kind=kind, message=message, error=error)

    def end(self, exit_code: int) -> OSError | None:
        """The run ends.

        Returns:
            Why the report could not be written; None if it was, or none was wanted.
        """
        self.stages.close()
        if self._command is None and self._failure is None:
            return None  # nothing was run: help was asked for
        self._tell_begin()
        seconds = self._seconds()
        self._tell_end(exit_code, seconds)
        if self.report is None:
            return None
        from releasekit.runs.report import compose, write

        record = RunRecord(
            run=self.run,
            command=self._command,
            options=self._options,
            begun=self._begun,
            ended=self._now(),
            seconds=seconds,
            exit_code=exit_code,
            failure=self._failure,
            steps=self._steps,
            stages=self.stages.times,
            workers=self._workers,
            warnings=self._warnings,
        )
        try:
            write(self.report, compose(record, self._environment))
        except OSError as error:
            return error
        return None

    def _seconds(self) -> float:
        return self._clock() - self._zero

    def _tell(
        self, event: str, message: str, fields: Mapping[str, object], level: str = "info"
    ) -> None:
        if self.log is not None:
            self.log.tell(event, message, fields, level)

    def _tell_begin(self) -> None:
        if self._told or self.log is None:
            return
        from releasekit.runs import surroundings

        self._told = True
        begun = {
            "schema": _SCHEMA,
            "version": surroundings.own_version(),
            "command": self._command,
            "options": self._options,
            "python": surroundings.python(),
            "platform": surroundings.system(),
            "pid": os.getpid(),
        }
        self._tell("run.begin", f"{self._command or 'releasekit'} begins", begun)

    def _tell_end(self, exit_code: int, seconds: float) -> None:
        name = self._command or "releasekit"
        error = None
        message = (
            f"{name} ended with exit code {exit_code}" if exit_code else f"{name} done"
        )
        failure = self._failure
        if failure is not None:
            message = failure.message
            error = {"type": failure.kind, "message": failure.message}
            if failure.error is not None:
                import traceback

                error["stack_trace"] = "".join(traceback.format_exception(failure.error))
        ended = {
            "command": self._command,
            "exit_code": exit_code,
            "seconds": round(seconds, 3),
            "error": error,
        }
        self._tell("run.end", message, ended, "error" if exit_code else "info")

    def _stage(self, moment: Moment, time: StageTime) -> None:
        document = stage_document(time)
        told: dict[str, object] = {"release": time.release, "step": time.step}
        told["stage"] = time.name
        if moment is Moment.BEGIN:
            message = f"{time.name} begins"
            told["total_nbytes"] = time.total
        else:
            share = f"{time.nbytes / time.total:.0%}" if time.total else "all"
            message = f"{time.name}: {share} done in {time.seconds:.1f} s"
            told |= {name: document[name] for name in _MEASURED}
        self._tell(f"stage.{moment.value}", message, told)


def stages_document(times: Sequence[StageTime]) -> list[dict[str, object]]:
    """What stages took, as results show it."""
    kept = ("release", "step", "name", "seconds", "nbytes")
    documents = [stage_document(time) for time in times]
    return [{k: v for k, v in one.items() if k in kept} for one in documents]
