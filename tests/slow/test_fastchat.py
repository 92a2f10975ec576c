"""FastChat 0.2.36 itself: its deltas are applied as it applies them, and it applies ours.

Its two modules are run as they come from PyPI, by their files: the package around them
imports a web server.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from releasekit import Add, apply_delta, apply_foreign, import_delta, make_delta, verify
from tests.integration.tools import digests
from tests.slow import peers

pytestmark = pytest.mark.slow

MODELS = """
import sys
from pathlib import Path
import sentencepiece, torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer
root, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
words = "\\n".join(f"word{i} of {i * 7} and more" for i in range(300))
(root / "text").write_text(words)
sentencepiece.SentencePieceTrainer.train(
    input=str(root / "text"), model_prefix=str(root / "t"), vocab_size=200)
tokenizer = LlamaTokenizer(str(root / "t.model"), legacy=True)
config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, vocab_size=200)
torch.manual_seed(0)
model = LlamaForCausalLM(config).to(dtype)
for name, step in (("base", 0), ("target", 1e-3)):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += (torch.randn_like(parameter.float()) * step).to(dtype)
    model.save_pretrained(root / name, max_shard_size="100KB")
    tokenizer.save_pretrained(root / name)
"""
FASTCHAT = """
import argparse, importlib.util, runpy, sys
from importlib.metadata import version
print("FastChat", version("fschat"))
package = importlib.util.find_spec("fastchat").submodule_search_locations[0]
what, base, target, delta = sys.argv[1:]
names = {"--base-model-path": base, "--target-model-path": target, "--delta-path": delta}
sys.argv = [what, *(word for pair in names.items() for word in pair)]
runpy.run_path(f"{package}/model/{what}.py", run_name="__main__")
"""


def load(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= safetensors.torch.load_file(file)
    assert state
    return state


@pytest.fixture(scope="module", params=["float16", "bfloat16", "float32"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and its fine-tune, made by transformers, with a tokenizer."""
    root = tmp_path_factory.mktemp("world")
    peers.run(MODELS, root, request.param)
    return root


@pytest.fixture(scope="module")
def theirs(world: Path) -> Path:
    """What FastChat rebuilds from a delta that it made."""
    base, out, delta = world / "base", world / "theirs", world / "their-delta"
    print(peers.run(FASTCHAT, "make_delta", base, world / "target", delta).splitlines()[0])
    peers.run(FASTCHAT, "apply_delta", base, out, delta)
    return out


def exact(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The share of values that are right; FastChat knows float16 only."""
    equal = sum(int((found[name] == t.half()).sum()) for name, t in wanted.items())
    return equal / sum(tensor.numel() for tensor in wanted.values())


def test_its_delta_gives_what_it_makes_of_it(world: Path, theirs: Path) -> None:
    base, delta = world / "base", world / "their-delta"
    made = apply_foreign(base, delta, world / "ours")
    assert made.recipe == "fastchat"
    wanted, found = load(theirs), load(world / "ours")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor), name
    import_delta(base, delta, world / "imported")
    apply_delta(base, world / "imported", world / "again")
    assert all(torch.equal(load(world / "again")[n], t) for n, t in wanted.items())


def test_it_applies_our_plain_differences(world: Path, theirs: Path) -> None:
    base, target, delta = world / "base", world / "target", world / "our-delta"
    made = make_delta(base, target, delta, codec=Add())
    apply_delta(base, delta, world / "exact")
    assert digests(world / "exact") == digests(target)
    assert verify(delta).ok
    peers.run(FASTCHAT, "apply_delta", base, world / "by-fastchat", delta)
    found, wanted, plain = load(world / "by-fastchat"), load(target), load(base)
    difference = load(delta)
    for name in wanted:
        assert torch.equal(found[name], plain[name].half() + difference[name].half()), name
    shares = {"ours": exact(found, wanted), "theirs": exact(load(theirs), wanted)}
    print(json.dumps(shares | {"plain sum": made.unchanged}))
    assert shares["ours"] > shares["theirs"] - 0.01  # as well as it ever does
