"""`params.json`, in which Meta's LLaMA checkpoints say how their tensors are built.

Fields that are not needed here are Meta's business. A field that is `null` counts as
absent: that is how the defaults of Meta's code look when they are written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError
from releasekit.names import describe, shown

_MAX_NBYTES: Final = 1 << 20
#: Where it is not said, as for LLaMA 1 and 2.
_ROPE_THETA: Final = 10000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """What `params.json` says of a model.

    Attributes:
        dim: the model's width.
        n_layers: how many layers there are.
        n_heads: how many heads of attention.
        n_kv_heads: how many heads of keys and of values.
        head_dim: rows of a head.
        vocab_size: how many tokens; None if that is not said.
        norm_eps: the epsilon of the norms.
        rope_theta: the base of the rotary frequencies.
        use_scaled_rope: whether these are scaled, as from Llama 3.1 on; the factors are
            not said.
    """

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    vocab_size: int | None
    norm_eps: float
    rope_theta: float
    use_scaled_rope: bool


def read_params(path: Path) -> Params:
    """Read a `params.json`, whose parameters may stand under "model".

    Raises:
        FormatError: if it is no such document, or its numbers make no model.
    """
    with path.open("rb") as file:
        data = file.read(_MAX_NBYTES + 1)
    where, at = str(path), ""
    if len(data) > _MAX_NBYTES:
        raise FormatError(f"{where}: expected at most {_MAX_NBYTES} bytes")
    fields = strictjson.loads(data, where)
    if isinstance(fields, dict) and "model" in fields:
        fields, at = fields["model"], "model"
    if isinstance(fields, dict):
        fields = {key: value for key, value in fields.items() if value is not None}
    record = strictjson.Record(fields, where, at)
    assert isinstance(fields, dict)  # or it would have been refused
    where = f"{where}: {at}" if at else where
    dim = record.integer("dim", minimum=1)
    n_heads = record.integer("n_heads", minimum=1)
    n_kv_heads = record.optional_integer("n_kv_heads", minimum=1) or n_heads
    _check_multiple(where, "n_heads", n_heads, n_kv_heads, "n_kv_heads ")
    head_dim = record.optional_integer("head_dim", minimum=1)
    if head_dim is None:
        _check_multiple(where, "dim", dim, n_heads, "n_heads ")
        head_dim = dim // n_heads
    _check_multiple(where, "rows of a head", head_dim, 2)
    vocab_size = record.optional_integer("vocab_size", minimum=-1)
    return Params(
        dim=dim,
        n_layers=record.integer("n_layers", minimum=1),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        vocab_size=None if vocab_size == -1 else vocab_size,
        norm_eps=_number(where, "norm_eps", fields),
        rope_theta=_number(where, "rope_theta", {"rope_theta": _ROPE_THETA} | fields),
        use_scaled_rope=record.has("use_scaled_rope") and record.boolean("use_scaled_rope"),
    )


def _check_multiple(where: str, field: str, value: int, of: int, label: str = "") -> None:
    if value % of:
        raise FormatError(
            f"{where}: {field}: expected a multiple of {label}{of}, found {value}"
        )


def _number(where: str, key: str, fields: Mapping[str, object]) -> float:
    if key not in fields:
        raise FormatError(f"{where}: missing field {shown(key)}")
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise FormatError(
            f"{where}: {key}: expected a number above 0, found {describe(value)}"
        )
    return float(value)
