"""Which parts of some work are done: a small file each, beside the output in the making.

A record is written once its part's result is on disk under its final name, by whoever did
it, and takes its place by one rename, or as one object; so it is there whole or not at all,
and two that did the same part may both write it. It goes with the partial folder once all
is complete.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.digest import sha256_hex
from releasekit.errors import FormatError
from releasekit.received import read_small
from releasekit.storage.address import is_stored
from releasekit.storage.store import Store
from releasekit.strictjson import Record
from releasekit.writing import open_new, sync, write

FOLDER: Final = "parts"
_AT_ONCE: Final = 8  # objects that are read at the same time
_MAX_NBYTES: Final = 1 << 26  # 100,000 tensors' digests need an eighth


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A part that is done.

    Attributes:
        name: the part's.
        nbytes: bytes of its result.
        seconds: time that it took.
        worker: who did it: host and process.
        facts: what it found out, as JSON values.
    """

    name: str
    nbytes: int
    seconds: float
    worker: str
    facts: Mapping[str, object] = field(default_factory=dict)


class Records:
    """The records of some work."""

    def __init__(self, partial: Path) -> None:
        """Those in the folder in which the output is made, wherever that is."""
        self._folder = partial / FOLDER
        self._store = Store(self._folder) if is_stored(partial) else None

    def note(self, done: Done) -> None:
        """Note that a part is done."""
        name = _name(done.name)
        if self._store is not None:
            self._store.write(name, json.dumps(asdict(done)).encode())
            return
        self._folder.mkdir(exist_ok=True)
        path = self._folder / name
        # Nobody else's, on whatever machine.
        new = path.with_suffix(f".{socket.gethostname()}-{os.getpid()}")
        new.unlink(missing_ok=True)
        with open_new(new) as file:
            write(file, json.dumps(asdict(done)).encode())
            sync(file)
        os.replace(new, path)

    def read(self) -> dict[str, Done]:
        """The parts that are done, by name; what cannot be read is not done."""
        found = {}
        for where, document in self._documents():
            try:
                done = _parse(document, where)
            except FormatError:
                continue
            found[done.name] = done
        return found

    def _documents(self) -> Iterator[tuple[str, bytes]]:
        """Each record as it is written, and where it is."""
        if self._store is not None:
            names = [n for n, o in self._store.files().items() if o.nbytes <= _MAX_NBYTES]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                yield from zip(names, pool.map(self._store.read_all, names), strict=True)
            return
        if self._folder.is_symlink() or not self._folder.is_dir():
            return
        for path in sorted(self._folder.glob("*.json")):
            if path.is_symlink() or not path.is_file():
                continue
            with suppress(FormatError):
                yield str(path), read_small(path, _MAX_NBYTES)

    def forget(self, name: str) -> None:
        """Take a part for one that is to be done again."""
        if self._store is not None:
            self._store.remove([_name(name)])
        else:
            (self._folder / _name(name)).unlink(missing_ok=True)


def _name(part: str) -> str:
    """A file name for a part, whose own may be no safe one."""
    return f"{sha256_hex(part.encode())}.json"


def _parse(document: bytes, where: str) -> Done:
    value = strictjson.loads(document, where)
    record = Record(value, where)
    facts = value.get("facts") if isinstance(value, dict) else None
    return Done(
        name=record.text("name"),
        nbytes=record.integer("nbytes"),
        seconds=record.number("seconds"),
        worker=record.text("worker"),
        facts=facts if isinstance(facts, dict) else {},
    )
