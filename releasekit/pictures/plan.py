"""What charts show, before anything is drawn: their titles, labels, values and scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from releasekit.statistics.changes import Distances, bucket_range
from releasekit.statistics.groups import Group
from releasekit.statistics.places import Kind
from releasekit.statistics.portrait import Portrait
from releasekit.statistics.summary import main_distances
from releasekit.statistics.wording import number, percent, size

#: Steps of the colour scale of heat maps.
LEVELS: Final = 24
#: Above this ratio of its ends, a scale is logarithmic.
_WIDE: Final = 5.0
#: Share of values below the begin of a logarithmic scale, so that a few tiny ones do not
#: take it for themselves.
_BELOW: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values of one colour.

    Attributes:
        title: what they are of.
        color: place in the palette.
        values: one a label.
    """

    title: str
    color: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Columns side by side, of series on top of each other; values are bytes."""

    name: str
    title: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]

    @property
    def totals(self) -> tuple[float, ...]:
        """Height of each column."""
        return tuple(map(sum, zip(*(s.values for s in self.series), strict=True)))

    @property
    def ticks(self) -> list[float]:
        """Where the axis has lines: round numbers from 0 to above the highest column."""
        most = max(self.totals, default=0.0) or 1.0
        step = 10.0 ** math.floor(math.log10(most / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 4)
        return [step * i for i in range(math.ceil(most / step) + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Rows of bars, with a text each.

    Attributes:
        name: of the chart's files.
        title: stands above.
        labels: of the rows.
        values: length of each bar.
        texts: what stands beside each.
        colors: places in the palette.
        second: a shorter bar in each, such as the published size; empty for none.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    values: tuple[float, ...]
    texts: tuple[str, ...]
    colors: tuple[int, ...]
    second: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A grid of colours.

    Attributes:
        name: of the chart's files.
        title: stands above.
        columns: labels below.
        rows: labels at the left.
        values: one row after another; None where there is nothing.
        text: a value for people.
        zero: what a value of 0 means, in words.
        least: where the scale begins.
        most: where it ends.
        is_log: whether it is logarithmic.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    text: Callable[[float], str]
    zero: str
    least: float
    most: float
    is_log: bool

    def level(self, value: float) -> int | None:
        """The colour of a value, from 0 to `LEVELS - 1`; None for 0 on such a scale."""
        if self.is_log:
            if value <= 0:
                return None
            low, high, at = (math.log(v) for v in (self.least, self.most, value))
        else:
            low, high, at = self.least, self.most, value
        share = (at - low) / (high - low) if high > low else 1.0
        return min(max(int(share * LEVELS), 0), LEVELS - 1)

    @property
    def has_zeros(self) -> bool:
        """Whether some cells have no colour, since they are 0."""
        return self.is_log and any(v == 0 for row in self.values for v in row)

    def ends(self) -> tuple[str, str, str]:
        """Texts for begin, middle and end of the scale."""
        middle = (self.least + self.most) / 2
        lower = (v for row in self.values for v in row if v)
        sign = "≤ " if min(lower, default=self.least) < self.least else ""
        if self.is_log:
            middle = math.sqrt(self.least * self.most)
        return f"{sign}{self.text(self.least)}", self.text(middle), self.text(self.most)


def heat(
    name: str,
    title: str,
    portrait: Portrait,
    value: Callable[[Group], float | None],
    text: Callable[[float], str],
    zero: str,
    *,
    ends: tuple[float, float] | None = None,
) -> Heat | None:
    """A figure of each module in each layer; None if there are no layers to speak of.

    Args:
        name: of the chart's files.
        title: stands above.
        portrait: the model.
        value: the figure of a group.
        text: a value for people.
        zero: what 0 means.
        ends: of the scale, which is linear then; by default it follows from the values.
    """
    layers = portrait.groups.layers
    grid = tuple(
        tuple(None if of is None else value(of) for of in row) for row in layers.grid
    )
    known = [v for row in grid for v in row if v is not None]
    if not known or len(layers.labels) < 2:
        return None
    positive = [v for v in known if v > 0]
    is_log = False
    if ends is None:
        low, high = min(known), max(known)
        if positive and (low == 0 or high / low > _WIDE):
            is_log = True
            low = sorted(positive)[int(_BELOW * len(positive))]
        ends = low, high
    return Heat(
        name=name,
        title=title,
        columns=layers.labels,
        rows=layers.modules,
        values=grid,
        text=text,
        zero=zero,
        least=ends[0],
        most=ends[1],
        is_log=is_log,
    )


def updates(portrait: Portrait) -> Heat | None:
    """How far each module of each layer moved."""
    return heat(
        "update",
        "Size of the update, relative to the base",
        portrait,
        lambda of: of.relative,
        percent,
        "unchanged",
    )


def unchanged(portrait: Portrait) -> Heat | None:
    """How many words of each module of each layer stayed."""
    return heat(
        "unchanged",
        "Share of unchanged weights",
        portrait,
        lambda of: of.share_same,
        percent,
        "none",
        ends=(0.0, 1.0),
    )


def deviations(portrait: Portrait) -> Heat | None:
    """How large the values of each module of each layer are."""
    return heat(
        "values",
        "Standard deviation of values",
        portrait,
        lambda of: of.values.std if of.values is not None else None,
        number,
        "all equal",
    )


def by_kind(portrait: Portrait) -> Bars:
    """Size of tensors by what they do."""
    kinds = portrait.groups.kinds
    whole = portrait.whole
    published: tuple[float, ...] = ()
    if whole.published is not None:
        published = tuple(float(of.published or 0) for of in kinds.values())
    return Bars(
        name="kinds",
        title="Size by kind"
        + (", with what is published (inner bar)" if published else ""),
        labels=tuple(kind.title for kind in kinds),
        values=tuple(float(of.nbytes) for of in kinds.values()),
        texts=tuple(
            size(of.nbytes)
            + ("" if of.published is None else f", published {size(of.published)}")
            for of in kinds.values()
        ),
        colors=tuple(list(Kind).index(kind) for kind in kinds),
        second=published,
    )


def by_layer(portrait: Portrait, *, published: bool = False) -> Columns | None:
    """Size of layers by kind; None if there are no layers to speak of."""
    layers = portrait.groups.layers
    if len(layers.labels) < 2:
        return None

    def value(of: Group | None) -> float:
        if of is None:
            return 0.0
        return float((of.published or 0) if published else of.nbytes)

    series = [
        Series(
            title=kind.title,
            color=color,
            values=tuple(value(by.get(kind)) for by in layers.kinds),
        )
        for color, kind in enumerate(Kind)
    ]
    return Columns(
        name="published" if published else "layers",
        title="Published size by layer" if published else "Size by layer",
        labels=layers.labels,
        series=tuple(one for one in series if any(one.values)),
    )


def distances(portrait: Portrait) -> Bars | None:
    """How far words moved; None if none did."""
    found = main_distances(portrait)
    if found is None or not found[1].largest:
        return None
    label, main = found
    buckets = range(max(main.octaves) + 1)
    counts = [main.octaves.get(bucket, 0) for bucket in buckets]
    return Bars(
        name="distances",
        title=f"Distances of {label} weights from the base, in ULPs",
        labels=tuple(bucket_label(bucket) for bucket in buckets),
        values=tuple(map(float, counts)),
        texts=tuple(share(count, main) for count in counts),
        colors=tuple(-1 if bucket == 0 else 0 for bucket in buckets),
    )


def share(count: int, of: Distances) -> str:
    """A part of all words."""
    return percent(count / of.count) if count else "none"


def bucket_label(bucket: int) -> str:
    """`4 – 7`: the distances in a bucket."""
    low, high = bucket_range(bucket)
    if low == high:
        return str(low)
    return f"{low} – {high}" if bucket < 17 else f"2^{bucket - 1} and more"


def shortened(text: str, kept: int) -> str:
    """A text of so many characters: its begin and its end, as names differ in either."""
    plain = printable(text)
    if len(plain) <= kept:
        return plain
    begin = kept // 3
    return f"{plain[:begin]}…{plain[len(plain) - (kept - begin - 1) :]}"


def printable(text: str) -> str:
    """Text from files as it can be shown: on one line, in the order in which it stands."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def every(labels: Sequence[str], width: float, char: float) -> int:
    """Of labels that have so much room each, one in how many can be shown."""
    longest = max(map(len, labels), default=1) * char + char
    return max(1, math.ceil(longest / width))
