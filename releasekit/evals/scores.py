"""One figure of an evaluation, and where it comes from.

A figure without its unit is worth nothing: 0.412 and 41.2 are the same accuracy, 0.9 may be
a bad percentage or a good fraction. So each carries its unit, and one that cannot be of its
unit is refused where it enters. `RAW` is any other scale, such as a perplexity: it can be
shown, but neither averaged nor drawn as percent.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from typing import Final

from releasekit.errors import FormatError
from releasekit.names import describe, shown
from releasekit.strictjson import is_hex_digest

HARNESS: Final = "lm-evaluation-harness"
TABLE: Final = "table"
LEADERBOARD: Final = "leaderboard"
#: What a figure may come from; the most reliable first.
KINDS: Final = (HARNESS, LEADERBOARD, TABLE)

_MAX_TEXT: Final = 200  # characters
_MAX_NOTES: Final = 2000
# Only what cannot end an attribute, a Markdown link or a line of the card it will stand in.
_URL: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/?#\[\]@!$&*+,;=%-]{0,1999}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:Z|[+-]\d{2}:\d{2})", re.ASCII
)


class Unit(Enum):
    """What a figure counts in."""

    FRACTION = "fraction"
    PERCENT = "percent"
    RAW = "raw"


def expected_of(value: float, unit: Unit) -> str | None:
    """What a figure of `unit` should have been, if it is not; else None."""
    if not math.isfinite(value):
        return "a finite number"
    if unit is Unit.FRACTION and not 0 <= value <= 1:
        return "a fraction from 0 to 1"
    if unit is Unit.PERCENT and not 0 <= value <= 100:
        return "a percentage from 0 to 100"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a figure comes from.

    Attributes:
        file: the file's name, without its folder.
        sha256: the file's SHA-256, as 64 lowercase hexadecimal digits.
        kind: one of `KINDS`.
        model: the model, as the file names it.
        harness: the version of the program that evaluated.
        commit: the git commit that the file states. The harness states that of the folder
            it was started in, which need not be the harness'.
        date: the day, or the instant with its offset from UTC, in ISO 8601.
        url: where the figure is published.
        prompt: a name or hash of what was put around the questions: a chat template, a
            system instruction. None if nothing was, or if the file does not say.
        notes: anything else that is needed to judge it.

    Raises:
        FormatError: on construction, if a field is not what is said here.
    """

    file: str
    sha256: str
    kind: str
    model: str | None = None
    harness: str | None = None
    commit: str | None = None
    date: str | None = None
    url: str | None = None
    prompt: str | None = None
    notes: str | None = None

    def __post_init__(self) -> None:
        for field, text, limit in (
            ("file", self.file, _MAX_TEXT),
            ("model", self.model, _MAX_TEXT),
            ("harness", self.harness, _MAX_TEXT),
            ("commit", self.commit, _MAX_TEXT),
            ("prompt", self.prompt, _MAX_TEXT),
            ("notes", self.notes, _MAX_NOTES),
        ):
            if text is not None:
                _check_line(text, limit, f"{shown(self.file)}: {field}")
        if not is_hex_digest(self.sha256):
            raise self._fault("sha256", "64 lowercase hexadecimal digits", self.sha256)
        if self.kind not in KINDS:
            raise self._fault("kind", f"one of {', '.join(KINDS)}", self.kind)
        if self.date is not None and not is_date(self.date):
            raise self._fault(
                "date", "a day or an instant with its offset, in ISO 8601", self.date
            )
        if self.url is not None and not _URL.fullmatch(self.url):
            raise self._fault("url", "an address with http:// or https://", self.url)

    def cited(self) -> str:
        """The file and what tells it from others, for a line of text."""
        parts = [self.file]
        if self.model is not None:
            parts.append(self.model)
        if self.harness is not None:
            parts.append(f"harness {self.harness}")
        if self.date is not None:
            parts.append(self.date)
        if self.commit is not None:
            parts.append(f"commit {self.commit[:12]}")
        return ", ".join(parts)

    def _fault(self, field: str, expected: str, found: str) -> FormatError:
        return FormatError(
            f"{self.file}: {field}: expected {expected}, found {shown(found)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One figure.

    Attributes:
        task: what was evaluated, by the name that `tasks.canonical` gives it.
        metric: how, e.g. `acc_norm`.
        value: the figure, in `unit`.
        unit: what it counts in.
        origin: where it comes from.
        stderr: its standard error, in `unit`.
        shots: examples that were shown before each question.
        samples: questions that were asked.
        partial: whether that was only a part of the task's questions.
        higher_is_better: whether a larger value is a better one.
        filter: what was done to the answers before they were judged.
        version: the task's version.
        aggregate: whether it sums up other tasks, which may be there as well.

    Raises:
        FormatError: on construction, if a field is not what is said here.
    """

    task: str
    metric: str
    value: float
    unit: Unit
    origin: Origin
    stderr: float | None = None
    shots: int | None = None
    samples: int | None = None
    partial: bool = False
    higher_is_better: bool | None = None
    filter: str | None = None
    version: str | None = None
    aggregate: bool = False

    def __post_init__(self) -> None:
        where = f"{self.origin.file}: {shown(self.task)}"
        for field, text in (
            ("task", self.task),
            ("metric", self.metric),
            ("filter", self.filter),
            ("version", self.version),
        ):
            if text is not None:
                _check_line(text, _MAX_TEXT, f"{where}: {field}")
        where = f"{where}: {self.metric}"
        expected = expected_of(self.value, self.unit)
        if expected is not None:
            raise FormatError(f"{where}: expected {expected}, found {self.value!r}")
        if self.stderr is not None and not 0 <= self.stderr < math.inf:
            raise FormatError(
                f"{where}: standard error: expected a finite number of at least 0, found "
                f"{self.stderr!r}"
            )
        for field, count in (("shots", self.shots), ("samples", self.samples)):
            if count is not None and count < 0:
                raise FormatError(
                    f"{where}: {field}: expected an integer of at least 0, found {count}"
                )

    def percent(self) -> float | None:
        """The figure in percent; None if its unit has no percent."""
        return _in_percent(self.value, self.unit)

    def stderr_percent(self) -> float | None:
        """The standard error in percentage points; None if unknown or not in percent."""
        return None if self.stderr is None else _in_percent(self.stderr, self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What one file says of one model.

    Attributes:
        scores: the figures.
        findings: what is odd about the file, though no reason to refuse it; sentences.
    """

    scores: tuple[Score, ...]
    findings: tuple[str, ...] = ()


def is_date(text: str) -> bool:
    """Whether `text` is a day, or an instant with its offset from UTC, in ISO 8601."""
    try:
        if _DAY.fullmatch(text):
            date.fromisoformat(text)
            return True
        if _INSTANT.fullmatch(text):
            datetime.fromisoformat(text)
            return True
    except ValueError:  # the 30th of February
        return False
    return False


def _check_line(text: str, limit: int, where: str) -> None:
    if not (0 < len(text) <= limit and text.isprintable()):
        raise FormatError(
            f"{where}: expected a line of 1 to {limit} characters, found {describe(text)}"
        )


def _in_percent(value: float, unit: Unit) -> float | None:
    if unit is Unit.RAW:
        return None
    # 0.412 is to be 41.2, not 41.199999999999996, which a digit more would show.
    return value if unit is Unit.PERCENT else round(100 * value, 12)
