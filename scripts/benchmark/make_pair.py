"""Write a LLaMA checkpoint of random weights, and a fine-tune of it, for scripts/bench.py.

    python scripts/benchmark/make_pair.py FOLDER BF16 1.0 [--additive]
    python scripts/benchmark/make_pair.py FOLDER BF16 7b

Makes FOLDER/base and FOLDER/target, which transformers loads as they are: config, a toy
tokenizer, shards of up to 5 GB. The size is in GB; "7b" is LLaMA-7B's own shape. Smaller
models keep its row length of 4096 where that leaves room for a layer, hold one layer at
least, and give an eighth of their weights to the embedding and as much to the output.

--additive adds what FastChat and mergekit rebuild a model from:

    additive                 target − base, in the pair's dtype
    fp16/base fp16/additive  the same in fp16, the only dtype that FastChat computes in
    bin/base  bin/additive   the fp16 pair in PyTorch's format, the only one that FastChat's
                             low-memory path reads
    merge.json               what tells mergekit to add `additive` to `base`

Weights are normal; the scales of base and update vary by row. Drawing gigabytes would take
longer than all else, so rows come from a pool, once around it for each tensor from a start
of its own: no two tensors are equal, and repeats in a tensor are farther apart (48 MB) than
any contender looks.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from releasekit import layout
from releasekit.tensors import DTYPES, TensorSpec

HIDDEN, FFN, VOCABULARY, LAYERS = 4096, 11008, 32000, 32  # LLaMA-7B's
HEAD = 128  # columns of an attention head
POOL = 24_000_000  # weights
SHARD = 5_000_000_000  # bytes
WORDS = 2  # every dtype here has 16 bits
TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16"}
BASE_SCALE, BASE_SPREAD = 0.02, 0.3  # of the weights; of the logarithm of a row's scale
UPDATE_SCALE, UPDATE_SPREAD = 6e-5, 0.5

Words = NDArray[np.uint16]


def shape_of(size: str) -> dict[str, int]:
    """The numbers in a LLaMA configuration that give a model of `size`."""
    if size == "7b":
        hidden, ffn, vocabulary, layers = HIDDEN, FFN, VOCABULARY, LAYERS
    else:
        weights = float(size) * 1e9 / WORDS
        hidden = next(h for h in (HIDDEN, 1024, 256, 64, 1) if 4 * h * h <= weights * 0.6)
        vocabulary = min(VOCABULARY, max(64, round(weights / 8 / hidden)))
        rest = max(0.0, weights - 2 * vocabulary * hidden)
        attention = 4 * hidden * hidden
        layers = max(1, round(rest / (attention + 3 * hidden * FFN)))
        ffn = max(64, round((rest / layers - attention) / (3 * hidden)) // 16 * 16)
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // HEAD),
        "num_key_value_heads": max(1, hidden // HEAD),
    }


def shapes(config: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors, as transformers names them."""
    hidden, ffn, vocabulary = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (hidden,)
        for name in "qkvo":
            yield f"{at}.self_attn.{name}_proj.weight", (hidden, hidden)
        yield f"{at}.post_attention_layernorm.weight", (hidden,)
        yield f"{at}.mlp.gate_proj.weight", (ffn, hidden)
        yield f"{at}.mlp.up_proj.weight", (ffn, hidden)
        yield f"{at}.mlp.down_proj.weight", (hidden, ffn)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def to_words(values: NDArray[np.float32], dtype: str) -> Words:
    """Round to the nearest of `dtype`, ties to even."""
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_words(words: Words, dtype: str) -> NDArray[np.float32]:
    """The exact value of each word."""
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


def draw(rng: np.random.Generator, rows: int, columns: int, dtype: str) -> dict[str, Words]:
    """A pool of rows, as each of the checkpoints has them."""

    def normal(scale: float, spread: float) -> NDArray[np.float32]:
        row_scales: NDArray[np.float32] = np.exp(
            spread * rng.standard_normal((rows, 1), np.float32)
        )
        row_scales *= np.float32(scale)
        return rng.standard_normal((rows, columns), np.float32) * row_scales

    base = to_words(normal(BASE_SCALE, BASE_SPREAD), dtype)
    base_values = from_words(base, dtype)
    target = to_words(base_values + normal(UPDATE_SCALE, UPDATE_SPREAD), dtype)
    update = from_words(target, dtype) - base_values
    return {
        "base": base,
        "target": target,
        "additive": to_words(update, dtype),
        "fp16/base": to_words(base_values, "F16"),
        "fp16/additive": to_words(update, "F16"),
    }


class Pools:
    """Rows of every length that the model has, handed out tensor by tensor."""

    def __init__(self, specs: list[TensorSpec], dtype: str) -> None:
        rng = np.random.default_rng(0)
        needed: Counter[int] = Counter()
        for spec in specs:
            needed[spec.shape[-1]] += spec.numel
        self._pools = {
            columns: draw(rng, min(POOL, numel) // columns + 1, columns, dtype)
            for columns, numel in needed.items()
        }
        self._given = Counter[int]()

    def rows(self, spec: TensorSpec) -> Iterator[dict[str, Words]]:
        """The rows of the next tensor, in pieces."""
        columns = spec.shape[-1]
        pool = self._pools[columns]
        rows = len(pool["base"])
        stride = round(rows * 0.618)
        while math.gcd(stride, rows) > 1:  # else starts would come back early
            stride += 1
        at = self._given[columns] * stride % rows
        self._given[columns] += 1
        left = spec.numel // columns
        while left:
            count = min(left, rows - at)
            yield {name: words[at : at + count] for name, words in pool.items()}
            left -= count
            at = 0


def shards(specs: list[TensorSpec]) -> Iterator[tuple[str, list[TensorSpec]]]:
    """Names of the weight files, and what each holds."""
    groups: list[list[TensorSpec]] = [[]]
    for spec in specs:
        if groups[-1] and sum(s.nbytes for s in groups[-1]) + spec.nbytes > SHARD:
            groups.append([])
        groups[-1].append(spec)
    for number, group in enumerate(groups, 1):
        part = f"-{number:05}-of-{len(groups):05}" if len(groups) > 1 else ""
        yield f"model{part}.safetensors", group


def write_weights(folder: Path, specs: list[TensorSpec], kinds: dict[str, str]) -> None:
    """Write the weight files of each of `kinds` below `folder`, and their index.

    `kinds` gives each folder's dtype; the pair's own is that of its base.
    """
    dtype = kinds["base"]
    pools = Pools(specs, dtype)
    weight_map: dict[str, str] = {}
    for file_name, group in shards(specs):
        files = {kind: (folder / kind / file_name).open("wb") for kind in kinds}
        for kind, file in files.items():
            header = layout.build(_as(group, kinds[kind]), {"format": "pt"})
            file.write(header.prefix)
        for spec in group:
            weight_map[spec.name] = file_name
            for piece in pools.rows(spec):
                for kind, file in files.items():
                    file.write(piece[kind].data)
        for file in files.values():
            file.close()
    if len(set(weight_map.values())) > 1:
        total = sum(spec.nbytes for spec in specs)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        for kind in kinds:
            path = folder / kind / "model.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2))


def _as(specs: list[TensorSpec], dtype: str) -> list[TensorSpec]:
    return [
        TensorSpec(name=spec.name, dtype=DTYPES[dtype], shape=spec.shape) for spec in specs
    ]


def write_side_files(folder: Path, config: dict[str, int], dtype: str) -> None:
    """Write what transformers needs beside the weights."""
    words = ["<unk>", "<s>", "</s>", *(chr(code) for code in range(ord("a"), ord("z") + 1))]
    texts: dict[str, object] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **config,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": TORCH_DTYPES[dtype],
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": words[0],
            "bos_token": words[1],
            "eos_token": words[2],
        },
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {
                "type": "WordLevel",
                "vocab": {word: number for number, word in enumerate(words)},
                "unk_token": words[0],
            },
        },
    }
    for name, text in texts.items():
        (folder / name).write_text(json.dumps(text, indent=2))


def write_bins(folder: Path, specs: list[TensorSpec], kind: str) -> None:
    """Write a fp16 model again, in PyTorch's format."""
    for number, (file_name, group) in enumerate(shards(specs), 1):
        header = layout.build(_as(group, "F16"), {"format": "pt"})
        path, words = folder / "fp16" / kind / file_name, header.file_size // WORDS
        data = torch.from_file(str(path), size=words, dtype=torch.float16)
        data = data[header.data_start // WORDS :]
        tensors = {
            placed.spec.name: data[placed.begin // WORDS : placed.end // WORDS]
            .clone()  # a view would take all the file's bytes with it
            .view(placed.spec.shape)
            for placed in header.tensors
        }
        torch.save(tensors, folder / "bin" / kind / f"pytorch_model-{number:05}.bin")


def write_merge_config(folder: Path, dtype: str) -> None:
    """Tell mergekit to add the delta to the base. JSON is YAML, too."""
    config = {
        "merge_method": "linear",
        "models": [
            {"model": str((folder / name).absolute()), "parameters": {"weight": 1.0}}
            for name in ("base", "additive")
        ],
        "parameters": {"normalize": False},
        "dtype": TORCH_DTYPES[dtype],
    }
    (folder / "merge.json").write_text(json.dumps(config))


def main() -> None:
    """Parse the arguments, write the pair."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("dtype", choices=TORCH_DTYPES)
    parser.add_argument("size", metavar="GB", help='or "7b"')
    parser.add_argument("--additive", action="store_true")
    arguments = parser.parse_args()

    folder, dtype = arguments.folder, arguments.dtype
    config = shape_of(arguments.size)
    specs = [
        TensorSpec(name=name, dtype=DTYPES[dtype], shape=shape)
        for name, shape in shapes(config)
    ]
    kinds = {"base": dtype, "target": dtype}
    if arguments.additive:
        kinds |= {"additive": dtype, "fp16/base": "F16", "fp16/additive": "F16"}
    for kind, kind_dtype in kinds.items():
        (folder / kind).mkdir(parents=True)
        write_side_files(folder / kind, config, kind_dtype)
    write_weights(folder, specs, kinds)
    if arguments.additive:
        for kind in ("base", "additive"):
            (folder / "bin" / kind).mkdir(parents=True)
            write_side_files(folder / "bin" / kind, config, "F16")
            write_bins(folder, specs, kind)
        write_merge_config(folder, dtype)


if __name__ == "__main__":
    main()
