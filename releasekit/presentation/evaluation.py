"""The evaluations of a release: read, compared with the base's, and put into its folder.

Result files go into the release as they are, so that every number can be traced to the
file that it is from; `evaluations.json` says which. A card that is written again without
any keeps those of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from releasekit.card.facts import Facts
from releasekit.card.metadata import registered
from releasekit.card.pages import label
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError, UsageError
from releasekit.evals import document
from releasekit.evals.collection import Collection
from releasekit.evals.compare import Comparison, compare
from releasekit.evals.document import EVALUATIONS, Evaluations
from releasekit.evals.plan import plan
from releasekit.evals.reading import distinct, read
from releasekit.evals.scores import Results, Score
from releasekit.evals.suites import SUITES
from releasekit.evals.tasks import MMLU
from releasekit.hub.cards import dump_yaml
from releasekit.names import safe_path
from releasekit.received import files_in, read_small

FOLDER: Final = "evaluations"
#: What `charts.draw` draws.
CHARTS: Final = tuple(
    f"evaluations{mode}.{kind}" for mode in ("", "-dark") for kind in ("png", "svg")
)
#: Bytes that a result file may have.
MAX_RESULTS: Final = 1 << 26
_SUBJECTS: Final = frozenset(MMLU)
_TITLES: Final = {task.name: task.title for s in SUITES.values() for task in s.tasks}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a card shows of evaluations.

    Attributes:
        comparison: the figures; None if there are none.
        files: what to write, the bytes of each by its path.
        removed: paths of what an earlier card wrote, and this one does not.
        chart: the folder of the charts; None if there are none.
        sources: where each number is from, as Markdown.
        findings: what is odd about the figures; sentences.
    """

    comparison: Comparison | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    chart: str | None = None
    sources: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def averages(self) -> dict[str, tuple[float | None, float | None]]:
        """The model's average and the base's by suite, in percent."""
        suites = self.comparison.suites if self.comparison else ()
        return {
            suite.suite.id: (
                suite.model.average,
                suite.base.average if suite.base else None,
            )
            for suite in suites
        }


def evaluate(
    path: Path,
    facts: Facts,
    name: str,
    results: Sequence[str | Path],
    base_results: Sequence[str | Path],
    *,
    chart: bool,
) -> Evaluated:
    """Read result files, and lay out what a card needs of them.

    Args:
        path: the folder of the release.
        facts: may name result files, and rows of tables.
        name: what the model is called.
        results: further files of the model.
        base_results: further files of the base.
        chart: whether to draw.

    Raises:
        UsageError: if a file is missing, figures contradict each other, or there are some
            of the base alone.
        FormatError: if a file is malformed.
    """
    own = _read([*facts.results, *results], facts.results_name, "model", facts)
    other = _read(
        [*facts.base_results, *base_results], facts.base_results_name, "base", facts
    )
    before = _read_before(path)
    if not own.files and not other.files:
        return _as_before(path, before, chart=chart) if before else Evaluated()
    if not own.files:
        raise UsageError("there are evaluations of the base, and none of the model")
    model = Collection.of(*own.results, name=facts.title or name)
    base = None
    if other.files:
        base_name = facts.base_name or facts.base_id or facts.base_results_name
        if facts.base_results_name not in (None, facts.base_id):
            base_name = facts.base_results_name  # figures of another model than the base
        base = Collection.of(*other.results, name=base_name)
    evaluations = Evaluations.of(model, base)
    files = {**own.files, **other.files}
    return _lay_out(path, evaluations, files, before, chart=chart)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Result files: what they say, and their bytes by the path that they get."""

    results: list[Results]
    files: dict[str, bytes]


def _read(given: Sequence[str | Path], model: str | None, role: str, facts: Facts) -> _Read:
    found = _Read(results=[], files={})
    files = [Path(file) for file in given]
    for file, name in zip(files, distinct([f.absolute() for f in files]), strict=True):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; expected results of evaluations")
        data = read_small(file, MAX_RESULTS)
        place = f"{FOLDER}/{role}/{safe_path(name, str(file))}"
        if found.files.setdefault(place, data) != data:
            raise UsageError(f"{file}: another file is called so as well; rename one")
        found.results.append(_dated(read(data, name, model=model), facts))
    return found


def _dated(results: Results, facts: Facts) -> Results:
    """Figures with what the maintainer says of where they are from, if a file does not."""
    said: dict[str, Any] = {
        "date": facts.results_date,
        "harness": facts.results_harness,
        "commit": facts.results_commit,
        "url": facts.results_url,
    }

    def of(score: Score) -> Score:
        lacks = {name for name in said if getattr(score.origin, name) is None}
        if not lacks:
            return score
        added = {name: text for name, text in said.items() if name in lacks}
        return replace(score, origin=replace(score.origin, **added))

    return replace(results, scores=tuple(of(score) for score in results.scores))


def _lay_out(
    path: Path,
    evaluations: Evaluations,
    files: Mapping[str, bytes],
    before: Evaluations | None,
    *,
    chart: bool,
) -> Evaluated:
    comparison = compare(evaluations.model, evaluations.base)
    made = dict(files)
    made[f"{FOLDER}/{EVALUATIONS}"] = document.pack(evaluations)
    for name, entries in registered(comparison).items():
        made[name] = dump_yaml(entries)
    drawn = chart and bool(plan(comparison).blocks)
    if drawn:
        from releasekit.charts import draw

        title = comparison.model
        if comparison.base:
            title += f" and {comparison.base}"
        for name, data in draw(comparison, title).items():
            made[f"{FOLDER}/{name}"] = data
    return Evaluated(
        comparison=comparison,
        files=made,
        removed=tuple(_left_over(path, before, made)) if before else (),
        chart=FOLDER if drawn else None,
        sources=tuple(_sources(evaluations)),
        findings=(
            *evaluations.model.findings,
            *(evaluations.base.findings if evaluations.base else ()),
        ),
    )


def _read_before(path: Path) -> Evaluations | None:
    """What the card before this one showed; None if the folder is somebody else's."""
    file = path / FOLDER / EVALUATIONS
    return document.parse(read_small(file, MAX_RESULTS)) if file.is_file() else None


def read_comparison(file: Path) -> Comparison:
    """The figures of an `evaluations.json`; FormatError if it is malformed."""
    found = document.parse(read_small(file, MAX_RESULTS))
    return compare(found.model, found.base)


def _as_before(path: Path, before: Evaluations, *, chart: bool) -> Evaluated:
    """The same once more, from the files that it was made from."""
    kept = {}
    for name, digest in _placed(before).items():
        if not (path / name).is_file():
            raise IntegrityError(
                f"{path / name}: is missing, and numbers of the card are from it; restore "
                "it, or give --results again"
            )
        kept[name] = read_small(path / name, MAX_RESULTS)
        if sha256_hex(kept[name]) != digest:
            raise IntegrityError(
                f"{path / name}: is not what {EVALUATIONS} was made from; restore it, or "
                "give --results again"
            )
    return _lay_out(path, before, kept, before, chart=chart)


def _placed(evaluations: Evaluations) -> dict[str, str]:
    """Where result files lie, with their SHA-256."""
    parts = (("model", evaluations.model), ("base", evaluations.base))
    return {
        f"{FOLDER}/{role}/{origin.file}": origin.sha256
        for role, part in parts
        for origin in (part.origins() if part else ())
    }


def _left_over(path: Path, before: Evaluations, made: Mapping[str, bytes]) -> list[str]:
    """What the card before this one wrote, and this one does not; no more than that."""
    written = {
        *_placed(before),
        *registered(compare(before.model, before.base)),
        *(f"{FOLDER}/{name}" for name in CHARTS),
    }
    return sorted(name for name in written & set(files_in(path)) if name not in made)


def _sources(evaluations: Evaluations) -> list[str]:
    """Where each number is from, a line of Markdown a file."""
    lines = []
    for role, part in (("model", evaluations.model), ("base", evaluations.base)):
        if part is None:
            continue
        for origin in part.origins():
            own = {score.task for score in part.scores if score.origin == origin}
            if own & _SUBJECTS:
                own.add("mmlu")
            known = [
                " · ".join(title for task, title in _TITLES.items() if task in own) or None,
                f"lm-evaluation-harness {origin.harness}"
                if origin.harness
                else "harness not stated",
                f"commit `{origin.commit}`" if origin.commit else None,
                origin.date or "date not stated",
                f"prompt {label(origin.prompt)}" if origin.prompt else None,
                f"of {label(origin.model)}" if origin.model else None,
                f"published at <{origin.url}>" if origin.url else None,
                label(origin.notes) if origin.notes else None,
                f"SHA-256 `{origin.sha256[:16]}…`",
            ]
            link = f"[{origin.file}]({FOLDER}/{role}/{quote(origin.file)})"
            whose = label(part.name) if role == "base" else "Model"
            lines.append(f"{whose}: {link}: {'; '.join(filter(None, known))}")
    return list(dict.fromkeys(lines))
