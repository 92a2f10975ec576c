"""What was done of a release, so that the next run need not do it again.

A step is known by a key: a digest of all that its outcome follows from: settings, the
version of releasekit, input files, and outcomes of steps before it. It is done if it was
done with this key, and its outcome is still there. Large files are known by size, inode and
time of change, as `make` and git know them, since hashing them would take as long as the
step; small ones by their content.

The record lies beside the release, in `OUT.steps.json`: it is the maintainer's, and no part
of what is published. It may be removed: then all is done again. It names the file that the
release was made from, so that no other file's takes its place unasked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from releasekit import strictjson
from releasekit.digest import hash_file, sha256_hex
from releasekit.errors import FormatError
from releasekit.received import files_in, read_small
from releasekit.strictjson import Record as Fields
from releasekit.writing import replace

_FORMAT: Final = "releasekit-steps/1"
_MAX_NBYTES: Final = 1 << 20
#: Bytes up to which a file is known by its content.
_SMALL: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A step that was done.

    Attributes:
        key: of what it followed from.
        outcome: digest of what it made.
        said: a line about it, for people.
    """

    key: str
    outcome: str
    said: str


@dataclass(kw_only=True)
class StepRecord:
    """The steps that were done of one release.

    Attributes:
        path: the record's file.
        maker: the `release.toml`, as it is called from where the record lies; and the
            release's name, if the file is of several.
        other: another file that the record is of, whose steps do not count; None if it is
            of this one, or there is none.
        edited: whether somebody has edited the release's card.
        steps: by name.
    """

    path: Path
    maker: str
    other: str | None = None
    edited: bool = False
    steps: dict[str, Done] = field(default_factory=dict)

    @classmethod
    def beside(cls, out: Path, file: Path, name: str | None = None) -> Self:
        """Read the record of the release that `file` makes in `out`.

        Args:
            out: the release.
            file: its `release.toml`.
            name: its name, if the file is of several.
        """
        path = out.with_name(f"{out.name}.steps.json")
        maker = os.path.relpath(file, out.parent)
        record = cls(path=path, maker=maker if name is None else f"{maker} ({name})")
        if path.is_file():
            try:
                maker, edited, steps = _parse(read_small(path, _MAX_NBYTES), str(path))
            except FormatError:
                return record  # of another version, or damaged: as if there were none
            if maker == record.maker:
                record.edited, record.steps = edited, steps
            else:
                record.other = maker
        return record

    def is_done(self, step: str, key: str, made: Callable[[], str | None]) -> bool:
        """Whether a step was done with this key, and its outcome is what it was.

        Args:
            step: its name.
            key: of what it follows from now.
            made: tells the digest of what is there now, and None if nothing is; asked
                only if that decides.
        """
        done = self.steps.get(step)
        return done is not None and done.key == key and done.outcome == made()

    def note(self, step: str, done: Done) -> None:
        """Note that a step is done."""
        self.steps[step] = done
        self._write()

    def forget(self, step: str) -> None:
        """Note that a step is about to be done: until then, nobody knows how far it is."""
        if self.steps.pop(step, None) is not None:
            self._write()

    def _write(self) -> None:
        document = {
            "format": _FORMAT,
            "file": self.maker,
            "edited": self.edited,
            "steps": [
                {"step": name, "key": one.key, "outcome": one.outcome, "said": one.said}
                for name, one in self.steps.items()
            ],
        }
        replace(self.path, strictjson.dumps(document), 0o644)


def key_of(*parts: object) -> str:
    """A digest of values that JSON has."""
    return sha256_hex(strictjson.dumps(list(parts)))


def known(named: Iterable[tuple[str, Path]]) -> list[list[object]]:
    """By what files are known; one that is not there is known as that.

    Args:
        named: files, and folders, of which all files count. Each has a name that is the
            same wherever all of them are moved, and from wherever they are looked at.
    """
    found: list[list[object]] = []
    for label, path in named:
        if path.is_dir():
            files = sorted(files_in(path))
            found += [[label, name, *_known(path / name)] for name in files]
        else:
            found.append([label, "", *_known(path)])
    return found


def _known(path: Path) -> list[object]:
    if not path.is_file():
        return []
    status = path.stat()
    if status.st_size <= _SMALL:
        return [hash_file(path)]
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _parse(document: bytes, subject: str) -> tuple[str, bool, dict[str, Done]]:
    """The file that a record is of, whether the card was edited, and the steps."""
    root = Fields(strictjson.loads(document, subject), subject)
    root.choice("format", (_FORMAT,))
    maker, edited = root.text("file"), root.boolean("edited")
    steps = {}
    for record in root.records("steps"):
        steps[record.text("step")] = Done(
            key=record.hex_digest("key"),
            outcome=record.text("outcome"),
            said=record.text("said"),
        )
        record.close()
    root.close()
    return maker, edited, steps
