"""LLaMA checkpoints as Meta publishes them, small, made with torch.

Tensors are made whole, and cut into parts as Meta's layers are: a `ColumnParallelLinear` of
fairscale has some rows of a weight, a `RowParallelLinear` some columns. What transformers
makes of them is told by the tests, each in its own way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama:
    """A model, and how it is stored.

    Attributes:
        parts: how many files.
        kv: heads of keys and values; None if params.json is not to say it.
        head_dim: rows of a head; None if params.json is not to say it.
        rows: whether the embeddings are cut into rows, as by Llama 3.
        zipped: whether files are of the format that torch has had since 1.6.
        tied: whether there is no output.weight.
        freqs: what the frequencies are called; None for none.
        said: more fields of params.json.
    """

    parts: int = 1
    dim: int = 64
    layers: int = 2
    heads: int = 8
    kv: int | None = None
    head_dim: int | None = None
    ffn: int = 96
    vocab: int = 48
    rows: bool = False
    dtype: torch.dtype = torch.bfloat16
    zipped: bool = True
    tied: bool = False
    freqs: str | None = "rope.freqs"
    said: tuple[tuple[str, object], ...] = ()

    @property
    def head(self) -> int:
        """Rows of a head."""
        return self.head_dim or self.dim // self.heads

    def axes(self) -> dict[str, int | None]:
        """Along which axis each tensor is cut; None if every part has it whole."""
        axes: dict[str, int | None] = {"tok_embeddings": 0 if self.rows else 1}
        for layer in range(self.layers):
            cut = {"wq": 0, "wk": 0, "wv": 0, "wo": 1}
            axes |= {f"layers.{layer}.attention.{w}": axis for w, axis in cut.items()}
            cut = {"w1": 0, "w2": 1, "w3": 0}
            axes |= {f"layers.{layer}.feed_forward.{w}": axis for w, axis in cut.items()}
            axes |= {f"layers.{layer}.{part}_norm": None for part in ("attention", "ffn")}
        axes["norm"] = None
        if not self.tied:
            axes["output"] = 0
        return {f"{name}.weight": axis for name, axis in axes.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a whole tensor."""
        match name.split(".")[-2]:
            case "tok_embeddings" | "output":
                return self.vocab, self.dim
            case "wk" | "wv":
                return (self.kv or self.heads) * self.head, self.dim
            case "w1" | "w3":
                return self.ffn, self.dim
            case "w2":
                return self.dim, self.ffn
            case "wq":
                return self.heads * self.head, self.dim
            case "wo":
                return self.dim, self.heads * self.head
        return (self.dim,)

    def whole(self) -> Tensors:
        """All tensors, not cut; every one has other values."""
        source = torch.Generator().manual_seed(self.dim + self.layers)
        return {
            name: torch.randn(self.shape(name), generator=source).to(self.dtype)
            for name in self.axes()
        }

    def cut(self) -> list[Tensors]:
        """The parts, each a state dict."""
        parts: list[Tensors] = [{} for _ in range(self.parts)]
        axes = self.axes()
        for name, tensor in self.whole().items():
            axis = axes[name]
            pieces = [tensor] * self.parts
            if axis is not None:
                pieces = list(tensor.chunk(self.parts, axis))
            for part, piece in zip(parts, pieces, strict=True):
                part[name] = piece.clone(memory_format=torch.contiguous_format)
        if self.freqs is not None:
            for part in parts:
                part[self.freqs] = torch.arange(self.head // 2, dtype=self.dtype)
        return parts

    def params(self) -> dict[str, Any]:
        """The fields of params.json, as those of LLaMA 1 and 2."""
        params: dict[str, Any] = {
            "dim": self.dim,
            "multiple_of": 32,
            "n_heads": self.heads,
            "n_layers": self.layers,
            "norm_eps": 1e-05,
            "vocab_size": -1,
        }
        if self.kv is not None:
            params["n_kv_heads"] = self.kv
        if self.head_dim is not None:
            params["head_dim"] = self.head_dim
        return params | dict(self.said)

    def save(self, folder: Path, params: object = None) -> Path:
        """Write it all, with other parameters if some are given."""
        folder.mkdir(exist_ok=True)
        text = json.dumps(self.params() if params is None else params)
        (folder / "params.json").write_text(text)
        for number, part in enumerate(self.cut()):
            save(part, folder / file_name(number), zipped=self.zipped)
        return folder


def file_name(number: int) -> str:
    """The name of a part."""
    return f"consolidated.{number:02}.pth"


def save(state: dict[str, Any], path: Path, *, zipped: bool = True) -> None:
    """Write a part in one of torch's two formats."""
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
