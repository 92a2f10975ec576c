"""Where in a model a tensor belongs, told by its name alone.

Names are as good as a standard: `model.layers.7.self_attn.q_proj.weight` says its layer,
its part and what it does, and so do those of GPT-NeoX, T5, BERT, and Meta's own. A name
that follows no habit has no layer and is of kind "other"; nothing fails on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """What a tensor does: its name in documents, and for people."""

    ATTENTION = ("attention", "Attention")
    MLP = ("mlp", "MLP")
    EXPERTS = ("experts", "Experts")
    NORM = ("norm", "Norms")
    EMBEDDING = ("embedding", "Embeddings")
    HEAD = ("head", "Head")
    OTHER = ("other", "Others")

    def __init__(self, label: str, title: str) -> None:
        self.label = label
        self.title = title


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor belongs.

    Attributes:
        stack: what its layers are numbered in, such as `model.layers`; "" outside.
        layer: the number of its layer; None outside.
        module: its name within the layer, the same in all layers: experts are not told
            apart, and `.weight` is left out.
        kind: what it does.
    """

    stack: str
    layer: int | None
    module: str
    kind: Kind


#: Segments whose number is that of a layer.
_STACKS: Final = re.compile(
    r"layers?|h|blocks?|resblocks|stages?|encoder|decoder|transformer", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_EXPERTS: Final = re.compile(r"experts?$|^experts?_", re.IGNORECASE)
_WEIGHTS: Final = frozenset(("weight", "kernel", "gamma"))

# In this order: the first that matches decides.
_HEAD: Final = re.compile(r"lm_head|embed_out|output_projection|(^|\.)head(\.|$)")
_NORM: Final = re.compile(r"norm|(^|[._])ln(_?[a-z0-9]+)?(\.|$)|(^|\.)bn\d*(\.|$)")
_MIXTURE: Final = re.compile(r"expert|(^|[._])moe([._]|$)|router")
_ATTENTION: Final = re.compile(
    r"att(entio)?n|(^|[._])[qkvo]_?proj|(^|[._])(qkv|w[qkvo]|query|key|value)([._]|$)"
)
_MLP: Final = re.compile(
    r"mlp|ffn|feed_?forward|denserelu|intermediate|(gate|up|down)_proj|dense_\w*h_to"
    r"|(^|[._])(fc|w|wi_|linear)_?\d([._]|$)|(^|[._])w[io]([._]|$)"
)
_EMBEDDING: Final = re.compile(r"embed|(^|[._])(wte|wpe|shared)([._]|$)")
_LAST: Final = re.compile(
    r"^(output|score|classifier|qa_outputs)(\.|$)|^cls\.|(^|\.)pooler(\.|$)"
)


def place(name: str) -> Place:
    """The place of the tensor of this name."""
    parts = name.split(".")
    if len(parts) > 1 and parts[-1] in _WEIGHTS:
        parts.pop()
    at = _layer(parts)
    own = parts if at is None else parts[at + 1 :]
    module = ".".join(
        "*"
        if _NUMBER.fullmatch(part) and index and _EXPERTS.search(own[index - 1])
        else part
        for index, part in enumerate(own)
    )
    return Place(
        stack="" if at is None else ".".join(parts[:at]),
        layer=None if at is None else int(parts[at]),
        module=module or parts[-1],
        kind=_kind(".".join(own).lower(), inside=at is not None),
    )


def _layer(parts: Sequence[str]) -> int | None:
    """Which part is the number of a layer."""
    numbers = [i for i, part in enumerate(parts) if i and _NUMBER.fullmatch(part)]
    for i in numbers:
        if _STACKS.fullmatch(parts[i - 1]):
            return i
    for i in numbers:
        if not _EXPERTS.search(parts[i - 1]):
            return i
    return None


def _kind(name: str, *, inside: bool) -> Kind:
    if not inside and _HEAD.search(name):
        return Kind.HEAD
    for kind, pattern in (
        (Kind.NORM, _NORM),
        (Kind.EXPERTS, _MIXTURE),
        (Kind.ATTENTION, _ATTENTION),
        (Kind.MLP, _MLP),
        (Kind.EMBEDDING, _EMBEDDING),
    ):
        if pattern.search(name):
            return kind
    if inside:
        # BERT's second half of an MLP has no name of its own.
        return Kind.MLP if name.startswith("output.") else Kind.OTHER
    return Kind.HEAD if _LAST.search(name) else Kind.OTHER
