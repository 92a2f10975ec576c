"""Meta's checkpoints are read as what transformers makes of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.meta import MetaCheckpoint, hf_config
from releasekit.tensors import DType
from tests.llama import Llama, Tensors, file_name, save

LABELS = {torch.float16: DType.F16, torch.bfloat16: DType.BF16, torch.float32: DType.F32}
NAMES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "tok_embeddings": "model.embed_tokens",
    "output": "lm_head",
}
MODELS = {
    "llama_1_one_file": Llama(dtype=torch.float16),
    "llama_1_two_files": Llama(parts=2, dtype=torch.float16),
    "llama_1_four_old_files": Llama(parts=4, dtype=torch.float16, zipped=False),
    "llama_1_eight_files": Llama(
        parts=8,
        dtype=torch.float16,
        freqs="layers.0.attention.inner_attention.rope.freqs",
    ),
    "llama_2_grouped": Llama(parts=4, heads=16, kv=4),
    "llama_2_grouped_old_files": Llama(parts=2, heads=16, kv=2, zipped=False),
    "llama_3_one_file": Llama(rows=True, kv=4, freqs=None),
    "llama_3_two_files": Llama(parts=2, rows=True, kv=2, freqs=None),
    "llama_3_eight_files": Llama(parts=8, rows=True, heads=16, kv=8, freqs=None),
    "tied": Llama(parts=2, rows=True, kv=4, tied=True, freqs=None),
    "one_head_of_keys": Llama(kv=1),
    "floats": Llama(parts=2, dtype=torch.float32),
    # More than a read takes at once.
    "large": Llama(parts=2, dim=1536, heads=12, kv=4, layers=1, ffn=2560, vocab=1000),
}


def converted(model: Llama) -> Tensors:
    """What transformers would hold: the formula of its converter, on whole tensors."""

    def permuted(tensor: torch.Tensor) -> torch.Tensor:
        rows, columns = tensor.shape
        heads = rows // model.head
        pairs = tensor.view(heads, rows // heads // 2, 2, columns)
        return pairs.transpose(1, 2).reshape(rows, columns)

    tensors = {}
    for name, tensor in model.whole().items():
        stem = name.removesuffix(".weight")
        layers, layer, rest = ("", "", stem)
        if stem.startswith("layers."):
            layers, layer, rest = stem.split(".", 2)
        to = NAMES.get(rest, f"model.{rest}")
        prefix = f"model.{layers}.{layer}." if layers else ""
        rotated = rest in ("attention.wq", "attention.wk")
        tensors[f"{prefix}{to}.weight"] = permuted(tensor) if rotated else tensor
    return tensors


def raw(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy().reshape(-1)


def files(parts: int) -> list[str]:
    return [file_name(number) for number in range(parts)]


def check(checkpoint: MetaCheckpoint, expected: Tensors) -> None:
    """Names, types, and bytes: of whole tensors, and of ranges."""
    assert set(checkpoint.specs) == set(expected)
    source = Random(5)
    for name, spec in checkpoint.specs.items():
        tensor = expected[name]
        data = raw(tensor)
        assert spec.name == name
        assert (spec.dtype, spec.shape) == (LABELS[tensor.dtype], tuple(tensor.shape))
        assert spec.nbytes == data.size
        whole = np.empty(data.size, np.uint8)
        checkpoint.read(name, 0, whole)
        assert np.array_equal(whole, data), name
        size, count = tensor.element_size(), tensor.numel()
        for _ in range(12):
            low, high = sorted(size * source.randint(0, count) for _ in range(2))
            part = np.empty(high - low, np.uint8)
            checkpoint.read(name, low, part)
            assert np.array_equal(part, data[low:high]), (name, low, high)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_tensors_are_those_of_transformers(tmp_path: Path, model: Llama) -> None:
    with open_checkpoint(model.save(tmp_path)) as checkpoint:
        assert isinstance(checkpoint, MetaCheckpoint)
        assert checkpoint.subject == str(tmp_path)
        check(checkpoint, converted(model))
        sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.pth")}
        assert checkpoint.file_sizes == dict(sorted(sizes.items()))
        assert list(checkpoint.file_sizes) == sorted(sizes)


def test_parameters_may_stand_under_model(tmp_path: Path) -> None:
    model = Llama(parts=2, said=(("n_kv_heads", None), ("use_scaled_rope", True)))
    model.save(tmp_path)
    params = (tmp_path / "params.json").read_text()
    (tmp_path / "params.json").write_text(f'{{"model": {params}, "seed": null}}')
    with MetaCheckpoint.open("it", tmp_path, files(2)) as checkpoint:
        assert checkpoint.subject == "it"
        assert checkpoint.params.n_kv_heads == 8
        assert checkpoint.params.use_scaled_rope
        check(checkpoint, converted(model))


def test_tensors_need_not_lie_end_to_end(tmp_path: Path) -> None:
    """In the first part all share one storage, in the second matrices lie transposed."""
    model = Llama(parts=2)
    model.save(tmp_path)
    first, second = model.cut()
    storage = torch.cat([tensor.reshape(-1) for tensor in first.values()])
    pieces = storage.split([tensor.numel() for tensor in first.values()])
    shared = {name: p.view_as(first[name]) for name, p in zip(first, pieces, strict=True)}
    save(shared, tmp_path / file_name(0))
    turned = {
        name: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor
        for name, tensor in second.items()
    }
    save(turned, tmp_path / file_name(1))
    with open_checkpoint(tmp_path) as checkpoint:
        assert isinstance(checkpoint, MetaCheckpoint)
        check(checkpoint, converted(model))


def test_copies_of_norms_may_differ(tmp_path: Path) -> None:
    """Training may let them drift apart: the first counts, as in the converter."""
    model = Llama(parts=2)
    model.save(tmp_path)
    second = model.cut()[1]
    second["norm.weight"] = second["norm.weight"] + 1
    save(second, tmp_path / file_name(1))
    with open_checkpoint(tmp_path) as checkpoint:
        assert isinstance(checkpoint, MetaCheckpoint)
        check(checkpoint, converted(model))


def test_tensors_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    model = Llama(parts=2)
    model.save(tmp_path)
    for number, part in enumerate(model.cut()):
        names = sorted(part, reverse=True)
        save({name: part[name] for name in names}, tmp_path / file_name(number))
    with open_checkpoint(tmp_path) as checkpoint:
        names = list(checkpoint.specs)
    assert names[:3] == [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
    ]
    assert names[3] == "model.layers.1.post_attention_layernorm.weight"


def test_home_names_the_files(tmp_path: Path) -> None:
    with open_checkpoint(Llama(parts=4).save(tmp_path / "four")) as checkpoint:
        assert checkpoint.home("lm_head.weight") == f"{file_name(0)} to {file_name(3)}"
        assert checkpoint.home("model.norm.weight") == file_name(0)
    with open_checkpoint(Llama().save(tmp_path / "one")) as checkpoint:
        assert checkpoint.home("lm_head.weight") == file_name(0)


def test_the_config_says_what_is_known(tmp_path: Path) -> None:
    model = Llama(parts=2, heads=16, kv=4, dtype=torch.float16)
    expected = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 96,
        "model_type": "llama",
        "num_attention_heads": 16,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": 48,
    }
    with MetaCheckpoint.open("", model.save(tmp_path), files(2)) as checkpoint:
        config = hf_config(checkpoint.params, checkpoint.specs)
    assert config == expected
    assert list(config) == sorted(config)


def test_the_config_of_llama_3(tmp_path: Path) -> None:
    said = (("rope_theta", 500000), ("vocab_size", 48), ("use_scaled_rope", True))
    model = Llama(rows=True, kv=2, tied=True, said=said)
    state = model.cut()[0]
    state["norm.weight"] = state["norm.weight"].float()
    model.save(tmp_path)
    save(state, tmp_path / file_name(0))
    with MetaCheckpoint.open("", tmp_path, files(1)) as checkpoint:
        config = hf_config(checkpoint.params, checkpoint.specs)
        assert checkpoint.params.vocab_size == 48
    assert config["rope_theta"] == 500000.0
    assert config["tie_word_embeddings"] is True
    assert "torch_dtype" not in config  # there are two
    assert "rope_scaling" not in config  # its factors are not said


def test_heads_of_another_size(tmp_path: Path) -> None:
    """None of Meta's has them, but others write its format too."""
    model = Llama(parts=2, kv=2, head_dim=4)
    with MetaCheckpoint.open("", model.save(tmp_path), files(2)) as checkpoint:
        check(checkpoint, converted(model))
        config = hf_config(checkpoint.params, checkpoint.specs)
    assert checkpoint.specs["model.layers.0.self_attn.q_proj.weight"].shape == (32, 64)
    assert config["head_dim"] == 4
