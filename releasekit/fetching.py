"""Fetch a model or a release from the Hub, and prove every byte of it.

The revision becomes a commit first, and nothing is asked of another one after that. Then
come the files that say what the others must be: the signature, the lists, the manifest.
They are checked, and held against what the Hub lists, before anything large is downloaded:
a file that is missing, changed or added there is known at once. Then comes the rest; each
file is hashed as it arrives, and those that were here before are hashed too.

A model whose publisher left no list is held against the Hub's own digests alone, which say
that the download is what the Hub has, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy, authenticate
from releasekit.authenticity import Status as SignatureStatus
from releasekit.checkpoint.discover import choose
from releasekit.delta.release import read_manifest, read_sums
from releasekit.delta.trusted import open_trusted
from releasekit.errors import FormatError, IntegrityError, ReleaseKitError
from releasekit.hashing import hash_files
from releasekit.manifest import MANIFEST, MAX_MANIFEST, SIGNATURE, SUCCESSION, SUMS
from releasekit.names import listed
from releasekit.output import OutputFolder, require_space
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage, in_turn
from releasekit.received import PASSED_OVER

if TYPE_CHECKING:
    from releasekit.hub.snapshots import Place, Remote

#: Files that say what the others must be.
_PROOFS: Final = (SIGNATURE, SUCCESSION, SUMS, MANIFEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched.

    Attributes:
        path: the folder: in the cache, where nothing may be written to it, or `out`.
        name: organisation and name on the Hub.
        commit: the commit that the revision was.
        kind: "delta" for a release that is to be applied, else "model".
        files: SHA-256 of each file by its path.
        nbytes: their size.
        downloaded_nbytes: how many bytes came from the Hub now.
        offline: why the Hub was not asked, and the cache served; None if it was.
        against: what the files were held against: "signature", "list" or "hub".
        authenticity: whose it is.
        notes: what ought to be known.
    """

    path: Path
    name: str
    commit: str
    kind: str
    files: dict[str, str]
    nbytes: int
    downloaded_nbytes: int
    offline: str | None
    against: str
    authenticity: Authenticity
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the files of a revision must be.

    Attributes:
        digests: SHA-256 by path, as the publisher lists them; empty if they do not.
        against: whose list it is: "signature", "list" or "hub".
        authenticity: whose the files are.
        notes: what ought to be known.
    """

    digests: Mapping[str, str]
    against: str
    authenticity: Authenticity
    notes: tuple[str, ...] = ()


def fetch(
    reference: str,
    out: str | Path | None = None,
    *,
    policy: Policy = DEFAULT_POLICY,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Fetched:
    """Download `org/name` or `org/name@revision`, and check all of it.

    Args:
        reference: a release, or any model on the Hub; a branch, a tag or a commit of it.
        out: folder to make; by default the files stay in huggingface_hub's cache, where
            other tools find them, and there is no second copy.
        policy: what is asked of its signature.
        force: replace `out` if it exists.
        threads: files hashed at once; by default one a processor.
        progress: called with the bytes of each stage.

    Raises:
        UsageError: if the reference is none, or `out` exists.
        HubError: if the Hub refuses, or cannot be reached and the cache does not help.
        FormatError: if what the Hub lists cannot be, or the release is malformed.
        IntegrityError: if a file is missing, was added, or is not what it must be.
        SignatureError: if `policy` refuses it.
        OSError: if the disk fails; what has come is kept for the next call.
    """
    from releasekit.hub.snapshots import look_up

    policy, progress = policy.of(reference), in_turn(progress)
    remote, names = look_up(reference, wanted=wanted_of)
    if out is None:
        work = _Work(remote, names, policy, threads, progress)
        return work.into(remote, remote.folder)
    from releasekit.hub.folders import Into

    key = f"fetch {remote.address.site} {remote.address.name}"
    with OutputFolder(Path(out), key=key, force=force) as folder:
        sizes = [remote.listing.files[name].nbytes or 0 for name in names]
        require_space(folder.partial, sizes, folder.used_nbytes())
        for name in set(_PROOFS) - set(names):  # of another commit
            if (stale := folder.path(name)).is_file() or stale.is_symlink():
                stale.unlink()
        new = folder.path("")
        with _called(new, reference, policy) as as_called:
            work = _Work(remote, names, as_called, threads, progress)
            found = work.into(Into(folder), new, tidy=folder.keep_only)
        folder.commit()
    return replace(found, path=Path(out))


@contextmanager
def _called(folder: Path, reference: str, policy: Policy) -> Iterator[Policy]:
    """A policy that speaks of a folder in the making by the name that the user gave.

    So do the errors in the context: the folder is gone, or elsewhere, when they are read.
    """

    def named(text: str) -> str:
        return text.replace(str(folder), reference)

    try:
        yield replace(policy, warn=lambda warning: policy.tell(named(warning)))
    except ReleaseKitError as error:
        if str(folder) not in str(error):
            raise
        raise type(error)(named(str(error))) from error


def wanted_of(names: list[str]) -> list[str]:
    """Of all files of a revision, those to fetch.

    All of a release, and of a model that has a list; else what a model consists of, without
    the copies in other formats that lie beside it.
    """
    every = [name for name in names if name not in PASSED_OVER]
    if any(name in names for name in (MANIFEST, SIGNATURE, SUMS)):
        return every
    return choose(every) or every


@dataclass(frozen=True, slots=True)
class _Work:
    """What to fetch, and how."""

    remote: Remote
    names: list[str]
    policy: Policy
    threads: int | None
    progress: ProgressCallback | None

    def into(
        self,
        place: Place,
        folder: Path,
        tidy: Callable[[Iterable[str]], None] = lambda names: None,
    ) -> Fetched:
        """Bring all files to a place, which is a folder, and check them.

        Args:
            place: where they go.
            folder: the same.
            tidy: removes what is none of these files.
        """
        from releasekit.hub.snapshots import bring

        remote, names = self.remote, self.names
        proofs = [name for name in _PROOFS if name in names]
        others = [name for name in names if name not in proofs]
        for name in proofs:
            if (remote.listing.files[name].nbytes or 0) > MAX_MANIFEST:
                raise FormatError(f"{remote.address.page}: {name}: is too large to be one")
        came = bring(remote, proofs, self.progress, later=others, place=place)
        expected = expect(folder, self.policy, is_release=MANIFEST in names)
        notes = [*expected.notes, *hold(remote, names, expected)]
        if remote.offline is not None and expected.against == "hub":
            notes.append("the cache may hold a part of the model only")
        if MANIFEST in names:
            _hold_sizes(remote, folder, expected)
        came |= bring(remote, others, self.progress, place=place)
        tidy(names)
        files = self._prove(folder, expected.digests, came.keys())
        authenticity = expected.authenticity
        if MANIFEST in names:
            release, authenticity = open_trusted(folder, self.policy)
            release.close()
        elif authenticity.status is not SignatureStatus.UNSIGNED:
            for warning in authenticity.warnings:
                self.policy.tell(warning)
        return Fetched(
            path=folder,
            name=remote.address.name,
            commit=remote.listing.commit,
            kind="delta" if MANIFEST in names else "model",
            files=files,
            nbytes=sum((folder / name).stat().st_size for name in files),
            downloaded_nbytes=sum(came.values()),
            offline=remote.offline,
            against=expected.against,
            authenticity=authenticity,
            notes=tuple(notes),
        )

    def _prove(
        self, folder: Path, digests: Mapping[str, str], came: Set[str]
    ) -> dict[str, str]:
        """SHA-256 of all files, each of which is what it must be."""
        found: dict[str, str] = {}
        listing = self.remote.listing.files
        for name in self.names:
            sha256 = listing[name].sha256
            if name in came and sha256 and digests.get(name, sha256) == sha256:
                found[name] = sha256  # it was hashed as it arrived
        left = [name for name in self.names if name not in found]
        total = sum((folder / name).stat().st_size for name in left)
        stage = Stage(self.progress, "verify", total)
        with Workers(self.threads) as workers:
            for name, digest in hash_files(folder, left, workers, stage):
                expected = digests.get(name) or listing[name].sha256
                if expected is None:
                    expected = self._by_git(folder, name, digest)
                if digest != expected:
                    path = (folder / name).resolve()
                    raise IntegrityError(
                        f"{path}: expected {expected}, found {digest}: this copy is "
                        "damaged: delete it and run again"
                    )
                found[name] = digest
        return {name: found[name] for name in sorted(found)}

    def _by_git(self, folder: Path, name: str, digest: str) -> str | None:
        """What a file must be by the Hub's digest of git; its own if that is right."""
        file = self.remote.listing.files[name]
        right = file.digest is None or file.digest_of(folder / name) == file.digest
        return digest if right else file.digest


def expect(folder: Path, policy: Policy, *, is_release: bool) -> Expected:
    """What the files of a folder must be, by the lists in it, which are there.

    Args:
        folder: has the signature and the lists, if there are any.
        policy: what is asked of the signature.
        is_release: whether the list is releasekit's, and so must be sound.

    Raises:
        SignatureError: if `policy` refuses the signature.
        FormatError: if a signature, or a release's list, is malformed.
    """
    found = authenticate(folder, policy)
    if found.files is not None:
        return Expected(digests=found.files, against="signature", authenticity=found)
    notes: tuple[str, ...] = ()
    if (folder / SUMS).is_file():
        try:
            digests = read_sums(folder / SUMS)
            return Expected(digests=digests, against="list", authenticity=found)
        except FormatError as error:
            if is_release:
                raise
            notes = (f"{SUMS} was passed over: {error}",)
    return Expected(digests={}, against="hub", authenticity=found, notes=notes)


def hold(remote: Remote, names: Iterable[str], expected: Expected) -> Iterator[str]:
    """Hold what the Hub lists against what the publisher lists, before it is downloaded.

    Yields:
        What ought to be known.

    Raises:
        IntegrityError: if a file is missing, has other content, or was added to a release
            or to signed files.
    """
    if expected.against == "hub":
        return
    where = f"{remote.address.page} ({remote.listing.commit})"
    own = {SIGNATURE} if expected.against == "signature" else {SIGNATURE, SUMS}
    there = {name: remote.listing.files[name] for name in names if name not in own}
    if missing := sorted(expected.digests.keys() - there.keys()):
        step = "tell the publisher"
        if remote.offline is not None:
            step = (
                f"{remote.offline}, and the cache has only a part: run again with the Hub"
            )
        raise IntegrityError(f"{where}: lacks {listed(missing)}, which are listed: {step}")
    for name, file in there.items():
        digest = expected.digests.get(name)
        if None not in (digest, file.sha256) and digest != file.sha256:
            raise IntegrityError(
                f"{where}: {name}: expected sha256 {digest}, as the publisher lists it, "
                f"found {file.sha256}: it was damaged or changed there; tell the publisher"
            )
    strays = sorted(there.keys() - expected.digests.keys())
    if not strays:
        return
    if expected.against == "signature" or MANIFEST in there:
        raise IntegrityError(
            f"{where}: holds files that the publisher does not list: {listed(strays)}: "
            "tell the publisher"
        )
    yield f"{listed(strays)}: not in {SUMS}, held against the Hub's digests alone"


def _hold_sizes(remote: Remote, folder: Path, expected: Expected) -> None:
    """Hold the sizes that the Hub lists against the manifest, lest they fill the disk."""
    manifest, _ = read_manifest(folder, expected.authenticity.files)
    for name, entry in manifest.stored.items():
        file = remote.listing.files.get(name)
        if file is not None and file.nbytes not in (None, entry.size):
            raise IntegrityError(
                f"{remote.address.page}: {name}: expected {entry.size} bytes, as the "
                f"publisher lists it, found {file.nbytes}: tell the publisher"
            )
