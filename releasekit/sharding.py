"""How a model is laid out in files as model libraries do it: shards, and their index.

One file is `model.safetensors`; several are `model-0000i-of-0000N.safetensors`, with an
index that maps tensors to them. What goes where follows from the tensors' names, dtypes and
shapes alone, so that a model makes the same files whatever it was read from: a shard takes
the tensors of a few layers, in the order of their numbers, and is closed before the one
that would make it too large; inside, they lie as safetensors' own writer lays them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from releasekit import layout
from releasekit.layout import Layout
from releasekit.tensors import DType, TensorSpec

#: Size at which a shard is closed unless the caller says otherwise, in bytes.
DEFAULT_SHARD_NBYTES: Final = 5_000_000_000
#: Model libraries refuse a file that does not say for which of them it was made.
METADATA: Final = {"format": "pt"}
_NUMBER: Final = re.compile(r"([0-9]{1,18})")
_DTYPES: Final = {dtype: number for number, dtype in enumerate(DType)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A safetensors file that is to be: its name and layout."""

    name: str
    layout: Layout


def lay_out(
    specs: Iterable[TensorSpec], shard_nbytes: int, stem: str = "model"
) -> tuple[Shard, ...]:
    """Spread tensors over files.

    Args:
        specs: the tensors, in any order.
        shard_nbytes: most bytes of tensors in a file that holds more than one.
        stem: how the files' names begin.

    Raises:
        FormatError: if a tensor's name cannot stand in a header.
    """
    groups: list[list[TensorSpec]] = [[]]
    room = shard_nbytes
    for spec in sorted(specs, key=lambda spec: (_by_number(spec), spec.name)):
        if groups[-1] and spec.nbytes > room:
            groups.append([])
            room = shard_nbytes
        groups[-1].append(spec)
        room -= spec.nbytes
    count = len(groups)
    names = [f"{stem}-{number:05}-of-{count:05}" for number in range(1, count + 1)]
    if count == 1:
        names = [stem]
    return tuple(
        Shard(
            name=f"{name}.safetensors",
            layout=layout.build(sorted(group, key=_as_written), METADATA),
        )
        for name, group in zip(names, groups, strict=True)
    )


def _by_number(spec: TensorSpec) -> list[tuple[int, str]]:
    """Orders names as people count: layer 2 before layer 10."""
    parts = _NUMBER.split(spec.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _as_written(spec: TensorSpec) -> tuple[int, str]:
    """The order of safetensors' own writer: the widest dtypes first, which aligns all."""
    return -_DTYPES[spec.dtype], spec.name


def index_of(shards: Sequence[Shard], stem: str = "model") -> dict[str, bytes]:
    """The index of several shards, by its name; none for one."""
    if len(shards) == 1:
        return {}
    weight_map = {
        placed.spec.name: shard.name for shard in shards for placed in shard.layout.tensors
    }
    total = sum(p.spec.nbytes for shard in shards for p in shard.layout.tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    return {f"{stem}.safetensors.index.json": text.encode()}
