"""What lies in a folder that somebody sent, links and special files included."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: What the Hub's client and the Hub itself add to a folder; loaders read neither.
_HUB_FOLDER: Final = ".cache/huggingface/"
_HUB_FILE: Final = ".gitattributes"


def files_in(folder: Path) -> list[str]:
    """Paths of all files below `folder`, links included, but for the Hub client's own."""
    names = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            relative = Path(parent, name).relative_to(folder).as_posix()
            if relative != _HUB_FILE and not relative.startswith(_HUB_FOLDER):
                names.append(relative)
    return names
