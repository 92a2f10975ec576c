"""`evaluations.json`: the figures that a release shows, and where each comes from.

    format    "releasekit-evaluations/1"
    origins   the files, each once: name, SHA-256, what they say of themselves
    model     {name, scores: [{task, metric, value, unit, …, origin: index}], findings}
    base      likewise, if there is a base
    suites    [{id, title, rule, source, model: {average, stderr, missing, notes}, base}]

`suites` repeats what follows from the scores, for those who read the document without this
program; the averages are therefore those of the day it was written. A field that is not
known is left out. `parse` refuses unknown fields; it is the inverse of `pack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.evals.averages import SuiteResult, average
from releasekit.evals.collection import Collection
from releasekit.evals.scores import KINDS, Origin, Results, Score, Unit
from releasekit.names import shown
from releasekit.strictjson import Record

EVALUATIONS: Final = "evaluations.json"
FORMAT: Final = "releasekit-evaluations/1"
_UNITS: Final = {unit.value: unit for unit in Unit}
_ORIGIN_TEXTS: Final = ("model", "harness", "commit", "date", "url", "prompt", "notes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A suite's average for one model.

    Attributes:
        average: in percent; None if a task is missing.
        stderr: its standard error in percentage points, if that is known.
        missing: names of the tasks without a figure.
        notes: what there is to know about it.
    """

    average: float | None
    stderr: float | None
    missing: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteMeans:
    """A suite's averages.

    Attributes:
        id: the suite's name in documents.
        title: its name for people.
        rule: how its tasks were averaged.
        source: where that is defined.
        model: the model's average.
        base: the base's, if there is a base.
    """

    id: str
    title: str
    rule: str
    source: str
    model: Mean
    base: Mean | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """What the document holds.

    Attributes:
        model: the model's figures.
        base: the base's, if there is a base.
        suites: the averages.
    """

    model: Collection
    base: Collection | None
    suites: tuple[SuiteMeans, ...]

    @classmethod
    def of(cls, model: Collection, base: Collection | None = None) -> Evaluations:
        """The figures and their averages."""
        return cls(
            model=model,
            base=base,
            suites=tuple(_means(result, base) for result in model.suites()),
        )


def pack(evaluations: Evaluations) -> bytes:
    """The document."""
    parts = [evaluations.model, *([evaluations.base] if evaluations.base else [])]
    origins = list(dict.fromkeys(origin for part in parts for origin in part.origins()))
    document: dict[str, object] = {
        "format": FORMAT,
        "origins": [_pack_origin(origin) for origin in origins],
        "model": _pack_collection(evaluations.model, origins),
    }
    if evaluations.base is not None:
        document["base"] = _pack_collection(evaluations.base, origins)
    document["suites"] = [_pack_means(means) for means in evaluations.suites]
    return strictjson.dumps(document)


def parse(document: bytes) -> Evaluations:
    """Read the document.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(strictjson.loads(document, EVALUATIONS), EVALUATIONS)
    found = root.text("format")
    if found != FORMAT:
        raise FormatError(
            f"{EVALUATIONS}: format: expected {shown(FORMAT)}, found {shown(found)}: a "
            "newer releasekit may know it; update with `pip install -U releasekit`"
        )
    origins = [_origin(item) for item in root.records("origins")]
    base = root.optional_record("base")
    evaluations = Evaluations(
        model=_collection("model", root.record("model"), origins),
        base=None if base is None else _collection("base", base, origins),
        suites=tuple(_suite(item) for item in root.records("suites")),
    )
    root.close()
    return evaluations


def _means(result: SuiteResult, base: Collection | None) -> SuiteMeans:
    return SuiteMeans(
        id=result.suite.id,
        title=result.suite.title,
        rule=result.suite.rule,
        source=result.suite.source,
        model=_mean(result),
        base=None if base is None else _mean(average(result.suite, base.scores)),
    )


def _mean(result: SuiteResult) -> Mean:
    return Mean(
        average=result.average,
        stderr=result.stderr,
        missing=result.missing,
        notes=result.notes,
    )


def _known(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


def _pack_origin(origin: Origin) -> dict[str, object]:
    texts = {key: getattr(origin, key) for key in _ORIGIN_TEXTS}
    return _known(file=origin.file, sha256=origin.sha256, kind=origin.kind, **texts)


def _pack_collection(collection: Collection, origins: Sequence[Origin]) -> object:
    places = {origin: place for place, origin in enumerate(origins)}
    return {
        "name": collection.name,
        "scores": [
            _known(
                task=score.task,
                metric=score.metric,
                value=score.value,
                unit=score.unit.value,
                stderr=score.stderr,
                shots=score.shots,
                samples=score.samples,
                partial=score.partial or None,
                higher_is_better=score.higher_is_better,
                filter=score.filter,
                version=score.version,
                aggregate=score.aggregate or None,
                origin=places[score.origin],
            )
            for score in collection.scores
        ],
        "findings": list(collection.findings),
    }


def _pack_means(means: SuiteMeans) -> dict[str, object]:
    return _known(
        id=means.id,
        title=means.title,
        rule=means.rule,
        source=means.source,
        model=_pack_mean(means.model),
        base=None if means.base is None else _pack_mean(means.base),
    )


def _pack_mean(mean: Mean) -> dict[str, object]:
    return _known(
        average=mean.average,
        stderr=mean.stderr,
        missing=list(mean.missing),
        notes=list(mean.notes),
    )


def _origin(record: Record) -> Origin:
    origin = Origin(
        file=record.text("file"),
        sha256=record.hex_digest("sha256"),
        kind=record.choice("kind", KINDS),
        **{key: record.optional_text(key) for key in _ORIGIN_TEXTS},
    )
    record.close()
    return origin


def _collection(field: str, record: Record, origins: Sequence[Origin]) -> Collection:
    name = record.text("name")
    if not name:
        raise FormatError(f"{EVALUATIONS}: {field}.name: expected a name, found none")
    results = Results(
        scores=tuple(_score(item, origins) for item in record.records("scores")),
        findings=record.texts("findings"),
    )
    record.close()
    try:
        merged = Collection.of(results, name=name)
    except UsageError as error:
        raise FormatError(f"{EVALUATIONS}: {error}") from None
    if len(merged.scores) < len(results.scores):
        raise FormatError(f"{EVALUATIONS}: {field}.scores: a figure stands twice")
    return merged


def _score(record: Record, origins: Sequence[Origin]) -> Score:
    if not origins:
        raise FormatError(f"{EVALUATIONS}: origins: expected an origin, found none")
    better = record.boolean("higher_is_better") if record.has("higher_is_better") else None
    score = Score(
        task=record.text("task"),
        metric=record.text("metric"),
        value=record.number("value"),
        unit=_UNITS[record.choice("unit", _UNITS)],
        origin=origins[record.integer("origin", maximum=len(origins) - 1)],
        stderr=record.optional_number("stderr"),
        shots=record.optional_integer("shots"),
        samples=record.optional_integer("samples"),
        partial=record.flag("partial", default=False),
        higher_is_better=better,
        filter=record.optional_text("filter"),
        version=record.optional_text("version"),
        aggregate=record.flag("aggregate", default=False),
    )
    record.close()
    return score


def _suite(record: Record) -> SuiteMeans:
    base = record.optional_record("base")
    means = SuiteMeans(
        id=record.text("id"),
        title=record.text("title"),
        rule=record.text("rule"),
        source=record.text("source"),
        model=_parse_mean(record.record("model")),
        base=None if base is None else _parse_mean(base),
    )
    record.close()
    return means


def _parse_mean(record: Record) -> Mean:
    mean = Mean(
        average=record.optional_number("average"),
        stderr=record.optional_number("stderr"),
        missing=record.texts("missing"),
        notes=record.texts("notes"),
    )
    record.close()
    return mean
