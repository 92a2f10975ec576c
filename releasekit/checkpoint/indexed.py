"""What checkpoints of files have in common: opening them, and their index.

The index says which file of a checkpoint holds which tensor, as do the files themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from releasekit.checkpoint.discover import Found
from releasekit.checkpoint.files import Coming, Opener
from releasekit.errors import FormatError
from releasekit.names import shown


class Files:
    """A checkpoint of files, each of which holds whole tensors.

    Attributes:
        subject: what messages call it.
        file_sizes: size in bytes of each file by its name, sorted.
        homes: the file of each tensor by its name.
    """

    subject: str
    file_sizes: Mapping[str, int]
    homes: Mapping[str, str]
    _kept: ExitStack

    def __init__(
        self, subject: str, root: Path, names: Sequence[str], opener: Opener
    ) -> None:
        """Open the named files below `root`. For subclasses."""
        raise NotImplementedError

    @classmethod
    def open(cls, found: Found) -> Self:
        """Open what `discover.find` found, and hold it against its index."""
        checkpoint = cls.open_files(found.subject, found.root, found.files, found.coming)
        try:
            check_index(found, checkpoint.homes)
        except FormatError:
            checkpoint.close()
            raise
        return checkpoint

    @classmethod
    def open_files(
        cls, subject: str, root: Path, names: Sequence[str], coming: Coming | None = None
    ) -> Self:
        """Open the named files below `root`, here or on their way, as one checkpoint."""
        with ExitStack() as kept:
            checkpoint = cls(subject, root, names, Opener(kept=kept, coming=coming))
            checkpoint._kept = kept.pop_all()
        return checkpoint

    def home(self, name: str) -> str:
        """The file that holds a tensor, for people."""
        return self.homes[name]

    def close(self) -> None:
        """Close all files."""
        self._kept.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def homes_of(subject: str, files: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
    """The file of each tensor.

    Args:
        subject: the checkpoint; begins the message.
        files: the files' names, each with the names of its tensors.

    Raises:
        FormatError: if a tensor stands in two files.
    """
    found: dict[str, str] = {}
    for file, tensors in files:
        for tensor in tensors:
            other = found.setdefault(tensor, file)
            if other != file:
                raise FormatError(
                    f"{subject}: tensor {shown(tensor)} stands in two files, {other} and "
                    f"{file}"
                )
    return found


def check_index(found: Found, homes: Mapping[str, str]) -> None:
    """Hold an index, if there is one, against the files.

    Raises:
        FormatError: if it lists other tensors, or other files for them.
    """
    if found.weight_map is None:
        return
    where = f"{found.root / str(found.index)}: weight_map"
    for tensor, file in found.weight_map.items():
        if tensor not in homes:
            raise FormatError(f"{where}: tensor {shown(tensor)} is not in {file}")
        if homes[tensor] != file:
            raise FormatError(
                f"{where}: tensor {shown(tensor)}: expected in {file}, found in "
                f"{homes[tensor]}"
            )
    for tensor, file in homes.items():
        if tensor not in found.weight_map:
            raise FormatError(f"{where}: tensor {shown(tensor)} of {file} is not listed")
