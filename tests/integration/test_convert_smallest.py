"""`convert --dtype smallest`: floats in the smallest dtype that holds all, none rounded."""

import json
from pathlib import Path

import numpy as np
import pytest

from releasekit import IntegrityError, convert, narrowest
from releasekit.output import OutputFolder
from tests.builders import RawTensor, model_folder
from tests.integration.tools import digests, good, numbers
from tests.llama import Llama

BF16 = np.array([0x3F81, 0x8000, 0x7F80, 0x0001], np.uint16)
F16 = np.array([1.0009765625, -65504.0, 2.0**-24], np.float16)


def widened(words: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> RawTensor:
    """bf16 words as a tensor of fp32."""
    return "F32", [words.size], (words.astype(np.uint32) << np.uint32(16)).tobytes()


def raw(label: str, values: list[float]) -> RawTensor:
    """Numbers as a tensor of F16, F32 or F64."""
    kind = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[label]
    return label, [len(values)], np.array(values, kind).tobytes()


def dtypes(folder: Path) -> dict[str, str]:
    """The dtype of each tensor that a command says."""
    said = good("inspect", folder, "--json").json
    return {tensor["name"]: tensor["dtype"] for tensor in said["tensors"]}


def test_fp32_that_is_bf16_becomes_it_and_the_config_says_so(tmp_path: Path) -> None:
    model = {"w": widened(BF16), "ids": ("I64", [1], bytes(8))}
    source = model_folder(tmp_path / "in", model)
    (source / "config.json").write_text('{"torch_dtype": "float32"}')
    made = convert(source, tmp_path / "out", dtype="smallest")
    assert (made.dtype, made.rounded, made.narrower, made.notes) == ("bfloat16", 0, (), ())
    assert dtypes(tmp_path / "out") == {"w": "BF16", "ids": "I64"}
    file = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert BF16.tobytes() in file
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config == {"torch_dtype": "bfloat16"}
    plain = convert(source, tmp_path / "plain", dtype="bfloat16")
    assert (plain.files, plain.identity) == (made.files, made.identity)
    assert (plain.dtype, plain.rounded) == ("bfloat16", 0)


def test_one_value_keeps_all_of_its_dtype_and_is_named(tmp_path: Path) -> None:
    source = model_folder(
        tmp_path / "in",
        {
            "a": widened(BF16),
            "inv_freq": raw("F32", [1.0, 0.1]),
            "z": raw("F32", [0.3]),
            "counts": raw("F64", [3.0]),
        },
    )
    (source / "config.json").write_text('{"dtype": "float32"}')
    made = convert(source, tmp_path / "out", dtype="smallest")
    assert made.dtype == "bfloat16"
    assert dtypes(tmp_path / "out") == {
        "a": "F32",
        "inv_freq": "F32",
        "z": "F32",
        "counts": "BF16",
    }
    assert made.notes == (
        'F32 stays: F16 cannot hold all of "a"; BF16 cannot hold all of "inv_freq"',
    )
    assert (tmp_path / "out" / "config.json").read_text() == '{"dtype": "float32"}'


def test_buffers_that_libraries_compute_keep_nothing_else_as_it_is(tmp_path: Path) -> None:
    # As transformers stored them up to 4.31, FreeWilly2 among others.
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    model = {"w": widened(BF16), buffer: raw("F32", [1.0, 0.1])}
    source = model_folder(tmp_path / "in", model)
    noticed = convert(source, tmp_path / "same")
    assert [n.holders[0].label for n in noticed.narrower] == ["BF16"]
    assert [n.holders[0].label for n in narrowest(source)] == ["BF16"]
    made = convert(source, tmp_path / "out", dtype="smallest")
    assert (made.dtype, made.rounded) == ("bfloat16", 0)
    assert dtypes(tmp_path / "out") == {"w": "BF16", buffer: "F32"}


@pytest.mark.parametrize("threads", [1, 3])
def test_where_nothing_is_smaller_nothing_changes(tmp_path: Path, threads: int) -> None:
    values = np.random.default_rng(0).standard_normal(600_000).astype(np.float32)
    source = model_folder(
        tmp_path / "in",
        {"w": ("F32", [600_000], values.tobytes()), "v": raw("F32", [0.1])},
    )
    (source / "config.json").write_text('{"dtype": "x"}')
    made = convert(source, tmp_path / "out", dtype="smallest", threads=threads)
    assert made.dtype is None
    assert made.notes == ('F32 stays: F16 and BF16 cannot hold all of "w"',)
    assert digests(tmp_path / "out") == digests(
        convert(source, tmp_path / "plain", threads=threads).out
    )


def test_floats_of_16_bits_have_nothing_smaller(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", {"w": raw("F16", [0.0])})
    made = convert(source, tmp_path / "out", dtype="smallest")
    assert (made.dtype, made.notes) == (
        None,
        ("floats stay: none is of more than 16 bits",),
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"w": raw("F32", F16.tolist())}, {"w": "F16"}),
        ({"w": raw("F32", [0.0, 1.0])}, {"w": "BF16"}),
        ({"w": raw("F32", [1.0]), "h": raw("F16", [0.5])}, {"w": "F16", "h": "F16"}),
        (
            {"w": raw("F32", [1.0]), "h": raw("F16", [0.5]), "b": ("BF16", [1], bytes(2))},
            {"w": "BF16", "h": "F16", "b": "BF16"},
        ),
        ({"w": raw("F64", [0.1])}, {"w": "F64"}),
        ({"w": raw("F64", [float(np.float32(0.1))])}, {"w": "F32"}),
        (
            {"w": raw("F64", [1.0]), "f": raw("F32", F16.tolist())},
            {"w": "F16", "f": "F16"},
        ),
        ({"w": ("F32", [0], b""), "s": ("F32", [], bytes(4))}, {"w": "BF16", "s": "BF16"}),
    ],
    ids=[
        *("fp16 numbers", "either", "as most have", "as many have either", "fp64"),
        *("fp64 to fp32", "as others become", "empty and scalar"),
    ],
)
def test_which_dtype_is_taken(
    tmp_path: Path, model: dict[str, RawTensor], expected: dict[str, str]
) -> None:
    source = model_folder(tmp_path / "in", model)
    convert(source, tmp_path / "out", dtype="smallest")
    assert dtypes(tmp_path / "out") == expected


def test_the_config_states_what_most_weights_are(tmp_path: Path) -> None:
    """Norms in fp32 that are bf16 numbers join the rest, of which the config speaks."""
    source = model_folder(
        tmp_path / "in", {"w": raw("F32", [0.1] * 9), "n": raw("F64", [1.0])}
    )
    text = '{"dtype": "float64", "a": [1]}'
    (source / "config.json").write_text(text)
    made = convert(source, tmp_path / "out", dtype="smallest")
    assert made.dtype == "bfloat16"
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config == {"dtype": "float32", "a": [1]}


def test_without_a_dtype_a_smaller_one_is_noticed(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", {"w": widened(BF16), "v": widened(BF16)})
    made = convert(source, tmp_path / "out")
    assert made.dtype is None
    assert made.narrower == narrowest(source)
    said = good("convert", source, tmp_path / "said").stdout
    sentence = (
        "All 2 tensors of F32 hold values of BF16, bit for bit: as BF16 that takes 16 B "
        "less, with no loss."
    )
    assert [found.describe() for found in made.narrower] == [sentence]
    assert f"note      {sentence} `--dtype smallest` does that." in said.splitlines()
    document = good("convert", source, tmp_path / "json", "--json").json
    assert document["dtype"] is None
    assert document["narrower"] == [
        {"dtype": "F32", "fits": ["BF16"], "tensors": 2, "nbytes": 32}
    ]


@pytest.mark.parametrize("label", ["F32", "F16"])
def test_what_needs_its_dtype_is_not_remarked_on(tmp_path: Path, label: str) -> None:
    source = model_folder(tmp_path / "in", {"w": raw(label, [0.1])})
    assert convert(source, tmp_path / "out").narrower == ()
    assert "note" not in good("convert", source, tmp_path / "said").stdout


def test_empty_tensors_are_not_remarked_on(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", {"w": ("F32", [0], b"")})
    assert convert(source, tmp_path / "out").narrower == ()


def stop_after(
    monkeypatch: pytest.MonkeyPatch, count: int, source: Path, out: Path, dtype: str | None
) -> None:
    """Interrupts a conversion once so many shards are finished."""
    finish, finished = OutputFolder.finish, []

    def stop(self: OutputFolder, name: str, final: str) -> None:
        finish(self, name, final)
        finished.append(final)
        if len(finished) == count:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, out, dtype=dtype, shard_nbytes=1, threads=1)


def test_of_shards_that_were_kept_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first needs its dtype; this run sees only the second, which does not."""
    model = {"a": raw("F32", [0.1]), "b": widened(BF16)}
    source = model_folder(tmp_path / "in", model)
    stop_after(monkeypatch, 1, source, tmp_path / "out", None)
    made = convert(source, tmp_path / "out", shard_nbytes=1, threads=1)
    assert len(made.kept) == 1
    assert made.narrower == ()


def test_an_interrupted_run_goes_on_with_the_same_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {name: widened(BF16) for name in "abc"}
    source = model_folder(tmp_path / "in", model)
    stop_after(monkeypatch, 2, source, tmp_path / "out", "smallest")
    made = convert(source, tmp_path / "out", dtype="smallest", shard_nbytes=1, threads=1)
    assert len(made.kept) == 2
    whole = convert(source, tmp_path / "whole", dtype="smallest", shard_nbytes=1)
    assert digests(whole.out) == digests(made.out)


def test_what_was_made_by_another_choice_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {name: widened(BF16) for name in "abc"}
    source = model_folder(tmp_path / "in", model)
    stop_after(monkeypatch, 2, source, tmp_path / "out", None)
    made = convert(source, tmp_path / "out", dtype="smallest", shard_nbytes=1, threads=1)
    assert made.kept == ()


def test_values_that_change_after_they_were_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = model_folder(tmp_path / "in", {"w": widened(BF16)})
    file = source / "model.safetensors"
    enter = OutputFolder.__enter__

    def meanwhile(self: OutputFolder) -> OutputFolder:
        data = bytearray(file.read_bytes())
        data[-4] ^= 1  # the lowest bit of the last word
        file.write_bytes(data)
        return enter(self)

    monkeypatch.setattr(OutputFolder, "__enter__", meanwhile)
    with pytest.raises(IntegrityError) as caught:
        convert(source, tmp_path / "out", dtype="smallest")
    assert str(caught.value) == (
        f'{source}: expected only values of BF16 in tensor "w", as when it was read '
        "before, found others: it changes while it is read; run this again once nothing "
        "writes to it"
    )
    assert not (tmp_path / "out").exists()


def test_a_config_made_of_metas_parameters_states_what_was_written(tmp_path: Path) -> None:
    source = Llama().save(tmp_path / "in")
    convert(source, tmp_path / "out", dtype="float32")
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config["torch_dtype"] == "float32"


def test_the_command_says_what_became_of_the_floats(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", {"w": widened(BF16)})
    said = good("convert", source, tmp_path / "out", "--dtype", "smallest").stdout
    assert "dtype     bfloat16: no value changed, bit for bit" in said.splitlines()
    again = good("convert", tmp_path / "out", tmp_path / "again", "--dtype", "smallest")
    assert "dtype     unchanged" in again.stdout.splitlines()
    assert (
        "note      floats stay: none is of more than 16 bits" in again.stdout.splitlines()
    )
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_a_dtype_that_fits_rounds_nothing(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", {"w": widened(BF16)})
    done = good("convert", source, tmp_path / "out", "--dtype", "bfloat16")
    assert "rounded   0 values to the nearest bfloat16, ties to even" in (
        done.stdout.splitlines()
    )
    assert np.array_equal(numbers(("BF16", [4], BF16.tobytes())), numbers(widened(BF16)))
