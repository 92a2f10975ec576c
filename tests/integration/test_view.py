"""Releases read as the files that they would rebuild: as safetensors itself reads those."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open

from releasekit import (
    BaseMismatchError,
    IntegrityError,
    LicenseError,
    Licensing,
    Ulp,
    UsageError,
    View,
    make_delta,
    open_view,
)
from tests.builders import model_folder, safetensors_bytes
from tests.integration.tools import Model, fine_tuned, llama, trained, weights

CODEC = Ulp(chunk=1024)
SHARDS = 3


def models() -> tuple[Model, Model]:
    """A base, and a target in which each operation and many dtypes occur."""
    source = np.random.default_rng(5)
    base = llama(source, layers=1)
    target = fine_tuned(source, base)
    grown = weights(source, "BF16", 8, 64)[2]
    embed = "model.embed_tokens.weight"
    target[embed] = ("BF16", (328, 64), target[embed][2] + grown)  # RESIZE
    target["lm_head.weight"] = target[embed]  # ALIAS
    target["model.norm.weight"] = base["model.norm.weight"]  # SAME
    target["new"] = weights(source, "F16", 40, 64)  # NEW
    for label in ("F32", "F64"):
        base[label] = weights(source, label, 30, 70)
        target[label] = trained(source, base[label])
    base["cast"] = weights(source, "BF16", 50, 64)
    target["cast"] = trained(source, base["cast"], "F32")
    base["deep"] = weights(source, "F32", 7, 5, 3, 64)
    target["deep"] = trained(source, base["deep"])
    base["step"], target["step"] = ("I64", (), bytes(8)), ("I64", (), b"\7" + bytes(7))
    base["mask"], target["mask"] = ("BOOL", (3,), b"\0\1\1"), ("BOOL", (3,), b"\1\1\0")
    target["none"] = ("U8", (0, 4), b"")
    target["flat"] = weights(source, "F32", 3000)
    return base, target


@dataclass(frozen=True)
class World:
    """Folders of a base, a target, and the release of it."""

    base: Path
    target: Path
    release: Path

    def view(self, **options: Any) -> View:
        return open_view(self.release, self.base, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = models()
    model_folder(root / "base", base, shards=2)
    model_folder(root / "target", target, shards=SHARDS, metadata={"format": "pt"})
    made = make_delta(root / "base", root / "target", root / "release", codec=CODEC)
    assert set(made.tensors.values()) >= {"same", "delta", "resize", "new", "alias"}
    return World(root / "base", root / "target", root / "release")


@pytest.fixture
def own(world: World, tmp_path: Path) -> World:
    """The same, for a test to spoil."""
    return World(
        Path(shutil.copytree(world.base, tmp_path / "base")),
        world.target,
        Path(shutil.copytree(world.release, tmp_path / "release")),
    )


def same(found: Any, wanted: Any) -> bool:
    """Whether two tensors are equal in dtype, shape and bits."""
    if isinstance(wanted, np.ndarray):
        return (
            isinstance(found, np.ndarray)
            and (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            and found.tobytes() == wanted.tobytes()
        )
    return (found.dtype, found.shape) == (wanted.dtype, wanted.shape) and torch.equal(
        found, wanted
    )


def test_files_are_those_of_the_target(world: World) -> None:
    with world.view() as view:
        assert list(view.files) == sorted(
            p.name for p in world.target.glob("*.safetensors")
        )
        assert len(view.files) == SHARDS
        for name in view.files:
            with view.file(name) as file, safe_open(world.target / name, "pt") as wanted:
                assert file.keys() == wanted.keys()
                assert file.offset_keys() == wanted.offset_keys()
                assert file.metadata() == wanted.metadata() == {"format": "pt"}
                for key, tensor in file.get_tensors().items():
                    assert same(tensor, wanted.get_tensor(key))


def test_numpy_arrays_are_those_of_the_target(world: World) -> None:
    checked = 0
    with world.view(framework="np") as view:
        for name in view.files:
            file = view.file(name)
            with safe_open(world.target / name, "np") as wanted:
                for key in wanted.offset_keys():
                    if wanted.get_slice(key).get_dtype() != "BF16":
                        assert same(file.get_tensor(key), wanted.get_tensor(key))
                        checked += 1
    assert checked == 9


def test_all_files_at_once(world: World) -> None:
    with world.view() as view:
        names = [key for name in view.files for key in view.file(name).offset_keys()]
        assert view.offset_keys() == names
        assert view.keys() == sorted(names)
        assert view.metadata() == {"format": "pt"}
        assert view.get_tensors().keys() == set(names)
        assert view.manifest.name == "target"
        assert view.authenticity.key is None


INDICES: list[Any] = [
    *(slice(None), slice(3, 20), slice(25, 26), slice(-4, None), slice(0, 9, 3)),
    *(slice(5, 5), slice(20, 3), slice(2, 1000), 0, 6, -1, np.int64(2)),
    *(..., (), (slice(None), slice(1, 4)), (slice(1, 6), slice(None), slice(0, 2))),
    *((slice(None), 2), (3, 1), (-1, -1), (..., 1), (..., slice(0, 3)), (0, ...)),
    *((slice(0, 6), ..., slice(2, 3)), (slice(None), slice(None, None, 2)), (2, ..., 0)),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["deep", "F32", "cast", "lm_head.weight", "flat"])
@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_slice_is_what_safetensors_takes(world: World, name: str, index: Any) -> None:
    with world.view() as view:
        (path,) = (p for p in view.files if name in view.file(p).offset_keys())
        with safe_open(world.target / path, "pt") as file:
            wanted, found = file.get_slice(name), view.get_slice(name)
            assert found.get_shape() == wanted.get_shape()
            assert found.get_dtype() == wanted.get_dtype()
            try:
                expected = wanted[index]
            except IndexError:
                with pytest.raises(IndexError):
                    found[index]
            else:
                assert same(found[index], expected)
                assert same(view.file(path).get_slice(name)[index], expected)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_slice_for_numpy_is_that_of_numpy(world: World, index: Any) -> None:
    with world.view(framework="np") as view:
        whole = view.get_tensor("deep")
        assert same(view.get_slice("deep")[index], np.ascontiguousarray(whole[index]))


@pytest.mark.parametrize(
    "index",
    [[0, 2], None, torch.tensor([1, 3]), (slice(None), [0, 1]), True, (None, 1)],
    ids=str,
)
def test_other_indices_mean_what_torch_means(world: World, index: Any) -> None:
    with world.view() as view:
        found = view.get_slice("deep")[index]
        assert same(found, view.get_tensor("deep")[index])


@pytest.mark.parametrize("name", ["none", "step", "mask"])
def test_small_tensors_have_slices(world: World, name: str) -> None:
    with world.view() as view:
        whole = view.get_tensor(name)
        assert same(view.get_slice(name)[...], whole)
        assert same(view.get_slice(name)[()], whole)
        if whole.ndim:
            assert same(view.get_slice(name)[0:2], whole[0:2])


@pytest.mark.parametrize("index", [30, -31, (0, 70), (0, 0, 0)], ids=str)
def test_an_index_out_of_bounds_is_one(world: World, index: Any) -> None:
    with world.view() as view, pytest.raises(IndexError):
        view.get_slice("F32")[index]


def test_an_index_that_goes_back_is_what_torch_says(world: World) -> None:
    with world.view() as view, pytest.raises(ValueError, match="step must be greater"):
        view.get_slice("F32")[::-1]


def test_scalars_have_no_slices(world: World) -> None:
    with world.view() as view, pytest.raises(IndexError):
        view.get_slice("step")[:]


# What is not there.


def refused(call: Callable[[], object], match: str) -> None:
    """Checks that loaders and users of releasekit both know the error."""
    with pytest.raises(SafetensorError, match=match) as caught:
        call()
    assert isinstance(caught.value, UsageError)


def test_what_a_view_has_not_is_refused(world: World) -> None:
    with world.view() as view:
        last = view.file(view.files[-1])
        elsewhere = view.file(view.files[0]).keys()[0]
        refused(lambda: view.get_tensor("x"), r'^target does not contain tensor "x"$')
        refused(lambda: view.get_slice("x"), r'^target does not contain tensor "x"$')
        for get in (last.get_tensor, last.get_slice):
            refused(
                lambda get=get: get(elsewhere),  # type: ignore[misc]
                rf'^the file does not contain tensor "{elsewhere}"$',
            )
        refused(
            lambda: view.file("x"),
            r'^target has no file "x" of tensors; it has "model-00001-of-00003.safetens',
        )


def test_a_view_that_was_closed_is_refused(world: World) -> None:
    view = world.view()
    part = view.get_slice("F32")
    view.close()
    closed = r"^the view of target is closed$"
    refused(lambda: view.get_tensor("F32"), closed)
    refused(lambda: view.get_slice("F32"), closed)
    refused(lambda: part[0:2], closed)


def test_frameworks_and_devices_that_are_not_there_are_refused(world: World) -> None:
    refused(lambda: world.view(framework="tf"), '^framework: expected "pt" or "np", found')
    refused(lambda: world.view(framework="np", device="cuda"), '^device: expected "cpu"')
    with pytest.raises(UsageError, match=r"^device meta: holds no values"):
        world.view(device="meta")


def test_numpy_has_no_bf16(world: World) -> None:
    with world.view(framework="np") as view:
        refused(
            lambda: view.get_tensor("lm_head.weight"),
            r'^tensor "lm_head.weight": numpy has no dtype for BF16\[328, 64\]: open the '
            'view with framework="pt"$',
        )


# Inputs that are wrong.


def test_another_base_is_refused(world: World) -> None:
    with pytest.raises(BaseMismatchError):
        open_view(world.release, world.target)


def test_a_base_that_changed_in_one_place_is_found_out(own: World) -> None:
    largest = models()[0]["model.embed_tokens.weight"][2]
    with own.view() as view:  # which has looked at a few tensors, this one among them
        for path in own.base.glob("*.safetensors"):
            data = path.read_bytes()
            path.write_bytes(data.replace(largest, largest[:-1] + bytes([largest[-1] ^ 1])))
        with pytest.raises(BaseMismatchError, match="get that base"):
            view.get_tensors()


def test_a_slice_reads_only_the_chunks_that_it_needs(own: World) -> None:
    with own.view() as view:
        whole = view.get_tensor("flat")
        assert whole.shape == (3000,)  # chunks of 1024
    (path,) = own.release.glob("*.safetensors")
    with safe_open(path, "np") as file:
        payload = file.get_tensor("flat").tobytes()
    data = path.read_bytes()
    begin, end = (data.index(payload) + len(payload) * share // 10 for share in (6, 9))
    path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    with own.view() as view:
        part = view.get_slice("flat")
        assert same(part[:300], whole[:300])
        with pytest.raises(
            IntegrityError, match=r"the file is damaged; download it again$"
        ):
            part[2500:]
        with pytest.raises(
            IntegrityError, match=r"the file is damaged; download it again$"
        ):
            view.get_tensor("flat")


def test_a_release_that_misses_bytes_is_refused(own: World) -> None:
    (path,) = own.release.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="the download is incomplete"):
        own.view()


def test_terms_must_be_accepted(world: World, tmp_path: Path) -> None:
    terms = Licensing(license="cc-by-nc-4.0", bases=("llama-1",))
    made = tmp_path / "release"
    make_delta(world.base, world.target, made, codec=CODEC, licensing=terms)
    with pytest.raises(LicenseError, match="must be accepted before the model is used"):
        open_view(made, world.base)
    with open_view(made, world.base, accept_license=True) as view:
        assert view.get_tensor("step") == 7


# Views as loaders use them.


def test_views_are_read_by_many_threads(world: World) -> None:
    with world.view(threads=2) as view, ThreadPoolExecutor(4) as pool:
        names = view.keys() * 3
        parts = ["deep", "F32", "cast", "flat"] * 5
        whole = {name: view.get_tensor(name) for name in view.offset_keys()}
        for name, tensor in zip(names, pool.map(view.get_tensor, names), strict=True):
            assert same(tensor, whole[name])
        cut = pool.map(lambda name: view.get_slice(name)[2:5], parts)
        for name, tensor in zip(parts, cut, strict=True):
            assert same(tensor, whole[name][2:5])


def test_releases_that_build_on_each_other_are_one_view(
    world: World, tmp_path: Path
) -> None:
    source = np.random.default_rng(6)
    _, before = models()
    after = before | {"F32": trained(source, before["F32"])}
    model_folder(tmp_path / "after", after)
    make_delta(world.target, tmp_path / "after", tmp_path / "second", codec=CODEC)
    with (
        open_view([world.release, tmp_path / "second"], world.base) as view,
        safe_open(tmp_path / "after" / view.files[0], "pt") as wanted,
    ):
        for name, tensor in view.get_tensors().items():
            assert same(tensor, wanted.get_tensor(name))
        assert same(view.get_slice("F32")[3:9, 5:60], wanted.get_slice("F32")[3:9, 5:60])


def test_files_without_metadata_have_none(tmp_path: Path) -> None:
    base = llama(np.random.default_rng(1), layers=1)
    model_folder(tmp_path / "base", base)
    file = tmp_path / "base" / "model.safetensors"
    file.write_bytes(safetensors_bytes(base))
    make_delta(tmp_path / "base", tmp_path / "base", tmp_path / "release")
    with open_view(tmp_path / "release", tmp_path / "base") as view:
        assert view.metadata() is None
        assert view.file(view.files[0]).metadata() is None


# As programs that serve models use views, `load_into` and swaps.


def test_the_example_with_transformers_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from scripts.examples import serve_with_transformers

    serve_with_transformers.main(tmp_path)
    size, *found = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"kept to go back: [\d,]+ bytes, of a model of [\d,]+", size)
    assert found == [
        "load_into: the same logits, to the bit",
        "open_view: the same logits, to the bit",
        "swap_in, with the release: the same logits, to the bit",
        "swap_in, with the base again: the same logits, to the bit",
    ]
