"""A folder held against a list, and who hashes its files.

A file is hashed by one thread of one process: SHA-256 is a chain. Of several processes each
is told the size that a file had where the work was handed out, so that another copy under
the same path is an error there, rather than a file that is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.authenticity import Authenticity
from releasekit.checkpoint.files import Incoming
from releasekit.checkpoint.locate import Located, reach
from releasekit.errors import IntegrityError, UsageError
from releasekit.hashing import hash_files, hash_one
from releasekit.parts.keeping import keeper
from releasekit.parts.shares import run_parts
from releasekit.parts.split import Share
from releasekit.parts.tasks import (
    Advance,
    Batch,
    Needs,
    Pool,
    Task,
    WorkerReport,
    reports,
)
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.received import files_in
from releasekit.resources import DEFAULT_MAX_MEMORY, Need, share_out
from releasekit.verification.statuses import FileStatus, Status, Verification

#: What hashing a file takes: a piece of it.
_NEED: Final = Need(buffer=1 << 20, scratch=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Who hashes files, and which.

    Attributes:
        threads: files hashed at once, in this process; by default one a processor.
        pool: has them hashed by other processes, if there is one.
        share: the share of the files that is looked at; None for all.
        progress: called with the bytes hashed so far.
        coming: those of the files that are elsewhere; None if all are here.
        origin: where other processes find the files; None if that is the folder.
    """

    threads: int | None
    progress: ProgressCallback | None
    pool: Pool | None = None
    share: Share | None = None
    coming: Incoming | None = None
    origin: Path | None = None

    def check(self) -> None:
        """Refuse what contradicts itself, as UsageError."""
        if self.pool is not None and self.share is not None:
            raise UsageError("a pool and a share: give one of them")
        if self.pool is not None and self.threads is not None:
            raise UsageError(
                "threads of a pool: a file is hashed by one, since SHA-256 is a chain; "
                "leave --threads out"
            )

    @property
    def is_spread(self) -> bool:
        """Whether there are other processes, perhaps on other machines."""
        return self.pool is not None or self.share is not None

    @property
    def is_first(self) -> bool:
        """Whether there is nobody else to look for what is not listed."""
        return self.share is None or self.share.number == 1

    def mine(self, names: Collection[str]) -> list[str]:
        """Those of the files that are to be looked at."""
        if self.share is None:
            return list(names)
        # Dealt out by names alone: by sizes, a file that goes away while others are hashed
        # would change hands, and perhaps be nobody's.
        tasks = [Task(name=name, nbytes=1) for name in names]
        return [task.name for task in self.share.of(tasks)]

    def hash(
        self, folder: Path, names: Sequence[str]
    ) -> tuple[dict[str, str], tuple[WorkerReport, ...]]:
        """SHA-256 of files below a folder, which are there; and who took it."""
        tasks = [
            Task(name=name, nbytes=_size(folder / name, self.coming)) for name in names
        ]
        if self.pool is None:
            stage = Stage(self.progress, "verify", sum(task.nbytes for task in tasks))
            with Workers(self.threads) as workers:
                hashed = hash_files(folder, names, workers, stage, self.coming)
                return dict(hashed), ()
        resources = share_out(_NEED, threads=1, max_memory=DEFAULT_MAX_MEMORY)
        batch = Batch(
            work=hash_part,
            spec=Hashing(folder=self.origin or folder.absolute()),
            tasks=tasks,
            needs=Needs(threads=1, memory_nbytes=resources.memory_nbytes),
            stage="verify",
        )
        done = run_parts(self.pool, batch, self.progress)
        return {part.name: str(part.facts["sha256"]) for part in done}, reports(done)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashing:
    """What every process is told that hashes files.

    Attributes:
        folder: where they are.
    """

    folder: Path

    @property
    def partial(self) -> None:
        """Nothing is written."""

    def opened(self) -> AbstractContextManager[Located]:
        """The folder, as this process finds it."""
        return reach(self.folder, whole=True)


def hash_part(spec: Hashing, task: Task, advance: Advance) -> Mapping[str, object]:
    """Hash one file.

    Raises:
        IntegrityError: if it has another size than where the work was handed out.
    """
    at = keeper().get(spec, Hashing.opened)
    path = at.path / task.name
    size = _size(path, at.coming)
    if size != task.nbytes:
        raise IntegrityError(
            f"{path}: expected {task.nbytes:,} bytes, as where the work was begun, found "
            f"{size:,}: every machine must find the same files under this path, and "
            "nothing may write to them"
        )
    return {"sha256": hash_one(path, lambda: None, advance, at.coming)}


def compare(
    folder: Path,
    against: Path,
    wanted: Mapping[str, str],
    unlisted: Collection[str] | None,
    authenticity: Authenticity,
    crew: Crew,
) -> Verification:
    """Compare a folder with a list.

    Args:
        folder: where the files are.
        against: the list's file, for people.
        wanted: SHA-256 of each file by its path, as listed.
        unlisted: files that may be there all the same; None if any may.
        authenticity: whose the list is.
        crew: hashes the files.
    """
    mine = crew.mine(wanted)
    coming = crew.coming.names if crew.coming is not None else frozenset()
    present = [name for name in mine if name in coming or (folder / name).is_file()]
    found, workers = crew.hash(folder, present)
    files = [_status(name, wanted[name], found.get(name)) for name in mine]
    if unlisted is not None and crew.is_first:
        files += [
            FileStatus(path=name, status=Status.UNEXPECTED)
            for name in {*files_in(folder), *coming}
            if name not in wanted and name not in unlisted
        ]
    return Verification(
        path=folder,
        against=against,
        files=tuple(sorted(files, key=lambda file: file.path)),
        listed=len(wanted),
        authenticity=authenticity,
        share=crew.share,
        workers=workers,
    )


def _size(path: Path, coming: Incoming | None) -> int:
    file = coming.open(path) if coming is not None else None
    return file.size if file is not None else path.stat().st_size


def _status(name: str, expected: str, found: str | None) -> FileStatus:
    if found is None:
        return FileStatus(path=name, status=Status.MISSING, expected=expected)
    status = Status.GOOD if found == expected else Status.WRONG
    return FileStatus(path=name, status=status, expected=expected, found=found)
