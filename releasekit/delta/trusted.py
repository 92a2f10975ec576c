"""Open a release as its publisher signed it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from releasekit.admission import admit
from releasekit.authenticity import Authenticity, Policy, authenticate
from releasekit.checkpoint.files import Incoming
from releasekit.delta.release import Release, require_signed
from releasekit.digest import hash_file
from releasekit.errors import IntegrityError
from releasekit.manifest import MANIFEST, SIGNATURE, SUMS
from releasekit.names import listed
from releasekit.received import files_in

#: What tools keep in a folder: not the publisher's, and never read by a rebuild. `verify`
#: lists them all the same.
_TOOLS: Final = (".git/", ".cache/")


def open_trusted(
    folder: Path, policy: Policy, coming: Incoming | None = None
) -> tuple[Release, Authenticity]:
    """Open a release, once its signature is what the policy wants.

    Payloads and the target's files are held against their digests as they are used; all
    others that are signed are here, and those that nobody signed are refused.

    Args:
        folder: where it is.
        policy: what is asked of its signature.
        coming: files of it that are on their way; None if there are none.

    Raises:
        SignatureError: if the policy refuses it.
        UsageError, FormatError, IntegrityError: as `Release.open` does.
    """
    found = authenticate(folder, policy)
    if found.files is not None:
        strays = [
            name
            for name in sorted({*files_in(folder), *(coming.names if coming else ())})
            if name not in found.files and name != SIGNATURE and not name.startswith(_TOOLS)
        ]
        if strays:
            raise IntegrityError(
                f"{folder}: holds files that are not signed: {listed(strays)}: remove "
                "them, or get the release anew"
            )
    with ExitStack() as stack:
        opened = Release.open(folder, signed=found.files, coming=coming)
        release = stack.enter_context(opened)
        if coming is not None and found.files is not None:
            coming.bring(coming.names - release.manifest.stored.keys())
        _check_unread(release, found.files or {})
        found = admit(found, release.manifest, release.key, policy, folder)
        stack.pop_all()
    return release, found


def _check_unread(release: Release, signed: Mapping[str, str]) -> None:
    """Check the signed files that nobody has read, and no rebuild will: the card, say."""
    for name in sorted(signed.keys() - release.manifest.stored.keys() - {MANIFEST, SUMS}):
        path = release.folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: is missing; download the release again")
        require_signed(path, hash_file(path), signed[name])
