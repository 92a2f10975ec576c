"""A report of a model: a page, charts, and its figures, from one pass over the weights.

    report.html   the page, which needs no other file
    report.json   all figures
    summary.md    the most telling in words, for a model card
    *.png         the charts, light and dark

The folder appears whole or not at all. The same inputs, under the same names, give the same
bytes with one version of matplotlib: nothing in it tells the time, a path, or a machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint.locate import is_on_hub
from releasekit.comparison.examining import examine
from releasekit.comparison.sides import Side, open_side
from releasekit.delta.consent import Consent
from releasekit.errors import UsageError
from releasekit.evals.compare import Comparison
from releasekit.evals.document import EVALUATIONS
from releasekit.evals.plan import describe, plan
from releasekit.output import OutputFolder, check_output
from releasekit.pictures import plan as charts
from releasekit.pictures.page import Evaluation, render
from releasekit.presentation.evaluation import FOLDER, read_comparison
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.statistics.portrait import Portrait, document
from releasekit.statistics.summary import SUMMARY, summary

PAGE: Final = "report.html"
FIGURES: Final = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """What was written.

    Attributes:
        out: the folder.
        portrait: the figures; `statistics.summary.summary` says them in words.
        files: size of each file by its name.
        seconds: time it took.
    """

    out: Path
    portrait: Portrait
    files: dict[str, int]
    seconds: float


def report(
    first: str | Path,
    second: str | Path | None = None,
    *,
    out: str | Path,
    base: str | Path | None = None,
    name: str | None = None,
    evaluations: Comparison | None = None,
    skip: Callable[[str], bool] = lambda name: False,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> ReportResult:
    """Write a report of a model, or of a model against its base, into a new folder.

    Args:
        first: the model; or, with `second`, its base.
        second: the model: a checkpoint, a delta release on `first`, or on the Hub.
        out: the folder to make.
        base: the base of `first`, if that is a delta release: the same as
            `report(base, first)`.
        name: what the model is called; by default as its release says, or its folder.
        evaluations: what the report shows of them; by default those in the model's folder.
        skip: tells by its path which file beside the weights is not to be told of.
        policy: what is asked of a release's signature.
        accept_license: as in `apply_delta`, for a release.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most, beside the figures themselves.
        progress: called with the bytes read so far.

    Raises:
        UsageError: if a path is wrong, `out` exists, or a release is given without its
            base.
        FormatError, BaseMismatchError, IntegrityError, SignatureError, LicenseError: as
            `releasekit.comparison.compare`.
    """
    started = time.monotonic()
    out = Path(out)
    if base is not None:
        if second is not None:
            raise UsageError(
                "report: a base is given twice: leave out --base, since of two models the "
                "first is the base"
            )
        first, second = base, first
    model = first if second is None else second
    inputs = [Path(one) for one in (first, model) if not is_on_hub(one)]
    check_output(out, force=False, inputs=inputs)
    with ExitStack() as stack:
        own = open_side(
            stack,
            model,
            None if second is None else first,
            policy=policy,
            accept_license=accept_license,
            progress=progress,
        )
        before = None
        if second is not None:
            before = open_side(stack, first, None, progress=progress)
        found = examine(
            before,
            own,
            values=True,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    portrait = Portrait.of(
        replace(found, files=tuple(file for file in found.files if not skip(file.name))),
        name=name or _called(own, model),
        base=None if second is None else name_of(first),
        version=None if own.release is None else own.release.manifest.version,
    )
    if evaluations is None:
        evaluations = _beside(own)
    files = draw(portrait, evaluations)
    with OutputFolder(out, key=f"report {time.time_ns()}", inputs=inputs) as folder:
        for name, data in files.items():
            folder.write(name, data)
        folder.commit()
    return ReportResult(
        out=out,
        portrait=portrait,
        files={name: len(data) for name, data in files.items()},
        seconds=time.monotonic() - started,
    )


def name_of(model: str | Path) -> str:
    """What a model is called, without saying where it is on this machine."""
    if is_on_hub(model):
        return str(model)
    return Path(model).resolve().name or str(model)


def _called(side: Side, model: str | Path) -> str:
    return name_of(model) if side.release is None else side.release.manifest.name


def draw(portrait: Portrait, comparison: Comparison | None) -> dict[str, bytes]:
    """The files of a report, by name.

    Args:
        portrait: the figures.
        comparison: evaluations to show; None if there are none.
    """
    from releasekit.pictures.png import draw as draw_charts

    found = [
        charts.by_kind(portrait),
        charts.by_layer(portrait),
        charts.deviations(portrait),
    ]
    if portrait.base is not None:
        found += [
            charts.distances(portrait),
            charts.updates(portrait),
            charts.unchanged(portrait),
        ]
    if portrait.whole.published is not None:
        found.append(charts.by_layer(portrait, published=True))
    evaluation, pictures = _evaluation(comparison)
    text = json.dumps(document(portrait), indent=1, ensure_ascii=False)
    return {
        PAGE: render(portrait, evaluation),
        FIGURES: text.encode("utf-8", "surrogatepass") + b"\n",
        SUMMARY: summary(portrait).encode(),
        **draw_charts([chart for chart in found if chart is not None], portrait.name),
        **pictures,
    }


def _beside(side: Side) -> Comparison | None:
    """Evaluations in the model's folder."""
    path = side.folder / FOLDER / EVALUATIONS
    return read_comparison(path) if path.is_file() else None


def _evaluation(
    comparison: Comparison | None,
) -> tuple[Evaluation | None, dict[str, bytes]]:
    """The chart of evaluations, and its pictures as files."""
    drawn = plan(comparison) if comparison is not None else None
    if comparison is None or drawn is None or not drawn.blocks:
        return None, {}
    from releasekit.charts import draw as draw_evaluations

    title = comparison.model + (f" and {comparison.base}" if comparison.base else "")
    files = draw_evaluations(comparison, title)
    columns = 1 if comparison.base is None else 3
    shown = Evaluation(
        light=files["evaluations.svg"],
        dark=files["evaluations-dark.svg"],
        words=describe(comparison),
        rows=tuple(
            (
                f"{block.title}: {line.label}" if block.title else line.label,
                *line.cells[:columns],
            )
            for block in drawn.blocks
            for line in block.lines
        ),
        has_base=comparison.base is not None,
    )
    return shown, {name: data for name, data in files.items() if name.endswith(".png")}
