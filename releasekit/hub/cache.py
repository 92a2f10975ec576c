"""huggingface_hub's cache: what it holds, and putting verified files into it.

Other tools share the cache, so its layout and its locks are theirs. A content gets its name
there only once it has the digest that is its name. Until then it grows in a file beside it,
`DIGEST.releasekit`, where a later run goes on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from releasekit.digest import Hash, sha256
from releasekit.errors import HubError, IntegrityError
from releasekit.hub.address import GIT_ID, Address
from releasekit.hub.answers import FaultError, explaining
from releasekit.hub.listing import HubFile, Listing
from releasekit.hub.transfer import Source, StoppedError
from releasekit.names import shown
from releasekit.received import files_in
from releasekit.writing import open_new, reopen, sync

_GROWING: Final = ".releasekit"
#: Seconds between looks at whether to go on waiting for another process.
_LOOK: Final = 0.2


def cached(address: Address) -> tuple[str, Path] | None:
    """The commit that the revision was when it was last asked for, and its snapshot."""
    commit = address.revision
    if address.ref.is_file():
        commit = address.ref.read_text(errors="replace").strip()
    folder = address.snapshot(commit)
    return (commit, folder) if GIT_ID.fullmatch(commit) and folder.is_dir() else None


def list_cached(address: Address) -> Listing | None:
    """What the cache holds of the revision, with digests as far as it knows them.

    A content is stored under its digest, so that can be checked without the Hub.
    """
    found = cached(address)
    if found is None:
        return None
    commit, folder = found
    return Listing(
        commit=commit, files={name: _cached(folder / name) for name in names_in(folder)}
    )


def _cached(path: Path) -> HubFile:
    blob = path.resolve().name if path.is_symlink() else ""
    lfs = len(blob) == 64
    digest = blob if lfs or GIT_ID.fullmatch(blob) else None
    return HubFile(nbytes=path.stat().st_size, digest=digest, lfs=lfs)


def names_in(folder: Path) -> list[str]:
    """The files in a snapshot, as they are named in the repository."""
    return sorted(name for name in files_in(folder) if (folder / name).is_file())


def remember(address: Address, commit: str) -> None:
    """Note in the cache which commit the revision is, for when the Hub is out of reach.

    huggingface_hub does the same, but only for what it looked up itself. It is done last:
    while files are missing, the commit before may be complete.
    """
    if address.revision == commit:
        return
    with suppress(OSError):  # a cache that others look after may be read-only
        if address.ref.is_file() and address.ref.read_bytes() == commit.encode():
            return
        address.ref.parent.mkdir(parents=True, exist_ok=True)
        new = address.ref.with_name(f".{os.getpid()}.{address.ref.name}")
        try:
            new.write_text(commit)
            os.replace(new, address.ref)
        finally:
            new.unlink(missing_ok=True)


def lacking(address: Address, files: Iterable[HubFile]) -> list[int]:
    """Bytes that the cache lacks of files, by content: some may have come before."""
    sizes: list[int] = []
    contents: dict[str, HubFile] = {}
    for file in files:
        if file.digest is None:
            sizes.append(file.nbytes or 0)
        else:
            contents[file.digest] = file
    for digest, file in contents.items():
        blob = address.blobs / digest
        if not blob.exists():
            growing = blob.with_name(f"{digest}{_GROWING}")
            there = growing.stat().st_size if growing.exists() else 0
            sizes.append(max(0, (file.nbytes or 0) - there))
    return sizes


def add(source: Source, file: HubFile, advance: Callable[[int], None]) -> int:
    """Bring a file into the snapshot of its commit; returns how many bytes came.

    Args:
        source: the file.
        file: what the Hub lists of it.
        advance: told how many more bytes there are; fewer than none if they begin anew.

    Raises:
        HubError: if it cannot be had.
        IntegrityError: if what came, or was in the cache, has another digest.
        StoppedError: if the source's `stop` was set.
        OSError: the disk's.
    """
    path = source.address.snapshot(source.commit) / source.name
    if path.exists():
        return 0
    try:
        if file.digest is None:
            return _unlisted(source)
        return _listed(source, file, file.digest, path, advance)
    except FaultError as error:
        raise not_arrived(source, error) from error


def held(source: Source, file: HubFile) -> list[Path]:
    """Where the cache may hold a file: by its content and, without links, by its name."""
    address = source.address
    blob = address.blobs / file.digest if file.digest is not None else None
    path = address.snapshot(source.commit) / source.name
    found = blob if blob is not None and blob.is_file() else path
    return [found] if found.is_file() else []


def not_arrived(source: Source, error: FaultError) -> HubError:
    """What to tell of a file that could not be had."""
    doing, fault = f"{shown(source.name)} did not arrive", error.fault
    if fault.status in (401, 403):
        return error.told(source.address)  # of the model, whatever the file
    if not (fault.silent or fault.passes):
        return error.told(source.address, doing)
    return HubError(
        f"{source.address.reference}: {doing} ({fault.what}); run again: what has arrived "
        "is kept"
    )


def _listed(
    source: Source,
    file: HubFile,
    digest: str,
    path: Path,
    advance: Callable[[int], None],
) -> int:
    """A file by its digest: of the cache's contents, or downloaded."""
    address = source.address
    blob = address.blobs / digest
    blob.parent.mkdir(parents=True, exist_ok=True)
    came = 0
    with _locked(source, digest):  # two files of one content are one download
        if blob.exists():
            found = file.digest_of(blob)
            if found != digest:
                raise _damaged(source, blob, digest, found, "delete it and run again")
            advance(file.nbytes or 0)
        else:
            growing = blob.with_name(f"{digest}{_GROWING}")
            found, came = receive(source, file, growing, advance)
            if found != digest:
                raise _damaged(source, blob, digest, found, "it was removed: run again")
            os.replace(growing, blob)
        _place(blob, path, fresh=came > 0)
    return came


@contextmanager
def _locked(source: Source, digest: str) -> Iterator[None]:
    """Keeps other threads and processes from bringing the same content."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock = source.address.lock(digest)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(WeakFileLock(lock, timeout=_LOOK))
                break
            except TimeoutError:
                if source.stop.is_set():
                    raise StoppedError from None
        yield


def receive(
    source: Source, file: HubFile, growing: Path, advance: Callable[[int], None]
) -> tuple[str, int]:
    """Bring a file to its end, and onto the disk.

    Returns its digest, of the kind that the Hub lists, and how many bytes came.

    One that is not right is removed. If it was begun by an earlier run, what that left may
    be to blame, so it is brought once more.

    Args:
        source: the file.
        file: what the Hub lists of it.
        growing: where it grows; may be there.
        advance: told how many more bytes there are.

    Raises:
        FaultError, StoppedError, OSError: as `Source.into`.
    """
    every = 0
    while True:
        begun = growing.is_file() and not growing.is_symlink()
        if not begun or file.digest is None:  # nothing would show what it is a part of
            growing.unlink(missing_ok=True)
            begun = False
        with reopen(growing) if begun else open_new(growing) as opened:
            hashes = [hasher(file)]
            kept, came = source.into(opened, hashes, advance)
            sync(opened)
        every += came
        found = hashes[0].hexdigest()
        if file.digest is None or found == file.digest:
            return found, every
        growing.unlink()
        if not kept:
            return found, every
        advance(-(file.nbytes or 0))


def hasher(file: HubFile) -> Hash:
    """A digest of the kind that the Hub lists for a file."""
    if file.lfs or file.digest is None:
        return sha256()
    return hashlib.sha1(b"blob %d\0" % (file.nbytes or 0), usedforsecurity=False)


def _damaged(
    source: Source, path: Path, digest: str, found: str, step: str
) -> IntegrityError:
    return IntegrityError(
        f"{path}: expected {digest}, the digest of {shown(source.name)} in "
        f"{source.address.page}, found {found}; {step}"
    )


def _unlisted(source: Source) -> int:
    """A file of a mirror that lists no digests, as huggingface_hub itself brings it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    ask = partial(
        hf_hub_download,
        source.address.name,
        source.name,
        revision=source.commit,
        cache_dir=source.address.folder.parent,
        endpoint=source.address.endpoint,
    )
    with explaining(source.address):
        try:
            return Path(ask()).stat().st_size
        except LocalEntryNotFoundError as error:
            # That is how it tells of a Hub that did not answer.
            raise (error.__cause__ or error) from None


def _place(blob: Path, path: Path, *, fresh: bool) -> None:
    """Let a content be the file at `path`, which appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = blob.with_name(f"{blob.name}.{os.getpid()}.new")  # no file of the snapshot
    new.unlink(missing_ok=True)
    try:
        os.symlink(os.path.relpath(blob, path.parent), new)
    except OSError:  # a disk that has no links
        if fresh:
            os.replace(blob, path)
            return
        shutil.copyfile(blob, new)
    os.replace(new, path)
