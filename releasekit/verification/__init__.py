"""Hold files against the digests that a release records.

    statuses   what is found of each file
    comparing  a folder and a list, and who hashes the files

A release carries SHA256SUMS over its own files, and rebuilt.SHA256SUMS over the model that
it rebuilds; a signature carries a list of its own, which goes before any other. Each file
is good, wrong, missing or unexpected. Anything but good fails: an unexpected file is not
the publisher's, and a loader may pick it up all the same.

A model on the Hub is downloaded as far as it is not in the cache, and all of it is hashed.
One whose publisher left no list is held against the Hub's own digests.

Hashing may be the work of several processes, a file each: of a pool, whose results are put
together here; or of shares, of which each tells of its own files, and none of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from releasekit.admission import check_claim
from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy, authenticate
from releasekit.authenticity import Status as SignatureStatus
from releasekit.checkpoint.files import Incoming
from releasekit.checkpoint.locate import is_on_hub, look, reach, refuse_hub
from releasekit.delta.release import Release, read_manifest, read_sums
from releasekit.digest import hash_file
from releasekit.errors import IntegrityError, SignatureError, UsageError
from releasekit.fetching import wanted_of
from releasekit.manifest import MANIFEST, REBUILT_SUMS, SIGNATURE, SUMS
from releasekit.parts.split import Share
from releasekit.parts.tasks import Pool
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.storage.address import is_stored, text
from releasekit.verification.comparing import Crew, compare
from releasekit.verification.statuses import FileStatus as FileStatus
from releasekit.verification.statuses import Status as Status
from releasekit.verification.statuses import Verification as Verification


def verify(
    path: str | Path,
    *,
    against: str | Path | None = None,
    signature: str | Path | None = None,
    policy: Policy = DEFAULT_POLICY,
    threads: int | None = None,
    pool: Pool | None = None,
    share: Share | None = None,
    progress: ProgressCallback | None = None,
) -> Verification:
    """Hash the files at `path` and compare them with the list.

    Args:
        path: a release folder, a rebuilt model (a folder, or its single weight file), a
            folder with a list or a signature of its own; here, in object storage, or
            `org/name@revision` on the Hub.
        against: the release that the model was rebuilt from, here or on the Hub; None for
            a release, and for a folder with a list or a signature.
        signature: a signature of the folder that does not lie in it as `model.sig`.
        policy: what is asked of the signature: that of `against`, if it is given.
        threads: files hashed at once; by default one a processor.
        pool: has the files hashed, on machines that find them under the same path: a file
            by one thread of one of them, since SHA-256 is a chain.
        share: look only at this share of the listed files, which are dealt out in the order
            of their names. The result never stands for all. Share 1 also looks for
            unexpected files, and the share that has the manifest checks that a release's
            lists agree with it. Signatures are checked by every share.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if `path` has no list and `against` is not given.
        FormatError: if a list, a signature or the manifest of a release is malformed.
        IntegrityError: if a list is missing, or contradicts the manifest.
        SignatureError: if the signature is not as the policy wants it.
        HubError: if a model on the Hub cannot be had.
    """
    crew = Crew(threads=threads, pool=pool, share=share, progress=progress)
    crew.check()
    if crew.is_spread:
        refuse_hub(*(model for model in (path, against) if model is not None))
    if is_on_hub(path):
        if against is not None or signature is not None:
            raise UsageError(
                f"{path}: is on the Hub, where its own list or signature is: leave the "
                "other one out, or `releasekit fetch` it and name its folder"
            )
        return _verify_on_hub(str(path), policy.of(path), crew)
    if not is_stored(path):
        return _verify(Path(path), against, signature, policy, crew)
    with reach(path, whole=True) as at:
        crew = replace(crew, coming=at.coming, origin=at.origin)
        result = _verify(at.path, against, signature, policy, crew)
    return replace(result, path=at.shared, against=text(at.shared))


def _verify(
    path: Path,
    against: str | Path | None,
    signature: str | Path | None,
    policy: Policy,
    crew: Crew,
) -> Verification:
    """A folder or a file, of which only the crew knows what is elsewhere."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if against is not None:
        if signature is not None:
            raise UsageError("a release and a signature to verify with: give one of them")
        policy, release = policy.of(against), look(against, crew.progress)
        return _verify_rebuilt(path, release, policy, crew)
    return _verify_own(path, signature, policy, crew)


def _verify_on_hub(reference: str, policy: Policy, crew: Crew) -> Verification:
    """A model on the Hub, by its own list or, if it has none, by the Hub's digests."""
    from releasekit.hub.snapshots import bring, look_up

    remote, names = look_up(reference, wanted=wanted_of)
    bring(remote, names, crew.progress)
    if any(name in names for name in (MANIFEST, SUMS, SIGNATURE)):
        return _verify_own(remote.folder, None, policy, crew)
    found = authenticate(remote.folder, policy)
    total = sum((remote.folder / name).stat().st_size for name in names)
    stage = Stage(crew.progress, "verify", total)

    def status(name: str, _: object) -> FileStatus:
        file, path = remote.listing.files[name], remote.folder / name
        digest = file.digest_of(path)
        stage.advance(path.stat().st_size)
        right = Status.GOOD if file.digest in (None, digest) else Status.WRONG
        return FileStatus(path=name, status=right, expected=file.digest, found=digest)

    with Workers(crew.threads) as workers:
        files = tuple(result for _, result in workers.in_order(status, sorted(names)))
    page = f"{remote.address.page}/tree/{remote.listing.commit}"
    return Verification(
        path=remote.folder,
        against=page,
        files=files,
        listed=len(files),
        authenticity=found,
    )


def _verify_own(
    path: Path,
    signature: str | Path | None,
    policy: Policy,
    crew: Crew,
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
    result = compare(path, listed, wanted, unlisted, found, crew)
    is_mine = any(file.path == MANIFEST for file in result.files)
    if result.faultless and is_mine and is_release and SUMS in {*wanted, *unlisted}:
        _check_release(path, found, policy, wanted, crew.coming)
    _tell(policy, found)
    return result


def _check_release(
    path: Path,
    found: Authenticity,
    policy: Policy,
    wanted: Mapping[str, str],
    coming: Incoming | None,
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
    with Release.open(path, signed=found.files, coming=coming) as release:
        check_claim(found, release.manifest, policy, path)
        check_lists(path, release, wanted)


def _verify_rebuilt(
    path: Path,
    release: Path,
    policy: Policy,
    crew: Crew,
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
    result = compare(folder, listed, wanted, unlisted, found, crew)
    _tell(policy, found)
    return result


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
