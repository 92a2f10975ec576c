"""The files that go with converted weights, which must say what has become of these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from releasekit.conversion.dtypes import FLOATS
from releasekit.manifest import SUMS
from releasekit.tensors import DType

CONFIG: Final = "config.json"
_MAX_CONFIG: Final = 1 << 20


def beside_as_written(
    root: Path, names: Iterable[str], dtype: DType | None
) -> dict[str, Path | bytes]:
    """Files that go with a model that is written anew: where they are, or what they hold.

    The config is told of another dtype, since loaders go by what it says. A list of digests
    is left out: it is of other files.
    """
    files: dict[str, Path | bytes] = {name: root / name for name in names if name != SUMS}
    config = root / CONFIG
    stated = next((name for name, known in FLOATS.items() if known is dtype), None)
    if CONFIG in files and stated and config.stat().st_size <= _MAX_CONFIG:
        files[CONFIG] = _with_dtype(config.read_bytes(), stated)
    return files


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """A config with another dtype; as it is if it is none, has none, or has that."""
    try:
        fields = json.loads(config)
    except (ValueError, RecursionError):  # the latter if it is nested deeply
        return config
    if not isinstance(fields, dict):
        return config
    named = {name: dtype for name in ("dtype", "torch_dtype") if name in fields}
    if named.items() <= fields.items():
        return config
    return packed(fields | named)


def packed(fields: Mapping[str, object]) -> bytes:
    """A config's fields as its file holds them."""
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
