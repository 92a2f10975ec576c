"""Which reader a file of evaluations is for: told by its name's ending, never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.evals import harness, tables
from releasekit.evals.scores import Results
from releasekit.names import shown

#: Bytes that a file may have; the harness' largest, of all its tasks, has a few million.
MAX_NBYTES: Final = 256 << 20
_ENDINGS: Final = ("json", "toml", "csv")


def check(name: str, nbytes: int) -> None:
    """Refuses a file that is not worth reading.

    Raises:
        UsageError: its name ends in none of .json, .toml and .csv, or it is too large.
    """
    if _ending(name) not in _ENDINGS:
        raise UsageError(
            f"{shown(name)}: expected a name that ends in .json (lm-evaluation-harness), "
            ".toml or .csv (a table)"
        )
    if nbytes > MAX_NBYTES:
        raise UsageError(
            f"{shown(name)}: expected at most {MAX_NBYTES} bytes, found {nbytes}"
        )


def distinct(paths: Sequence[PurePath]) -> list[str]:
    """A name for each file, with as much of its path as tells it from the others.

    Harnesses call all of their files the same, in a folder each: `arc/results.json` and
    `mmlu/results.json` become `arc-results.json` and `mmlu-results.json`.
    """

    def name(path: PurePath, parts: int) -> str:
        return "-".join(part for part in path.parts[-parts:] if part not in ("/", ".."))

    names = []
    for path in paths:
        parts = 1
        others = [other for other in paths if other != path]
        while parts < len(path.parts) and any(
            name(path, parts) == name(other, parts) for other in others
        ):
            parts += 1
        names.append(name(path, parts))
    return names


def read(document: bytes, name: str, *, model: str | None = None) -> Results:
    """Read a file of evaluations.

    Args:
        document: the file.
        name: its name, without its folder; begins every message.
        model: whose rows to take from a table of several models.

    Raises:
        FormatError: it is not what its name says.
        UsageError: `check` refuses it, or it is a table that lacks the model.
    """
    check(name, len(document))
    digest = sha256_hex(document)
    ending = _ending(name)
    if ending == "json":
        return harness.parse(document, name, digest)
    if ending == "toml":
        return tables.parse_toml(document, name, digest, model=model)
    return tables.parse_csv(document, name, digest, model=model)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()
