"""Output folders that appear whole or not at all.

Everything is written below `OUT.partial`, in the same file system, and renamed to `OUT`
once it is complete, verified and on disk. So `OUT` never exists half-made, and a run that
was stopped leaves a folder whose name says so. A lock on that folder keeps two runs
apart; the system drops it with the process, however that ends.

An existing `OUT` is refused unless the caller forces it; then it stays in place until its
successor is complete, and is only removed if it holds what releasekit or a model library
writes, since `--force` on the wrong folder should not cost anyone their data.

Files are created anew (`O_EXCL`, `O_NOFOLLOW`), so that no link left in the partial
folder can lead a write elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from releasekit.errors import ReleaseKitError, UsageError

PARTIAL_SUFFIX: Final = ".partial"
_STATE: Final = ".releasekit-partial.json"
_UNFINISHED: Final = ".part"
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OutputFolder:
    """A folder in the making.

    Use as a context manager: `commit` at the end makes it appear; leaving without a
    commit keeps the partial folder, so that a later run with the same key may reuse it.

    Attributes:
        out: the folder to make.
        partial: its name until then.
        reused: whether an earlier run of the same work left files in it.
    """

    def __init__(
        self, out: Path, *, key: str, force: bool = False, inputs: Iterable[Path] = ()
    ) -> None:
        """Prepare to make `out`.

        Args:
            out: the folder to make.
            key: names the work; a partial folder of the same work may be reused.
            force: replace an existing folder at `commit`.
            inputs: files and folders that are read; `out` may not touch them.

        Raises:
            UsageError: if `out` exists, lies in an input, or holds one.
            ReleaseKitError: if another run is writing to it.
        """
        self.out = out.absolute()
        self.partial = self.out.with_name(self.out.name + PARTIAL_SUFFIX)
        self._force = force
        check_output(self.out, force=force, inputs=inputs)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            self.reused = self._claim(key)
        except BaseException:
            os.close(self._lock)
            raise

    def _locked(self) -> int:
        """The partial folder, made if need be, and locked until the process ends."""
        if self.partial.is_symlink() or (
            self.partial.exists() and not self.partial.is_dir()
        ):
            raise UsageError(f"{self.partial}: is in the way; move or remove it")
        self.partial.mkdir(exist_ok=True)
        fd = os.open(self.partial, _FOLDER_FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, another run may have committed the folder.
            ours = os.path.samestat(os.fstat(fd), os.stat(self.partial))
        except OSError as error:
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                raise
            ours = False
        if not ours:
            raise ReleaseKitError(
                f"{self.out}: another run is writing to it; wait for it, or choose "
                "another --out"
            )
        return fd

    def _claim(self, key: str) -> bool:
        """Whether the partial folder holds this same work; empties it if not."""
        state = self.partial / _STATE
        entries = list(self.partial.iterdir())
        if entries:
            if not state.is_file() or state.is_symlink():
                raise UsageError(
                    f"{self.partial}: is in the way and was not made by releasekit; move "
                    "or remove it"
                )
            if state.read_bytes() == _state(key):
                return True
            self.keep_only(())
        with self.create(_STATE) as file:
            file.write(_state(key))
        return False

    def restart(self) -> None:
        """Empty the folder: what an earlier run left is of no use to this work."""
        self.keep_only(())

    def path(self, name: str) -> Path:
        """Where the file `name` lies while the folder is partial."""
        return self.partial / name

    def create(self, name: str) -> BinaryIO:
        """Open a new file for writing, replacing one that an earlier run left."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(path, flags, 0o644), "w+b")

    def unfinished(self, name: str) -> str:
        """The name that a large file bears until it is complete."""
        return name + _UNFINISHED

    def finish(self, name: str, final: str) -> None:
        """Give a complete file its final name."""
        os.replace(self.path(name), self.path(final))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, complete and on disk."""
        with self.create(name) as file:
            file.write(data)
            sync(file)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove what an earlier run left and this one did not make."""
        kept = {*names, _STATE}
        for folder, folders, files in os.walk(self.partial, topdown=False):
            for name in files:
                path = Path(folder, name)
                if path.relative_to(self.partial).as_posix() not in kept:
                    path.unlink()
            for name in folders:
                path = Path(folder, name)
                if path.is_symlink():
                    path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()

    def commit(self) -> None:
        """Make the folder appear under its name."""
        (self.partial / _STATE).unlink()
        for folder, _, _ in os.walk(self.partial):
            _sync_folder(Path(folder))
        old = self.out.with_name(f"{self.out.name}.replaced")
        if self._force and self.out.exists():
            if old.exists():
                shutil.rmtree(old)
            os.rename(self.out, old)
        os.rename(self.partial, self.out)
        _sync_folder(self.out.parent)
        if self._force and old.exists():
            shutil.rmtree(old)

    def discard(self) -> None:
        """Remove the partial folder: nothing in it is worth going on with."""
        shutil.rmtree(self.partial, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        os.close(self._lock)


def check_output(out: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder that must not be written; raises as `OutputFolder` does."""
    _refuse_overlap(out, inputs)
    if os.path.lexists(out):
        _refuse_existing(out, force)


def sync(file: BinaryIO) -> None:
    """Flush a file to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def require_space(folder: Path, nbytes: int) -> None:
    """Refuse work whose output cannot fit.

    Raises:
        ReleaseKitError: if fewer than `nbytes` bytes are free where `folder` will be.
    """
    free = free_nbytes(folder)
    if free < nbytes:
        raise ReleaseKitError(
            f"{folder}: expected {nbytes:,} bytes free, found {free:,}: free some space, "
            "or choose an --out on another disk"
        )


def free_nbytes(folder: Path) -> int:
    """Bytes free on the disk where `folder` is, or would be."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _refuse_existing(out: Path, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{out}: exists already; choose another --out, or replace it with --force"
        )
    if out.is_symlink() or not out.is_dir():
        raise UsageError(f"{out}: is not a folder; --force replaces folders only")
    names = [path.name for path in out.iterdir()]
    if names and not any(n.endswith(".safetensors") or n == "release.json" for n in names):
        raise UsageError(
            f"{out}: holds neither a release nor a model; --force does not remove such a "
            "folder: remove it yourself, or choose another --out"
        )


def _refuse_overlap(out: Path, inputs: Iterable[Path]) -> None:
    resolved = out.resolve()
    for path in inputs:
        source = path.resolve()
        if resolved == source or resolved in source.parents:
            raise UsageError(f"{out}: holds the input {path}; choose another --out")
        if source in resolved.parents:
            raise UsageError(f"{out}: lies in the input {path}; choose another --out")


def _state(key: str) -> bytes:
    return json.dumps({"work": key}).encode()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, _FOLDER_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
