"""Which dtypes can predict which: the facts about casts that need no compiled code."""

from __future__ import annotations

from typing import Final

from releasekit.tensors import DType

#: The name of the cast in a manifest. Whatever changes its result changes its name.
CAST_ID: Final = "float-rne-v1"

_FLOATS: Final = frozenset(
    {DType.F8_E4M3, DType.F8_E5M2, DType.F16, DType.BF16, DType.F32, DType.F64}
)


def castable(source: DType, target: DType) -> bool:
    """Whether `releasekit.codec.cast` takes `source` to `target`."""
    return source in _FLOATS and target in _FLOATS
