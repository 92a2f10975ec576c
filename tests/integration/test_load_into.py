"""Models filled in place: exactly the target, or exactly as they were."""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from releasekit import (
    BaseMismatchError,
    IntegrityError,
    Progress,
    ReleaseKitError,
    Ulp,
    UsageError,
    load_into,
    make_delta,
)
from releasekit.device.combine import DeviceCombine
from releasekit.device.tensors import TensorSink
from tests.builders import RawTensor, model_folder
from tests.integration.tools import Model, as_raw, numbers, trained, weights

CODEC = Ulp(chunk=1024)
CPU = torch.device("cpu")
GPUS = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
DTYPES = {
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F16": torch.float16,
    "F64": torch.float64,
    "I64": torch.int64,
    "U8": torch.uint8,
    "C64": torch.complex64,
}

State = dict[str, torch.Tensor]


def models() -> tuple[Model, Model]:
    """Base and target of `Tune`, and some tensors more: each operation occurs."""
    source = np.random.default_rng(5)
    base: Model = {
        "embed.weight": weights(source, "BF16", 50, 64),
        "head.weight": weights(source, "BF16", 50, 64),
        "layer.weight": weights(source, "BF16", 64, 64),
        "layer.bias": weights(source, "F32", 64),
        "norm.weight": weights(source, "F32", 64),
        "norm.bias": weights(source, "F16", 64),
        "steps": ("I64", (), b"\1" + bytes(7)),
        "pairs": ("C64", (40, 2), weights(source, "F32", 160)[2]),
    }
    target = {name: base[name] for name in ("norm.weight", "steps")}  # SAME
    for name in ("layer.weight", "layer.bias", "norm.bias"):  # DELTA
        target[name] = trained(source, base[name])
    grown = trained(source, base["embed.weight"])[2] + weights(source, "BF16", 6, 64)[2]
    target["embed.weight"] = ("BF16", (56, 64), grown)  # RESIZE
    target["head.weight"] = target["embed.weight"]  # ALIAS
    target["adapter.weight"] = weights(source, "BF16", 64, 64)  # NEW
    changed = trained(source, ("F32", (160,), base["pairs"][2]))
    target["pairs"] = ("C64", (40, 2), changed[2])
    target["none"] = ("U8", (0, 3), b"")
    return base, target


class Tune(nn.Module):
    """Has the tensors of the target, those of the base in them, and one buffer more."""

    steps: torch.Tensor
    pairs: torch.Tensor
    none: torch.Tensor
    kept: torch.Tensor

    def __init__(self, base: Mapping[str, RawTensor], *, tied: bool) -> None:
        super().__init__()
        half = torch.bfloat16
        self.embed = nn.Embedding(56, 64, dtype=half)
        self.layer = nn.Linear(64, 64, dtype=torch.float32)
        self.layer.weight = nn.Parameter(self.layer.weight.to(half))
        self.norm = nn.LayerNorm(64)
        self.norm.bias = nn.Parameter(self.norm.bias.to(torch.float16))
        self.adapter = nn.Linear(64, 64, bias=False, dtype=half)
        self.head = nn.Linear(64, 56, bias=False, dtype=half)
        if tied:
            self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("pairs", torch.zeros(40, 2, dtype=torch.complex64))
        self.register_buffer("none", torch.empty(0, 3, dtype=torch.uint8))
        self.register_buffer("kept", torch.arange(5))
        for name, tensor in self.state_dict().items():
            if name in base and not (tied and name == "head.weight"):
                put(tensor, base[name])


def put(tensor: torch.Tensor, raw: RawTensor) -> None:
    """Begins a tensor with the given bytes."""
    memory = tensor.detach().view(-1).view(torch.uint8)
    memory[: len(raw[2])] = torch.frombuffer(bytearray(raw[2]), dtype=torch.uint8)


def content(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def contents(model: nn.Module | Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    state = model if isinstance(model, Mapping) else model.state_dict()
    return {name: content(tensor) for name, tensor in state.items()}


def state_of(model: Mapping[str, RawTensor], like: Mapping[str, RawTensor] = {}) -> State:
    """Tensors that hold a model, in the shapes of another's."""
    state = {}
    for name, raw in {**model, **like}.items():
        state[name] = torch.zeros(tuple(raw[1]), dtype=DTYPES[raw[0]])
        if name in model and raw[2]:
            put(state[name], (raw[0], raw[1], model[name][2][: len(raw[2])]))
    return state


@dataclass(frozen=True)
class World:
    """Two models, their folders, the release, and the target's identity."""

    base: Model
    target: Model
    root: Path
    release: Path
    identity: str

    def base_or_none(self, where: str) -> Path | None:
        return None if where == "memory" else self.root / "base"

    def wanted(self) -> dict[str, bytes]:
        return {name: data for name, (_, _, data) in self.target.items()}


def released(root: Path, base: Model, target: Model, codec: Ulp = CODEC) -> World:
    model_folder(root / "base", base)
    model_folder(root / "target", target)
    made = make_delta(root / "base", root / "target", root / "release", codec=codec)
    return World(base, target, root, root / "release", made.target_identity)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return released(tmp_path_factory.mktemp("world"), *models())


@pytest.fixture(params=["processor", "torch"])
def adder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What adds residuals: the codec itself, or torch as it does on a device."""
    if request.param == "torch":
        sink = partial(TensorSink, combine=DeviceCombine(CPU))
        monkeypatch.setattr("releasekit.device.tensors.TensorSink", sink)
    return str(request.param)


WHERE = pytest.mark.parametrize("where", ["files", "memory"])


def refused(
    model: nn.Module | State,
    world: World,
    where: str,
    match: str,
    kind: type[ReleaseKitError] = UsageError,
    **options: Any,
) -> None:
    """Checks that a model is refused with one sentence, and is as it was."""
    before = contents(model)
    with pytest.raises(kind, match=match) as caught:
        load_into(model, world.base_or_none(where), world.release, **options)
    assert "\n" not in str(caught.value)
    assert contents(model) == before


# Models that are filled.


@WHERE
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.usefixtures("adder")
def test_a_module_is_filled(world: World, where: str, tied: bool) -> None:
    model = Tune(world.base, tied=tied)
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    base = world.base_or_none(where)
    assert load_into(model, base, world.release) == world.identity
    found = contents(model)
    assert found.pop("kept") == torch.arange(5).numpy().tobytes()
    assert found == world.wanted()
    assert places == {n: tensor.data_ptr() for n, tensor in model.state_dict().items()}
    assert (model.head.weight is model.embed.weight) == tied
    assert all(parameter.requires_grad for parameter in model.parameters())


@WHERE
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.usefixtures("adder")
def test_tensors_by_name_are_filled(world: World, where: str, threads: int) -> None:
    state = state_of(world.base, world.target)
    base = world.base_or_none(where)
    result = load_into(state, base, str(world.release), threads=threads)
    assert result == world.identity
    assert {n: content(state[n]) for n in world.target} == world.wanted()


@WHERE
def test_parameters_by_name_are_filled(world: World, where: str) -> None:
    state: State = {
        name: nn.Parameter(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in state_of(world.base, world.target).items()
    }
    load_into(state, world.base_or_none(where), world.release)
    assert {n: content(state[n]) for n in world.target} == world.wanted()


def test_with_files_it_does_not_matter_what_the_model_held(world: World) -> None:
    model = Tune({}, tied=False)
    assert load_into(model, world.root / "base", world.release) == world.identity
    assert contents(model).items() >= world.wanted().items()


@WHERE
def test_the_model_may_be_filled_again(world: World, where: str) -> None:
    state = state_of(world.base, world.target)
    load_into(state, world.base_or_none(where), world.release)
    if where == "files":
        assert load_into(state, world.root / "base", world.release) == world.identity
        assert {n: content(state[n]) for n in world.target} == world.wanted()
    else:  # what it holds now is no base
        refused(state, world, where, "load the base with", BaseMismatchError)


@WHERE
@pytest.mark.usefixtures("adder")
def test_tied_tensors_of_one_chunk_are_made_once(tmp_path: Path, where: str) -> None:
    source = np.random.default_rng(1)
    base = {name: weights(source, "BF16", 512, 512) for name in "ab"}
    target = dict.fromkeys("abc", trained(source, base["a"]))
    world = released(tmp_path, base, target, Ulp())
    for _ in range(8):  # were they made at once, they would meet
        one = state_of({"a": base["a"]})["a"]
        state = {"a": one, "b": one, "c": one}
        load_into(state, world.base_or_none(where), world.release, threads=4)
        assert contents(state) == world.wanted()


@WHERE
def test_memory_need_not_be_aligned(world: World, where: str) -> None:
    state = state_of(world.base, world.target)
    for name, tensor in state.items():
        if tensor.numel() and tensor.dtype is not torch.complex64:
            memory = np.empty(tensor.nbytes + 64, np.uint8)
            start = -memory.ctypes.data % 64 + 1
            odd = memory[start : start + tensor.nbytes].view(f"u{tensor.itemsize}")
            signed = odd.view(f"i{tensor.itemsize}") if tensor.itemsize > 1 else odd
            moved = torch.from_numpy(signed).view(tensor.dtype).view(tensor.shape)
            state[name] = moved.copy_(tensor)
            assert moved.data_ptr() % 64 == 1
    load_into(state, world.base_or_none(where), world.release)
    assert {n: content(state[n]) for n in world.target} == world.wanted()


@WHERE
def test_progress_is_told(world: World, where: str) -> None:
    seen: dict[str, Progress] = {}

    def note(progress: Progress) -> None:
        assert progress.done <= progress.total
        seen[progress.stage] = progress

    state = state_of(world.base, world.target)
    load_into(state, world.base_or_none(where), world.release, progress=note)
    assert list(seen) == (["check base"] if where == "memory" else []) + ["rebuild"]
    assert all(progress.done == progress.total > 0 for progress in seen.values())


def test_a_model_that_the_base_is_released_on_stays(tmp_path: Path) -> None:
    base, _ = models()
    world = released(tmp_path, base, base)
    state = state_of(base)
    for tensor in state.values():  # nothing is written to: this would fail
        tensor.requires_grad_(tensor.is_floating_point())
    assert load_into(state, None, world.release) == world.identity
    assert contents(state) == world.wanted()


# Bases that are refused.


@pytest.mark.parametrize(
    "name", ["embed.weight", "layer.weight", "layer.bias", "norm.weight", "steps", "pairs"]
)
def test_another_base_in_memory_is_refused(world: World, name: str) -> None:
    model = Tune(world.base, tied=False)
    memory = model.state_dict()[name].view(-1).view(torch.uint8)
    for at in (0, len(world.base[name][2]) - 1):  # one bit is enough
        memory[at] ^= 1
        refused(
            *(model, world, "memory"),
            rf'^the model in memory: tensor "{name}" is not the one that the delta was '
            r"made with: load the base with identity [0-9a-f]{64} first; the model is "
            r"unchanged$",
            BaseMismatchError,
        )
        memory[at] ^= 1
    assert load_into(model, None, world.release) == world.identity


def test_another_base_on_disk_is_refused(world: World, tmp_path: Path) -> None:
    other = world.base | {
        "layer.weight": trained(np.random.default_rng(9), world.base["layer.weight"])
    }
    folder = model_folder(tmp_path / "other", other)
    state = state_of(world.base, world.target)
    before = contents(state)
    with pytest.raises(BaseMismatchError, match="have other values than the delta's base"):
        load_into(state, folder, world.release)
    assert contents(state) == before


@pytest.mark.parametrize(
    ("name", "base", "target"),
    [
        ("cast", ("F32", 8), ("BF16", 8)),
        ("cast", ("BF16", 8), ("F32", 8)),
        ("rows", ("BF16", 9), ("BF16", 8)),
    ],
)
def test_a_base_that_the_model_cannot_hold_is_refused(
    tmp_path: Path, name: str, base: tuple[str, int], target: tuple[str, int]
) -> None:
    source = np.random.default_rng(1)
    old = weights(source, base[0], base[1], 64)
    new = numbers(trained(source, old))[: target[1]]
    world = released(tmp_path, {name: old}, {name: as_raw(new, target[0])})
    state = state_of(world.target)
    refused(
        *(state, world, "memory"),
        rf'^tensor "{name}": the base has {base[0]}\[{base[1]}, 64\], which a model with '
        rf"{target[0]}\[{target[1]}, 64\] cannot hold: name the base's folder$",
    )
    state[name].zero_()
    assert load_into(state, world.root / "base", world.release) == world.identity
    assert contents(state) == world.wanted()


# Models that are refused.


def transposed(state: State) -> None:
    state["layer.weight"] = state["layer.weight"].t()


def on_meta(state: State) -> None:
    state["layer.weight"] = state["layer.weight"].to("meta")


def of_another_dtype(state: State) -> None:
    state["layer.weight"] = state["layer.weight"].half()


def of_another_shape(state: State) -> None:
    state["embed.weight"] = state["embed.weight"][:50]


def flat(state: State) -> None:
    state["embed.weight"] = state["embed.weight"].view(-1)


def without_one(state: State) -> None:
    del state["adapter.weight"]


def without_two(state: State) -> None:
    del state["adapter.weight"], state["steps"]


def wrongly_tied(state: State) -> None:
    state["adapter.weight"] = state["layer.weight"]


@WHERE
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (
            of_another_dtype,
            r'^the model\'s tensor "layer.weight": expected torch.bfloat16 \[64, 64\], '
            r"found torch.float16 \[64, 64\]: build the model from the release's config",
        ),
        (
            of_another_shape,
            r'"embed.weight": expected torch.bfloat16 \[56, 64\], found torch.bfloat16 '
            r"\[50, 64\]: build",
        ),
        (flat, r"found torch.bfloat16 \[3584\]: build the model from the release's config"),
        (
            without_one,
            r'^the model has no tensor "adapter.weight" that \w+ has: build the model from',
        ),
        (
            without_two,
            r'^the model has no tensor "\S+", nor 1 more that \w+ has: build the model',
        ),
        (transposed, '"layer.weight": expected contiguous memory that holds values: make'),
        (on_meta, '"layer.weight": expected contiguous memory that holds values: make'),
        (
            wrongly_tied,
            r'^the model ties "(layer|adapter).weight" and "(layer|adapter).weight", which '
            r"differ in target: build it with tie_word_embeddings=False$",
        ),
    ],
)
def test_a_model_of_another_kind_is_refused(
    world: World, where: str, spoil: Callable[[State], None], match: str
) -> None:
    state = state_of(world.base, world.target)
    spoil(state)
    meta = {name for name, tensor in state.items() if tensor.is_meta}
    before = contents({n: t for n, t in state.items() if n not in meta})
    with pytest.raises(UsageError, match=match) as caught:
        load_into(state, world.base_or_none(where), world.release)
    assert "\n" not in str(caught.value)
    assert contents({n: t for n, t in state.items() if n not in meta}) == before


@WHERE
def test_a_parameter_that_the_release_lacks_is_refused(world: World, where: str) -> None:
    model = Tune(world.base, tied=False)
    model.extra = nn.Linear(2, 2, bias=False)
    refused(
        *(model, world, where),
        r'^target has no tensor for the model\'s parameter "extra.weight": build the model',
    )


@WHERE
def test_a_tied_parameter_may_have_more_names(world: World, where: str) -> None:
    model = Tune(world.base, tied=True)
    model.extra = nn.Linear(64, 56, bias=False)
    model.extra.weight = model.embed.weight
    load_into(model, world.base_or_none(where), world.release)
    assert contents(model).items() >= world.wanted().items()


@WHERE
def test_a_module_on_meta_is_refused(world: World, where: str) -> None:
    with torch.device("meta"):
        model = Tune({}, tied=False)
    with pytest.raises(UsageError, match=r"make the model with to_empty\(device=…\)"):
        load_into(model, world.base_or_none(where), world.release)


@WHERE
def test_too_little_memory_is_refused(world: World, where: str) -> None:
    model = Tune(world.base, tied=False)
    refused(model, world, where, "^memory: expected a limit of at least", max_memory=9)


@WHERE
@pytest.mark.parametrize("threads", [-1, 0])
def test_no_threads_are_refused(world: World, where: str, threads: int) -> None:
    model = Tune(world.base, tied=False)
    refused(model, world, where, "^threads: expected 1 or more", threads=threads)


# Releases that are damaged.


@WHERE
def test_a_release_that_misses_a_file_changes_nothing(
    world: World, tmp_path: Path, where: str
) -> None:
    spoiled = released(tmp_path, world.base, world.target)
    for path in spoiled.release.glob("*.safetensors"):
        os.truncate(path, path.stat().st_size - 1)
    refused(
        Tune(world.base, tied=False), spoiled, where, "expected .* bytes", IntegrityError
    )


@WHERE
@pytest.mark.usefixtures("adder")
def test_a_damaged_release_is_found_out(world: World, tmp_path: Path, where: str) -> None:
    spoiled = released(tmp_path, world.base, world.target)
    (path,) = spoiled.release.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    path.write_bytes(data)
    state = state_of(world.base, world.target)
    with pytest.raises(IntegrityError, match=path.name):
        load_into(state, spoiled.base_or_none(where), spoiled.release)


@WHERE
def test_no_release_is_no_release(world: World, tmp_path: Path, where: str) -> None:
    model = Tune(world.base, tied=False)
    with pytest.raises((UsageError, OSError)) as caught:
        load_into(model, world.base_or_none(where), tmp_path / "none")
    assert not isinstance(caught.value, OSError) or caught.value.errno == errno.ENOENT


# A model as people have it.


@WHERE
@pytest.mark.parametrize("tied", [False, True])
def test_a_llama_of_transformers(tmp_path: Path, where: str, tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=200,
        tie_word_embeddings=tied,
    )

    def llama() -> Any:
        torch.manual_seed(1)
        return transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()

    tuned = llama()
    tuned.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += torch.randn_like(parameter) * 1e-3
    tuned.save_pretrained(tmp_path / "tuned")
    made = make_delta(tmp_path / "base", tmp_path / "tuned", tmp_path / "release")
    model = llama()
    words = torch.arange(20)[None]
    assert not torch.equal(model(words).logits, tuned(words).logits)
    base = None if where == "memory" else tmp_path / "base"
    assert load_into(model, base, tmp_path / "release") == made.target_identity
    assert contents(model) == contents(tuned)
    assert torch.equal(model(words).logits, tuned(words).logits)


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("where", ["files", "memory"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_module_on_a_gpu_is_filled(
    world: World, device: str, where: str, tied: bool
) -> None:
    model = Tune(world.base, tied=tied).to(device)
    base = world.base_or_none(where)
    assert load_into(model, base, world.release) == world.identity
    assert contents(model).items() >= world.wanted().items()
    assert {parameter.device for parameter in model.parameters()} == {torch.device(device)}


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("where", ["files", "memory"])
def test_a_model_on_two_devices_is_filled(world: World, device: str, where: str) -> None:
    state = state_of(world.base, world.target)
    for name in list(state)[::2]:
        state[name] = state[name].to(device)
    load_into(state, world.base_or_none(where), world.release)
    assert {n: content(state[n]) for n in world.target} == world.wanted()


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_another_base_on_a_gpu_is_refused(world: World, device: str) -> None:
    model = Tune(world.base, tied=False).to(device)
    with torch.no_grad():
        model.layer.weight[3, 3] += 1
    refused(model, world, "memory", '"layer.weight" is not the one', BaseMismatchError)
