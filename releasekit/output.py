"""Output folders that appear whole or not at all.

    OUT.partial/
      state.json   names the work, so that only the same work goes on with what is here
      new/         what becomes OUT, by one rename, once it is complete and on disk
      old/         what OUT was before, for the moment between two renames
      …            scratch files

So `OUT` never exists half-made, and a run that was stopped leaves a folder whose name
says so. A lock on that folder keeps two runs apart; the system drops it with the process,
however that ends.

Where the parts of one work are done by several processes (`Sharing`), they have the folder
in common: files in the making then have names of their own, since two may make the same
one, and only who has the folder alone may complete it.

An existing `OUT` is refused unless the caller forces it; then it stays in place until its
successor is complete, and is only removed if it holds what releasekit or a model library
writes, since `--force` on the wrong folder should not cost anyone their data.

Files are created anew (`O_EXCL`, `O_NOFOLLOW`) below folders that are no links, so that
nothing left in the partial folder can lead a write elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from enum import Enum
from io import BufferedRandom
from pathlib import Path
from typing import Any, Final, Self

from releasekit.digest import pieces, sha256
from releasekit.errors import ReleaseKitError, UsageError
from releasekit.storage.address import absolute, is_stored, text
from releasekit.writing import open_new, reopen, sync, sync_folder, write

PARTIAL_SUFFIX: Final = ".partial"
_STATE: Final = "state.json"
_NEW: Final = "new"
_OLD: Final = "old"
_UNFINISHED: Final = ".part"
_BLOCK: Final = 4096  # bytes in which ext4, XFS, APFS and NTFS give out space
_MAX_NAME: Final = 255  # bytes, of a file name on ext4, APFS and NTFS
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sharing(Enum):
    """Who else may be writing to a folder."""

    ALONE = "nobody"
    PARTS = "others that do parts of the same work"
    LAST = "nobody any more: others have done parts of the same work"
    GUEST = "whoever has the folder, and asked for this part"


class OutputFolder:
    """A folder in the making.

    Use as a context manager: `commit` at the end makes it appear; leaving without a
    commit keeps the partial folder, so that a later run with the same key may reuse it.

    Attributes:
        out: the folder to make.
        partial: the folder beside it in which it is made.
        reused: whether an earlier run of the same work left files in it.
    """

    def __init__(
        self,
        out: Path,
        *,
        key: str,
        force: bool = False,
        inputs: Iterable[Path] = (),
        sharing: Sharing = Sharing.ALONE,
    ) -> None:
        """Prepare to make `out`.

        Args:
            out: the folder to make.
            key: names the work; a partial folder of the same work may be reused.
            force: replace an existing folder at `commit`.
            inputs: files and folders that are read; `out` may not touch them.
            sharing: who else may be writing to it.

        Raises:
            UsageError: if `out` exists, lies in an input, or holds one; or the folder in
                common is of another work.
            ReleaseKitError: if another run is writing to it; or, for a guest, there is no
                such folder.
        """
        if sharing is not Sharing.GUEST:
            check_output(out, force=force, inputs=inputs)
        self.out = out.absolute()
        self.partial = partial_of(self.out)
        self._force = force
        self._new = self.partial / _NEW
        self._making = threading.Lock()
        self._sharing = sharing
        self._lock: int | None = None
        if sharing is Sharing.GUEST:
            self.reused = self._join(key)
            return
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        with ExitStack() as stack:
            stack.callback(self._unlock)
            # Another run may have made it between the first look and the lock.
            check_output(out, force=force, inputs=inputs)
            self.reused = self._claim(key)
            stack.pop_all()

    def _join(self, key: str) -> bool:
        """Find the folder that another process has; nothing in it is this one's."""
        state = self.partial / _STATE
        if not state.is_file() or state.read_bytes() != _state(key):
            raise ReleaseKitError(
                f"{self.partial}: on {socket.gethostname()} it is not the folder of this "
                "work: every machine must find inputs and output under the same paths, on "
                "a file system that all of them share"
            )
        return False

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        """The partial folder, made if need be, and locked until the process ends."""
        if self.partial.is_symlink() or (
            self.partial.exists() and not self.partial.is_dir()
        ):
            raise UsageError(f"{self.partial}: is in the way; move or remove it")
        self.partial.mkdir(exist_ok=True)
        fd = os.open(self.partial, _FOLDER_FLAGS)
        shared = self._sharing is Sharing.PARTS
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
        if self._sharing is Sharing.PARTS:
            self._claim_together(key)
            return False
        if any(self.partial.iterdir()):
            if not state.is_file() or state.is_symlink():
                raise UsageError(
                    f"{self.partial}: is in the way and was not made by releasekit; move "
                    "or remove it"
                )
            if state.read_bytes() == _state(key):
                self._folder(self._new)
                return True
            if self._sharing is Sharing.LAST:
                raise other_work(self.partial)
            self.restart()
            state.unlink()
        with _create(state) as file:
            write(file, _state(key))
        self._folder(self._new)
        return False

    def _claim_together(self, key: str) -> None:
        """Name the work in the folder, as others may at the same time."""
        state = self.partial / _STATE
        new = self.partial / f"{_STATE}.{_token()}"
        with _create(new) as file:
            write(file, _state(key))
        try:
            os.link(new, state)  # unlike a rename, it replaces nothing
        except FileExistsError:
            if state.is_symlink() or state.read_bytes() != _state(key):
                raise other_work(self.partial) from None
        finally:
            new.unlink()
        self._new.mkdir(exist_ok=True)
        if self._new.is_symlink():
            raise UsageError(f"{self._new}: is a link; remove it")

    @staticmethod
    def made_in(partial: Path) -> Path:
        """Where the files of the output lie in a partial folder."""
        return partial / _NEW

    def holds(self, name: str, nbytes: int) -> bool:
        """Whether a file of that size bears its final name."""
        return _is_file(self.path(name), nbytes)

    def holds_kept(self, name: str, nbytes: int) -> bool:
        """Whether there is a scratch file of that size, as `keep_scratch` left it."""
        return _is_file(self.partial / name, nbytes)

    def require_space(self, sizes: Iterable[int]) -> None:
        """Refuse files, those that are there included, for which there is no room.

        Raises:
            ReleaseKitError: as the function of that name.
        """
        require_space(self.partial, sizes, self.used_nbytes())

    def used_nbytes(self) -> int:
        """Disk space that files of this output take already."""
        files = (path for path in self._new.rglob("*") if path.is_file())
        return sum(path.lstat().st_blocks * 512 for path in files)

    def restart(self) -> None:
        """Remove what an earlier run left; it is of no use to this work."""
        for path in self.partial.iterdir():
            # An old OUT that waits for its successor is not ours to lose.
            if path.name not in (_STATE, _OLD):
                _remove(path)
        self._folder(self._new)

    def _folder(self, path: Path) -> None:
        """Make a folder and those above it, none of which may be a link."""
        if path != self.partial:
            self._folder(path.parent)
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                path.mkdir(exist_ok=True)  # others may make it for parts of their own

    def path(self, name: str) -> Path:
        """Where the file `name` lies until the folder appears."""
        return self._new / name

    def keep_scratch(self, name: str, final: str) -> None:
        """Give a complete scratch file the name by which others of this work find it."""
        os.replace(self.partial / name, self.partial / final)

    def kept(self, name: str) -> Path:
        """Where the scratch file is that `keep_scratch` gave this name."""
        return self.partial / name

    def drop(self, name: str) -> None:
        """Remove such a file, if it is there."""
        (self.partial / name).unlink(missing_ok=True)

    def scratch(self, name: str) -> BufferedRandom:
        """Open a new file that is not part of the output, and goes with its completion."""
        return _create(self.partial / name)

    def place(self, name: str) -> Path:
        """Where the file `name` may be made; nothing above it is a link."""
        path = self.path(name)
        with self._making:
            self._folder(path.parent)
        return path

    def create(self, name: str) -> BufferedRandom:
        """Open a new file for writing, replacing one that an earlier run left."""
        return _create(self.place(name))

    def reopen(self, name: str) -> BufferedRandom | None:
        """Open a file that an earlier run of this work left; None if there is none."""
        if not self.reused:
            return None
        path = self.path(name)
        if path.is_symlink() or not path.is_file() or path.stat().st_nlink != 1:
            return None
        return reopen(path)

    def unfinished(self, name: str) -> str:
        """The name that a large file bears until it is complete."""
        folder, _, last = name.rpartition("/")
        suffix = _UNFINISHED
        if self._sharing is not Sharing.ALONE:
            suffix = f".{_token()}{_UNFINISHED}"
        if len(last.encode()) + len(suffix.encode()) > _MAX_NAME:
            last = sha256(last.encode()).hexdigest()
        return f"{folder}/{last}{suffix}".lstrip("/")

    def finish(self, name: str, final: str) -> None:
        """Give a complete file its final name."""
        os.replace(self.path(name), self.path(final))

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, complete and on disk."""
        with self.create(name) as file:
            write(file, data)
            sync(file)

    def copy(
        self, source: Path, name: str, advance: Callable[[int], None] = lambda nbytes: None
    ) -> tuple[int, str]:
        """Copy a file, onto the disk itself; returns its size and SHA-256."""
        hasher = sha256()
        size = 0
        with source.open("rb", buffering=0) as original, self.create(name) as file:
            for piece in pieces(original):
                hasher.update(piece)
                write(file, piece)
                size += len(piece)
                advance(len(piece))
            sync(file)
        return size, hasher.hexdigest()

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove what an earlier run left and this one did not make."""
        kept = set(names)
        for folder, folders, files in os.walk(self._new, topdown=False):
            for name in files:
                path = Path(folder, name)
                if path.relative_to(self._new).as_posix() not in kept:
                    path.unlink()
            for name in folders:
                path = Path(folder, name)
                if path.is_symlink() or not any(path.iterdir()):
                    _remove(path)

    def commit(self) -> None:
        """Make the folder appear under its name."""
        for folder, _, _ in os.walk(self._new):
            sync_folder(Path(folder))
        old = self.partial / _OLD
        if self._force and self.out.exists():
            _remove(old)
            os.rename(self.out, old)
        os.rename(self._new, self.out)
        sync_folder(self.out.parent)
        self.discard()

    def discard(self) -> None:
        """Remove the partial folder: nothing in it is worth going on with."""
        # Its state goes last, so that what a kill leaves is still known to be ours.
        for path in sorted(self.partial.iterdir(), key=lambda path: path.name == _STATE):
            _remove(path)
        self.partial.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self._unlock()


def partial_of(out: Path) -> Path:
    """The folder in which `out` is made."""
    return absolute(out).with_name(out.name + PARTIAL_SUFFIX)


def check_output(out: Path, *, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output folder that must not be written; raises as `OutputFolder` does."""
    if is_stored(out):
        raise UsageError(
            f"{text(out)}: this writes to folders of this machine alone; the commands "
            "make-delta, apply-delta and convert write to object storage, and in Python "
            "make_spread, apply_spread and convert_spread"
        )
    if not out.name or out.name == "..":
        raise UsageError(f"{out}: names no folder to make; choose another --out")
    _refuse_overlap(out, inputs)
    if os.path.lexists(out):
        _refuse_existing(out, force)


def require_space(
    folder: Path,
    sizes: Iterable[int],
    there: int = 0,
    elsewhere: str = "choose an --out on another disk",
) -> None:
    """Refuse work whose output cannot fit.

    Args:
        folder: where the output will be.
        sizes: of the files to write, each of which takes whole blocks.
        there: bytes of them that are on the disk already.
        elsewhere: how to write to another disk, for the message.

    Raises:
        ReleaseKitError: if too few bytes are free.
    """
    nbytes = sum(-(-size // _BLOCK) * _BLOCK for size in sizes) - there
    free = free_nbytes(folder)
    if free < nbytes:
        raise ReleaseKitError(
            f"{folder}: expected {nbytes:,} bytes free, found {free:,}: free some space, "
            f"or {elsewhere}"
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


def other_work(partial: Path) -> UsageError:
    """What to say of a partial folder that is of other work."""
    return UsageError(
        f"{text(partial)}: holds other work, or the same with other inputs or options: "
        "give every part the same ones; or, if nothing writes to it, remove it"
    )


def _token() -> str:
    """What no other thread of any process of any machine is called at this time."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{threading.get_native_id()}"


def _state(key: str) -> bytes:
    return json.dumps({"work": key}).encode()


def _create(path: Path) -> BufferedRandom:
    """Open a new file, in place of what bears its name."""
    _remove(path)
    return open_new(path)


def _is_file(path: Path, nbytes: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == nbytes


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there; follows no link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
