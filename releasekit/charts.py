"""Charts of a model against its base, as PNG and SVG, for light and for dark pages.

One row a task, grouped by suite: the model's figure as a filled disc, the base's as an open
diamond below it, so that neither hides the other and both differ by shape and lightness,
not by colour alone; the colours are of Okabe and Ito's palette, which most people with
impaired colour vision can tell apart (https://jfly.uni-koeln.de/color/). Dots, not bars:
they may stand on an axis that does not begin at 0, on which a difference of a point can be
seen. The figures stand beside the plot, in columns, where they cannot collide. A suite's
average is its last row, on a band.

The background is drawn, since a page may be light where its reader's system is dark. Text
in the SVG is drawn as outlines: a page shows the file as an image, which may load no font,
and another font would break what was measured here; a title and a description carry the
words for screen readers.

The same comparison gives the same bytes with one version of matplotlib: no date, no
version, fixed ids. Global state of matplotlib is left as it was.
"""

from __future__ import annotations

import html
import io
import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from releasekit.errors import UsageError
from releasekit.evals.compare import Comparison
from releasekit.evals.plan import Line, Plan, Point, describe, plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

#: Name of the charts, without what tells them apart.
STEM: Final = "evaluations"

_DPI: Final = 200  # pixels an inch, of the PNG
_FONT: Final = "DejaVu Sans"  # comes with matplotlib
_STYLE: Final = {
    "font.family": _FONT,
    "svg.hashsalt": "releasekit",
    "svg.fonttype": "path",
    "path.simplify": False,
}

# Inches.
_WIDTH: Final = 8.0
_MARGIN: Final = 0.25
_LABELS: Final = 2.75
_COLUMN: Final = 0.58
_ROW: Final = 0.32
_HEAD: Final = 0.46
_GAP: Final = 0.3  # instead of _HEAD, where there is no title
_TOP: Final = 0.84
_AXIS: Final = 0.42
_LINE: Final = 0.19
_PAD: Final = 0.12  # between the plot and the columns
_OFFSET: Final = 0.066  # of model and base from the middle of their row
_FOOTNOTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Theme:
    suffix: str
    page: str
    band: str
    text: str
    faint: str
    grid: str
    model: str
    base: str


_THEMES: Final = (
    _Theme(
        suffix="",
        page="#ffffff",
        band="#eef2f6",
        text="#1f2328",
        faint="#59636e",
        grid="#d9dee3",
        model="#0072b2",  # blue
        base="#d55e00",  # vermilion: on white, orange is too pale for a line
    ),
    _Theme(
        suffix="-dark",
        page="#0d1117",
        band="#1c232c",
        text="#e6edf3",
        faint="#9aa4af",
        grid="#2b333d",
        model="#56b4e9",  # sky blue
        base="#e69f00",  # orange
    ),
)


def draw(comparison: Comparison, title: str) -> dict[str, bytes]:
    """Draws the suites of a comparison; if it has none, its other figures.

    Args:
        comparison: what to draw; figures that are not in percent are left out.
        title: stands above.

    Returns:
        the files by name: `evaluations.png` and `.svg`, and `evaluations-dark.png` and
        `.svg` for dark pages.

    Raises:
        UsageError: there is no figure in percent.
    """
    drawn = plan(comparison)
    if not drawn.blocks:
        raise UsageError(
            "expected a figure in percent to draw, found none; leave the chart out"
        )
    from matplotlib import style

    files = {}
    words = describe(comparison)
    # The defaults, as a user's own style would change sizes that others here depend on.
    with style.context(["default", _STYLE]):
        for theme in _THEMES:
            canvas = _chart(comparison, title, drawn, theme)
            name = f"{STEM}{theme.suffix}"
            files[f"{name}.png"] = _png(canvas)
            files[f"{name}.svg"] = _svg(canvas, title, words)
    return files


def _chart(
    comparison: Comparison,
    title: str,
    drawn: Plan,
    theme: _Theme,
) -> Canvas:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    columns = 1 if comparison.base is None else 3
    told = _shortened(drawn.notes)
    body = sum(
        (_HEAD if block.title else _GAP) + _ROW * len(block.lines) for block in drawn.blocks
    )
    height = _TOP + body + _AXIS + _LINE * len(told) + _MARGIN
    canvas = Canvas(figsize=(_WIDTH, height), dpi=_DPI, facecolor=theme.page)
    FigureCanvasAgg(canvas)  # measures text; without, each measurement draws the whole
    left = _MARGIN + _LABELS
    right = _WIDTH - _MARGIN - columns * _COLUMN
    axes = canvas.add_axes(
        (
            left / _WIDTH,
            1 - (_TOP + body) / height,
            (right - left - _PAD) / _WIDTH,
            body / height,
        )
    )
    page = _Page(canvas=canvas, height=height, theme=theme)
    _prepare(axes, drawn, body, theme)
    page.text(_MARGIN, 0.33, title, size=13, weight="bold", room=_WIDTH - 2 * _MARGIN)
    _legend(page, comparison)
    y = 0.0
    for block in drawn.blocks:
        y += _HEAD if block.title else _GAP
        if block.title:
            page.text(
                _MARGIN, _TOP + y - 0.13, block.title, size=10.5, weight="bold", room=4.5
            )
        if block is drawn.blocks[0]:
            _heads(page, _TOP + y - 0.13, columns, right)
        _grid(axes, y, y + _ROW * len(block.lines), theme)
        for line in block.lines:
            _draw_line(page, axes, line, y, columns, right)
            y += _ROW
    for place, note in enumerate(told):
        page.text(
            _MARGIN,
            _TOP + body + _AXIS + _LINE * (place + 0.6),
            note,
            size=7.5,
            color=theme.faint,
            room=_WIDTH - 2 * _MARGIN,
        )
    return canvas


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """The whole picture, on which places are inches from its upper left corner."""

    canvas: Canvas
    height: float
    theme: _Theme

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        room: float,
        color: str | None = None,
        weight: str = "normal",
        align: str = "left",
    ) -> float:
        """Writes on a middle line, cut to the room there is; returns the width taken."""
        artist = self.canvas.text(
            x / _WIDTH,
            1 - y / self.height,
            "",
            fontsize=size,
            color=color or self.theme.text,
            fontweight=weight,
            ha=align,
            va="center_baseline",
            parse_math=False,
        )
        printed = _printed(text)

        def width(kept: int) -> float:
            artist.set_text(_cut(printed, kept))
            return float(artist.get_window_extent().width) / self.canvas.dpi

        taken = width(len(printed))
        if taken > room:
            fits = bisect(range(len(printed)), room, key=width)
            taken = width(max(0, fits - 1))
        return taken

    def mark(self, x: float, y: float, *, is_model: bool, size: float) -> None:
        """Draws the mark of the model or the base outside the plot."""
        from matplotlib.lines import Line2D

        color = self.theme.model if is_model else self.theme.base
        self.canvas.add_artist(
            Line2D(
                [x / _WIDTH],
                [1 - y / self.height],
                linestyle="none",
                marker="o" if is_model else "D",
                markersize=size if is_model else 0.82 * size,
                markerfacecolor=color if is_model else self.theme.page,
                markeredgecolor=color,
                markeredgewidth=1.4,
            )
        )


def _prepare(axes: Axes, drawn: Plan, body: float, theme: _Theme) -> None:
    low, high = _range(drawn)
    step = 5 if high - low <= 30 else 10 if high - low <= 70 else 20
    axes.set_xlim(low, high)
    axes.set_ylim(body, 0)
    axes.set_facecolor("none")
    axes.set_yticks([])
    first = math.ceil(low / step) * step
    ticks = list(range(first, int(high) + 1, step))
    axes.set_xticks(ticks, [f"{tick} %" for tick in ticks])
    axes.tick_params(length=0, labelsize=8, colors=theme.faint, pad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _range(drawn: Plan) -> tuple[float, float]:
    """Where the axis begins and ends: full tens, or fives, around all marks."""
    ends = [
        point.value + sign * (point.stderr or 0)
        for point in drawn.points()
        for sign in (-1, 1)
    ]
    if not ends:
        return 0, 100
    low = max(0, 5 * math.floor((min(ends) - 1.5) / 5))
    high = min(100, 5 * math.ceil((max(ends) + 1.5) / 5))
    if high - low < 20:  # a point's difference is not to fill the width
        low = max(0, min(low - 5, 100 - 20))
        high = min(100, max(high + 5, low + 20))
    return low, high


def _grid(axes: Axes, top: float, bottom: float, theme: _Theme) -> None:
    axes.vlines(
        axes.get_xticks(),
        top,
        bottom,
        colors=theme.grid,
        linewidth=0.7,
        zorder=1,
        clip_on=False,
    )


def _legend(page: _Page, comparison: Comparison) -> None:
    names = [(comparison.model, True)]
    if comparison.base is not None:
        names.append((comparison.base, False))
    x = _MARGIN + 0.07
    room = (_WIDTH - 2 * _MARGIN) / len(names) - 0.35
    for name, is_model in names:
        page.mark(x, 0.66, is_model=is_model, size=7)
        x += 0.14
        x += page.text(x, 0.66, name, size=9, room=room) + 0.3


def _heads(page: _Page, y: float, columns: int, right: float) -> None:
    middle = right + _COLUMN * 0.7
    page.mark(middle, y, is_model=True, size=6)
    if columns > 1:
        page.mark(middle + _COLUMN, y, is_model=False, size=6)
        page.text(
            right + 3 * _COLUMN,
            y,
            "diff.",
            size=8,
            color=page.theme.faint,
            align="right",
            room=_COLUMN,
        )


def _draw_line(
    page: _Page, axes: Axes, line: Line, y: float, columns: int, right: float
) -> None:
    theme, middle = page.theme, y + _ROW / 2
    if line.strong:
        from matplotlib.patches import Rectangle

        page.canvas.add_artist(
            Rectangle(
                ((_MARGIN - 0.08) / _WIDTH, 1 - (_TOP + y + _ROW) / page.height),
                (_WIDTH - 2 * _MARGIN + 0.16) / _WIDTH,
                _ROW / page.height,
                facecolor=theme.band,
                edgecolor="none",
                zorder=-1,
            )
        )
    weight = "bold" if line.strong else "normal"
    detail = page.text(
        _MARGIN + _LABELS - 0.15,
        _TOP + middle,
        line.detail,
        size=7.5,
        color=theme.faint,
        align="right",
        room=0.8,
    )
    page.text(
        _MARGIN,
        _TOP + middle,
        line.label,
        size=9,
        weight=weight,
        room=_LABELS - 0.3 - detail,
    )
    offset = 0.0 if columns == 1 else _OFFSET
    # The base first: where both meet, the model's mark is the one to see.
    for point, is_model in ((line.base, False), (line.model, True)):
        if point is not None:
            place = middle - offset if is_model else middle + offset
            _draw_point(axes, point, place, theme, is_model=is_model, strong=line.strong)
    for place, cell in enumerate(line.cells[:columns]):
        page.text(
            right + _COLUMN * (place + 1),
            _TOP + middle,
            cell,
            size=9,
            weight=weight,
            align="right",
            room=_COLUMN,
        )


def _draw_point(
    axes: Axes,
    point: Point,
    y: float,
    theme: _Theme,
    *,
    is_model: bool,
    strong: bool,
) -> None:
    color = theme.model if is_model else theme.base
    if point.stderr is not None:
        low, high = point.value - point.stderr, point.value + point.stderr
        axes.plot(
            [max(0, low), min(100, high)],
            [y, y],
            color=color,
            linewidth=1.3,
            solid_capstyle="butt",
            zorder=3,
            clip_on=False,
        )
    size = 6.4 if strong else 5.2
    axes.plot(
        [point.value],
        [y],
        linestyle="none",
        marker="o" if is_model else "D",
        markersize=size if is_model else 0.82 * size,
        markerfacecolor=color if is_model else theme.band if strong else theme.page,
        markeredgecolor=color,
        markeredgewidth=1.3,
        zorder=5 if is_model else 4,
        clip_on=False,
    )


def _shortened(notes: Sequence[str]) -> list[str]:
    if len(notes) <= _FOOTNOTES:
        return list(notes)
    return [*notes[: _FOOTNOTES - 1], f"And {len(notes) - _FOOTNOTES + 1} notes more."]


def _printed(text: str) -> str:
    """Text of characters that the font has: others would only warn, and leave a box."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties(family=_FONT))).get_charmap()
    return "".join(char if ord(char) in known else "�" for char in text)


def _cut(text: str, kept: int) -> str:
    """So many characters of a text: its begin and its end, as names differ in either."""
    if kept == len(text):
        return text
    begin = (kept + 1) // 2
    return f"{text[:begin].rstrip()}…{text[len(text) - kept + begin :].lstrip()}"


def _png(canvas: Canvas) -> bytes:
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _svg(canvas: Canvas, title: str, words: str) -> bytes:
    stream = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    canvas.savefig(stream, format="svg", metadata=nothing)
    head, tag, rest = stream.getvalue().decode().partition("<svg ")
    attributes, end, inside = rest.partition(">")
    return (
        f'{head}{tag}role="img" aria-labelledby="{STEM}-title {STEM}-words" '
        f"{attributes}{end}\n"
        f' <title id="{STEM}-title">{html.escape(title)}</title>\n'
        f' <desc id="{STEM}-words">{html.escape(words)}</desc>{inside}'
    ).encode()
