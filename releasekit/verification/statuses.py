"""What is found of each file, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from releasekit.authenticity import Authenticity
from releasekit.parts.split import Share
from releasekit.parts.tasks import WorkerReport


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
        against: the list that it was checked against: a file, or the model's page on the
            Hub.
        files: a status for every file, listed or found, sorted by path; or for those of a
            share.
        listed: files in the list.
        authenticity: whose the list is.
        share: the share that was looked at; None for all.
        workers: what each process did, if others did the work.
    """

    path: Path
    against: Path | str
    files: tuple[FileStatus, ...]
    listed: int
    authenticity: Authenticity
    share: Share | None = None
    workers: tuple[WorkerReport, ...] = ()

    @property
    def faultless(self) -> bool:
        """Whether every file that was looked at is good."""
        return all(file.status is Status.GOOD for file in self.files)

    @property
    def ok(self) -> bool:
        """Whether every file is good; never known from one share."""
        return self.share is None and self.faultless

    def count(self, status: Status) -> int:
        """Number of files with that status."""
        return sum(file.status is status for file in self.files)
