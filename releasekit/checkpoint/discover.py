"""Which files make up the checkpoint at a path, and of which kind they are.

A folder may hold several: an index says which shards belong together; without one, a
single file or a complete family `NAME-00001-of-0000N` does. Anything else is ambiguous,
and refused by name, since a guess would rebuild someone's model from the wrong half.

Where a folder holds the model in more than one format, safetensors comes first, then
PyTorch's files, then Meta's: that is the order in which model libraries look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.checkpoint.files import Coming
from releasekit.errors import FormatError, UsageError
from releasekit.licenses.chain import FOLDER as LICENSES
from releasekit.names import refuse_clashes, safe_path, shown


class Kind(Enum):
    """How a checkpoint is stored: what messages call it, and its files' suffixes."""

    SAFETENSORS = ("safetensors", (".safetensors",))
    PYTORCH = ("PyTorch", (".bin", ".pt", ".pth"))
    META = ("Meta", ("consolidated.NN.pth",))

    def __init__(self, label: str, suffixes: tuple[str, ...]) -> None:
        self.label = label
        self.suffixes = suffixes

    @property
    def indices(self) -> tuple[str, ...]:
        """How the names of its indices end."""
        return tuple(f"{suffix}.index.json" for suffix in self.suffixes)


SUFFIX: Final = ".safetensors"
PARAMS: Final = "params.json"
_RELEASE: Final = "release.json"  # what a delta of ours has, whose shards are no weights
_FORMAT: Final = b"releasekit-delta/"  # stands at its beginning
_HEAD: Final = 256
#: Weights in formats that hold a model a second time, or that cannot be read.
OTHER_WEIGHTS: Final = frozenset(
    (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".msgpack", ".h5", ".npz", ".onnx")
)
#: What trainers leave beside a model in PyTorch's format: state, no weights.
_TRAINER_STATE: Final = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?|trainer_state)\.(bin|pth?)"
)
_META: Final = re.compile(r"consolidated\.(\d\d)\.pth")
_SHARD: Final = re.compile(
    r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)"
)
#: Suffixes of what describes a model; LICENSE and NOTICE have none.
_DESCRIBES: Final = frozenset(
    ("", ".json", ".txt", ".md", ".model", ".tiktoken", ".jinja", ".pdf", ".py")
)
_MAX_INDEX: Final = 1 << 28
_FILES: Final = "a .safetensors, .bin, .pt or .pth file, its index, or a folder of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The files of one checkpoint.

    Attributes:
        kind: how they are stored.
        subject: the path that was asked for, for messages.
        root: the folder that the files' names are relative to.
        files: the weight files' names, sorted.
        index: the index's name, if there is one.
        weight_map: the index's map from tensor to file, if there is an index.
        coming: those that are on their way.
    """

    kind: Kind
    subject: str
    root: Path
    files: tuple[str, ...]
    index: str | None = None
    weight_map: dict[str, str] | None = None
    coming: Coming | None = None


def find(path: Path, exclude: Sequence[str] = (), coming: Coming | None = None) -> Found:
    """Find the checkpoint at `path`.

    Args:
        path: a folder, an index or a weight file.
        exclude: patterns of files in the folder to pass over, as the shell matches them.
        coming: files of the folder that are on their way, all of them safetensors.

    Raises:
        UsageError: if there is none, or more than one.
        FormatError: if its index is malformed, or one of its files is no weight file.
    """
    if path.is_dir():
        if _is_release(path / _RELEASE):
            raise UsageError(
                f"{path}: is a delta release, which holds no model: rebuild the model with "
                "`releasekit apply-delta`, and name its folder"
            )
        found = _in_folder(path, exclude, coming.names if coming else frozenset())
        return replace(found, coming=coming)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    if not path.is_file():
        raise UsageError(f"{path}: is neither a file nor a folder")
    if _META.fullmatch(path.name) and (path.parent / PARAMS).is_file():
        return _meta(path.parent, str(path))  # a part is of no use alone
    for kind in (Kind.SAFETENSORS, Kind.PYTORCH):
        if path.name.endswith(kind.indices):
            return _indexed(kind, path, str(path))
        if path.suffix in kind.suffixes:
            return Found(kind=kind, subject=str(path), root=path.parent, files=(path.name,))
    raise UsageError(f"{path}: {_why_not(path) or f'expected {_FILES}'}")


def _is_release(manifest: Path) -> bool:
    """Whether a file is the manifest of a release; a model may have one of that name."""
    if not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return _FORMAT in file.read(_HEAD)


def choose(names: Sequence[str]) -> list[str]:
    """Of all files in a folder, those that a checkpoint in it needs; none if it has none.

    For a folder that is elsewhere as yet: the weights of the kind that `find` would take,
    and what describes them: configs, tokenizer, licences.

    Args:
        names: paths of files, relative to the folder.
    """
    if _RELEASE in names:
        return list(names)  # a release, which is of use only as a whole
    top = [name for name in names if "/" not in name]
    told = (*top, *(name for name in names if name.startswith(f"{LICENSES}/")))
    others = [name for name in told if Path(name).suffix in _DESCRIBES]
    weights = [name for name in top if name.endswith(SUFFIX)]
    if not weights:
        pytorch = [n for n in top if n.endswith(Kind.PYTORCH.suffixes) and _is_weights(n)]
        meta = [name for name in pytorch if _META.fullmatch(name)]
        weights = [name for name in pytorch if name not in meta] or meta
    return [*weights, *others] if weights else []


def _in_folder(folder: Path, exclude: Sequence[str], coming: frozenset[str]) -> Found:
    here = {path.name for path in folder.iterdir() if path.is_file()}
    names = [
        name
        for name in sorted(here | {name for name in coming if "/" not in name})
        if not any(fnmatch(name, pattern) for pattern in exclude)
    ]
    meta = [name for name in names if _META.fullmatch(name)]
    names = [name for name in names if name not in meta]
    for kind in (Kind.SAFETENSORS, Kind.PYTORCH):
        indices = [folder / name for name in names if name.endswith(kind.indices)]
        if len(indices) == 1:
            return _indexed(kind, indices[0], str(folder), coming)
        if indices:
            found = ", ".join(path.name for path in indices)
            raise UsageError(
                f"{folder}: holds {len(indices)} checkpoints ({found}): name the index of "
                "the one you mean"
            )
        files = [n for n in names if n.endswith(kind.suffixes) and _is_weights(n)]
        if files:
            if len(files) > 1 or _SHARD.fullmatch(files[0]):
                files = _family(kind, folder, files)
            return Found(kind=kind, subject=str(folder), root=folder, files=tuple(files))
    if meta:
        return _meta(folder, str(folder))
    raise UsageError(f"{folder}: holds no weights that can be read{_what_else(folder)}")


def _is_weights(name: str) -> bool:
    return not _TRAINER_STATE.fullmatch(name)


def _meta(folder: Path, subject: str) -> Found:
    if not (folder / PARAMS).is_file():
        raise FormatError(
            f"{folder}: holds Meta's consolidated.NN.pth, but no {PARAMS}, which says how "
            "their tensors are joined: get it from where the weights came from"
        )
    files = sorted(p.name for p in folder.iterdir() if _META.fullmatch(p.name))
    return Found(kind=Kind.META, subject=subject, root=folder, files=tuple(files))


def _what_else(folder: Path) -> str:
    """What a folder without weights holds in their place, and what to do."""
    for path in sorted(folder.iterdir()):
        if reason := _why_not(path):
            return f", but {shown(path.name)}, which {reason}"
    return ": expected a .safetensors, .bin, .pt or .pth file"


def _why_not(path: Path) -> str:
    """Why a file of weights cannot be read, by its name."""
    if path.suffix in (".gguf", ".ggml"):
        return "is quantised, and rebuilds nothing: get the original weights"
    if path.suffix in OTHER_WEIGHTS and path.suffix not in Kind.PYTORCH.suffixes:
        return "is of a format that cannot be read: get the model as safetensors"
    return ""


def _family(kind: Kind, folder: Path, files: list[str]) -> list[str]:
    """Shards without an index: accepted if they are one complete family."""
    matches = [_SHARD.fullmatch(name) for name in files]
    families = {(m["stem"], m["count"], m["suffix"]) for m in matches if m is not None}
    if None in matches or len(families) != 1:
        raise UsageError(
            f"{folder}: holds {len(files)} {kind.label} files and no index "
            f"({', '.join(files[:4])}{', …' if len(files) > 4 else ''}): name the file "
            "that you mean, or --exclude the others of a target"
        )
    ((stem, count, suffix),) = families
    for number in range(1, int(count) + 1):
        name = f"{stem}-{number:05}-of-{count}{suffix}"
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
    return files


def _indexed(
    kind: Kind, index: Path, subject: str, coming: frozenset[str] = frozenset()
) -> Found:
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
        if name not in coming and not (index.parent / name).is_file():
            raise FormatError(f"{where}: weight_map: shard {shown(name)} is missing")
    refuse_clashes(names, f"{where}: weight_map")
    if not names:
        raise FormatError(f"{where}: weight_map: expected at least one tensor")
    return Found(
        kind=kind,
        subject=subject,
        root=index.parent,
        files=tuple(names),
        index=index.name,
        weight_map=files,
    )
