"""Charts as PNG, light and dark, for cards and talks.

The same charts that a page has, by matplotlib. The same figures give the same bytes with
one version of matplotlib; global state of matplotlib is left as it was.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from releasekit.pictures.palette import DARK, KINDS, LIGHT, SCALE, Theme
from releasekit.pictures.plan import LEVELS, Bars, Columns, Heat, every, shortened
from releasekit.statistics.wording import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI: Final = 160  # pixels an inch
_FONT: Final = "DejaVu Sans"  # comes with matplotlib
_STYLE: Final = {"font.family": _FONT, "font.size": 8.5, "path.simplify": False}
# Inches.
_WIDTH: Final = 8.0
_MARGIN: Final = 0.25
_TOP: Final = 0.72
_ROW: Final = 0.24
_CHAR: Final = 0.082
_FOOT: Final = 0.4
_LEGEND: Final = 0.36
_LABEL_CHARS: Final = 28


def draw(charts: Sequence[Bars | Columns | Heat], name: str) -> dict[str, bytes]:
    """Draw charts.

    Args:
        charts: what to draw.
        name: of the model; stands below each title.

    Returns:
        the files by name: `NAME.png` and `NAME-dark.png` for each chart.
    """
    from matplotlib import style

    files = {}
    # The defaults, as a user's own style would change sizes that others here depend on.
    with style.context(["default", _STYLE]):
        for chart in charts:
            for theme in (LIGHT, DARK):
                canvas = _chart(chart, shortened(name, 80), theme)
                files[f"{chart.name}{theme.suffix}.png"] = _png(canvas)
    return files


def _chart(chart: Bars | Columns | Heat, name: str, theme: Theme) -> Figure:
    if isinstance(chart, Bars):
        return _bars(chart, name, theme)
    return (
        _columns(chart, name, theme)
        if isinstance(chart, Columns)
        else _heat(chart, name, theme)
    )


def _canvas(
    title: str, name: str, theme: Theme, left: float, plot: float, foot: float
) -> tuple[Figure, Axes]:
    """A picture with room for a plot of this height; all in inches."""
    from matplotlib.figure import Figure

    height = _TOP + plot + foot
    canvas = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor=theme.page)
    place = (
        left / _WIDTH,
        foot / height,
        (_WIDTH - left - _MARGIN) / _WIDTH,
        plot / height,
    )
    axes = canvas.add_axes(place, facecolor="none")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, colors=theme.faint, pad=3)
    for text, down, points, color, weight in (
        (title, 0.26, 12, theme.text, "bold"),
        (name, 0.47, 8.5, theme.faint, "normal"),
    ):
        canvas.text(
            _MARGIN / _WIDTH,
            1 - down / height,
            _printed(text),
            fontsize=points,
            color=color,
            fontweight=weight,
            va="center_baseline",
            parse_math=False,
        )
    return canvas, axes


def _bars(chart: Bars, name: str, theme: Theme) -> Figure:
    left = _MARGIN + 0.1 + _CHAR * max(map(len, chart.labels), default=0)
    canvas, axes = _canvas(
        chart.title, name, theme, left, _ROW * 1.1 * len(chart.labels), _MARGIN
    )
    colors = [KINDS[color] for color in chart.colors]  # -1 is the last, grey
    places = range(len(chart.labels))
    axes.barh(places, chart.values, color=colors, height=0.72, zorder=2)
    if chart.second:
        axes.barh(places, chart.second, color=theme.text, height=0.2, zorder=3)
    most = max(chart.values, default=1.0) or 1.0
    for place, value, text in zip(places, chart.values, chart.texts, strict=True):
        axes.text(
            value + most * 0.008,
            place,
            _printed(text),
            color=theme.text,
            va="center_baseline",
            fontsize=8,
            parse_math=False,
        )
    axes.set_xlim(0, most * 1.24)
    axes.set_ylim(len(chart.labels) - 0.5, -0.5)
    axes.set_xticks([])
    _labels(axes.yaxis, places, chart.labels, theme)
    return canvas


def _columns(chart: Columns, name: str, theme: Theme) -> Figure:
    left = _MARGIN + 0.6
    canvas, axes = _canvas(chart.title, name, theme, left, 2.6, _FOOT + _LEGEND)
    places = range(len(chart.labels))
    bottom = [0.0] * len(chart.labels)
    for series in chart.series:
        axes.bar(
            places,
            series.values,
            bottom=bottom,
            width=0.84,
            color=KINDS[series.color],
            zorder=2,
            label=series.title,
        )
        bottom = [low + value for low, value in zip(bottom, series.values, strict=True)]
    ticks = chart.ticks
    axes.set_xlim(-0.6, len(chart.labels) - 0.4)
    axes.set_ylim(0, ticks[-1])
    axes.hlines(ticks, *axes.get_xlim(), colors=theme.grid, linewidth=0.7, zorder=1)
    axes.set_yticks(ticks, [size(tick) for tick in ticks])
    _feet(axes, chart.labels, left, theme)
    legend = canvas.legend(
        loc="lower left",
        bbox_to_anchor=(_MARGIN / _WIDTH, 0.02),
        ncols=7,
        frameon=False,
        handlelength=1,
        handleheight=1,
        columnspacing=1.2,
        borderpad=0,
    )
    for text in legend.get_texts():
        text.set_color(theme.text)
    return canvas


def _heat(chart: Heat, name: str, theme: Theme) -> Figure:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    names = [shortened(row, _LABEL_CHARS) for row in chart.rows]
    left = _MARGIN + 0.1 + _CHAR * max(map(len, names), default=0)
    canvas, axes = _canvas(
        chart.title, name, theme, left, _ROW * len(names), _FOOT + _LEGEND
    )
    boxes, colors = [], []
    for row, column, value in _cells(chart):
        level = chart.level(value)
        boxes.append(Rectangle((column - 0.5, row - 0.46), 0.96, 0.92))
        colors.append(theme.zero if level is None else SCALE[level])
    axes.add_collection(
        PatchCollection(boxes, facecolors=colors, edgecolors="none", zorder=2)
    )
    axes.set_xlim(-0.5, len(chart.columns) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _labels(axes.yaxis, range(len(names)), names, theme)
    _feet(axes, chart.columns, left, theme)
    _scale(canvas, chart, theme)
    return canvas


def _cells(chart: Heat) -> Iterator[tuple[int, int, float]]:
    for row, values in enumerate(chart.values):
        for column, value in enumerate(values):
            if value is not None:
                yield row, column, value


def _scale(canvas: Figure, chart: Heat, theme: Theme) -> None:
    """The colours of a heat map, with the values at ends and middle."""
    from matplotlib.patches import Rectangle

    height = canvas.get_figheight()
    step, x, y = 0.075, _MARGIN, 0.27
    for level in range(LEVELS):
        canvas.add_artist(
            Rectangle(
                ((x + level * step) / _WIDTH, y / height),
                step / _WIDTH,
                0.1 / height,
                facecolor=SCALE[level],
                edgecolor="none",
            )
        )
    marks = list(
        zip((0.0, 0.5, 1.0), chart.ends(), ("left", "center", "right"), strict=True)
    )
    for at, text, align in marks:
        canvas.text(
            (x + at * LEVELS * step) / _WIDTH,
            (y - 0.1) / height,
            _printed(text),
            color=theme.faint,
            fontsize=7.5,
            ha=align,
            va="center_baseline",
            parse_math=False,
        )
    if chart.has_zeros:
        x += (LEVELS + 4) * step
        canvas.add_artist(
            Rectangle(
                (x / _WIDTH, y / height),
                0.16 / _WIDTH,
                0.1 / height,
                facecolor=theme.zero,
                edgecolor="none",
            )
        )
        canvas.text(
            (x + 0.24) / _WIDTH,
            (y + 0.05) / height,
            chart.zero,
            color=theme.faint,
            fontsize=7.5,
            va="center_baseline",
        )


def _feet(axes: Axes, labels: Sequence[str], left: float, theme: Theme) -> None:
    shown = [shortened(label, 14) for label in labels]
    skip = every(shown, (_WIDTH - left - _MARGIN) / max(len(shown), 1), _CHAR)
    places = range(0, len(shown), skip)
    _labels(axes.xaxis, places, [shown[place] for place in places], theme)


def _labels(
    axis: object, places: Sequence[int], labels: Sequence[str], theme: Theme
) -> None:
    """Labels as they are: names may look like formulas."""
    from matplotlib.axis import Axis

    assert isinstance(axis, Axis)
    axis.set_ticks(list(places), [_printed(label) for label in labels])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)
        text.set_color(theme.text)


def _printed(text: str) -> str:
    """Text of characters that the font has: others would only warn, and leave a box."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    return "".join(char if ord(char) in known else "�" for char in text)


def _png(canvas: Figure) -> bytes:
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
