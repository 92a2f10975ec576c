"""Releases swapped in and out of a model in memory: the target's bytes, then the base's."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from releasekit import (
    Add,
    BaseMismatchError,
    IntegrityError,
    LicenseError,
    Licensing,
    Progress,
    ReleaseKitError,
    Ulp,
    UsageError,
    make_delta,
    swap_in,
)
from releasekit.delta.release import read_manifest
from releasekit.digest import sha256_hex
from releasekit.operations import Op
from tests.integration.test_load_into import (
    CODEC,
    GPUS,
    State,
    Tune,
    World,
    content,
    contents,
    models,
    released,
    state_of,
)
from tests.integration.tools import (
    Model,
    as_raw,
    fine_tuned,
    llama,
    numbers,
    trained,
    weights,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return released(tmp_path_factory.mktemp("world"), *models())


@pytest.fixture
def own(world: World, tmp_path: Path) -> World:
    """The same, for a test to spoil."""
    release = Path(shutil.copytree(world.release, tmp_path / "release"))
    return replace(world, release=release)


def held(world: World) -> State:
    """Tensors that hold the base, and something of no model where it has none."""
    state = state_of(world.base, world.target)
    operations = read_manifest(world.release, None)[0].operations
    for name in ("adapter.weight", "head.weight"):
        if operations[name].op in (Op.NEW, Op.ALIAS):
            state[name].normal_()
    state["embed.weight"][50:].normal_()
    return state


def wanted(world: World, state: State) -> bool:
    """Whether the target is what tensors hold."""
    return {name: content(state[name]) for name in world.target} == world.wanted()


def payload(world: World) -> Path:
    (path,) = world.release.glob("*.safetensors")
    return path


class StopError(Exception):
    """Stops work half-way."""


def stopping(stage: str, share: float) -> Callable[[Progress], None]:
    """Stops a stage once so much of it is done."""

    def stop(progress: Progress) -> None:
        if progress.stage == stage and progress.done > share * progress.total:
            raise StopError

    return stop


# There and back.


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_module_is_the_target_and_then_the_base(
    world: World, tied: bool, threads: int
) -> None:
    model = Tune(world.base, tied=tied)
    before = contents(model)
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    swapped = swap_in(model, world.release, threads=threads)
    assert contents(model).items() >= world.wanted().items()
    states = [swapped.is_in]
    assert swapped.manifest.target_identity == world.identity
    assert swapped.undo_nbytes > 0
    assert swapped.undo() == swapped.manifest.base_identity
    assert [*states, swapped.is_in] == [True, False]
    assert contents(model) == before
    assert places == {n: tensor.data_ptr() for n, tensor in model.state_dict().items()}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_no_base_has_comes_back_as_well(world: World) -> None:
    state = held(world)
    before = contents(state)
    with swap_in(state, world.release):
        assert wanted(world, state)
    assert contents(state) == before


def test_it_can_be_done_again_and_again(world: World) -> None:
    state = held(world)
    before = contents(state)
    for _ in range(3):
        with swap_in(state, str(world.release)):
            assert wanted(world, state)
        assert contents(state) == before


def test_an_exception_swaps_it_out_as_well(world: World) -> None:
    state = held(world)
    before = contents(state)
    with pytest.raises(StopError), swap_in(state, world.release):
        raise StopError
    assert contents(state) == before


def test_a_release_with_plain_differences(tmp_path: Path) -> None:
    world = released(tmp_path, *models(), Add(chunk=1024))
    state = held(world)
    before = contents(state)
    with swap_in(state, world.release):
        assert wanted(world, state)
    assert contents(state) == before


def every_word() -> tuple[Model, Model]:
    """Tensors of many dtypes that change in many ways, none of them in shape."""
    source = np.random.default_rng(3)
    base: Model = {}
    target: Model = {}
    for label in ("BF16", "F16", "F32", "F64"):
        base[label] = weights(source, label, 90, 64)
        target[label] = trained(source, base[label])
    base["rounded"] = weights(source, "F32", 90, 64)  # the target is bf16, held in fp32
    narrow = trained(source, base["rounded"], "BF16")
    target["rounded"] = as_raw(numbers(narrow), "F32")
    for label, width in {"U8": 1, "I64": 8}.items():
        words = source.integers(0, 100, (90, 64)).astype(f"u{width}")
        base[label] = (label, (90, 64), words.tobytes())
        words = words + (source.random((90, 64)) < 0.2).astype(words.dtype)
        target[label] = (label, (90, 64), words.tobytes())
    base["raw"] = ("U8", (90, 64), source.bytes(90 * 64))
    target["raw"] = ("U8", (90, 64), source.bytes(90 * 64))
    still = base["BF16"][2]
    base["half"] = ("BF16", (90, 64), still)  # the first chunks are the base's
    target["half"] = ("BF16", (90, 64), still[:8192] + target["BF16"][2][8192:])
    return base, target


@pytest.mark.parametrize("codec", [CODEC, Add(chunk=1024)])
def test_all_kinds_of_words_and_frames(tmp_path: Path, codec: Ulp) -> None:
    world = released(tmp_path, *every_word(), codec)
    state = state_of(world.base)
    before = contents(state)
    swapped = swap_in(state, world.release)
    assert wanted(world, state)
    swapped.undo()
    assert contents(state) == before


def test_memory_need_not_be_aligned(world: World) -> None:
    state = held(world)
    memory = np.empty(64 * 64 * 2 + 1, np.uint8)
    odd = torch.from_numpy(memory[1:].view(np.int16)).view(torch.bfloat16).view(64, 64)
    state["layer.weight"] = odd.copy_(state["layer.weight"])
    before = contents(state)
    with swap_in(state, world.release):
        assert wanted(world, state)
    assert contents(state) == before


def test_an_alias_that_repeats_a_tensor_before_and_after_keeps_nothing(
    tmp_path: Path,
) -> None:
    source = np.random.default_rng(1)
    base = dict.fromkeys("ab", weights(source, "BF16", 64, 64))
    target = dict.fromkeys("ab", trained(source, base["a"]))
    world = released(tmp_path, base, target)
    assert Op.ALIAS in {
        o.op for o in read_manifest(world.release, None)[0].operations.values()
    }
    state, tied = state_of(base), state_of(base)
    tied["b"] = tied["a"]
    before = contents(state)
    sizes = []
    for each in (state, tied):
        with swap_in(each, world.release) as swapped:
            assert wanted(world, each)
            sizes.append(swapped.undo_nbytes)
        assert contents(each) == before
    assert sizes[0] == sizes[1]


def test_little_is_kept_of_a_usual_fine_tune(tmp_path: Path) -> None:
    source = np.random.default_rng(2)
    base = llama(source, hidden=128)
    world = released(tmp_path, base, fine_tuned(source, base), Ulp())
    state = state_of(base)
    with swap_in(state, world.release) as swapped:
        assert swapped.undo_nbytes < 0.05 * sum(t.nbytes for t in state.values())


def test_a_release_of_the_base_itself_changes_nothing(tmp_path: Path) -> None:
    base, _ = models()
    world = released(tmp_path, base, base)
    state = state_of(base)
    with swap_in(state, world.release) as swapped:
        assert swapped.undo_nbytes == 0
        assert wanted(world, state)


def test_progress_is_told_both_ways(world: World) -> None:
    seen: dict[str, Progress] = {}

    def note(progress: Progress) -> None:
        assert progress.done <= progress.total
        seen[progress.stage] = progress

    swapped = swap_in(held(world), world.release, progress=note)
    assert list(seen) == ["check base", "swap in", "check"]
    assert all(progress.done == progress.total > 0 for progress in seen.values())
    seen.clear()
    swapped.undo(progress=note)
    assert list(seen) == ["swap out", "check"]
    assert all(progress.done == progress.total > 0 for progress in seen.values())


# From one release to another.


@dataclass(frozen=True)
class Fleet:
    """One base, two releases, and what the second rebuilds."""

    first: World
    second: World


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    root = tmp_path_factory.mktemp("fleet")
    source = np.random.default_rng(4)
    base = llama(source, layers=1)
    one, other = (
        released(root / name, base, fine_tuned(source, base)) for name in ("a", "b")
    )
    return Fleet(first=one, second=other)


def test_a_release_gives_way_to_another(fleet: Fleet) -> None:
    state = state_of(fleet.first.base)
    before = contents(state)
    first = swap_in(state, fleet.first.release)
    assert wanted(fleet.first, state)
    second = first.switch(fleet.second.release)
    assert wanted(fleet.second, state)
    assert not first.is_in
    with pytest.raises(
        UsageError, match=r"^target was swapped out: use swap_in for another release$"
    ):
        first.switch(fleet.first.release)
    with second.switch(fleet.first.release):
        assert wanted(fleet.first, state)
    assert contents(state) == before


def test_a_release_that_cannot_be_opened_takes_no_place(
    fleet: Fleet, tmp_path: Path
) -> None:
    state = state_of(fleet.first.base)
    first = swap_in(state, fleet.first.release)
    with pytest.raises(UsageError, match="is not a release"):
        first.switch(tmp_path)
    assert first.is_in
    assert wanted(fleet.first, state)


def test_a_release_of_another_base_leaves_the_base(fleet: Fleet, tmp_path: Path) -> None:
    source = np.random.default_rng(8)
    base = llama(source, layers=1)
    stranger = released(tmp_path, base, fine_tuned(source, base))
    state = state_of(fleet.first.base)
    before = contents(state)
    first = swap_in(state, fleet.first.release)
    with pytest.raises(BaseMismatchError, match=r"the model is unchanged$"):
        first.switch(stranger.release)
    assert not first.is_in
    assert contents(state) == before


def test_releases_that_build_on_each_other_are_swapped_in_turn(
    fleet: Fleet, tmp_path: Path
) -> None:
    made = tmp_path / "second"
    make_delta(fleet.first.root / "target", fleet.second.root / "target", made, codec=CODEC)
    state = state_of(fleet.first.base)
    before = contents(state)
    with swap_in(state, fleet.first.release), swap_in(state, made):
        assert wanted(fleet.second, state)
    assert contents(state) == before


def test_a_release_may_stay(world: World) -> None:
    state = held(world)
    with swap_in(state, world.release) as swapped:
        swapped.keep()
        assert not swapped.is_in
    assert wanted(world, state)


def test_undoing_twice_is_undoing_once(world: World) -> None:
    state = held(world)
    swapped = swap_in(state, world.release)
    identity = swapped.undo()
    before = contents(state)
    assert swapped.undo() == identity
    assert contents(state) == before


# Models and releases that are refused.


def refused(
    state: State, world: World, match: str, kind: type[ReleaseKitError], **options: Any
) -> None:
    before = contents(state)
    with pytest.raises(kind, match=match) as caught:
        swap_in(state, world.release, **options)
    assert "\n" not in str(caught.value)
    assert contents(state) == before


@pytest.mark.parametrize("name", ["embed.weight", "layer.weight", "norm.weight", "steps"])
def test_another_base_is_refused(world: World, name: str) -> None:
    state = held(world)
    state[name].view(-1).view(torch.uint8)[1] ^= 1
    refused(
        *(state, world),
        rf'^the model in memory: tensor "{name}" is not the one that the delta was made '
        r"with: load the base with identity [0-9a-f]{64} first; the model is unchanged$",
        BaseMismatchError,
    )


def test_a_model_of_another_shape_is_refused(world: World) -> None:
    state = held(world)
    state["embed.weight"] = state["embed.weight"][:50]
    refused(state, world, "build the model from the release's config", UsageError)


def test_a_base_that_the_model_cannot_hold_is_refused(tmp_path: Path) -> None:
    source = np.random.default_rng(1)
    base = {"w": weights(source, "BF16", 9, 64)}
    target: Model = {"w": ("BF16", (8, 64), base["w"][2][: 8 * 128])}
    world = released(tmp_path, base, target)
    refused(state_of(target), world, "name the base's folder$", UsageError)


def test_too_little_memory_is_refused(world: World) -> None:
    refused(held(world), world, "^memory: expected a limit", UsageError, max_memory=9)


def test_terms_must_be_accepted(world: World, tmp_path: Path) -> None:
    terms = Licensing(license="cc-by-nc-4.0", bases=("llama-1",))
    base, target = world.root / "base", world.root / "target"
    make_delta(base, target, tmp_path / "release", codec=CODEC, licensing=terms)
    licensed = replace(world, release=tmp_path / "release")
    refused(held(world), licensed, "must be accepted before", LicenseError)
    with swap_in(held(world), licensed.release, accept_license=True) as swapped:
        assert swapped.is_in


def test_a_release_that_misses_bytes_is_refused(own: World) -> None:
    os.truncate(payload(own), payload(own).stat().st_size - 1)
    refused(held(own), own, "expected .* bytes", IntegrityError)


# Work that is stopped half-way.


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_damaged_release_is_taken_back(own: World, share: float, threads: int) -> None:
    data = bytearray(payload(own).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start + int((len(data) - start) * share)] ^= 16
    payload(own).write_bytes(data)
    refused(
        *(held(own), own),
        rf"{payload(own).name}: expected sha256 \w+, found \w+: the file is damaged; "
        "download it again; the model holds the base again$",
        IntegrityError,
        threads=threads,
    )


def test_a_release_that_contradicts_itself_is_taken_back(own: World) -> None:
    manifest, _ = read_manifest(own.release, None)
    name = "layer.bias"
    wrong = replace(manifest.operations[name], digest="0" * 64)
    other = replace(manifest, operations={**manifest.operations, name: wrong})
    document = other.pack()
    sums = own.release / "SHA256SUMS"
    old = sha256_hex((own.release / "release.json").read_bytes())
    (own.release / "release.json").write_bytes(document)
    sums.write_text(sums.read_text().replace(old, sha256_hex(document)))
    refused(
        *(held(own), own),
        rf'^{own.release}: tensor "{name}": expected digest 0+, found \w+, though the '
        r"release's file and the base's tensor are right: .*; try again, here and "
        r"elsewhere; the model holds the base again$",
        IntegrityError,
    )


@pytest.mark.parametrize(
    ("stage", "share"), [("swap in", 0.1), ("swap in", 0.7), ("check", 0.5)]
)
def test_what_is_stopped_is_taken_back(world: World, stage: str, share: float) -> None:
    state = held(world)
    before = contents(state)
    with pytest.raises(StopError) as caught:
        swap_in(state, world.release, progress=stopping(stage, share))
    assert caught.value.__notes__ == ["the model holds the base again"]
    assert contents(state) == before


def test_what_cannot_be_taken_back_is_said_to_be_lost(world: World) -> None:
    state = held(world)

    def spoil(progress: Progress) -> None:
        if progress.stage == "swap in" and progress.done > progress.total / 2:
            state["layer.bias"].zero_()
            state["layer.weight"].zero_()
            raise StopError("the disk is full")

    with pytest.raises(
        IntegrityError,
        match=rf"^{world.release}: cannot be swapped in \(the disk is full\), nor out "
        r"again \(.*\); the model holds neither the release nor its base now: load the "
        "base anew$",
    ):
        swap_in(state, world.release, threads=1, progress=spoil)


@pytest.mark.parametrize(("stage", "share"), [("swap out", 0.5), ("check", 0.5)])
def test_a_way_back_that_is_stopped_is_gone_on_with(
    world: World, stage: str, share: float
) -> None:
    state = held(world)
    before = contents(state)
    swapped = swap_in(state, world.release)
    with pytest.raises(StopError):
        swapped.undo(progress=stopping(stage, share))
    assert swapped.is_in
    swapped.undo()
    assert contents(state) == before


# Files and models that change while the release is in.


def test_a_payload_that_changed_is_refused_until_it_is_back(own: World) -> None:
    state = held(own)
    before = contents(state)
    swapped = swap_in(state, own.release)
    right = payload(own).read_bytes()
    start = 8 + int.from_bytes(right[:8], "little")
    with payload(own).open("r+b") as file:
        file.write(right[:start] + bytes(byte ^ 1 for byte in right[start:]))
    with pytest.raises(
        IntegrityError,
        match=rf'^{own.release}: payload "[a-z.]+"\[\d\]: has changed since it was swapped '
        r"in: put the release's files back as they were, and swap it out then; the model "
        "holds target still$",
    ):
        swapped.undo()
    assert swapped.is_in
    assert wanted(own, state)
    with payload(own).open("r+b") as file:
        file.write(right)
    swapped.undo()
    assert contents(state) == before


def test_a_payload_that_was_cut_short_is_refused(own: World) -> None:
    state = held(own)
    swapped = swap_in(state, own.release)
    os.truncate(payload(own), 100)
    with pytest.raises(IntegrityError, match=r"the model holds target still$"):
        swapped.undo()
    assert wanted(own, state)


def test_a_folder_that_was_removed_is_still_read(own: World) -> None:
    state = held(own)
    before = contents(state)
    with swap_in(state, own.release):
        shutil.rmtree(own.release)
    assert contents(state) == before


@pytest.mark.parametrize("name", ["layer.weight", "pairs", "adapter.weight"])
def test_a_model_that_was_trained_meanwhile_is_lost(world: World, name: str) -> None:
    state = held(world)
    swapped = swap_in(state, world.release)
    state[name].add_(1)
    with pytest.raises(
        IntegrityError,
        match=rf'^the model in memory: tensor "{name}": .*: it was changed after target '
        r"was swapped in, or this machine's memory fails; the model holds neither the "
        "release nor its base now: load the base anew$",
    ):
        swapped.undo()
    assert not swapped.is_in
    with pytest.raises(
        UsageError,
        match=r"^target cannot be swapped out: that failed before, and the model holds "
        "neither it nor its base: load the base anew$",
    ):
        swapped.undo()


def replaced(state: State) -> None:
    state["layer.weight"] = state["layer.weight"].clone()


def removed(state: State) -> None:
    del state["layer.weight"]


def cast(state: State) -> None:
    state["layer.weight"] = state["layer.weight"].float()


@pytest.mark.parametrize("change", [replaced, removed, cast])
def test_a_model_with_other_tensors_is_refused(
    world: World, change: Callable[[State], None]
) -> None:
    state = held(world)
    before = contents(state)
    swapped = swap_in(state, world.release)
    kept = dict(state)
    change(state)
    with pytest.raises(
        UsageError,
        match=r'^the model\'s tensor "layer.weight": is not where it was when target was '
        "swapped in: a model must not be moved, cast or given other tensors meanwhile; "
        "load the base anew$",
    ):
        swapped.undo()
    assert wanted(world, kept)
    state.update(kept)
    swapped.undo()
    assert contents(state) == before


def test_a_module_that_was_cast_is_refused(world: World) -> None:
    model = Tune(world.base, tied=False)
    swapped = swap_in(model, world.release)
    model.layer.double()
    with pytest.raises(UsageError, match="must not be moved, cast or given other tensors"):
        swapped.undo()


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
@pytest.mark.parametrize("every", [1, 2])
def test_a_model_on_a_gpu_is_the_target_and_then_the_base(
    world: World, device: str, every: int
) -> None:
    state = held(world)
    for name in list(state)[::every]:
        state[name] = state[name].to(device)
    before = contents(state)
    with swap_in(state, world.release):
        assert wanted(world, state)
    assert contents(state) == before
