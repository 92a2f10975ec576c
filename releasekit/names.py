"""Names that come from files we did not write, checked before anything uses them.

A release is made on one system and rebuilt on others, so a path is judged by the
strictest of them: what macOS folds together, what Windows takes for a device, what a
terminal prints in another order than it stands. A name is returned as it came or
refused; nothing is repaired, since signatures and digests cover the exact spelling.

Tensor names never become paths here, yet other tools split models into a file a tensor,
so those that would leave a folder are refused too.

`shown` and `describe` live here as well: whatever a message quotes may be hostile, names
above all.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from releasekit.errors import FormatError

_MAX_SEGMENT_BYTES: Final = 255  # ext4, APFS, NTFS
_MAX_PATH_BYTES: Final = 1024  # PATH_MAX of macOS, the smallest of the three
_MAX_SEGMENTS: Final = 64  # more only cost time
_NAME_SHOWN: Final = 200  # characters; a name's end is what tells it from others
_VALUE_SHOWN: Final = 60

# C0, DEL and C1; the line ends that only Unicode knows; the bidi controls, with which a
# name reads differently from what it is ("Trojan Source", CVE-2021-42574).
_UNPRINTABLE: Final = re.compile(
    "[\0-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_WINDOWS_DEVICE: Final = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\..*)?", re.IGNORECASE
)
_PUBLISHER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_MAX_TITLE: Final = 200  # characters
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")


def shown(text: str, limit: int = _NAME_SHOWN) -> str:
    """Quotes `text` for a message: on one line, safe to print, cut after `limit`."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in json.dumps(cut, ensure_ascii=False)
    )


def describe(value: object) -> str:
    """Says in a message what was found: a JSON value, shortened, or a container's type."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        return shown(value, _VALUE_SHOWN)
    return json.dumps(value)


def listed(names: Sequence[str], limit: int = 3) -> str:
    """Names for a message: the first of them, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(name) for name in names[:limit]) + more


def is_publisher(name: str) -> bool:
    """Whether a publisher may be called so: as organisations on the Hub are."""
    return _PUBLISHER.fullmatch(name) is not None


def is_title(name: str) -> bool:
    """Whether a release may be called so: one line of printable text, not too long."""
    return 0 < len(name) <= _MAX_TITLE and name.isprintable()


def safe_path(name: str, where: str) -> str:
    """Returns `name` if it is a relative POSIX path that is safe on every system.

    Args:
        name: the path, with `/` between its segments.
        where: the file and field that `name` comes from; begins the message.

    Raises:
        FormatError: the path is absolute, climbs, or means another thing elsewhere.
    """
    fault = _path_fault(name)
    if fault is not None:
        raise FormatError(f"{where}: path {shown(name)} {fault}")
    return name


def refuse_clashes(names: Iterable[str], where: str) -> None:
    """Refuses paths that cannot all be files of one folder, on any system.

    Args:
        names: paths that `safe_path` accepts.
        where: the file and field that they come from; begins the message.

    Raises:
        FormatError: two names are equal, or become equal where case or Unicode form is
            not kept apart, or one is a folder that another lies in.
    """
    files: dict[str, str] = {}
    for name in names:
        key = folded(name)
        other = files.get(key)
        if other == name:
            raise FormatError(f"{where}: path {shown(name)} appears twice")
        if other is not None:
            raise FormatError(
                f"{where}: paths {shown(other)} and {shown(name)} are one file "
                "where case or Unicode form is not kept apart"
            )
        files[key] = name
    folders: set[str] = set()
    for key, name in files.items():
        parent = key.rpartition("/")[0]
        while parent and parent not in folders:  # else those above it were looked at, too
            folders.add(parent)
            if (folder := files.get(parent)) is not None:
                raise FormatError(
                    f"{where}: path {shown(folder)} is a file, and also the folder "
                    f"of {shown(name)}"
                )
            parent = parent.rpartition("/")[0]


def tensor_name(name: str, where: str) -> str:
    """Returns `name` if a tensor may be called so.

    Args:
        name: the tensor's key in its checkpoint.
        where: the file that `name` comes from; begins the message.

    Raises:
        FormatError: the name is empty, not Unicode text, holds NUL, or would leave its
            folder if a tool made it a path.
    """
    fault = None
    if not name:
        fault = "is empty"
    elif "\0" in name:
        fault = "holds a NUL character"
    elif not name.isascii() and _SURROGATE.search(name):
        fault = "holds half of a surrogate pair"
    elif name[0] in "/\\" or _DRIVE.match(name):
        fault = "is an absolute path"
    elif ".." in name and ".." in name.replace("\\", "/").split("/"):
        fault = 'has a ".." segment'
    if fault is not None:
        raise FormatError(f"{where}: tensor name {shown(name)} {fault}")
    return name


def _path_fault(name: str) -> str | None:
    if not name:
        return "is empty"
    if _SURROGATE.search(name):
        return "holds half of a surrogate pair"
    if found := _UNPRINTABLE.search(name):
        return f"holds the control character U+{ord(found[0]):04X}"
    if "\\" in name:
        return "holds a backslash, which separates folders on Windows"
    if ":" in name:
        return "holds a colon, which names a drive or a stream on Windows"
    if name.startswith("/"):
        return "is absolute; expected one relative to the release"
    if len(name.encode()) > _MAX_PATH_BYTES:
        return f"is longer than {_MAX_PATH_BYTES} bytes"
    if name.count("/") >= _MAX_SEGMENTS:
        return f"has more than {_MAX_SEGMENTS} segments"
    for segment in name.split("/"):
        if fault := _segment_fault(segment):
            return fault
    return None


def _segment_fault(segment: str) -> str | None:
    if not segment:
        return "has an empty segment"
    if segment in {".", ".."}:
        return f'has a "{segment}" segment'
    if segment[-1] in ". ":
        # Windows drops both, so that "a." would overwrite "a".
        return f"has a segment that ends in a dot or a space: {shown(segment)}"
    if len(segment.encode()) > _MAX_SEGMENT_BYTES:
        return f"has a segment longer than {_MAX_SEGMENT_BYTES} bytes"
    if _WINDOWS_DEVICE.fullmatch(segment):
        return f"has a segment that is a device on Windows: {shown(segment)}"
    return None


def folded(name: str) -> str:
    """A path as file systems compare it that keep neither case nor Unicode form apart."""
    # Unicode's canonical caseless match: decompose, fold, and compose again.
    if name.isascii():
        return name.lower()
    decomposed = unicodedata.normalize("NFD", name)
    return unicodedata.normalize("NFC", decomposed.casefold())
