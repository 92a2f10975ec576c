"""Figures that no harness wrote: typed in by hand, or copied from a leaderboard.

TOML:

    [[evaluations]]         one figure
    task = "hellaswag"
    metric = "acc_norm"
    value = 85.9
    unit = "percent"        or "fraction", or "raw" for other scales; never guessed

    [[suites]]              a row of a leaderboard
    suite = "open-llm-leaderboard"
    unit = "percent"
    average = 68.67         if it is stated; it is checked
    scores = { arc_challenge = 68.2, hellaswag = 85.9, mmlu = 64.8, truthfulqa_mc2 = 55.8 }

Both also take model, harness, commit, date, url, prompt and notes; `[[evaluations]]` takes
shots, stderr, samples, filter, version and higher_is_better. CSV has these as columns, or
those of the Open LLM Leaderboard. Of a table of several models, the rows of one are taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from releasekit import stricttoml
from releasekit.errors import FormatError
from releasekit.evals import leaderboard, rows
from releasekit.evals.rows import Row
from releasekit.evals.scores import LEADERBOARD, TABLE, Origin, Results, Score, Unit
from releasekit.evals.suites import SUITES
from releasekit.evals.tasks import canonical
from releasekit.names import listed
from releasekit.strictjson import Record

_UNITS: Final = {unit.value: unit for unit in Unit}
_REQUIRED: Final = ("task", "metric", "value", "unit")
_NUMBERS: Final = ("value", "stderr")
_COUNTS: Final = ("shots", "samples")
_FLAGS: Final = ("higher_is_better",)
_PROVENANCE: Final = ("model", "harness", "commit", "date", "url", "prompt", "notes")
_COLUMNS: Final = frozenset(
    {*_REQUIRED, *_NUMBERS, *_COUNTS, *_FLAGS, *_PROVENANCE, "filter", "version"}
)


def parse_toml(
    document: bytes, subject: str, sha256: str, *, model: str | None = None
) -> Results:
    """Read a table of figures in TOML.

    Args:
        document: the file.
        subject: the file's name; begins every message.
        sha256: the file's SHA-256, as hexadecimal digits.
        model: whose tables to take; None if all are of one model.

    Raises:
        FormatError: with the path of the field that is wrong.
        UsageError: there is no table of the model; or there are several models, and none
            is named.
    """
    root = Record(stricttoml.loads(document, subject), subject)
    if not (root.has("evaluations") or root.has("suites")):
        raise FormatError(
            f"{subject}: expected tables [[evaluations]] or [[suites]], found neither"
        )
    parts = [
        *(
            (_entry(item, subject, sha256),)
            for item in root.optional_records("evaluations")
        ),
        *(tuple(_suite(item, subject, sha256)) for item in root.optional_records("suites")),
    ]
    root.close()
    names = [part[0].origin.model for part in parts if part]
    filled = [part for part in parts if part]
    chosen = [filled[place] for place in rows.of_model(names, model, subject)]
    return Results(scores=tuple(score for part in chosen for score in part))


def parse_csv(
    document: bytes, subject: str, sha256: str, *, model: str | None = None
) -> Results:
    """Read a table of figures in CSV.

    Args:
        document: the file, in UTF-8, with a line of titles.
        subject: the file's name; begins every message.
        sha256: the file's SHA-256, as hexadecimal digits.
        model: whose rows to take; None if all are of one model.

    Raises:
        FormatError: with the line and the column that are wrong, or the rows of the model
            that contradict each other.
        UsageError: as `parse_toml` does.
    """
    header, given = rows.read(document, subject)
    if leaderboard.MODEL in header and any(t in header for t in leaderboard.COLUMNS):
        return leaderboard.parse(header, given, subject, sha256, model=model)
    missing = [title for title in _REQUIRED if title not in header]
    if missing:
        raise FormatError(
            f"{subject}: line 1: expected the columns task, metric, value and unit, or "
            f"those of the Open LLM Leaderboard, found {listed(header, 6) or 'none'}"
        )
    unknown = [title for title in header if title not in _COLUMNS]
    if unknown:
        raise FormatError(f"{subject}: line 1: unknown column {listed(unknown)}")
    names = [row.cells.get("model") or None for row in given]
    chosen = [given[place] for place in rows.of_model(names, model, subject)]
    return Results(scores=tuple(_entry(_record(row), subject, sha256) for row in chosen))


def _record(row: Row) -> Record:
    """A row as the fields that the same table in TOML would have."""
    fields: dict[str, object] = {}
    for title, text in row.cells.items():
        if not text:
            continue  # a cell left empty is a field left out
        if title in _NUMBERS:
            fields[title] = row.number(title)
        elif title in _COUNTS:
            if not (text.isascii() and text.isdecimal() and len(text) < 10):
                raise row.fault(title, "an integer of at least 0")
            fields[title] = int(text)
        elif title in _FLAGS:
            if text not in ("true", "false"):
                raise row.fault(title, "true or false")
            fields[title] = text == "true"
        else:
            fields[title] = text
    return Record(fields, row.where)


def _entry(record: Record, subject: str, sha256: str) -> Score:
    task, metric = canonical(record.text("task"), record.text("metric"))
    has_direction = record.has("higher_is_better")
    score = Score(
        task=task,
        metric=metric,
        value=record.number("value"),
        unit=_UNITS[record.choice("unit", _UNITS)],
        origin=_origin(record, subject, sha256, TABLE),
        stderr=record.optional_number("stderr"),
        shots=record.optional_integer("shots"),
        samples=record.optional_integer("samples"),
        higher_is_better=record.boolean("higher_is_better") if has_direction else None,
        filter=record.optional_text("filter"),
        version=record.optional_text("version"),
    )
    record.close()
    return score


def _suite(record: Record, subject: str, sha256: str) -> Iterator[Score]:
    suite = SUITES[record.choice("suite", SUITES)]
    unit = _UNITS[record.choice("unit", ("fraction", "percent"))]
    origin = _origin(record, subject, sha256, LEADERBOARD)
    figures = record.record("scores")
    for task in suite.tasks:
        value = figures.optional_number(task.name)
        if value is not None:
            yield leaderboard.of_task(suite, task.name, value, unit, origin)
    average = record.optional_number("average")
    if average is not None:
        yield leaderboard.of_average(suite, average, unit, origin)
    figures.close()
    record.close()


def _origin(record: Record, subject: str, sha256: str, kind: str) -> Origin:
    given = {field: record.optional_text(field) for field in _PROVENANCE}
    return Origin(file=subject, sha256=sha256, kind=kind, **given)
