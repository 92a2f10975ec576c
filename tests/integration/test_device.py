"""Releases rebuilt with a torch device that adds: the bytes are the processor's.

Where there is no GPU, the same code runs on torch's CPU.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from releasekit import (
    BaseMismatchError,
    Ulp,
    UsageError,
    apply_delta,
    make_delta,
    open_delta,
    plan_apply,
    verify,
)
from releasekit.cli import cli, shell
from releasekit.codec.kernels import Words
from releasekit.codec.ulp import Residuals
from releasekit.device.choose import Engine
from releasekit.device.combine import DeviceCombine, allocator
from releasekit.device.tensors import TensorSink
from tests.builders import model_folder
from tests.integration.tools import (
    Model,
    as_raw,
    but_unsigned,
    digests,
    fine_tuned,
    llama,
    numbers,
    releasekit,
    trained,
    weights,
)

CODEC = Ulp(chunk=4096)
CPU = torch.device("cpu")
GPUS = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def models() -> tuple[Model, Model]:
    """A base and a target with all operations, kinds of frames, and many dtypes."""
    source = np.random.default_rng(7)
    base = llama(source)
    target = fine_tuned(source, base)
    grown, shrunk = "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    new = weights(source, "BF16", 8, 64)
    target[grown] = ("BF16", (328, 64), target[grown][2] + new[2])
    target[shrunk] = ("BF16", (100, 64), target[shrunk][2][: 100 * 128])
    target["lm_head.weight"] = target[grown]  # ALIAS
    for name in base:
        if "norm" in name:
            target[name] = base[name]  # SAME
    base["dropped"] = target["new"] = new
    for label in ("F16", "F32", "F64"):
        base[label] = weights(source, label, 90, 64)
        target[label] = trained(source, base[label])
    base["zeros"] = weights(source, "F32", 90, 64)  # F32 that holds BF16
    target["zeros"] = as_raw(numbers(trained(source, base["zeros"], "BF16")), "F32")
    for label, other in (("F32", "BF16"), ("BF16", "F32"), ("F16", "BF16")):
        base[f"{label} {other}"] = weights(source, label, 90, 64)
        target[f"{label} {other}"] = trained(source, base[f"{label} {other}"], other)
    pairs = weights(source, "F32", 90, 64), trained(source, weights(source, "F32", 90, 64))
    base["C64"], target["C64"] = (("C64", (90, 32), one[2]) for one in pairs)
    for label, width in {"F8_E4M3": 1, "U8": 1, "I16": 2, "I32": 4, "I64": 8}.items():
        words = source.integers(0, 100, (90, 64)).astype(f"u{width}")
        base[label] = (label, (90, 64), words.tobytes())
        words = words + (source.random((90, 64)) < 0.2).astype(words.dtype)
        target[label] = (label, (90, 64), words.tobytes())
    data, half = base["F16"][2], 4096 * 2  # the first chunk is the base's
    target["half"] = ("F16", (90, 64), data[:half] + target["F16"][2][half:])
    base["half"] = base["F16"]
    base["raw"] = ("U8", (90, 64), source.bytes(90 * 64))
    target["raw"] = ("U8", (90, 64), source.bytes(90 * 64))
    base["mask"], target["mask"] = ("BOOL", (3,), b"\0\1\1"), ("BOOL", (3,), b"\1\1\0")
    base["step"], target["step"] = ("I64", (), bytes(8)), ("I64", (), b"\7" + bytes(7))
    target["none"] = ("U16", (0, 4), b"")
    return base, target


@dataclass(frozen=True)
class World:
    """A base, a target, the release of it, and what the target's tensors hold."""

    base: Path
    target: Path
    release: Path
    wanted: Model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = models()
    model_folder(root / "base", base, shards=2)
    model_folder(root / "target", target, shards=5)
    (root / "target" / "config.json").write_bytes(b"{}")
    made = make_delta(root / "base", root / "target", root / "release", codec=CODEC)
    assert set(made.tensors.values()) >= {"same", "delta", "resize", "new", "alias"}
    return World(root / "base", root / "target", root / "release", target)


class Counting(DeviceCombine):
    """Counts the chunks that it makes, and in which threads."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.calls: list[str] = []

    def __call__(self, residuals: Residuals, words: Words) -> bool:
        self.calls.append(threading.current_thread().name)
        return super().__call__(residuals, words)


def force(monkeypatch: pytest.MonkeyPatch, devices: list[torch.device]) -> list[Counting]:
    """Have these devices add, whatever `device` is asked for."""
    adders = [Counting(device) for device in devices]
    chosen = [
        Engine(combine=adder, allocate=allocator(adder.device), host_nbytes=1 << 20)
        for adder in adders
    ]
    for user in ("apply", "making.make"):
        monkeypatch.setattr(f"releasekit.delta.{user}.engines", lambda _: chosen)
    return adders


def force_in_memory(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """Have torch add also where tensors are on the CPU."""
    adder = Counting(CPU)
    sink = partial(TensorSink, combine=adder)
    monkeypatch.setattr("releasekit.device.tensors.TensorSink", sink)
    return adder


def content(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


# Files.


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("threads", [1, 6])  # two lanes
def test_a_device_makes_the_same_files(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    threads: int,
) -> None:
    adders = force(monkeypatch, [CPU] * devices)
    result = apply_delta(world.base, world.release, tmp_path / "out", threads=threads)
    assert result.files == digests(tmp_path / "out") == digests(world.target)
    assert all(len(adder.calls) > 5 for adder in adders)
    assert verify(tmp_path / "out", against=world.release).ok
    if threads > 1:
        assert len({name for adder in adders for name in adder.calls}) > 1


@pytest.mark.parametrize("threads", [6, 9])
def test_lanes_make_the_same_files(world: World, tmp_path: Path, threads: int) -> None:
    apply_delta(world.base, world.release, tmp_path / "out", threads=threads)
    assert digests(tmp_path / "out") == digests(world.target)


def test_a_release_proved_by_a_device_is_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (adder,) = force(monkeypatch, [CPU])
    make_delta(world.base, world.target, tmp_path / "release", codec=CODEC)
    assert len(adder.calls) > 20
    assert digests(tmp_path / "release") == digests(world.release)


def test_a_device_finds_out_another_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = np.random.default_rng(1)
    base = {"big": weights(source, "BF16", 900, 64)}
    base |= {f"small {i}": as_raw(np.ones(8), "F32") for i in range(9)}
    target = fine_tuned(source, base)
    other = base | {"big": weights(source, "BF16", 900, 64, scale=3)}
    for name, model in {"base": base, "target": target, "other": other}.items():
        model_folder(tmp_path / name, model)
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "release", codec=CODEC)
    force(monkeypatch, [CPU])
    # Samples are small tensors spread over the model, so that this one is none of them.
    monkeypatch.setattr("releasekit.delta.samples._SAMPLE_NBYTES", 100)
    with pytest.raises(BaseMismatchError, match='tensor "big" is not the one'):
        apply_delta(tmp_path / "other", tmp_path / "release", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_host_memory_of_a_device_counts(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = partial(plan_apply, world.base, world.release, tmp_path / "out", threads=2)
    plain = plan().memory_nbytes
    force(monkeypatch, [CPU])
    assert plan().memory_nbytes >= plain + (1 << 20)


# The command line.


def arguments(world: World, command: str, out: Path) -> list[str | Path]:
    if command == "apply-delta":
        return [command, "--base", world.base, "--delta", world.release, "--out", out]
    return [command, "--base", world.base, "--target", world.target, "--out", out]


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command here, since torch is loaded, which is refused and leaves nothing."""

    def run(*words: str | Path) -> str:
        capsys.readouterr()
        assert shell.run(cli, [str(word) for word in words]) == 2
        assert list(tmp_path.iterdir()) == []
        said = capsys.readouterr()
        first, message = but_unsigned(said.err).split(": ", 1)
        assert (first, said.out) == ("error", "")
        return message.strip()

    return run


@NO_GPU
@pytest.mark.parametrize("command", ["apply-delta", "make-delta"])
@pytest.mark.parametrize("device", ["cuda", "cuda:all"])
def test_a_machine_without_cuda_says_so(
    world: World, tmp_path: Path, refused: Refused, command: str, device: str
) -> None:
    said = refused(*arguments(world, command, tmp_path / "out"), "--device", device)
    assert said.startswith("device: torch 2.")
    assert "finds no CUDA device here: use --device cpu, or install" in said


@pytest.mark.parametrize("command", ["apply-delta", "make-delta"])
def test_a_device_that_cannot_be_is_refused(
    world: World, tmp_path: Path, refused: Refused, command: str
) -> None:
    said = refused(*arguments(world, command, tmp_path / "out"), "--device", "nonsense")
    assert said == (
        "device: expected auto, cpu, cuda, cuda:0, cuda:all or mps, found 'nonsense'"
    )


def test_a_dry_run_refuses_it_too(world: World, tmp_path: Path, refused: Refused) -> None:
    words = arguments(world, "apply-delta", tmp_path / "out")
    said = refused(*words, "--dry-run", "--device", "gpu")
    assert said.endswith("found 'gpu'")


@pytest.mark.parametrize(
    ("extra", "device"),
    [
        ([], "cpu (auto: decoding, hashing and the disk bound this work, not adding)"),
        (["--device", "cpu"], "cpu"),
    ],
)
def test_details_name_the_device_and_why(
    world: World, tmp_path: Path, extra: list[str], device: str
) -> None:
    words = arguments(world, "apply-delta", tmp_path / "out")
    done = releasekit(*words, "-v", *extra)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"^device +{re.escape(device)}$", done.stdout, re.MULTILINE)
    assert digests(tmp_path / "out") == digests(world.target)


@pytest.mark.parametrize("command", ["apply-delta", "make-delta"])
def test_too_little_memory_is_refused_and_the_least_is_named(
    world: World, tmp_path: Path, refused: Refused, command: str
) -> None:
    words = arguments(world, command, tmp_path / "out")
    said = refused(*words, "--max-memory", "1MB")
    found = re.fullmatch(
        r"memory: expected a limit of at least ([\d,]+) bytes, which one thread needs with "
        r"chunks of this size, found 1,000,000: raise --max-memory",
        said,
    )
    assert found
    least = int(found[1].replace(",", ""))
    refused(*words, "--max-memory", str(least - 1))
    done = releasekit(*words, "--max-memory", str(least), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if command == "apply-delta":
        assert digests(tmp_path / "out") == digests(world.target)


# Memory.


def check_tensors(world: World, state: dict[str, torch.Tensor], device: str) -> None:
    for name, tensor in state.items():
        assert tensor.device == torch.device(device)
        assert content(tensor) == world.wanted[name][2], name


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("threads", [1, 5])
def test_tensors_are_rebuilt_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, forced: bool, threads: int
) -> None:
    adder = force_in_memory(monkeypatch) if forced else None
    with open_delta(world.release, world.base, threads=threads) as delta:
        for _ in range(2):
            state = delta.state_dict(device="cpu")
            assert list(state) == delta.keys()
            assert state.keys() == world.wanted.keys()
            check_tensors(world, state, "cpu")
        assert not adder or len(adder.calls) > 20
        places = {t.data_ptr() for t in state.values() if t.numel()}
        assert len(places) == len(state) - 1  # nobody shares, but one is empty


@pytest.mark.parametrize("forced", [False, True])
def test_some_tensors_in_any_order(
    world: World, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    if forced:
        force_in_memory(monkeypatch)
    names = ["raw", "none", "lm_head.weight", "F32 BF16", "step", "model.norm.weight"]
    with open_delta(world.release, world.base, threads=3) as delta:
        for wanted in (names, names[::-1], names[2:3], []):
            made = list(delta.tensors(iter(wanted), device=CPU))
            assert [name for name, _ in made] == wanted
            check_tensors(world, dict(made), "cpu")


@pytest.mark.parametrize("forced", [False, True])
def test_a_tensor_is_not_given_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    if forced:
        force_in_memory(monkeypatch)
    with (
        open_delta(world.release, world.base, threads=3) as delta,
        pytest.raises(UsageError, match=r'^tensor "F32": is asked for twice'),
    ):
        list(delta.tensors(["F32", "raw", "F32"]))


def test_a_caller_may_stop_early(world: World) -> None:
    before = threading.active_count()
    with open_delta(world.release, world.base, threads=3) as delta:
        for count in (1, 2, 9):
            made = delta.tensors()
            for _ in range(count):
                next(made)
            del made
            assert threading.active_count() == before
        check_tensors(world, delta.state_dict(), "cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("nonsense", "^device nonsense: .*nonsense"),
        ("cpu:all", "^device cpu:all: "),
        ("meta", "^device meta: holds no values; name a device that does$"),
        pytest.param("cuda", "^device cuda: ", marks=NO_GPU),
        pytest.param("cuda:0", "^device cuda:0: ", marks=NO_GPU),
    ],
)
def test_places_that_cannot_be_are_refused(world: World, device: str, message: str) -> None:
    with open_delta(world.release, world.base) as delta:
        ask: list[Callable[[], object]] = [
            lambda: list(delta.tensors(device=device)),
            lambda: delta.state_dict(device=device),
        ]
        for attempt in ask:
            with pytest.raises(UsageError, match=message) as caught:
                attempt()
            assert "\n" not in str(caught.value)


def test_memory_beyond_the_tensors_is_limited(world: World) -> None:
    with (
        open_delta(world.release, world.base, max_memory=1 << 20) as delta,
        pytest.raises(UsageError, match=r"^memory: expected a limit of at least "),
    ):
        delta.state_dict()


def test_types_that_torch_lacks_are_refused(tmp_path: Path) -> None:
    base, target = tmp_path / "base", tmp_path / "target"
    tensors: Model = {"w": ("F6_E2M3", (4,), b"abc"), "v": ("U8", (2,), b"ab")}
    model_folder(base, tensors)
    model_folder(target, {"w": ("F6_E2M3", (4,), b"abd"), "v": ("U8", (2,), b"xy")})
    make_delta(base, target, tmp_path / "release")
    with open_delta(tmp_path / "release", base) as delta:
        with pytest.raises(
            UsageError, match=r'^tensor "w": torch has no dtype for F6_E2M3'
        ):
            delta.state_dict()
        assert content(dict(delta.tensors(["v"]))["v"]) == b"xy"


@pytest.mark.skipif(
    not hasattr(torch, "float4_e2m1fn_x2"), reason="this torch has no 4-bit floats"
)
def test_two_small_floats_share_a_byte(tmp_path: Path) -> None:
    base, target = tmp_path / "base", tmp_path / "target"
    model_folder(base, {"even": ("F4", (2, 4), b"abcd"), "odd": ("F4", (2, 3), b"abc")})
    model_folder(target, {"even": ("F4", (2, 4), b"abxd"), "odd": ("F4", (2, 3), b"abx")})
    make_delta(base, target, tmp_path / "release")
    with open_delta(tmp_path / "release", base) as delta:
        even = dict(delta.tensors(["even"]))["even"]
        assert (content(even), even.shape) == (b"abxd", (2, 2))
        with pytest.raises(UsageError, match=r'^tensor "odd": torch has no dtype for F4'):
            list(delta.tensors(["odd"]))


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("device", [*GPUS, "cuda", "cuda:all"] if GPUS else [])
@pytest.mark.parametrize("threads", [1, 6])
def test_a_gpu_makes_the_same_files(
    world: World, tmp_path: Path, device: str, threads: int
) -> None:
    result = apply_delta(
        *(world.base, world.release, tmp_path / "out"), device=device, threads=threads
    )
    assert result.files == digests(tmp_path / "out") == digests(world.target)
    assert result.device == device


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"] if GPUS else [])
def test_a_gpu_proves_a_release(world: World, tmp_path: Path, device: str) -> None:
    release = tmp_path / "release"
    make_delta(world.base, world.target, release, codec=CODEC, device=device)
    assert digests(release) == digests(world.release)


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("threads", [1, 6])
def test_tensors_are_rebuilt_on_a_gpu(world: World, device: str, threads: int) -> None:
    with open_delta(world.release, world.base, threads=threads) as delta:
        for _ in range(2):
            check_tensors(world, delta.state_dict(device=device), device)
        some = dict(delta.tensors(["raw", "none", "F32"], device=device))
        check_tensors(world, some, device)


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS[-1:])
def test_cuda_is_the_caller_s_current_device(world: World, device: str) -> None:
    with torch.cuda.device(device), open_delta(world.release, world.base) as delta:
        check_tensors(world, delta.state_dict(device="cuda"), device)
