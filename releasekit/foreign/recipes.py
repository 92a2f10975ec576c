"""How the publishers' own scripts add a delta to its base.

Each recipe is the arithmetic of one of them, from its source:

    fastchat  `param.data += delta` in float16, over all tensors (lm-sys/FastChat,
              `fastchat/model/apply_delta.py`; so are Vicuna, StableVicuna, FreeWilly1).
              Where the delta has more rows than the base, the base's are zeros, as the
              first versions of that script made them for a [PAD] token.
    llava     the same in float16; the embedding and the head may have more rows, and
              tensors that only the delta has are the result's (haotian-liu/LLaVA,
              `llava/model/apply_delta.py`).
    alpaca    in float32; rows that the base lacks are the mean of those that it has
              (tatsu-lab/stanford_alpaca, `weight_diff.py recover`, and `train.py`).
    xor       not numbers at all: each file is the exclusive or of the target's bytes and
              the base's (Open-Assistant, Pygmalion: `xor_codec.py`).

They say "add in float16" and mean: round both to float16, then add and round once more.
That is the order `cast-add`; `add-cast` adds in float32 and rounds once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from releasekit.errors import UsageError
from releasekit.tensors import DType

AUTO: Final = "auto"
XOR: Final = "xor"


class Order(Enum):
    """When values are rounded to the result's dtype."""

    CAST_ADD = "cast-add"
    ADD_CAST = "add-cast"


class Rows(Enum):
    """What stands for the rows that the base lacks."""

    ZEROS = "as zeros"
    MEAN = "as the mean of its rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The arithmetic of a publisher's script.

    Attributes:
        name: what the command line calls it.
        dtype: of the sum and of the result, for floats.
        order: when values are rounded to it.
        rows: what stands for the rows that the base lacks.
    """

    name: str
    dtype: DType
    order: Order = Order.CAST_ADD
    rows: Rows = Rows.ZEROS

    def changed(self, dtype: DType | None, order: str | None) -> Recipe:
        """The recipe with what the user wants otherwise; UsageError if there is none."""
        recipe = self if dtype is None else replace(self, dtype=dtype)
        if order is None:
            return recipe
        names = [known.value for known in Order]
        if order not in names:
            raise UsageError(f"order {order}: expected one of {', '.join(names)}")
        return replace(recipe, order=Order(order))


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="fastchat", dtype=DType.F16),
        Recipe(name="llava", dtype=DType.F16),
        Recipe(name="alpaca", dtype=DType.F32, rows=Rows.MEAN),
    )
}
