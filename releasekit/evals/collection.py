"""All figures of one model, from however many files, without contradictions.

Two figures are of the same thing if task, metric, filter, n-shot and prompt are the same.
If they agree, one is kept: that with the better origin. If they do not, nobody but the
maintainer can tell which is right, and a release that shows the better one deceives; so
they are refused, with what dates them. The order in which files are given changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from releasekit.errors import UsageError
from releasekit.evals.averages import SuiteResult, average
from releasekit.evals.scores import KINDS, Origin, Results, Score, Unit
from releasekit.evals.suites import AVERAGE, SUITES
from releasekit.names import listed, shown

_SAME: Final = 1e-9  # percentage points: 0.412 and 41.2 are the same figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """All figures of one model.

    Attributes:
        name: what the model is called.
        scores: its figures, sorted.
        findings: what is odd about them; sentences.
    """

    name: str
    scores: tuple[Score, ...]
    findings: tuple[str, ...] = ()

    @classmethod
    def of(cls, *results: Results, name: str | None = None) -> Collection:
        """Merges what files say of one model.

        Args:
            results: what each file says.
            name: what the model is called; None for what the files call it.

        Raises:
            UsageError: two figures of the same thing differ, or there is none.
        """
        kept: dict[tuple[str, ...], Score] = {}
        given = (score for part in results for score in part.scores)
        for score in sorted(given, key=_rank):
            held = kept.setdefault(_key(score), score)
            if not _agree(held, score):
                raise UsageError(_contradiction(held, score))
        if not kept:
            raise UsageError("expected figures of a model, found files without any")
        scores = tuple(kept[key] for key in sorted(kept))
        names = sorted({s.origin.model for s in scores if s.origin.model is not None})
        findings = {finding for part in results for finding in part.findings}
        if len(names) > 1:
            findings.add(f"The files name several models: {listed(names, 5)}.")
        return cls(
            name=name or (names[0] if len(names) == 1 else "model"),
            scores=scores,
            findings=tuple(sorted(findings)),
        )

    def origins(self) -> tuple[Origin, ...]:
        """Where the figures come from, each once, sorted."""
        return tuple(sorted({score.origin for score in self.scores}, key=_origin_rank))

    def suites(self, base: Collection | None = None) -> tuple[SuiteResult, ...]:
        """The suites that these figures are worth showing as, in the order of `SUITES`.

        A suite is shown if it has a figure. It is not if another has all of its figures,
        and is complete or has more, or is complete where it is not; unless a leaderboard
        states its average, or only it is complete for `base`, too.
        """
        results = [average(suite, self.scores) for suite in SUITES.values()]

        def covered(result: SuiteResult) -> bool:
            others = [other for other in results if _covers(other, result)]
            if base is None or result.average is None or not _complete(result, base):
                return bool(others)
            return any(_complete(other, base) for other in others)

        return tuple(result for result in results if result.figures and not covered(result))


def _complete(result: SuiteResult, base: Collection) -> bool:
    return average(result.suite, base.scores).average is not None


def _scores(result: SuiteResult) -> set[Score]:
    return {score for figure in result.figures for score in figure.scores}


def _covers(other: SuiteResult, result: SuiteResult) -> bool:
    if other is result or result.stated is not None:
        return False
    mine, others = _scores(result), _scores(other)
    if mine == others:
        # Both hold the same: the one with fewer tasks lacks less.
        return len(other.missing) < len(result.missing)
    if others < mine:
        # All that there is of a larger one does not make it complete.
        return other.average is not None and result.average is None
    return mine < others and (other.average is not None or result.average is None)


def _key(score: Score) -> tuple[str, ...]:
    return (
        score.task,
        score.metric,
        score.filter or "",
        "" if score.shots is None else f"{score.shots:06d}",
        score.origin.prompt or "",
        "raw" if score.unit is Unit.RAW else "",
    )


def _rank(score: Score) -> tuple[object, ...]:
    """Sorts the figure to keep first: it has an error, and the better origin."""
    return (
        score.stderr is None,
        KINDS.index(score.origin.kind),
        score.samples is None,
        score.unit.value,
        score.value,
        -1.0 if score.stderr is None else score.stderr,
        -1 if score.samples is None else score.samples,
        score.version or "",
        score.partial,
        score.aggregate,
        str(score.higher_is_better),
        _origin_rank(score.origin),
    )


def _origin_rank(origin: Origin) -> tuple[str, ...]:
    return (
        origin.file,
        origin.sha256,
        origin.kind,
        *(
            text or ""
            for text in (
                *(origin.model, origin.harness, origin.commit, origin.date),
                *(origin.url, origin.prompt, origin.notes),
            )
        ),
    )


def _agree(one: Score, other: Score) -> bool:
    first, second = one.percent(), other.percent()
    if first is None or second is None:
        return one.value == other.value
    return abs(first - second) <= _SAME


def _told(score: Score) -> str:
    percent = score.percent()
    return f"{score.value:g}" if percent is None else f"{percent:g} %"


def _contradiction(one: Score, other: Score) -> str:
    shots = "" if one.shots is None else f", {one.shots}-shot"
    what = "average" if one.metric == AVERAGE else f"{one.metric}{shots}"
    found = " and ".join(
        f"{_told(score)} ({score.origin.cited()})" for score in (one, other)
    )
    return (
        f"{shown(one.task)}, {what}: found two figures that differ, {found}; leave out the "
        "file, or the row, that does not count"
    )
