"""How results look on a terminal: sizes, shares and tables as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from releasekit import sizes
from releasekit.cli.shell import printable


def size(nbytes: int) -> str:
    """`1.31 GB`: bytes in powers of 1000, as disks and the Hub count them."""
    return sizes.shown(nbytes)


def share(part: float | None) -> str:
    """`7.3 %`, or a dash."""
    return "–" if part is None else f"{100 * part:.3g} %"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: str
) -> Iterator[str]:
    """Columns aligned under their header.

    Args:
        header: titles, one a column.
        rows: cells, one a column.
        right: one letter a column: "r" aligns it right, "l" left.
    """
    lines = [tuple(map(printable, line)) for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, right, strict=True)
        )
        yield "  ".join(cells).rstrip()


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
