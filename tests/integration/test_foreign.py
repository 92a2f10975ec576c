"""Deltas of other tools: what their scripts make of them, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from releasekit import (
    BaseMismatchError,
    FormatError,
    IntegrityError,
    UsageError,
    apply_delta,
    apply_foreign,
    identify,
    import_delta,
    plan_foreign,
    verify,
)
from releasekit.foreign.payloads import is_xor
from releasekit.foreign.xor import apply_xor
from tests import foreign
from tests.foreign import Tensors, half, model, save, tuned
from tests.integration.tools import digests

KINDS = ["safetensors", "bin", "old bin"]


def rebuilt(folder: Path) -> Tensors:
    return safetensors.torch.load_file(folder / "model.safetensors")


def check(found: Tensors, wanted: Tensors) -> None:
    """Equal names, dtypes and bits; −0 is not 0."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(
            found[name].contiguous().view(torch.uint8),
            tensor.contiguous().view(torch.uint8),
        ), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_fastchat(tmp_path: Path, kind: str, stored: torch.dtype) -> None:
    """Vicuna, StableVicuna, FreeWilly1: loaded as float16 whatever is stored, and added."""
    base, target = model(1, dtype=stored), tuned(model(1, dtype=stored))
    delta = foreign.subtract(target, base)
    made = apply_foreign(
        save(base, tmp_path / "base"),
        save(delta, tmp_path / "delta", kind),
        tmp_path / "out",
    )
    check(rebuilt(tmp_path / "out"), foreign.add(half(delta), half(base)))
    assert (made.recipe, made.dtype) == ("fastchat", "float16")
    rounded = (
        "the base is bfloat16, and the publisher's script adds in F16: if this copy was "
        "rounded from float16, the result is not the publisher's"
    )
    assert made.notes == ((rounded,) if stored is torch.bfloat16 else ())
    assert made.identity == identify(tmp_path / "out").identity
    assert verify(tmp_path / "out").ok
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"tokenizer"
    assert "float16" in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("order", ["cast-add", "add-cast"])
def test_dtype_and_order_are_options(
    tmp_path: Path, dtype: torch.dtype, order: str
) -> None:
    base = model(1, dtype=torch.bfloat16)
    delta = foreign.subtract(
        tuned(model(1, dtype=torch.float32)), model(1, dtype=torch.float32)
    )
    name = str(dtype).removeprefix("torch.")
    apply_foreign(
        save(base, tmp_path / "base"),
        save(delta, tmp_path / "delta"),
        tmp_path / "out",
        dtype=name,
        order=order,
    )
    cast = torch.float32 if order == "add-cast" else dtype
    wanted = {n: (base[n].to(cast) + t.to(cast)).to(dtype) for n, t in delta.items()}
    check(rebuilt(tmp_path / "out"), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_were_zeros(tmp_path: Path, kind: str) -> None:
    """v0: the base got a [PAD] token, whose rows were zeros."""
    base = model(1)
    resized = foreign.zero_rows(base, 33)
    delta = foreign.subtract(tuned(base, rows=33), resized)
    made = apply_foreign(
        save(base, tmp_path / "base", kind),
        save(delta, tmp_path / "delta"),
        tmp_path / "out",
    )
    check(rebuilt(tmp_path / "out"), foreign.add(delta, resized))
    assert made.notes == tuple(
        f"{name}: the base has 32 rows, the delta 33: those that the base lacks count "
        "as zeros, as in fastchat's script"
        for name in ("lm_head.weight", "model.embed_tokens.weight")
    )


def test_llava(tmp_path: Path) -> None:
    """More rows in embedding and head, and a projector that only the delta has."""
    base = model(1)
    projector = {
        "model.mm_projector.weight": torch.randn(64, 32).half(),
        "model.mm_projector.bias": torch.randn(64).half(),
    }
    target = tuned(base, rows=35) | projector
    resized = foreign.zero_rows(base, 35)
    delta = foreign.subtract(target, resized)
    made = apply_foreign(
        save(base, tmp_path / "base"), save(delta, tmp_path / "delta"), tmp_path / "out"
    )
    check(rebuilt(tmp_path / "out"), foreign.add(delta, resized))
    assert made.recipe == "llava"
    assert made.notes[-1].startswith("2 tensors are the delta's alone, taken as they are: ")


@pytest.mark.parametrize("stored", [torch.float16, torch.float32])
def test_alpaca(tmp_path: Path, stored: torch.dtype) -> None:
    """In float32, the new row the mean of the others, and its sum check."""
    base = model(1, rows=1000, dtype=stored)
    wide = {name: tensor.float() for name, tensor in base.items()}
    resized = foreign.mean_rows(wide, 1001)
    target = tuned(wide, rows=1001)
    delta = foreign.subtract(target, resized)
    recovered = foreign.add(delta, resized)
    total = float(sum(tensor.sum() for tensor in recovered.values()))
    made = apply_foreign(
        save(base, tmp_path / "base"),
        save(delta, tmp_path / "delta"),
        tmp_path / "out",
        expect_sum=total,
    )
    check(rebuilt(tmp_path / "out"), recovered)
    assert (made.recipe, made.dtype) == ("alpaca", "float32")
    assert made.sum == pytest.approx(total, abs=1e-2)
    with pytest.raises(IntegrityError) as caught:
        apply_foreign(
            tmp_path / "base", tmp_path / "delta", tmp_path / "out2", expect_sum=total + 1
        )
    assert str(caught.value) == (
        f"{tmp_path / 'out2'}: expected weights whose sum is {total + 1}, found "
        f"{made.sum}: the base is not the one that the delta was made from, or a file is "
        "damaged; nothing was kept"
    )
    assert not list(tmp_path.glob("out2*"))


@pytest.mark.parametrize("stored", [True, False])
def test_the_sum_that_alpacas_script_took_had_buffers(tmp_path: Path, stored: bool) -> None:
    """transformers stored inv_freq at the time; a base of today has none."""
    base = {name: tensor.float() for name, tensor in model(1).items()}
    delta = foreign.subtract(tuned(base), base)
    frequencies = 1 / 10000 ** (torch.arange(0, 16, 2).float() / 16)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    buffers = {name: frequencies} if stored else {}
    recovered = foreign.add(delta, base) | {name: frequencies}
    total = float(sum(tensor.sum() for tensor in recovered.values()))
    made = apply_foreign(
        save(base | buffers, tmp_path / "base"),
        save(delta | {name: torch.zeros(8)}, tmp_path / "delta"),
        tmp_path / "out",
        recipe="alpaca",
        expect_sum=total,
    )
    assert made.sum_with_buffers == pytest.approx(total, abs=1e-2)
    assert made.sum == pytest.approx(total - float(frequencies.sum()), abs=1e-2)


def test_buffers_are_ignored_on_either_side(tmp_path: Path) -> None:
    base, target = model(1), tuned(model(1))
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    delta = foreign.subtract(target, base)
    wanted = foreign.add(delta, base)
    for number, (more, less) in enumerate([(buffer, {}), ({}, buffer), (buffer, buffer)]):
        made = apply_foreign(
            save(base | more, tmp_path / f"base{number}"),
            save(delta | less, tmp_path / f"delta{number}"),
            tmp_path / f"out{number}",
        )
        check(rebuilt(tmp_path / f"out{number}"), wanted)
        assert made.notes == (
            "rotary_emb.inv_freq buffers are ignored: model libraries compute them, and no "
            "longer store them",
        )


def drop(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


BASE = model(1)
DELTA = foreign.subtract(tuned(BASE), BASE)
HEAD = "lm_head.weight"
FAULTS: dict[str, tuple[Tensors, Tensors, type[Exception], str]] = {
    "base rows": (
        foreign.zero_rows(BASE, 33),
        DELTA,
        BaseMismatchError,
        '{base}: tensor "lm_head.weight": expected at most 32 rows as in the delta, found '
        "33: a token, such as [PAD], was added to this base; get the original one",
    ),
    "size": (
        BASE | {HEAD: torch.zeros(32, 65).half()},
        DELTA,
        BaseMismatchError,
        '{base}: tensor "lm_head.weight": expected [32, 64] as in the delta, found '
        "[32, 65]: this is a base of another size",
    ),
    "delta lacks": (
        BASE,
        drop(DELTA, HEAD, "model.norm.weight"),
        BaseMismatchError,
        '{base}: 2 of its 19 tensors are not in the delta: "lm_head.weight", '
        '"model.norm.weight": the delta is incomplete, or was made from another base',
    ),
    "names": (
        {"other": torch.ones(3)},
        DELTA,
        BaseMismatchError,
        '{base}: has none of the delta\'s tensors, such as "lm_head.weight": it is another '
        "architecture, or has other names; get the base that the delta's card names, in "
        "Hugging Face's layout",
    ),
    "quantised": (
        drop(BASE, HEAD) | {"lm_head.qweight": torch.zeros(4, 32, dtype=torch.int32)},
        DELTA,
        BaseMismatchError,
        '{base}: its weights are quantised with GPTQ or AWQ, as "lm_head.qweight" shows: '
        "that rounded them, which cannot be undone; get the original weights, of 16 bits "
        "or more",
    ),
    "delta as base": (
        DELTA,
        DELTA,
        BaseMismatchError,
        "{base}: the weights of its norms are around 0.00085, a model's around 1: this is "
        "a delta, not a base; give the base model with --base, or, if it is one, name a "
        "--recipe",
    ),
    "model as delta": (
        BASE,
        tuned(BASE),
        UsageError,
        "{delta}: the weights of its norms are around 1, a delta's around 0: this is a "
        "whole model, which needs no base; use it as it is, or, if it is a delta, name a "
        "--recipe",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(tmp_path: Path, fault: str) -> None:
    base, delta, error, message = FAULTS[fault]
    paths = {
        "base": save(base, tmp_path / "base"),
        "delta": save(delta, tmp_path / "delta"),
    }
    run: list[Callable[..., object]] = [plan_foreign, apply_foreign, import_delta]
    for call in run:
        with pytest.raises(error) as caught:
            call(paths["base"], paths["delta"], tmp_path / "out")
        assert type(caught.value) is error
        assert str(caught.value) == message.format(**paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta"]


def test_an_import_is_a_release_of_the_same_model(tmp_path: Path) -> None:
    base = save(foreign.model(1), tmp_path / "base", "bin")
    delta = save(DELTA, tmp_path / "delta", "bin")
    done = import_delta(base, delta, tmp_path / "release", model_shard_nbytes=40_000)
    apply_foreign(base, delta, tmp_path / "model", shard_nbytes=40_000)
    apply_delta(base, tmp_path / "release", tmp_path / "rebuilt")
    wanted = digests(tmp_path / "model")
    del wanted["SHA256SUMS"]
    assert digests(tmp_path / "rebuilt") == wanted
    assert verify(tmp_path / "release").ok
    assert (done.recipe, done.made.name) == ("fastchat", "delta")
    assert done.made.ratio < 1
    assert done.made.target_identity == identify(tmp_path / "model").identity


def test_a_run_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from releasekit.output import OutputFolder

    base, delta = save(BASE, tmp_path / "base"), save(DELTA, tmp_path / "delta")
    whole = apply_foreign(base, delta, tmp_path / "whole", shard_nbytes=20_000)
    finish = OutputFolder.finish

    def stop(self: OutputFolder, name: str, final: str) -> None:
        finish(self, name, final)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            apply_foreign(base, delta, tmp_path / "out", shard_nbytes=20_000, threads=1)
    made = apply_foreign(base, delta, tmp_path / "out", shard_nbytes=20_000, threads=1)
    assert len(made.kept) == 1
    assert (made.files, made.sum) == (whole.files, whole.sum)


@pytest.fixture
def xor(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Base, payload and target as Open-Assistant's: .bin files, and more text files."""
    base = save(BASE, tmp_path / "base", "bin")
    target = save(tuned(BASE), tmp_path / "target", "bin")
    (target / "added_tokens.json").write_text('{"[PAD]": 32000}')
    (target / "config.json").write_text('{"model_type": "llama", "much": "longer"}')
    return base, foreign.xor_files(tmp_path / "payload", target, base), target


@pytest.mark.parametrize("packed", [False, True])
def test_xor(xor: tuple[Path, Path, Path], tmp_path: Path, packed: bool) -> None:
    base, payload, target = xor
    if packed:
        payload = foreign.xor_files(tmp_path / "packed", target, base, packed=True)
    assert is_xor(payload)
    assert not is_xor(base)
    assert not is_xor(target)
    made = apply_xor(base, payload, tmp_path / "out")
    found = digests(tmp_path / "out")
    assert {n: d for n, d in found.items() if n not in ("SHA256SUMS", "MD5SUMS")} == (
        digests(target)
    )
    assert made.files == digests(target)
    assert made.notes == (
        "added_tokens.json: the base has no such file; taken as it is",
        "MD5SUMS is for comparison with what the publisher lists",
    )
    sums = {
        line[34:]: line[:32]
        for line in (tmp_path / "out" / "MD5SUMS").read_text().splitlines()
    }
    assert sums == {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in target.iterdir()
    }


def damage(base: Path) -> None:
    file = base / "pytorch_model-00002-of-00002.bin"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)


def other_config(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": "llama", "a": 1, "b": [1, 2, 3]}')


def shorter(base: Path) -> None:
    file = base / "pytorch_model-00001-of-00002.bin"
    file.write_bytes(file.read_bytes()[:-100])


def missing(base: Path) -> None:
    (base / "pytorch_model-00001-of-00002.bin").unlink()


@pytest.mark.parametrize("change", [damage, other_config, shorter, missing])
def test_a_base_of_other_bytes_is_noticed(
    xor: tuple[Path, Path, Path], tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """The script would exit with 0, and leave a model of noise."""
    base, payload, _ = xor
    change(base)
    with pytest.raises(BaseMismatchError, match="see its card"):
        apply_xor(base, payload, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_damaged_archive_is_named(xor: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, _, target = xor
    payload = foreign.xor_files(tmp_path / "packed", target, base, packed=True)
    file = payload / "pytorch_model-00001-of-00002.bin"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(FormatError) as caught:
        apply_xor(base, payload, tmp_path / "out")
    assert str(caught.value).startswith(f"{file}: is a damaged gzip file (")
    assert not (tmp_path / "out").exists()
