"""Models on the Hugging Face Hub: from `org/name@revision` to a folder on this disk.

The Hub says which commit a revision is now, and which files that commit holds, with their
sizes and digests. What the local cache lacks of them is downloaded into it, several files
at once; the folder is the cache's own snapshot of the commit, which other tools use too.

huggingface_hub checks the size of what it downloads, and no more. So each file that joins
a snapshot is hashed here, and joins only with the digest that the Hub lists: SHA-256 in
LFS, git's own elsewhere. Files that the snapshot held before are taken as they are, since
hashing a model each time that it is opened would take as long as using it.

If the Hub cannot be reached, the snapshot that the cache holds of the revision serves, with
what is in it. The folder's name is its commit, so it can be told which one that was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import FIRST_EXCEPTION
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from releasekit.errors import HubError, UsageError
from releasekit.hub.address import CACHE_ELSEWHERE, Address, is_reference
from releasekit.hub.answers import FaultError
from releasekit.hub.cache import add, lacking, list_cached, remember
from releasekit.hub.crew import Crew
from releasekit.hub.listing import HubFile, Listing, list_files
from releasekit.hub.transfer import Source
from releasekit.names import shown
from releasekit.output import require_space
from releasekit.progress import ProgressCallback, Stage

__all__ = ["Remote", "is_reference", "look_up", "resolve"]

_NAMES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A revision of a model, as the Hub or the cache has it.

    Attributes:
        address: the revision.
        listing: its commit, and that commit's files.
        offline: why the Hub did not say so, but the cache; None if the Hub did.
    """

    address: Address
    listing: Listing
    offline: str | None

    @property
    def folder(self) -> Path:
        """The snapshot; holds what was asked for so far."""
        return self.address.snapshot(self.listing.commit)

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).exists()

    def add(self, source: Source, file: HubFile, advance: Callable[[int], None]) -> int:
        """Bring a file into the snapshot; see `releasekit.hub.cache.add`."""
        return add(source, file, advance)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of these files the snapshot lacks."""
        return [name for name in names if not self.has(name)]

    def lacking(self, names: Iterable[str]) -> list[int]:
        """Bytes that the cache lacks of these files, by content."""
        return lacking(self.address, (self.listing.files[name] for name in names))

    def source(self, name: str, crew: Crew) -> Source:
        """Where a file is downloaded, as long as a crew works."""
        return Source(
            address=self.address,
            commit=self.listing.commit,
            name=name,
            nbytes=self.listing.files[name].nbytes,
            stop=crew.stop,
        )


class Place(Protocol):
    """Where files go."""

    def has(self, name: str) -> bool:
        """Whether a file is there, and need not be brought."""

    def add(self, source: Source, file: HubFile, advance: Callable[[int], None]) -> int:
        """Bring a file; returns how many bytes came from the Hub for it.

        `advance` is told how many more bytes there are.
        """


def resolve(
    reference: str,
    *,
    wanted: Callable[[list[str]], list[str]],
    late: Callable[[str], bool] = lambda name: False,
    progress: ProgressCallback | None = None,
) -> Path:
    """A local folder with the wanted files of a model on the Hub.

    It is a snapshot in huggingface_hub's cache, and not to be written to. It may hold more
    files than are wanted, and fewer if the Hub could not be reached.

    Args:
        reference: `org/name` or `org/name@revision`: a branch, a tag or a commit.
        wanted: given the names of all files of the revision, returns those needed; none if
            nothing is of use. Without the Hub it is given those that the cache holds.
        late: whether a file is left for later.
        progress: told how many bytes have come of those that were missing.

    Raises:
        UsageError: if nothing there is wanted.
        HubError: if the Hub refuses, or cannot be reached and the cache does not help.
        FormatError: if what the Hub lists cannot be, such as a name that leaves the folder.
        IntegrityError: if a file that came is not the one that the Hub lists.
        OSError: if the cache cannot be written, as on a full disk.
    """
    remote, names = look_up(reference, wanted=wanted)
    later = [name for name in remote.missing(names) if late(name)]
    bring(remote, (name for name in names if name not in later), progress, later)
    return remote.folder


def look_up(
    reference: str, *, wanted: Callable[[list[str]], list[str]]
) -> tuple[Remote, list[str]]:
    """What a revision is now, and which of its files are wanted; raises as `resolve`."""
    address = Address.of(reference)
    cached = list_cached(address)
    names = wanted(list(cached.files)) if cached is not None else []
    try:
        listing = _ask(address, hurry=bool(names))
    except FaultError as error:
        if not error.fault.silent:
            raise error.told(address) from error
        if cached is None or not names:
            raise HubError(
                f"{reference}: is no path here; {error.fault.what}, and {address.folder} "
                f"does not hold what is needed; {error.fault.step}, or give a local folder"
            ) from error
        return Remote(address=address, listing=cached, offline=error.fault.what), names
    names = wanted(list(listing.files))
    if not names:
        raise UsageError(
            f"{reference}: none of its files is of use here ({_some(listing.files)}); name "
            "another model, or another revision after an @"
        )
    remote = Remote(address=address, listing=listing, offline=None)
    return remote, listing.checked(address, names)


def _ask(address: Address, *, hurry: bool) -> Listing:
    """What the Hub lists; in a hurry, its silence is borne once: the cache is at hand."""
    if hurry:
        try:
            return list_files(address, attempts=1)
        except FaultError as error:
            if error.fault.silent or not error.fault.passes:
                raise  # else it is there, and says when to ask again
    return list_files(address)


def bring(
    remote: Remote,
    names: Iterable[str],
    progress: ProgressCallback | None = None,
    later: Collection[str] = (),
    place: Place | None = None,
) -> dict[str, int]:
    """Download what is missing of these files. Raises as `resolve`.

    Args:
        remote: the revision.
        names: the files.
        progress: told how many bytes have come.
        later: other files that are wanted, and will be downloaded later.
        place: where they go; by default the snapshot.

    Returns:
        The names of those that were missing, and how many bytes came for each.
    """
    to: Place = place or remote
    files = {name: remote.listing.files[name] for name in names if not to.has(name)}
    came: dict[str, int] = {}
    if files:
        if to is remote:
            cache, sizes = remote.address.folder, lacking(remote.address, files.values())
            require_space(cache, sizes, elsewhere=CACHE_ELSEWHERE)
        total = sum(file.nbytes or 0 for file in files.values())
        stage = Stage(progress, "download", total)
        with Crew() as crew:
            coming = {
                name: crew.submit(
                    partial(
                        to.add, remote.source(name, crew), file, Share(stage, file.nbytes)
                    )
                )
                for name, file in files.items()
            }
            done = wait_for(coming.values(), return_when=FIRST_EXCEPTION).done
            came = {name: each.result() for name, each in coming.items() if each in done}
    if remote.offline is None and to is remote and not later:
        remember(remote.address, remote.listing.commit)
    return came


class Share:
    """A file's part in a stage, called with bytes that came: never more than its size."""

    def __init__(self, stage: Stage, nbytes: int | None) -> None:
        self._stage = stage
        self._size = nbytes or 0
        self._have = 0

    def __call__(self, nbytes: int) -> None:
        """Count bytes that have come; fewer than none if a download begins anew."""
        before = min(self._have, self._size)
        self._have += nbytes
        self._stage.advance(min(self._have, self._size) - before)


def _some(names: Iterable[str]) -> str:
    """The first of many names."""
    first = [shown(name) for name in islice(names, _NAMES_SHOWN + 1)]
    if len(first) > _NAMES_SHOWN:
        first[-1] = "…"
    return ", ".join(first) or "it has none"
