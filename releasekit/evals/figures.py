"""What a table shows of a task: one score, or several taken together."""

from __future__ import annotations

from dataclasses import dataclass

from releasekit.evals.scores import Score, Unit
from releasekit.evals.suites import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of a table: a task's figure, of one score or of several together.

    Attributes:
        task: the task's name.
        title: what people call it.
        metric: the metric.
        label: what tables call the metric.
        filter: what was done to the answers before they were judged.
        value: in percent, or raw.
        unit: PERCENT or RAW.
        stderr: the standard error, in the unit of `value`.
        shots: examples before each question, if that is known.
        prompt: what was put around the questions.
        version: the task's version.
        partial: whether only a part of the questions was asked.
        higher_is_better: whether a larger value is a better one.
        scores: what it is made of.
    """

    task: str
    title: str
    metric: str
    label: str
    filter: str | None
    value: float
    unit: Unit
    stderr: float | None
    shots: int | None
    prompt: str | None
    version: str | None
    partial: bool
    higher_is_better: bool | None
    scores: tuple[Score, ...]

    @property
    def measure(self) -> str:
        """The metric with its filter, and a mark if lower is better, for a table."""
        filtered = f", {self.filter}" if self.filter else ""
        return f"{self.label}{filtered}{' ↓' * (self.higher_is_better is False)}"

    @classmethod
    def of(cls, score: Score, task: Task | None = None) -> Figure:
        """The figure that is one score; of a task of a suite, by that's names."""
        percent = score.percent()
        is_raw = percent is None
        return cls(
            task=score.task,
            title=score.task if task is None else task.title,
            metric=score.metric,
            label=(task.known_as if task is not None else None) or score.metric,
            filter=score.filter,
            value=score.value if percent is None else percent,
            unit=Unit.RAW if is_raw else Unit.PERCENT,
            stderr=score.stderr if is_raw else score.stderr_percent(),
            shots=score.shots,
            prompt=score.origin.prompt,
            version=score.version,
            partial=score.partial,
            higher_is_better=score.higher_is_better,
            scores=(score,),
        )
