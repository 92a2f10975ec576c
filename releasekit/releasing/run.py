"""Run the steps of a release that are not done, in order, up to one that is asked for.

What can be known beforehand is told first: the first step may take hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from releasekit.errors import UsageError
from releasekit.releasing.course import Course
from releasekit.releasing.course import ReleaseResult as ReleaseResult
from releasekit.releasing.file import ReleaseFile
from releasekit.releasing.steps import ORDER
from releasekit.releasing.sweep import Entry, read_entries
from releasekit.releasing.watching import Watcher
from releasekit.releasing.wording import telling_fields
from releasekit.releasing.work import Means
from releasekit.signing.keys import PrivateKey

_MEANS: Final = Means()
_NOBODY: Final = Watcher()


def read(path: str | Path) -> ReleaseFile:
    """Read a `release.toml` of one release.

    Raises:
        UsageError: if there is none, or it is of several.
        FormatError: with the path of the field that is wrong.
    """
    return _only(path).file


def release(
    path: str | Path,
    *,
    key: PrivateKey | None = None,
    until: str = ORDER[-1],
    means: Means = _MEANS,
    watcher: Watcher = _NOBODY,
) -> ReleaseResult:
    """Make a release from its file, as far as it is not made yet.

    Args:
        path: the `release.toml`, which asks for one release.
        key: the private key that the file's `sign_key` names.
        until: the last step to do.
        means: what the work may use.
        watcher: told of each step and stage.

    Raises:
        UsageError: if the file asks for what cannot be, or `key` is missing.
        FormatError: if the file, or an input, is malformed.
        ReleaseKitError: if the disk surely has too little room; or as the steps do; what
            was done before is kept.
    """
    with telling_fields():
        course = Course.begin(_only(path), key, until, means)
        course.look_over()
        if (takes := course.needs()) is not None:
            takes.require()
        course.run(watcher)
    return course.result()


def plan_release(
    path: str | Path,
    *,
    key: PrivateKey | None = None,
    until: str = ORDER[-1],
    means: Means = _MEANS,
) -> ReleaseResult:
    """Which steps `release` would do; changes nothing, and raises as it does at first.

    That the disk is too small is no error here: `ReleaseResult.needs` says so.
    """
    with telling_fields():
        course = Course.begin(_only(path), key, until, means)
        course.look_over()
        return course.result(course.needs())


def _only(path: str | Path) -> Entry:
    """The one release that a file asks for."""
    entries = read_entries(path)
    if entries[0].number is not None:
        raise UsageError(f"{path}: expected a file of one release, found a sweep")
    return entries[0]
