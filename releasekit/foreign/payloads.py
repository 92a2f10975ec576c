"""The payloads of a XOR release: which files they are, and what they hold.

Payloads may be compressed with gzip, as `xor_codec.py --compress` leaves them.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import closing
from pathlib import Path
from typing import Final

from releasekit.checkpoint.beside import walk
from releasekit.checkpoint.discover import Kind
from releasekit.errors import BaseMismatchError, FormatError
from releasekit.manifest import SUMS
from releasekit.names import refuse_clashes, safe_path, shown

MD5_SUMS: Final = "MD5SUMS"  # what these publishers list in their model cards
WEIGHTS: Final = (*Kind.SAFETENSORS.suffixes, *Kind.PYTORCH.suffixes)
PIECE: Final = 1 << 20  # bytes that are worked on at once
#: Bytes that a file may be larger than the base's: new rows, and all of a small file.
GROWTH: Final = 1 << 30
_GZIP: Final = b"\x1f\x8b"
_NOT_FILES: Final = (".md", ".py", ".gitattributes")  # of the release, not of the model
_HEAD: Final = 4


def is_xor(folder: Path) -> bool:
    """Whether a folder's weight files are exclusive ors rather than weights.

    Two zip archives, or two safetensors files with headers of about one size, begin alike,
    so their exclusive or begins with zeros, as no weight file does.
    """
    if not folder.is_dir():
        return False
    files = [p for p in sorted(folder.iterdir()) if p.name.endswith(WEIGHTS)]
    heads = [_head(path) for path in files if path.is_file()]
    return bool(heads) and not any(map(any, heads))


def _head(path: Path) -> bytes:
    """The first bytes of a payload; ones if it has none."""
    with closing(Payload(path, limit=_HEAD)) as payload:
        try:
            return payload.read(_HEAD) or b"\1"
        except FormatError:
            return b"\1"


class Payload:
    """A payload's bytes, uncompressed."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._left = limit
        self._told = 0
        self._raw = path.open("rb")
        packed = self._raw.peek(len(_GZIP))[: len(_GZIP)] == _GZIP
        self._stream = gzip.GzipFile(fileobj=self._raw) if packed else self._raw

    def read(self, nbytes: int) -> bytes:
        """Up to `nbytes` bytes; fewer only at the end."""
        try:
            data = self._stream.read(nbytes)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(
                f"{self._path}: is a damaged gzip file ({error}); download it again"
            ) from error
        self._left -= len(data)
        if self._left < 0:
            raise FormatError(
                f"{self._path}: holds over {GROWTH:,} bytes more than the base's file: it "
                "is not what this base was combined with"
            )
        return data

    def advanced(self) -> int:
        """Bytes of the file that were read since this was last asked."""
        here = self._raw.tell()
        told, self._told = self._told, here
        return here - told

    def close(self) -> None:
        """Close the file."""
        self._raw.close()


def payload_names(delta: Path) -> list[str]:
    """Paths of the payloads in a folder; FormatError if one is not safe to write."""
    names = [safe_path(name, str(delta)) for name in walk(delta)[0]]
    names = [name for name in names if not name.endswith(_NOT_FILES)]
    for name in names:
        if not (delta / name).is_file():
            raise FormatError(f"{delta / name}: is not a regular file")
    refuse_clashes([*names, SUMS, MD5_SUMS], str(delta))
    return names


def missing_files(base: Path, delta: Path) -> list[str]:
    """Payloads whose file the base lacks, and which are text as they are.

    Raises:
        BaseMismatchError: if there is one that is no text: it needs the base's file.
    """
    missing = [name for name in payload_names(delta) if not (base / name).is_file()]
    for name in missing:
        refuse_missing(base, delta / name)
    return missing


def refuse_missing(base: Path, payload: Path) -> None:
    """The publisher's base lacked it as well if the payload is text as it is."""
    if not payload.name.endswith(WEIGHTS) and _is_text(payload):
        return
    raise BaseMismatchError(
        f"{base}: file {shown(payload.name)} is missing, which the delta needs: it wants "
        "the very files that the publisher converted, under their names; see its card"
    )


def _is_text(path: Path) -> bool:
    with closing(Payload(path, PIECE)) as payload:
        data = payload.read(PIECE)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
        if len(data) < PIECE or error.start < len(data) - 3:
            return False
    return "\0" not in text
