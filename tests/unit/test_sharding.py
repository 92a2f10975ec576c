"""Shards and their index, as model libraries want them, and the same ones every time."""

import json
from itertools import permutations

import pytest
import safetensors.torch
import torch

from releasekit.errors import FormatError
from releasekit.sharding import METADATA, index_of, lay_out
from releasekit.tensors import DType, TensorSpec
from tests.builders import raw_header


def spec(name: str, size: int = 10, dtype: DType = DType.U8) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=(size,))


def files(specs: list[TensorSpec], shard_nbytes: int) -> dict[str, list[str]]:
    """Each shard's tensors, in the order in which they lie."""
    return {
        shard.name: [placed.spec.name for placed in shard.layout.tensors]
        for shard in lay_out(specs, shard_nbytes)
    }


def names(count: int) -> list[str]:
    return [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]


def test_a_model_that_fits_is_one_file() -> None:
    specs = [spec("b"), spec("a")]
    assert files(specs, 20) == {"model.safetensors": ["a", "b"]}
    assert index_of(lay_out(specs, 20)) == {}


def test_a_shard_is_closed_before_the_tensor_that_would_make_it_too_large() -> None:
    specs = [spec("a", 6), spec("b", 4), spec("c", 1), spec("d", 10), spec("e", 10)]
    found = files(specs, 10)
    assert list(found) == names(4)
    assert list(found.values()) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_a_tensor_larger_than_a_shard_has_one_to_itself() -> None:
    specs = [spec("a", 1), spec("b", 100), spec("c", 1)]
    assert list(files(specs, 10).values()) == [["a"], ["b"], ["c"]]
    assert list(files([spec("b", 100)], 1)) == ["model.safetensors"]


def test_tensors_without_bytes_open_no_shard() -> None:
    specs = [spec("a", 10), spec("b", 0), spec("c", 0)]
    assert files(specs, 10) == {"model.safetensors": ["a", "b", "c"]}


def test_layers_are_counted_as_people_do() -> None:
    specs = [spec(f"layers.{n}.w") for n in (10, 9, 1, 2, 0)]
    found = files([*specs, spec("head")], 10)
    assert [name for (name,) in found.values()] == [
        "head",
        *(f"layers.{n}.w" for n in (0, 1, 2, 9, 10)),
    ]


@pytest.mark.parametrize(
    "some",
    [
        ["b", "a.10", "a.9", "a"],
        ["a.1", "a.01", "a.001"],
        ["a.3", "a.٣"],
        ["1", "01", "x"],
        ["a.1.b", "a.01.a", "a.1"],
        [f"a.{'9' * 18}{n}" for n in range(3)],
    ],
    ids=lambda some: some[0],
)
def test_the_order_of_the_tensors_that_are_given_does_not_matter(some: list[str]) -> None:
    """A model makes the same files whatever it was read from."""
    made = [files([spec(name) for name in order], 10) for order in permutations(some)]
    assert all(found == made[0] for found in made)


def test_a_shard_lies_as_safetensors_own_writer_lays_it() -> None:
    state = {
        f"{letter}.{dtype}": torch.zeros(4, dtype=dtype)
        for letter in ("b", "a")
        for dtype in (
            *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16),
            *(torch.bfloat16, torch.int32, torch.float32, torch.int64, torch.float64),
            *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64),
        )
    }
    written = safetensors.torch.save(state, METADATA)
    length = int.from_bytes(written[:8], "little")
    header = json.loads(written[8 : 8 + length])
    del header["__metadata__"]
    labels = {dtype.label: dtype for dtype in DType}
    specs = [
        TensorSpec(name=name, dtype=labels[entry["dtype"]], shape=tuple(entry["shape"]))
        for name, entry in header.items()
    ]
    (shard,) = lay_out(reversed(specs), 1 << 30)
    assert {
        placed.spec.name: [placed.begin, placed.end] for placed in shard.layout.tensors
    } == {name: entry["data_offsets"] for name, entry in header.items()}
    assert shard.layout.file_size == len(written)


def test_shards_are_what_the_stock_reader_takes() -> None:
    specs = [spec("größe", 3, DType.F32), spec("重み", 5, DType.F16), spec("none", 0)]
    for shard in lay_out(specs, 12):
        data = raw_header(shard.layout.header, bytes(shard.layout.file_size))
        found = safetensors.torch.load(data[: shard.layout.file_size])
        assert found.keys() == {placed.spec.name for placed in shard.layout.tensors}
        assert shard.layout.metadata == {"format": "pt"}
        assert shard.layout.data_start % 8 == 0


def test_the_index_maps_every_tensor_to_its_file() -> None:
    specs = [spec("größe", 8), spec("a", 8), spec("b", 8)]
    shards = lay_out(specs, 16)
    ((name, data),) = index_of(shards).items()
    assert name == "model.safetensors.index.json"
    assert "größe" in data.decode()
    assert data.endswith(b"}\n")
    assert json.loads(data) == {
        "metadata": {"total_size": 24},
        "weight_map": {"a": names(2)[0], "b": names(2)[0], "größe": names(2)[1]},
    }


def test_files_may_have_another_stem() -> None:
    specs = [spec("a"), spec("b")]
    (one,) = lay_out(specs, 20, stem="adapter_model")
    assert one.name == "adapter_model.safetensors"
    two = lay_out(specs, 10, stem="x")
    assert [shard.name for shard in two] == [
        f"x-{n:05}-of-00002.safetensors" for n in (1, 2)
    ]
    assert list(index_of(two, stem="x")) == ["x.safetensors.index.json"]


def test_a_model_without_tensors_is_an_empty_file() -> None:
    (shard,) = lay_out([], 10)
    assert (shard.name, shard.layout.tensors) == ("model.safetensors", ())


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_names_that_cannot_stand_in_a_header_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        lay_out([spec(name)], 10)
