"""Files for tests, made and read without the code that is under test.

A tensor is written as it lies on disk: `(dtype, shape, data)`, e.g.
`("BF16", [2], b"\\x80?\\x00@")`. Nothing is checked, so that malformed files can be made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors

RawTensor = tuple[str, Sequence[int], bytes]


def raw_header(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Returns a safetensors file with the given header.

    Args:
        header: the header's bytes, or a value to be written as JSON.
        data: what follows the header.
        length: the header length that the file claims; None for the true one.
    """
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(raw) if length is None else length
    return claimed.to_bytes(8, "little") + raw + data


def safetensors_bytes(
    tensors: Mapping[str, RawTensor],
    metadata: Mapping[str, str] | None = None,
    *,
    pad: int = 8,
) -> bytes:
    """Returns a safetensors file with the tensors' data in the given order.

    Args:
        tensors: dtype, shape and data of each tensor, by name.
        metadata: the header's `__metadata__`; None for a header without.
        pad: the header is padded with spaces to a multiple of this; 1 for no padding.
    """
    header: dict[str, object] = {}
    if metadata is not None:
        header["__metadata__"] = dict(metadata)
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        begin, end = end, end + len(data)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % pad)
    return raw_header(raw, b"".join(data for _, _, data in tensors.values()))


def model_folder(
    path: Path,
    tensors: Mapping[str, RawTensor],
    *,
    shards: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes a checkpoint as transformers lays it out, and returns its folder.

    Args:
        path: the folder; it and its parents are made.
        tensors: dtype, shape and data of each tensor, by name.
        shards: 1 for `model.safetensors`; more for `model-00001-of-0000N.safetensors`
            and so on, each with a run of the tensors, and `model.safetensors.index.json`.
            At most one a tensor.
        metadata: `__metadata__` of each file; None for `{"format": "pt"}`.
    """
    path.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"} if metadata is None else metadata
    if shards == 1:
        (path / "model.safetensors").write_bytes(safetensors_bytes(tensors, metadata))
        return path
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        begin, end = (len(names) * edge // shards for edge in (number, number + 1))
        shard = {name: tensors[name] for name in names[begin:end]}
        (path / file).write_bytes(safetensors_bytes(shard, metadata))
        weight_map |= dict.fromkeys(shard, file)
    total = sum(len(data) for _, _, data in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return path


def stock_tensors(file: bytes) -> dict[str, RawTensor]:
    """Returns what the safetensors library reads in a file: its tensors by name."""
    tensors = safetensors.deserialize(file)  # type: ignore[no-untyped-call]
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in tensors
    }
