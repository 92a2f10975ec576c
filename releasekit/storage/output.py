"""Outputs in object storage, which appear once they are complete.

    OUT.partial/
      state.json   names the work, so that only the same work goes on with what is here
      new/         what becomes OUT
      parts/       which parts of the work are done (`releasekit.parts.records`)
      …            results that other parts need

Files are made in a temporary folder of whoever makes them, and go to `new/` once they are
whole, so that no disk need hold more than those in the making. There is no rename in object
storage: at the end the store copies them to OUT by itself, first the weights, last what
tells loaders that there is a model or a release. A run that was stopped in the middle of
that is gone on with like any other.

There are no locks either. Two runs of the same work make the same bytes, so they may not
wait for each other, but neither harms the other; other work is refused.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from releasekit import output
from releasekit.errors import IntegrityError, ReleaseKitError, UsageError
from releasekit.names import listed
from releasekit.output import OutputFolder, Sharing, partial_of
from releasekit.storage.address import is_stored, split, text
from releasekit.storage.store import Store

_STATE: Final = "state.json"
_NEW: Final = "new"
_AT_ONCE: Final = 8
#: What readers look for first, so it comes last; this is tried in order.
_TELLS: Final = ("config.json", ".index.json", "release.json")


def output_folder(
    out: Path,
    *,
    key: str,
    force: bool = False,
    inputs: Iterable[Path] = (),
    sharing: Sharing = Sharing.ALONE,
) -> OutputFolder:
    """An output in the making, wherever it is; arguments are those of `OutputFolder`."""
    if is_stored(out):
        if sharing is not Sharing.GUEST:
            check_output(out, force=force)
        return StoredOutput(out, key=key, sharing=sharing)
    return OutputFolder(out, key=key, force=force, inputs=inputs, sharing=sharing)


def check_output(out: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that must not be written, wherever it is.

    Raises:
        UsageError: if there is something, or nothing can be written there.
    """
    if not is_stored(out):
        output.check_output(out, force=force, inputs=inputs)
        return
    where = text(out)
    scheme, path = split(out)
    if scheme == "hf":
        raise UsageError(
            f"{where}: make a folder or an object store's, and `releasekit publish` that: "
            "it checks what the Hub will show, and appears there at once"
        )
    if "/" not in path:
        raise UsageError(f"{where}: names a bucket: name a folder in it to make")
    if force:
        raise UsageError(
            f"--force: what is at {where} cannot be replaced at once: remove it, or choose "
            "another --out"
        )
    if Store(partial_of(out)).info(_STATE) is None and Store(out).files():
        raise UsageError(f"{where}: exists already; choose another --out, or remove it")


def is_begun(partial: Path) -> bool:
    """Whether there is a partial folder, wherever it is."""
    if is_stored(partial):
        return Store(partial).info(_STATE) is not None
    return partial.is_dir()


class StoredOutput(OutputFolder):
    """See `OutputFolder`: `partial` and `path` are in a temporary folder here."""

    def __init__(self, out: Path, *, key: str, sharing: Sharing) -> None:
        """Prepare to make `out`.

        Raises:
            UsageError: if its partial folder is of another work.
            ReleaseKitError: if a guest finds no such folder.
        """
        self.out = out
        self._store = Store(partial_of(out))
        self._sharing = sharing
        self._making = threading.Lock()
        self._lock = None
        self._force = False
        self.reused = self._begin(key)
        self._temporary = tempfile.TemporaryDirectory(prefix="releasekit-")
        self.partial = Path(self._temporary.name)
        self._new = self.partial / _NEW
        self._new.mkdir()

    def _begin(self, key: str) -> bool:
        state = json.dumps({"work": key}).encode()
        there = self._store.info(_STATE) is not None
        if there and self._store.read_all(_STATE) == state:
            return self._sharing in (Sharing.ALONE, Sharing.LAST)
        if self._sharing is Sharing.GUEST:
            raise ReleaseKitError(
                f"{self._store.url}: is not the folder of this work: every machine must "
                "reach the same object storage"
            )
        if there:
            raise output.other_work(partial_of(self.out))
        self._store.write(_STATE, state)
        return False

    def holds(self, name: str, nbytes: int) -> bool:
        """See `OutputFolder.holds`."""
        return self._is(f"{_NEW}/{name}", nbytes)

    def holds_kept(self, name: str, nbytes: int) -> bool:
        """See `OutputFolder.holds_kept`."""
        return self._is(name, nbytes)

    def _is(self, name: str, nbytes: int) -> bool:
        found = self._store.info(name)
        return found is not None and found.nbytes == nbytes

    def require_space(self, sizes: Iterable[int]) -> None:
        """See `OutputFolder.require_space`: here for one file at a time."""
        elsewhere = "set TMPDIR to a folder on another disk"
        largest = max(sizes, default=0)
        output.require_space(self.partial, [largest], elsewhere=elsewhere)

    def used_nbytes(self) -> int:
        """See `OutputFolder.used_nbytes`: of this disk, none."""
        return 0

    def restart(self) -> None:
        """See `OutputFolder.restart`."""
        self._store.remove(name for name in self._store.files() if name != _STATE)

    def keep_scratch(self, name: str, final: str) -> None:
        """See `OutputFolder.keep_scratch`."""
        self._hand_over(self.partial / name, final)

    def kept(self, name: str) -> Path:
        """See `OutputFolder.kept`: it is copied here."""
        path = self.partial / name
        if not path.is_file():
            self._store.download(name, path)
        return path

    def drop(self, name: str) -> None:
        """See `OutputFolder.drop`."""
        (self.partial / name).unlink(missing_ok=True)
        self._store.remove([name])

    def finish(self, name: str, final: str) -> None:
        """See `OutputFolder.finish`."""
        self._hand_over(self.path(name), f"{_NEW}/{final}")

    def write(self, name: str, data: bytes) -> None:
        """See `OutputFolder.write`: it stays here, too."""
        super().write(name, data)
        self._store.write(f"{_NEW}/{name}", data)

    def copy(
        self, source: Path, name: str, advance: Callable[[int], None] = lambda nbytes: None
    ) -> tuple[int, str]:
        """See `OutputFolder.copy`: it stays here, too."""
        size, digest = super().copy(source, name, advance)
        self._store.upload(self.path(name), f"{_NEW}/{name}")
        return size, digest

    def _hand_over(self, path: Path, name: str) -> None:
        """Make a whole file an object, and let it go."""
        self._store.upload(path, name)
        if not self._is(name, path.stat().st_size):
            raise IntegrityError(
                f"{self._store.url}/{name}: is not of the size that was written; run again"
            )
        path.unlink()

    def keep_only(self, names: Iterable[str]) -> None:
        """See `OutputFolder.keep_only`."""
        kept = set(names)
        new = self._made()
        new.remove([name for name in new.files() if name not in kept])

    def _made(self) -> Store:
        return Store(self.made_in(partial_of(self.out)))

    def commit(self) -> None:
        """See `OutputFolder.commit`."""
        new, out = self._made(), Store(self.out)
        files = new.files()
        *first, last = _in_order(files)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="storage") as pool:
            for names in (*first, last):  # each once all before it are there
                for _ in pool.map(lambda name: new.copy(name, out, name), names):
                    pass
        found = out.files()
        wrong = [n for n in files if n not in found or found[n].nbytes != files[n].nbytes]
        if wrong:
            raise IntegrityError(
                f"{out.url}: {listed(sorted(wrong))}: not copied as made; run again"
            )
        self.discard()

    def discard(self) -> None:
        """See `OutputFolder.discard`."""
        names = sorted(self._store.files(), key=lambda name: name == _STATE)
        self._store.remove(names)  # the state last: what remains of a kill is ours

    def __exit__(self, *exc: Any) -> None:
        self._temporary.cleanup()


def _in_order(names: Iterable[str]) -> list[list[str]]:
    """Names in the order in which they are to appear: those of a group all at once."""
    groups: list[list[str]] = [[] for _ in range(len(_TELLS) + 1)]
    for name in names:
        ranks = [rank for rank, tell in enumerate(_TELLS, 1) if name.endswith(tell)]
        groups[max(ranks, default=0)].append(name)
    return groups
