"""The releases that a file asks for: one, or several that have most of it in common.

    [release]                     what all have in common, in any of the tables
    version = "1.0"
    base = "org/base"

    [[sweep]]                     one of them: by its path, each field that is its own
    release.name = "tune-1e-5"
    release.target = "runs/1e-5"
    evaluations.model = ["runs/1e-5/results.json"]

A field of [[sweep]] stands in the place of the one that all have in common; a list, too, as
a whole. So each is what a file of its own would say, and is judged as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit import stricttoml
from releasekit.errors import FormatError, UsageError
from releasekit.names import describe
from releasekit.received import read_small
from releasekit.releasing.file import ReleaseFile, parse_tables

_SWEEP: Final = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A release that a file asks for.

    Attributes:
        path: the file.
        file: what it says of the release.
        number: its place among those of a sweep, from 0; None if the file is of it alone.
    """

    path: Path
    file: ReleaseFile
    number: int | None = None

    @property
    def told(self) -> str:
        """What messages call it."""
        return str(self.path) if self.number is None else f"{self.path} ({self.file.name})"


def read_entries(path: str | Path) -> list[Entry]:
    """Read the releases of a `release.toml`, of which there is one at least.

    Raises:
        UsageError: if there is no such file.
        FormatError: with the path of the field that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file; `releasekit init` writes one, with what it may say"
        )
    subject = str(path)
    tables = stricttoml.loads(read_small(path, stricttoml.MAX_NBYTES), subject)
    if _SWEEP not in tables:
        return [Entry(path=path, file=parse_tables(tables, subject))]
    return [
        Entry(path=path, file=parse_tables(whole, subject, f"{_SWEEP}[{n}]"), number=n)
        for n, whole in enumerate(_each(tables, subject))
    ]


def _each(tables: dict[str, object], subject: str) -> Iterator[dict[str, object]]:
    """What each release's own file would say."""
    common = {name: table for name, table in tables.items() if name != _SWEEP}
    entries = tables[_SWEEP]
    if not isinstance(entries, list) or not entries:
        raise FormatError(
            f"{subject}: {_SWEEP}: expected an array of one object or more, found "
            f"{describe(entries)}"
        )
    for number, entry in enumerate(entries):
        place = f"{subject}: {_SWEEP}[{number}]"
        if not isinstance(entry, dict):
            raise FormatError(f"{place}: expected an object, found {describe(entry)}")
        whole = dict(common)
        for name, own in entry.items():
            if not isinstance(own, dict):
                raise FormatError(
                    f"{place}.{name}: expected an object, such as release.{name} = …, "
                    f"found {describe(own)}"
                )
            shared = whole.get(name, {})
            whole[name] = {**shared, **own} if isinstance(shared, dict) else shared
        yield whole
