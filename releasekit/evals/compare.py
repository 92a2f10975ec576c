"""A model against its base, task by task.

A difference is given only between figures that can be compared: same metric, filter,
n-shot, prompt and version of the task, and all questions asked of both. Else the reason
stands in its place. What is only not known is said as a remark, and does not forbid it.

The standard error of a difference is `sqrt(se1**2 + se2**2)`, as if the two figures were
independent. They are not: both models answered the same questions, where their errors tend
to fall on the same ones. So the true error is smaller as a rule, and this one is cautious.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from releasekit.evals.averages import SuiteResult, average
from releasekit.evals.collection import Collection
from releasekit.evals.figures import Figure
from releasekit.evals.scores import Score, Unit
from releasekit.evals.suites import AVERAGE, Suite
from releasekit.evals.tasks import MMLU

_DASH: Final = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One task, of the model and of its base.

    Attributes:
        title: what people call the task.
        model: the model's figure, if it has one.
        base: the base's, if it has one.
        difference: model minus base, in percentage points, or raw; None if either lacks,
            or they cannot be compared.
        stderr: the difference's standard error, in the same unit; None if one is not known.
        comparable: whether the two figures can be compared; true if either lacks.
        reasons: why they cannot be, in words.
        remarks: what is not known about that.
    """

    title: str
    model: Figure | None
    base: Figure | None
    difference: float | None
    stderr: float | None
    comparable: bool
    reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteComparison:
    """One suite, of the model and of its base.

    Attributes:
        suite: the suite.
        rows: one a task, in the suite's order.
        model: the model's figures and average.
        base: the base's; None if there is no base.
        difference: of the averages, in percentage points; None if one is missing, or a row
            cannot be compared.
        stderr: the difference's standard error.
    """

    suite: Suite
    rows: tuple[Row, ...]
    model: SuiteResult
    base: SuiteResult | None
    difference: float | None
    stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A model against its base.

    Attributes:
        model: the model's name.
        base: the base's name; None if there is no base.
        suites: by suite.
        others: figures that are in none of these.
    """

    model: str
    base: str | None
    suites: tuple[SuiteComparison, ...]
    others: tuple[Row, ...]


def compare(model: Collection, base: Collection | None = None) -> Comparison:
    """Sets a model's figures beside those of its base."""
    results = model.suites(base)
    return Comparison(
        model=model.name,
        base=None if base is None else base.name,
        suites=tuple(_suite(result, base) for result in results),
        others=tuple(_others(model, base, results)),
    )


def _suite(result: SuiteResult, base: Collection | None) -> SuiteComparison:
    against = None if base is None else average(result.suite, base.scores)
    rows = []
    for task in result.suite.tasks:
        mine = result.figure(task.name)
        theirs = None if against is None else against.figure(task.name)
        rows.append(row(task.title, mine, theirs))
    difference = stderr = None
    if (
        against is not None
        and result.average is not None
        and against.average is not None
        and all(item.comparable for item in rows)
    ):
        difference = result.average - against.average
        stderr = _stderr(result.stderr, against.stderr)
    return SuiteComparison(
        suite=result.suite,
        rows=tuple(rows),
        model=result,
        base=against,
        difference=difference,
        stderr=stderr,
    )


def row(title: str, model: Figure | None, base: Figure | None) -> Row:
    """Sets two figures of one task side by side."""
    if model is None or base is None:
        return Row(
            title=title,
            model=model,
            base=base,
            difference=None,
            stderr=None,
            comparable=True,
        )
    reasons, remarks = _differences(model, base)
    return Row(
        title=title,
        model=model,
        base=base,
        difference=None if reasons else model.value - base.value,
        stderr=None if reasons else _stderr(model.stderr, base.stderr),
        comparable=not reasons,
        reasons=tuple(reasons),
        remarks=tuple(remarks),
    )


def _differences(model: Figure, base: Figure) -> tuple[list[str], list[str]]:
    reasons, remarks = [], []
    for what, mine, theirs in (
        ("unit", model.unit.value, base.unit.value),
        ("metric", model.metric, base.metric),
        ("filter", model.filter or "none", base.filter or "none"),
        ("prompt", model.prompt or "none", base.prompt or "none"),
    ):
        if mine != theirs:
            reasons.append(f"{what} {mine} against {theirs}")
    for what, known, other in (
        ("n-shot", _text(model.shots), _text(base.shots)),
        ("version of the task", model.version, base.version),
    ):
        if known is None and other is None:
            continue
        if known is None or other is None:
            if what == "n-shot":
                whose = "model's" if known is None else "base's"
                remarks.append(f"the {whose} n-shot is not known")
        elif known != other:
            reasons.append(f"{what} {known} against {other}")
    if model.partial or base.partial:
        reasons.append("only a part of the questions was asked")
    return reasons, remarks


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _others(
    model: Collection, base: Collection | None, results: Iterable[SuiteResult]
) -> Iterable[Row]:
    """Figures in none of the suites shown, nor parts of what is.

    A task's other metrics are left out; what was asked with another n-shot is not.
    """
    named = set()
    shots = set()
    for result in results:
        shots |= {(task.name, task.shots) for task in result.suite.tasks}
        named |= {result.suite.group or ""}
    shown = {name for name, _ in shots}
    if "mmlu" in shown:
        named |= {*MMLU, *_MMLU_GROUPS}
    for score in model.scores:
        if score.task in named or score.metric == AVERAGE:
            continue
        if (score.task, score.shots) in shots or (
            score.shots is None and score.task in shown
        ):
            continue
        yield row(score.task, Figure.of(score), _counterpart(score, base))


#: What the harness groups the subjects of MMLU into.
_MMLU_GROUPS: Final = frozenset(
    f"mmlu_{group}" for group in ("stem", "humanities", "social_sciences", "other")
)


def _counterpart(score: Score, base: Collection | None) -> Figure | None:
    if base is None:
        return None
    found = [
        other
        for other in base.scores
        if (other.task, other.metric, other.filter)
        == (score.task, score.metric, score.filter)
    ]
    # The same n-shot and prompt if there is one; else any, and the row says why not.
    found.sort(
        key=lambda other: (
            other.shots != score.shots,
            other.origin.prompt != score.origin.prompt,
        )
    )
    return Figure.of(found[0]) if found else None


def _stderr(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else math.hypot(one, other)


def number(value: float | None, digits: int = 1) -> str:
    """`68.7`: a figure for a table, half a digit rounded up; a dash if there is none."""
    return _DASH if value is None else str(_rounded(value, digits))


def signed(value: float | None, digits: int = 1) -> str:
    """`+3.1` or `−0.4`: a difference for a table; a dash if there is none."""
    if value is None:
        return _DASH
    rounded = _rounded(value, digits)
    if rounded == 0:
        return str(abs(rounded))
    return f"{'+' if rounded > 0 else '−'}{abs(rounded)}"


def figure(found: Figure | None) -> str:
    """`68.7`: a figure for a table; raw ones with four digits that count."""
    if found is None:
        return _DASH
    return f"{found.value:.4g}" if found.unit is Unit.RAW else number(found.value)


def mean(result: SuiteResult | None) -> str:
    """`68.7`: an average for a table; one that a leaderboard states, as it states it."""
    if result is None:
        return _DASH
    if result.stated is not None and result.stated.unit is Unit.PERCENT:
        return repr(result.stated.value)
    return number(result.average)


def difference(found: Row | SuiteComparison) -> str:
    """`+3.1 ± 0.8`: a difference and its standard error; a dash if there is none."""
    text = signed(found.difference)
    if found.difference is None or found.stderr is None:
        return text
    return f"{text} ± {number(found.stderr)}"


def _rounded(value: float, digits: int) -> Decimal:
    # What a float shows is what its reader would round: 68.675 up, though the float nearest
    # to it lies below.
    exact = Decimal(repr(round(value, 9)))
    return exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
