"""Deltas as other tools publish them, and what their scripts make of them, in torch.

Written from what the scripts do, one by one, without releasekit: FastChat's `make_delta`
and `apply_delta`, LLaVA's, stanford_alpaca's `weight_diff`, and `xor_codec.py`.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

Tensors = dict[str, torch.Tensor]
HIDDEN = 64
HALF = torch.float16


def model(seed: int, rows: int = 32, dtype: torch.dtype = HALF) -> Tensors:
    """A small LLaMA's weights, as transformers names them."""
    source = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=source) * 0.02).to(dtype)

    made = {"model.embed_tokens.weight": weights(rows, HIDDEN)}
    for layer in range(2):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            made[f"{prefix}.self_attn.{name}.weight"] = weights(HIDDEN, HIDDEN)
        made[f"{prefix}.mlp.gate_proj.weight"] = weights(96, HIDDEN)
        made[f"{prefix}.mlp.down_proj.weight"] = weights(HIDDEN, 96)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{prefix}.{name}.weight"] = 1 + weights(HIDDEN)
    made["model.norm.weight"] = 1 + weights(HIDDEN)
    made["lm_head.weight"] = weights(rows, HIDDEN)
    return made


def tuned(base: Tensors, seed: int = 7, rows: int | None = None) -> Tensors:
    """The base after some training, with more rows if asked for."""
    source = torch.Generator().manual_seed(seed)
    made = {}
    for name, tensor in base.items():
        grown = tensor
        if rows is not None and name in ("model.embed_tokens.weight", "lm_head.weight"):
            more = torch.randn(rows - len(tensor), HIDDEN, generator=source) * 0.02
            grown = torch.cat([tensor, more.to(tensor.dtype)])
        step = torch.randn(grown.shape, generator=source) * 1e-3
        made[name] = (grown.float() + step).to(tensor.dtype)
    return made


def save(tensors: Tensors, folder: Path, kind: str = "safetensors") -> Path:
    """Write a model folder with a config and a tokenizer, as `kind` of files."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "hidden_size": HIDDEN, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(b"tokenizer")
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    zipped = kind == "bin"
    names = list(tensors)
    files: dict[str, str] = {}
    for number, some in enumerate((names[:9], names[9:]), 1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        part = {name: tensors[name] for name in some}
        torch.save(part, folder / file, _use_new_zipfile_serialization=zipped)
        files |= dict.fromkeys(some, file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def half(tensors: Tensors) -> Tensors:
    """As `from_pretrained(torch_dtype=torch.float16)` loads it."""
    return {name: tensor.to(HALF) for name, tensor in tensors.items()}


def zero_rows(base: Tensors, rows: int) -> Tensors:
    """FastChat's first versions: resized for a [PAD] token, its rows set to zero."""
    made = dict(base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more = torch.zeros(rows - len(base[name]), HIDDEN, dtype=base[name].dtype)
        made[name] = torch.cat([base[name], more])
    return made


def mean_rows(base: Tensors, rows: int) -> Tensors:
    """stanford_alpaca's `smart_tokenizer_and_embedding_resize`."""
    made = dict(base)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = base[name].mean(dim=0, keepdim=True)
        made[name] = torch.cat([base[name], mean.expand(rows - len(base[name]), -1)])
    return made


def subtract(target: Tensors, base: Tensors) -> Tensors:
    """`make_delta`: `param.data -= base`."""
    return {
        name: tensor - base[name] if name in base else tensor
        for name, tensor in target.items()
    }


def add(delta: Tensors, base: Tensors) -> Tensors:
    """`apply_delta`: `param.data += delta`."""
    return {
        name: base[name] + tensor if name in base else tensor
        for name, tensor in delta.items()
    }


def xor_files(payload: Path, target: Path, base: Path, *, packed: bool = False) -> Path:
    """`xor_codec.py --encode`: a folder of files, those that the base lacks as they are."""
    payload.mkdir(parents=True)
    for path in sorted(target.iterdir()):
        data = np.frombuffer(path.read_bytes(), np.uint8).copy()
        if (base / path.name).is_file():
            known = np.frombuffer((base / path.name).read_bytes(), np.uint8)[: data.size]
            data[: known.size] ^= known
        made = data.tobytes()
        (payload / path.name).write_bytes(gzip.compress(made) if packed else made)
    return payload
