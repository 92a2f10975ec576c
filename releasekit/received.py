"""What somebody sent: the names in a folder, and its small files, whole.

Links and special files have names too, and files may be larger than they say.
"""

from __future__ import annotations

import os
import re
from io import BufferedReader
from pathlib import Path
from typing import Final

from releasekit.errors import FormatError, UsageError

_PRIVATE_KEY: Final = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE)
_MAX_KEY: Final = 1 << 14
_PIECE: Final = 1 << 20
#: What the Hub's client adds to a folder.
_HUB_FOLDER: Final = ".cache/huggingface/"
#: Git's settings, which the Hub and its users add to a folder, and the stock tool for
#: signatures looks past.
PASSED_OVER: Final = (".gitattributes", ".gitignore")


def read_small(path: Path, limit: int) -> bytes:
    """The content of a file, whatever it says that its size is.

    Raises:
        FormatError: if it has more than `limit` bytes.
    """
    with path.open("rb") as file:
        return read_open(file, limit)


def read_open(file: BufferedReader, limit: int) -> bytes:
    """The content of an open file; raises as `read_small`."""
    # Asked for all at once, memory would be set aside for all that there may be.
    size = os.fstat(file.fileno()).st_size
    pieces = []
    while size <= limit and (piece := file.read(_PIECE)):
        pieces.append(piece)
        size = max(size, sum(map(len, pieces)))
    if size > limit:
        raise FormatError(f"{file.name}: expected at most {limit} bytes, found {size}")
    return b"".join(pieces)


def refuse_private_key(path: Path) -> None:
    """Refuse to publish a file that holds a private key, as UsageError."""
    with path.open("rb") as file:
        head = file.read(_MAX_KEY)
    if _PRIVATE_KEY.search(head):
        raise UsageError(
            f"{path}: holds a private key, and would be published: move it away; if others "
            "may have read it, whatever it is for needs a new one"
        )


def files_in(folder: Path) -> list[str]:
    """Paths of all files below `folder`, links included, but for the Hub's and git's own.

    Raises:
        OSError: if a folder in it cannot be listed.
    """

    def give_up(error: OSError) -> None:
        raise error

    names = []
    for parent, folders, files in os.walk(folder, onerror=give_up):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative not in PASSED_OVER and not relative.startswith(_HUB_FOLDER):
                names.append(relative)
    return names
