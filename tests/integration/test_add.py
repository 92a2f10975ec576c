"""The codec `add-v1`: exact for us, and as good for FastChat as a delta of its own."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from blake3 import blake3
from numpy.typing import NDArray
from safetensors.torch import load_file

from releasekit import (
    Add,
    BaseMismatchError,
    FormatError,
    IntegrityError,
    Progress,
    ReleaseKitError,
    UsageError,
    apply_delta,
    inspect,
    load_into,
    make_delta,
    open_delta,
    plan_apply,
    preflight,
    verify,
)
from releasekit.delta.making.make import MakeResult
from releasekit.tensors import DTYPES
from tests.builders import RawTensor, model_folder, safetensors_bytes
from tests.integration.tools import (
    Model,
    as_raw,
    digests,
    fine_tuned,
    llama,
    weights,
)
from tests.integration.tools import (
    in_process as releasekit,
)

Tensors = dict[str, torch.Tensor]
Array = NDArray[Any]

CODEC = Add(chunk=1024)
OPTIONS: dict[str, Any] = {"codec": CODEC, "shard_nbytes": 9000, "threads": 2, "name": "x"}
FLOATS = ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"]
HALF_NAN = 0x7E00


def round_trip(base: Path, target: Path, tmp: Path, codec: Add = CODEC) -> MakeResult:
    """Releases a target, rebuilds it, and compares every file; returns what was made."""
    made = make_delta(base, target, tmp / "delta", codec=codec)
    apply_delta(base, tmp / "delta", tmp / "out")
    if target.is_file():
        assert (tmp / "out" / target.name).read_bytes() == target.read_bytes()
    else:
        assert digests(tmp / "out") == digests(target)
    assert verify(tmp / "delta").ok
    assert verify(tmp / "out", against=tmp / "delta").ok
    assert made.codec == "add-v1"
    return made


def models(base: Model, target: Model, tmp: Path, shards: int = 1) -> MakeResult:
    """The round trip of models in folders."""
    return round_trip(
        model_folder(tmp / "base", base),
        model_folder(tmp / "target", target, shards=shards),
        tmp,
    )


def loaded(folder: Path) -> Tensors:
    """A model as model libraries load it: by its index, or its one file."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return load_file(folder / "model.safetensors")
    found: Tensors = {}
    for name, file in json.loads(index.read_bytes())["weight_map"].items():
        with safetensors.safe_open(folder / file, "pt") as opened:
            found[name] = opened.get_tensor(name)
    return found


def check_halves(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal bits, but for NaNs, of which every processor makes its own."""
    assert (found.dtype, found.shape) == (torch.float16, wanted.shape)
    assert wanted.dtype is torch.float16
    assert torch.equal(found.isnan(), wanted.isnan())
    nans = wanted.isnan()
    words = [half.masked_fill(nans, 0).view(torch.int16) for half in (found, wanted)]
    assert torch.equal(*words)


# What is rebuilt.


def test_every_dtype_is_rebuilt(tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    base: Model = {}
    target: Model = {}
    for label, dtype in DTYPES.items():
        shape = (48, 84)  # whole bytes in any dtype, and several chunks
        size = math.prod(shape) * dtype.bits // 8
        old = np.frombuffer(source.bytes(size), np.uint8)
        if label == "BOOL":
            old = old & np.uint8(1)
        new = old ^ (source.random(size) < 0.3).astype(np.uint8)
        base[label], target[label] = ((label, shape, data.tobytes()) for data in (old, new))
        target[f"new {label}"] = (label, shape, old[::-1].tobytes())
    made = models(base, target, tmp_path, shards=3)
    assert made.operations["delta"] == made.operations["new"] == len(DTYPES)
    for path in (tmp_path / "target").glob("*.safetensors"):
        plain = tmp_path / "delta" / path.name
        for name, info in raw_entries(plain).items():
            label = name.removeprefix("new ")
            assert info["dtype"] == ("F16" if label in FLOATS else label)
            assert info["shape"] == [48, 84]


def raw_entries(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, without its metadata."""
    data = path.read_bytes()
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header.pop("__metadata__") == {"format": "pt"}
    return header


def specials(label: str) -> list[int]:
    """Patterns of a float dtype where something begins or ends, of both signs."""
    word = DTYPES[label].word
    sign, hidden = 1 << (word.bits - 1), 1 << word.mantissa_bits
    infinity = sign - hidden
    one = infinity // 2 // hidden * hidden
    starts = [0, 1, hidden - 1, hidden, one, infinity - 1, infinity, sign - 1]
    starts += [infinity | 1, infinity | hidden // 2, one + 3]
    if word.bits >= 32 or label == "BF16":  # around what overflows float16
        of = np.array([65504, 65519, 65520, 7e4, 1e30, 6e-8, 3e-8, 6.1e-5])
        starts += words_of(as_raw(of, label), word.bits)
    return [x | s for x in starts for s in (0, sign)]


def words_of(tensor: RawTensor, bits: int) -> list[int]:
    return [int(word) for word in np.frombuffer(tensor[2], f"<u{bits // 8}")]


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Special values of each dtype on each other; rebuilt."""
    root = tmp_path_factory.mktemp("special")
    base: Model = {}
    target: Model = {}
    for label in FLOATS:
        bits = DTYPES[label].bits
        some = np.array(specials(label), f"<u{bits // 8}")
        if bits == 8:
            some = np.arange(256).astype(np.uint8)
        shape = (some.size, some.size)
        base[label] = label, shape, np.repeat(some, some.size).tobytes()
        target[label] = label, shape, np.tile(some, some.size).tobytes()
    for label in ("F16", "BF16"):
        every = np.arange(1 << 16).astype(np.uint16)
        name, shape = f"{label} all", (256, 256)
        base[name] = label, shape, every.tobytes()
        target[name] = label, shape, np.roll(every, 12345).tobytes()
    models(base, target, root)
    return root


def test_special_values_are_rebuilt(special: Path) -> None:
    """NaN payloads, infinities, −0, subnormals, and what float16 has no number for."""
    assert digests(special / "out") == digests(special / "target")


def test_differences_of_special_values_are_those_of_torch(special: Path) -> None:
    base, target, plain = (loaded(special / name) for name in ("base", "target", "delta"))
    for name, difference in plain.items():
        if name != "F64":  # which torch rounds to float32 first
            check_halves(difference, target[name].half() - base[name].half())
    words = plain["F64"].view(torch.int16).numpy().view(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        halves = [model["F64"].numpy().astype(np.float16) for model in (target, base)]
        wanted = halves[0] - halves[1]
    check_halves(plain["F64"], torch.from_numpy(wanted))
    assert set(words[np.isnan(wanted)].tolist()) == {HALF_NAN}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of each float dtype on a base of each other; rebuilt."""
    root = tmp_path_factory.mktemp("mixed")
    generator = torch.Generator().manual_seed(1)
    base: Model = {}
    target: Model = {}
    for label in FLOATS:
        for other in FLOATS:
            values = torch.randn(40, 65, generator=generator) * 0.02
            step = torch.randn(40, 65, generator=generator) * 1e-4
            base[f"{other} on {label}"] = as_tensor(values, label)
            target[f"{other} on {label}"] = as_tensor(values + step, other)
    made = models(base, target, root)
    assert made.operations["delta"] == len(target)
    return root


def as_tensor(values: torch.Tensor, label: str) -> RawTensor:
    kinds = {
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F32": torch.float32,
        "F64": torch.float64,
    }
    data = values.to(kinds[label]).view(torch.uint8).numpy().tobytes()
    return label, tuple(values.shape), data


def test_a_base_of_another_dtype_is_rounded_to_float16_once(mixed: Path) -> None:
    """What FastChat would do: not to the target's dtype, and from there to float16."""
    base, target, plain = (loaded(mixed / name) for name in ("base", "target", "delta"))
    for name, difference in plain.items():
        check_halves(difference, target[name].half() - base[name].half())


@pytest.mark.parametrize("rows", [1, 39, 41, 100])
def test_a_base_of_another_dtype_and_with_other_rows(tmp_path: Path, rows: int) -> None:
    """Cut to the target's rows, or continued with zeros."""
    values = torch.randn(100, 65, generator=torch.Generator().manual_seed(3)) * 0.02
    base = {"w": as_tensor(values[:rows], "F16")}
    made = models(base, {"w": as_tensor(values[:40] * 1.001, "BF16")}, tmp_path)
    assert made.tensors == {"w": "resize"}
    old, new, plain = (loaded(tmp_path / n)["w"] for n in ("base", "target", "delta"))
    resized = torch.zeros(40, 65).half()
    resized[:rows] = old[:40]
    check_halves(plain, new.half() - resized)


class World:
    """Inputs of several shards, with every operation, and what comes of them."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(8)
        self.root = root
        base: Model = {f"layer.{n}": weights(source, "BF16", 30, 64) for n in range(6)}
        base["grown"] = weights(source, "F16", 30, 64)
        base["cut"] = weights(source, "BF16", 33, 64)
        base["dropped"] = weights(source, "F32", 100)
        base["norm"] = weights(source, "F32", 64)
        base["steps"] = ("I64", (), (1000).to_bytes(8, "little"))
        target = fine_tuned(
            source, {n: base[n] for n in base if n not in ("dropped", "steps")}
        )
        target["layer.2"] = base["layer.2"]  # the same
        more = weights(source, "F16", 3, 64)[2]
        target["grown"] = ("F16", (33, 64), target["grown"][2] + more)
        target["cut"] = ("BF16", (30, 64), target["cut"][2][: 30 * 128])
        target["tied"] = target["layer.1"]
        target["new"] = weights(source, "F32", 10, 64)
        target["none"] = ("F32", (0, 3), b"")
        target["scalar"] = as_raw(np.array(1.5), "F32")
        target["steps"] = ("I64", (), (1020).to_bytes(8, "little"))
        target["flags"] = ("BOOL", (2,), b"\0\1")
        self.base_model, self.target_model = base, target
        self.base = model_folder(root / "base", base, shards=2)
        self.target = model_folder(root / "target", target, shards=3)
        for name in ("config.json", "tokenizer.model", "nested/größe.txt"):
            (self.target / name).parent.mkdir(exist_ok=True)
            (self.target / name).write_text(f'{{"of": "{name}"}}')
        self.release = root / "release"
        reports: list[Progress] = []
        self.made = self.make(self.release, reports.append)
        self.calls = len(reports)
        self.released = digests(self.release)

    def make(
        self, out: Path, progress: Callable[[Progress], None] | None = None
    ) -> MakeResult:
        return make_delta(self.base, self.target, out, progress=progress, **OPTIONS)

    def copy(self, tmp: Path) -> Path:
        """A copy of the release, to be spoiled."""
        return shutil.copytree(self.release, tmp / "release")

    def refusal(
        self, out: Path, release: Path, base: Path | None = None
    ) -> ReleaseKitError:
        """The error that a rebuild ends with; it leaves nothing under the output's name."""
        with pytest.raises(ReleaseKitError) as caught:
            apply_delta(base or self.base, release, out, threads=2)
        assert not out.exists()
        return caught.value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]


def test_every_operation_is_rebuilt(world: World, tmp_path: Path) -> None:
    """Grown and cut rows, new, tied, empty and scalar tensors, several shards."""
    assert world.made.tensors == {
        **{f"layer.{n}": "same" if n == 2 else "delta" for n in range(6)},
        **dict.fromkeys(("grown", "cut"), "resize"),
        **dict.fromkeys(("tied", "new", "none", "scalar", "flags"), "new"),
        **dict.fromkeys(("steps", "norm"), "delta"),
        "dropped": "dropped",
    }
    applied = apply_delta(world.base, world.release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target) == applied.files
    assert applied.identity == world.made.target_identity
    assert preflight(world.base, world.release).ok


def test_any_container_and_sharding_of_the_base_serves(
    world: World, tmp_path: Path
) -> None:
    state = loaded(world.base)
    torch.save(state, tmp_path / "base.pt")
    apply_delta(tmp_path / "base.pt", world.release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target)


def test_a_single_file_is_released_alone(tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    base = {"w": weights(source, "BF16", 64, 64)}
    model_folder(tmp_path / "base", base)
    target = model_folder(tmp_path / "target", fine_tuned(source, base))
    (target / "config.json").write_bytes(b"{}")
    round_trip(
        tmp_path / "base" / "model.safetensors", target / "model.safetensors", tmp_path
    )
    assert list(digests(tmp_path / "out")) == ["model.safetensors"]
    # There is no config of the target's own, so ours stands in its place.
    config = json.loads((tmp_path / "delta" / "config.json").read_bytes())
    assert config["model_type"] == "releasekit_delta"
    assert loaded(tmp_path / "delta")["w"].shape == (64, 64)


def test_a_vocabulary_as_of_v0(tmp_path: Path) -> None:
    """32000 rows become 32001, and all of them are trained."""
    source = np.random.default_rng(1)
    base = llama(source, label="F16", layers=1)
    target = fine_tuned(source, base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = weights(source, "F16", 1, 64)[2]
        target[name] = ("F16", (321, 64), target[name][2] + more)
    models(base, target, tmp_path, shards=2)
    plain, old, new = (loaded(tmp_path / name) for name in ("delta", "base", "target"))
    for name, difference in plain.items():
        resized = torch.zeros_like(new[name])
        resized[: len(old[name])] = old[name]
        check_halves(difference, new[name] - resized)


# What FastChat makes of it.


@pytest.mark.parametrize("label", ["F16", "BF16", "F32"])
def test_differences_are_fastchats(tmp_path: Path, label: str) -> None:
    """Its `make_delta` loads both in float16; so added up they give what it would get."""
    source = np.random.default_rng(2)
    base = llama(source, label=label, layers=1)
    models(base, fine_tuned(source, base), tmp_path, shards=2)
    old, new, plain = (loaded(tmp_path / name) for name in ("base", "target", "delta"))
    assert plain.keys() == new.keys()
    for name, difference in plain.items():
        own = new[name].half() - old[name].half()
        check_halves(difference, own)
        check_halves(old[name].half() + difference, old[name].half() + own)
        near = (old[name].half() + difference).float() - new[name].float()
        assert near.abs().max() <= 2e-3 * new[name].float().abs().max()


def test_files_stand_where_loaders_look(world: World) -> None:
    for name in ("config.json", "tokenizer.model", "nested/größe.txt"):
        assert (world.release / name).read_bytes() == (world.target / name).read_bytes()
    index = "model.safetensors.index.json"
    assert (world.release / index).read_bytes() == (world.target / index).read_bytes()
    assert sorted(path.name for path in world.release.glob("model*")) == [*SHARDS, index]
    target, plain = loaded(world.target), loaded(world.release)
    for name, tensor in target.items():
        wanted = torch.float16 if tensor.is_floating_point() else tensor.dtype
        assert (plain[name].dtype, plain[name].shape) == (wanted, tensor.shape)
    for name in SHARDS:
        assert raw_entries(world.release / name).keys() == (
            raw_entries(world.target / name).keys()
        )


def test_without_a_base_the_difference_is_the_tensor(world: World) -> None:
    target, plain = loaded(world.target), loaded(world.release)
    for name in ("new", "tied", "scalar"):
        check_halves(plain[name], target[name].half())
    assert torch.equal(plain["flags"], target["flags"])
    assert plain["steps"].item() == 20
    assert not plain["layer.2"].any()


def test_lists_name_every_file(world: World) -> None:
    listed = (world.release / "SHA256SUMS").read_text().splitlines()
    assert {line[66:]: line[:64] for line in listed} == {
        name: digest for name, digest in world.released.items() if name != "SHA256SUMS"
    }
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=world.release, check=False
    )
    assert done.returncode == 0
    manifest = json.loads((world.release / "release.json").read_bytes())
    assert [entry["path"] for entry in manifest["plain"]] == SHARDS
    assert manifest["codec"] == {"id": "add-v1", "params": {"chunk": 1024}}
    assert verify(world.release).ok


def test_a_release_is_no_smaller_than_it_says(world: World) -> None:
    sizes = [path.stat().st_size for path in world.release.rglob("*") if path.is_file()]
    assert world.made.published_nbytes == sum(sizes)
    assert world.made.ratio > 0.9


def test_inspect_counts_both(world: World) -> None:
    found = inspect(world.release)
    assert (found.kind, found.operations) == ("delta", world.made.operations)
    payloads: dict[str, int] = {}
    for path in world.release.glob("delta-*.safetensors"):
        payloads |= {name: t.numel() for name, t in load_file(path).items()}
    plain = {name: tensor.nbytes for name, tensor in loaded(world.release).items()}
    for info in found.tensors:
        name = info.spec.name
        assert info.published_nbytes == plain[name] + payloads.get(name, 0)
    assert found.files.keys() == world.released.keys()


def test_plans_count_both(world: World, tmp_path: Path) -> None:
    plan = plan_apply(world.base, world.release, tmp_path / "out")
    manifest = json.loads((world.release / "release.json").read_bytes())
    stored = [*manifest["shards"], *manifest["plain"], *manifest["target"]["files"]]
    assert plan.delta_nbytes == sum(entry["size"] for entry in stored)


def test_on_the_command_line(world: World, tmp_path: Path) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    inputs = ("--base", world.base, "--target", world.target)
    made = releasekit("make-delta", *inputs, "--out", out, "--codec", "add")
    assert made.returncode == 0
    assert "plain sum  exact for " in made.stdout
    assert "% of the elements; the rest is corrected here, not by others" in made.stdout
    applied = releasekit(
        "apply-delta", "--base", world.base, "--delta", out, "--out", model, "--json"
    )
    assert json.loads(applied.stdout)["identity"] == world.made.target_identity
    assert digests(model) == digests(world.target)
    assert releasekit("verify", out).returncode == 0
    seen = json.loads(releasekit("inspect", out, "--json").stdout)
    assert seen["codec"]["id"] == "add-v1"


def test_the_default_codec_writes_no_plain_differences(
    world: World, tmp_path: Path
) -> None:
    make_delta(world.base, world.target, tmp_path / "delta")
    assert not list((tmp_path / "delta").glob("model*.safetensors"))
    assert b'"plain"' not in (tmp_path / "delta" / "release.json").read_bytes()


# Into memory.


def check_bits(found: Mapping[str, torch.Tensor], wanted: Tensors) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        words = [x.reshape(-1).view(torch.uint8) for x in (found[name], tensor)]
        assert torch.equal(*words), name


def test_open_delta_rebuilds_it(world: World) -> None:
    wanted = loaded(world.target)
    with open_delta(world.release, world.base) as delta:
        check_bits(delta.state_dict(), wanted)
        some = dict(delta.tensors(["tied", "grown", "none"]))
    check_bits(some, {name: wanted[name] for name in some})


def test_load_into_fills_a_model_from_files(world: World) -> None:
    wanted = loaded(world.target)
    state = {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    assert load_into(state, world.base, world.release) == world.made.target_identity
    check_bits(state, wanted)


def test_load_into_fills_a_model_that_holds_the_base(tmp_path: Path) -> None:
    source = np.random.default_rng(3)
    base = llama(source, layers=1)
    target = fine_tuned(source, base)
    target["lm_head.weight"] = target["model.embed_tokens.weight"]
    models(base, target, tmp_path)
    state = loaded(tmp_path / "base")
    load_into(state, None, tmp_path / "delta")
    check_bits(state, loaded(tmp_path / "target"))


# Interrupted, and short of room.


class StoppedError(Exception):
    """What stops the work; stands for anything."""


def stop(world: World, out: Path, at: int) -> None:
    """Makes the release until it has reported its progress that often."""
    left = at

    def count_down(progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise StoppedError

    with pytest.raises(StoppedError):
        world.make(out, count_down)


@pytest.mark.parametrize("part", [0, 0.2, 0.4, 0.6, 0.8, 1])
def test_make_stopped_at_any_step_is_gone_on_with(
    world: World, tmp_path: Path, part: float
) -> None:
    out = tmp_path / "out"
    stop(world, out, 1 + int(part * (world.calls - 1)))
    assert not out.exists()
    made = world.make(out)
    assert (made.kept > 0) is (part > 0)
    assert digests(out) == world.released
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("keep", [0, 100, None])
def test_plain_files_that_were_left_are_not_believed(
    world: World, tmp_path: Path, keep: int | None
) -> None:
    out = tmp_path / "out"
    stop(world, out, world.calls - 1)
    left = sorted((tmp_path / "out.partial").rglob("model-*.safetensors*"))
    assert left
    for path in left:
        path.write_bytes(path.read_bytes()[:keep] + b"\1" * 1000)
    world.make(out)
    assert digests(out) == world.released


def test_the_other_codec_is_other_work(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop(world, out, world.calls - 1)
    made = make_delta(world.base, world.target, out)
    assert made.kept == 0
    assert not list(out.glob("model*.safetensors"))
    assert verify(out).ok


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_change_no_byte(world: World, tmp_path: Path, threads: int) -> None:
    options = OPTIONS | {"threads": threads}
    make_delta(world.base, world.target, tmp_path / "out", **options)
    assert digests(tmp_path / "out") == world.released


def test_memory_that_does_not_suffice_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        make_delta(
            world.base, world.target, tmp_path / "out", max_memory=1 << 20, **OPTIONS
        )
    found = re.fullmatch(
        r"memory: expected a limit of at least ([0-9,]+) bytes, which one thread needs "
        r"with chunks of this size, found 1,048,576: raise --max-memory",
        str(caught.value),
    )
    assert found
    least = int(found[1].replace(",", ""))
    options = OPTIONS | {"threads": None, "max_memory": least}
    make_delta(world.base, world.target, tmp_path / "out", **options)
    assert digests(tmp_path / "out") == world.released
    options["max_memory"] = least - 1
    with pytest.raises(UsageError):
        make_delta(world.base, world.target, tmp_path / "less", **options)
    plan = plan_apply(world.base, world.release, tmp_path / "x", threads=1)
    apply_delta(
        world.base, world.release, tmp_path / "model", max_memory=plan.memory_nbytes
    )
    assert digests(tmp_path / "model") == digests(world.target)


# Damage, and whose fault it is.


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def place(path: Path, name: str) -> int:
    """Where the last byte of a tensor lies in its file."""
    data = path.read_bytes()
    end: int = raw_entries(path)[name]["data_offsets"][1]
    return 8 + int.from_bytes(data[:8], "little") + end - 1


@pytest.mark.parametrize(
    "name", ["layer.0", "norm", "grown", "cut", "tied", "new", "steps", "flags", "scalar"]
)
def test_a_wrong_bit_in_a_plain_file_is_blamed_on_it(
    world: World, tmp_path: Path, name: str
) -> None:
    release = world.copy(tmp_path)
    file = next(f for f in SHARDS if name in raw_entries(release / f))
    flip(release / file, place(release / file, name))
    wrong = hashlib.sha256((release / file).read_bytes()).hexdigest()
    message = (
        f"{release / file}: expected sha256 {world.released[file]}, found {wrong}: the "
        "file is damaged; download it again"
    )
    error = world.refusal(tmp_path / "out", release)
    assert (type(error), str(error)) == (IntegrityError, message)
    with open_delta(release, world.base) as delta, pytest.raises(IntegrityError) as caught:
        delta.state_dict()
    assert str(caught.value) == message
    found = {f.path: f.status.value for f in verify(release).files}
    assert {path for path, status in found.items() if status != "good"} == {file}


def test_a_wrong_bit_where_nothing_is_read_is_found_by_verify(
    world: World, tmp_path: Path
) -> None:
    """A tensor that equals the base's needs no difference."""
    release = world.copy(tmp_path)
    file = next(f for f in SHARDS if "layer.2" in raw_entries(release / f))
    flip(release / file, place(release / file, "layer.2"))
    apply_delta(world.base, release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target)
    assert [f.path for f in verify(release).files if f.status.value != "good"] == [file]


def test_a_wrong_bit_in_a_payload_is_blamed_on_its_file(
    world: World, tmp_path: Path
) -> None:
    for path in sorted(world.release.glob("delta-*.safetensors")):
        release = world.copy(tmp_path)
        data = path.read_bytes()
        flip(release / path.name, (8 + int.from_bytes(data[:8], "little") + len(data)) // 2)
        error = world.refusal(tmp_path / "out", release)
        assert isinstance(error, IntegrityError)
        assert str(error).startswith(f"{release / path.name}: expected sha256 ")
        shutil.rmtree(release)


@pytest.mark.parametrize("name", ["layer.0", "layer.2", "layer.5", "grown", "cut", "norm"])
def test_a_wrong_bit_in_the_base_is_blamed_on_its_tensor(
    world: World, tmp_path: Path, name: str
) -> None:
    label, shape, data = world.base_model[name]
    changed = world.base_model | {name: (label, shape, data[:-1] + bytes([data[-1] ^ 1]))}
    base = model_folder(tmp_path / "base", changed)
    error = world.refusal(tmp_path / "out", world.release, base)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(f"{base}: ")
    assert f'"{name}"' in str(error)


def test_a_plain_file_that_is_missing_or_short_is_named(
    world: World, tmp_path: Path
) -> None:
    release = world.copy(tmp_path)
    file = release / SHARDS[1]
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    calls: list[Callable[[], object]] = [
        lambda: apply_delta(world.base, release, tmp_path / "out"),
        lambda: plan_apply(world.base, release, tmp_path / "out"),
        lambda: open_delta(release, world.base),
        lambda: inspect(release),
    ]
    for message in (
        f"{file}: expected {size} bytes, found {size - 1}: the download is incomplete; "
        "download the file again",
        f"{file}: is missing; download the release again",
    ):
        for call in calls:
            with pytest.raises(IntegrityError) as caught:
                call()
            assert str(caught.value) == message
        assert message in [f.message for f in preflight(world.base, release).findings]
        assert not verify(release).ok
        file.unlink(missing_ok=True)


def test_the_release_in_place_of_the_base_is_recognised(
    world: World, tmp_path: Path
) -> None:
    """It loads as if it were a model; all the more it must not pass for one."""
    error = world.refusal(tmp_path / "out", world.release, world.release)
    assert isinstance(error, BaseMismatchError)
    assert str(error).startswith(f"{world.release}: is a delta itself")


# Releases that contradict themselves, though every digest is right.


def rewrite(release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest, takes its files' sizes and digests anew, and lists them."""
    path = release / "release.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    for entry in (*manifest["shards"], *manifest.get("plain", [])):
        file = release / entry["path"]
        if file.is_file():
            entry["size"] = file.stat().st_size
            entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    found = digests(release)
    del found["SHA256SUMS"]
    lines = [f"{digest}  {name}\n" for name, digest in sorted(found.items())]
    (release / "SHA256SUMS").write_text("".join(lines))


def unchanged(manifest: dict[str, Any]) -> None:
    pass


NAMES = "release.json: plain: expected files of target.weights' names"
CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no plain": (lambda m: m.pop("plain"), 'release.json: missing field "plain"'),
    "no files": (lambda m: m.update(plain=[]), NAMES),
    "one less": (lambda m: m["plain"].pop(), NAMES),
    "other order": (lambda m: m["plain"].reverse(), NAMES),
    "another path": (lambda m: m["plain"][0].update(path="x.safetensors"), NAMES),
    "a path outside": (
        lambda m: m["plain"][0].update(path="../x.safetensors"),
        'release.json: path "../x.safetensors"',
    ),
    "a payload's path": (
        lambda m: m["plain"][0].update(path=m["shards"][0]["path"]),
        NAMES,
    ),
    "another codec": (
        lambda m: m["codec"].update(id="add-v2"),
        'release.json: codec.id: expected one of ulp-v1, add-v1, found "add-v2": a newer '
        "releasekit may know it; update with `pip install -U releasekit`",
    ),
    "the codec without": (
        lambda m: m["codec"].update(id="ulp-v1"),
        'release.json: unknown field "plain"',
    ),
    "another parameter": (
        lambda m: m["codec"]["params"].update(more=1),
        'release.json: codec.params: unknown field "more"',
    ),
    "another field": (
        lambda m: m["plain"][1].update(of="x"),
        'release.json: plain[1]: unknown field "of"',
    ),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_is_refused(
    world: World, tmp_path: Path, contradiction: str
) -> None:
    change, message = CONTRADICTIONS[contradiction]
    release = world.copy(tmp_path)
    rewrite(release, change)
    error = world.refusal(tmp_path / "out", release)
    assert isinstance(error, FormatError)
    assert str(error).startswith(message)


def test_a_manifest_that_is_only_rewritten_serves(world: World, tmp_path: Path) -> None:
    release = world.copy(tmp_path)
    rewrite(release, unchanged)
    apply_delta(world.base, release, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(world.target)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "layer.0",
            '"shape":[30,64]',
            '"shape":[64,30]',
            'plain difference "layer.0": expected F16[30, 64], found F16[64, 30]',
        ),
        (
            "layer.0",
            '"dtype":"F16"',
            '"dtype":"I16"',
            'plain difference "layer.0": expected F16[30, 64], found I16[30, 64]',
        ),
        (
            "steps",
            '"dtype":"I64"',
            '"dtype":"U64"',
            'plain difference "steps": expected I64[], found U64[]',
        ),
        (
            "norm",
            '"norm":',
            '"nrom":',
            'plain difference "norm": expected F16[64], found none',
        ),
    ],
)
def test_plain_differences_of_another_kind_are_refused(
    world: World, tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    """In a file of the right size, so that only the header tells."""
    release = world.copy(tmp_path)
    path = next(release / f for f in SHARDS if name in raw_entries(release / f))
    data = path.read_bytes()
    start = data.index(f'"{name}":'.encode())
    assert old in data[start:].decode(errors="replace")
    path.write_bytes(data[:start] + data[start:].replace(old.encode(), new.encode(), 1))
    rewrite(release, unchanged)
    error = world.refusal(tmp_path / "out", release)
    assert (type(error), str(error)) == (FormatError, f"{release}: {message}")
    with pytest.raises(FormatError):
        verify(release)


def test_a_plain_difference_more_is_refused(world: World, tmp_path: Path) -> None:
    release = world.copy(tmp_path)
    path = release / SHARDS[0]
    tensors = {
        name: (info["dtype"], info["shape"], b"\0" * size(info))
        for name, info in raw_entries(path).items()
    }
    tensors["more"] = ("F16", [1], b"xx")
    path.write_bytes(safetensors_bytes(tensors))
    rewrite(release, unchanged)
    error = world.refusal(tmp_path / "out", release)
    assert (type(error), str(error)) == (
        FormatError,
        f'{release}: plain difference "more": expected none, found F16[1]',
    )


def size(info: Mapping[str, Any]) -> int:
    begin, end = info["data_offsets"]
    return int(end - begin)


def test_plain_differences_that_do_not_lead_to_the_target_are_refused(
    world: World, tmp_path: Path
) -> None:
    """Every digest in the release is right, so the release itself is wrong."""
    release = world.copy(tmp_path)
    flip(release / SHARDS[0], place(release / SHARDS[0], "layer.0"))
    rewrite(release, unchanged)
    error = world.refusal(tmp_path / "out", release)
    assert isinstance(error, IntegrityError | FormatError | BaseMismatchError)
    assert not isinstance(error, BaseMismatchError), "the base is right"


# Names that target and release both use.


def named(tmp: Path, *names: str) -> tuple[Path, Path]:
    """A base and a target with more files of these names."""
    source = np.random.default_rng(4)
    base = {"w": weights(source, "BF16", 30, 64)}
    target = model_folder(tmp / "target", fine_tuned(source, base))
    for name in names:
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(name)
    return model_folder(tmp / "base", base), target


@pytest.mark.parametrize(
    "names",
    [
        ["SHA256SUMS", "rebuilt.SHA256SUMS", "release.json", "config.json"],
        ["state.json", "new", "old/x", "model.safetensors.part", "z/.partial"],
        ["target/config.json", "config.json"],
        ["target", "config.json", "z.txt"],
        ["sha256sums", "Release.json"],
        ["Target/x"],
    ],
    ids=lambda names: names[0],
)
def test_files_named_like_our_own_are_kept(tmp_path: Path, names: list[str]) -> None:
    round_trip(*named(tmp_path, *names), tmp_path)


def with_weights_named(tmp: Path, name: str) -> tuple[Path, Path]:
    """A base and a target whose weight file has this path."""
    base, target = named(tmp)
    (target / name).parent.mkdir(exist_ok=True)
    (target / "model.safetensors").rename(target / name)
    index = {"weight_map": {"w": name}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return base, target


@pytest.mark.parametrize(
    "name", ["target.safetensors", "delta.safetensors", "new/x.safetensors"]
)
def test_weights_named_nearly_like_our_own_are_kept(tmp_path: Path, name: str) -> None:
    round_trip(*with_weights_named(tmp_path, name), tmp_path)


@pytest.mark.parametrize(
    "name", ["delta-00001-of-00001.safetensors", "target/x.safetensors"]
)
def test_weights_named_like_our_own_are_refused_before_any_work(
    tmp_path: Path, name: str
) -> None:
    base, target = with_weights_named(tmp_path, name)
    reports: list[Progress] = []
    with pytest.raises(UsageError) as caught:
        make_delta(base, target, tmp_path / "out", codec=CODEC, progress=reports.append)
    assert str(caught.value).startswith(str(target))
    assert not reports
    assert not list(tmp_path.glob("out*"))


def test_a_disk_without_room_for_plain_files_is_noticed_at_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are as large as the model, however small the payloads are."""
    plain = sum((world.release / name).stat().st_size for name in SHARDS)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=plain - 1))
    with pytest.raises(ReleaseKitError, match="bytes free, found"):
        world.make(tmp_path / "out")


def test_an_unfinished_plain_file_does_not_bear_its_name(
    world: World, tmp_path: Path
) -> None:
    """It would load, and be a difference of zeros."""
    stop(world, tmp_path / "out", 4)
    assert sorted(
        path.name for path in (tmp_path / "out.partial" / "new").glob("model*")
    ) in (
        [],
        [f"{SHARDS[0]}.part"],
    )


def test_plain_files_are_read_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As payloads are: a disk that gives back something else makes no release."""
    from releasekit.output import OutputFolder

    write = OutputFolder.write

    def fail(self: OutputFolder, name: str, data: bytes) -> None:
        write(self, name, data)
        if name == "SHA256SUMS":
            flip(self.path(SHARDS[1]), -1)

    monkeypatch.setattr(OutputFolder, "write", fail)
    with pytest.raises(IntegrityError, match="reads back as something else"):
        world.make(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# FORMAT.md suffices: a release written from it alone is rebuilt.


def byte_values(label: str) -> NDArray[np.float64]:
    """What codes of eight bits stand for, up to the first that is no finite number.

    That one as if it were: numbers from halfway to it on are too large.
    """
    mantissa, bias, finite = (3, 7, 0x7F) if label == "F8_E4M3" else (2, 15, 0x7C)
    values = []
    for code in range(finite + 1):
        power, part = divmod(code, 1 << mantissa)
        fraction = (power > 0) + part / (1 << mantissa)
        values.append(fraction * 2.0 ** (max(power, 1) - bias))
    return np.array(values)


def widened(words: Array, label: str) -> Array:
    """Words as the numbers that they are, in F32 or wider."""
    if label == "BF16":
        return (words.astype(np.uint32) << 16).view(np.float32)
    if words.itemsize > 1:
        floats: Array = words.view(f"<f{words.itemsize}")
        return floats if words.itemsize > 2 else floats.astype(np.float32)
    values = byte_values(label).astype(np.float32)
    beyond = np.full(128 - values.size, np.nan, np.float32)
    values[-1] = np.nan if label == "F8_E4M3" else np.inf
    sign = np.where(words >> 7, np.float32(-1), np.float32(1))
    found: Array = sign * np.concatenate([values, beyond])[words & 0x7F]
    return found


def float_rne(values: Array, label: str) -> Array:
    """Section 3: the cast of F32 or F64 to words of another dtype."""
    width = DTYPES[label].bits
    nan = np.isnan(values)
    values = np.copysign(np.where(nan, 1, values), values)
    if label == "BF16":
        bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        words = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    elif width > 8:
        with np.errstate(over="ignore"):
            words = values.astype(f"<f{width // 8}").view(f"<u{width // 8}")
    else:
        known = byte_values(label)
        size = np.minimum(np.abs(values).astype(np.float64), known[-1])
        above = np.searchsorted(known, size)
        below = np.maximum(above - 1, 0)
        far, near = known[above] - size, size - known[below]
        up = (far < near) | ((far == near) & (above % 2 == 0))
        words = np.where(up, above, below).astype(np.uint8)
        words |= np.signbit(values).astype(np.uint8) << 7
    quiet = {"F8_E4M3": 0x7F, "F8_E5M2": 0x7E, "F16": 0x7E00, "BF16": 0x7FC0}
    quiet |= {"F32": 0x7FC0 << 16, "F64": 0x7FF8 << 48}
    signs = np.signbit(values[nan]).astype(words.dtype) << words.dtype.type(width - 1)
    words[nan] = signs | words.dtype.type(quiet[label])
    return words


def summed(words: Array, difference: Array, label: str) -> Array:
    """Section 5.2: predicted words, with the plain difference."""
    if label == "BOOL":
        return words ^ difference
    if label not in FLOATS:
        return words + difference
    wide = np.float64 if label == "F64" else np.float32
    terms = [widened(words, label), widened(difference, "F16")]
    with np.errstate(over="ignore", invalid="ignore"):
        total = terms[0].astype(wide) + terms[1].astype(wide)
    total[np.isnan(total)] = np.nan  # the positive quiet one
    return float_rne(total, label)


class ByHand:
    """A release made by the words of FORMAT.md, with numpy, and differences of noise."""

    CHUNK = 1024

    def __init__(self, root: Path) -> None:
        self.source = np.random.default_rng(52)
        self.base: Model = {}
        self.target: Model = {}
        self.plain: Model = {}
        self.payloads: Model = {}
        self.tensors: list[dict[str, Any]] = []
        for label in (*FLOATS, "BOOL", "I16", "U8", "I64", "C64", "F8_E8M0"):
            self.coded(label, label, (50, 64))
        for old, new in (("F16", "BF16"), ("F32", "F8_E4M3"), ("BF16", "F64")):
            self.coded(f"{old} to {new}", new, (50, 64), of=self.noise(old, (50, 64)))
        self.coded("grown", "BF16", (50, 64), of=self.noise("BF16", (30, 64)))
        self.coded("cut", "F16", (20, 80), of=self.noise("F16", (50, 80)))
        self.coded("new", "BF16", (33, 100), of=None)
        self.coded("odd", "F8_E5M2", (3, 5, 7))
        self.coded("scalar", "F32", ())
        self.coded("empty", "F16", (0, 4), of=None)
        self.target["alias"] = self.target["BF16"]
        self.plain["alias"] = self.noise("F16", (50, 64))
        self.tensors.append({"name": "alias", "op": "alias", "of": "BF16"})
        self.base["same"] = self.target["same"] = self.noise("F32", (5,))
        self.plain["same"] = self.noise("F16", (5,))
        self.tensors.append({"name": "same", "op": "same"})
        self.base["dropped"] = self.noise("F32", (5,))
        self.write(root)

    def noise(self, label: str, shape: tuple[int, ...]) -> RawTensor:
        """Any words: every NaN and infinity among them, if they are of 16 bits or less."""
        size = math.prod(shape) * DTYPES[label].bits // 8
        data = np.frombuffer(self.source.bytes(size), np.uint8)
        return label, shape, (data & 1 if label == "BOOL" else data).tobytes()

    def coded(
        self, name: str, label: str, shape: tuple[int, ...], of: RawTensor | str | None = ""
    ) -> None:
        """A tensor with a payload; in turn its chunks are the prediction, and are not."""
        base = self.noise(label, shape) if isinstance(of, str) else of
        entry: dict[str, Any] = {"name": name, "op": "new"}
        width = 32 if label == "C64" else DTYPES[label].bits
        count = math.prod(shape) * DTYPES[label].bits // width
        words = np.zeros(count, f"<u{width // 8}")
        if base is not None:
            self.base[name] = base
            entry["op"] = "delta" if base[1] == shape else "resize"
            known = np.frombuffer(base[2], f"<u{DTYPES[base[0]].word.bits // 8}")
            if base[0] != label:
                entry["cast"] = "float-rne-v1"
                known = float_rne(widened(known, base[0]), label)
            words[: known.size] = known[:count]
        self.plain[name] = self.noise("F16" if label in FLOATS else label, shape)
        plain_width = 16 if label in FLOATS else width
        difference = np.frombuffer(self.plain[name][2], f"<u{plain_width // 8}")
        words = summed(words, difference, label)
        frames = []
        row = 1
        for length in reversed(shape[1:]):
            row *= length * (2 if label == "C64" and row == 1 else 1)
            if row >= 64:
                break
        else:
            row = max(count, 1)
        chunk = self.CHUNK // row * row
        for number, start in enumerate(range(0, count, chunk)):
            part = words[start : start + chunk]
            if number % 3 == 1:
                raw = np.frombuffer(self.noise(label, (part.nbytes,))[2], words.dtype)
                part[:] = raw[: part.size]
                frames.append(b"\0" + part.tobytes())
            else:
                frames.append(b"\1")
        table = b"".join(len(frame).to_bytes(4, "little") for frame in frames)
        payload = b"".join(frames) + table
        self.payloads[name] = "U8", (len(payload),), payload
        self.target[name] = label, shape, words.tobytes()
        self.tensors.append(entry | {"digest": tensor_digest(self.target[name])})

    def write(self, root: Path) -> None:
        self.files = {
            "first.safetensors": {n: t for n, t in self.target.items() if n != "F16"},
            "zwei/second.safetensors": {"F16": self.target["F16"]},
        }
        weights = []
        for path, tensors in self.files.items():
            data = safetensors_bytes(tensors, {"any": "thing"})
            header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
            put(root / "target" / path, data)
            weights.append(entry_of(path, data) | {"header": header})
        plain = []
        for path, tensors in self.files.items():
            some = {name: self.plain[name] for name in reversed(tensors)}  # in any order
            data = safetensors_bytes(some)
            put(root / "release" / path, data)
            plain.append(entry_of(path, data))
        other = b"<s> </s>"
        put(root / "target" / "tokenizer.txt", other)
        for path in ("target/tokenizer.txt", "tokenizer.txt"):
            put(root / "release" / path, other)
        payloads = safetensors_bytes(self.payloads)
        put(root / "release" / "delta-00001-of-00001.safetensors", payloads)
        manifest = {
            "format": "releasekit-delta/1",
            "name": "by hand",
            "version": "1",
            "made_with": "FORMAT.md",
            "codec": {"id": "add-v1", "params": {"chunk": self.CHUNK}},
            "base": {
                "identity": identity(self.base),
                "tensors": [
                    {"name": n, "dtype": t[0], "shape": list(t[1])}
                    | {"digest": tensor_digest(t)}
                    for n, t in self.base.items()
                ],
                "accepted": [],
            },
            "target": {
                "identity": identity(self.target),
                "weights": weights,
                "files": [entry_of("tokenizer.txt", other)],
            },
            "tensors": self.tensors,
            "shards": [entry_of("delta-00001-of-00001.safetensors", payloads)],
            "plain": plain,
        }
        put(root / "release" / "release.json", json.dumps(manifest).encode())
        put(root / "release" / "config.json", b'{"model_type": "releasekit_delta"}')
        for folder, name in (
            ("target", "rebuilt.SHA256SUMS"),
            ("release", "SHA256SUMS"),
        ):
            found = sorted(digests(root / folder).items())
            lines = "".join(f"{digest}  {path}\n" for path, digest in found)
            put(root / "release" / name, lines.encode())
        model_folder(root / "base", self.base)


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def entry_of(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def tensor_digest(tensor: RawTensor) -> str:
    return str(blake3(tensor[2]).hexdigest())


def identity(tensors: Model) -> str:
    """Section 2: of a model."""
    lines = [
        json.dumps(
            [name, label, list(shape), tensor_digest((label, shape, data))],
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for name, (label, shape, data) in sorted(
            tensors.items(), key=lambda t: t[0].encode()
        )
    ]
    text = "releasekit checkpoint identity v1\n" + "".join(f"{line}\n" for line in lines)
    return str(blake3(text.encode()).hexdigest())


def test_a_release_written_from_the_specification_is_rebuilt(tmp_path: Path) -> None:
    made = ByHand(tmp_path)
    release, base = tmp_path / "release", tmp_path / "base"
    assert verify(release).ok
    apply_delta(base, release, tmp_path / "out", threads=2)
    assert digests(tmp_path / "out") == digests(tmp_path / "target")
    with open_delta(release, base) as delta:
        state = dict(delta.tensors([n for n in delta.keys() if n != "F8_E8M0"]))  # noqa: SIM118
    for name, tensor in state.items():
        assert (
            tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == (made.target[name][2])
        )
