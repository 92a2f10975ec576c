"""`diff`: two models as people have them, in any container, and what is said of them."""

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit import Ulp, compare, convert, make_delta, narrowest
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.statistics.diff import Status
from releasekit.tensors import DType
from tests.builders import RawTensor, model_folder, raw_header
from tests.integration.test_memory import peak_nbytes
from tests.integration.tools import (
    as_raw,
    bf16,
    good,
    here,
    llama,
    releasekit,
    small_pair,
    weights,
)

NAN, INF = 0x7FC0, 0x7F80


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and a tuned model with a tensor of each fate."""
    root = tmp_path_factory.mktemp("pair")
    base, target = small_pair()
    model_folder(root / "base", base, shards=2)
    model_folder(root / "tune", target, metadata={"format": "pt", "step": "20"})
    (root / "base" / "config.json").write_text("{}")
    (root / "tune" / "config.json").write_text("{ }")
    (root / "tune" / "added_tokens.json").write_text("{}")
    for folder in ("base", "tune"):
        (root / folder / "tokenizer.json").write_text("{}")
    return root / "base", root / "tune"


@pytest.fixture(scope="module")
def release(pair: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "delta"
    make_delta(*pair, out)
    return out


def words(path: Path, name: str, values: list[int]) -> Path:
    """A model of one tensor of bf16 words."""
    data = struct.pack(f"<{len(values)}H", *values)
    return model_folder(path, {name: ("BF16", [len(values)], data)})


def test_each_tensor_is_told_what_became_of_it(pair: tuple[Path, Path]) -> None:
    found = compare(*pair)
    assert {tensor.name: tensor.status for tensor in found.tensors} == {
        "embed.weight": Status.ROWS,
        "layer.weight": Status.CHANGED,
        "norm.weight": Status.SAME,
        "head.weight": Status.ADDED,
        "steps": Status.CHANGED,
        "old.weight": Status.REMOVED,
    }
    assert [(tensor.name, tensor.rows) for tensor in found.grown] == [("embed.weight", 6)]
    assert {file.name: file.status for file in found.files} == {
        "added_tokens.json": Status.ADDED,
        "config.json": Status.CHANGED,
        "tokenizer.json": Status.SAME,
    }
    assert [(entry.name, entry.first, entry.second) for entry in found.metadata] == [
        ("format", "pt", "pt"),
        ("step", None, "20"),
    ]


def test_figures_are_those_of_numpy(pair: tuple[Path, Path]) -> None:
    base, target = small_pair()
    a, b = (np.frombuffer(m["layer.weight"][2], np.int16) for m in (base, target))
    x, y = (
        (w.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        for w in (a, b)
    )
    apart = np.abs(
        np.where(a < 0, a ^ 0x7FFF, a).astype(int) - np.where(b < 0, b ^ 0x7FFF, b)
    )
    found = {tensor.name: tensor for tensor in compare(*pair).tensors}["layer.weight"]
    change = found.change
    assert change is not None
    assert change.ulps is not None
    assert change.update is not None
    assert (change.words, change.same) == (a.size, int((a == b).sum()))
    assert change.ulps.mean == apart.mean()
    assert change.ulps.largest == apart.max()
    assert change.update.relative == pytest.approx(
        np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-12
    )
    assert change.update.largest == np.abs(y - x).max()
    assert change.update.place == np.abs(y - x).argmax()


def test_a_release_is_compared_as_what_it_rebuilds(
    pair: tuple[Path, Path], release: Path
) -> None:
    base, tune = pair
    found = compare(tune, release, base=base)
    assert not found.differs
    again = compare(base, release, base=base, values=True)
    plain = compare(base, tune, values=True)
    for one, other in zip(again.tensors, plain.tensors, strict=True):
        assert (one.change, one.status) == (other.change, other.status)
        assert one.second is None or one.second.values == (
            other.second.values if other.second else None
        )
    assert compare(release, release, base=base).differs is False


def test_tensors_of_other_chunks_are_compared_all_the_same(tmp_path: Path) -> None:
    source = np.random.default_rng(5)
    base = {"w": weights(source, "BF16", 70, 1000)}
    tune = {"w": weights(source, "BF16", 90, 1000)}
    a, b = model_folder(tmp_path / "a", base), model_folder(tmp_path / "b", tune)
    make_delta(a, b, tmp_path / "d", codec=Ulp(chunk=1 << 14))
    make_delta(a, b, tmp_path / "e", codec=Ulp(chunk=1 << 15))
    assert not compare(b, tmp_path / "d", base=a).differs
    assert not compare(tmp_path / "d", tmp_path / "e", base=a).differs
    assert compare(a, tmp_path / "d", base=a).grown[0].rows == 20


def test_a_release_needs_its_base(pair: tuple[Path, Path], release: Path) -> None:
    done = here("diff", pair[0], release)
    assert done.code == 2
    assert done.error == (
        f"{release}: is a delta release, which holds no weights: name its base with "
        "--base, or rebuild it first with `releasekit apply-delta`"
    )


def test_a_damaged_release_is_not_compared(
    pair: tuple[Path, Path], release: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled"
    shutil.copytree(release, spoiled)
    shard = next(spoiled.glob("delta-*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-300] ^= 1
    shard.write_bytes(data)
    with pytest.raises((IntegrityError, FormatError), match="download"):
        compare(pair[1], spoiled, base=pair[0])


def test_another_base_is_refused(
    pair: tuple[Path, Path], release: Path, tmp_path: Path
) -> None:
    other = model_folder(tmp_path / "other", small_pair(2)[0])
    assert here("diff", pair[1], release, "--base", other).code == 4


def test_containers_do_not_matter(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for shard in pair[0].glob("*.safetensors"):
        state |= load_file(shard)
    torch.save(state, tmp_path / "pytorch_model.bin")
    found = compare(pair[0], tmp_path / "pytorch_model.bin")
    assert {tensor.status for tensor in found.tensors} == {Status.SAME}
    assert found.differs  # in the files beside, and the metadata


def test_floats_of_other_dtypes_are_widened(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    exact = (bf16(values).astype(np.uint32) << 16).view(np.float32)
    a = model_folder(
        tmp_path / "a", {"w": as_raw(exact, "BF16"), "n": as_raw(exact, "F16")}
    )
    b = model_folder(
        tmp_path / "b", {"w": as_raw(exact, "F32"), "n": ("I32", [64], bytes(256))}
    )
    found = {tensor.name: tensor for tensor in compare(a, b).tensors}
    assert found["w"].status is found["n"].status is Status.DTYPE
    assert found["w"].change is not None
    assert found["w"].change.same == 64
    assert found["w"].ulp_dtype is DType.F32
    assert found["n"].change is None
    done = good("diff", a, b)
    assert "dtype" in done.stdout
    assert "BF16 in A and F32 in B: 1 tensors, compared as widened" in done.stdout


def test_values_that_are_not_finite_are_counted_and_said(tmp_path: Path) -> None:
    a = words(tmp_path / "a", "w", [0x3F80, NAN, INF, 0x8000, 0x3F80])
    b = words(tmp_path / "b", "w", [0x3F80, NAN, 0x3F80, 0x0000, NAN])
    change = compare(a, b).tensors[0].change
    assert change is not None
    assert change.update is not None
    assert change.same == 2
    assert (change.update.skipped, change.update.relative) == (3, 0.0)
    assert (
        "3 pairs with NaN or infinity, which are in no update" in good("diff", a, b).stdout
    )


def test_empty_tensors_scalars_and_shapes(tmp_path: Path) -> None:
    one = struct.pack("<f", 1.0)
    base: dict[str, RawTensor] = {
        "empty": ("F32", [0, 4], b""),
        "scalar": ("F32", [], one),
        "turned": ("F32", [2, 3], one * 6),
        "narrow": ("F4", [4], b"\x12\x34"),
        "flag": ("BOOL", [2], b"\0\1"),
    }
    tune = base | {
        "turned": ("F32", [3, 2], one * 6),
        "empty": ("F32", [2, 4], one * 8),
        "flag": ("BOOL", [2], b"\1\1"),
    }
    a, b = model_folder(tmp_path / "a", base), model_folder(tmp_path / "b", tune)
    found = {tensor.name: tensor for tensor in compare(a, b, values=True).tensors}
    assert {name: tensor.status for name, tensor in found.items()} == {
        "empty": Status.ROWS,
        "scalar": Status.SAME,
        "turned": Status.SHAPE,
        "narrow": Status.SAME,
        "flag": Status.CHANGED,
    }
    assert found["empty"].rows == 2
    assert compare(a, b).tensors[0].name in found
    assert "turned" in good("diff", a, b).stdout


def test_a_model_without_tensors_is_compared(tmp_path: Path) -> None:
    a, b = model_folder(tmp_path / "a", {}), model_folder(tmp_path / "b", {})
    assert good("diff", a, b).stdout.splitlines()[-1] == "verdict     identical"


def test_wide_dtypes_are_named_where_smaller_ones_hold_all(tmp_path: Path) -> None:
    values = np.random.default_rng(1).standard_normal(512).astype(np.float32)
    values[0] = 3e38  # too large for F16
    exact = (bf16(values).astype(np.uint32) << 16).view(np.float32)
    model: dict[str, RawTensor] = {
        "a": as_raw(exact, "F32"),
        "b": as_raw(np.ones(4), "F32"),
        "c": as_raw(values, "F64"),
        "d": as_raw(values[1:], "F16"),
        "steps": ("I64", [], bytes(8)),
    }
    path = model_folder(tmp_path / "wide", model)
    found = narrowest(path)
    assert [(one.dtype, one.holders, one.tensors) for one in found] == [
        (DType.F32, (DType.BF16,), 2),
        (DType.F64, (DType.F32,), 1),
    ]
    made = convert(
        model_folder(tmp_path / "f32", {"a": model["a"]}),
        tmp_path / "bf16",
        dtype="bfloat16",
    )
    assert made.rounded == 0
    said = (
        "All 2 tensors of F32 hold values of BF16, bit for bit: as BF16 that takes 1.03 kB "
        "less, with no loss."
    )
    assert said in good("diff", path, path).stdout
    spoiled = exact.copy()
    spoiled.view(np.uint32)[7] |= 1
    path = model_folder(
        tmp_path / "not", {"a": as_raw(exact, "F32"), "b": as_raw(spoiled, "F32")}
    )
    assert narrowest(path) == ()


def test_the_table_begins_with_the_largest_change(tmp_path: Path) -> None:
    source = np.random.default_rng(2)
    base = {f"layers.{n}.w": weights(source, "F32", 8, 8) for n in range(12)}
    tune = dict(base)
    for n in range(12):
        values = np.frombuffer(base[f"layers.{n}.w"][2], np.float32)
        tune[f"layers.{n}.w"] = (
            "F32",
            (8, 8),
            (values * (1 + 0.001 * n)).astype(np.float32).tobytes(),
        )
    del tune["layers.5.w"]
    a, b = model_folder(tmp_path / "a", base), model_folder(tmp_path / "b", tune)

    def names(*options: str) -> list[str]:
        lines = good("diff", a, b, *options).stdout.splitlines()
        return [line.split()[0] for line in lines[1:] if line.startswith("layers.")]

    assert names() == [f"layers.{n}.w" for n in (5, 11, 10, 9, 8, 7, 6, 4, 3, 2, 1)]
    assert names("--sort", "name") == [f"layers.{n}.w" for n in range(1, 12)]
    assert names("--limit", "2") == ["layers.5.w", "layers.11.w"]
    assert "… and 9 more; --limit 0 shows all" in good("diff", a, b, "--limit", "2").stdout


def test_exit_codes_are_those_of_diff_only_if_asked(pair: tuple[Path, Path]) -> None:
    assert here("diff", *pair).code == 0
    assert here("diff", *pair, "--exit-code").code == 1
    assert here("diff", pair[0], pair[0], "--exit-code").code == 0


def test_the_document_has_every_tensor(pair: tuple[Path, Path]) -> None:
    found: dict[str, Any] = good("diff", *pair, "--json", "--limit", "1").json
    assert found["differs"] is True
    changed = {"changed": 2, "rows": 1, "only in B": 1, "only in A": 1, "same": 1}
    assert found["counts"] == changed
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert len(tensors) == 6
    assert tensors["embed.weight"]["rows"] == 6
    ulps = tensors["layer.weight"]["change"]["ulps"]
    assert sum(count for _, _, count in ulps["octaves"]) == 64 * 64
    assert tensors["layer.weight"]["change"]["ulp_dtype"] == "BF16"


def test_figures_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    source = np.random.default_rng(3)
    a = model_folder(tmp_path / "a", llama(source, hidden=128, vocabulary=9000))
    b = model_folder(tmp_path / "b", llama(source, hidden=128, vocabulary=9000))
    assert compare(a, b, values=True, threads=1) == compare(a, b, values=True, threads=4)


def test_hostile_names_are_printed_safely(tmp_path: Path) -> None:
    name = "layers.0.\x1b[31m\u202e\nevil"
    a = words(tmp_path / "a", name, [1, 2])
    b = words(tmp_path / "b", name, [1, 3])
    done = good("diff", a, b, "--sort", "name")
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "layers.0.\\x1b[31m\\u202e\\nevil" in done.stdout


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    model = words(tmp_path / "a", "w", [1])
    with pytest.raises(UsageError, match=r"no such file or folder$"):
        compare(model, tmp_path / "missing")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 20)
    assert here("diff", model, tmp_path / "bad.safetensors").code == 3


def test_too_little_memory_is_refused(pair: tuple[Path, Path]) -> None:
    done = here("diff", *pair, "--max-memory", "1MB")
    assert done.code == 2
    assert "raise --max-memory" in done.error


def test_the_help_teaches() -> None:
    done = releasekit("diff", "--help")
    assert done.returncode == 0
    for text in ("ULPs", "--exit-code", "Examples:", "Exit codes:"):
        assert text in done.stdout


@pytest.mark.slow
def test_two_gigabytes_are_compared_in_bounded_memory(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        path = tmp_path / f"{name}.safetensors"
        shape = [1 << 15, 1 << 15]
        header = {"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, 1 << 31]}}
        with path.open("wb") as file:
            file.write(raw_header(header))
            start = file.tell()
            if name == "b":
                file.seek(start + (1 << 30))
                file.write(b"\x80?")
            file.truncate(start + (1 << 31))
        paths.append(path)
    assert peak_nbytes("diff", *paths) < 300_000_000
    out = tmp_path / "report"
    assert peak_nbytes("report", *paths, "--out", out) < 300_000_000
    assert (out / "report.html").is_file()
