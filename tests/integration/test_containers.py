"""One model in every container: the same tensors, the same identity, the same delta."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from releasekit import (
    BaseMismatchError,
    PrivateKey,
    UsageError,
    apply_delta,
    convert,
    identify,
    inspect,
    make_delta,
    sign,
    verify,
)
from releasekit.checkpoint import open_checkpoint
from tests.builders import model_folder
from tests.integration.tools import digests
from tests.integration.tools import in_process as releasekit
from tests.llama import Llama

MODEL = Llama(parts=2, heads=8, kv=2)


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.save(tmp_path_factory.mktemp("containers") / "meta")


@pytest.fixture(scope="module")
def containers(meta: Path) -> dict[str, Path]:
    """The same model as Meta's files, safetensors whole and in shards, and PyTorch's."""
    root = meta.parent
    convert(meta, root / "whole")
    convert(meta, root / "shards", shard_nbytes=30_000)
    state = safetensors.torch.load_file(root / "whole" / "model.safetensors")
    for folder in ("bin", "old", "parts"):
        (root / folder).mkdir()
    torch.save(state, root / "bin" / "pytorch_model.bin")
    torch.save(state, root / "old" / "model.pt", _use_new_zipfile_serialization=False)
    names = sorted(state)
    files: dict[str, str] = {}
    for number, some in enumerate((names[:7], names[7:]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: state[name] for name in some}, root / "parts" / file)
        files |= dict.fromkeys(some, file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (root / "parts" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return {
        "Meta": meta,
        "safetensors": root / "whole",
        "safetensors shards": root / "shards",
        "PyTorch": root / "bin",
        "PyTorch, old format": root / "old",
        "PyTorch shards": root / "parts",
    }


def test_the_identity_is_that_of_the_content(containers: dict[str, Path]) -> None:
    found = {label: identify(path) for label, path in containers.items()}
    assert len({made.identity for made in found.values()}) == 1
    for label, made in found.items():
        assert made.container == label.split()[0].rstrip(",")
        assert (made.tensors, made.without_buffers) == (len(MODEL.axes()), None)


def test_every_container_is_inspected(containers: dict[str, Path]) -> None:
    seen = [
        {info.spec.name: info.spec.describe() for info in inspect(path).tensors}
        for path in containers.values()
    ]
    assert all(found == seen[0] for found in seen)
    assert len(inspect(containers["safetensors shards"]).files) > 1


@pytest.mark.parametrize(
    "label", ["Meta", "PyTorch", "PyTorch, old format", "PyTorch shards", "safetensors"]
)
def test_conversion_gives_one_and_the_same_file(
    containers: dict[str, Path], tmp_path: Path, label: str
) -> None:
    made = convert(containers[label], tmp_path / "out")
    found = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert found == (containers["safetensors"] / "model.safetensors").read_bytes()
    state = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert found == safetensors.torch.save(state, {"format": "pt"})
    assert made.identity == identify(containers[label]).identity
    files = digests(tmp_path / "out")
    del files["SHA256SUMS"]
    assert made.files == files
    assert verify(tmp_path / "out").ok


def test_a_delta_applies_to_every_container(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "target"
    convert(containers["PyTorch"], target, shard_nbytes=40_000)
    for file in target.glob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-40::2] = bytes(b ^ 1 for b in data[-40::2])
        file.write_bytes(data)
    (target / "SHA256SUMS").unlink()
    make_delta(containers["Meta"], target, tmp_path / "delta")
    for number, base in enumerate(containers.values()):
        apply_delta(base, tmp_path / "delta", tmp_path / f"out{number}")
        assert digests(tmp_path / f"out{number}") == digests(target)


def test_converted_shards_are_as_model_libraries_want_them(
    containers: dict[str, Path],
) -> None:
    folder = containers["safetensors shards"]
    index = json.loads((folder / "model.safetensors.index.json").read_bytes())
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    count = len(names)
    assert names == [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    total = 0
    for name in names:
        with safetensors.safe_open(folder / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            for tensor in file.keys():  # noqa: SIM118 (not a mapping)
                assert index["weight_map"][tensor] == name
                total += file.get_tensor(tensor).nbytes
    assert index["metadata"] == {"total_size": total}
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.file_sizes) == names


def test_metas_config_is_written(containers: dict[str, Path]) -> None:
    config = json.loads((containers["safetensors"] / "config.json").read_bytes())
    assert config["model_type"] == "llama"
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 2)
    assert (containers["safetensors"] / "params.json").is_file()


def test_transformers_loads_what_was_converted(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    """From Meta's files: every weight is there, under its name, and none is left over."""
    transformers = pytest.importorskip("transformers")
    model, info = transformers.LlamaForCausalLM.from_pretrained(
        containers["safetensors shards"], output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys"))
    assert not info["mismatched_keys"]
    wanted = safetensors.torch.load_file(containers["safetensors"] / "model.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


def test_what_metas_parameters_do_not_say_is_said(tmp_path: Path) -> None:
    for scaled in (False, True):
        model = Llama(said=(("use_scaled_rope", scaled),))
        made = convert(model.save(tmp_path / f"{scaled}"), tmp_path / f"out{scaled}")
        assert made.notes == (
            "config.json is made from params.json, which does not say the longest context "
            "and the special tokens: add them"
            + ", and rope_scaling, since this model scales positions"
            * scaled,
        )


def values(dtype: torch.dtype) -> torch.Tensor:
    special = [0.0, -0.0, 1.0, 65504.0, 7e4, 1e-8, 6e-8, -3e-5, float("inf"), 1 / 3]
    generator = torch.Generator().manual_seed(1)
    return torch.cat(
        [torch.tensor(special), torch.randn(3000, generator=generator) * 1e-3]
    ).to(dtype)


@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_rounding_is_that_of_torch_and_is_counted(
    tmp_path: Path, source: torch.dtype, dtype: str
) -> None:
    target = getattr(torch, dtype)
    state = {"w": values(source), "ids": torch.arange(5)}
    folder = tmp_path / "in"
    folder.mkdir()
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text('{"torch_dtype": "x", "a": "ä"}')
    made = convert(folder, tmp_path / "out", dtype=dtype)
    found = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    wanted = state["w"].to(target)
    assert torch.equal(found["w"], wanted)
    assert found["w"].dtype is target
    assert torch.equal(found["ids"], state["ids"])
    back = wanted.double()
    changed = back != state["w"].double()
    assert made.rounded == int(changed.sum())
    assert made.overflowed == int((changed & back.isinf()).sum())
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config == {"torch_dtype": dtype, "a": "ä"}


def test_without_a_dtype_no_bit_changes(tmp_path: Path) -> None:
    nan = np.array([0x7F81, 0xFFFF, 0x8000, 0x0001], np.uint16)
    state = {"w": torch.from_numpy(nan.view(np.int16)).view(torch.bfloat16)}
    torch.save(state, tmp_path / "w.pt")
    convert(tmp_path / "w.pt", tmp_path / "out")
    found = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert found.endswith(nan.tobytes())


def test_what_is_no_weight_is_copied_and_other_weights_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    torch.save({"w": torch.ones(3)}, folder / "pytorch_model.bin")
    for name, text in {
        "tokenizer.json": "{}",
        "sub/notes.txt": "x",
        "model.gguf": "GGUF",
        "training_args.bin": "x",
        ".gitattributes": "x",
        "SHA256SUMS": "of other files",
    }.items():
        (folder / name).write_text(text)
    made = convert(folder, tmp_path / "out")
    assert made.left_out == ("model.gguf", "training_args.bin")
    assert set(digests(tmp_path / "out")) == {
        *("model.safetensors", "tokenizer.json", "sub/notes.txt", "SHA256SUMS")
    }


def test_an_interrupted_conversion_goes_on(
    containers: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from releasekit.output import OutputFolder

    finish, finished = OutputFolder.finish, []

    def stop(self: OutputFolder, name: str, final: str) -> None:
        finish(self, name, final)
        finished.append(final)
        if len(finished) == 3:
            raise KeyboardInterrupt

    source = containers["Meta"]
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", shard_nbytes=30_000, threads=1)
    assert not (tmp_path / "out").exists()
    made = convert(source, tmp_path / "out", shard_nbytes=30_000, threads=1)
    assert sorted(made.kept) == sorted(finished)
    assert digests(tmp_path / "out") == digests(containers["safetensors shards"])


def test_a_kept_shard_of_another_source_is_not_believed(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "in"
    convert(containers["Meta"], source)
    partial = tmp_path / "out.partial" / "new"
    partial.mkdir(parents=True)
    (tmp_path / "out.partial" / "state.json").write_text('{"work": "convert other"}')
    (partial / "model.safetensors").write_bytes(
        bytes((source / "model.safetensors").stat().st_size)
    )
    made = convert(source, tmp_path / "out")
    assert made.kept == ()
    assert made.identity == identify(source).identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dtype": "int8"},
            "dtype int8: expected one of float16, bfloat16, float32, smallest",
        ),
        ({"shard_nbytes": 0}, "shard size: expected at least 1 byte, found 0"),
    ],
)
def test_wrong_options_are_refused(
    containers: dict[str, Path],
    tmp_path: Path,
    arguments: dict[str, str | int],
    message: str,
) -> None:
    with pytest.raises(UsageError) as caught:
        convert(containers["Meta"], tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_release_knows_the_bases_that_serve(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    """With the buffers of old converters, or without; but not with other weights."""
    state = safetensors.torch.load_file(containers["safetensors"] / "model.safetensors")
    target = {n: t + 1 if n == "model.norm.weight" else t for n, t in state.items()}
    buffers = {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)
    }
    other = state | {"lm_head.weight": state["lm_head.weight"] + 1}
    for name, tensors in {
        "target": target,
        "old": state | buffers,
        "other": other,
        "more": state | {"extra": torch.ones(1)},
    }.items():
        (tmp_path / name).mkdir()
        safetensors.torch.save_file(tensors, tmp_path / name / "model.safetensors")
    base, delta = containers["Meta"], tmp_path / "delta"
    made = make_delta(
        base, tmp_path / "target", delta, accept=[tmp_path / "old", tmp_path / "more"]
    )
    assert set(made.accepted) == {identify(tmp_path / n).identity for n in ("old", "more")}
    roles = {
        path: [match.role for match in identify(path, deltas=[delta]).matches]
        for path in (base, *(tmp_path / n for n in ("target", "old", "more", "other")))
    }
    assert list(roles.values()) == [
        ["base"],
        ["target"],
        ["accepted base"],
        ["accepted base"],
        [],
    ]
    found = identify(tmp_path / "old")
    assert found.without_buffers == identify(base).identity
    with pytest.raises(BaseMismatchError) as caught:
        make_delta(base, tmp_path / "target", tmp_path / "d2", accept=[tmp_path / "other"])
    assert str(caught.value) == (
        f'{tmp_path / "other"}: does not serve as the base: tensor "lm_head.weight" has '
        "other values, so nobody could rebuild the model from it"
    )
    assert not (tmp_path / "d2").exists()


def test_a_base_needs_no_buffers_that_the_target_has(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    """Old converters wrote inv_freq; whoever converts today has none."""
    state = safetensors.torch.load_file(containers["safetensors"] / "model.safetensors")
    buffers = {
        f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)
    }
    for name in ("old", "target"):
        (tmp_path / name).mkdir()
    safetensors.torch.save_file(state | buffers, tmp_path / "old" / "model.safetensors")
    target = state | buffers | {"model.norm.weight": state["model.norm.weight"] * 2}
    safetensors.torch.save_file(target, tmp_path / "target" / "model.safetensors")
    made = make_delta(tmp_path / "old", tmp_path / "target", tmp_path / "delta")
    assert made.operations["new"] == 1
    assert made.operations["alias"] == 1
    apply_delta(containers["Meta"], tmp_path / "delta", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "target")


def test_a_target_in_another_container_is_converted_first(
    containers: dict[str, Path], tmp_path: Path
) -> None:
    target = containers["PyTorch"]
    with pytest.raises(UsageError) as caught:
        make_delta(containers["Meta"], target, tmp_path / "delta")
    assert str(caught.value) == (
        f"{target}: holds PyTorch weights; a release is of safetensors: make them with "
        f"`releasekit convert {target} NEW_FOLDER`, and release NEW_FOLDER"
    )


def test_on_the_command_line(containers: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = releasekit("convert", containers["Meta"], out, "--dtype", "float16", "--json")
    document = json.loads(made.stdout)
    assert (document["container"], document["kept"]) == ("Meta", [])
    assert document["rounded"] == 0  # these values have few bits, and are not small
    shown = releasekit("identify", out)
    assert document["identity"] in shown.stdout
    assert (
        json.loads(releasekit("identify", out, "--json").stdout)["identity"]
        == (document["identity"])
    )
    inspected = json.loads(releasekit("inspect", containers["Meta"], "--json").stdout)
    assert (inspected["container"], len(inspected["files"])) == ("Meta", 2)
    assert releasekit("verify", out).returncode == 0


def test_a_signature_of_other_files_is_not_copied(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "source", {"w": ("F32", [1], bytes(4))})
    sign(source, PrivateKey.generate())
    made = convert(source, tmp_path / "out", dtype="float16")
    assert made.left_out == ("model.sig",)
    assert sorted(path.name for path in made.out.iterdir()) == [
        "SHA256SUMS",
        "model.safetensors",
    ]
