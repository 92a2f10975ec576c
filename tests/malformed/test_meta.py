"""Meta's checkpoints that must be refused: one case a threat, with the words it meets."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.meta import MetaCheckpoint
from releasekit.errors import FormatError
from tests.llama import Llama, Tensors, file_name, save

GROUPED = Llama(parts=2, heads=8, kv=4)
LAYER = "layers.1."


def words(folder: Path) -> str:
    """What a checkpoint meets; its files are closed again."""
    names = sorted(path.name for path in folder.glob("*.pth"))
    before = os.listdir("/dev/fd")
    with pytest.raises(FormatError) as caught:
        MetaCheckpoint.open(str(folder), folder, names)
    assert os.listdir("/dev/fd") == before
    return str(caught.value).replace(str(folder), "DIR")


def changed(change: Callable[[list[Tensors]], None]) -> Callable[[Path], None]:
    """Makes a model of two parts, changed."""

    def make(folder: Path) -> None:
        parts = GROUPED.cut()
        change(parts)
        GROUPED.save(folder)
        for number, part in enumerate(parts):
            save(part, folder / file_name(number))

    return make


def drop(name: str, *parts: int) -> Callable[[Path], None]:
    def change(states: list[Tensors]) -> None:
        for part in parts:
            del states[part][name]

    return changed(change)


def put(name: str, tensor: torch.Tensor, *parts: int) -> Callable[[Path], None]:
    def change(states: list[Tensors]) -> None:
        for part in parts:
            states[part][name] = tensor

    return changed(change)


def without(number: int, parts: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        Llama(parts=parts).save(folder)
        (folder / file_name(number)).unlink()

    return make


def sizes(name: str, expected: str, found: str, files: str = "2 files") -> str:
    """What is said of sizes that do not fit."""
    return (
        f'DIR: tensor "{name}": expected {expected} by params.json and other tensors, '
        f"found {found} in {files}: some are missing, or of another model"
    )


def bf16(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


FILES = {
    "first_file_missing": (
        without(0, 2),
        'DIR: expected consolidated.00.pth, found "consolidated.01.pth": get the files '
        "that are missing from where the others came from",
    ),
    "a_file_between_missing": (
        without(2, 8),
        'DIR: expected consolidated.02.pth, found "consolidated.03.pth": get the files '
        "that are missing from where the others came from",
    ),
    "last_of_eight_files_missing": (
        without(7, 8),
        "DIR: expected whole heads in each of 7 files, found n_heads 8 in params.json: "
        "files are missing, or hold heads repeatedly, which cannot be read",
    ),
    "last_of_two_files_missing": (
        without(1, 2),
        sizes("tok_embeddings.weight", "[vocab, 64]", "[48, 32]", "1 file"),
    ),
    "tensor_missing_everywhere": (
        drop(f"{LAYER}attention.wv.weight", 0, 1),
        'DIR/consolidated.00.pth: tensor "layers.1.attention.wv.weight" is missing',
    ),
    "tensor_missing_in_one": (
        drop("norm.weight", 1),
        'DIR/consolidated.01.pth: tensor "norm.weight" is missing',
    ),
    "embeddings_missing": (
        drop("tok_embeddings.weight", 0, 1),
        'DIR/consolidated.00.pth: tensor "tok_embeddings.weight" is missing',
    ),
    "output_missing_in_the_first": (
        drop("output.weight", 0),
        'DIR/consolidated.00.pth: tensor "output.weight" is missing',
    ),
    "unknown_tensor": (
        put("layers.0.attention.wq.bias", bf16(32), 1),
        'DIR/consolidated.01.pth: tensor "layers.0.attention.wq.bias": expected '
        "only those of a LLaMA with n_layers 2, as params.json says",
    ),
    "layer_beyond_the_last": (
        put("layers.2.ffn_norm.weight", bf16(64), 0, 1),
        'DIR/consolidated.00.pth: tensor "layers.2.ffn_norm.weight": expected '
        "only those of a LLaMA with n_layers 2, as params.json says",
    ),
    "frequencies_of_other_heads": (
        put("rope.freqs", bf16(8), 1),
        'DIR/consolidated.01.pth: tensor "rope.freqs": expected 4 frequencies, found '
        "BF16[8]: params.json is of another model",
    ),
    "other_dtype_in_one": (
        put("norm.weight", bf16(64).half(), 1),
        'DIR/consolidated.01.pth: tensor "norm.weight": expected BF16[64] as in '
        "consolidated.00.pth, found F16[64]",
    ),
    "other_shape_in_one": (
        put("output.weight", bf16(23, 64), 1),
        'DIR/consolidated.01.pth: tensor "output.weight": expected BF16[24, 64] as in '
        "consolidated.00.pth, found BF16[23, 64]",
    ),
    "other_shape_of_a_norm": (
        put("norm.weight", bf16(32), 1),
        'DIR/consolidated.01.pth: tensor "norm.weight": expected BF16[64] as in '
        "consolidated.00.pth, found BF16[32]",
    ),
    "integers": (
        put(f"{LAYER}feed_forward.w1.weight", bf16(48, 64).to(torch.int8), 0, 1),
        'DIR/consolidated.00.pth: tensor "layers.1.feed_forward.w1.weight": expected F16, '
        "BF16, F32, F64, found I8[48, 64]: get the original weights",
    ),
    "not_a_matrix": (
        put(f"{LAYER}attention.wq.weight", bf16(2048), 0, 1),
        sizes("layers.1.attention.wq.weight", "[64, 64]", "[4096]"),
    ),
    "a_scalar": (
        put(f"{LAYER}attention.wq.weight", bf16(), 0, 1),
        sizes("layers.1.attention.wq.weight", "[64, 64]", "[]"),
    ),
    "rows_that_do_not_add_up": (
        put(f"{LAYER}attention.wq.weight", bf16(48, 64), 0, 1),
        sizes("layers.1.attention.wq.weight", "[64, 64]", "[96, 64]"),
    ),
    "columns_that_do_not_add_up": (
        put(f"{LAYER}attention.wo.weight", bf16(64, 64), 0, 1),
        sizes("layers.1.attention.wo.weight", "[64, 64]", "[64, 128]"),
    ),
    "width_of_another_layer": (
        put(f"{LAYER}feed_forward.w2.weight", bf16(64, 50), 0, 1),
        sizes("layers.1.feed_forward.w2.weight", "[64, 96]", "[64, 100]"),
    ),
    "vocabulary_of_another_size": (
        put("output.weight", bf16(25, 64), 0, 1),
        sizes("output.weight", "[48, 64]", "[50, 64]"),
    ),
    "embeddings_cut_both_ways": (
        put("tok_embeddings.weight", bf16(48, 48), 0, 1),
        sizes("tok_embeddings.weight", "[vocab, 64]", "[48, 96]"),
    ),
}


@pytest.mark.parametrize(("make", "message"), FILES.values(), ids=FILES)
def test_files(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path)
    assert words(tmp_path) == message


def but(**fields: object) -> Callable[[dict[str, Any]], object]:
    """Changes fields of params.json."""
    return lambda params: params | fields


def lacking(field: str) -> Callable[[dict[str, Any]], object]:
    return lambda params: {key: params[key] for key in params if key != field}


PARAMS = {
    "width_missing": (lacking("dim"), 'DIR/params.json: missing field "dim"'),
    "heads_missing": (lacking("n_heads"), 'DIR/params.json: missing field "n_heads"'),
    "layers_missing": (lacking("n_layers"), 'DIR/params.json: missing field "n_layers"'),
    "epsilon_missing": (lacking("norm_eps"), 'DIR/params.json: missing field "norm_eps"'),
    "null": (but(dim=None), 'DIR/params.json: missing field "dim"'),
    "an_array": (
        lambda params: [params],
        "DIR/params.json: expected an object, found an array of 1",
    ),
    "nested_no_object": (
        lambda params: {"model": 3},
        "DIR/params.json: model: expected an object, found 3",
    ),
    "nested_fault": (
        lambda params: {"model": params | {"norm_eps": 0}},
        "DIR/params.json: model: norm_eps: expected a number above 0, found 0",
    ),
    "width_is_text": (
        but(dim="64"),
        'DIR/params.json: dim: expected an integer of at least 1, found "64"',
    ),
    "width_is_a_fraction": (
        but(dim=64.0),
        "DIR/params.json: dim: expected an integer of at least 1, found 64.0",
    ),
    "width_0": (
        but(dim=0),
        "DIR/params.json: dim: expected an integer of at least 1, found 0",
    ),
    "heads_0": (
        but(n_heads=0),
        "DIR/params.json: n_heads: expected an integer of at least 1, found 0",
    ),
    "heads_true": (
        but(n_heads=True),
        "DIR/params.json: n_heads: expected an integer of at least 1, found true",
    ),
    "vocabulary_negative": (
        but(vocab_size=-2),
        "DIR/params.json: vocab_size: expected an integer of at least -1, found -2",
    ),
    "epsilon_is_text": (
        but(norm_eps="1e-5"),
        'DIR/params.json: norm_eps: expected a number above 0, found "1e-5"',
    ),
    "epsilon_negative": (
        but(norm_eps=-1e-05),
        "DIR/params.json: norm_eps: expected a number above 0, found -1e-05",
    ),
    "theta_true": (
        but(rope_theta=True),
        "DIR/params.json: rope_theta: expected a number above 0, found true",
    ),
    "scaled_0": (
        but(use_scaled_rope=0),
        "DIR/params.json: use_scaled_rope: expected true or false, found 0",
    ),
    "width_beyond_64_bits": (
        but(dim=2**63),
        "DIR/params.json: dim: expected an integer of at most 9223372036854775807, found "
        "9223372036854775808",
    ),
    "absurd_width": (
        but(dim=2**62),
        sizes("tok_embeddings.weight", "[vocab, 4611686018427387904]", "[48, 64]"),
    ),
    "absurd_number_of_layers": (
        but(n_layers=2**62),
        'DIR/consolidated.00.pth: tensor "layers.2.attention_norm.weight" is missing',
    ),
    "heads_that_do_not_divide_the_width": (
        but(n_heads=12),
        "DIR/params.json: dim: expected a multiple of n_heads 12, found 64",
    ),
    "groups_that_do_not_divide_the_heads": (
        but(n_kv_heads=3),
        "DIR/params.json: n_heads: expected a multiple of n_kv_heads 3, found 8",
    ),
    "odd_heads": (
        but(n_heads=64),
        "DIR/params.json: rows of a head: expected a multiple of 2, found 1",
    ),
    "too_few_layers": (
        but(n_layers=1),
        'DIR/consolidated.00.pth: tensor "layers.1.attention.wq.weight": expected '
        "only those of a LLaMA with n_layers 1, as params.json says",
    ),
    "too_many_heads": (
        but(n_heads=16),
        sizes("layers.0.attention.wk.weight", "[16, 64]", "[32, 64]"),
    ),
    "too_few_heads": (
        but(n_heads=4),
        sizes("layers.0.attention.wk.weight", "[64, 64]", "[32, 64]"),
    ),
    "another_number_of_groups": (
        but(n_kv_heads=2),
        sizes("layers.0.attention.wk.weight", "[16, 64]", "[32, 64]"),
    ),
    "another_vocabulary": (
        but(vocab_size=50),
        sizes("tok_embeddings.weight", "[50, 64]", "[48, 64]"),
    ),
    "heads_repeated_over_files": (
        but(n_kv_heads=1),
        "DIR: expected whole heads in each of 2 files, found n_kv_heads 1 in params.json: "
        "files are missing, or hold heads repeatedly, which cannot be read",
    ),
}


@pytest.mark.parametrize(("change", "message"), PARAMS.values(), ids=PARAMS)
def test_params(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    GROUPED.save(tmp_path, params=change(GROUPED.params()))
    assert words(tmp_path) == message


def test_heads_are_told_by_the_frequencies_alone(tmp_path: Path) -> None:
    """Without groups, every number of heads fits the shapes of the other tensors."""
    model = Llama(parts=2)
    model.save(tmp_path, params=model.params() | {"n_heads": 4})
    assert words(tmp_path) == (
        'DIR/consolidated.00.pth: tensor "rope.freqs": expected 8 frequencies, found '
        "BF16[4]: params.json is of another model"
    )


TEXTS = {
    "empty": (
        "",
        "DIR/params.json: not valid JSON: Expecting value at line 1, column 1 (byte 0)",
    ),
    "an_lfs_pointer": (
        "version https://git-lfs.github.com/spec/v1\n",
        "DIR/params.json: not valid JSON: Expecting value at line 1, column 1 (byte 0)",
    ),
    "twice_the_same": (
        '{"dim": 64, "dim": 32}',
        'DIR/params.json: key "dim" appears twice',
    ),
    "not_a_number": (
        '{"norm_eps": NaN}',
        "DIR/params.json: expected finite numbers, found NaN",
    ),
    "endless": (
        " " * ((1 << 20) + 1),
        "DIR/params.json: expected at most 1048576 bytes",
    ),
}


@pytest.mark.parametrize(("text", "message"), TEXTS.values(), ids=TEXTS)
def test_what_is_no_params_json(tmp_path: Path, text: str, message: str) -> None:
    GROUPED.save(tmp_path)
    (tmp_path / "params.json").write_text(text)
    assert words(tmp_path) == message


def test_params_missing(tmp_path: Path) -> None:
    GROUPED.save(tmp_path)
    (tmp_path / "params.json").unlink()
    with pytest.raises(FormatError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds Meta's consolidated.NN.pth, but no params.json, which says how "
        "their tensors are joined: get it from where the weights came from"
    )
