"""A release made in parts: as shares of an array job, and by a pool of processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

import releasekit
from releasekit import (
    Add,
    IntegrityError,
    Licensing,
    MakeResult,
    PrivateKey,
    Progress,
    ReleaseKitError,
    Ulp,
    UsageError,
    finish_make,
    make_delta,
    make_share,
    make_spread,
)
from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.sighting import Sighting
from releasekit.delta.making import job as make_job
from releasekit.delta.making.parts import HashFilePart, input_part
from releasekit.delta.making.told import Making
from releasekit.output import OutputFolder, partial_of
from releasekit.parts.records import Records
from releasekit.parts.shares import PartResult
from releasekit.parts.split import Share
from releasekit.parts.tasks import Advance, Here, Task
from tests.builders import model_folder
from tests.integration.tools import (
    Model,
    digests,
    fine_tuned,
    good,
    here,
    trained,
    weights,
)

PIECE = 10_000  # bytes of a part: one of the target's files is cut
OPTIONS: dict[str, Any] = {
    "codec": Ulp(chunk=1024),
    "shard_nbytes": 9000,
    "threads": 2,
    "name": "tune",
}


@dataclass(frozen=True)
class World:
    """A base and a fine-tune with an operation of each kind, and the release of it."""

    base: Path
    target: Path
    release: Path

    @property
    def released(self) -> dict[str, str]:
        return digests(self.release)


def models() -> tuple[Model, Model]:
    source = np.random.default_rng(8)
    base: Model = {
        f"layer.{number}": weights(source, "BF16", 30, 64) for number in range(6)
    }
    base["large"] = weights(source, "BF16", 100, 64)
    base["more"] = weights(source, "BF16", 100, 64)
    base["wide"] = weights(source, "F32", 20, 64)
    base["dropped"] = weights(source, "F32", 100)
    base["gone"] = weights(source, "F32", 10)
    target = fine_tuned(source, base)
    del target["dropped"], target["gone"]
    target["layer.2"] = base["layer.2"]
    target["wide"] = trained(source, base["wide"], "BF16")
    grown = weights(source, "BF16", 3, 64)[2]
    target["layer.4"] = ("BF16", (33, 64), target["layer.4"][2] + grown)
    target["new"] = weights(source, "F32", 10, 64)
    target["none"] = ("F32", (0,), b"")
    target["head"] = target["layer.1"]
    return base, target


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = models()
    made = model_folder(root / "target", target, shards=2)
    for name in ("config.json", "nested/größe.txt"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(json.dumps({"name": name}))
    found = World(model_folder(root / "base", base, shards=3), made, root / "release")
    make_delta(found.base, found.target, found.release, **OPTIONS)
    return found


def spread(world: World, out: Path, **options: Any) -> MakeResult:
    return make_spread(
        world.base,
        world.target,
        out,
        pool=Here(),
        **(OPTIONS | {"piece_nbytes": PIECE} | options),
    )


def share(world: World, out: Path, number: int, count: int, **options: Any) -> PartResult:
    return make_share(
        world.base,
        world.target,
        out,
        share=Share(number, count),
        piece_nbytes=PIECE,
        **(OPTIONS | options),
    )


def one_share(world: World, out: Path) -> PartResult:
    return share(world, out, 1, 1)


def finish(world: World, out: Path, **options: Any) -> MakeResult:
    return finish_make(
        world.base, world.target, out, piece_nbytes=PIECE, **(OPTIONS | options)
    )


def packs(out: Path) -> list[Path]:
    """The scratch files of payloads."""
    return sorted(partial_of(out).glob("*.payloads"))


@pytest.mark.parametrize("piece", [1, PIECE, 1 << 30])
def test_parts_of_any_size_make_the_same(world: World, tmp_path: Path, piece: int) -> None:
    made = spread(world, tmp_path / "out", piece_nbytes=piece)
    assert digests(tmp_path / "out") == world.released
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    counts = {"same": 1, "delta": 7, "resize": 1, "new": 2, "alias": 1, "dropped": 2}
    assert made.operations == counts
    (worker,) = made.workers
    assert worker.nbytes > made.full_nbytes
    assert worker.parts > (20 if piece == 1 else 5)


def test_the_result_tells_what_that_of_one_process_does(
    world: World, tmp_path: Path
) -> None:
    alone = make_delta(world.base, world.target, tmp_path / "alone", **OPTIONS)
    made = spread(world, tmp_path / "out")
    assert (alone.workers, made.kept) == ((), 0)
    assert replace(made, out=alone.out, seconds=alone.seconds, workers=()) == alone


def test_the_parts_are_those_that_are_planned(world: World, tmp_path: Path) -> None:
    made = make_spread(world.base, world.target, tmp_path / "out", pool=Here())
    phases = releasekit.plan(world.base, target=world.target).work.phases
    planned = {phase.name: len(phase.parts) for phase in phases}
    assert planned == {"encode": 2, "hash": 4, "assemble": 1, "read back": 1}
    assert sum(worker.parts for worker in made.workers) == sum(planned.values())


CASES: dict[str, dict[str, Any]] = {
    "plain differences": {"codec": Add(chunk=1024)},
    "one file of payloads": {"shard_nbytes": 1 << 30},
    "a file for each payload": {"shard_nbytes": 1},
    "a licence": {"licensing": Licensing(license="mit", bases=("apache-2.0",))},
    "left out": {"exclude": ["nested/*"]},
    "a label": {"name": "other", "version": "2.1", "publisher": "acme"},
}


@pytest.mark.parametrize("case", CASES)
def test_options_shape_the_result_as_for_one_process(
    world: World, tmp_path: Path, case: str
) -> None:
    options = OPTIONS | CASES[case]
    alone = make_delta(world.base, world.target, tmp_path / "alone", **options)
    made = spread(world, tmp_path / "spread", **options)
    for number in (2, 1):
        share(world, tmp_path / "shares", number, 2, **options)
    finish(world, tmp_path / "shares", **options)
    assert digests(tmp_path / "spread") == digests(alone.out)
    assert digests(tmp_path / "shares") == digests(alone.out)
    assert made.excluded == alone.excluded
    assert digests(alone.out) != world.released


def test_other_copies_of_the_base_and_the_release_that_rebuilds_it(
    world: World, tmp_path: Path
) -> None:
    base, _ = models()
    buffer = {"x.rotary_emb.inv_freq": weights(np.random.default_rng(1), "F32", 4)}
    raw = fine_tuned(np.random.default_rng(2), base)
    first = model_folder(tmp_path / "first", raw)
    before = tmp_path / "before"
    make_delta(world.base, first, before, codec=Ulp(chunk=1024))
    accepted = model_folder(tmp_path / "accepted", raw | buffer)
    options: dict[str, Any] = OPTIONS | {"accept": [accepted], "base_release": before}
    alone = make_delta(first, world.target, tmp_path / "alone", **options)
    assert len(alone.accepted) == 1
    upgrade = replace(world, base=first)
    made = spread(upgrade, tmp_path / "out", **options)
    assert digests(tmp_path / "out") == digests(alone.out)
    assert made.accepted == alone.accepted


def test_a_base_of_pytorch(world: World, tmp_path: Path) -> None:
    tensors, _ = models()
    kinds = {"BF16": torch.bfloat16, "F32": torch.float32}
    state = {
        name: torch.frombuffer(bytearray(data), dtype=kinds[label]).reshape(tuple(shape))
        for name, (label, shape, data) in tensors.items()
    }
    file = tmp_path / "base" / "pytorch_model.bin"
    file.parent.mkdir()
    torch.save(state, file)
    make_delta(file, world.target, tmp_path / "alone", **OPTIONS)
    spread(replace(world, base=file), tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_a_share_needs_no_key_and_the_release_is_signed(
    world: World, tmp_path: Path
) -> None:
    key = PrivateKey.generate()
    out, signed = tmp_path / "out", {"sign_key": key, "publisher": "acme"}
    alone = make_delta(world.base, world.target, tmp_path / "alone", **(OPTIONS | signed))
    for number in (1, 2):
        share(world, out, number, 2, publisher="acme")
    assert finish(world, out, **signed).key == key.public.fingerprint
    assert digests(out) == digests(alone.out)
    spread(world, tmp_path / "spread", **signed)
    assert digests(tmp_path / "spread") == digests(alone.out)


def test_shares_in_whatever_order_and_again(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names: list[str] = []
    for number in (3, 1, 2):
        names += share(world, out, number, 3).parts
    assert len(names) == len(set(names)) > 6
    again = share(world, out, 1, 3)
    assert (again.parts, again.nbytes) == ((), 0)
    assert set(again.kept) <= set(names)
    assert not out.exists()
    made = finish(world, out)
    assert digests(out) == world.released
    assert sum(worker.parts for worker in made.workers) > len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_missing_is_named(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="do all shares first"):
        finish(world, out)
    assert not partial_of(out).exists()
    done = share(world, out, 1, 2)
    with pytest.raises(ReleaseKitError) as caught:
        finish(world, out)
    told = str(caught.value)
    assert "parts are not done: " in told
    assert "run the shares again that were stopped; what is done is kept" in told
    assert done.parts[0] not in told
    rest = share(world, out, 2, 2)
    assert json.dumps(rest.parts[0]) in told
    finish(world, out)
    assert digests(out) == world.released


@pytest.mark.parametrize("changed", ["base", "target", "one file", "option"])
def test_shares_of_other_work_do_not_meet(
    world: World, tmp_path: Path, changed: str
) -> None:
    out = tmp_path / "out"
    share(world, out, 1, 2)
    base, target = models()
    source = np.random.default_rng(9)
    other, options = world, {}
    if changed == "base":
        model_folder(tmp_path / "base", fine_tuned(source, base), shards=3)
        other = replace(world, base=tmp_path / "base")
    elif changed == "target":
        model_folder(tmp_path / "target", fine_tuned(source, target), shards=2)
        other = replace(world, target=tmp_path / "target")
    elif changed == "one file":
        large = weights(source, "BF16", 100, 64)
        model_folder(tmp_path / "target", target | {"large": large}, shards=2)
        other = replace(world, target=tmp_path / "target")
    else:
        options = {"shard_nbytes": 8000}
    with pytest.raises(UsageError, match="holds other work, or the same with other inputs"):
        share(other, out, 2, 2, **options)
    with pytest.raises(UsageError, match="holds other work, or the same with other inputs"):
        finish(other, out, **options)
    assert share(world, out, 1, 2).parts == ()  # nothing of it is lost


@pytest.mark.parametrize("role", ["base", "target"])
def test_a_machine_that_sees_something_else_is_told(
    world: World, tmp_path: Path, role: str
) -> None:
    raw = models()[role == "target"]
    other = model_folder(
        tmp_path / role,
        fine_tuned(np.random.default_rng(9), raw),
        shards=2 if role == "target" else 3,
    )
    for name in ("config.json", "nested/größe.txt"):
        (other / name).parent.mkdir(exist_ok=True)
    places = {"base": world.base, "target": world.target}
    with open_checkpoint(world.base) as base, open_checkpoint(world.target) as target:
        spec = Making(
            base=(places | {role: other})["base"],
            target=(places | {role: other})["target"],
            exclude=(),
            seen=(Sighting.of(base), Sighting.of(target)),
            out=tmp_path / "out",
            key="make x",
            codec=Ulp(),
            device="auto",
            threads=1,
            max_memory=1 << 30,
        )
    task = Task(name="x", nbytes=1, detail=HashFilePart(file="x"))
    with (
        OutputFolder(tmp_path / "out", key="make x"),
        pytest.raises(IntegrityError) as caught,
    ):
        input_part(spec, task, lambda nbytes: None)
    assert str(caught.value).startswith(f"{other}: ")
    assert "every machine must find the same model under this path" in str(caught.value)


class StoppedError(Exception):
    """What stops the work; stands for anything."""


@pytest.mark.parametrize("at", range(1, 12, 2))
def test_work_that_is_stopped_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out, left = tmp_path / "out", at

    def stop(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
        nonlocal left
        left -= 1
        if not left:
            raise StoppedError
        return input_part(spec, task, advance)

    with monkeypatch.context() as patch:
        patch.setattr(make_job, "input_part", stop)
        with pytest.raises(StoppedError):
            spread(world, out)
    assert not out.exists()
    assert len(Records(partial_of(out)).read()) == at  # and the aliases
    made = spread(world, out)
    assert digests(out) == world.released
    assert (made.kept > 0) is (at > 1)
    assert not partial_of(out).exists()


@pytest.mark.parametrize("stage", ["assemble", "read back"])
@pytest.mark.parametrize("at", [1, 4, 8])
def test_work_that_is_stopped_after_all_is_coded_codes_nothing_again(
    world: World, tmp_path: Path, stage: str, at: int
) -> None:
    out, left = tmp_path / "out", at

    def stop(progress: Progress) -> None:
        nonlocal left
        left -= progress.stage == stage
        if not left:
            raise StoppedError

    with pytest.raises(StoppedError):
        spread(world, out, progress=stop)
    if stage == "read back":
        assert packs(out) == []
    stages: list[str] = []
    made = spread(world, out, progress=lambda progress: stages.append(progress.stage))
    assert "encode" not in stages
    assert ("assemble" in stages) is (stage == "assemble")
    assert made.kept == len(made.tensors) - 2  # all but those that were dropped
    assert digests(out) == world.released


def test_shares_go_on_with_what_a_pool_left(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
        if "model-00002" in task.name:
            raise StoppedError
        return input_part(spec, task, advance)

    with monkeypatch.context() as patch:
        patch.setattr(make_job, "input_part", stop)
        with pytest.raises(StoppedError):
            spread(world, out)
    done = [name for name in Records(partial_of(out)).read() if name.startswith("encode")]
    assert len(done) > 1
    assert set(share(world, out, 1, 1).kept) == set(done)
    finish(world, out)
    assert digests(out) == world.released


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_payloads_that_are_gone_are_made_again(
    world: World, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "out"
    share(world, out, 1, 1)
    first, *_ = (pack for pack in packs(out) if pack.stat().st_size)
    if how == "gone":
        first.unlink()
    else:
        first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(ReleaseKitError, match=r"1 of \d+ parts are not done"):
        finish(world, out)
    assert len(share(world, out, 1, 1).parts) == 1
    finish(world, out)
    assert digests(out) == world.released


def test_payloads_that_changed_are_noticed_and_made_again(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    share(world, out, 1, 1)
    for pack in packs(out):
        if pack.stat().st_size:
            flip(pack, -1)
    with pytest.raises(IntegrityError, match="reads back as something else"):
        finish(world, out)
    assert not out.exists()
    assert share(world, out, 1, 1).parts
    with suppress(IntegrityError):  # the next file of payloads
        finish(world, out)
    spread(world, out)
    assert digests(out) == world.released


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        (Ulp(chunk=1024), "delta-00002-of-"),
        (Add(chunk=1024), "delta-00001-of-"),
        (Add(chunk=1024), "model-00001-of-"),
    ],
)
def test_what_the_disk_changes_is_noticed_and_made_again(
    world: World, tmp_path: Path, name: str, codec: Ulp
) -> None:
    out = tmp_path / "out"

    def spoil(progress: Progress) -> None:
        if progress.stage == "read back" and not progress.done:
            (path,) = (partial_of(out) / "new").glob(f"{name}*")
            flip(path, -5)

    with pytest.raises(IntegrityError, match="the disk fails"):
        spread(world, out, progress=spoil, codec=codec)
    made = spread(world, out, codec=codec)
    make_delta(world.base, world.target, tmp_path / "alone", **(OPTIONS | {"codec": codec}))
    assert digests(out) == digests(tmp_path / "alone")
    assert (made.kept > 0) is not codec.plain  # of the others there is one file


def test_a_file_that_changes_between_its_parts_is_noticed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, source = tmp_path / "out", np.random.default_rng(9)
    raw = models()[1] | {"large": weights(source, "BF16", 300, 64)}
    target = model_folder(tmp_path / "target", raw, shards=2)
    changing = replace(world, target=target)
    with open_checkpoint(target) as opened:
        name = opened.home("large")

    def change(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
        if task.name == f"hash target file {name}":
            # The first word of a tensor, where a glance does not look.
            flip(target / name, (target / name).read_bytes().index(raw["large"][2]))
        return input_part(spec, task, advance)

    with monkeypatch.context() as patch:
        patch.setattr(make_job, "input_part", change)
        with pytest.raises(IntegrityError) as caught:
            spread(changing, out)
    assert str(caught.value) == (
        f'{target}: "{name}": not the same for all who read it: it was changed meanwhile, '
        "or a machine or a disk fails: run again, and it is read anew"
    )
    assert spread(changing, out).kept > 0
    make_delta(world.base, target, tmp_path / "alone", **OPTIONS)
    assert digests(out) == digests(tmp_path / "alone")


def test_a_tensor_that_is_no_alias_any_more_is_noticed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    twin = weights(np.random.default_rng(9), "BF16", 100, 64)
    raw = models()[1] | {"twin": twin, "twin.of": twin}
    target = model_folder(tmp_path / "target", raw, shards=2)
    changing = replace(world, target=target)

    def change(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
        if "twin.of" in getattr(task.detail, "tensors", ()):
            flip(target / task.detail.file, -len(twin[2]))  # its first byte
        return input_part(spec, task, advance)

    with monkeypatch.context() as patch:
        patch.setattr(make_job, "input_part", change)
        with pytest.raises(IntegrityError, match="not the same for all who read it"):
            spread(changing, out, piece_nbytes=1 << 30)
    spread(changing, out)
    make_delta(world.base, target, tmp_path / "alone", **OPTIONS)
    assert digests(out) == digests(tmp_path / "alone")


def test_a_record_that_tells_of_something_else_is_none(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    share(world, out, 1, 1)
    records = Records(partial_of(out))
    spoiled = [name for name in records.read() if name != "find aliases"]
    for name in spoiled:
        done = records.read()[name]
        facts: Any = json.loads(json.dumps(done.facts))
        for key in facts:
            facts[key] = facts[key][1:]
        records.note(replace(done, facts=facts))
    assert len(share(world, out, 1, 1).parts) == len(spoiled)
    finish(world, out)
    assert digests(out) == world.released


def test_aliases_are_found_by_the_first_share_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    share(world, out, 1, 2)

    def never(*arguments: object) -> None:
        raise AssertionError("they are known")

    monkeypatch.setattr("releasekit.delta.making.maker.find_aliases", never)
    share(world, out, 2, 2)
    finish(world, out)
    assert digests(out) == world.released


def test_the_command_does_shares(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    key, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    (tmp_path / "passphrase").write_text("a secret of mine\n")
    good("keygen", key, "--passphrase-file", tmp_path / "passphrase")
    asked: tuple[str | Path, ...] = (
        *("make-delta", "--base", world.base, "--target", world.target),
        *("--out", out, "--sign-key", key, "--name", "tune"),
    )
    hidden = key.rename(tmp_path / "elsewhere.pem")  # a share does not look at it
    first = good(*asked, "--shard", "1/2", "--json").json
    assert (first["share"], first["name"]) == ("1/2", "tune")
    assert "--finish instead of --shard" in good(*asked, "--shard", "2/2").stdout
    hidden.rename(key)
    done = good(
        *asked, "--passphrase-file", tmp_path / "passphrase", "--finish", "--json"
    ).json
    (worker,) = done["workers"]
    assert worker["parts"] > 4
    assert done["key"]
    good("verify", out, "--public-key", public)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "1/2", "--finish"), "--shard and --finish: give one of them"),
        (
            ("--engine", "ray", "--shard", "1/2"),
            "--engine ray and --shard: give one of them",
        ),
        (("--engine", "dask"), "expected local, ray, or ray:ADDRESS"),
        (("--shard", "3/2"), "expected i/n"),
    ],
)
def test_what_does_not_go_together_is_refused(
    world: World, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    asked: tuple[str | Path, ...] = (
        *("make-delta", "--base", world.base, "--target", world.target),
        *("--out", tmp_path / "out"),
    )
    done = here(*asked, *options)
    assert done.code == 2
    assert message in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["--base", "--accept-base"])
def test_models_on_the_hub_are_to_be_fetched_first(
    world: World, tmp_path: Path, role: str
) -> None:
    asked: tuple[str | Path, ...] = (
        *("make-delta", "--base", world.base, "--target", world.target),
        *("--out", tmp_path / "out", "--shard", "1/2", role, "org/base"),
    )
    done = here(*asked)
    assert done.code == 2
    assert "releasekit fetch org/base --out FOLDER" in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["target/out", "taken"])
def test_an_output_that_must_not_be_written_is_refused_at_once(
    world: World, tmp_path: Path, out: str
) -> None:
    (tmp_path / "taken").mkdir()
    place = world.target / "out" if out == "target/out" else tmp_path / "taken"
    for run in (spread, finish, one_share):
        with pytest.raises(UsageError):
            run(world, place)
        assert not partial_of(place).exists()


@pytest.mark.parametrize("codec", [Ulp(chunk=1024), Add(chunk=1024)])
def test_inputs_and_output_in_object_storage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Ulp
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = OPTIONS | {"codec": codec}
    make_delta(world.base, world.target, tmp_path / "alone", **options)
    store = fsspec.filesystem("memory")
    for name in ("base", "target"):
        store.put(f"{getattr(world, name)}/", f"/make/{name}/", recursive=True)
    try:
        there = "memory://make/base", "memory://make/target"
        make_delta(*there, tmp_path / "here", **options)
        made = make_spread(
            *there,
            "memory://make/out",
            pool=Here(),
            piece_nbytes=PIECE,
            **options,
        )
        for number in (2, 1):
            make_share(*there, "memory://make/parts", share=Share(number, 2), **options)
        finish_make(*there, "memory://make/parts", **options)
        for name in ("out", "parts"):
            store.get(f"/make/{name}/", f"{tmp_path / name}/", recursive=True)
        assert {path.split("/")[2] for path in store.find("/make")} == {
            *("base", "target", "out", "parts")
        }
    finally:
        store.rm("/make", recursive=True)
    assert str(made.out) == "memory:/make/out"
    for name in ("here", "out", "parts"):
        assert digests(tmp_path / name) == digests(tmp_path / "alone")


DRIVER = """
import json, os, sys
from pathlib import Path
from releasekit import Ulp, make_spread
from releasekit.delta.making import job as make_job
from releasekit.parts.cluster import Cluster
from tests.integration import faulty_making

base, target, out = map(Path, sys.argv[1:])
make_job.input_part = faulty_making.input_part
make_job.output_part = faulty_making.output_part
with Cluster() as pool:
    made = make_spread(
        base, target, out, pool=pool, piece_nbytes=10_000,
        codec=Ulp(chunk=1024), shard_nbytes=9000, threads=1, name="tune",
    )
print(json.dumps({"parts": sum(worker.parts for worker in made.workers)}))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.slow
def test_ray_makes_the_same_though_every_worker_is_killed_once(
    world: World, tmp_path: Path
) -> None:
    # In a process of its own: Ray leaves threads behind in one that had a cluster.
    out, marks = tmp_path / "out", tmp_path / "marks"
    marks.mkdir()
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, world.base, world.target, out],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "MARKS_OF_PARTS": str(marks)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told, error = process.communicate(timeout=400)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert told, error
    assert digests(out) == world.released
    assert json.loads(told.splitlines()[-1])["parts"] == len(list(marks.iterdir()))
    assert [path.name for path in tmp_path.iterdir() if path != marks] == ["out"]
