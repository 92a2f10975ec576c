"""Work that is stopped at any step, and gone on with: nothing lost, nothing believed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit import Progress, UsageError, apply_delta, make_delta
from releasekit.codec import Ulp
from tests.builders import model_folder
from tests.integration.tools import Model, digests, fine_tuned, trained, weights

CODEC = Ulp(chunk=1024)
OPTIONS: dict[str, Any] = {"codec": CODEC, "shard_nbytes": 9000, "threads": 2, "name": "x"}


class World:
    """Inputs with an operation of each kind, and what comes of them undisturbed."""

    def __init__(self, root: Path) -> None:
        source = np.random.default_rng(8)
        self.root = root
        self.base_model: Model = {
            f"layer.{number}": weights(source, "BF16", 30, 64) for number in range(9)
        }
        self.base_model["dropped"] = weights(source, "F32", 100)
        target = fine_tuned(source, self.base_model)
        del target["dropped"]
        target["layer.2"] = self.base_model["layer.2"]
        grown = weights(source, "BF16", 3, 64)[2]
        target["layer.4"] = ("BF16", (33, 64), target["layer.4"][2] + grown)
        target["head"] = target["layer.1"]
        target["new"] = weights(source, "F32", 10, 64)
        target["none"] = ("F32", (0,), b"")
        self.target_model = target
        self.base = model_folder(root / "base", self.base_model, shards=2)
        self.target = model_folder(root / "target", target, shards=3)
        for name in ("config.json", "nested/größe.txt"):
            (self.target / name).parent.mkdir(exist_ok=True)
            (self.target / name).write_text(name)
        self.release = root / "release"
        self.made_calls = calls(lambda progress: self.make(self.release, progress))
        self.applied_calls = calls(lambda progress: self.apply(root / "out", progress))
        self.released = digests(self.release)
        self.rebuilt = digests(root / "out")
        assert self.rebuilt == digests(self.target)

    def make(self, out: Path, progress: Callable[[Progress], None] | None = None) -> int:
        """Makes the release; returns how many tensors an earlier run had coded."""
        made = make_delta(self.base, self.target, out, progress=progress, **OPTIONS)
        return made.kept

    def apply(self, out: Path, progress: Callable[[Progress], None] | None = None) -> int:
        """Applies the release; returns how many files an earlier run had finished."""
        applied = apply_delta(self.base, self.release, out, threads=2, progress=progress)
        return len(applied.kept)


Run = Callable[[Callable[[Progress], None]], int]


def calls(run: Run) -> int:
    """How often work reports its progress."""
    reports: list[Progress] = []
    run(reports.append)
    return len(reports)


class StoppedError(Exception):
    """What stops the work; stands for anything."""


def stop(run: Run, at: int) -> None:
    """Runs work until it has reported its progress that often."""
    left = at

    def count_down(progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(count_down)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def steps(count: int, number: int) -> list[int]:
    """Steps spread over the work, the first and the last among them."""
    return sorted({1 + (count - 1) * part // (number - 1) for part in range(number)})


def test_make_stopped_at_any_step_is_gone_on_with(world: World, tmp_path: Path) -> None:
    kept = []
    for at in steps(world.made_calls, 15):
        out = tmp_path / f"out {at}"
        stop(lambda progress, out=out: world.make(out, progress), at)  # type: ignore[misc]
        assert not out.exists()
        kept.append(world.make(out))
        assert digests(out) == world.released
        assert not out.with_name(out.name + ".partial").exists()
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] == len(world.target_model)


def test_apply_stopped_at_any_step_is_gone_on_with(world: World, tmp_path: Path) -> None:
    kept = []
    for at in steps(world.applied_calls, 15):
        out = tmp_path / f"out {at}"
        stop(lambda progress, out=out: world.apply(out, progress), at)  # type: ignore[misc]
        assert not out.exists()
        kept.append(world.apply(out))
        assert digests(out) == world.rebuilt
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (0, 3)


@pytest.mark.parametrize("work", ["make", "apply"])
def test_work_stopped_again_and_again_ends(world: World, tmp_path: Path, work: str) -> None:
    out = tmp_path / "out"
    run, count, wanted = {
        "make": (world.make, world.made_calls, world.released),
        "apply": (world.apply, world.applied_calls, world.rebuilt),
    }[work]
    for at in (1, count // 2, 2, count // 4, 3):  # each run has less to do
        stop(lambda progress: run(out, progress), at)
        assert not out.exists()
    run(out)
    assert digests(out) == wanted
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("work", ["make", "apply"])
@pytest.mark.parametrize("part", [0, 0.3, 0.6, 0.95])
def test_each_stage_ends_at_its_total(
    world: World, tmp_path: Path, work: str, part: float
) -> None:
    run, count = {
        "make": (world.make, world.made_calls),
        "apply": (world.apply, world.applied_calls),
    }[work]
    out = tmp_path / "out"
    if part:
        stop(lambda progress: run(out, progress), int(part * count))
    stages: dict[str, list[Progress]] = {}

    def note(progress: Progress) -> None:
        stages.setdefault(progress.stage, []).append(progress)

    run(out, note)
    # The base has a dropped tensor; whole files that a stopped run left are checked first.
    assert [stage for stage in stages if stage != "check kept"] == {
        "make": ["encode", "hash base", "hash inputs", "read back"],
        "apply": ["rebuild"],
    }[work]
    for reports in stages.values():
        done = [report.done for report in reports]
        assert done == sorted(done)
        assert done[0] == 0
        assert {report.total for report in reports} == {done[-1]}


def flip(path: Path, part: float) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(part * (len(data) - 1))] ^= 0x04
        path.write_bytes(data)


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


def grow(path: Path, part: float) -> None:
    with path.open("ab") as file:
        file.write(bytes(100))


def remove(path: Path, part: float) -> None:
    path.unlink()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("spoil", [flip, cut, grow, remove])
@pytest.mark.parametrize("work", ["make", "apply"])
def test_what_was_left_is_not_believed(
    world: World, tmp_path: Path, work: str, spoil: Callable[[Path, float], None]
) -> None:
    run, count, wanted = {
        "make": (world.make, world.made_calls, world.released),
        "apply": (world.apply, world.applied_calls, world.rebuilt),
    }[work]
    for at in (count * 4 // 10, count * 9 // 10):
        stop(lambda progress: run(tmp_path / "first", progress), at)
        left = tmp_path / "first.partial"
        names = [name for name in digests(left) if name != "state.json"]
        assert names
        for number, name in enumerate(names):
            out = tmp_path / f"{at} {number}"
            shutil.copytree(left, tmp_path / f"{out.name}.partial")
            spoil(tmp_path / f"{out.name}.partial" / name, (number % 7) / 7)
            run(out)
            assert digests(out) == wanted, name
            shutil.rmtree(out)
        shutil.rmtree(left)


def test_a_state_that_was_spoiled_is_other_work(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop(lambda progress: world.make(out, progress), world.made_calls * 9 // 10)
    flip(tmp_path / "out.partial" / "state.json", 0.5)
    assert world.make(out) == 0
    assert digests(out) == world.released


@pytest.mark.parametrize("changed", ["base", "target", "base of an alias", "file"])
def test_inputs_that_change_in_between_are_noticed(
    world: World, tmp_path: Path, changed: str
) -> None:
    source = np.random.default_rng(9)
    base, target = tmp_path / "base", tmp_path / "target"
    shutil.copytree(world.base, base)
    shutil.copytree(world.target, target)

    def make(out: Path, progress: Callable[[Progress], None] | None = None) -> int:
        return make_delta(base, target, out, progress=progress, **OPTIONS).kept

    out = tmp_path / "out"
    stop(lambda progress: make(out, progress), world.made_calls * 6 // 10)
    match changed:
        case "base":
            model = world.base_model | {
                "layer.3": trained(source, world.base_model["layer.3"])
            }
            model_folder(base, model, shards=2)
        case "base of an alias":
            model = world.base_model | {"layer.1": world.target_model["layer.1"]}
            model_folder(base, model, shards=2)
        case "target":
            model = world.target_model | {
                "layer.1": trained(source, world.target_model["layer.1"])
            }
            model_folder(target, model, shards=3)
        case _:
            (target / "config.json").write_text("another")
    make(out)
    make_delta(base, target, tmp_path / "fresh", **OPTIONS)
    assert digests(out) == digests(tmp_path / "fresh")
    apply_delta(base, out, tmp_path / "rebuilt")
    assert digests(tmp_path / "rebuilt") == digests(target)


@pytest.mark.parametrize(
    "options",
    [
        {"codec": Ulp(chunk=2048)},
        {"shard_nbytes": 4000},
        {"name": "y"},
    ],
)
def test_other_options_are_other_work(
    world: World, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    stop(lambda progress: world.make(out, progress), world.made_calls * 9 // 10)
    made = make_delta(world.base, world.target, out, **(OPTIONS | options))
    assert made.kept == 0
    make_delta(world.base, world.target, tmp_path / "fresh", **(OPTIONS | options))
    assert digests(out) == digests(tmp_path / "fresh")


def test_work_of_another_kind_starts_from_nothing(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop(lambda progress: world.make(out, progress), world.made_calls * 9 // 10)
    assert world.apply(out) == 0
    assert digests(out) == world.rebuilt
    shutil.rmtree(out)
    stop(lambda progress: world.apply(out, progress), world.applied_calls * 9 // 10)
    assert world.make(out) == 0
    assert digests(out) == world.released


def test_the_other_number_of_threads_is_the_same_work(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stop(lambda progress: world.make(out, progress), world.made_calls * 9 // 10)
    made = make_delta(world.base, world.target, out, **(OPTIONS | {"threads": 5}))
    assert made.kept
    assert digests(out) == world.released


def test_a_target_that_became_wrong_does_not_start(world: World, tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "target"
    shutil.copytree(world.target, target)
    (target / "stray.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"stray\.bin: holds weights"):
        make_delta(world.base, target, out)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("work", ["make", "apply"])
def test_links_that_were_put_there_lead_nowhere(
    world: World, tmp_path: Path, work: str
) -> None:
    run, count, wanted = {
        "make": (world.make, world.made_calls, world.released),
        "apply": (world.apply, world.applied_calls, world.rebuilt),
    }[work]
    out = tmp_path / "out"
    stop(lambda progress: run(out, progress), count * 4 // 10)
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    left = [path for path in (tmp_path / "out.partial").rglob("*") if path.is_file()]
    for path in left:
        if path.name != "state.json":
            path.unlink()
            path.symlink_to(precious)
    run(out)
    assert digests(out) == wanted
    assert precious.read_text() == "years of work"
