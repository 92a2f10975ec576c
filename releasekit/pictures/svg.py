"""Charts as SVG inside a page: no colour of their own, no font, no size of the screen.

Each chart is two pictures side by side, its labels and its plot, so that labels stay where
they are while a long plot is scrolled on a small screen. Colours are classes (`k0` … for
the palette, `h0` … for the scale), which the page's style sheet fills for light and dark.
Cells of one colour are one path: a grid of thousands stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from releasekit.pictures.plan import LEVELS, Columns, Heat, every, shortened
from releasekit.statistics.wording import size

# Pixels, before the page scales them.
_ROOM: Final = 820.0
_NARROW: Final = 7.0
_BROAD: Final = 72.0
_ROW: Final = 21
_HIGH: Final = 190
_TOP: Final = 8
_FOOT: Final = 24
_CHAR: Final = 6.3
_LABEL_CHARS: Final = 28
_TEXT_FROM: Final = 58.0  # width of cells that have room for their value


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A chart.

    Attributes:
        labels: the picture of its labels.
        plot: the picture of its values.
    """

    labels: str
    plot: str


def columns(chart: Columns) -> Drawn:
    """Draw columns."""
    step = _step(len(chart.labels))
    width = step * len(chart.labels)
    ticks = chart.ticks
    scale = _HIGH / ticks[-1]
    height = _TOP + _HIGH + _FOOT
    axis, plot = [], []
    for tick in ticks:
        y = _TOP + _HIGH - tick * scale
        text = size(round(tick))
        axis.append(f'<text class="t e" x="62" y="{_n(y + 4)}">{text}</text>')
        plot.append(f'<path class="g" d="M0 {_n(y)}H{_n(width)}"/>')
    bottom = [0.0] * len(chart.labels)
    gap = min(step * 0.16, 4)
    for series in chart.series:
        path = []
        for at, value in enumerate(series.values):
            if value:
                y = _TOP + _HIGH - (bottom[at] + value) * scale
                path.append(_box(at * step + gap / 2, y, step - gap, value * scale))
                bottom[at] += value
        plot.append(f'<path class="k{series.color}" d="{"".join(path)}"/>')
    plot += _feet(chart.labels, step, _TOP + _HIGH + 16)
    data = f'data-step="{_n(step)}" data-top="{_TOP}" data-row="{_HIGH}"'
    return Drawn(
        labels=_svg(68, height, axis, hidden=True),
        plot=_svg(width, height, plot, title=chart.title, data=data),
    )


def heat(chart: Heat) -> Drawn:
    """Draw a heat map."""
    step = _step(len(chart.columns))
    width = step * len(chart.columns)
    height = _ROW * len(chart.rows) + _FOOT
    names = [shortened(row, _LABEL_CHARS) for row in chart.rows]
    room = max(map(len, names), default=0) * _CHAR + 12
    labels = [
        f'<text class="t e" x="{_n(room - 8)}" y="{at * _ROW + 15}">{escape(name)}</text>'
        for at, name in enumerate(names)
    ]
    by_level: dict[str, list[str]] = {}
    texts = []
    for row, values in enumerate(chart.values):
        for column, value in enumerate(values):
            if value is None:
                continue
            level = chart.level(value)
            name = "z" if level is None else f"h{level}"
            gap = 1.0 if step > 9 else 0.5
            box = _box(column * step, row * _ROW, step - gap, _ROW - 1)
            by_level.setdefault(name, []).append(box)
            if step >= _TEXT_FROM:
                tone = "on" if level is not None and level < LEVELS * 0.6 else "of"
                if level is None:
                    tone = "t"
                x, y = (column + 0.5) * step, row * _ROW + 14.5
                texts.append(
                    f'<text class="{tone} m" x="{_n(x)}" y="{_n(y)}">'
                    f"{escape(chart.text(value))}</text>"
                )
    cells = [f'<path class="{n}" d="{"".join(d)}"/>' for n, d in sorted(by_level.items())]
    feet = _feet(chart.columns, step, _ROW * len(chart.rows) + 16)
    data = f'data-step="{_n(step)}" data-top="0" data-row="{_ROW}"'
    return Drawn(
        labels=_svg(room, height, labels, hidden=True),
        plot=_svg(width, height, [*cells, *texts, *feet], title=chart.title, data=data),
    )


def _step(count: int) -> float:
    return min(max(_ROOM / max(count, 1), _NARROW), _BROAD)


def _feet(labels: Sequence[str], step: float, y: float) -> list[str]:
    """Labels below columns, as many as there is room for."""
    shown = [shortened(label, 14) for label in labels]
    skip = every(shown, step, _CHAR)
    return [
        f'<text class="t m" x="{_n((at + 0.5) * step)}" y="{_n(y)}">{escape(label)}</text>'
        for at, label in enumerate(shown)
        if at % skip == 0
    ]


def _svg(
    width: float,
    height: float,
    parts: Sequence[str],
    *,
    title: str = "",
    data: str = "",
    hidden: bool = False,
) -> str:
    box = f'viewBox="0 0 {_n(width)} {_n(height)}"'
    # On paper a wide plot is made narrower, but no lower: its labels stand beside it.
    limit = f'style="max-width:{_n(width)}px" preserveAspectRatio="none"'
    place = f'width="{_n(width)}" height="{_n(height)}" {limit} {box}'
    what = (
        'aria-hidden="true"'
        if hidden
        else f'role="img" aria-label="{escape(title)}" {data}'
    )
    return f"<svg {place} {what}>{''.join(parts)}</svg>"


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{_n(x)} {_n(y)}h{_n(width)}v{_n(height)}h-{_n(width)}z"


def _n(value: float) -> str:
    """A number with at most two digits after the point."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
