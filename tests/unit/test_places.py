"""Where tensors belong, by the names that libraries and papers give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.statistics.places import Kind, place

NAMES = {
    # LLaMA, Qwen, and Meta's own names
    "model.layers.7.self_attn.q_proj.weight": (7, "self_attn.q_proj", Kind.ATTENTION),
    "model.layers.7.self_attn.q_norm.weight": (7, "self_attn.q_norm", Kind.NORM),
    "model.layers.0.input_layernorm.weight": (0, "input_layernorm", Kind.NORM),
    "model.layers.0.mlp.down_proj.weight": (0, "mlp.down_proj", Kind.MLP),
    "model.embed_tokens.weight": (None, "model.embed_tokens", Kind.EMBEDDING),
    "model.norm.weight": (None, "model.norm", Kind.NORM),
    "lm_head.weight": (None, "lm_head", Kind.HEAD),
    "layers.3.attention.wq.weight": (3, "attention.wq", Kind.ATTENTION),
    "layers.3.feed_forward.w1.weight": (3, "feed_forward.w1", Kind.MLP),
    "layers.3.ffn_norm.weight": (3, "ffn_norm", Kind.NORM),
    "tok_embeddings.weight": (None, "tok_embeddings", Kind.EMBEDDING),
    "output.weight": (None, "output", Kind.HEAD),
    # experts
    "model.layers.2.block_sparse_moe.experts.3.w1.weight": (
        *(2, "block_sparse_moe.experts.*.w1", Kind.EXPERTS),
    ),
    "model.layers.2.block_sparse_moe.gate.weight": (
        *(2, "block_sparse_moe.gate", Kind.EXPERTS),
    ),
    "model.layers.2.mlp.experts.63.up_proj.weight": (
        *(2, "mlp.experts.*.up_proj", Kind.EXPERTS),
    ),
    "model.layers.2.mlp.shared_expert.up_proj.weight": (
        *(2, "mlp.shared_expert.up_proj", Kind.EXPERTS),
    ),
    # GPT-NeoX, GPT-2
    "gpt_neox.layers.1.attention.query_key_value.bias": (
        *(1, "attention.query_key_value.bias", Kind.ATTENTION),
    ),
    "gpt_neox.layers.1.mlp.dense_h_to_4h.weight": (1, "mlp.dense_h_to_4h", Kind.MLP),
    "gpt_neox.embed_in.weight": (None, "gpt_neox.embed_in", Kind.EMBEDDING),
    "embed_out.weight": (None, "embed_out", Kind.HEAD),
    "transformer.h.11.ln_1.weight": (11, "ln_1", Kind.NORM),
    "h.11.mlp.c_fc.bias": (11, "mlp.c_fc.bias", Kind.MLP),
    "wte.weight": (None, "wte", Kind.EMBEDDING),
    # T5
    "encoder.block.4.layer.0.SelfAttention.q.weight": (
        *(4, "layer.0.SelfAttention.q", Kind.ATTENTION),
    ),
    "decoder.block.4.layer.1.EncDecAttention.o.weight": (
        *(4, "layer.1.EncDecAttention.o", Kind.ATTENTION),
    ),
    "encoder.block.4.layer.1.DenseReluDense.wi_0.weight": (
        *(4, "layer.1.DenseReluDense.wi_0", Kind.MLP),
    ),
    "encoder.block.4.layer.1.layer_norm.weight": (4, "layer.1.layer_norm", Kind.NORM),
    "shared.weight": (None, "shared", Kind.EMBEDDING),
    # BERT, also inside sentence-transformers
    "encoder.layer.5.attention.self.query.weight": (
        *(5, "attention.self.query", Kind.ATTENTION),
    ),
    "encoder.layer.5.attention.output.LayerNorm.weight": (
        *(5, "attention.output.LayerNorm", Kind.NORM),
    ),
    "0.auto_model.encoder.layer.5.output.dense.bias": (5, "output.dense.bias", Kind.MLP),
    "embeddings.word_embeddings.weight": (
        *(None, "embeddings.word_embeddings", Kind.EMBEDDING),
    ),
    "pooler.dense.weight": (None, "pooler.dense", Kind.HEAD),
    # others
    "w": (None, "w", Kind.OTHER),
    "blk.0.x": (0, "x", Kind.OTHER),
    "conv1.weight": (None, "conv1", Kind.OTHER),
    "layers.99999999999999999999.w": (None, "layers.99999999999999999999.w", Kind.OTHER),
    "layers.٣.w": (None, "layers.٣.w", Kind.OTHER),
    "....": (None, "....", Kind.OTHER),
    "weight": (None, "weight", Kind.OTHER),
    "layers.1.weight": (1, "1", Kind.OTHER),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_known_models_are_placed(name: str) -> None:
    found = place(name)
    assert (found.layer, found.module, found.kind) == NAMES[name]


def test_layers_are_numbered_in_stacks() -> None:
    assert place("encoder.block.4.layer.0.SelfAttention.q.weight").stack == "encoder.block"
    assert place("model.layers.7.self_attn.q_proj.weight").stack == "model.layers"
    assert place("lm_head.weight").stack == ""


@given(st.text(min_size=1))
def test_any_name_has_a_place(name: str) -> None:
    found = place(name)
    assert found.module
    assert (found.layer is None) == (found.stack == "")
