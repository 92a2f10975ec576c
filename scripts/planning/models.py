"""Models whose plans stand in the README: the tensors of their published checkpoints.

Figures are those of the models' own config.json. LLaMA 7B, 65B and 70B are also rehearsed,
and share their shapes with that; Llama 3.1 405B is of the same kind. DeepSeek-V3 is FP8
weights with a scale for each block of 128 × 128, and 256 experts a layer; its checkpoint
has one layer more than the 61 that predict the next token: it predicts the one after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from releasekit.tensors import DType, TensorSpec
from scripts.rehearsal.shapes import SEVEN, SUBJECTS, TRUE

_BLOCK: Final = 128  # rows and columns that one scale is for
_HIDDEN: Final = 7168
_VOCABULARY: Final = 129280
_HEADS: Final = 128
_LAYERS: Final = 61
_DENSE: Final = 3  # of the layers have one MLP for all tokens
_EXPERTS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model, and how its fine-tune lies on the disk.

    Attributes:
        name: what the table calls it.
        specs: its tensors.
        shard_nbytes: most bytes of tensors in a weight file.
    """

    name: str
    specs: tuple[TensorSpec, ...]
    shard_nbytes: int = 5_000_000_000

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(spec.nbytes for spec in self.specs)


def models() -> tuple[Model, ...]:
    """All of them, the smallest first."""
    one, two = SUBJECTS["freewilly1"], SUBJECTS["freewilly2"]
    large = replace(
        two.true, hidden=16384, ffn=53248, layers=126, heads=128, vocabulary=128256
    )
    return (
        Model(name="7B", specs=one.shape(SEVEN).specs(DType.BF16)),
        Model(name="65B", specs=one.shape(TRUE).specs(DType.BF16)),
        Model(name="70B", specs=two.shape(TRUE).specs(DType.BF16)),
        Model(name="405B", specs=large.specs(DType.BF16)),
        # In 163 files, as it is published.
        Model(name="671B", specs=tuple(_deepseek()), shard_nbytes=4_300_000_000),
    )


def _deepseek() -> Iterator[TensorSpec]:
    yield _spec("model.embed_tokens.weight", _VOCABULARY, _HIDDEN)
    for layer in range(_LAYERS + 1):
        at = f"model.layers.{layer}"
        yield from _attention(f"{at}.self_attn")
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield _spec(f"{at}.{name}.weight", _HIDDEN)
        if layer < _DENSE:
            yield from _mlp(f"{at}.mlp", 18432)
            continue
        yield _spec(f"{at}.mlp.gate.weight", _EXPERTS, _HIDDEN)
        bias = f"{at}.mlp.gate.e_score_correction_bias"
        yield TensorSpec(name=bias, dtype=DType.F32, shape=(_EXPERTS,))
        for expert in range(_EXPERTS):
            yield from _mlp(f"{at}.mlp.experts.{expert}", 2048)
        yield from _mlp(f"{at}.mlp.shared_experts", 2048)
    last = f"model.layers.{_LAYERS}"
    yield _spec(f"{last}.embed_tokens.weight", _VOCABULARY, _HIDDEN)
    for name in ("enorm", "hnorm", "shared_head.norm"):
        yield _spec(f"{last}.{name}.weight", _HIDDEN)
    yield _spec(f"{last}.eh_proj.weight", _HIDDEN, 2 * _HIDDEN)
    yield _spec(f"{last}.shared_head.head.weight", _VOCABULARY, _HIDDEN)
    yield _spec("model.norm.weight", _HIDDEN)
    yield _spec("lm_head.weight", _VOCABULARY, _HIDDEN)


def _attention(at: str) -> Iterator[TensorSpec]:
    """Multi-head latent attention: queries and keys by way of fewer dimensions."""
    queries, keys, turned, each = 1536, 512, 64, 128
    yield from _scaled(f"{at}.q_a_proj", queries, _HIDDEN)
    yield _spec(f"{at}.q_a_layernorm.weight", queries)
    yield from _scaled(f"{at}.q_b_proj", _HEADS * (each + turned), queries)
    yield from _scaled(f"{at}.kv_a_proj_with_mqa", keys + turned, _HIDDEN)
    yield _spec(f"{at}.kv_a_layernorm.weight", keys)
    yield from _scaled(f"{at}.kv_b_proj", _HEADS * 2 * each, keys)
    yield from _scaled(f"{at}.o_proj", _HIDDEN, _HEADS * each)


def _mlp(at: str, inner: int) -> Iterator[TensorSpec]:
    yield from _scaled(f"{at}.gate_proj", inner, _HIDDEN)
    yield from _scaled(f"{at}.up_proj", inner, _HIDDEN)
    yield from _scaled(f"{at}.down_proj", _HIDDEN, inner)


def _scaled(at: str, rows: int, columns: int) -> Iterator[TensorSpec]:
    shape = (rows, columns)
    yield TensorSpec(name=f"{at}.weight", dtype=DType.F8_E4M3, shape=shape)
    blocks = (-(-rows // _BLOCK), -(-columns // _BLOCK))
    yield TensorSpec(name=f"{at}.weight_scale_inv", dtype=DType.F32, shape=blocks)


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=DType.BF16, shape=shape)
