"""PyTorch files as torch writes them: each tensor is what torch.load gives, bit for bit."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.serialization import skip_data

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.files import Opener, OpenFile, open_weights
from releasekit.checkpoint.pytorch import PyTorchCheckpoint, TorchFile
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.checkpoint.torchfile.archive import Archive
from releasekit.errors import FormatError, IntegrityError
from tests.builders import safetensors_bytes
from tests.torchfiles import (
    MAGIC,
    dict_of,
    legacy_file,
    pickle,
    storage,
    tensor,
    zip_file,
)

Tensors = Mapping[str, torch.Tensor]

FORMATS = [
    pytest.param({"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol})
    for zipped in (True, False)
    for protocol in (2, 3, 4, 5)
]
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def words(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor of any bits, of which a bool has two."""
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    if dtype is torch.bool:
        data &= 1
    return torch.from_numpy(data).view(dtype).reshape(shape)


def raw(value: torch.Tensor) -> bytes:
    flat = value.detach().contiguous().reshape(-1)
    if flat.dtype.is_complex:
        flat = torch.view_as_real(flat).reshape(-1)
    data: bytes = flat.view(torch.uint8).numpy().tobytes()
    return data


def untyped_in_older_format(path: Path, tensors: Tensors) -> bool:
    """Whether torch wrote what it cannot read: dtypes that the format is too old for."""
    new = {dtype for dtype in DTYPES if dtype in torch.storage._new_dtypes()}
    used = {value.dtype for value in tensors.values()}
    return not zipfile.is_zipfile(path) and not used.isdisjoint(new)


def check(path: Path, expected: Tensors) -> None:
    """All tensors of a file, whole and by ranges, are those that were saved."""
    if not untyped_in_older_format(path, expected):
        loaded = torch.load(path, weights_only=False)  # with true, of protocol 2 only
        assert {key: raw(value) for key, value in loaded.items()} == {
            key: raw(value) for key, value in expected.items()
        }
    source = random.Random(0)
    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint, PyTorchCheckpoint)
        assert set(checkpoint.specs) == set(expected)
        assert checkpoint.file_sizes == {path.name: path.stat().st_size}
        for key, spec in checkpoint.specs.items():
            data, itemsize = raw(expected[key]), expected[key].element_size()
            assert spec.name == key
            assert spec.dtype.label == DTYPES[expected[key].dtype]
            assert spec.shape == tuple(expected[key].shape)
            assert checkpoint.home(key) == path.name
            assert read(checkpoint, key, 0, spec.nbytes) == data
            for _ in range(8):
                ends = (source.randint(0, spec.numel) * itemsize for _ in range(2))
                begin, end = sorted(ends)
                assert read(checkpoint, key, begin, end) == data[begin:end]


def read(checkpoint: PyTorchCheckpoint, key: str, begin: int, end: int) -> bytes:
    out = np.empty(end - begin, np.uint8)
    checkpoint.read(key, begin, out)
    return out.tobytes()


class Tied(torch.nn.Module):
    """Weights of two names, buffers of several dtypes, and a part with its own version."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 5)
        self.norm = torch.nn.BatchNorm1d(5)
        self.head = torch.nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(3, 3, dtype=torch.bool).tril())


BASE = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
MODELS: dict[str, Callable[[], Tensors]] = {
    "every_dtype": lambda: {label: words(dtype, 5, 3) for dtype, label in DTYPES.items()},
    "every_dtype_scalar": lambda: {label: words(dtype) for dtype, label in DTYPES.items()},
    "every_dtype_empty": lambda: {
        label: words(dtype, 3, 0) for dtype, label in DTYPES.items()
    },
    "every_dtype_transposed": lambda: {
        label: words(dtype, 6, 4).T for dtype, label in DTYPES.items()
    },
    "module": lambda: Tied().state_dict(),
    "module_with_its_parameters": lambda: Tied().state_dict(keep_vars=True),
    "parameters": lambda: dict(Tied().named_parameters()),
    "attributes": lambda: {
        "b": torch.nn.Buffer(torch.ones(3)),
        "p": with_attribute(torch.nn.Parameter(torch.ones(2))),
        "t": with_attribute(torch.ones(2)),
    },
    "ordered": lambda: OrderedDict(b=BASE, a=BASE.bfloat16()),
    "views": lambda: {
        "whole": BASE,
        "row": BASE[1],
        "column": BASE[:, 2],
        "transposed": BASE.transpose(0, 2),
        "permuted": BASE.permute(1, 2, 0),
        "steps": BASE[::2, 1::2, ::3],
        "diagonal": BASE[0].diagonal(),
        "expanded": BASE[0, 0].expand(6, 5),
        "expanded_scalar": BASE[2, 3, 4].expand(2, 3),
        "cut_scalar": BASE[2, 3, 4],
        "nothing": BASE[:, 4:],
        "overlapping": BASE.as_strided((4, 4), (1, 1), 7),
    },
    "words_of_bytes_in_two_dtypes": lambda: {
        "bytes": (data := words(torch.uint8, 12)),
        "u16": data.view(torch.uint16)[1:4],
        "f8": data.view(torch.float8_e5m2),
    },
    "names": lambda: {
        key: torch.ones(1) for key in ("größe", "a b", "a/b", "😀", "x" * 300, "é" * 300)
    },
    "many": lambda: {f"layers.{i}.weight": torch.full((2,), i) for i in range(700)},
}


def with_attribute(value: torch.Tensor) -> torch.Tensor:
    value.tag = {"what": "ever"}  # type: ignore[attr-defined]
    return value


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", FORMATS)
def test_tensors_are_those_that_were_saved(
    model: str, options: dict[str, Any], tmp_path: Path
) -> None:
    tensors = MODELS[model]()
    torch.save(tensors, tmp_path / "m.bin", **options)
    check(tmp_path / "m.bin", tensors)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("stem", ["größe", "a b", "code", "data.pkl", "x" * 200])
def test_the_names_of_files_do_not_matter(stem: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.pt"
    torch.save({"w": BASE}, path, _use_new_zipfile_serialization=zipped)
    check(path, {"w": BASE})


def test_a_file_written_to_a_buffer(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": BASE}, buffer)
    (tmp_path / "m.pth").write_bytes(buffer.getvalue())
    check(tmp_path / "m.pth", {"w": BASE})


def test_a_zip_archive_that_was_packed_again(tmp_path: Path) -> None:
    """In another order, with a comment, and sizes before the data."""
    torch.save({"w": BASE, "v": BASE.half()}, tmp_path / "old.pt")
    with (
        zipfile.ZipFile(tmp_path / "old.pt") as old,
        zipfile.ZipFile(tmp_path / "m.pt", "w") as new,
    ):
        for entry in reversed(old.namelist()):
            new.writestr(entry, old.read(entry))
        new.comment = b"packed again"
    check(tmp_path / "m.pt", {"w": BASE, "v": BASE.half()})


def test_files_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": BASE}, tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    check(tmp_path / "m.pt", {"w": BASE})


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_made_by_hand_is_one_that_torch_reads(
    protocol: int, zipped: bool, tmp_path: Path
) -> None:
    """What tests of malformed files start from."""
    data = struct.pack("<4f", *range(4))
    more = () if zipped else (b"N",)
    value = dict_of({"w": tensor(storage("FloatStorage", "0", 4, *more))})
    made = pickle(value)
    file = zip_file(made, {"0": data}) if zipped else legacy_file(made, {"0": (4, data)})
    (tmp_path / "m.bin").write_bytes(file)
    check(tmp_path / "m.bin", {"w": torch.arange(4.0)})


def test_specs_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    data = torch.arange(10.0)
    tensors = {"c": data[5:], "z": torch.ones(2), "b": data[2:4], "a": data, "t": data}
    torch.save(tensors, tmp_path / "m.bin")
    with open_checkpoint(tmp_path / "m.bin") as checkpoint:
        assert list(checkpoint.specs) == ["a", "t", "b", "c", "z"]


def test_a_contiguous_range_is_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {
        "w": torch.arange(24.0).reshape(2, 3, 4),
        "r": torch.arange(4.0).view(1, 4, 1),
    }
    torch.save(tensors, tmp_path / "m.bin")
    reads: list[int] = []
    true = OpenFile.read_into

    def counted(self: OpenFile, offset: int, out: Any) -> None:
        reads.append(out.size)
        true(self, offset, out)

    with PyTorchCheckpoint.open(find(tmp_path / "m.bin")) as checkpoint:
        monkeypatch.setattr(OpenFile, "read_into", counted)
        assert read(checkpoint, "w", 12, 84) == raw(tensors["w"])[12:84]
        assert read(checkpoint, "r", 4, 12) == raw(tensors["r"])[4:12]
    assert reads == [72, 8]


def test_a_range_of_part_of_an_element_is_a_mistake(tmp_path: Path) -> None:
    torch.save({"w": BASE}, tmp_path / "m.bin")
    with (
        PyTorchCheckpoint.open(find(tmp_path / "m.bin")) as checkpoint,
        pytest.raises(ValueError, match="part of an element"),
    ):
        read(checkpoint, "w", 1, 5)


def test_torch_file_tells_where_tensors_lie(tmp_path: Path) -> None:
    torch.save({"b": BASE.permute(2, 1, 0), "a": BASE[1:].half()}, tmp_path / "m.bin")
    with ExitStack() as kept:
        file = TorchFile.open(tmp_path / "m.bin", "name", Opener(kept=kept))
        assert (file.name, file.file.size) == ("name", (tmp_path / "m.bin").stat().st_size)
        assert list(file.views) == list(file.specs) == ["b", "a"]
        assert (file.views["b"].shape, file.views["b"].strides) == ((5, 4, 3), (1, 5, 20))
        assert (file.views["a"].itemsize, file.views["a"].file) == (2, file.file)
        assert isinstance(file.file, OpenFile)
        fd = file.file.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# Several files.


def save_shards(folder: Path, *shards: Tensors) -> dict[str, str]:
    """Shards as transformers names them, and the map of their index."""
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        torch.save(dict(shard), folder / file)
        where |= dict.fromkeys(shard, file)
    return where


def write_index(folder: Path, where: Mapping[str, str]) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("indexed", [True, False])
def test_shards(indexed: bool, tmp_path: Path) -> None:
    first = {"b": BASE, "a": BASE.permute(2, 1, 0)}
    where = save_shards(tmp_path, first, {"c": BASE.half()})
    if indexed:
        write_index(tmp_path, where)
    with open_checkpoint(tmp_path) as checkpoint:
        assert isinstance(checkpoint, PyTorchCheckpoint)
        assert list(checkpoint.specs) == ["b", "a", "c"]
        assert {key: checkpoint.home(key) for key in "abc"} == where
        assert list(checkpoint.file_sizes) == sorted(set(where.values()))
        assert read(checkpoint, "c", 0, 120) == raw(BASE.half())


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": BASE, "b": BASE}, {"b": BASE})
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == (
        f'{tmp_path}: tensor "b" stands in two files, pytorch_model-00001-of-00002.bin and '
        "pytorch_model-00002-of-00002.bin"
    )


FIRST, SECOND = (f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2))
INDICES = {
    "tensor_missing": ({"a": FIRST, "b": SECOND, "c": SECOND}, f'"c" is not in {SECOND}'),
    "other_file": (
        {"a": FIRST, "b": FIRST, "x": SECOND},
        f'"b": expected in {FIRST}, found in {SECOND}',
    ),
    "not_listed": ({"a": FIRST, "x": SECOND}, f'"b" of {SECOND} is not listed'),
}


@pytest.mark.parametrize("case", INDICES)
@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_an_index_must_say_what_the_files_hold(
    case: str, suffix: str, tmp_path: Path
) -> None:
    """One and the same check for both formats."""
    where, message = INDICES[case]
    if suffix == "bin":
        save_shards(tmp_path, {"a": BASE}, {"b": BASE, "x": BASE})
        write_index(tmp_path, where)
        index = "pytorch_model.bin.index.json"
    else:
        files = {key: ("U8", [1], b"x") for key in "abx"}
        first, second = ({key: files[key] for key in keys} for keys in (("a",), ("b", "x")))
        where = {key: name.replace(".bin", ".safetensors") for key, name in where.items()}
        message = message.replace(".bin", ".safetensors")
        index = "model.safetensors.index.json"
        for file, tensors in ((FIRST, first), (SECOND, second)):
            path = tmp_path / file.replace(".bin", ".safetensors")
            path.write_bytes(safetensors_bytes(tensors))
        (tmp_path / index).write_text(json.dumps({"weight_map": where}))
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == f"{tmp_path / index}: weight_map: tensor {message}"


def test_safetensors_files_have_homes_and_sizes_too(tmp_path: Path) -> None:
    for file, key in (("b.safetensors", "x"), ("a.safetensors", "y")):
        (tmp_path / file).write_bytes(safetensors_bytes({key: ("U8", [1], b"x")}))
    names = ["b.safetensors", "a.safetensors"]
    with SafetensorsCheckpoint.open_files("m", tmp_path, names) as checkpoint:
        assert checkpoint.home("x") == "b.safetensors"
        sizes = [(file, (tmp_path / file).stat().st_size) for file in sorted(names)]
        assert list(checkpoint.file_sizes.items()) == sizes


def test_files_are_closed_whatever_happens(tmp_path: Path) -> None:
    save_shards(tmp_path, {"a": BASE}, {"b": BASE})
    (tmp_path / SECOND).write_bytes(b"not a model")
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path)
    save_shards(tmp_path, {"a": BASE}, {"b": BASE})
    write_index(tmp_path, {"a": FIRST, "x": SECOND})
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path)
    after = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    assert len(after) == len(before)


# Large files. They are sparse: nothing is written but what torch says of them.


def llama_65b() -> dict[str, tuple[int, ...]]:
    """The shapes of 723 tensors, which are 130 GB as bf16."""
    dim, ffn, vocab = 8192, 22016, 32000
    square, wide, norm = (dim, dim), (ffn, dim), (dim,)
    layer: dict[str, tuple[int, ...]] = {f"self_attn.{p}_proj": square for p in "qkvo"}
    layer |= {"mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": (dim, ffn)}
    layer |= {"input_layernorm": norm, "post_attention_layernorm": norm}
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{number}.{part}.weight": shape
        for number in range(80)
        for part, shape in layer.items()
    }
    return shapes | {
        "model.embed_tokens.weight": (vocab, dim),
        "model.norm.weight": norm,
        "lm_head.weight": (vocab, dim),
    }


def save_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A file of bf16 zeros, of which the disk holds only what lies between the tensors."""
    with FakeTensorMode():
        tensors = {
            key: torch.empty(shape, dtype=torch.bfloat16) for key, shape in shapes.items()
        }
    with skip_data(materialize_fake_tensors=True):
        torch.save(tensors, path)


def put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_65b_parameters_in_one_file_open_at_once(tmp_path: Path) -> None:
    path, shapes = tmp_path / "m.bin", llama_65b()
    save_sparse(path, shapes)
    assert path.stat().st_size > 130 * 10**9
    began = time.perf_counter()
    checkpoint = PyTorchCheckpoint.open(find(path))
    assert time.perf_counter() - began < 1  # it takes some hundredths
    with checkpoint:
        assert {key: spec.shape for key, spec in checkpoint.specs.items()} == shapes
        view = checkpoint._tensors["lm_head.weight"].views[0]
        assert view.offset > 2**36
        put(path, view.offset + 2**28, b"here")
        assert read(checkpoint, "lm_head.weight", 2**28 - 2, 2**28 + 6) == b"\0\0here\0\0"


@pytest.mark.slow
def test_as_many_tensors_as_no_16_bits_count(tmp_path: Path) -> None:
    tensors = {f"layers.{number}.w": torch.full((1,), number) for number in range(66_000)}
    torch.save(tensors, tmp_path / "m.bin")
    with PyTorchCheckpoint.open(find(tmp_path / "m.bin")) as checkpoint:
        assert list(checkpoint.specs) == list(tensors)
        for number in (0, 1, 65_534, 65_535, 65_999):
            key = f"layers.{number}.w"
            assert read(checkpoint, key, 0, 8) == number.to_bytes(8, "little")


def test_a_sparse_file_of_the_older_format(tmp_path: Path) -> None:
    path, numel = tmp_path / "m.bin", 3 * 2**30
    of = {key: storage("HalfStorage", key, numel, b"N") for key in "ab"}
    value = dict_of({key: tensor(of[key], 0, (3, 2**30), (2**30, 1)) for key in "ab"})
    file = legacy_file(pickle(value), dict.fromkeys("ab", (numel, b"")))
    head, sizes = file[:-16], file[-8:]
    with path.open("wb") as out:
        out.write(head)
        for _ in "ab":
            out.write(sizes)
            out.seek(2 * numel, 1)
        out.truncate()
    with PyTorchCheckpoint.open(find(path)) as checkpoint:
        put(path, len(head) + 2 * (8 + 2 * numel) - 4, b"last")
        assert read(checkpoint, "b", 2 * numel - 6, 2 * numel) == b"\0\0last"
        assert read(checkpoint, "a", 2 * numel - 6, 2 * numel) == bytes(6)


@pytest.mark.parametrize("count", [3, 700])
def test_members_are_where_the_stock_reader_finds_them(count: int, tmp_path: Path) -> None:
    tensors = {f"{number}": torch.ones(number % 7) for number in range(count)}
    torch.save(tensors, tmp_path / "m.pt")
    with ExitStack() as kept, zipfile.ZipFile(tmp_path / "m.pt") as stock:
        ours = Archive(open_weights(tmp_path / "m.pt", kept))
        assert [(m.name.decode(), m.header, m.size) for m in ours.members.values()] == [
            (entry.filename, entry.header_offset, entry.file_size)
            for entry in stock.infolist()
        ]
        for member in ours.members.values():
            assert ours.read(member, 1 << 20) == stock.read(member.name.decode())


def test_members_of_a_sparse_archive_are_too(tmp_path: Path) -> None:
    save_sparse(tmp_path / "m.pt", {"a": (3, 2**30), "b": (2,), "c": (2**31, 2), "d": ()})
    with ExitStack() as kept, zipfile.ZipFile(tmp_path / "m.pt") as stock:
        ours = Archive(open_weights(tmp_path / "m.pt", kept))
        assert [(m.name.decode(), m.header, m.size) for m in ours.members.values()] == [
            (entry.filename, entry.header_offset, entry.file_size)
            for entry in stock.infolist()
        ]
        assert max(member.size for member in ours.members.values()) == 2**33


# What torch saves that is no state dict of plain tensors.

LAST = "loading this file with pickle could run any code; nothing of it was run; get the "
LAST += "model as safetensors, or from a source you trust"


class Subclass(torch.Tensor):
    """A tensor of a class of its own."""


def optimizer() -> dict[str, object]:
    module = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(module.parameters())
    module(torch.ones(2)).sum().backward()
    adam.step()
    return {"step": 7, "model": module.state_dict(), "optimizer": adam.state_dict()}


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "module": (
        lambda: torch.nn.Linear(2, 2),
        "expected plain tensors, found a whole module, which is code "
        '("torch.nn.modules.linear.Linear"): save the model\'s state_dict() alone; ' + LAST,
    ),
    "module_of_a_program": (
        Tied,
        f'names "{Tied.__module__}.Tied", which is no part of a state dict of tensors; '
        + LAST,
    ),
    "training_checkpoint": (
        optimizer,
        'expected nothing but tensors, but "step" is the number 7: save the state dict '
        'alone, torch.save(torch.load(FILE, weights_only=True)["model"], NEW)',
    ),
    "one_tensor": (
        lambda: BASE,
        "expected a dict of tensors by name, found a tensor: save the model's state_dict() "
        "alone, torch.save(model.state_dict(), NEW)",
    ),
    "storage": (
        lambda: {"w": BASE.untyped_storage()},
        'expected nothing but tensors, but "w" is a storage without a tensor: save the '
        "tensors alone, torch.save({k: v for k, v in torch.load(FILE, weights_only=True)"
        ".items() if isinstance(v, torch.Tensor)}, NEW)",
    ),
    "nothing": (dict, "holds no tensors: its state dict is empty"),
    "quantised": (
        lambda: {"w": torch.quantize_per_tensor(BASE, 1.0, 0, torch.qint8)},
        "expected plain tensors, found quantised tensors "
        '("torch._utils._rebuild_qtensor"): get the original weights',
    ),
    "sparse": (
        lambda: {"w": torch.eye(2).to_sparse()},
        "expected plain tensors, found sparse tensors "
        '("torch._utils._rebuild_sparse_tensor"): save tensor.to_dense()',
    ),
    "meta": (
        lambda: {"w": torch.empty(2, device="meta")},
        "expected plain tensors, found tensors on the device meta, which have no data "
        '("torch._utils._rebuild_meta_tensor_no_storage"): save the model after its '
        "weights were loaded",
    ),
    "subclass": (
        lambda: {"w": torch.ones(2).as_subclass(Subclass)},
        "expected plain tensors, found tensors of a class of their own "
        f'("{Subclass.__module__}.Subclass"): save plain tensors; {LAST}',
    ),
    "numpy": (
        lambda: {"w": np.ones(2)},
        "expected plain tensors, found numpy's arrays or numbers "
        '("numpy._core.multiarray._reconstruct"): save them as tensors, '
        f"torch.from_numpy(); {LAST}",
    ),
    "complex128": (
        lambda: {"w": torch.ones(2, dtype=torch.complex128)},
        "expected plain tensors, found complex numbers of 128 bits, for which safetensors "
        'has no dtype ("torch.ComplexDoubleStorage"): save real and imaginary parts on '
        "their own",
    ),
    "conjugate": (
        lambda: {"w": torch.ones(2, dtype=torch.complex64).conj()},
        'tensor "w": is a conjugate or negative view, whose data is that of another '
        "tensor: save tensor.resolve_conj().resolve_neg()",
    ),
    "uninitialised": (
        lambda: torch.nn.LazyLinear(2).state_dict(),
        "expected plain tensors, found parameters that have no values yet "
        '("torch.nn.parameter.UninitializedParameter"): save the model after its weights '
        f"were set; {LAST}",
    ),
    "four_bits": (
        lambda: {"w": torch.ones(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)},
        "expected plain tensors, found pairs of 4-bit floats, which safetensors counts one "
        'by one ("torch.float4_e2m1fn_x2"): save tensor.view(torch.uint8)',
    ),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_other_things_that_torch_saves_are_refused(
    case: str, zipped: bool, tmp_path: Path
) -> None:
    make, message = REFUSED[case]
    path = tmp_path / "m.bin"
    torch.save(make(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: is a TorchScript archive, which holds code beside the weights: get the "
        "model's state dict, or its weights as safetensors"
    )


def test_booleans_are_checked_as_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    value = pickle(dict_of({"w": tensor(storage("BoolStorage"))}))
    path.write_bytes(zip_file(value, {"0": b"\0\1\2\0"}))
    with PyTorchCheckpoint.open(find(path)) as checkpoint:
        assert read(checkpoint, "w", 0, 2) == b"\0\1"
        with pytest.raises(FormatError) as caught:
            read(checkpoint, "w", 0, 4)
    assert str(caught.value) == (f'{path}: tensor "w": expected BOOL bytes 0 or 1, found 2')


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    torch.save({"w": torch.ones(100_000)}, path)
    with PyTorchCheckpoint.open(find(path)) as checkpoint:
        os.truncate(path, 50_000)
        with pytest.raises(IntegrityError, match="was cut short while it was in use"):
            read(checkpoint, "w", 0, 400_000)


def test_a_storage_that_was_a_file_of_python_2(tmp_path: Path) -> None:
    """Short strings of bytes, and an OrderedDict made of a list of lists."""
    legacy = (
        b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU\x0212"
        b"U\x03cpuK\x02NtQK\x00K\x02\x85K\x01\x85tR"
    )
    value = b"ccollections\nOrderedDict\n]]U\x01w" + legacy + b"ea\x85R"
    value = value.replace(b"]U\x01w", b"](U\x01w")
    data = struct.pack("<2f", 1, 2)
    path = tmp_path / "m.bin"
    path.write_bytes(
        legacy_file(pickle(value), {"12": (2, data)}, keys=b"]U\x0212a", magic=MAGIC)
    )
    check(path, {"w": torch.tensor([1.0, 2.0])})
