"""Checkpoints as people have them: LLaMA-shaped, sharded, tied, grown, mixed, odd."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from releasekit import apply_delta, inspect, make_delta, open_delta, verify
from releasekit.codec import Ulp
from releasekit.delta.making.make import MakeResult
from tests.builders import RawTensor, model_folder, raw_header, safetensors_bytes
from tests.integration.tools import (
    Model,
    as_raw,
    digests,
    fine_tuned,
    llama,
    numbers,
    trained,
    weights,
)

CODEC = Ulp(chunk=4096)  # so that tensors of this size have several chunks


@pytest.fixture
def source() -> np.random.Generator:
    return np.random.default_rng(20230721)


def round_trip(
    base: Path, target: Path, tmp: Path, other: Path | None = None
) -> MakeResult:
    """Releases a target, rebuilds it, and compares every file; returns what was made."""
    before = base.read_bytes() if base.is_file() else digests(base)
    wanted = target.read_bytes() if target.is_file() else digests(target)
    made = make_delta(base, target, tmp / "delta", codec=CODEC)
    result = apply_delta(other or base, tmp / "delta", tmp / "out")
    assert result.files == digests(tmp / "out")
    if target.is_file():
        assert (tmp / "out" / target.name).read_bytes() == wanted == target.read_bytes()
    else:
        assert digests(tmp / "out") == wanted == digests(target)
    assert before == (base.read_bytes() if base.is_file() else digests(base))
    assert result.identity == made.target_identity
    assert verify(tmp / "delta").ok
    assert verify(tmp / "out", against=tmp / "delta").ok
    return made


def published(delta: Path) -> dict[str, int]:
    """Size of each payload in bytes."""
    return {info.spec.name: info.published_nbytes or 0 for info in inspect(delta).tensors}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("label", ["BF16", "F16", "F32"])
@pytest.mark.parametrize(("base_shards", "shards", "other"), [(2, 3, 1), (1, 2, 5)])
def test_a_llama_in_other_shards(
    tmp_path: Path,
    source: np.random.Generator,
    label: str,
    base_shards: int,
    shards: int,
    other: int,
) -> None:
    base = llama(source, label=label)
    made = round_trip(
        model_folder(tmp_path / "base", base, shards=base_shards),
        model_folder(tmp_path / "target", fine_tuned(source, base), shards=shards),
        tmp_path,
        model_folder(tmp_path / "other", dict(reversed(base.items())), shards=other),
    )
    changed = {name for name, op in made.tensors.items() if op == "delta"}
    assert changed >= {name for name in base if "norm" not in name}
    assert changed | {name for name, op in made.tensors.items() if op == "same"} == set(
        base
    )
    assert made.ratio < 0.9
    again = make_delta(tmp_path / "other", tmp_path / "target", tmp_path / "again")
    assert again.base_identity == made.base_identity
    assert again.target_identity == made.target_identity


def test_a_head_tied_to_the_embedding_is_stored_once(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    del base["lm_head.weight"]
    target = fine_tuned(source, base)
    target["lm_head.weight"] = target["model.embed_tokens.weight"]
    made = round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target, shards=3),
        tmp_path,
    )
    assert made.tensors["lm_head.weight"] == "alias"
    assert published(tmp_path / "delta")["lm_head.weight"] == 0


def test_heads_tied_on_both_sides(tmp_path: Path, source: np.random.Generator) -> None:
    base = llama(source)
    base["lm_head.weight"] = base["model.embed_tokens.weight"]
    target = fine_tuned(source, base)
    target["lm_head.weight"] = target["model.embed_tokens.weight"]
    made = round_trip(
        model_folder(tmp_path / "base", base, shards=2),
        model_folder(tmp_path / "target", target, shards=3),
        tmp_path,
    )
    assert made.operations["alias"] == 1


def test_a_model_released_on_itself_costs_nothing(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    base["lm_head.weight"] = base["model.embed_tokens.weight"]
    made = round_trip(
        model_folder(tmp_path / "base", base, shards=2),
        model_folder(tmp_path / "target", base, shards=3),
        tmp_path,
    )
    assert set(made.tensors.values()) == {"same"}
    assert made.unchanged == 1
    assert not list((tmp_path / "delta").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("rows", "more"),
    [(320, 328), (320, 321), (328, 320), (320, 1), (1, 320), (0, 8), (8, 0)],
)
@pytest.mark.parametrize("label", ["BF16", "F8_E4M3"])
def test_a_vocabulary_that_grows_or_shrinks(
    tmp_path: Path, source: np.random.Generator, rows: int, more: int, label: str
) -> None:
    def embedding(count: int) -> RawTensor:
        if label == "BF16":
            return weights(np.random.default_rng(1), "BF16", count, 64)
        data = np.random.default_rng(1).bytes(max(rows, more) * 64)
        return label, (count, 64), data[: count * 64]

    base = {"embed": embedding(rows), "norm": weights(source, "F32", 64)}
    target = base | {"embed": embedding(more)}
    made = round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path,
    )
    assert made.tensors == {"embed": "resize", "norm": "same"}
    if min(rows, more) == 320:
        new = max(more - rows, 0) * 64 * (2 if label == "BF16" else 1)
        assert published(tmp_path / "delta")["embed"] <= new + 100


def test_a_vocabulary_that_grows_while_all_of_it_is_trained(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source, vocabulary=3200)
    target = fine_tuned(source, base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        known, new = target[name][2], weights(source, "BF16", 8, 64)[2]
        target[name] = ("BF16", (3208, 64), known + new)
    made = round_trip(
        model_folder(tmp_path / "base", base, shards=2),
        model_folder(tmp_path / "target", target, shards=2),
        tmp_path,
    )
    assert made.operations["resize"] == 2
    assert made.operations["delta"] == 14
    size = published(tmp_path / "delta")["lm_head.weight"]
    assert 8 * size < 5 * 3208 * 64


@pytest.mark.parametrize("shape", [(7,), (5, 64), (5, 3, 4, 8)])
def test_any_first_dimension_may_change(
    tmp_path: Path, source: np.random.Generator, shape: tuple[int, ...]
) -> None:
    base = {"w": weights(source, "BF16", *shape)}
    target = {"w": weights(source, "BF16", shape[0] + 3, *shape[1:])}
    made = round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path,
    )
    assert made.tensors == {"w": "resize"}


def test_a_tensor_of_another_shape_is_new(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = {"w": weights(source, "BF16", 8, 64), "v": weights(source, "BF16", 8)}
    target = {"w": weights(source, "BF16", 8, 65), "v": weights(source, "BF16", 8, 1)}
    made = round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path,
    )
    assert made.tensors == {"w": "new", "v": "new"}


def test_dtypes_side_by_side(tmp_path: Path, source: np.random.Generator) -> None:
    base = llama(source)
    for name in list(base):
        if "norm" in name:
            base[name] = as_raw(numbers(base[name]), "F32")
    target = fine_tuned(source, base)
    fp8 = torch.from_numpy(numbers(base["lm_head.weight"]).copy()).to(torch.float8_e4m3fn)
    base["fp8.weight"] = ("F8_E4M3", (320, 64), fp8.view(torch.uint8).numpy().tobytes())
    moved = fp8.view(torch.uint8).numpy() + (source.random((320, 64)) < 0.1)
    target["fp8.weight"] = ("F8_E4M3", (320, 64), moved.astype(np.uint8).tobytes())
    positions = np.arange(512, dtype=np.int64)
    base["rotary.position_ids"] = ("I64", (1, 512), positions.tobytes())
    target["rotary.position_ids"] = ("I64", (1, 768), np.arange(768).tobytes())
    base["rotary.inv_freq"] = weights(source, "F64", 32)
    target["rotary.inv_freq"] = trained(source, base["rotary.inv_freq"])
    base["mask"] = ("BOOL", (3,), b"\0\1\1")
    target["mask"] = ("BOOL", (3,), b"\1\1\0")
    base["step"] = target["step"] = ("I32", (), b"\1\0\0\0")
    target["none"] = ("U16", (0, 4), b"")
    target["größe/重み"] = weights(source, "F32", 3)
    made = round_trip(
        model_folder(tmp_path / "base", base, shards=2),
        model_folder(tmp_path / "target", target, shards=3),
        tmp_path,
    )
    assert made.tensors["rotary.position_ids"] == "new"
    assert made.operations["same"] == 1
    assert published(tmp_path / "delta")["fp8.weight"] < 0.3 * 320 * 64


@pytest.mark.parametrize(
    ("base_label", "label", "bits"),
    [("F16", "BF16", 5), ("F32", "BF16", 5), ("BF16", "F16", 9), ("BF16", "F32", 22)],
)
def test_a_base_of_another_dtype_still_predicts(
    tmp_path: Path, source: np.random.Generator, base_label: str, label: str, bits: float
) -> None:
    base = llama(source, label="F32")
    target = {name: trained(source, tensor, label) for name, tensor in base.items()}
    base = {name: as_raw(numbers(t), base_label) for name, t in base.items()}
    made = round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path,
    )
    assert set(made.tensors.values()) == {"delta"}
    size = sum(published(tmp_path / "delta").values())
    assert 8 * size / sum(math.prod(t[1]) for t in target.values()) < bits


def test_fp32_that_holds_bf16_costs_what_bf16_costs(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    target = fine_tuned(source, base)
    wide = {name: as_raw(numbers(tensor), "F32") for name, tensor in target.items()}
    folder = model_folder(tmp_path / "base", base)
    round_trip(folder, model_folder(tmp_path / "target", target), tmp_path)
    narrow = sum(published(tmp_path / "delta").values())
    (tmp_path / "delta").rename(tmp_path / "narrow")
    (tmp_path / "out").rename(tmp_path / "narrow out")
    round_trip(folder, model_folder(tmp_path / "wide", wide), tmp_path)
    assert sum(published(tmp_path / "delta").values()) <= narrow * 1.02


def test_patterns_that_floats_lose(tmp_path: Path) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)  # NaNs with payloads, −0, subnormals
    base: Model = {}
    target: Model = {}
    for label in ("BF16", "F16"):
        for name, words in {"same": patterns, "roll": np.roll(patterns, 7)}.items():
            base[f"{label} {name}"] = (label, (256, 256), patterns.tobytes())
            target[f"{label} {name}"] = (label, (256, 256), words.tobytes())
    zeros = np.zeros(300, np.float32)
    base["zero"] = ("F32", (300,), zeros.tobytes())
    target["zero"] = ("F32", (300,), (-zeros).tobytes())
    base["inf"] = ("F32", (300,), (zeros + np.float32(np.inf)).tobytes())
    target["inf"] = ("F32", (300,), (zeros + np.float32(np.nan)).tobytes())
    round_trip(
        model_folder(tmp_path / "base", base),
        model_folder(tmp_path / "target", target),
        tmp_path,
    )


def test_all_other_files_come_along(tmp_path: Path, source: np.random.Generator) -> None:
    base = {"w": weights(source, "BF16", 64)}
    target = model_folder(tmp_path / "target", fine_tuned(source, base), shards=1)
    files = {
        "config.json": b'{"model_type": "llama"}\r\n',
        "tokenizer.model": bytes(range(256)),
        "chat_template.jinja": "{{ 'é' }}".encode(),
        "generation_config.json": b"",
        "nested/deep/größe 重み.txt": b"x",
        "e\u0301": b"decomposed",
        ".hidden": b"y",
        "LICENSE": b"z",
        "large.txt": bytes(3 << 20),
    }
    for name, data in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    round_trip(model_folder(tmp_path / "base", base), target, tmp_path)
    assert {*files, "model.safetensors"} == digests(tmp_path / "out").keys()


@pytest.mark.parametrize("name", ["x" * 243 + ".safetensors", "é" * 121 + "x.safetensors"])
def test_names_may_be_as_long_as_file_systems_allow(tmp_path: Path, name: str) -> None:
    assert len(name.encode()) == 255
    base, target = tmp_path / "base.safetensors", tmp_path / "target"
    base.write_bytes(safetensors_bytes({"w": ("U8", [3], b"abc")}))
    target.mkdir()
    (target / name).write_bytes(safetensors_bytes({"w": ("U8", [3], b"abd")}))
    (target / name.replace("safetensors", "markdown.md")).write_bytes(b"x")
    round_trip(base, target, tmp_path)


def test_a_single_file_is_released_alone(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = {"w": weights(source, "BF16", 64)}
    model_folder(tmp_path / "base", base)
    target = model_folder(tmp_path / "target", fine_tuned(source, base))
    (target / "config.json").write_bytes(b"{}")
    round_trip(
        tmp_path / "base" / "model.safetensors", target / "model.safetensors", tmp_path
    )
    assert list(digests(tmp_path / "out")) == ["model.safetensors"]


def test_an_index_is_released_with_its_shards(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    folder = model_folder(tmp_path / "base", base)
    target = model_folder(tmp_path / "target", fine_tuned(source, base), shards=2)
    (target / "more.safetensors").write_bytes(safetensors_bytes(base))
    make_delta(folder, target / "model.safetensors.index.json", tmp_path / "delta")
    apply_delta(folder, tmp_path / "delta", tmp_path / "out")
    wanted = digests(target)
    del wanted["more.safetensors"]
    assert digests(tmp_path / "out") == wanted


DATA = bytes(range(24))
ENTRIES = {
    "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12, 24]},
    "a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    "e": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]},
}


@pytest.mark.parametrize(
    "header",
    [
        json.dumps(ENTRIES).encode(),
        json.dumps(ENTRIES).encode() + b" " * 5,
        json.dumps(ENTRIES, indent=3).encode() + b"\n\t\r ",
        json.dumps({"__metadata__": {"a": '\n"\\\u2028é😀'}} | ENTRIES).encode(),
        json.dumps(ENTRIES | {"__metadata__": {}}, ensure_ascii=False).encode(),
        json.dumps(dict(reversed(ENTRIES.items()))).encode(),
        b'{"\\u00e9\\uD83D\\uDE00":{"shape":[24],"dtype":"U8","data_offsets":[0,24]}}',
        b'{"x":{"shape":[24],"dt\\u0079pe":"U8","data_offsets":[0, 24 ]}}  ',
    ],
)
def test_odd_headers_are_rebuilt_to_the_byte(tmp_path: Path, header: bytes) -> None:
    base, target = tmp_path / "base.safetensors", tmp_path / "target.safetensors"
    base.write_bytes(safetensors_bytes({"a": ("F32", [3], bytes(12))}))
    target.write_bytes(raw_header(header, DATA))
    for path in (base, target):  # as a base too
        delta = tmp_path / f"{path.name} delta"
        make_delta(path, target, delta)
        apply_delta(path, delta, tmp_path / f"{path.name} out")
        rebuilt = tmp_path / f"{path.name} out" / "target.safetensors"
        assert rebuilt.read_bytes() == target.read_bytes()


# What others see in a delta, and what it is in memory.


def test_a_delta_cannot_be_mistaken_for_a_model(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    target = model_folder(tmp_path / "target", fine_tuned(source, base))
    (target / "config.json").write_bytes(b'{"model_type": "llama"}')
    made = make_delta(
        model_folder(tmp_path / "base", base), target, tmp_path / "delta", name="Tüne"
    )
    config = json.loads((tmp_path / "delta" / "config.json").read_bytes())
    assert config["model_type"] == "releasekit_delta"
    assert config["base_identity"] == made.base_identity
    assert "releasekit apply-delta --base BASE" in config["releasekit"]
    assert "Tüne" in config["releasekit"]
    assert "architectures" not in config
    assert (tmp_path / "delta" / "target" / "config.json").read_bytes() == (
        target / "config.json"
    ).read_bytes()


def test_shards_of_a_delta_are_plain_safetensors(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    target = model_folder(tmp_path / "target", fine_tuned(source, base))
    folder = model_folder(tmp_path / "base", base)
    make_delta(folder, target, tmp_path / "delta", shard_nbytes=20_000)
    shards = sorted((tmp_path / "delta").glob("*.safetensors"))
    assert len(shards) > 2
    assert [path.name for path in shards] == [
        f"delta-{number:05}-of-{len(shards):05}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    sizes: dict[str, int] = {}
    for path in shards:
        payloads = load_file(path)
        assert {tensor.dtype for tensor in payloads.values()} == {torch.uint8}
        assert {tensor.dim() for tensor in payloads.values()} == {1}
        sizes |= {name: tensor.numel() for name, tensor in payloads.items()}
        assert len(payloads) == 1 or path.stat().st_size < 22_000
    assert sizes == {n: size for n, size in published(tmp_path / "delta").items() if size}


def test_open_delta_gives_what_torch_would_load(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = llama(source)
    target = fine_tuned(source, base)
    target["lm_head.weight"] = target["model.embed_tokens.weight"]
    target["scalar"] = ("F32", (), b"\0\0\x80?")
    target["none"] = ("I64", (0, 3), b"")
    target["flags"] = ("BOOL", (2,), b"\0\1")
    folder = model_folder(tmp_path / "base", base, shards=2)
    model_folder(tmp_path / "target", target)
    make_delta(folder, tmp_path / "target", tmp_path / "delta", codec=CODEC)
    wanted = load_file(tmp_path / "target" / "model.safetensors")
    with open_delta(tmp_path / "delta", folder) as delta:
        assert delta.keys() == list(target)
        state = delta.state_dict()
        some = dict(delta.tensors(["none", "lm_head.weight"]))
        with pytest.raises(KeyError):
            list(delta.tensors(["gone"]))
    assert list(state) == list(target)
    assert list(some) == ["none", "lm_head.weight"]
    for name, tensor in wanted.items():
        assert state[name].dtype == tensor.dtype
        assert state[name].shape == tensor.shape
        assert torch.equal(
            state[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )
    state["lm_head.weight"].zero_()  # nobody else's memory
    assert state["model.embed_tokens.weight"].any()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_release_does_not_depend_on_threads(
    tmp_path: Path, source: np.random.Generator, threads: int
) -> None:
    base = llama(np.random.default_rng(1))
    model_folder(tmp_path / "base", base)
    model_folder(tmp_path / "target", fine_tuned(np.random.default_rng(2), base))
    for name, count in (("one", 2), ("two", threads)):
        make_delta(
            tmp_path / "base",
            tmp_path / "target",
            tmp_path / name,
            codec=CODEC,
            threads=count,
        )
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_target_through_links_as_a_cache_has_them(
    tmp_path: Path, source: np.random.Generator
) -> None:
    base = {"w": weights(source, "BF16", 64)}
    blobs = model_folder(tmp_path / "blobs", fine_tuned(source, base))
    (blobs / "config.json").write_bytes(b"{}")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    folder = model_folder(tmp_path / "base", base)
    make_delta(folder, snapshot, tmp_path / "delta")
    apply_delta(folder, tmp_path / "delta", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(blobs)
