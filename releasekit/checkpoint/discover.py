"""Which files make up the checkpoint at a path.

A folder may hold several: an index says which shards belong together; without one, a
single file or a complete family `NAME-00001-of-0000N` does. Anything else is ambiguous,
and refused by name, since a guess would rebuild someone's model from the wrong half.
Files that are not weights (an LFS pointer, an error page saved as a shard) are recognised
here too, because they are the most common way for a download to go wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.names import refuse_clashes, safe_path, shown

SUFFIX: Final = ".safetensors"
INDEX_SUFFIX: Final = ".safetensors.index.json"
#: Weights in formats that hold a model a second time, or that cannot be read yet.
OTHER_WEIGHTS: Final = frozenset(
    (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".msgpack", ".h5", ".npz", ".onnx")
)
_SHARD: Final = re.compile(
    r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.safetensors"
)
_MAX_INDEX: Final = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The files of one checkpoint.

    Attributes:
        subject: the path that was asked for, for messages.
        root: the folder that the files' names are relative to.
        files: the weight files' names, sorted.
        index: the index's name, if there is one.
        weight_map: the index's map from tensor to file, if there is an index.
    """

    subject: str
    root: Path
    files: tuple[str, ...]
    index: str | None = None
    weight_map: dict[str, str] | None = None


def find(path: Path, exclude: Sequence[str] = ()) -> Found:
    """Find the checkpoint at `path`.

    Args:
        path: a folder, an index or a weight file.
        exclude: patterns of files in the folder to pass over, as the shell matches them.

    Raises:
        UsageError: if there is none, or more than one.
        FormatError: if its index is malformed, or one of its files is no weight file.
    """
    if path.is_dir():
        return _in_folder(path, exclude)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(path, str(path))
    if path.suffix == SUFFIX:
        return Found(subject=str(path), root=path.parent, files=(path.name,))
    raise UsageError(f"{path}: expected a {SUFFIX} file, its index, or a folder of them")


def _in_folder(folder: Path, exclude: Sequence[str]) -> Found:
    names = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in exclude)
    ]
    indices = [folder / name for name in names if name.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return _indexed(indices[0], str(folder))
    if indices:
        raise UsageError(
            f"{folder}: holds {len(indices)} checkpoints "
            f"({', '.join(p.name for p in indices)}): name the index of the one you mean"
        )
    files = [name for name in names if name.endswith(SUFFIX)]
    if not files:
        raise UsageError(f"{folder}: holds no {SUFFIX} file{_what_else(folder)}")
    if len(files) == 1 and not _SHARD.fullmatch(files[0]):
        return Found(subject=str(folder), root=folder, files=tuple(files))
    return Found(subject=str(folder), root=folder, files=_family(folder, files))


def _what_else(folder: Path) -> str:
    others = sorted(p.name for p in folder.iterdir() if p.suffix in OTHER_WEIGHTS)
    if not others:
        return ""
    return (
        f", but {shown(others[0])}: this version reads safetensors only; save the model "
        "as safetensors first"
    )


def _family(folder: Path, files: list[str]) -> tuple[str, ...]:
    """Shards without an index: accepted if they are one complete family."""
    matches = [_SHARD.fullmatch(name) for name in files]
    families = {(m["stem"], m["count"]) for m in matches if m is not None}
    if None in matches or len(families) != 1:
        raise UsageError(
            f"{folder}: holds {len(files)} {SUFFIX} files and no index "
            f"({', '.join(files[:4])}{', …' if len(files) > 4 else ''}): name the file "
            "that you mean, or --exclude the others of a target"
        )
    ((stem, count),) = families
    for number in range(1, int(count) + 1):
        name = f"{stem}-{number:05}-of-{count}{SUFFIX}"
        if name not in files:
            raise FormatError(
                f"{folder}: expected {int(count)} shards, found {len(files)}: "
                f"{shown(name)} is missing"
            )
    if len(files) != int(count):
        raise FormatError(
            f"{folder}: expected {int(count)} shards, found {len(files)}; remove those "
            "numbered 0 or beyond"
        )
    return tuple(files)


def _indexed(index: Path, subject: str) -> Found:
    if index.stat().st_size > _MAX_INDEX:
        raise FormatError(f"{index}: expected an index of at most {_MAX_INDEX} bytes")
    where = str(index)
    record = strictjson.Record(strictjson.loads(index.read_bytes(), where), where)
    weight_map = record.record("weight_map")  # other fields are the writer's business
    tensors = weight_map.keys()
    files = {tensor: weight_map.text(tensor) for tensor in tensors}
    names = sorted(set(files.values()))
    for name in names:
        safe_path(name, f"{where}: weight_map")
        if not (index.parent / name).is_file():
            raise FormatError(f"{where}: weight_map: shard {shown(name)} is missing")
    refuse_clashes(names, f"{where}: weight_map")
    if not names:
        raise FormatError(f"{where}: weight_map: expected at least one tensor")
    return Found(
        subject=subject,
        root=index.parent,
        files=tuple(names),
        index=index.name,
        weight_map=files,
    )
