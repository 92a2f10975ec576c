"""What integration tests share: models as people have them, and the command line."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from releasekit.cli import cli
from releasekit.cli.shell import run
from tests.builders import RawTensor, model_folder

Model = dict[str, RawTensor]

COMMAND = (sys.executable, "-m", "releasekit")
TRACEBACK = "Traceback (most recent call last)"

_UNSIGNED = re.compile(r"^warning: [^\n]*: is not signed, so [^\n]*\n", re.MULTILINE)


def releasekit(
    *arguments: str | Path, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Runs the command line; whatever happens, nobody is shown a traceback.

    That a release is not signed is left out: most here are not.
    """
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert TRACEBACK not in done.stdout + done.stderr, done.stderr
    done.stderr = but_unsigned(done.stderr)
    return done


@dataclass(frozen=True)
class Done:
    """What a run of the command line in this process came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The message of the one error."""
        *_, last = self.stderr.splitlines()
        assert last.startswith("error: "), self.stderr
        return last.removeprefix("error: ")

    @property
    def rules(self) -> list[str]:
        """What `licenses check` found."""
        return [finding["rule"] for finding in self.json["findings"]]


def here(*arguments: str | Path) -> Done:
    """The command line in this process, with no terminal: as it is, and sooner."""
    out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run(cli, [str(argument) for argument in arguments])
    finally:
        sys.stdin = stdin
    return Done(code, out.getvalue(), err.getvalue())


def good(*arguments: str | Path) -> Done:
    """The same, for what must succeed."""
    done = here(*arguments)
    assert done.code == 0, done.stdout + done.stderr
    return done


def in_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What `releasekit` is for, where a process of its own would show nothing more."""
    done = here(*arguments)
    stderr = but_unsigned(done.stderr)
    return subprocess.CompletedProcess([], done.code, done.stdout, stderr)


def measured_briefly(patch: pytest.MonkeyPatch) -> None:
    """Lets `plan --measure` take a second, not ten: its rates are rough, all else is so."""
    for name, value in {
        "_HASHED": 1 << 20,
        "_FILE": 1 << 24,
        "_ROWS": 1000,
        "_TENSORS": 500,
    }.items():
        patch.setattr(f"releasekit.planning.measure.{name}", value)


def but_unsigned(stderr: str) -> str:
    """What a command said but for the warning that a release is not signed."""
    return _UNSIGNED.sub("", stderr)


def unsigned(release: Path) -> dict[str, Any]:
    """What documents say of the signature of a release that has none."""
    warning = (
        f"{release}: is not signed, so nothing shows whose it is; ask its publisher for a "
        "signed one"
    )
    return {"status": "unsigned", "key": None, "publisher": None, "warnings": [warning]}


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, by path; links are named, not followed."""
    return {
        path.relative_to(folder).as_posix(): "link"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Numbers as bf16 words: to nearest, ties to even; no NaN among them."""
    words = values.view(np.uint32)
    half = np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))
    return ((words + half) >> np.uint32(16)).astype(np.uint16)


def as_raw(values: NDArray[np.floating[Any]], label: str) -> RawTensor:
    """Numbers as a tensor of BF16, F16, F32 or F64."""
    values = values.astype(np.float32)
    match label:
        case "BF16":
            data = bf16(values).tobytes()
        case "F16":
            data = values.astype(np.float16).tobytes()
        case "F32":
            data = values.tobytes()
        case _:
            data = values.astype(np.float64).tobytes()
    return label, values.shape, data


def weights(
    source: np.random.Generator, label: str, *shape: int, scale: float = 0.02
) -> RawTensor:
    """Numbers as an initialised model has them."""
    values: NDArray[np.float64] = source.standard_normal(shape) * scale
    return as_raw(values, label)


def trained(
    source: np.random.Generator, tensor: RawTensor, label: str = "", *, step: float = 1e-4
) -> RawTensor:
    """The tensor's numbers after an update about as large as a short fine-tune's."""
    values = numbers(tensor)
    values = values + source.standard_normal(values.shape).astype(np.float32) * step
    return as_raw(values, label or tensor[0])


def numbers(tensor: RawTensor) -> NDArray[np.float32]:
    """A tensor's numbers; the inverse of `as_raw` as far as fp32 holds them."""
    label, shape, data = tensor
    if label == "BF16":
        words = np.frombuffer(data, np.uint16).astype(np.uint32) << np.uint32(16)
        return words.view(np.float32).reshape(shape)
    types = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    return np.frombuffer(data, types[label]).astype(np.float32).reshape(shape)


def small_pair(seed: int = 1) -> tuple[Model, Model]:
    """A base and a fine-tune of it with an operation of each kind but an alias."""
    source = np.random.default_rng(seed)
    base: Model = {
        "embed.weight": weights(source, "BF16", 50, 64),
        "layer.weight": weights(source, "BF16", 64, 64),
        "norm.weight": weights(source, "F32", 64),
        "old.weight": weights(source, "F16", 3, 5),
        "steps": ("I64", (), (1000).to_bytes(8, "little")),
    }
    grown = weights(source, "BF16", 56, 64)
    target: Model = {
        "embed.weight": ("BF16", (56, 64), base["embed.weight"][2] + grown[2][50 * 128 :]),
        "layer.weight": trained(source, base["layer.weight"]),
        "norm.weight": base["norm.weight"],
        "head.weight": weights(source, "BF16", 8, 64),
        "steps": ("I64", (), (1020).to_bytes(8, "little")),
    }
    return base, target


def sharded_pair(
    folder: Path, source: np.random.Generator, shape: tuple[int, int]
) -> tuple[Path, Path]:
    """Folders of a base and a fine-tune: sixteen layers, each changed in every row."""
    words = np.frombuffer(weights(source, "BF16", *shape)[2], np.uint16)
    base: Model = {}
    target: Model = {}
    for number in range(16):
        layer = np.roll(words, 1000 * number)
        moved = layer + (np.frombuffer(source.bytes(layer.size), np.uint8) < 50)
        base[f"layer.{number}"] = ("BF16", shape, layer.tobytes())
        target[f"layer.{number}"] = ("BF16", shape, moved.astype(np.uint16).tobytes())
    made = model_folder(folder / "target", target, shards=4)
    (made / "config.json").write_bytes(b"{}")
    return model_folder(folder / "base", base, shards=2), made


def llama(
    source: np.random.Generator,
    *,
    label: str = "BF16",
    layers: int = 2,
    hidden: int = 64,
    vocabulary: int = 320,
) -> Model:
    """A checkpoint with the names and shapes that transformers gives a LLaMA."""
    inner = hidden * 8 // 3 // 16 * 16
    model: Model = {"model.embed_tokens.weight": weights(source, label, vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (hidden // 4, hidden),
            "self_attn.v_proj": (hidden // 4, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }.items():
            model[f"{prefix}.{name}.weight"] = weights(source, label, *shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            ones = 1 + source.standard_normal(hidden) * 0.1
            model[f"{prefix}.{name}.weight"] = as_raw(ones, label)
    model["model.norm.weight"] = as_raw(np.ones(hidden), label)
    model["lm_head.weight"] = weights(source, label, vocabulary, hidden)
    return model


def fine_tuned(source: np.random.Generator, base: Mapping[str, RawTensor]) -> Model:
    """Every tensor of the base after a short training."""
    return {name: trained(source, tensor) for name, tensor in base.items()}
