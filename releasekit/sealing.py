"""Sign a folder that is there: a release, or any model.

All files are hashed first, and held against the list that the folder has of them, so that
nobody signs what was damaged since it was made. In a release, the signature over the model
that it rebuilds is made as well, and SHA256SUMS renewed.

Each file is replaced whole, the signature last: a run that was stopped leaves a folder that
is unsigned, or signed as before with a list that does not fit; signing it again mends that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from releasekit.card.view import UNSIGNED
from releasekit.delta.diagnosis import is_release
from releasekit.delta.notary import read_succession, seal, sign_files
from releasekit.delta.release import Release, read_sums
from releasekit.digest import sha256_hex
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.hashing import hash_files
from releasekit.licensing.clearance import CARD
from releasekit.manifest import REBUILT_SIGNATURE, SIGNATURE, SUCCESSION, SUMS
from releasekit.names import is_title, listed, safe_path, shown
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.received import PASSED_OVER, files_in, read_small, refuse_private_key
from releasekit.signing import bundle
from releasekit.signing.keys import PrivateKey
from releasekit.verification import check_lists
from releasekit.writing import replace, successor

#: Made anew by signing a release.
_RENEWED = (SIGNATURE, REBUILT_SIGNATURE, SUMS, SUCCESSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignResult:
    """What was signed.

    Attributes:
        path: the folder.
        kind: "release" or "folder".
        name: what it is called.
        key: fingerprint of the key.
        files: SHA-256 of each signed file by its path.
        added: files of a release that its list did not have.
        replaced: whether there was a signature before.
        denied: whether its card says that it is not signed.
    """

    path: Path
    kind: str
    name: str
    key: str
    files: dict[str, str]
    added: tuple[str, ...]
    replaced: bool
    denied: bool


def sign(
    path: str | Path,
    key: PrivateKey,
    *,
    succession: str | Path | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> SignResult:
    """Sign a release, or any folder, as it is.

    Args:
        path: the folder; all that lies in it is signed.
        key: signs it.
        succession: file of links by which the publisher's former keys vouch for this one;
            goes into the release.
        force: replace a signature that another key made.
        threads: files hashed at once; by default one a processor.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if `path` is no folder, is empty, holds what cannot be signed, or is
            signed by another key already.
        FormatError: if a list or the manifest is malformed, or a file has an unsafe name.
        IntegrityError: if a file is not what the folder's list says.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: expected a folder to sign")
    refuse_other_key(path, key, force=force)
    release = is_release(path)
    links = read_succession(succession, key)
    if links is None and (path / SUCCESSION).is_file():
        try:
            links = read_succession(path / SUCCESSION, key)
        except UsageError as error:
            raise UsageError(f"{error}; remove it, or give --succession") from None
    names = _to_sign(path, release=release)
    total = sum((path / name).stat().st_size for name in names)
    with Workers(threads) as workers:
        stage = Stage(progress, "hash", total)
        digests = dict(hash_files(path, names, workers, stage))
    replaced = (path / SIGNATURE).is_file()
    small: dict[str, bytes] = {}
    added: tuple[str, ...] = ()
    name = path.resolve().name
    if not is_title(name):
        raise UsageError(
            f"{shown(name)}: is no name for what is signed: expected a line of 1 to 200 "
            "printable characters; rename the folder"
        )
    if release:
        added = _hold_against_list(path, digests)
        with Release.open(path) as opened:
            check_lists(path, opened, digests)
            name = opened.manifest.name
            small = seal(opened.manifest, digests, key, links)
    else:
        if (path / SUMS).is_file():
            _hold_against_list(path, digests)
        if links is not None:
            small[SUCCESSION] = links
        signed = digests | {new: sha256_hex(data) for new, data in small.items()}
        small[SIGNATURE] = sign_files(name, signed, key)
    digests |= {n: sha256_hex(data) for n, data in small.items() if n != SIGNATURE}
    for renewed in _RENEWED:  # of a run that was stopped
        successor(path / renewed).unlink(missing_ok=True)
    for new, data in small.items():
        replace(path / new, data)
    return SignResult(
        path=path,
        kind="release" if release else "folder",
        name=name,
        key=key.public.fingerprint,
        files=digests,
        added=added,
        replaced=replaced,
        denied=_denies(path / CARD),
    )


def _denies(card: Path) -> bool:
    return card.is_file() and UNSIGNED in card.read_text(errors="replace")


def refuse_other_key(path: Path, key: PrivateKey, *, force: bool) -> None:
    """Refuse to replace a signature that another key made, as UsageError."""
    signature = path / SIGNATURE
    if force or not signature.is_file():
        return
    try:
        found = bundle.parse(read_small(signature, bundle.MAX_NBYTES), str(signature))
    except FormatError as error:
        raise UsageError(f"{error}; replace it with --force") from None
    if found.hint != key.public.hint:
        raise UsageError(
            f"{signature}: is a signature by another key; replace it with --force"
        )


def _to_sign(path: Path, *, release: bool) -> list[str]:
    """The files of a folder, each fit to be signed; at least one."""
    made = _RENEWED if release else (SIGNATURE, SUCCESSION)
    passed = {*made, *(successor(path / name).name for name in _RENEWED)}
    for name in made:
        if (path / name).is_dir() and name != SUMS:
            raise UsageError(
                f"{path / name}: is a folder, where the signature is to be; remove it"
            )
    names = [name for name in sorted(files_in(path)) if name not in passed]
    tools = [name for name in names if name.startswith((".git/", ".github/"))]
    if tools:
        raise UsageError(
            f"{path}: holds a git repository's own files: {listed(tools)}: sign a folder "
            "that holds the release alone"
        )
    listed_in = [SUMS] if release and os.path.lexists(path / SUMS) else []
    for name in (*names, *listed_in):
        safe_path(name, str(path))
        file = path / name
        if file.is_symlink() or not file.is_file():
            raise UsageError(f"{file}: is a link, or no regular file, and cannot be signed")
        refuse_private_key(file)
    if not names:
        raise UsageError(f"{path}: is empty; there is nothing to sign")
    return names


def _hold_against_list(path: Path, digests: Mapping[str, str]) -> tuple[str, ...]:
    """Check files against SHA256SUMS; returns those that it does not list."""
    wanted = read_sums(path / SUMS)
    for name, expected in wanted.items():
        if name in (*_RENEWED, *PASSED_OVER):
            continue
        if (found := digests.get(name)) != expected:
            what = f"found {found}" if found else "which is missing"
            raise IntegrityError(
                f"{path / name}: expected sha256 {expected} as in {SUMS}, {what}: the "
                "release was damaged since it was made; make it again"
            )
    return tuple(name for name in digests if name not in wanted)
