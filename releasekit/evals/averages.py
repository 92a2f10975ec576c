"""A suite's figures for one model, and their average.

An average is given only if every task has a figure: one of seven tasks out of eight looks
like one of eight, and is none. What makes an average worth less is said in notes beside
it, never left out: another n-shot, several versions of the harness, a part of the
questions, and what the harness' own group gives, which weights its tasks by their size.

A leaderboard computes its average before it rounds, so a stated average that agrees with
the mean of the stated figures, as far as these are known, is the more exact one and is
taken. One that does not agree is reported, and the mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from releasekit.evals.figures import Figure
from releasekit.evals.scores import Score, Unit
from releasekit.evals.suites import AVERAGE, Suite, Task
from releasekit.evals.tasks import MMLU

_OTHER_SHOTS: Final = 2  # the distance of a figure that is not of the suite
_EXACT: Final = 1e-9  # percentage points; what sums of floats may be off by


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """A suite's figures for one model.

    Attributes:
        suite: the suite.
        figures: of those of its tasks that have one, in its order.
        missing: names of the tasks that have none.
        average: in percent; None if a task is missing.
        stderr: the average's standard error in percentage points, which takes the tasks as
            independent; None if a task's is not known.
        stated: the average as a leaderboard states it, if that is what `average` is.
        notes: what there is to know about the average; sentences.
    """

    suite: Suite
    figures: tuple[Figure, ...]
    missing: tuple[str, ...]
    average: float | None
    stderr: float | None
    stated: Score | None
    notes: tuple[str, ...]

    def figure(self, task: str) -> Figure | None:
        """The task's figure; None if it has none."""
        return next((figure for figure in self.figures if figure.task == task), None)


def average(suite: Suite, scores: Iterable[Score]) -> SuiteResult:
    """Takes a suite's figures out of a model's scores, and averages them.

    The mean is unweighted; its standard error is `sqrt(sum(se**2)) / n`, that of a mean of
    independent figures.
    """
    given = tuple(scores)
    figures: list[Figure] = []
    notes: list[str] = []
    for task in suite.tasks:
        figure, remarks = _figure(task, given)
        notes += remarks
        if figure is not None:
            figures.append(figure)
    found = {figure.task for figure in figures}
    missing = tuple(task.name for task in suite.tasks if task.name not in found)
    notes += _remarks(suite, figures, given)
    stated = [score for score in given if (score.task, score.metric) == (suite.id, AVERAGE)]
    if missing:
        notes += [
            f"The average that {score.origin.file} states, {score.value:g}, is left out: "
            f"without {', '.join(missing)} it cannot be checked."
            for score in stated
        ]
        return SuiteResult(
            suite=suite,
            figures=tuple(figures),
            missing=missing,
            average=None,
            stderr=None,
            stated=None,
            notes=tuple(notes),
        )
    mean = math.fsum(figure.value for figure in figures) / len(figures)
    taken, remarks = _checked(stated, mean, figures)
    percent = None if taken is None else taken.percent()
    return SuiteResult(
        suite=suite,
        figures=tuple(figures),
        missing=(),
        average=mean if percent is None else percent,
        stderr=_stderr_of_mean([figure.stderr for figure in figures]),
        stated=taken,
        notes=(*notes, *remarks),
    )


def _figure(task: Task, scores: Sequence[Score]) -> tuple[Figure | None, list[str]]:
    if task.name == "mmlu":
        figure, remarks = _mmlu(task, scores)
        if figure is not None:
            return figure, remarks
    else:
        remarks = []
    mine = [score for score in scores if score.task == task.name]
    for measure in task.measures:
        found = [
            score
            for score in mine
            if (score.metric, score.filter) == measure and score.unit is not Unit.RAW
        ]
        if not found:
            continue
        # The suite's own n-shot first, then one that is not known; never another.
        best = min(_distance(score, task) for score in found)
        if best == _OTHER_SHOTS:
            shots = sorted({score.shots for score in found if score.shots is not None})
            return None, [_wrong_shots(task, shots)]
        chosen = [score for score in found if _distance(score, task) == best]
        if len(chosen) > 1:
            listed = " and ".join(
                f"{score.value:g} ({score.origin.cited()})" for score in chosen
            )
            return None, [
                f"{task.title} is left out, as it has several figures: {listed}; give only "
                "the one that counts."
            ]
        return Figure.of(chosen[0], task), []
    return None, remarks


def _distance(score: Score, task: Task) -> int:
    if score.shots == task.shots:
        return 0
    return 1 if score.shots is None else _OTHER_SHOTS


def _wrong_shots(task: Task, shots: Iterable[int]) -> str:
    found = " and ".join(f"{number}-shot" for number in shots)
    return (
        f"{task.title} is left out: it is {found} here, and {task.shots}-shot in the suite."
    )


def _mmlu(task: Task, scores: Sequence[Score]) -> tuple[Figure | None, list[str]]:
    """MMLU from its 57 subjects, as the leaderboard had it: never from a part of them."""
    subjects = _subjects(task, scores)
    if not subjects:
        return None, []
    if len(subjects) < len(MMLU):
        return None, [
            f"MMLU is left out: {len(subjects)} of its {len(MMLU)} subjects have a figure."
        ]
    parts = [Figure.of(score) for score in subjects]
    shots = {part.shots for part in parts}
    prompts = {part.prompt for part in parts}
    versions = {part.version for part in parts}
    if len(shots) > 1 or len(prompts) > 1:
        return None, ["MMLU is left out: its subjects differ in n-shot or prompt."]
    if not shots <= {None, task.shots}:
        return None, [
            _wrong_shots(task, (number for number in shots if number is not None))
        ]
    figure = Figure(
        task=task.name,
        title=task.title,
        metric="acc",
        label="acc",
        filter=None,
        value=math.fsum(part.value for part in parts) / len(parts),
        unit=Unit.PERCENT,
        stderr=_stderr_of_mean([part.stderr for part in parts]),
        shots=shots.pop(),
        prompt=prompts.pop(),
        version=versions.pop() if len(versions) == 1 else None,
        partial=any(part.partial for part in parts),
        higher_is_better=True,
        scores=subjects,
    )
    note = f"MMLU is the unweighted mean of its {len(MMLU)} subjects, as on the leaderboard"
    own = [
        f"{Figure.of(score).value:.1f}"
        for score in scores
        if (score.task, score.metric, score.filter) == (task.name, "acc", None)
        and score.shots in (None, figure.shots)
        and score.unit is not Unit.RAW
    ]
    beside = f"; the harness' own figure, {own[0]}, weights them by size" if own else ""
    return figure, [f"{note}{beside}."]


def _subjects(task: Task, scores: Sequence[Score]) -> tuple[Score, ...]:
    """A score for each of MMLU's subjects; those that fit the n-shot best."""
    best: dict[str, Score] = {}
    for score in scores:
        if score.task in _MMLU_NAMES and (score.metric, score.filter) == ("acc", None):
            held = best.get(score.task)
            if held is None or _distance(score, task) < _distance(held, task):
                best[score.task] = score
    return tuple(best[name] for name in MMLU if name in best)


_MMLU_NAMES: Final = frozenset(MMLU)


def _remarks(suite: Suite, figures: Sequence[Figure], scores: Sequence[Score]) -> list[str]:
    notes = []
    versions = {
        score.origin.harness
        for figure in figures
        for score in figure.scores
        if score.origin.harness is not None
    }
    if len(versions) > 1:
        notes.append(f"The harness' versions differ: {', '.join(sorted(versions))}.")
    prompts = {figure.prompt for figure in figures}
    if len(prompts) > 1:
        named = sorted(prompt or "none" for prompt in prompts)
        notes.append(f"The prompts differ: {'; '.join(named)}.")
    partial = [figure.title for figure in figures if figure.partial]
    if partial:
        notes.append(f"Only a part of the questions was asked of {', '.join(partial)}.")
    if suite.group is not None:
        notes += [
            f"The harness' own group {suite.group} gives {Figure.of(score).value:.1f}, as "
            "it weights the tasks by size."
            for score in scores
            if score.task == suite.group and score.metric == suite.tasks[0].metrics[0]
        ]
    return notes


def _checked(
    stated: Sequence[Score], mean: float, figures: Sequence[Figure]
) -> tuple[Score | None, list[str]]:
    """The stated average that the figures bear out, and a note on each that they do not."""
    taken: Score | None = None
    notes = []
    # The mean of figures that are each off by so much is off by so much at most.
    parts = max(_half_digit(score) for figure in figures for score in figure.scores)
    for score in stated:
        value = score.percent()
        if value is None:
            continue
        if abs(value - mean) <= _half_digit(score) + parts + _EXACT:
            taken = score
        else:
            notes.append(
                f"{score.origin.file} states an average of {value:g}, but the mean of the "
                f"figures is {mean:.2f}, which is taken."
            )
    return taken, notes


def _half_digit(score: Score) -> float:
    """Half a unit in a figure's last digit, in percentage points: what rounding hides."""
    exponent = Decimal(repr(score.value)).normalize().as_tuple().exponent
    digits = max(0, -exponent) if isinstance(exponent, int) else 0
    if score.unit is Unit.FRACTION:
        digits -= 2
    # A figure such as 68.0 shows fewer digits than its table has; the table's first counts.
    return 0.5 * 10.0 ** -max(digits, 1)


def _stderr_of_mean(errors: Sequence[float | None]) -> float | None:
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return math.sqrt(math.fsum(error**2 for error in known)) / len(known)
