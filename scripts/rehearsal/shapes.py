"""LLaMA's shapes: those of the two releases, and smaller ones in the same proportions.

A model that is `k` times narrower keeps the ratios of its matrices, its tensors' names, and
how heads share keys; it has fewer layers. Figures are those of the models' own config.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from releasekit.tensors import DType, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A LLaMA; all but `epsilon` count elements, layers or heads."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    positions: int
    epsilon: float
    vocabulary: int = 32000

    def narrowed(self, k: int, layers: int) -> Shape:
        """One that is `k` times narrower; of eight heads at least, which may share keys."""
        heads = max(8, self.heads // k)
        return replace(
            self,
            hidden=self.hidden // k,
            ffn=self.ffn // k,
            vocabulary=self.vocabulary // k,
            layers=layers,
            heads=heads,
            kv_heads=heads * self.kv_heads // self.heads,
        )

    def specs(self, dtype: DType) -> tuple[TensorSpec, ...]:
        """Its tensors, as transformers names them."""
        return tuple(
            TensorSpec(name=name, dtype=dtype, shape=shape)
            for name, shape in self._shapes()
        )

    def nbytes(self, dtype: DType) -> int:
        """Bytes of its tensors."""
        return sum(spec.nbytes for spec in self.specs(dtype))

    def config(self, torch_dtype: str) -> dict[str, object]:
        """What stands in its config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.ffn,
            "max_position_embeddings": self.positions,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.epsilon,
            "tie_word_embeddings": False,
            "torch_dtype": torch_dtype,
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, keys = self.hidden, self.hidden // self.heads * self.kv_heads
        yield "model.embed_tokens.weight", (self.vocabulary, hidden)
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            yield f"{at}.self_attn.q_proj.weight", (hidden, hidden)
            yield f"{at}.self_attn.k_proj.weight", (keys, hidden)
            yield f"{at}.self_attn.v_proj.weight", (keys, hidden)
            yield f"{at}.self_attn.o_proj.weight", (hidden, hidden)
            yield f"{at}.mlp.gate_proj.weight", (self.ffn, hidden)
            yield f"{at}.mlp.up_proj.weight", (self.ffn, hidden)
            yield f"{at}.mlp.down_proj.weight", (hidden, self.ffn)
            yield f"{at}.input_layernorm.weight", (hidden,)
            yield f"{at}.post_attention_layernorm.weight", (hidden,)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (self.vocabulary, hidden)


_65B: Final = Shape(
    hidden=8192,
    ffn=22016,
    layers=80,
    heads=64,
    kv_heads=64,
    positions=2048,
    epsilon=1e-5,
)
_70B: Final = replace(_65B, ffn=28672, kv_heads=8, positions=4096)
_7B: Final = replace(_65B, hidden=4096, ffn=11008, layers=32, heads=32, kv_heads=32)

TINY: Final = "tiny"
SMALL: Final = "small"  # what `TRUE` measures
GIGABYTE: Final = "1gb"
SEVEN: Final = "7b"
TRUE: Final = "65b"
SCALES: Final = (TINY, GIGABYTE, SEVEN, TRUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A release that can be rehearsed.

    Attributes:
        name: its folder among the recipes.
        title: what its model is called.
        repo: its name on the Hub.
        base_id: that of its base.
        target: where its recipe has the fine-tune.
        true: its shape.
        seven: that of the same family's 7B model.
        layers: of a pair of about 1 GB.
        is_delta: whether a delta is published, else full weights.
        base_dtype: of the base.
        dtype: of the fine-tune.
        trained: the dtype whose values the fine-tune holds.
        torch_dtype: what its config.json calls `dtype`.
        texts: what lies beside the base's weights, and what it stands in for.
    """

    name: str
    title: str
    repo: str
    base_id: str
    target: str
    true: Shape
    seven: Shape
    layers: int
    is_delta: bool
    base_dtype: DType
    dtype: DType
    trained: DType
    torch_dtype: str
    texts: dict[str, str]

    def shape(self, scale: str) -> Shape:
        """Its shape at a scale."""
        few = 2 if self.is_delta else 1
        narrower = {TINY: (32, 4), SMALL: (8, few), GIGABYTE: (4, self.layers)}
        if scale in narrower:
            return self.true.narrowed(*narrower[scale])
        return self.seven if scale == SEVEN else self.true

    def nbytes(self, scale: str) -> tuple[int, int]:
        """Bytes of the weights of base and fine-tune."""
        shape = self.shape(scale)
        return shape.nbytes(self.base_dtype), shape.nbytes(self.dtype)


SUBJECTS: Final = {
    "freewilly1": Subject(
        name="freewilly1",
        title="FreeWilly1",
        repo="stabilityai/FreeWilly1-Delta-SafeTensor",
        base_id="huggyllama/llama-65b",
        target="FreeWilly1",
        true=_65B,
        seven=replace(_7B, epsilon=1e-6),
        layers=4,
        is_delta=True,
        base_dtype=DType.F16,
        dtype=DType.F16,
        trained=DType.F16,
        torch_dtype="float16",
        texts={"LICENSE": "the LLaMA licence"},
    ),
    "freewilly2": Subject(
        name="freewilly2",
        title="FreeWilly2",
        repo="stabilityai/FreeWilly2",
        base_id="meta-llama/Llama-2-70b-hf",
        target="FreeWilly2-checkpoint",
        true=_70B,
        seven=replace(_7B, positions=4096),
        layers=3,
        is_delta=False,
        base_dtype=DType.F16,
        dtype=DType.F32,
        trained=DType.BF16,
        torch_dtype="float32",
        texts={
            "LICENSE.txt": "the Llama 2 Community License Agreement",
            "USE_POLICY.md": "the Llama 2 Acceptable Use Policy",
        },
    ),
}
