"""What a rehearsal came to: a table for people, Markdown, and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from scripts.rehearsal.forecasting import (
    Forecast,
    disk_needed,
    duration,
    forecast,
    gb,
    mb,
    transfers,
    true_sizes,
)
from scripts.rehearsal.planning import Planned
from scripts.rehearsal.planning import shown as plan_lines
from scripts.rehearsal.rehearsing import Rehearsed
from scripts.rehearsal.shapes import TRUE

#: The columns of numbers are those after the second.
_TEXTS: Final = 2
_TOO_SMALL: Final = (
    " So small a rehearsal takes its time to start programs, so these times are far too "
    "long: rehearse at 1gb for better ones."
)


class Report:
    """A rehearsal, the smaller one before it, and what they say of the true size."""

    def __init__(
        self, found: Rehearsed, smaller: Rehearsed | None, planned: Planned | None
    ) -> None:
        self._found, self._smaller, self._planned = found, smaller, planned
        subject = found.subject
        base, tune = subject.nbytes(TRUE)
        self._true, self._release = true_sizes(
            found.sizes, base, tune, is_delta=subject.is_delta
        )
        before = smaller.steps if smaller is not None else []
        self._forecasts = forecast(found.steps, before, self._true)
        self._needed = disk_needed(self._true, is_delta=subject.is_delta)
        self._here = disk_needed(found.sizes, is_delta=subject.is_delta)

    @property
    def markdown(self) -> str:
        """The whole report; its tables can be read as they are."""
        found, subject = self._found, self._found.subject
        total = sum(f.seconds for f in self._forecasts)
        bound = "≤ " * any(f.is_bound for f in self._forecasts)
        parts = [
            f"# {subject.title}, rehearsed at {found.scale}",
            self._summary(),
            "## Steps",
            _table(
                ("who", "step", "MB", "seconds", "MB/s", "peak MiB", "at true size"),
                map(_row, self._forecasts),
            ),
            "The release said:",
            _list(f"{name}: {said}" for name, said in found.said.items()),
            "## Disk",
            _table(
                ("who", "made of", "MB", "peak MB", "at true size"),
                [
                    (who, told, _mb(n), _mb(found.disk[who]), gb(self._needed[who][0]))
                    for who, (n, _) in self._here.items()
                    for told in [" + ".join(_parts(self._here[who][1]))]
                ],
            ),
            f"All at once: {mb(found.disk_peak)}.",
            "## The true size, by arithmetic",
            "Not measured: it supposes this machine, a disk as fast, and the Hub on "
            f"loopback.{'' if self._smaller else _TOO_SMALL}",
            _list([self._release, *(f.arithmetic for f in self._forecasts)]),
            f"All steps: {bound}{duration(total)}.",
            "Beside that, what crosses a network of 1 Gbit/s:",
            _list(transfers(self._true, is_delta=subject.is_delta)),
            "Disk:",
            _list(line for _, line in self._needed.values()),
        ]
        if self._planned is not None:
            parts += ["## The plan at the true size", _list(self._plan())]
        return "\n\n".join(parts) + "\n"

    @property
    def document(self) -> dict[str, Any]:
        """The report for programs."""
        found = self._found
        return {
            "format": "releasekit-rehearsal/1",
            "release": found.subject.name,
            "scale": found.scale,
            "machine": _machine(),
            "sizes": found.sizes,
            "compared_nbytes": found.compared_nbytes,
            "steps": [
                asdict(f.step) | {"at_true_size_seconds": f.seconds}
                for f in self._forecasts
            ],
            "smaller_steps": [asdict(s) for s in self._smaller.steps]
            if self._smaller is not None
            else [],
            "disk_peak": found.disk | {"all": found.disk_peak},
            "true": {
                "sizes": self._true,
                "seconds": sum(f.seconds for f in self._forecasts),
                "disk": {who: nbytes for who, (nbytes, _) in self._needed.items()},
                "arithmetic": [self._release, *(f.arithmetic for f in self._forecasts)],
            },
            "plan": asdict(self._planned) if self._planned is not None else None,
        }

    def _plan(self) -> list[str]:
        assert self._planned is not None
        is_delta = self._found.subject.is_delta
        return plan_lines(self._planned, self._true["release"], is_delta=is_delta)

    def _summary(self) -> str:
        sizes = self._found.sizes
        small = f", and at {self._smaller.scale} before" if self._smaller else ""
        return (
            f"Base {mb(sizes['base'])}, fine-tune {mb(sizes['fine-tune'])}, release "
            f"{mb(sizes['release'])}{small}; {_machine()}. The user has the fine-tune: "
            f"{self._found.compared_nbytes:,} bytes compared, none differs."
        )


def _row(found: Forecast) -> tuple[str, ...]:
    step = found.step
    return (
        step.actor,
        step.name,
        _mb(step.nbytes) if step.works_on else "",
        f"{step.seconds:.2f}",
        f"{step.rate / 1e6:.1f}" if step.rate else "",
        f"{step.peak_nbytes / 2**20:.0f}",
        f"{'≤ ' * found.is_bound}{duration(found.seconds)}",
    )


def _mb(nbytes: int) -> str:
    return f"{nbytes / 1e6:.2f}"


def _parts(line: str) -> list[str]:
    """The names in a line of a sum."""
    terms = line.partition(": ")[2].partition(" = ")[0].split(" + ")
    return [" ".join(term.split()[:-2]) for term in terms]


def _machine() -> str:
    return f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown whose columns are flush, for terminals."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rule = [
        "-" * w if i < _TEXTS else "-" * max(1, w - 1) + ":" for i, w in enumerate(widths)
    ]
    return "\n".join(_line(row, widths) for row in (cells[0], rule, *cells[1:]))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(row, widths, strict=True)
    return f"| {' | '.join(_fit(c, w, i) for i, (c, w) in enumerate(pairs))} |"


def _fit(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < _TEXTS else cell.rjust(width)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
