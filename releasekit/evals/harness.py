"""Result files of lm-evaluation-harness: 0.3, and 0.4 up to the newest.

What is read, and what the layouts are told apart by:

    0.3     results{task{acc, acc_stderr, …}}, versions{task}, config{num_fewshot, …}
    0.4     results{task{"acc,none", "acc_stderr,none", …}}, configs{}, versions{},
            "n-shot"{}
    0.4.3   and group_subtasks{}, higher_is_better{}, "n-samples"{}, git_hash, date,
            model_name, chat_template_sha, system_instruction_sha

Sources: `lm_eval/evaluator.py` of 0.3.0, 0.4.0, 0.4.3 and 0.4.13, `evaluator_utils.py` and
`loggers/` of the last two. It is others' format: fields that nobody asked for are passed
over. What is read is read strictly.

`tidying` takes out first what is no JSON or means nothing. A figure that is NaN is refused.
The metric `bypass` is no figure, but stands for none. Which metrics are fractions, the
files do not say: those of `_FRACTIONS` are, by what computes them; others are `RAW`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final

from releasekit.errors import FormatError
from releasekit.evals import tidying
from releasekit.evals.scores import HARNESS, Origin, Results, Score, Unit, expected_of
from releasekit.evals.tasks import canonical
from releasekit.strictjson import Record

#: Metrics that are a share of the questions, by `process_results` of the tasks.
_FRACTIONS: Final = frozenset(
    {
        *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match"),
        *("mc1", "mc2", "pass@1", "prompt_level_strict_acc", "prompt_level_loose_acc"),
        *("inst_level_strict_acc", "inst_level_loose_acc"),
    }
)
_PLACEHOLDERS: Final = frozenset({"bypass"})
_LATEST: Final = 253_402_300_799  # the last second that four digits of a year can name
_SHA_SHOWN: Final = 16  # of its digits; more tell no more
_DEPTH: Final = 4  # of groups in groups; the harness' are 3 deep, and a ring has no end

#: What names the model among `model_args`, by `EvaluationTracker` of the harness.
_MODEL_ARGUMENTS: Final = ("peft", "delta", "pretrained", "model", "path", "engine")
#: Fields that tell others' files.
_OTHERS: Final = {
    "config_general": "a file of lighteval",
    "weight_map": "the index of a checkpoint",
    "architectures": "the configuration of a model",
}
_EXPECTED: Final = "expected a result file of lm-evaluation-harness"


def parse(document: bytes, subject: str, sha256: str) -> Results:
    """Read a result file, of whichever version.

    Args:
        document: the file.
        subject: the file's name; begins every message.
        sha256: the file's SHA-256, as hexadecimal digits.

    Raises:
        FormatError: it is no result file, or a field of it is not what it should be.
    """
    root = _root(document, subject)
    origin = _origin(root, subject, sha256)
    if _is_current(root):
        return Results(scores=tuple(_current(root, origin)))
    return Results(scores=tuple(_old(root, origin)))


def _root(document: bytes, subject: str) -> Record:
    text = document.lstrip()
    if text[:1] != b"{":
        raise FormatError(
            f"{subject}: {_EXPECTED}, found no object; samples_*.jsonl hold answers: take "
            "results_*.json beside them; a table's name ends in .toml or .csv"
        )
    line, _, more = text.partition(b"\n")
    if line.rstrip()[-1:] == b"}" and more.strip():
        raise FormatError(
            f"{subject}: {_EXPECTED}, found an object a line, as samples_*.jsonl have; "
            "take results_*.json beside them"
        )
    root = tidying.loads(document, subject)
    for key, found in _OTHERS.items():
        if key in root:
            raise FormatError(
                f"{subject}: {_EXPECTED}, found {found}; figures of other programs can be "
                "given as a table, .toml or .csv"
            )
    for key in ("results", "versions"):
        if key not in root:
            raise FormatError(f'{subject}: {_EXPECTED}, found an object without "{key}"')
    return Record(root, subject)


def _is_current(root: Record) -> bool:
    """Whether the layout is that of 0.4, which tells filters from metrics by a comma."""
    return root.has("configs") or any(
        "," in key for _, _, keys in _entries(root) for key in keys
    )


def _entries(root: Record) -> Iterator[tuple[str, Record, tuple[str, ...]]]:
    """Each task's name, its object, and the names of that's fields."""
    results = root.record("results")
    names = results.keys()
    for name in names:
        entry = results.record(name)
        yield name, entry, entry.keys()


def _old(root: Record, origin: Origin) -> Iterator[Score]:
    versions = root.record("versions")
    config = root.optional_record("config")
    shots = config.optional_integer("num_fewshot") if config else None
    partial = config is not None and config.has("limit")
    for name, entry, keys in _entries(root):
        for key in keys:
            if key.endswith("_stderr") and entry.has(key.removesuffix("_stderr")):
                continue
            value, unit = _value(entry, key, key)
            task, metric = canonical(name, key)
            yield Score(
                task=task,
                metric=metric,
                value=value,
                unit=unit,
                origin=origin,
                stderr=_stderr(entry, f"{key}_stderr"),
                shots=shots,
                partial=partial,
                higher_is_better=True if unit is Unit.FRACTION else None,
                version=versions.optional_text(name),
            )


def _current(root: Record, origin: Origin) -> Iterator[Score]:
    versions = root.record("versions")
    better = root.optional_record("higher_is_better")
    counts = _Counts(root)
    for name, entry, keys in _entries(root):
        for key in keys:
            # Without a comma stand the task's alias, and counts; a group that is not
            # summed up has one space.
            stem, comma, filters = key.partition(",")
            if not comma or stem.endswith("_stderr") or stem in _PLACEHOLDERS:
                continue
            value, unit = _value(entry, key, stem)
            stated = better.optional_record(name) if better else None
            direction: bool | None = True if unit is Unit.FRACTION else None
            if stated is not None and stated.has(stem):
                direction = stated.boolean(stem)
            task, metric = canonical(name, stem)
            yield Score(
                task=task,
                metric=metric,
                value=value,
                unit=unit,
                origin=origin,
                stderr=_stderr(entry, f"{stem}_stderr,{filters}"),
                shots=counts.shots(name),
                samples=counts.samples(name, entry),
                partial=counts.is_partial(name),
                higher_is_better=direction,
                filter=None if filters == "none" else filters,
                version=versions.optional_text(name),
                aggregate=counts.is_group(name),
            )


class _Counts:
    """How many questions and examples there were, and which names are groups."""

    def __init__(self, root: Record) -> None:
        config = root.optional_record("config")
        self._limited = config is not None and config.has("limit")
        self._subtasks = root.optional_record("group_subtasks")
        self._groups = root.optional_record("groups")
        self._counts = root.optional_record("n-samples")
        self._shots = root.optional_record("n-shot")
        self._names = root.record("results").keys()

    def is_group(self, name: str) -> bool:
        return (self._groups is not None and self._groups.has(name)) or bool(
            self._children(name)
        )

    def shots(self, name: str, depth: int = 0) -> int | None:
        """Of a group, the one that its tasks share.

        What the file states of a group of groups is 0 in 0.4.0 and nothing in 0.4.13,
        whatever was shown. 0.4.0 does not tell either which tasks a group has, but they
        are among the file's.
        """
        if not self.is_group(name):
            return None if self._shots is None else self._shots.optional_integer(name)
        children = self._children(name) or tuple(
            other for other in self._names if not self.is_group(other)
        )
        if depth >= _DEPTH:
            return None
        found = {self.shots(child, depth + 1) for child in children}
        return found.pop() if len(found) == 1 else None

    def samples(self, name: str, entry: Record) -> int | None:
        if self._counts is not None and self._counts.has(name):
            return self._counts.record(name).optional_integer("effective")
        return entry.optional_integer("sample_len")

    def is_partial(self, name: str, depth: int = 0) -> bool:
        if self._counts is None:
            return self._limited  # the counts came with 0.4.3
        if self._counts.has(name):
            count = self._counts.record(name)
            effective = count.optional_integer("effective")
            original = count.optional_integer("original")
            return effective is not None and original is not None and effective < original
        children = self._children(name) if depth < _DEPTH else ()
        if not children:
            return self._limited
        return any(self.is_partial(child, depth + 1) for child in children)

    def _children(self, name: str) -> tuple[str, ...]:
        if self._subtasks is None or not self._subtasks.has(name):
            return ()
        return self._subtasks.texts(name)


def _origin(root: Record, subject: str, sha256: str) -> Origin:
    version = _text(root, "lm_eval_version")
    if version is None:
        version = "0.4" if _is_current(root) else "0.3"
    return Origin(
        file=subject,
        sha256=sha256,
        kind=HARNESS,
        model=_model(root),
        harness=version,
        commit=_text(root, "git_hash"),
        date=_date(root),
        prompt=_prompt(root),
    )


def _text(record: Record, key: str) -> str | None:
    """A string; None if it is missing or empty."""
    return record.optional_text(key) or None


def _model(root: Record) -> str | None:
    """The model's name. Of a path, its last part: the rest says where somebody works."""
    name = _text(root, "model_name")
    config = root.optional_record("config")
    if name is None and config is not None:
        arguments = config.optional_text("model_args") or ""
        pairs = [part.partition("=") for part in arguments.split(",")]
        given = {key.strip(): value.strip() for key, _, value in pairs}
        named = [given[key] for key in _MODEL_ARGUMENTS if given.get(key)]
        name = named[0] if named else _text(config, "model")
    if name is None:
        return None
    if name.startswith(("/", "~", ".")):
        return PurePosixPath(name).name or None
    if PureWindowsPath(name).is_absolute():
        return PureWindowsPath(name).name or None
    return name


def _date(root: Record) -> str | None:
    seconds = root.optional_number("date")
    if seconds is None:
        return None
    if not 0 <= seconds <= _LATEST:
        raise root.fault("date", "seconds since 1970")
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _prompt(root: Record) -> str | None:
    parts = []
    for key, title in (
        ("chat_template_sha", "chat template"),
        ("system_instruction_sha", "system instruction"),
    ):
        digest = _text(root, key)
        if digest is not None:
            parts.append(f"{title} {digest[:_SHA_SHOWN]}")
    if parts and root.flag("fewshot_as_multiturn", default=False):
        parts.append("examples as turns")
    return ", ".join(parts) or None


def _value(entry: Record, key: str, metric: str) -> tuple[float, Unit]:
    value = entry.number(key)
    unit = Unit.FRACTION if metric in _FRACTIONS else Unit.RAW
    expected = expected_of(value, unit)
    if expected is not None:
        raise entry.fault(key, expected)
    return value, unit


def _stderr(entry: Record, key: str) -> float | None:
    value = entry.optional_number(key)
    if value is not None and value < 0:
        raise entry.fault(key, "a standard error of at least 0")
    return value
