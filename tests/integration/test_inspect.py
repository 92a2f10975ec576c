"""What `inspect` shows of a model: an overview first, every tensor if asked for."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from releasekit import inspect, make_delta
from releasekit.cli import render
from tests.builders import model_folder, raw_header
from tests.integration.tools import good, llama, small_pair, trained

README = Path(__file__).parents[2] / "README.md"
BYTES = {"BF16": 2, "F32": 4}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def headers_only(folder: Path, shapes: Shapes, tensors_a_file: int) -> Path:
    """A model whose files have holes for the values, and so take no space."""
    folder.mkdir()
    names = sorted(shapes)
    parts = [names[at : at + tensors_a_file] for at in range(0, len(names), tensors_a_file)]
    homes = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        header, end = {}, 0
        for name in part:
            dtype, shape = shapes[name]
            begin, end = end, end + math.prod(shape) * BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
            homes[name] = file
        prefix = raw_header(header)
        with (folder / file).open("wb") as out:
            out.write(prefix)
            out.truncate(len(prefix) + end)
    index = {"metadata": {}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def llama_65b() -> Shapes:
    """Names and shapes of LLaMA 65B as transformers has it."""
    hidden, inner = 8192, 22016
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "lm_head.weight": ("BF16", (32000, hidden)),
        "model.embed_tokens.weight": ("BF16", (32000, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
    for layer in range(80):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{at}.self_attn.{name}_proj.weight"] = ("BF16", (hidden, hidden))
        for name in ("gate", "up"):
            shapes[f"{at}.mlp.{name}_proj.weight"] = ("BF16", (inner, hidden))
        shapes[f"{at}.mlp.down_proj.weight"] = ("BF16", (hidden, inner))
        for name in ("input", "post_attention"):
            shapes[f"{at}.{name}_layernorm.weight"] = ("F32", (hidden,))
    return shapes


def test_the_readme_shows_what_is_shown(tmp_path: Path) -> None:
    headers_only(tmp_path / "LLaMA-65B", llama_65b(), 60)
    with chdir(tmp_path):
        shown = good("inspect", "LLaMA-65B").stdout
    (block,) = re.findall(
        r"^```text\n(tensors .*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL
    )
    assert shown == block


def test_layers_are_folded_and_listed_if_asked_for(tmp_path: Path) -> None:
    weight = ("BF16", [3, 1], bytes(6))
    source = model_folder(tmp_path / "m", {f"h.{i}.w": weight for i in (0, 1, 2, 10)})
    size = (source / "model.safetensors").stat().st_size
    facts = [
        "",
        f"checkpoint  {source}, safetensors",
        "tensors     4, 24 B",
        "parameters  12",
        "dtype       BF16: 4 tensors, 12 parameters, 24 B",
        f"files       1, {size} B",
    ]
    assert good("inspect", source).stdout.splitlines() == [
        "tensors        dtype  shape      size",
        "h.{0…2, 10}.w  BF16   3 × 1  ×4  24 B",
        *facts,
    ]
    every = [f"h.{i}.w   BF16   3 × 1   6 B" for i in (0, 1, 2)]
    listed = [
        "tensor  dtype  shape  size",
        *every,
        "h.10.w  BF16   3 × 1   6 B",
    ]
    assert good("inspect", source, "--tensors").stdout.splitlines() == [*listed, *facts]
    assert good("inspect", source, "-v").stdout.splitlines()[2:5] == [
        "",
        "file                size",
        f"model.safetensors  {size} B",
    ]


def test_the_document_has_every_tensor(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "m", llama(np.random.default_rng(0), layers=3))
    plain = good("inspect", source, "--json").json
    assert len(plain["tensors"]) == 30
    assert good("inspect", source, "--json", "--tensors").json == plain


def test_layers_of_a_release_are_folded_by_what_makes_them(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    base = llama(source, layers=4)
    tune = dict(base)
    for layer in (0, 1, 3):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        tune[name] = trained(source, base[name])
    model_folder(tmp_path / "base", base)
    model_folder(tmp_path / "tune", tune)
    (tmp_path / "tune" / "config.json").write_text("{}")
    release = tmp_path / "release"
    make_delta(tmp_path / "base", tmp_path / "tune", release)
    up = {g.name: g for g in inspect(release).groups if "up_proj" in g.name}
    changed = up["model.layers.{0, 1, 3}.mlp.up_proj.weight"]
    same = up["model.layers.2.mlp.up_proj.weight"]
    assert (changed.op, changed.count, changed.nbytes) == ("delta", 3, 3 * 160 * 64 * 2)
    assert (same.op, same.count, same.published_nbytes, same.ratio) == ("same", 1, 0, 0.0)
    assert changed.published_nbytes == sum(
        info.published_nbytes or 0 for info in inspect(release).tensors
    )
    assert changed.ratio == changed.published_nbytes / changed.nbytes
    lines = [
        " ".join(line.split())
        for line in good("inspect", release, "-v").stdout.splitlines()
    ]
    assert lines[0] == "tensors dtype shape size op published ratio"
    shown = f"{render.size(changed.published_nbytes)} {render.share(changed.ratio)}"
    assert (
        "model.layers.{0, 1, 3}.mlp.up_proj.weight BF16 160 × 64 ×3 61.4 kB delta " + shown
    ) in lines
    assert "model.layers.2.mlp.up_proj.weight BF16 160 × 64 20.5 kB same 0 B 0 %" in lines
    assert "published size" in lines
    assert "rebuilt size" in lines
    assert "parameters 205 K" in lines


def test_totals_are_those_of_all_tensors(tmp_path: Path) -> None:
    found = inspect(model_folder(tmp_path / "m", small_pair()[0]))
    assert found.parameters == 50 * 64 + 64 * 64 + 64 + 15 + 1
    assert [(t.dtype.label, t.tensors, t.elements, t.nbytes) for t in found.dtypes] == [
        ("BF16", 2, 7296, 14592),
        ("F32", 1, 64, 256),
        ("F16", 1, 15, 30),
        ("I64", 1, 1, 8),
    ]


def test_a_model_of_nothing_is_shown(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "m", {})
    lines = good("inspect", source).stdout.splitlines()
    assert lines[0] == "tensor  dtype  shape  size"
    assert "parameters  0" in lines


def test_on_a_terminal_lines_fit_and_names_are_cut_with_a_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers_only(tmp_path / "m", llama_65b(), 723)
    monkeypatch.setattr(render, "columns", lambda: 80)
    lines = good("inspect", tmp_path / "m").stdout.splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 13
    assert max(map(len, table)) == 80
    assert {line.split()[0] for line in table if "…" in line.replace("{0…79}", "")} == {
        "model.layers.{0…79}.po…ntion_layernorm.weight"
    }
    monkeypatch.setattr(render, "columns", lambda: 20)
    narrow = good("inspect", tmp_path / "m").stdout.splitlines()[1]
    assert narrow.startswith("lm_head.weight            BF16   32000 × 8192")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (999, "999"), (1000, "1 K"), (22_713_216, "22.7 M")),
        *((999_499_999, "999 M"), (999_500_000, "1 B"), (65_285_660_672, "65.3 B")),
        (2 * 10**15, "2,000 T"),
    ],
)
def test_parameters_are_counted_as_people_do(number: int, text: str) -> None:
    assert render.count(number) == text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "ab…efg"),
        ("abcdefg", 5, "ab…fg"),
    ],
)
def test_the_middle_gives_way(text: str, width: int, shown: str) -> None:
    assert render.shortened(text, width) == shown
