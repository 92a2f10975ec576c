"""Which file of a checkpoint holds which tensor, and whether its index says the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from releasekit.checkpoint.discover import Found
from releasekit.errors import FormatError
from releasekit.names import shown


def homes(subject: str, files: Iterable[tuple[str, Iterable[str]]]) -> dict[str, str]:
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
