"""Rows of leaderboards: figures whose metric, n-shot and unit the leaderboard defines.

The CSV of the Open LLM Leaderboard has a column a task, a model a row, and percent in all
cells. Its columns came and went, so those it has tell which of the suites it is. It also
has many columns that say what a model is, not how good; these are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from releasekit.errors import FormatError
from releasekit.evals import rows
from releasekit.evals.rows import Row
from releasekit.evals.scores import LEADERBOARD, Origin, Results, Score, Unit
from releasekit.evals.suites import AVERAGE, LEADERBOARD_SUITES, Suite
from releasekit.names import listed, shown

MODEL: Final = "Model"
#: Columns of the leaderboard of 2023, by the task that each is of.
COLUMNS: Final = {
    "ARC": "arc_challenge",
    "HellaSwag": "hellaswag",
    "MMLU": "mmlu",
    "TruthfulQA": "truthfulqa_mc2",
    "Winogrande": "winogrande",
    "GSM8K": "gsm8k",
}
_AVERAGES: Final = ("Average ⬆️", "Average ⬆", "Average")
_DROP: Final = "DROP"  # in the average of November 2023 only
_LINK: Final = re.compile(r"<a [^<>]*>([^<>]*)</a>")


def parse(
    header: Sequence[str],
    given: Sequence[Row],
    subject: str,
    sha256: str,
    *,
    model: str | None = None,
) -> Results:
    """Read one model's row of the Open LLM Leaderboard.

    Args:
        header: the columns' titles.
        given: the rows.
        subject: the file's name.
        sha256: the file's SHA-256, as hexadecimal digits.
        model: whose row to take; None if there is only one model.

    Raises:
        FormatError: a cell is no percentage, or two rows of the model differ.
        UsageError: as `rows.of_model` does.
    """
    names = [_name(row.cells[MODEL]) for row in given]
    chosen = [given[place] for place in rows.of_model(names, model, subject)]
    titles = [title for title in (*_AVERAGES, *COLUMNS, _DROP) if title in header]
    figures = [
        {title: row.number(title) for title in titles if row.cells[title]} for row in chosen
    ]
    name = _name(chosen[0].cells[MODEL])
    for row, other in zip(chosen, figures, strict=True):
        if other != figures[0]:
            raise FormatError(
                f"{subject}: model {shown(name)} stands twice, with figures that differ: "
                f"{_told(chosen[0], figures[0])}; {_told(row, other)}; keep the row whose "
                "date and harness commit are known"
            )
    tasks = {COLUMNS[key]: value for key, value in figures[0].items() if key in COLUMNS}
    if not tasks:
        raise FormatError(f"{chosen[0].where}: expected figures, found none")
    origin = Origin(file=subject, sha256=sha256, kind=LEADERBOARD, model=name)
    suite = _suite_of(tasks)
    scores = [of_task(suite, task, tasks[task], Unit.PERCENT, origin) for task in tasks]
    average = next((figures[0][key] for key in _AVERAGES if key in figures[0]), None)
    if average is None:
        return Results(scores=tuple(scores))
    if _DROP in figures[0] or len(tasks) < len(suite.tasks):
        over = [title for title in figures[0] if title not in _AVERAGES]
        finding = (
            f"{chosen[0].where}: the average {average:g} is left out: it is over "
            f"{listed(over, 7)}, which no suite is."
        )
        return Results(scores=tuple(scores), findings=(finding,))
    return Results(scores=(*scores, of_average(suite, average, Unit.PERCENT, origin)))


def of_task(suite: Suite, task: str, value: float, unit: Unit, origin: Origin) -> Score:
    """A figure of a task, as the suite defines that."""
    known = next(item for item in suite.tasks if item.name == task)
    metric, filters = known.measures[0]
    return Score(
        task=task,
        metric=metric,
        value=value,
        unit=unit,
        origin=origin,
        shots=known.shots,
        higher_is_better=True,
        filter=filters,
        aggregate=task == "mmlu",
    )


def of_average(suite: Suite, value: float, unit: Unit, origin: Origin) -> Score:
    """A suite's average, as it is stated."""
    return Score(
        task=suite.id,
        metric=AVERAGE,
        value=value,
        unit=unit,
        origin=origin,
        higher_is_better=True,
        aggregate=True,
    )


def _suite_of(tasks: Mapping[str, float]) -> Suite:
    """The smallest of the leaderboard's suites that has all these tasks."""
    return next(
        suite
        for suite in LEADERBOARD_SUITES
        if set(tasks) <= {task.name for task in suite.tasks}
    )


def _name(cell: str) -> str:
    """A model's name; the leaderboard's own files had it inside a link."""
    link = _LINK.match(cell)
    return link[1].strip() if link else cell


def _told(row: Row, figures: Mapping[str, float]) -> str:
    listed_figures = ", ".join(f"{title} {value:g}" for title, value in figures.items())
    return f"line {row.line} has {listed_figures}"
