"""An input in object storage, as readers of checkpoints and releases want it.

What is small is copied to a folder of the user's cache, whose name tells the state of all
that is in the store: once another takes an object's place, it is another folder. Weights in
safetensors stay where they are, and are read by range. So the folder is to readers what a
snapshot of the Hub is whose weights are on their way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.checkpoint.files import refuse_non_weights
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError, ReleaseKitError, UsageError
from releasekit.storage.address import split, text
from releasekit.storage.blocks import Blocks, StoredFile
from releasekit.storage.store import Store, Stored

_SNIFF: Final = 256
#: Chooses, of all names in a folder, those that are wanted.
Wanted = Callable[[list[str]], list[str]]
#: Whether a file stays in the store.
Late = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A folder of the cache, and what of it stayed in the store.

    Attributes:
        folder: where the small files are.
        store: where the others are.
        late: those, by name.
    """

    folder: Path
    store: Store
    late: dict[str, Stored]


def stage(place: str | Path, wanted: Wanted, late: Late) -> Staged:
    """Copy the small files of a folder in a store to the cache.

    Args:
        place: the folder; or a single weight file in safetensors.
        wanted: chooses the files; those that it leaves out are not there at all.
        late: whether one stays in the store.

    Raises:
        UsageError: if there is nothing there.
        FormatError: if a name is not safe to write to a disk.
        OSError: if it cannot be had.
    """
    store, files = _look(place)
    names = wanted(list(files))
    state = json.dumps([store.url, *((name, files[name].state) for name in sorted(names))])
    digest = sha256_hex(state.encode())[:32]
    folder = _cache() / digest / (split(place)[1].rpartition("/")[2])
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: files[name] for name in names if late(name)}
    for name in names:
        if name not in kept:
            _copy(store, name, files[name], folder)
    return Staged(folder=folder, store=store, late=kept)


@contextmanager
def staged(
    place: str | Path, wanted: Wanted, late: Late
) -> Iterator[tuple[Path, StoredFiles]]:
    """The same, with what stayed in the store open for reading; raises as `stage`.

    What is raised meanwhile names the place, rather than the folder of the cache.
    """
    found = stage(place, wanted, late)
    with Blocks(found.store) as blocks:
        try:
            yield found.folder, StoredFiles(found, blocks)
        except ReleaseKitError as error:
            error.args = (str(error).replace(str(found.folder), found.store.url),)
            raise


class StoredFiles:
    """Files of a folder that stay in object storage: a `releasekit.checkpoint.Incoming`.

    None is on its way, so nothing is to be brought or waited for.
    """

    def __init__(self, found: Staged, blocks: Blocks) -> None:
        self._found = found
        self.names = frozenset(found.late)
        self._files = {
            name: StoredFile(
                path=found.folder / name, size=one.nbytes, name=name, blocks=blocks
            )
            for name, one in found.late.items()
        }

    @property
    def place(self) -> Path:
        """The folder of the cache."""
        return self._found.folder

    @property
    def nbytes(self) -> int:
        """Bytes that come to this machine's disk: none."""
        return 0

    def nbytes_of(self, names: Iterable[str]) -> int:
        """Likewise."""
        return 0

    def lacking(self, names: Iterable[str]) -> list[int]:
        """Likewise."""
        return []

    def open(self, path: Path) -> StoredFile | None:
        """A file by its place in the folder; None if it is not one of these.

        Raises:
            FormatError: if it is recognised as something else than weights.
        """
        if not path.is_relative_to(self.place):
            return None
        file = self._files.get(path.relative_to(self.place).as_posix())
        if file is not None:
            refuse_non_weights(file.read(0, min(_SNIFF, file.size)), path)
        return file

    def expect(self, name: str, nbytes: int, sha256: str) -> None:
        """Hold a file's size against what its publisher says; its digest, use does."""
        found = self._files[name].size
        if found != nbytes:
            raise IntegrityError(
                f"{self._found.store.url}/{name}: expected {nbytes} bytes, found {found}: "
                "the upload is incomplete; upload the file again"
            )

    def bring(self, names: Iterable[str]) -> None:
        """Copy files to the folder."""
        for name in names:
            _copy(self._found.store, name, self._found.late[name], self.place)

    def start(self, names: Iterable[str], stage: object, check: object) -> None:
        """Nothing is on its way."""

    def check(self) -> None:
        """Nothing is on its way."""

    def finish(self) -> None:
        """Nothing is on its way."""


def _look(place: str | Path) -> tuple[Store, dict[str, Stored]]:
    """A folder and its files, or that of a single file, and this one."""
    store = Store(place)
    files = store.files()
    if files:
        return store, files
    single = store.info()
    parent, _, name = text(place).rpartition("/")
    if single is None or not name:
        raise UsageError(f"{text(place)}: there is nothing there")
    return Store(parent), {name: single}


def _copy(store: Store, name: str, wanted: Stored, folder: Path) -> None:
    """Copy an object, unless it is there; the file takes its place at once."""
    path = folder / name
    if path.is_file() and path.stat().st_size == wanted.nbytes:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Outside the folder, all of which is taken for what the store has.
    new = folder.with_name(f"{sha256_hex(name.encode())[:16]}.{os.getpid()}.part")
    store.download(name, new)
    if new.stat().st_size != wanted.nbytes:
        new.unlink()
        raise IntegrityError(
            f"{store.url}/{name}: expected {wanted.nbytes} bytes: it was replaced while it "
            "was read; try again"
        )
    os.replace(new, path)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    folder = Path(home) if home else Path("~/.cache").expanduser()
    return folder / "releasekit" / "storage"
