"""Open-Assistant's and Pygmalion's releases: each file is the exclusive or of two files.

`xor_codec.py` takes the target's file and the base's file of that name, byte by byte; where
the base's is shorter it counts as zeros, and a file that the base lacks is skipped with a
line among many. So the base must have the very bytes that the publisher's had: another
converter, torch or tokenizer version ruins it, and the script cannot tell. Here the result
is held against what it must be: weight files have to open, with the checksums that torch
stores in them, and JSON has to be JSON.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Final
from zipfile import BadZipFile, ZipFile, is_zipfile

import numpy as np

from releasekit import sums
from releasekit.authenticity import DEFAULT_POLICY, Policy, refuse_unsigned
from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.locate import locate
from releasekit.digest import sha256
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    ReleaseKitError,
    UsageError,
)
from releasekit.foreign.apply import ForeignResult
from releasekit.foreign.payloads import (
    GROWTH,
    MD5_SUMS,
    PIECE,
    WEIGHTS,
    Payload,
    payload_names,
    refuse_missing,
)
from releasekit.foreign.recipes import XOR
from releasekit.manifest import SUMS
from releasekit.names import shown
from releasekit.output import OutputFolder, require_space
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.writing import sync, write

_MAX_JSON: Final = 1 << 27  # bytes; tokenizers take a tenth of that


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A file that was written."""

    name: str
    size: int
    sha256: str
    md5: str
    note: str | None


def apply_xor(
    base: str | Path,
    delta: str | Path,
    out: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    policy: Policy = DEFAULT_POLICY,
    progress: ProgressCallback | None = None,
) -> ForeignResult:
    """Undo the exclusive or of all files in `delta` with those of `base`.

    Args:
        base: folder of the base's files, the very ones that the publisher had; or a model
            on the Hub.
        delta: folder of the payloads, likewise.
        out: folder to make; appears complete and checked, or not at all.
        force: replace `out` if it exists.
        threads: files made at once; by default one a processor.
        policy: what is asked of signatures, which such files have none of.
        progress: called with the bytes read of the payloads so far.

    Raises:
        SignatureError: if `policy` wants a signature.
        UsageError: if a path is wrong, or `out` exists.
        BaseMismatchError: if a file of the base is missing, or the result is no model.
        FormatError: if a payload is malformed.
        OSError: if the system fails.
    """
    started = time.monotonic()
    refuse_unsigned(delta, policy.of(delta))
    base, delta, out = locate(base, progress), locate(delta, progress), Path(out)
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
        except ReleaseKitError:
            folder.discard()  # nothing of it is kept for another run
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
        sum_with_buffers=None,
        notes=(*notes, f"{MD5_SUMS} is for comparison with what the publisher lists"),
        kept=(),
        seconds=time.monotonic() - started,
    )


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
    if _is_model(name) and known.is_file():
        _check_base(known)
    if not known.is_file():
        refuse_missing(base, payload)
        note = f"{name}: the base has no such file; taken as it is"
    hasher, md5, size = sha256(), hashlib.md5(usedforsecurity=False), 0
    with ExitStack() as stack:
        limit = GROWTH
        other: RawIOBase | BufferedIOBase | None = None
        if note is None:
            other = stack.enter_context(known.open("rb"))
            limit += known.stat().st_size
        source = stack.enter_context(closing(Payload(payload, limit)))
        output = stack.enter_context(folder.create(name))
        while piece := source.read(PIECE):
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


def _is_model(name: str) -> bool:
    """Whether a file holds a model's weights, by its name; others may hold anything."""
    last = name.rpartition("/")[2]
    return last.endswith(WEIGHTS) and last.startswith(("model", "pytorch_model"))


def _check_base(known: Path) -> None:
    """Refuse a file of weights that is not whole: its end would count as zeros."""
    try:
        open_checkpoint(known).close()
    except (FormatError, IntegrityError) as error:
        raise BaseMismatchError(
            f"{error}; the delta wants the very files that the publisher converted, see "
            "its card; nothing was kept"
        ) from error


def _check(path: Path, base: Path, name: str) -> None:
    """Refuse what cannot be the publisher's file; BaseMismatchError."""
    try:
        if _is_model(name):
            open_checkpoint(path).close()
            if is_zipfile(path):
                _check_sums(path)
        elif name.endswith(".json"):
            _check_json(path)
    except (FormatError, IntegrityError, BadZipFile, ValueError, RecursionError) as error:
        raise BaseMismatchError(
            f"{base}: file {shown(name)} is not the one that the delta was made with: what "
            f"they combine to is no such file ({error}); the delta wants the very files "
            "that the publisher converted, see its card; nothing was kept"
        ) from error


def _check_json(path: Path) -> None:
    if path.stat().st_size > _MAX_JSON:
        raise FormatError(f"expected JSON of at most {_MAX_JSON} bytes")
    json.loads(path.read_bytes())


def _check_sums(path: Path) -> None:
    """Hold a zip archive against the checksums that it stores."""
    with ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise IntegrityError(f"{path.name}: {shown(bad)} has another checksum")
