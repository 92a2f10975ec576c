"""The contenders that are not programs of their own, one a process, for scripts/bench.py.

    python scripts/benchmark/contend.py xor BASE TARGET
    python scripts/benchmark/contend.py zipnn BASE TARGET OUT
    python scripts/benchmark/contend.py unzipnn BASE PACKED OUT

and two helpers, which are not timed:

    python scripts/benchmark/contend.py describe MODEL
    python scripts/benchmark/contend.py compare TARGET REBUILT

Each prints one JSON document. The environment needs numpy, and what the contender is named
after; nothing of releasekit, whose start would count against them.

xor: the usual way by hand. XOR, byte planes, zstd level 3, in one thread and in pieces of
8 MiB. It counts what it would publish and writes nothing.

zipnn: ZipNN's delta compression as its own script does it: streaming, the dtype set, all
else as it comes, so as many threads as processors. That script takes whole files, and four
times the model in memory; here it gets a tensor at a time, for as few bytes. What it
publishes is written: for each of the target's files its header, then the tensors in order,
each after its length. unzipnn reads that.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 1 << 23
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4}
WIDTHS |= {"BF16": 2, "F16": 2, "I16": 2, "U16": 2}
ZIPNN_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor and where its bytes lie."""

    path: Path
    begin: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    def like(self, other: Tensor | None) -> bool:
        """Whether the two can be compared byte by byte."""
        return other is not None and (self.dtype, self.shape) == (other.dtype, other.shape)

    def read(self, start: int = 0, count: int | None = None) -> bytes:
        """Bytes of the tensor; by default all of them."""
        with self.path.open("rb") as file:
            file.seek(self.begin + start)
            return file.read(self.nbytes if count is None else count)

    def values(self) -> NDArray[Any]:
        """The weights as numbers; unknown dtypes as bytes."""
        words = np.frombuffer(self.read(), np.dtype(f"u{WIDTHS.get(self.dtype, 1)}"))
        if self.dtype == "BF16":
            return (words.astype(np.uint32) << 16).view(np.float32)
        return words.view(np.float16) if self.dtype == "F16" else words


def weight_files(model: Path) -> list[Path]:
    """The safetensors files of a model: a folder or a file."""
    return [model] if model.is_file() else sorted(model.glob("*.safetensors"))


def header_of(path: Path) -> bytes:
    """All bytes before the data."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def parse(header: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors that a header names, in the order of their bytes."""
    entries = json.loads(header[8:])
    entries.pop("__metadata__", None)
    tensors = {
        name: Tensor(
            path=path,
            begin=len(header) + entry["data_offsets"][0],
            nbytes=entry["data_offsets"][1] - entry["data_offsets"][0],
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
        )
        for name, entry in entries.items()
    }
    return dict(sorted(tensors.items(), key=lambda item: item[1].begin))


def tensors_of(model: Path) -> dict[str, Tensor]:
    """All tensors of a model by name."""
    return {
        name: tensor
        for path in weight_files(model)
        for name, tensor in parse(header_of(path), path).items()
    }


def xor(base: Path, target: Path) -> dict[str, Any]:
    """XOR base and target, split into byte planes, zstd level 3; one thread."""
    compressor = importlib.import_module("zstandard").ZstdCompressor(level=3)
    theirs, total = tensors_of(base), 0
    for name, tensor in tensors_of(target).items():
        other = theirs.get(name)
        width = WIDTHS.get(tensor.dtype, 1)
        with tensor.path.open("rb") as ours_file, (other or tensor).path.open("rb") as file:
            ours_file.seek(tensor.begin)
            file.seek((other or tensor).begin)
            for start in range(0, tensor.nbytes, PIECE):
                ours = np.empty(min(PIECE, tensor.nbytes - start), np.uint8)
                ours_file.readinto(ours.data)
                if tensor.like(other):
                    piece = np.empty_like(ours)
                    file.readinto(piece.data)
                    ours ^= piece
                for plane in ours.reshape(-1, width).T:
                    total += len(compressor.compress(np.ascontiguousarray(plane).data))
    return {"published_nbytes": total}


def _zipnn(dtype: str, *, delta: bool) -> Any:
    # Imported by name: it is in the peers' environment only.
    return importlib.import_module("zipnn").ZipNN(
        bytearray_dtype=ZIPNN_DTYPES[dtype],
        delta_compressed_type="byte" if delta else 0,
        is_streaming=True,
    )


def zipnn(base: Path, target: Path, out: Path) -> dict[str, Any]:
    """Compress the XOR of base and target with ZipNN."""
    theirs = tensors_of(base)
    out.mkdir()
    for path in weight_files(target):
        header = header_of(path)
        with (out / f"{path.name}.znn").open("wb") as file:
            file.write(header)
            for name, tensor in parse(header, path).items():
                other = theirs.get(name)
                second = other.read() if other and tensor.like(other) else None
                packed = _zipnn(tensor.dtype, delta=second is not None).compress(
                    tensor.read(), delta_second_data=second
                )
                file.write(len(packed).to_bytes(8, "little"))
                file.write(packed)
    return {"published_nbytes": sum(path.stat().st_size for path in out.iterdir())}


def unzipnn(base: Path, packed: Path, out: Path) -> dict[str, Any]:
    """Rebuild the target's weight files from what `zipnn` wrote."""
    theirs = tensors_of(base)
    out.mkdir()
    for path in sorted(packed.iterdir()):
        header = header_of(path)
        with path.open("rb") as file, (out / path.stem).open("wb") as rebuilt:
            rebuilt.write(file.read(len(header)))
            for name, tensor in parse(header, path).items():
                other = theirs.get(name)
                second = other.read() if other and tensor.like(other) else None
                data = file.read(int.from_bytes(file.read(8), "little"))
                rebuilt.write(
                    _zipnn(tensor.dtype, delta=second is not None).decompress(
                        data, delta_second_data=second
                    )
                )
    return {}


def describe(model: Path) -> dict[str, Any]:
    """Size, number of weights, and the dtype that most of the bytes have."""
    sizes = Counter[str]()
    weights = 0
    for tensor in tensors_of(model).values():
        sizes[tensor.dtype] += tensor.nbytes
        weights += tensor.nbytes // WIDTHS.get(tensor.dtype, 1)
    dtype = sizes.most_common(1)[0][0]
    return {"nbytes": sizes.total(), "weights": weights, "dtype": dtype}


def compare(target: Path, rebuilt: Path) -> dict[str, Any]:
    """The share of the target's weights whose values the rebuilt model does not have."""
    theirs = tensors_of(rebuilt)
    wrong = total = 0
    for name, tensor in tensors_of(target).items():
        other, values = theirs.get(name), tensor.values()
        total += values.size
        if other is None or other.shape != tensor.shape:
            wrong += values.size
        else:
            wrong += int(np.count_nonzero(values != other.values()))
    return {"wrong_weights": wrong / max(1, total)}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    command.__name__: command for command in (xor, zipnn, unzipnn, describe, compare)
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*map(Path, sys.argv[2:]))))
