"""Open-Assistant's and Pygmalion's releases: each file is the exclusive or of two files.

`xor_codec.py` takes the target's file and the base's file of that name, byte by byte; where
the base's is shorter it counts as zeros, and a file that the base lacks is skipped with a
line among many. So the base must have the very bytes that the publisher's had: another
converter, torch or tokenizer version ruins it, and the script cannot tell. Here the result
is held against what it must be: weight files have to open, with the checksums that torch
stores in them, and JSON has to be JSON.

Payloads may be compressed with gzip, as the script's `--compress` leaves them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from releasekit import sums
from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.beside import walk
from releasekit.checkpoint.discover import Kind
from releasekit.digest import sha256
from releasekit.errors import BaseMismatchError, FormatError, IntegrityError, UsageError
from releasekit.foreign.apply import ForeignResult
from releasekit.foreign.recipes import XOR
from releasekit.manifest import SUMS
from releasekit.names import refuse_clashes, safe_path, shown
from releasekit.output import OutputFolder, require_space
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.writing import sync, write

MD5_SUMS: Final = "MD5SUMS"  # what these publishers list in their model cards
_GZIP: Final = b"\x1f\x8b"
_WEIGHTS: Final = (*Kind.SAFETENSORS.suffixes, *Kind.PYTORCH.suffixes)
_NOT_FILES: Final = (".md", ".py", ".gitattributes")  # of the release, not of the model
_PIECE: Final = 1 << 20
_HEAD: Final = 4
#: Bytes that a file may be larger than the base's: new rows, and all of a small file.
_GROWTH: Final = 1 << 30


def is_xor(folder: Path) -> bool:
    """Whether a folder's weight files are exclusive ors rather than weights.

    Two zip archives, or two safetensors files with headers of about one size, begin alike,
    so their exclusive or begins with zeros, as no weight file does.
    """
    if not folder.is_dir():
        return False
    files = [p for p in sorted(folder.iterdir()) if p.name.endswith(_WEIGHTS)]
    heads = [_head(path) for path in files if path.is_file()]
    return bool(heads) and not any(map(any, heads))


def _head(path: Path) -> bytes:
    """The first bytes of a payload; ones if it has none."""
    with closing(_Payload(path, limit=_HEAD)) as payload:
        try:
            return payload.read(_HEAD) or b"\1"
        except FormatError:
            return b"\1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A file that was written."""

    name: str
    size: int
    sha256: str
    md5: str
    note: str | None


def apply_xor(
    base: Path,
    delta: Path,
    out: Path,
    *,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> ForeignResult:
    """Undo the exclusive or of all files in `delta` with those of `base`.

    Args:
        base: folder of the base's files, the very ones that the publisher had.
        delta: folder of the payloads.
        out: folder to make; appears complete and checked, or not at all.
        force: replace `out` if it exists.
        threads: files made at once; by default one a processor.
        progress: called with the bytes read of the payloads so far.

    Raises:
        UsageError: if a path is wrong, or `out` exists.
        BaseMismatchError: if a file of the base is missing, or the result is no model.
        FormatError: if a payload is malformed.
        OSError: if the system fails.
    """
    started = time.monotonic()
    for path in (base, delta):
        if not path.is_dir():
            raise UsageError(f"{path}: expected a folder of files")
    names = payload_names(delta)
    sizes = [(delta / name).stat().st_size for name in names]
    stage = Stage(progress, "write", sum(sizes))
    # Nothing is kept for a later run: payloads have no digests to go by.
    key = f"xor {time.time_ns()}"
    with OutputFolder(out, key=key, force=force, inputs=(base, delta)) as folder:
        require_space(folder.partial, sizes)
        try:
            with Workers(threads) as workers:
                jobs = workers.in_order(
                    lambda name, _: _file(folder, base, delta, name, workers, stage), names
                )
                with closing(jobs):
                    made = [file for _, file in jobs]
        except BaseMismatchError:
            folder.discard()
            raise
        files = {file.name: file.sha256 for file in made}
        folder.write(SUMS, sums.format_sums(files))
        folder.write(MD5_SUMS, b"".join(f"{m.md5}  {m.name}\n".encode() for m in made))
        folder.keep_only([*files, SUMS, MD5_SUMS])
        folder.commit()
    notes = [file.note for file in made if file.note is not None]
    return ForeignResult(
        out=out,
        recipe=XOR,
        why="its weight files are exclusive ors of two files",
        dtype=None,
        identity=None,
        files=dict(sorted(files.items())),
        nbytes=sum(file.size for file in made),
        sum=None,
        notes=(*notes, f"{MD5_SUMS} is for comparison with what the publisher lists"),
        kept=(),
        seconds=time.monotonic() - started,
    )


def payload_names(delta: Path) -> list[str]:
    """Paths of the payloads in a folder; FormatError if one is not safe to write."""
    names = [safe_path(name, str(delta)) for name in walk(delta)[0]]
    names = [name for name in names if not name.endswith(_NOT_FILES)]
    refuse_clashes([*names, SUMS, MD5_SUMS], str(delta))
    return names


def missing_files(base: Path, delta: Path) -> list[str]:
    """Payloads whose file the base lacks, and which are text as they are.

    Raises:
        BaseMismatchError: if there is one that is no text: it needs the base's file.
    """
    missing = [name for name in payload_names(delta) if not (base / name).is_file()]
    for name in missing:
        _refuse_missing(base, delta / name)
    return missing


def _file(
    folder: OutputFolder,
    base: Path,
    delta: Path,
    name: str,
    workers: Workers,
    stage: Stage,
) -> _Made:
    """Make one file, and check it."""
    payload, known, note = delta / name, base / name, None
    if not known.is_file():
        _refuse_missing(base, payload)
        note = f"{name}: the base has no such file; taken as it is"
    hasher, md5, size = sha256(), hashlib.md5(usedforsecurity=False), 0
    with ExitStack() as stack:
        limit = _GROWTH
        other: RawIOBase | BufferedIOBase | None = None
        if note is None:
            other = stack.enter_context(known.open("rb"))
            limit += known.stat().st_size
        source = stack.enter_context(closing(_Payload(payload, limit)))
        output = stack.enter_context(folder.create(name))
        while piece := source.read(_PIECE):
            workers.check()
            made = np.frombuffer(piece, np.uint8).copy()
            if other is not None:
                words = np.frombuffer(other.read(made.size), np.uint8)
                made[: words.size] ^= words
            write(output, made.data)
            hasher.update(made.data)
            md5.update(made.data)
            size += made.size
            stage.advance(source.advanced())
        sync(output)
    _check(folder.path(name), base, name)
    return _Made(
        name=name, size=size, sha256=hasher.hexdigest(), md5=md5.hexdigest(), note=note
    )


class _Payload:
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
                f"{self._path}: holds over {_GROWTH:,} bytes more than the base's file: it "
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


def _refuse_missing(base: Path, payload: Path) -> None:
    """The publisher's base lacked it as well if the payload is text as it is."""
    if not payload.name.endswith(_WEIGHTS) and _is_text(payload):
        return
    raise BaseMismatchError(
        f"{base}: file {shown(payload.name)} is missing, which the delta needs: it wants "
        "the very files that the publisher converted, under their names; see its card"
    )


def _is_text(path: Path) -> bool:
    with closing(_Payload(path, _PIECE)) as payload:
        data = payload.read(_PIECE)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
        if len(data) < _PIECE or error.start < len(data) - 3:
            return False
    return "\0" not in text


def _check(path: Path, base: Path, name: str) -> None:
    """Refuse what cannot be the publisher's file; BaseMismatchError."""
    try:
        if name.endswith(_WEIGHTS):
            open_checkpoint(path).close()
            if is_zipfile(path):
                _check_sums(path)
        elif name.endswith(".json"):
            json.loads(path.read_bytes())
    except (FormatError, IntegrityError, BadZipFile, ValueError, RecursionError) as error:
        raise BaseMismatchError(
            f"{base}: file {shown(name)} is not the one that the delta was made with: what "
            f"they combine to is no such file ({error}); the delta wants the very files "
            "that the publisher converted, see its card; nothing was kept"
        ) from error


def _check_sums(path: Path) -> None:
    """Hold a zip archive against the checksums that it stores."""
    with ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise IntegrityError(f"{path.name}: {shown(bad)} has another checksum")
