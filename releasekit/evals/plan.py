"""What a chart of a comparison shows, before anything is drawn: rows, cells and notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from releasekit.evals.compare import (
    Comparison,
    Row,
    SuiteComparison,
    figure,
    mean,
    signed,
)
from releasekit.evals.figures import Figure
from releasekit.evals.scores import Unit

_MOST: Final = 60  # rows without a suite; no page has room for more


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A mark on the axis.

    Attributes:
        value: in percent.
        stderr: its standard error in percentage points, if that is known.
    """

    value: float
    stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the chart.

    Attributes:
        label: what it is of.
        detail: what else is to be known about it, in a word.
        model: the model's mark, if it has a figure.
        base: the base's.
        cells: the model's figure, the base's and the difference, for people.
        strong: whether it sums up the rows above.
    """

    label: str
    detail: str
    model: Point | None
    base: Point | None
    cells: tuple[str, str, str]
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows that belong together, under a title."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a chart shows.

    Attributes:
        blocks: its rows; none, if no figure is in percent.
        notes: what stands below.
    """

    blocks: tuple[Block, ...]
    notes: tuple[str, ...]

    def points(self) -> Iterator[Point]:
        """Every mark."""
        for block in self.blocks:
            for line in block.lines:
                yield from (point for point in (line.model, line.base) if point)


def plan(comparison: Comparison) -> Plan:
    """The suites; if there is none, the other figures that are in percent."""
    drawable = rows = [row for suite in comparison.suites for row in suite.rows]
    if comparison.suites:
        blocks = [_block(suite) for suite in comparison.suites]
    else:
        drawable = [row for row in comparison.others if _point(row.model)]
        rows = drawable[:_MOST]
        lines = tuple(_line(row) for row in rows)
        blocks = [Block(title="", lines=lines)] if lines else []
    notes = [
        f"Not compared: {row.title} ({', '.join(row.reasons)})."
        for row in rows
        if not row.comparable
    ]
    if len(drawable) > len(rows):
        notes.append(f"Not drawn: {len(drawable) - len(rows)} figures more.")
    drawn = Plan(blocks=tuple(blocks), notes=tuple(notes))
    if any(point.stderr is not None for point in drawn.points()):
        notes.insert(0, "Lines through the marks: ± one standard error.")
    return Plan(blocks=drawn.blocks, notes=tuple(notes))


def describe(comparison: Comparison) -> str:
    """The chart in words, for readers who do not see it."""

    def pair(label: str, model: str, base: str) -> str:
        return f"{label} {model}" + ("" if comparison.base is None else f" against {base}")

    against = "" if comparison.base is None else f" against {comparison.base}"
    parts = [f"Evaluations of {comparison.model}{against}, in percent."]
    for suite in comparison.suites:
        pairs = [pair(row.title, figure(row.model), figure(row.base)) for row in suite.rows]
        pairs.append(pair("average", mean(suite.model), mean(suite.base)))
        parts.append(f"{suite.suite.title}: {'; '.join(pairs)}.")
    if not comparison.suites:
        parts += [
            f"{pair(row.title, figure(row.model), figure(row.base))}."
            for row in comparison.others
            if _point(row.model)
        ]
    return " ".join(parts)


def _block(suite: SuiteComparison) -> Block:
    model, base = suite.model, suite.base
    average = Line(
        label="Average",
        detail=f"{len(model.missing)} missing" if model.missing else "",
        model=_mark(model.average, model.stderr),
        base=None if base is None else _mark(base.average, base.stderr),
        cells=(mean(model), mean(base), signed(suite.difference)),
        strong=True,
    )
    return Block(
        title=suite.suite.title, lines=(*(_line(row) for row in suite.rows), average)
    )


def _line(row: Row) -> Line:
    known = row.model or row.base
    shots = None if known is None else known.shots
    return Line(
        label=row.title,
        detail="" if shots is None else f"{shots}-shot",
        model=_point(row.model),
        base=_point(row.base),
        cells=(
            figure(row.model),
            figure(row.base),
            signed(row.difference) if row.comparable else "n/c",
        ),
    )


def _point(found: Figure | None) -> Point | None:
    if found is None or found.unit is not Unit.PERCENT:
        return None
    return _mark(found.value, found.stderr)


def _mark(value: float | None, stderr: float | None) -> Point | None:
    return None if value is None else Point(value=value, stderr=stderr)
