"""Write a fp16 pair, and its base in every container, for scripts/benchmark/containers.py.

    python scripts/benchmark/make_containers.py FOLDER 1.0

Makes in FOLDER, at once or not at all, what make_pair.py makes with --additive, and

    old/base.pt   the base in the format that torch had before 1.6
    meta          the base as Meta publishes: its names, q and k in its order, in two parts

Two things differ from make_pair's models. Norms are around 1, as real ones are: a base with
smaller ones is taken for a delta. And the vocabulary is even, so that two parts can share
it; the size is raised by what that takes. It is in GB, and below 5, so that there is one
.bin file: FastChat reads several without an index, releasekit only with one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from releasekit.tensors import DType, TensorSpec
from scripts.benchmark import contend, make_pair

PARTS = 2  # of Meta's files
#: Meta's names, and along which axis a tensor is cut; None if every part has all of it.
WHOLE: dict[str, tuple[str, int | None]] = {
    "model.embed_tokens": ("tok_embeddings", 1),
    "model.norm": ("norm", None),
    "lm_head": ("output", 0),
}
LAYER: dict[str, tuple[str, int | None]] = {
    "input_layernorm": ("attention_norm", None),
    "self_attn.q_proj": ("attention.wq", 0),
    "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0),
    "self_attn.o_proj": ("attention.wo", 1),
    "post_attention_layernorm": ("ffn_norm", None),
    "mlp.gate_proj": ("feed_forward.w1", 0),
    "mlp.down_proj": ("feed_forward.w2", 1),
    "mlp.up_proj": ("feed_forward.w3", 0),
}

Tensors = dict[str, torch.Tensor]


def lift_norms(folder: Path) -> None:
    """Add 1 to the norms of base and target; the additive delta stays as it is."""
    added = contend.tensors_of(folder / "additive")
    for name, tensor in contend.tensors_of(folder / "base").items():
        if len(tensor.shape) > 1:
            continue
        base = tensor.values() + 1
        target = base + added[name].values()
        for kind, values in (("base", base), ("fp16/base", base), ("target", target)):
            with (folder / kind / tensor.path.name).open("r+b") as file:
                file.seek(tensor.begin)  # as in the base: the headers are equal
                file.write(values.tobytes())


def rewrite_bin(folder: Path, config: dict[str, int]) -> Tensors:
    """Write the base's .bin file anew, with the norms as they are now; what it holds."""
    specs = [
        TensorSpec(name=name, dtype=DType.F16, shape=shape)
        for name, shape in make_pair.shapes(config)
    ]
    make_pair.write_bins(folder, specs, "base")
    (path,) = (folder / "bin" / "base").glob("*.bin")
    state: Tensors = torch.load(path, mmap=True)
    return state


def write_old(folder: Path, state: Tensors) -> None:
    """Write the older format, its storages in the order of `state`.

    torch sorts them by their addresses, and so at random. convert keeps a file's order:
    with another one its digests could not be compared.
    """
    storages = [torch.empty(0, dtype=torch.float16) for _ in state]
    storages.sort(key=lambda empty: str(empty.untyped_storage()._cdata))
    for (name, tensor), empty in zip(state.items(), storages, strict=True):
        state[name] = empty.resize_(tensor.shape).copy_(tensor)
    folder.mkdir()
    torch.save(state, folder / "base.pt", _use_new_zipfile_serialization=False)


def write_meta(folder: Path, state: Tensors, config: dict[str, int]) -> None:
    """Write Meta's files."""
    heads = config["num_attention_heads"]
    parts: list[Tensors] = [{} for _ in range(PARTS)]
    for name, tensor in state.items():
        stem, whole = name.removesuffix(".weight"), tensor
        if stem in WHOLE:
            meta, axis = WHOLE[stem]
        else:
            _, _, layer, rest = stem.split(".", 3)
            meta, axis = LAYER[rest]
            meta = f"layers.{layer}.{meta}"
        if meta.endswith((".wq", ".wk")):  # rows i and i + half a head become neighbours
            halves = tensor.view(heads, 2, -1, tensor.shape[1])
            whole = halves.transpose(1, 2).reshape(tensor.shape)
        pieces = [whole] * PARTS if axis is None else whole.chunk(PARTS, axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[f"{meta}.weight"] = piece.clone(memory_format=torch.contiguous_format)
    folder.mkdir()
    for number, part in enumerate(parts):
        torch.save(part, folder / f"consolidated.{number:02}.pth")
    params = {
        "dim": config["hidden_size"],
        "multiple_of": 256,
        "n_heads": heads,
        "n_layers": config["num_hidden_layers"],
        "norm_eps": 1e-06,
        "vocab_size": -1,
    }
    (folder / "params.json").write_text(json.dumps(params))


def main() -> None:
    """Parse the arguments, write it all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=float, metavar="GB")
    arguments = parser.parse_args()
    folder, size = arguments.folder, arguments.size
    if not 0 < size < 5:
        parser.error("the size must be above 0 and below 5 GB")
    config = make_pair.shape_of(str(size))
    if config["num_attention_heads"] % PARTS:
        parser.error(f"{size} GB: too small to have a head in each of {PARTS} parts")
    while config["vocab_size"] % PARTS:
        size += 1e-5
        config = make_pair.shape_of(str(size))

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make = [sys.executable, make_pair.__file__, partial, "F16", str(size), "--additive"]
    subprocess.run(make, check=True)
    lift_norms(partial)
    state = rewrite_bin(partial, config)
    write_old(partial / "old", state)
    write_meta(partial / "meta", state, config)
    partial.rename(folder)


if __name__ == "__main__":
    main()
