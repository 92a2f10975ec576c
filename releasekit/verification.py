"""Hold files against the digests that a release records.

A release carries SHA256SUMS over its own files, and rebuilt.SHA256SUMS over the model that
it rebuilds; a signature carries a list of its own, which goes before any other. Each file
is good, wrong, missing or unexpected. Anything but good fails: an unexpected file is not
the publisher's, and a loader may pick it up all the same.

A model on the Hub is downloaded as far as it is not in the cache, and all of it is hashed.
One whose publisher left no list is held against the Hub's own digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from releasekit.admission import check_claim
from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy, authenticate
from releasekit.authenticity import Status as SignatureStatus
from releasekit.checkpoint.locate import is_on_hub, look
from releasekit.delta.release import Release, read_manifest, read_sums
from releasekit.digest import hash_file
from releasekit.errors import IntegrityError, SignatureError, UsageError
from releasekit.fetching import wanted_of
from releasekit.hashing import hash_files
from releasekit.manifest import MANIFEST, REBUILT_SUMS, SIGNATURE, SUMS
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.received import files_in


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
        files: a status for every file, listed or found, sorted by path.
        authenticity: whose the list is.
    """

    path: Path
    against: Path | str
    files: tuple[FileStatus, ...]
    authenticity: Authenticity

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
    signature: str | Path | None = None,
    policy: Policy = DEFAULT_POLICY,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Verification:
    """Hash the files at `path` and compare them with the list.

    Args:
        path: a release folder, a rebuilt model (a folder, or its single weight file), a
            folder with a list or a signature of its own, or `org/name@revision` on the Hub.
        against: the release that the model was rebuilt from, here or on the Hub; None for
            a release, and for a folder with a list or a signature.
        signature: a signature of the folder that does not lie in it as `model.sig`.
        policy: what is asked of the signature: that of `against`, if it is given.
        threads: files hashed at once; by default one a processor.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if `path` has no list and `against` is not given.
        FormatError: if a list, a signature or the manifest of a release is malformed.
        IntegrityError: if a list is missing, or contradicts the manifest.
        SignatureError: if the signature is not as the policy wants it.
        HubError: if a model on the Hub cannot be had.
    """
    if is_on_hub(path):
        if against is not None or signature is not None:
            raise UsageError(
                f"{path}: is on the Hub, where its own list or signature is: leave the "
                "other one out, or `releasekit fetch` it and name its folder"
            )
        return _verify_on_hub(str(path), policy.of(path), threads, progress)
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if against is not None:
        if signature is not None:
            raise UsageError("a release and a signature to verify with: give one of them")
        policy, release = policy.of(against), look(against, progress)
        return _verify_rebuilt(path, release, policy, threads, progress)
    return _verify_own(path, signature, policy, threads, progress)


def _verify_on_hub(
    reference: str, policy: Policy, threads: int | None, progress: ProgressCallback | None
) -> Verification:
    """A model on the Hub, by its own list or, if it has none, by the Hub's digests."""
    from releasekit.hub.snapshots import bring, look_up

    remote, names = look_up(reference, wanted=wanted_of)
    bring(remote, names, progress)
    if any(name in names for name in (MANIFEST, SUMS, SIGNATURE)):
        return _verify_own(remote.folder, None, policy, threads, progress)
    found = authenticate(remote.folder, policy)
    total = sum((remote.folder / name).stat().st_size for name in names)
    stage = Stage(progress, "verify", total)

    def status(name: str, _: object) -> FileStatus:
        file, path = remote.listing.files[name], remote.folder / name
        digest = file.digest_of(path)
        stage.advance(path.stat().st_size)
        right = Status.GOOD if file.digest in (None, digest) else Status.WRONG
        return FileStatus(path=name, status=right, expected=file.digest, found=digest)

    with Workers(threads) as workers:
        files = tuple(result for _, result in workers.in_order(status, sorted(names)))
    page = f"{remote.address.page}/tree/{remote.listing.commit}"
    return Verification(path=remote.folder, against=page, files=files, authenticity=found)


def _verify_own(
    path: Path,
    signature: str | Path | None,
    policy: Policy,
    threads: int | None,
    progress: ProgressCallback | None,
) -> Verification:
    """A folder by its signature, if a trusted key made it, and by its list."""
    is_release = (path / MANIFEST).is_file()
    signed = Path(signature) if signature is not None else path / SIGNATURE
    if not path.is_dir() and signature is not None:
        raise UsageError(f"{path}: expected the folder that was signed")
    if not (is_release or (path / SUMS).is_file() or signed.is_file() or signature):
        raise UsageError(
            f"{path}: is not a release: it has no {MANIFEST}, and no {SUMS} or {SIGNATURE} "
            "either; to check a rebuilt model, name its release with --against"
        )
    found = authenticate(path, policy, Path(signature) if signature is not None else None)
    listed_too = is_release or (path / SUMS).is_file()
    if found.files is None and (signature is not None or not listed_too):
        raise SignatureError(found.warnings[0])  # there is nothing else to check it by
    unlisted = {SIGNATURE} if signature is None else {_inside(path, signed)}
    if found.files is None:
        listed, wanted = path / SUMS, read_sums(path / SUMS)
        unlisted.add(SUMS)
    else:
        listed, wanted = signed, dict(found.files)
    compared = _compare(path, wanted, unlisted, threads, progress)
    result = Verification(path=path, against=listed, files=compared, authenticity=found)
    if result.ok and MANIFEST in wanted and is_release and SUMS in {*wanted, *unlisted}:
        _check_release(path, found, policy, wanted)
    _tell(policy, found)
    return result


def _check_release(
    path: Path, found: Authenticity, policy: Policy, wanted: Mapping[str, str]
) -> None:
    """The lists of a release, each of whose files is as one of them says, must agree."""
    if found.files is not None:
        own = read_sums(path / SUMS)
        for name, digest in own.items():
            if wanted.get(name) != digest:
                raise IntegrityError(f"{path}: {SUMS} and {SIGNATURE} disagree over {name}")
        for name in wanted:
            if name not in own and name != SUMS:
                raise IntegrityError(
                    f"{path}: {SUMS} does not list {name}, which is signed"
                )
    with Release.open(path, signed=found.files) as release:
        check_claim(found, release.manifest, policy, path)
        check_lists(path, release, wanted)


def _verify_rebuilt(
    path: Path,
    release: Path,
    policy: Policy,
    threads: int | None,
    progress: ProgressCallback | None,
) -> Verification:
    listed = release / REBUILT_SUMS
    if not (release / MANIFEST).is_file():
        raise UsageError(f"{release}: is not a release: it has no {MANIFEST}")
    found = authenticate(release, policy)
    own = read_sums(release / SUMS, found.files).get(REBUILT_SUMS)
    wanted = read_sums(listed, found.files)
    if own != hash_file(listed):
        raise IntegrityError(
            f"{listed}: is not the file that {SUMS} lists: the release is damaged or was "
            "changed; download it again"
        )
    check_claim(found, read_manifest(release, found.files)[0], policy, release)
    unlisted: set[str] | None = set()
    folder = path
    if path.is_file():
        wanted = {name: d for name, d in wanted.items() if name == path.name}
        if not wanted:
            raise UsageError(f"{path}: the release rebuilds no file {path.name}")
        folder, unlisted = path.parent, None
    compared = _compare(folder, wanted, unlisted, threads, progress)
    _tell(policy, found)
    return Verification(path=folder, against=listed, files=compared, authenticity=found)


def check_lists(path: Path, release: Release, listed: Mapping[str, str]) -> None:
    """The lists repeat digests of the manifest, for other tools; they must agree.

    Args:
        path: the release's folder.
        release: the same, opened.
        listed: SHA-256 of its files by their paths.

    Raises:
        IntegrityError: if they do not.
    """
    manifest = release.manifest
    for name, entry in manifest.stored.items():
        if listed.get(name) != entry.sha256:
            raise IntegrityError(f"{path}: {SUMS} and {MANIFEST} disagree over {name}")
    rebuilt = {name: entry.sha256 for name, entry in manifest.rebuilt.items()}
    if read_sums(path / REBUILT_SUMS) != rebuilt:
        raise IntegrityError(f"{path}: {REBUILT_SUMS} and {MANIFEST} disagree")


def _inside(folder: Path, file: Path) -> str:
    """A file's path in a folder; the signature's usual one if it is not there."""
    resolved, root = file.resolve(), folder.resolve()
    if resolved.is_relative_to(root):
        return resolved.relative_to(root).as_posix()
    return SIGNATURE


def _tell(policy: Policy, found: Authenticity) -> None:
    """Warn of a signature that proves nothing; that there is none, the result says."""
    if found.status is not SignatureStatus.UNSIGNED:
        for warning in found.warnings:
            policy.tell(warning)


def _compare(
    folder: Path,
    wanted: Mapping[str, str],
    unlisted: set[str] | None,
    threads: int | None,
    progress: ProgressCallback | None,
) -> tuple[FileStatus, ...]:
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
            for name in files_in(folder)
            if name not in wanted and name not in unlisted
        ]
    files.sort(key=lambda file: file.path)
    return tuple(files)
