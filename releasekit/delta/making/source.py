"""What a maker releases: the target's weight files, and the files beside them.

Every file of the target folder is either weights (rebuilt), copied verbatim, or left out
for a reason that is stated. Weights in another format would be published whole, which is
what a delta is there to avoid, so they must be excluded by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from releasekit.checkpoint.beside import walk
from releasekit.checkpoint.discover import OTHER_WEIGHTS, SUFFIX, Found, Kind, find
from releasekit.checkpoint.files import Coming
from releasekit.errors import UsageError
from releasekit.names import refuse_clashes, safe_path
from releasekit.received import refuse_private_key


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFiles:
    """The files of a target.

    Attributes:
        found: its checkpoint.
        others: paths of the files to keep verbatim, relative to `found.root`, sorted.
        excluded: paths that were left out, sorted; folders of tools end in "/".
    """

    found: Found
    others: tuple[str, ...]
    excluded: tuple[str, ...]


def list_target(
    path: Path, exclude: Sequence[str], coming: Coming | None = None
) -> TargetFiles:
    """Sort the files at `path` into weights, others and excluded.

    Args:
        path: a folder, an index, or a single weight file, which then is the whole target.
        exclude: patterns of relative paths to leave out, as the shell matches them.
        coming: weight files of the folder that are elsewhere; None if there are none.

    Raises:
        UsageError: if weights are left over that belong to no checkpoint.
        FormatError: if a name is not safe to write elsewhere.
    """
    found = find(path, exclude, coming)
    if found.kind is not Kind.SAFETENSORS:
        raise UsageError(
            f"{path}: holds {found.kind.label} weights; a release is of safetensors: make "
            f"them with `releasekit convert {path} NEW_FOLDER`, and release NEW_FOLDER"
        )
    if not path.is_dir():
        if found.index is None:
            return TargetFiles(found=found, others=(), excluded=())
        return TargetFiles(found=found, others=(found.index,), excluded=())
    others: list[str] = []
    names, excluded = walk(path)
    for name in sorted({*names, *(coming.names if coming is not None else ())}):
        if name in found.files:
            continue
        if any(fnmatch(name, pattern) for pattern in exclude):
            excluded.append(name)
        elif Path(name).suffix in OTHER_WEIGHTS or name.endswith(SUFFIX):
            raise UsageError(
                f"{path / name}: holds weights that are not part of the checkpoint in "
                f"{path}, and would be published whole: leave it out with "
                f"--exclude '{name}'"
            )
        elif not (path / name).is_file():
            raise UsageError(
                f"{path / name}: is not a regular file, and cannot be released: leave it "
                f"out with --exclude '{name}'"
            )
        else:
            refuse_private_key(path / name)
            others.append(safe_path(name, str(path)))
    refuse_clashes([*found.files, *others], str(path))
    return TargetFiles(found=found, others=tuple(others), excluded=tuple(sorted(excluded)))
