"""CSV as rows of cells, and whose rows to take.

What spreadsheets write is read: a byte order mark, either line ending, empty lines. What
they get wrong is refused with the line: a row with a cell too many, a quote left open.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from releasekit.errors import FormatError, UsageError
from releasekit.names import listed, shown

_NUMBER: Final = re.compile(r"-?\d{1,20}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_MAX_NBYTES: Final = 64 << 20  # the whole of the largest leaderboard took 2 MiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        where: the file and the line; begins messages.
        line: the line, from 1.
        cells: the cells by the columns' titles, without the spaces around them.
    """

    where: str
    line: int
    cells: Mapping[str, str]

    def number(self, title: str) -> float:
        """A cell as a number.

        Raises:
            FormatError: it is none; a comma for the point counts as none.
        """
        text = self.cells[title]
        if not _NUMBER.fullmatch(text):
            raise self.fault(title, "a number such as 68.2")
        return float(text)

    def fault(self, title: str, expected: str) -> FormatError:
        """The error that a cell is not what is `expected`."""
        found = shown(self.cells[title])
        return FormatError(f"{self.where}: {title}: expected {expected}, found {found}")


def read(document: bytes, subject: str) -> tuple[tuple[str, ...], list[Row]]:
    """The columns' titles, and the rows.

    Raises:
        FormatError: with the line that is wrong.
    """
    if len(document) > _MAX_NBYTES:
        raise FormatError(
            f"{subject}: expected at most {_MAX_NBYTES} bytes, found {len(document)}"
        )
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{subject}: not UTF-8 at byte {error.start}") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = tuple(title.strip() for title in next(reader, ()))
        if len(set(header)) < len(header):
            raise FormatError(f"{subject}: line 1: a column stands twice")
        for cells in reader:
            where = f"{subject}: line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise FormatError(
                    f"{where}: expected {len(header)} cells, found {len(cells)}"
                )
            stripped = (cell.strip() for cell in cells)
            named = dict(zip(header, stripped, strict=True))
            rows.append(Row(where=where, line=reader.line_num, cells=named))
    except csv.Error as error:
        raise FormatError(f"{subject}: line {reader.line_num}: {error}") from None
    return header, rows


def of_model(names: Sequence[str | None], model: str | None, subject: str) -> list[int]:
    """Which rows are of one model; one without a name is of any.

    Args:
        names: whose each row is.
        model: whose rows to take; None if all are of one model.
        subject: the file; begins the message.

    Raises:
        UsageError: there is no row of the model; or there are several models, and none is
            named.
    """
    found = sorted({name for name in names if name is not None})
    if model is None and len(found) > 1:
        raise UsageError(
            f"{subject}: expected one model, found {listed(found)}; name the one to take"
        )
    taken = [
        place
        for place, name in enumerate(names)
        if name is None or model is None or name == model
    ]
    if not taken:
        wanted = "a row" if model is None else f"a row of model {shown(model)}"
        raise UsageError(f"{subject}: expected {wanted}, found {listed(found) or 'none'}")
    return taken
