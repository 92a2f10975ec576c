"""The files beside a model's weights: configs, tokenizer, licence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from releasekit.checkpoint.discover import OTHER_WEIGHTS, SUFFIX, Found, Kind
from releasekit.errors import UsageError
from releasekit.manifest import SIGNATURE
from releasekit.names import safe_path

#: Folders of tools, not of the model.
TOOL_FOLDERS: Final = frozenset((".git", ".github", ".cache", "__pycache__"))
_GIT: Final = ".gitattributes"  # what the Hub adds; of no use without its repository
_INDICES: Final = (*Kind.SAFETENSORS.indices, *Kind.PYTORCH.indices)


def beside(found: Found) -> tuple[list[str], list[str]]:
    """Files that a copy of a model in other files should have, and weights left out.

    Args:
        found: the checkpoint; if it was named by a file alone, there are none.

    Returns:
        Paths relative to `found.root`, sorted: all files but weights, their indices, and a
        signature over them; and what is left out: that, and weights that are not part of
        the checkpoint, in any format.

    Raises:
        FormatError: if a name is not safe to write elsewhere.
    """
    if not Path(found.subject).is_dir():
        return [], []
    kept, left_out = [], []
    for name in walk(found.root)[0]:
        if name in found.files or name.endswith(_INDICES) or name == _GIT:
            continue
        # A signature is of the files that it was made for.
        if Path(name).suffix in OTHER_WEIGHTS | {SUFFIX} or name == SIGNATURE:
            left_out.append(name)
        elif (found.root / name).is_file():
            kept.append(safe_path(name, str(found.root)))
    return kept, left_out


def walk(folder: Path) -> tuple[list[str], list[str]]:
    """Files below `folder`, sorted, and folders of tools; links to files are followed."""
    names: list[str] = []
    tools: list[str] = []
    for parent, folders, files in os.walk(folder):
        at = Path(parent).relative_to(folder)
        tools += [f"{(at / name).as_posix()}/" for name in folders if name in TOOL_FOLDERS]
        folders[:] = [name for name in folders if name not in TOOL_FOLDERS]
        for name in folders:
            if Path(parent, name).is_symlink():
                raise UsageError(
                    f"{Path(parent, name)}: is a link to a folder; copy the folder itself "
                    "there"
                )
        names += [(at / name).as_posix() for name in files]
    return sorted(names), tools
