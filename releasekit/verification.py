"""Hold files against the digests that a release records.

A release carries SHA256SUMS over its own files, and rebuilt.SHA256SUMS over the model that
it rebuilds. Each file is good, wrong, missing or unexpected. Anything but good fails:
an unexpected file is not the publisher's, and a loader may pick it up all the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from releasekit.delta.release import Release, read_sums
from releasekit.digest import hash_file
from releasekit.errors import IntegrityError, UsageError
from releasekit.hashing import hash_files
from releasekit.manifest import MANIFEST, REBUILT_SUMS, SUMS
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage

#: What the Hub's client and the Hub itself add to a folder; loaders read neither.
_HUB_FOLDER: Final = ".cache/huggingface/"
_HUB_FILE: Final = ".gitattributes"


class Status(Enum):
    """How a file compares with the list."""

    GOOD = "good"
    WRONG = "wrong"
    MISSING = "missing"
    UNEXPECTED = "unexpected"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """One file's status.

    Attributes:
        path: relative to the folder.
        status: the result.
        expected: its SHA-256 in the list; None if it is not listed.
        found: its SHA-256; None if it was not hashed.
    """

    path: str
    status: Status
    expected: str | None = None
    found: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of `verify`.

    Attributes:
        path: the folder that was checked.
        against: the list that it was checked against.
        files: a status for every file, listed or found, sorted by path.
    """

    path: Path
    against: Path
    files: tuple[FileStatus, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is good."""
        return all(file.status is Status.GOOD for file in self.files)

    def count(self, status: Status) -> int:
        """Number of files with that status."""
        return sum(file.status is status for file in self.files)


def verify(
    path: str | Path,
    *,
    against: str | Path | None = None,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Verification:
    """Hash the files at `path` and compare them with the list.

    Args:
        path: a release folder, a rebuilt model (a folder, or its single weight file), or a
            folder with a list of its own, as `convert` writes.
        against: the release that the model was rebuilt from; None for a release, and for
            a folder with a list.
        threads: files hashed at once; by default one a processor.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if `path` has no list and `against` is not given.
        FormatError: if a list, or the manifest of a release, is malformed.
        IntegrityError: if a list is missing, or contradicts the manifest.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if against is not None:
        return _verify_rebuilt(path, Path(against), threads, progress)
    if not (path / MANIFEST).is_file() and not (path / SUMS).is_file():
        raise UsageError(
            f"{path}: is not a release: it has no {MANIFEST}, and no {SUMS} either; to "
            "check a rebuilt model, name its release with --against"
        )
    wanted = read_sums(path / SUMS)
    result = _compare(path, path / SUMS, wanted, {SUMS}, threads, progress)
    if result.ok and MANIFEST in wanted:
        with Release.open(path) as release:
            _check_lists(path, release, wanted)
    return result


def _verify_rebuilt(
    path: Path, release: Path, threads: int | None, progress: ProgressCallback | None
) -> Verification:
    listed = release / REBUILT_SUMS
    if not (release / MANIFEST).is_file():
        raise UsageError(f"{release}: is not a release: it has no {MANIFEST}")
    own = read_sums(release / SUMS).get(REBUILT_SUMS)
    wanted = read_sums(listed)
    if own != hash_file(listed):
        raise IntegrityError(
            f"{listed}: is not the file that {SUMS} lists: the release is damaged or was "
            "changed; download it again"
        )
    if path.is_file():
        wanted = {name: d for name, d in wanted.items() if name == path.name}
        if not wanted:
            raise UsageError(f"{path}: the release rebuilds no file {path.name}")
        return _compare(path.parent, listed, wanted, None, threads, progress)
    return _compare(path, listed, wanted, set(), threads, progress)


def _check_lists(path: Path, release: Release, listed: Mapping[str, str]) -> None:
    """The lists repeat digests of the manifest, for other tools; they must agree."""
    manifest = release.manifest
    for name, entry in manifest.stored.items():
        if listed.get(name) != entry.sha256:
            raise IntegrityError(f"{path}: {SUMS} and {MANIFEST} disagree over {name}")
    rebuilt = {name: entry.sha256 for name, entry in manifest.rebuilt.items()}
    if read_sums(path / REBUILT_SUMS) != rebuilt:
        raise IntegrityError(f"{path}: {REBUILT_SUMS} and {MANIFEST} disagree")


def _compare(
    folder: Path,
    against: Path,
    wanted: Mapping[str, str],
    unlisted: set[str] | None,
    threads: int | None,
    progress: ProgressCallback | None,
) -> Verification:
    """Compare a folder with a list; `unlisted` None means that more files may be there."""
    present = [name for name in wanted if (folder / name).is_file()]
    total = sum((folder / name).stat().st_size for name in present)
    stage = Stage(progress, "verify", total)
    files = [
        FileStatus(path=name, status=Status.MISSING, expected=wanted[name])
        for name in wanted
        if name not in present
    ]
    with Workers(threads) as workers:
        for name, found in hash_files(folder, present, workers, stage):
            status = Status.GOOD if found == wanted[name] else Status.WRONG
            files.append(
                FileStatus(path=name, status=status, expected=wanted[name], found=found)
            )
    if unlisted is not None:
        files += [
            FileStatus(path=name, status=Status.UNEXPECTED)
            for name in _walk(folder)
            if name not in wanted and name not in unlisted
        ]
    files.sort(key=lambda file: file.path)
    return Verification(path=folder, against=against, files=tuple(files))


def _walk(folder: Path) -> list[str]:
    """All files below `folder`, links included, but for the Hub client's own."""
    names = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative != _HUB_FILE and not relative.startswith(_HUB_FOLDER):
                names.append(relative)
    return names
