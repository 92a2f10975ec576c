"""`releasekit evals`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, common_options, printable

if TYPE_CHECKING:
    from releasekit.evals.averages import SuiteResult
    from releasekit.evals.collection import Collection
    from releasekit.evals.compare import Comparison, Row, SuiteComparison
    from releasekit.evals.figures import Figure
    from releasekit.evals.scores import Origin


@click.command("evals", epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with figures of the base; repeat it for several.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="What the model is called; of tables with several models, its rows are taken.",
)
@click.option("--base-model", metavar="NAME", help="The same for the base.")
@click.option(
    "--chart",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Draw the comparison into FOLDER, as PNG and SVG, for light and dark pages.",
)
@common_options
@click.pass_obj
def command(
    shell: Shell,
    files: tuple[Path, ...],
    bases: tuple[Path, ...],
    model: str | None,
    base_model: str | None,
    chart: Path | None,
) -> None:
    """Show evaluations of a model, by suite, against those of its base.

    FILE is a result file of lm-evaluation-harness, 0.3 or 0.4 (.json), or a table (.toml,
    .csv), such as a copy of the Open LLM Leaderboard. Several are taken together; two that
    give different figures for the same thing are refused.

    \b
    Examples:
      releasekit evals results_*.json --base llama/results_*.json
      releasekit evals leaderboard.csv --model org/tune \\
        --base leaderboard.csv --base-model org/base --chart charts
    """
    from releasekit.evals.compare import compare

    mine = _collected(files, model)
    theirs = _collected(bases, base_model) if bases else None
    comparison = compare(mine, theirs)
    for collection in (mine, theirs):
        for finding in () if collection is None else collection.findings:
            shell.warn(finding)
    drawn = [] if chart is None else _draw(comparison, chart)
    parts = [mine, *([theirs] if theirs else [])]
    origins = list(dict.fromkeys(origin for part in parts for origin in part.origins()))
    shell.result(
        _document(comparison, origins, parts, drawn),
        list(_lines(comparison, origins, drawn, verbose=shell.verbose)),
    )


def _collected(files: Sequence[Path], model: str | None) -> Collection:
    from releasekit.evals.collection import Collection
    from releasekit.evals.reading import check, distinct, read

    results = []
    for path, name in zip(files, distinct(files), strict=True):
        check(path.name, path.stat().st_size)
        results.append(read(path.read_bytes(), name, model=model))
    return Collection.of(*results, name=model)


def _draw(comparison: Comparison, folder: Path) -> list[str]:
    from releasekit.charts import draw
    from releasekit.writing import replace

    against = "" if comparison.base is None else f" against {comparison.base}"
    charts = draw(comparison, f"{comparison.model}{against}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in charts.items():
        replace(folder / name, data)
    return [str(folder / name) for name in charts]


def _lines(
    comparison: Comparison, origins: Sequence[Origin], drawn: list[str], *, verbose: bool
) -> Iterator[str]:
    for suite in comparison.suites:
        yield printable(suite.suite.title)
        yield from _table(comparison, suite.rows, _averages(suite))
        yield f"Average: {suite.suite.rule}"
        for name, result in _named(comparison, suite):
            for note in result.notes:
                yield f"Note on {printable(name)}: {printable(note)}"
        yield from _remarks(suite.rows)
        yield ""
    if comparison.others:
        yield "Other figures"
        yield from _table(comparison, comparison.others)
        yield from _remarks(comparison.others)
        yield ""
    yield "From"
    pairs = []
    for origin in origins:
        told = [origin.kind, *([origin.model] if origin.model else [])]
        told += [text for text in (origin.harness, origin.date, origin.commit) if text]
        pairs.append((printable(origin.file), ", ".join(told)))
        if verbose:
            pairs.append(("", f"SHA-256 {origin.sha256}"))
    yield from render.facts(pairs)
    if drawn:
        yield ""
        yield from render.facts([("drawn", path) for path in drawn])


def _table(
    comparison: Comparison, rows: Sequence[Row], last: Sequence[str] | None = None
) -> Iterator[str]:
    from releasekit.evals.compare import difference, figure

    has_base = comparison.base is not None
    header = ["task", "n-shot", "metric", "model", *(["base", "difference"] * has_base)]
    cells = []
    for row in rows:
        known = row.model or row.base
        shots = None if known is None else known.shots
        line = [
            row.title,
            "–" if shots is None else str(shots),
            "–" if known is None else known.measure,
            figure(row.model),
        ]
        if has_base:
            told = difference(row) if row.comparable else "not comparable"
            line += [figure(row.base), told]
        cells.append(line)
    if last is not None:
        cells.append(list(last[: len(header)]))
    yield from render.table(header, cells, "lrlrrr"[: len(header)])


def _averages(suite: SuiteComparison) -> list[str]:
    from releasekit.evals.compare import difference, mean

    return ["average", "", "", mean(suite.model), mean(suite.base), difference(suite)]


def _named(
    comparison: Comparison, suite: SuiteComparison
) -> Iterator[tuple[str, SuiteResult]]:
    yield comparison.model, suite.model
    if suite.base is not None and comparison.base is not None:
        yield comparison.base, suite.base


def _remarks(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        for reason in (*row.reasons, *row.remarks):
            yield f"{printable(row.title)}: {printable(reason)}"


def _document(
    comparison: Comparison,
    origins: Sequence[Origin],
    collections: Sequence[Collection],
    drawn: list[str],
) -> dict[str, Any]:
    return {
        "model": comparison.model,
        "base": comparison.base,
        "suites": [
            {
                "id": suite.suite.id,
                "title": suite.suite.title,
                "rule": suite.suite.rule,
                "source": suite.suite.source,
                "tasks": [_row(row, origins) for row in suite.rows],
                "model": _result(suite.model),
                "base": None if suite.base is None else _result(suite.base),
                "difference": suite.difference,
                "stderr": suite.stderr,
            }
            for suite in comparison.suites
        ],
        "others": [_row(row, origins) for row in comparison.others],
        "origins": [
            {
                name: getattr(origin, name)
                for name in (
                    *("file", "sha256", "kind", "model", "harness", "commit", "date"),
                    *("url", "prompt", "notes"),
                )
            }
            for origin in origins
        ],
        "findings": [finding for part in collections for finding in part.findings],
        "charts": drawn,
    }


def _result(result: SuiteResult) -> dict[str, Any]:
    return {
        "average": result.average,
        "stderr": result.stderr,
        "missing": list(result.missing),
        "notes": list(result.notes),
    }


def _row(row: Row, origins: Sequence[Origin]) -> dict[str, Any]:
    return {
        "title": row.title,
        "model": None if row.model is None else _figure(row.model, origins),
        "base": None if row.base is None else _figure(row.base, origins),
        "difference": row.difference,
        "stderr": row.stderr,
        "comparable": row.comparable,
        "reasons": list(row.reasons),
        "remarks": list(row.remarks),
    }


def _figure(found: Figure, origins: Sequence[Origin]) -> dict[str, Any]:
    places = sorted({origins.index(score.origin) for score in found.scores})
    return {
        "task": found.task,
        "metric": found.metric,
        "filter": found.filter,
        "value": found.value,
        "unit": found.unit.value,
        "stderr": found.stderr,
        "shots": found.shots,
        "partial": found.partial,
        "origins": places,
    }
