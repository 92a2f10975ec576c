"""Add small files to a folder that is listed, and perhaps signed, and keep it consistent.

A signature of the folder as it was goes first: a run that is stopped leaves a folder that
is unsigned, never one whose signature is wrong. Then the files, each replaced whole; then
SHA256SUMS, if there is one; then what goes, which the list no longer has, so that the same
run finds it again; then the folder is signed anew, which hashes all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from releasekit import sums
from releasekit.delta.release import read_sums
from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.manifest import SIGNATURE, SUMS
from releasekit.names import safe_path
from releasekit.progress import ProgressCallback
from releasekit.sealing import SignResult, refuse_other_key, sign
from releasekit.signing.keys import PrivateKey
from releasekit.writing import replace


def require_key(folder: Path, key: PrivateKey | None, *, unsign: bool) -> None:
    """Refuse to break a signature without making a new one, by the same key.

    Raises:
        UsageError: if the folder is signed, it is not to be unsigned, and there is no key,
            or another one. `sign --force` says that the key is to be another.
    """
    if key is not None and not unsign:
        refuse_other_key(folder, key, force=False)
    if (folder / SIGNATURE).is_file() and key is None and not unsign:
        raise UsageError(
            f"{folder}: is signed, and would no longer be what was signed: give --sign-key "
            "to sign it again, or --unsign to remove the signature"
        )


def amend(
    folder: Path,
    files: Mapping[str, bytes],
    removed: Collection[str] = (),
    *,
    key: PrivateKey | None = None,
    succession: str | Path | None = None,
    unsign: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> SignResult | None:
    """Put `files` into a folder, and take others out of it.

    Args:
        folder: where.
        files: the bytes of each by its path.
        removed: paths of files that go, if they are there.
        key: signs the folder; None to leave it unsigned.
        succession: as in `sign`.
        unsign: remove a signature that there is, if there is no key.
        threads: files hashed at once, for the signature.
        progress: called with the bytes hashed so far.

    Returns:
        What was signed; None if nothing was.

    Raises:
        UsageError: if there is a signature, no key, and `unsign` is not set; or a file's
            place is taken by a link or a folder. Nothing was changed.
        FormatError: if SHA256SUMS is malformed. Nothing was changed.
        As `sign` does, with the files written and the folder unsigned.
    """
    require_key(folder, key, unsign=unsign)
    for path in (*files, *removed):
        _require_place(folder, safe_path(path, str(folder)))
    has_sums = (folder / SUMS).is_file()
    listed = read_sums(folder / SUMS) if has_sums else {}
    (folder / SIGNATURE).unlink(missing_ok=True)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if not _holds(folder / path, data):
            replace(folder / path, data)
        listed[path] = sha256_hex(data)
    for path in removed:
        listed.pop(path, None)
    if has_sums:
        replace(folder / SUMS, sums.format_sums(listed))
    for path in removed:
        (folder / path).unlink(missing_ok=True)
    if key is None:
        return None
    return sign(folder, key, succession=succession, threads=threads, progress=progress)


def _require_place(folder: Path, path: str) -> None:
    place = folder
    parts = path.split("/")
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UsageError(f"{place}: expected a folder, or nothing; move it away")
    place = folder / path
    if place.is_symlink() or (place.exists() and not place.is_file()):
        raise UsageError(f"{place}: is a link or a folder, not a file; move it away")


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
