"""What happened in a run, as its report is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from releasekit.stages import StageTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run failed.

    Attributes:
        kind: the error's class.
        message: what it says.
        error: of a bug, the error itself; None for those that were expected.
    """

    kind: str
    message: str
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What happened in a run.

    Attributes:
        run: names the run.
        command: what was run, such as `trust add`; None if that was not known yet.
        options: those that were given, by name.
        begun: when the run began.
        ended: when it ended.
        seconds: how long it took.
        exit_code: what it ended with.
        failure: why it failed; None if it did not.
        steps: of a release, in order: `step`, `state`, `said`, `seconds`, and of several
            `release`.
        stages: in order.
        workers: what each process did, if several did.
        warnings: in order.
    """

    run: str
    command: str | None
    options: Mapping[str, object]
    begun: datetime
    ended: datetime
    seconds: float
    exit_code: int
    failure: Failure | None
    steps: Sequence[Mapping[str, object]]
    stages: Sequence[StageTime]
    workers: Sequence[Mapping[str, object]]
    warnings: Sequence[str]


def stage_document(stage: StageTime) -> dict[str, object]:
    """What a stage took, as JSON has it."""
    where = {"release": stage.release, "step": stage.step}
    return {
        **{name: value for name, value in where.items() if value is not None},
        "name": stage.name,
        "begun_seconds": round(stage.begun, 3),
        "seconds": round(stage.seconds, 3),
        "nbytes": stage.nbytes,
        "total_nbytes": stage.total,
        "nbytes_per_second": stage.rate,
    }
