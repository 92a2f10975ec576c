"""How a target tensor comes about: exactly one operation each.

The base's tensor of the same name serves as it is, or with a payload that corrects it; a
tensor without one is a payload alone; and a tensor whose bytes another has needs neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from releasekit.codec.formats import castable
from releasekit.tensors import TensorSpec


class Op(Enum):
    """How a target tensor comes about."""

    SAME = "same"  # the base's tensor of that name
    DELTA = "delta"  # the base's tensor plus a payload
    RESIZE = "resize"  # likewise, but with more or fewer rows than the base
    NEW = "new"  # a payload alone
    ALIAS = "alias"  # the bytes of another target tensor

    @property
    def has_payload(self) -> bool:
        """Whether the release holds bytes for the tensor."""
        return self in (Op.DELTA, Op.RESIZE, Op.NEW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The operation that makes one target tensor.

    Attributes:
        op: its kind.
        digest: BLAKE3 of the rebuilt tensor; for `same` the base's, for `alias` the
            source's.
        of: for `alias`, the target tensor whose bytes it shares.
    """

    op: Op
    digest: str
    of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTensor:
    """A tensor of the base, with the BLAKE3 digest of its bytes."""

    spec: TensorSpec
    digest: str


def is_buffer(name: str) -> bool:
    """Whether a tensor is one that model libraries compute, and once stored all the same.

    transformers up to 4.31 wrote `*.rotary_emb.inv_freq` for each layer, later ones do not;
    so one base has it and another, equal in all that counts, does not.
    """
    return name.endswith(".rotary_emb.inv_freq")


def count_operations(operations: Iterable[str]) -> dict[str, int]:
    """How often each operation occurs, 0 included; `dropped` base tensors count as one."""
    every = dict.fromkeys([*(op.value for op in Op), "dropped"], 0)
    return every | Counter(operations)


def fits(op: Op, base: TensorSpec | None, target: TensorSpec) -> str | None:
    """Why `op` cannot make `target` from `base`; None if it can."""
    if op in (Op.NEW, Op.ALIAS):
        return None
    if base is None:
        return "expected a tensor of that name in the base, found none"
    cast = base.dtype is not target.dtype
    if cast and (op is Op.SAME or not castable(base.dtype, target.dtype)):
        return f"expected a base of {target.dtype.label}, found {base.dtype.label}"
    rows = op is Op.RESIZE
    if rows and not (base.shape and target.shape and base.shape[0] != target.shape[0]):
        return f"expected other rows than {target.describe()}, found {base.describe()}"
    if base.shape[rows:] != target.shape[rows:]:
        return f"expected a base of {target.describe()}, found {base.describe()}"
    return None
