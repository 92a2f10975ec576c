"""Open a release as its publisher signed it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from releasekit.authenticity import Authenticity, Policy, admit, authenticate
from releasekit.delta.release import Release
from releasekit.errors import IntegrityError
from releasekit.listing import files_in
from releasekit.manifest import SIGNATURE
from releasekit.names import listed

#: What tools keep in a folder: not the publisher's, and never read by a rebuild. `verify`
#: lists them all the same.
_TOOLS: Final = (".git/", ".cache/")


def open_trusted(folder: Path, policy: Policy) -> tuple[Release, Authenticity]:
    """Open a release, once its signature is what the policy wants.

    Files are held against their signed digests as they are used; those that nobody signed
    are refused here.

    Raises:
        SignatureError: if the policy refuses it.
        UsageError, FormatError, IntegrityError: as `Release.open` does.
    """
    found = authenticate(folder, policy)
    if found.files is not None:
        strays = [
            name
            for name in sorted(files_in(folder))
            if name not in found.files and name != SIGNATURE and not name.startswith(_TOOLS)
        ]
        if strays:
            raise IntegrityError(
                f"{folder}: holds files that are not signed: {listed(strays)}: remove "
                "them, or get the release anew"
            )
    release = Release.open(folder, signed=found.files)
    try:
        found = admit(found, release.manifest, release.key, policy, folder)
    except BaseException:
        release.close()
        raise
    return release, found
