"""The evaluations of a release: read, compared with the base's, and put into its folder.

Result files go into the release as they are, so that every number can be traced to the
file that it is from; `evaluations.json` says which. A card that is written again without
any keeps those of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
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
from releasekit.evals.reading import read
from releasekit.evals.scores import Results
from releasekit.evals.suites import SUITES
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
    own = _read([*facts.results, *results], facts.results_name, "model")
    other = _read([*facts.base_results, *base_results], facts.base_results_name, "base")
    if not own.files and not other.files:
        return _as_before(path, chart=chart)
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
    return _lay_out(path, evaluations, files, chart=chart)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """Result files: what they say, and their bytes by the path that they get."""

    results: list[Results]
    files: dict[str, bytes]


def _read(given: Sequence[str | Path], model: str | None, role: str) -> _Read:
    found = _Read(results=[], files={})
    for file in map(Path, given):
        if not file.is_file():
            raise UsageError(f"{file}: no such file; expected results of evaluations")
        data = read_small(file, MAX_RESULTS)
        name = safe_path(file.name, str(file))
        if found.files.get(f"{FOLDER}/{role}/{name}", data) != data:
            # Harnesses call all of their files the same, in a folder each.
            name = safe_path(f"{file.resolve().parent.name}-{name}", str(file))
        place = f"{FOLDER}/{role}/{name}"
        if found.files.setdefault(place, data) != data:
            raise UsageError(f"{file}: another file is called so as well; rename one")
        found.results.append(read(data, name, model=model))
    return found


def _lay_out(
    path: Path, evaluations: Evaluations, files: Mapping[str, bytes], *, chart: bool
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
        removed=tuple(_left_over(path, made)),
        chart=FOLDER if drawn else None,
        sources=tuple(_sources(evaluations)),
        findings=(
            *evaluations.model.findings,
            *(evaluations.base.findings if evaluations.base else ()),
        ),
    )


def _as_before(path: Path, *, chart: bool) -> Evaluated:
    """What the card before this one showed, if there was one."""
    file = path / FOLDER / EVALUATIONS
    if not file.is_file():
        return Evaluated()
    evaluations = document.parse(read_small(file, MAX_RESULTS))
    kept = {}
    for name, digest in _placed(evaluations).items():
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
    return _lay_out(path, evaluations, kept, chart=chart)


def _placed(evaluations: Evaluations) -> dict[str, str]:
    """Where result files lie, with their SHA-256."""
    parts = (("model", evaluations.model), ("base", evaluations.base))
    return {
        f"{FOLDER}/{role}/{origin.file}": origin.sha256
        for role, part in parts
        for origin in (part.origins() if part else ())
    }


def _left_over(path: Path, made: Mapping[str, bytes]) -> list[str]:
    """What the card before this one wrote, and this one does not; no more than that."""
    file = path / FOLDER / EVALUATIONS
    if not file.is_file():
        return []  # the folder is somebody else's
    before = document.parse(read_small(file, MAX_RESULTS))
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
            known = [
                ", ".join(title for task, title in _TITLES.items() if task in own) or None,
                f"lm-evaluation-harness {origin.harness}" if origin.harness else None,
                f"commit `{origin.commit}`" if origin.commit else None,
                origin.date,
                f"prompt {label(origin.prompt)}" if origin.prompt else None,
                f"of {label(origin.model)}" if origin.model else None,
                f"published at <{origin.url}>" if origin.url else None,
                label(origin.notes) if origin.notes else None,
                f"SHA-256 `{origin.sha256[:16]}…`",
            ]
            link = f"[{origin.file}]({FOLDER}/{role}/{quote(origin.file)})"
            lines.append(f"{role.capitalize()}: {link}: {'; '.join(filter(None, known))}")
    return list(dict.fromkeys(lines))
