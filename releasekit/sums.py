r"""SHA256SUMS: the digests of a folder's files, as `sha256sum -c` reads them.

    <64 hexadecimal digits><two spaces><path>\n      one line a file, sorted by path

GNU's escaped lines (`\<digest>  <path>`) don't occur, for a path that would need one is
refused on both sides: each line then means the same file to every tool. Whether the
files have these digests is for others to find out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from releasekit.errors import FormatError
from releasekit.names import describe, refuse_clashes, safe_path, shown

_FILE: Final = "SHA256SUMS"
_MAX_FILES: Final = 200_000
_BOM: Final = b"\xef\xbb\xbf"
# The mark before the path says how the file was read; only DOS ever told the difference.
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *](.*)", re.DOTALL)


def format_sums(digests: Mapping[str, str]) -> bytes:
    """Returns the text for `digests`, which has at least one.

    Args:
        digests: the sha256 of each file, by path; 64 lowercase hexadecimal digits.

    Raises:
        FormatError: `parse_sums` would refuse the text.
    """
    for path in digests:
        # An end of line in a path would pass for a line of its own.
        safe_path(path, _FILE)
    data = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests)).encode()
    parse_sums(data, _FILE)
    return data


def parse_sums(data: bytes, subject: str) -> dict[str, str]:
    """Reads the digests of a folder's files.

    Args:
        data: the whole text.
        subject: the name of the file it comes from; begins every message.

    Returns:
        The sha256 of each file, by path, in the order of the lines.

    Raises:
        FormatError: the text is malformed, or names paths that are not safe together.
    """
    if not data:
        raise FormatError(f"{subject}: is empty; expected a line for each file")
    if data.startswith(_BOM):
        raise FormatError(f"{subject}: begins with a byte order mark; expected none")
    if (count := data.count(b"\n")) > _MAX_FILES:
        raise FormatError(
            f"{subject}: expected at most {_MAX_FILES:,} files, found {count:,}"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise FormatError(f"{subject}: line {number}: not UTF-8") from None
    *lines, rest = text.split("\n")
    if rest:
        raise FormatError(
            f"{subject}: line {len(lines) + 1}: expected an end of line, found the end of "
            "the file; it may be cut short"
        )
    digests: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise FormatError(
                f"{subject}: line {number}: expected 64 lowercase hexadecimal digits, two "
                f"spaces and a path, found {describe(line)}"
            )
        digest, path = match.groups()
        safe_path(path, f"{subject}: line {number}")
        if path in digests:
            raise FormatError(f"{subject}: line {number}: path {shown(path)} appears twice")
        digests[path] = digest
    refuse_clashes(digests, subject)
    return digests
