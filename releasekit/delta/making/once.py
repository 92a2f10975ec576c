"""SHA-256 of files, each taken once, however many works want to know it.

Works that come at the same time share the files out: each begins with one that no other is
at. A work that is stopped leaves its file to the others. What was read of the files stands
for as long as they do not change: those that have, since `FileDigests` first saw them, are
refused, since some of the works may have read what is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Condition

from releasekit.errors import IntegrityError
from releasekit.hashing import hash_one
from releasekit.pipeline import Workers
from releasekit.progress import Stage

#: By what a file is known, as `make` and git know it: size, time of change, inode.
_State = tuple[int, int, int]


class FileDigests:
    """Digests of files that several works read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """See how the files are now."""
        self._states = {path: _state(path) for path in paths}
        self._found: dict[Path, str | None] = {}  # None while somebody is at it
        self._changed = Condition()

    def hash_files(
        self, folder: Path, names: Iterable[str], workers: Workers, stage: Stage
    ) -> Iterator[tuple[str, str]]:
        """Yield each name with the SHA-256 of its file below `folder`, in order.

        Raises:
            IntegrityError: if a file has changed.
        """
        names = list(names)
        mine: set[str] = set()

        def work(name: str, _: object) -> None:
            if self._claim(folder / name):
                mine.add(name)
                self._hash(folder / name, workers, stage)

        for _ in workers.in_order(work, names):
            pass
        for name in names:
            path = folder / name
            digest = self._others(path)
            while digest is None:  # whoever was at it has stopped
                work(name, None)
                digest = self._others(path)
            if path in self._states and _state(path) != self._states[path]:
                raise IntegrityError(
                    f"{path}: was changed while releases were made on it: run again once "
                    "nothing changes it"
                )
            if name not in mine:
                stage.advance(path.stat().st_size)
            yield name, digest

    def _others(self, path: Path) -> str | None:
        """The digest that somebody takes, or has taken; None if nobody does."""
        with self._changed:
            while path in self._found and self._found[path] is None:
                self._changed.wait()
            return self._found.get(path)

    def _claim(self, path: Path) -> bool:
        """Whether the caller is to hash a file: nobody has, or is at it."""
        with self._changed:
            if path in self._found:
                return False
            self._found[path] = None
            return True

    def _hash(self, path: Path, workers: Workers, stage: Stage) -> None:
        digest = None
        try:
            digest = hash_one(path, workers.check, stage.advance)
        finally:
            with self._changed:
                if digest is None:
                    del self._found[path]
                else:
                    self._found[path] = digest
                self._changed.notify_all()


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
