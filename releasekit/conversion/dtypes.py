"""What people call the float dtypes that a model may be converted to."""

from __future__ import annotations

from typing import Final

from releasekit.errors import UsageError
from releasekit.tensors import DType

#: Each by its name.
FLOATS: Final = {
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float32": DType.F32,
}
#: Instead of one of these: the smallest of them that holds every value.
SMALLEST: Final = "smallest"


def float_dtype(name: str | None) -> DType | None:
    """The dtype that people call so; UsageError if there is none."""
    if name is None:
        return None
    if name not in FLOATS:
        raise UsageError(f"dtype {name}: expected one of {', '.join(FLOATS)}")
    return FLOATS[name]


def dtype_name(dtype: DType) -> str:
    """What people call a float dtype."""
    return next(name for name, known in FLOATS.items() if known is dtype)
