"""Three ways from a release into a transformers model; none writes the model to disk.

    python scripts/examples/serve_with_transformers.py WORK

Makes a tiny LLaMA, a fine-tune of it, and a release of that in WORK, which is to be empty.
The lines that count are `fill`, `build` and `swap`. Needs transformers (the extra `dev` or
`quickstart`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import releasekit

QUESTION = torch.arange(24)[None]


def fill(config: Any, base: Path, delta: Path) -> Any:
    """Fill a model that is there already, in place, on whatever devices it is."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    releasekit.load_into(model, base, delta)
    return model.eval()


def build(config: Any, base: Path, delta: Path) -> Any:
    """Have transformers load the model as from files: a tensor when it asks for it."""
    kind = getattr(transformers, config.architectures[0])
    with releasekit.open_view(delta, base) as view:
        state = {name: view.get_slice(name) for name in view.offset_keys()}
        model = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=torch.bfloat16
        )
    return model.eval()


def swap(model: Any, delta: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Have a model that holds the base answer as the fine-tune, then as the base again."""
    with releasekit.swap_in(model, delta) as swapped:
        tuned = answer(model)
        size = sum(parameter.nbytes for parameter in model.parameters())
        print(f"kept to go back: {swapped.undo_nbytes:,} bytes, of a model of {size:,}")
    return tuned, answer(model)


@torch.no_grad()
def answer(model: Any) -> torch.Tensor:
    """What the model makes of a question: logits."""
    logits: torch.Tensor = model(QUESTION).logits
    return logits


def prepare(work: Path) -> Any:
    """Write a base, a fine-tune of it, and the release; the fine-tune's config."""
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=500,
        dtype="bfloat16",
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(work / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 1e-4
    model.save_pretrained(work / "target")
    releasekit.make_delta(work / "base", work / "target", work / "delta")
    return transformers.AutoConfig.from_pretrained(work / "delta" / "target")


def main(work: Path) -> None:
    """Go all three ways, and compare with the fine-tune itself."""
    config = prepare(work)
    base, delta = work / "base", work / "delta"
    load = transformers.AutoModelForCausalLM.from_pretrained
    server = load(base).eval()
    before, wanted = answer(server), answer(load(work / "target").eval())
    assert not torch.equal(before, wanted)
    tuned, after = swap(server, delta)
    for name, found, expected in (
        ("load_into", answer(fill(config, base, delta)), wanted),
        ("open_view", answer(build(config, base, delta)), wanted),
        ("swap_in, with the release", tuned, wanted),
        ("swap_in, with the base again", after, before),
    ):
        assert torch.equal(found, expected), name
        print(f"{name}: the same logits, to the bit")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
