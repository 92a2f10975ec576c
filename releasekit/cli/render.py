"""How results look on a terminal: sizes, shares and tables as plain text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from releasekit import sizes
from releasekit.cli.shell import printable

#: Columns between two of a table.
_GAP: Final = 2
#: Characters that are left of a name, however narrow the terminal is.
_LEAST: Final = 24


def size(nbytes: int) -> str:
    """`1.31 GB`: bytes in powers of 1000, as disks and the Hub count them."""
    return sizes.shown(nbytes)


def share(part: float | None) -> str:
    """`7.3 %`, or a dash."""
    return "–" if part is None else f"{100 * part:.3g} %"


def count(number: int) -> str:
    """`65.3 B`: thousands, millions, billions, as people count parameters."""
    value = float(number)
    for unit in ("", " K", " M", " B", " T"):
        if value < 999.5 or unit == " T":
            break
        value /= 1000
    return f"{value:.3g}{unit}" if value < 1000 else f"{value:,.0f}{unit}"


def columns() -> int | None:
    """Width of the terminal; None if what is printed goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def shortened(text: str, width: int) -> str:
    """Text with its middle left out, and a sign there, if it is wider than that."""
    if len(text) <= width:
        return text
    left = (width - 1) // 2
    return f"{text[:left]}…{text[len(text) - (width - 1 - left) :]}"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: str,
    *,
    within: int | None = None,
) -> Iterator[str]:
    """Columns aligned under their header.

    Args:
        header: titles, one a column.
        rows: cells, one a column.
        right: one letter a column: "r" aligns it right, "l" left.
        within: how wide lines may be: the middle of what is in the first column gives
            way, as long as enough of it is left. None for any width.
    """
    lines = [tuple(map(printable, line)) for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    if within is not None:
        others = sum(widths[1:]) + _GAP * (len(widths) - 1)
        widths[0] = min(widths[0], max(within - others, _LEAST))
    for first, *rest in lines:
        cells = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(
                (shortened(first, widths[0]), *rest), widths, right, strict=True
            )
        )
        yield (" " * _GAP).join(cells).rstrip()


def facts(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Labels and values, one pair a line."""
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        yield f"{label.ljust(width)}  {printable(value)}"


def operations(counts: dict[str, int]) -> str:
    """`89 delta, 14 same`: operations by number, in the order of the format."""
    labels = {
        "same": "same",
        "delta": "delta",
        "resize": "delta + new rows",
        "new": "new",
        "alias": "alias",
        "dropped": "dropped",
    }
    return ", ".join(f"{counts[op]} {label}" for op, label in labels.items())
