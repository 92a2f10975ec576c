"""The identity of a checkpoint: what it depends on, and that nothing else matters.

Computed a second time here, from its description alone.
"""

import hashlib
import json
from pathlib import Path

import pytest
from blake3 import blake3

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.digest import hash_file, identity, pieces
from releasekit.tensors import DTYPES, TensorSpec
from tests.builders import RawTensor, model_folder

TENSORS: dict[str, RawTensor] = {
    "model.norm.weight": ("F32", (3,), bytes(range(12))),
    "model.größe": ("BF16", (2, 2), bytes(range(8))),
    "a": ("U8", (), b"\x07"),
    "\uffee": ("I64", (0, 5), b""),
    "\U00010000": ("F16", (1,), b"\0<"),  # before U+FFEE in UTF-16, after it in UTF-8
}
KNOWN = "de80267918c50748af0331d72aa497262d610eb566b9d7383ed6a068b0486c55"


def described(tensors: dict[str, RawTensor]) -> str:
    text = "releasekit checkpoint identity v1\n"
    for name in sorted(tensors, key=str.encode):
        dtype, shape, data = tensors[name]
        line = [name, dtype, list(shape), blake3(data).hexdigest()]
        text += json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
    return str(blake3(text.encode()).hexdigest())


def computed(tensors: dict[str, RawTensor]) -> str:
    return identity(
        (
            TensorSpec(name=name, dtype=DTYPES[dtype], shape=tuple(shape)),
            blake3(data).hexdigest(),
        )
        for name, (dtype, shape, data) in tensors.items()
    )


def of_files(path: Path) -> str:
    with open_checkpoint(path) as checkpoint:
        return identity(
            (spec, hash_tensor(checkpoint, name)) for name, spec in checkpoint.specs.items()
        )


def test_the_identity_is_what_its_description_says() -> None:
    assert computed(TENSORS) == described(TENSORS) == KNOWN


def test_an_empty_checkpoint_has_an_identity() -> None:
    assert computed({}) == blake3(b"releasekit checkpoint identity v1\n").hexdigest()


def test_the_order_of_tensors_does_not_matter() -> None:
    assert computed(dict(reversed(TENSORS.items()))) == KNOWN


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_sharding_and_metadata_do_not_matter(tmp_path: Path, shards: int) -> None:
    folder = model_folder(tmp_path / "m", TENSORS, shards=shards, metadata={"k": "v"})
    assert of_files(folder) == KNOWN
    folder = model_folder(
        tmp_path / "reversed", dict(reversed(TENSORS.items())), shards=shards
    )
    assert of_files(folder) == KNOWN


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", ("U8", (), b"\x08")),  # data
        ("a", ("I8", (), b"\x07")),  # dtype
        ("a", ("U8", (1,), b"\x07")),  # shape
        ("b", ("U8", (), b"\x07")),  # name
    ],
)
def test_all_of_a_tensor_matters(name: str, tensor: RawTensor) -> None:
    others = {key: value for key, value in TENSORS.items() if key != "a"}
    assert computed(others | {name: tensor}) != KNOWN
    assert computed(others) != KNOWN


def test_a_file_larger_than_a_piece_is_hashed_whole(tmp_path: Path) -> None:
    data = bytes(range(251)) * 10_000
    path = tmp_path / "file"
    path.write_bytes(data)
    assert hash_file(path) == hashlib.sha256(data).hexdigest()
    assert hash_file(path, blake3) == blake3(data).hexdigest()
    with path.open("rb") as file:
        sizes = [len(piece) for piece in pieces(file)]
    assert sum(sizes) == len(data)
    assert len(sizes) > 1
