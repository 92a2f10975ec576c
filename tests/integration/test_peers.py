"""What went wrong with other tools, as their users and their code tell it, and not here.

The defects are FastChat's, Open-Assistant's, stanford_alpaca's and mergekit's; numbers are
those of issues in their repositories.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from releasekit import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    Progress,
    ReleaseKitError,
    apply_delta,
    apply_foreign,
    convert,
    identify,
    import_delta,
    make_delta,
    plan_apply,
    plan_foreign,
    preflight,
    verify,
)
from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.cli import cli
from releasekit.cli.shell import run
from releasekit.codec import Add, Ulp
from releasekit.foreign.xor import apply_xor
from tests import foreign
from tests.builders import model_folder
from tests.foreign import Tensors, half, model, save, tuned
from tests.integration.test_memory import peak_nbytes, write_model
from tests.integration.tools import bf16, but_unsigned, digests

BASE = model(1)
TARGET = tuned(BASE)
DELTA = foreign.subtract(TARGET, BASE)
MODEL = foreign.add(half(DELTA), half(BASE))
MODEL_NBYTES = sum(tensor.nbytes for tensor in BASE.values())
EMBEDDING = "model.embed_tokens.weight"


class World:
    """A base, a fine-tune of it, their additive delta, and their release."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = save(BASE, root / "base")
        self.target = save(TARGET, root / "target")
        self.delta = save(DELTA, root / "delta")
        self.release = root / "release"
        make_delta(self.base, self.target, self.release)

    def making(self) -> dict[str, Callable[..., object]]:
        """Everything that writes a model or a delta, by the command's name."""
        base, target, delta, release = self.base, self.target, self.delta, self.release
        return {
            "apply-delta": lambda out, **o: apply_delta(base, release, out, **o),
            "apply-delta of another": lambda out, **o: apply_foreign(base, delta, out, **o),
            "convert": lambda out, **o: convert(base, out, **o),
            "import-delta": lambda out, **o: import_delta(base, delta, out, **o),
            "make-delta": lambda out, **o: make_delta(base, target, out, **o),
            "make-delta --codec add": lambda out, **o: make_delta(
                base, target, out, codec=Add(), **o
            ),
        }

    def command(self, name: str, out: Path, **changed: Path) -> list[str]:
        """The arguments of a command, some of them changed."""
        paths = {role: str(changed.get(role, self.root / role)) for role in INPUTS[name]}
        if name == "convert":
            return ["convert", paths["base"], str(out)]
        (other,) = set(paths) - {"base"}
        option = "--target" if other == "target" else "--delta"
        words = ["--base", paths["base"], option, paths[other], "--out", str(out)]
        return [*name.removesuffix(" of another").split(), *words]


#: What each command reads.
INPUTS = {
    "apply-delta": ("base", "release"),
    "apply-delta of another": ("base", "delta"),
    "convert": ("base",),
    "import-delta": ("base", "delta"),
    "make-delta": ("base", "target"),
    "make-delta --codec add": ("base", "target"),
}
COMMANDS = list(INPUTS)

each_input = pytest.mark.parametrize(
    ("name", "role"), [(name, role) for name, roles in INPUTS.items() for role in roles]
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def rebuilt(folder: Path) -> Tensors:
    return safetensors.torch.load_file(folder / "model.safetensors")


def check(found: Tensors, wanted: Tensors) -> None:
    """Equal names, dtypes and bits."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype is tensor.dtype
        words = [x.contiguous().view(torch.uint8) for x in (found[name], tensor)]
        assert torch.equal(*words), name


def nothing_more(folder: Path, *names: str) -> bool:
    """Whether a folder holds these, and nothing half-made."""
    return sorted(path.name for path in folder.iterdir()) == sorted(names)


# FastChat's low-memory path finds only `pytorch_model-*.bin`, and turns anything else into
# an empty model without an error.


def one_bin(tensors: Tensors, folder: Path) -> Path:
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def bins(tensors: Tensors, folder: Path) -> Path:
    return save(tensors, folder, "bin")


def old_bins(tensors: Tensors, folder: Path) -> Path:
    return save(tensors, folder, "old bin")


def one_pt(tensors: Tensors, folder: Path) -> Path:
    folder.mkdir()
    torch.save(tensors, folder / "weights.pt")
    return folder / "weights.pt"


def one_safetensors(tensors: Tensors, folder: Path) -> Path:
    return save(tensors, folder)


def shards(tensors: Tensors, folder: Path) -> Path:
    return convert(save(tensors, folder / "whole"), folder / "x", shard_nbytes=40_000).out


@pytest.mark.parametrize("form", [one_bin, bins, old_bins, one_pt, one_safetensors, shards])
def test_a_delta_in_any_files_makes_the_whole_model(
    world: World, tmp_path: Path, form: Callable[[Tensors, Path], Path]
) -> None:
    delta = form(DELTA, tmp_path / "delta")
    base = form(BASE, tmp_path / "base")
    made = apply_foreign(base, delta, tmp_path / "out")
    check(rebuilt(tmp_path / "out"), MODEL)
    assert made.nbytes > MODEL_NBYTES


def no_files(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def no_tensors_in_a_bin(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")


def an_empty_index(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {}}')


def an_index_alone(folder: Path) -> None:
    text = '{"weight_map": {"w": "pytorch_model-00001-of-00002.bin"}}'
    (folder / "pytorch_model.bin.index.json").write_text(text)


def one_shard_of_two(folder: Path) -> None:
    torch.save(DELTA, folder / "pytorch_model-00001-of-00002.bin")


def another_format(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"GGUF")


@pytest.mark.parametrize(
    "kind",
    [
        *(no_files, no_tensors_in_a_bin, an_empty_index, an_index_alone),
        *(one_shard_of_two, another_format),
    ],
)
@each_input
def test_no_model_is_made_of_nothing(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: Callable[[Path], None],
    name: str,
    role: str,
) -> None:
    empty = tmp_path / "empty"
    command = world.command(name, tmp_path / "out", **{role: empty})
    empty.mkdir()
    kind(empty)
    code = run(cli, command)
    assert code in (2, 3, 4)
    assert str(empty) in capsys.readouterr().err
    assert nothing_more(tmp_path, "empty")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("apply-delta", "base"), ("apply-delta of another", "base")),
        ("apply-delta of another", "delta"),
        *(("convert", "base"), ("import-delta", "base")),
        ("import-delta", "delta"),
        ("make-delta", "target"),
        ("make-delta --codec add", "target"),
    ],
)
def test_no_model_is_made_of_a_file_without_tensors(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    role: str,
) -> None:
    empty = model_folder(tmp_path / "empty", {})
    assert run(cli, world.command(name, tmp_path / "out", **{role: empty})) in (2, 4)
    assert str(empty) in capsys.readouterr().err
    assert nothing_more(tmp_path, "empty")


# It drops tensors that only the delta has.


def test_tensors_that_only_the_delta_has_are_kept(world: World, tmp_path: Path) -> None:
    more = {
        "score.weight": torch.randn(3, 64).half(),
        "score.ids": torch.arange(5),
        "score.mask": torch.tensor([True, False]),
        "score.wide": torch.randn(3),
        "none": torch.zeros(0, 3).half(),
    }
    delta = save(DELTA | more, tmp_path / "delta")
    apply_foreign(world.base, delta, tmp_path / "out")
    wanted = MODEL | more | {"score.wide": more["score.wide"].half()}
    check(rebuilt(tmp_path / "out"), wanted)
    import_delta(world.base, delta, tmp_path / "release")
    apply_delta(world.base, tmp_path / "release", tmp_path / "again")
    check(rebuilt(tmp_path / "again"), wanted)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_that_both_have_are_added(tmp_path: Path, dtype: torch.dtype) -> None:
    """position_ids, and what else a model keeps beside its weights."""
    ids = {"model.position_ids": torch.arange(5, dtype=dtype)}
    base = save(BASE | ids, tmp_path / "base")
    delta = save(DELTA | {n: t + 1 for n, t in ids.items()}, tmp_path / "delta")
    apply_foreign(base, delta, tmp_path / "out")
    check(rebuilt(tmp_path / "out"), MODEL | {n: t + t + 1 for n, t in ids.items()})


def test_integers_with_more_rows_have_no_mean(tmp_path: Path) -> None:
    """With Alpaca's recipe, which resizes an embedding only: those rows count as zeros."""
    base = save(BASE | {"model.ids": torch.arange(5)}, tmp_path / "base")
    wide = {name: tensor.float() for name, tensor in DELTA.items()}
    delta = save(wide | {"model.ids": torch.arange(6)}, tmp_path / "delta")
    apply_foreign(base, delta, tmp_path / "out", recipe="alpaca")
    found = rebuilt(tmp_path / "out")["model.ids"]
    assert found.tolist() == [0, 2, 4, 6, 8, 5]


@pytest.mark.parametrize(
    ("of_base", "of_delta"),
    [
        (torch.tensor([True, False]), torch.tensor([True, True])),
        (torch.arange(5), torch.arange(5).float()),
        (torch.arange(5).float(), torch.arange(5)),
        (torch.arange(5), torch.arange(5, dtype=torch.int32)),
    ],
)
def test_tensors_that_have_no_sum_are_refused_by_name(
    tmp_path: Path, of_base: torch.Tensor, of_delta: torch.Tensor
) -> None:
    base = save(BASE | {"model.mask": of_base}, tmp_path / "base")
    delta = save(DELTA | {"model.mask": of_delta}, tmp_path / "delta")
    for call in (plan_foreign, apply_foreign, import_delta):
        with pytest.raises(ReleaseKitError, match=r"model\.mask"):
            call(base, delta, tmp_path / "out")
    assert nothing_more(tmp_path, "base", "delta")


# It deletes a target that is there, unasked.


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_there_is_neither_deleted_nor_changed(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "out"
    before = digests(save(model(3), out))
    assert run(cli, world.command(name, out)) == 2
    assert capsys.readouterr().err == (
        f"error: {out}: exists already; choose another --out, or replace it with --force\n"
    )
    assert digests(out) == before
    (out / "model.safetensors").unlink()  # years of work, but no model
    before = digests(out)
    assert run(cli, [*world.command(name, out), "--force"]) == 2
    assert "--force does not remove such a folder" in capsys.readouterr().err
    assert digests(out) == before
    assert nothing_more(tmp_path, "out")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_replaced_is_there_until_its_successor_is(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "out"
    before = digests(save(model(3), out))
    with monkeypatch.context() as patch:
        fail_reading(patch, OSError(errno.EIO, os.strerror(errno.EIO)), after=12)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            world.making()[name](out, force=True)
    assert digests(out) == before
    world.making()[name](out, force=True)
    assert digests(out) != before
    assert nothing_more(tmp_path, "out")


# It needs five times the disk.


def largest(folder: Path) -> tuple[Callable[[Progress], None], list[int]]:
    """A progress callback that notes how much a folder has held at most."""
    most = [0]

    def note(_: Progress) -> None:
        sizes = []
        for path in folder.rglob("*"):
            try:
                sizes.append(path.stat().st_size if path.is_file() else 0)
            except FileNotFoundError:
                continue
        most[0] = max(most[0], sum(sizes))

    return note, most


@pytest.mark.parametrize("name", COMMANDS)
def test_the_disk_holds_one_model_more_at_most(
    world: World, tmp_path: Path, name: str
) -> None:
    (tmp_path / "x").mkdir()
    note, most = largest(tmp_path / "x")
    options: dict[str, Any] = {"progress": note, "threads": 1}
    if name in ("convert", "apply-delta of another"):
        options["shard_nbytes"] = 30_000
    world.making()[name](tmp_path / "x" / "out", **options)
    assert 0 < most[0] < 1.15 * MODEL_NBYTES + 20_000
    if name in ("import-delta", "make-delta"):
        assert most[0] < MODEL_NBYTES


def test_plans_need_the_disk_for_one_model(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for plan in (
        plan_foreign(world.base, world.delta, out),
        plan_apply(world.base, world.release, out),
    ):
        assert MODEL_NBYTES <= plan.write_nbytes < MODEL_NBYTES + 5000
    found = preflight(world.base, world.delta, out=out)
    assert found.write_nbytes == plan_foreign(world.base, world.delta, out).write_nbytes


# Open-Assistant's swallows every exception, and exits with 0.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("spoil", [cut, emptied, unreadable, dangling, Path.unlink])
@each_input
def test_every_fault_has_an_exit_code_and_a_message(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    name: str,
    role: str,
) -> None:
    path = tmp_path / "spoiled"
    command = world.command(name, tmp_path / "out", **{role: path})
    shutil.copytree(getattr(world, role), path)
    spoil(next(path.glob("*.safetensors")))
    assert run(cli, command) in (2, 3, 4, 5)
    shown = capsys.readouterr()
    message = but_unsigned(shown.err)
    assert (shown.out, message[:7]) == ("", "error: ")
    assert str(path) in message
    assert nothing_more(tmp_path, "spoiled")


def test_an_exclusive_or_without_its_base_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, target = save(BASE, tmp_path / "base", "bin"), save(TARGET, tmp_path / "t", "bin")
    payload = foreign.xor_files(tmp_path / "payload", target, base)
    (base / "pytorch_model-00002-of-00002.bin").unlink()
    out = tmp_path / "out"
    command = ["apply-delta", "--base", base, "--delta", payload, "--out", out]
    assert run(cli, [str(word) for word in command]) == 4
    assert "pytorch_model-00002-of-00002.bin" in capsys.readouterr().err
    assert nothing_more(tmp_path, "base", "t", "payload")


def test_what_nobody_expects_is_not_swallowed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the program; a shell sees that as well."""
    for name in COMMANDS:
        with monkeypatch.context() as patch:
            fail_reading(patch, RuntimeError("nobody expects this"), after=12)
            with pytest.raises(RuntimeError, match="nobody expects this"):
                run(cli, world.command(name, tmp_path / "out"))
        assert not (tmp_path / "out").exists()


# It pads a short base with zeros.


@pytest.mark.parametrize(
    ("kind", "nbytes"),
    [
        ("safetensors", 100),
        ("safetensors", 5000),
        *(("bin", 100), ("bin", 5000)),
        ("old bin", 100),
    ],
)
def test_a_short_base_of_an_exclusive_or_is_noticed(
    tmp_path: Path, kind: str, nbytes: int
) -> None:
    base, target = (save(BASE, tmp_path / "base", kind), save(TARGET, tmp_path / "t", kind))
    payload = foreign.xor_files(tmp_path / "payload", target, base)
    file = sorted(p for p in base.iterdir() if p.suffix in (".safetensors", ".bin"))[-1]
    file.write_bytes(file.read_bytes()[:-nbytes])
    with pytest.raises(BaseMismatchError):
        apply_xor(base, payload, tmp_path / "out")
    assert nothing_more(tmp_path, "base", "t", "payload")


@pytest.mark.parametrize("kind", ["safetensors", "bin", "old bin"])
def test_a_short_base_of_a_sum_is_noticed(world: World, tmp_path: Path, kind: str) -> None:
    base = save(BASE, tmp_path / "base", kind)
    file = sorted(p for p in base.iterdir() if p.suffix in (".safetensors", ".bin"))[-1]
    cut(file)
    calls: list[Callable[[], object]] = [
        lambda: apply_foreign(base, world.delta, tmp_path / "out"),
        lambda: import_delta(base, world.delta, tmp_path / "out"),
        lambda: apply_delta(base, world.release, tmp_path / "out"),
        lambda: make_delta(base, world.target, tmp_path / "out"),
        lambda: convert(base, tmp_path / "out"),
    ]
    for call in calls:
        with pytest.raises(FormatError, match=str(file)):
            call()
    assert nothing_more(tmp_path, "base")


# Alpaca's check is one constant, valid for one model.


def test_any_sum_may_be_expected_and_none_is_assumed(world: World, tmp_path: Path) -> None:
    made = apply_foreign(world.base, world.delta, tmp_path / "out", recipe="alpaca")
    assert made.sum is not None
    assert abs(made.sum) < 50_000
    apply_foreign(
        *(world.base, world.delta, tmp_path / "again"), recipe="alpaca", expect_sum=made.sum
    )
    with pytest.raises(IntegrityError):
        apply_foreign(
            *(world.base, world.delta, tmp_path / "no"),
            recipe="alpaca",
            expect_sum=50637.1836,
        )
    assert nothing_more(tmp_path, "out", "again")


def test_a_change_that_keeps_the_sum_is_noticed(world: World, tmp_path: Path) -> None:
    """Two rows that changed places add up to the same; their digests differ."""
    base = dict(BASE)
    base[EMBEDDING] = base[EMBEDDING].flip(0)
    swapped = save(base, tmp_path / "base")
    with pytest.raises(BaseMismatchError):
        apply_delta(swapped, world.release, tmp_path / "out")
    apply_foreign(world.base, world.delta, tmp_path / "right")
    made = apply_foreign(swapped, world.delta, tmp_path / "wrong")
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("right", "wrong")]
    assert sums[0] != sums[1]
    assert made.identity != identify(tmp_path / "right").identity


# mergekit's writer finalises after an exception, so a failed run looks whole.


def fail_reading(
    patch: pytest.MonkeyPatch, error: BaseException, after: int, there: Path = Path("/")
) -> None:
    """Lets so many reads of tensors pass once a path is there; from then on they fail."""
    read, left = SafetensorsCheckpoint.read, after

    def fail(
        self: SafetensorsCheckpoint, name: str, start: int, out: NDArray[np.uint8]
    ) -> None:
        nonlocal left
        if there.exists():
            left -= 1
            if left < 0:
                raise error
        read(self, name, start, out)

    patch.setattr(SafetensorsCheckpoint, "read", fail)


def looks_whole(folder: Path) -> str:
    """What makes a folder pass for a model or a release; nothing if it does not."""
    for name in ("config.json", "release.json", "SHA256SUMS"):
        if (folder / name).exists():
            return f"has a {name}"
    if list(folder.glob("*.index.json")):
        return "has an index"
    try:
        open_checkpoint(folder).close()
    except ReleaseKitError:
        return ""
    return "can be opened"


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("error", "after"),
    [
        (OSError(errno.EIO, "the disk fails"), 3),
        (OSError(errno.EIO, "the disk fails"), 12),
        (MemoryError("the disk fails"), 12),
        (KeyboardInterrupt("the disk fails"), 12),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_failure_while_writing_leaves_nothing_that_looks_whole(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: BaseException,
    after: int,
) -> None:
    options: dict[str, Any] = {"threads": 1}
    if name in ("convert", "apply-delta of another"):
        options["shard_nbytes"] = 40_000
    make, out = world.making()[name], tmp_path / "out"
    left = tmp_path / "out.partial" / "new"
    with monkeypatch.context() as patch:
        fail_reading(patch, error, after, there=left)
        with pytest.raises(type(error), match="the disk fails"):
            make(out, **options)
    assert not out.exists()
    assert looks_whole(left) == ""
    make(out, **options)
    make(tmp_path / "whole", **options)
    assert digests(out) == digests(tmp_path / "whole")
    assert nothing_more(tmp_path, "whole", "out")


# Pain: a vocabulary of 32000 or 32001 (FastChat #486, #495, #551, #1302; mergekit #328
# asks for the check before hours of work).


def check_refused_at_once(
    call: Callable[..., object], base: Path, delta: Path, tmp: Path
) -> str:
    """The words that refuse, before anything is done."""
    reports: list[Progress] = []
    with pytest.raises(BaseMismatchError) as caught:
        call(base, delta, tmp / "out", progress=reports.append)
    assert not reports
    assert not list(tmp.glob("out*"))
    return str(caught.value)


def test_a_base_with_a_token_more_is_refused_before_any_work(
    world: World, tmp_path: Path
) -> None:
    base = save(foreign.zero_rows(BASE, 33), tmp_path / "base")
    message = check_refused_at_once(apply_delta, base, world.release, tmp_path)
    assert "33" in message
    assert "[PAD]" in message or "token" in message
    for call in (apply_foreign, import_delta):
        assert check_refused_at_once(call, base, world.delta, tmp_path) == (
            f'{base}: tensor "lm_head.weight": expected at most 32 rows as in the delta, '
            "found 33: a token, such as [PAD], was added to this base; get the original one"
        )
    for delta in (world.release, world.delta):
        found = preflight(base, delta)
        assert not found.ok
        assert "33" in found.findings[0].message


def test_a_fine_tune_with_a_token_more_is_no_fault(world: World, tmp_path: Path) -> None:
    resized = foreign.zero_rows(BASE, 33)
    grown = tuned(BASE, rows=33)
    target = save(grown, tmp_path / "target")
    delta = save(foreign.subtract(grown, resized), tmp_path / "delta")
    apply_foreign(world.base, delta, tmp_path / "sum")
    check(rebuilt(tmp_path / "sum"), foreign.add(foreign.subtract(grown, resized), resized))
    for number, codec in enumerate((Ulp(), Add())):
        release, out = tmp_path / f"release{number}", tmp_path / f"out{number}"
        made = make_delta(world.base, target, release, codec=codec)
        assert made.operations["resize"] == 2
        apply_delta(world.base, release, out)
        assert digests(out) == digests(target)


# Pain: killed for memory (FastChat #284, #266, #1332; alpaca_farm #73).


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an additive delta, each of them 160 MiB."""
    root = tmp_path_factory.mktemp("large")
    source = np.random.default_rng(5)
    for name, scale in (("base", 0.02), ("delta", 1e-3)):
        values = source.standard_normal(1 << 23, np.float32) * np.float32(scale)
        write_model(root / f"{name}.safetensors", bf16(values).tobytes(), 10)
    return root


def test_adding_takes_no_more_memory_than_was_said(large: Path, tmp_path: Path) -> None:
    base, delta = large / "base.safetensors", large / "delta.safetensors"
    plan = plan_foreign(base, delta, tmp_path / "out", threads=2)
    inputs = ("--base", base, "--delta", delta)
    peak = peak_nbytes("apply-delta", *inputs, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 160 << 20
    assert peak <= plan.memory_nbytes
    assert plan.memory_nbytes < (plan.base_nbytes + plan.delta_nbytes) * 2 // 3


def test_converting_takes_less_memory_than_the_model(large: Path, tmp_path: Path) -> None:
    peak = peak_nbytes(
        "convert", large / "base.safetensors", tmp_path / "out", "--dtype", "float32"
    )
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 320 << 20
    assert peak < 200 << 20


# Pain: a wrong base, version or format (FastChat #3542, #1383, #1321; LLaVA #1452).


def other_weights(base: Tensors) -> Tensors:
    return model(2)


def a_fine_tune_of_it(base: Tensors) -> Tensors:
    return tuned(base, seed=8)


def one_value(base: Tensors) -> Tensors:
    changed = base["model.norm.weight"].clone()
    changed[-1] *= 2
    return base | {"model.norm.weight": changed}


def another_dtype(base: Tensors) -> Tensors:
    return {name: tensor.bfloat16() for name, tensor in base.items()}


def other_names(base: Tensors) -> Tensors:
    return {name.replace("model.", "transformer."): t for name, t in base.items()}


def a_size_larger(base: Tensors) -> Tensors:
    return {name: torch.cat([tensor, tensor]) for name, tensor in base.items()}


def quantised(base: Tensors) -> Tensors:
    return {
        name.replace("proj.weight", "proj.qweight"): tensor for name, tensor in base.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        *(other_weights, a_fine_tune_of_it, one_value, another_dtype, other_names),
        *(a_size_larger, quantised),
    ],
)
def test_a_wrong_base_of_a_release_is_refused_before_any_work(
    world: World, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    base = save(change(BASE), tmp_path / "base")
    message = check_refused_at_once(apply_delta, base, world.release, tmp_path)
    assert message.startswith(f"{base}: ")
    assert identify(world.base).identity in message
    assert not preflight(base, world.release).ok
    assert identify(base, deltas=[world.release]).matches == ()


@pytest.mark.parametrize("change", [other_names, a_size_larger, quantised])
def test_a_base_that_no_delta_fits_is_refused_before_any_work(
    world: World, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    base = save(change(BASE), tmp_path / "base")
    for call in (apply_foreign, import_delta):
        message = check_refused_at_once(call, base, world.delta, tmp_path)
        assert message.startswith(f"{base}: ")


# Pain: the raw delta is used as a model (FastChat #890, #285; HELM #1804).


def test_a_release_has_no_name_that_loaders_look_for(world: World) -> None:
    config = json.loads((world.release / "config.json").read_bytes())
    assert config["model_type"] == "releasekit_delta"
    assert "architectures" not in config
    assert "apply-delta --base BASE --delta THIS_FOLDER" in config["releasekit"]
    for pattern in ("model*.safetensors*", "pytorch_model*", "*.bin", "consolidated*"):
        assert not list(world.release.glob(pattern))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "role", "codec"),
    [
        ("convert", "base", Ulp()),
        ("convert", "base", Add()),
        ("make-delta", "base", Ulp()),
        ("make-delta", "base", Add()),
        ("make-delta", "target", Ulp()),
        ("make-delta", "target", Add()),
        ("make-delta --codec add", "target", Ulp()),
        ("make-delta --codec add", "target", Add()),
        ("apply-delta", "base", Ulp()),
        ("apply-delta", "base", Add()),
        ("apply-delta of another", "base", Ulp()),
        ("apply-delta of another", "base", Add()),
        ("import-delta", "base", Ulp()),
        ("import-delta", "base", Add()),
        ("import-delta", "delta", Ulp()),
        ("import-delta", "delta", Add()),
    ],
)
def test_a_release_is_not_taken_for_a_model(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    role: str,
    codec: Ulp,
) -> None:
    release = tmp_path / "release"
    target = save(TARGET, tmp_path / "target")
    convert(target, tmp_path / "shards", shard_nbytes=60_000)
    make_delta(world.base, tmp_path / "shards", release, codec=codec)
    assert run(cli, world.command(name, tmp_path / "out", **{role: release})) in (2, 3, 4)
    assert str(release) in capsys.readouterr().err
    assert nothing_more(tmp_path, "target", "shards", "release")


def test_an_additive_delta_is_not_taken_for_a_model(world: World, tmp_path: Path) -> None:
    for call, delta in ((apply_foreign, world.delta), (apply_delta, world.release)):
        message = check_refused_at_once(call, world.delta, delta, tmp_path)
        assert "this is a delta" in message


# Pain: Git LFS pointers as weights (FastChat #1132).


POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9976576152\n"
)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "base") for name in COMMANDS),
        *(("apply-delta of another", "delta"), ("import-delta", "delta")),
        *(("make-delta", "target"), ("make-delta --codec add", "target")),
    ],
)
def test_a_pointer_is_named_and_what_to_do(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    name: str,
    role: str,
) -> None:
    path = tmp_path / "pointers"
    command = world.command(name, tmp_path / "out", **{role: path})
    path.mkdir()
    (path / file).write_text(POINTER)
    if (role, file) == ("target", "pytorch_model.bin"):  # refused for what it is
        assert run(cli, command) == 2
        return
    assert run(cli, command) == 3
    assert but_unsigned(capsys.readouterr().err) == (
        f"error: {path / file}: is a Git LFS pointer, not the weights: run `git lfs pull`, "
        "or download the file itself\n"
    )
    assert nothing_more(tmp_path, "pointers")


# Pain: the delta is as big as the model (FastChat #226).


def test_a_delta_is_a_fraction_of_the_model(tmp_path: Path) -> None:
    source = np.random.default_rng(6)
    values = source.standard_normal((4096, 256), np.float32) * np.float32(0.02)
    step = source.standard_normal((4096, 256), np.float32) * np.float32(1e-5)
    old, new = (bf16(x).tobytes() for x in (values, values + step))
    base = model_folder(tmp_path / "base", {"w": ("BF16", (4096, 256), old)})
    target = model_folder(tmp_path / "target", {"w": ("BF16", (4096, 256), new)})
    assert make_delta(base, target, tmp_path / "delta").ratio < 0.15


def test_an_additive_delta_becomes_smaller(world: World, tmp_path: Path) -> None:
    import_delta(world.base, world.delta, tmp_path / "release")
    sizes = [sum(p.stat().st_size for p in tmp_path.glob("release/delta-*"))]
    sizes.append((world.delta / "model.safetensors").stat().st_size)
    assert sizes[0] < sizes[1]


# Pain: conversion drift, and checksums that are useless for it (Open-Assistant #2825;
# stanford_alpaca #256; EasyLM #21 asks for a checksum of the result).


def test_a_base_is_known_by_what_it_holds_in_any_files(
    world: World, tmp_path: Path
) -> None:
    wanted = identify(world.base).identity
    reverse = dict(reversed(BASE.items()))
    for form in (one_bin, bins, old_bins, one_pt, shards):
        base = form(reverse, tmp_path / form.__name__)
        assert identify(base).identity == wanted
        assert identify(base, deltas=[world.release]).matches[0].role == "base"
        apply_delta(base, world.release, tmp_path / f"{form.__name__} out")
        assert digests(tmp_path / f"{form.__name__} out") == digests(world.target)


def test_the_result_has_checksums_that_do_not_drift(world: World, tmp_path: Path) -> None:
    """Whatever the inputs were stored in, the files are the same."""
    made = [
        apply_foreign(
            form(BASE, tmp_path / f"{number}"), world.delta, tmp_path / f"x{number}"
        )
        for number, form in enumerate((bins, one_pt, shards))
    ]
    assert made[0].files == made[1].files == made[2].files
    assert all(verify(result.out).ok for result in made)


# Pain: tokenizers drift (FastChat #408, #433, #466).


def test_another_tokenizer_is_noticed(world: World, tmp_path: Path) -> None:
    apply_delta(world.base, world.release, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"tokenizer"
    (tmp_path / "out" / "tokenizer.model").write_bytes(b"tokeniser")
    found = verify(tmp_path / "out", against=world.release)
    wrong: Mapping[str, str] = {
        f.path: f.status.value for f in found.files if f.status.value != "good"
    }
    assert wrong == {"tokenizer.model": "wrong"}
