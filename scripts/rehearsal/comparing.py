"""Compare models byte for byte, without the code that made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from releasekit.errors import IntegrityError

_PIECE: Final = 1 << 22
_LENGTH: Final = 8
_INDEX: Final = "model.safetensors.index.json"


def same_files(tune: Path, found: Path) -> int:
    """Hold every file of the fine-tune against the one of its name.

    Returns:
        The bytes that were compared.

    Raises:
        IntegrityError: with what differs.
    """
    count = 0
    for path in sorted(path for path in tune.rglob("*") if path.is_file()):
        other = found / path.relative_to(tune)
        nbytes = path.stat().st_size
        if not other.is_file():
            raise IntegrityError(f"{other}: is missing")
        if other.stat().st_size != nbytes:
            raise IntegrityError(f"{other}: differs from {path} in size")
        count += _same((path, 0), (other, 0), nbytes)
    return count


def same_tensors(tune: Path, found: Path) -> int:
    """Hold every tensor, and every other file, of the fine-tune against what was found.

    Weights may be spread over other files, and their index then differs.

    Returns:
        The bytes that were compared.

    Raises:
        IntegrityError: with what differs.
    """
    ours, theirs = _tensors(tune), _tensors(found)
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise IntegrityError(f"{found}: has other tensors than {tune}: {odd[0]}")
    count = 0
    for name, (path, at, nbytes, kind) in ours.items():
        other, begin, _, other_kind = theirs[name]
        if kind != other_kind:
            raise IntegrityError(f"{other}: {name} is {other_kind}, expected {kind}")
        count += _same((path, at), (other, begin), nbytes)
    for path in sorted(tune.iterdir()):
        if path.suffix == ".safetensors" or path.name == _INDEX:
            continue
        other = found / path.name
        data = path.read_bytes()
        if not other.is_file() or other.read_bytes() != data:
            raise IntegrityError(f"{other}: is not {path}")
        count += len(data)
    return count


def _tensors(folder: Path) -> dict[str, tuple[Path, int, int, str]]:
    """File, place, size, and dtype with shape of every tensor."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry, start in _header(path):
            begin, end = entry["data_offsets"]
            kind = f"{entry['dtype']} {entry['shape']}"
            found[name] = path, start + begin, end - begin, kind
    return found


def _header(path: Path) -> Iterator[tuple[str, dict[str, Any], int]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        yield name, entry, _LENGTH + length


def _same(one: tuple[Path, int], other: tuple[Path, int], nbytes: int) -> int:
    with one[0].open("rb") as left, other[0].open("rb") as right:
        left.seek(one[1])
        right.seek(other[1])
        done = 0
        while done < nbytes:
            count = min(_PIECE, nbytes - done)
            if left.read(count) != right.read(count):
                raise IntegrityError(f"{other[0]}: differs from {one[0]} after byte {done}")
            done += count
    return nbytes
