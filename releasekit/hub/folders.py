"""Models on the Hub, downloaded into a folder of the user's instead of the cache.

There is one copy: what the cache holds already is copied from there, the rest comes
straight from the Hub. A file on its way bears its digest in its name, so that a later run
goes on with it even if the revision has moved meanwhile; and what such a run finds complete
it hashes, since the revision may have other content under that name now.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError
from releasekit.hub.answers import FaultError
from releasekit.hub.cache import held, not_arrived, receive
from releasekit.hub.listing import HubFile
from releasekit.hub.transfer import Source
from releasekit.names import shown
from releasekit.output import OutputFolder


@dataclass(frozen=True, slots=True)
class Into:
    """Where `releasekit.hub.snapshots.bring` puts files, if not into the cache.

    Attributes:
        folder: the folder in the making.
    """

    folder: OutputFolder

    def has(self, name: str) -> bool:
        """Whether a file is there; never, since it must be hashed first."""
        del name
        return False

    def add(self, source: Source, file: HubFile, advance: Callable[[int], None]) -> int:
        """Bring a file; returns and raises as `releasekit.hub.cache.add` does."""
        address, name = source.address, source.name
        place = self.folder.place(name)
        if _is_right(place, file):
            advance(file.nbytes or 0)
            return 0
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)  # of another commit
        for cached in held(source, file):
            size, _ = self.folder.copy(cached, name, advance)
            if file.digest is None or file.digest_of(place) == file.digest:
                return 0
            place.unlink()  # the cache's is damaged: that is for its owner to know
            advance(-size)
        # Two files may have one content, and the same folder.
        growing = place.with_name(f"{file.digest}-{sha256_hex(name.encode())[:8]}.part")
        try:
            found, came = receive(source, file, growing, advance)
        except FaultError as error:
            raise not_arrived(source, error) from error
        if file.digest is not None and found != file.digest:
            raise IntegrityError(
                f"{address.page}: expected {file.digest}, the digest of {shown(name)}, "
                f"found {found}; what came was removed: run again"
            )
        os.replace(growing, place)
        return came


def _is_right(place: Path, file: HubFile) -> bool:
    """Whether an earlier run brought just this."""
    if file.digest is None or place.is_symlink() or not place.is_file():
        return False
    return file.digest_of(place) == file.digest
