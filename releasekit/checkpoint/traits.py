"""What a few small reads tell of a checkpoint, whichever model it is.

Norms begin as ones, and training leaves them between about 0.1 and 2; of a difference
between two models they are around 0. They are small, and there are some in each layer. A
file that was reserved for a download which never came is full of zeros. And a quantised
model shows it in its config, or in its tensors' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from releasekit import strictjson
from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.derived import read_as
from releasekit.codec.formats import castable
from releasekit.errors import FormatError
from releasekit.names import shown
from releasekit.tensors import DType, TensorSpec

_CONFIG: Final = "config.json"
_MAX_CONFIG: Final = 1 << 20
#: How tensors are called that only a quantised checkpoint has, and what made it.
_QUANTISED: Final = {
    ".g_idx": "GPTQ",
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".scales": "GPTQ or AWQ",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    ".quant_map": "bitsandbytes",
}
#: What a config calls the methods.
_METHODS: Final = {"awq": "AWQ", "bitsandbytes": "bitsandbytes", "gptq": "GPTQ"}
_NORMS: Final = 8
_NBYTES: Final = 1 << 20
_BLANKS: Final = 16
_END_NBYTES: Final = 4096  # a whole number of any dtype's words


def sizes_of_norms(checkpoint: Checkpoint) -> dict[str, float]:
    """The mean absolute value of some norms' weights, spread over the model, by name."""
    norms = [spec for spec in checkpoint.specs.values() if _is_norm(spec)]
    some = norms[:: -(-len(norms) // _NORMS) or 1]
    return {spec.name: _mean_size(checkpoint, spec) for spec in some}


def is_blank(checkpoint: Checkpoint) -> bool:
    """Whether only zeros are found at both ends of some tensors, spread over the model."""
    specs = [spec for spec in checkpoint.specs.values() if spec.nbytes]
    ends = np.empty(_END_NBYTES, np.uint8)
    for spec in specs[:: -(-len(specs) // _BLANKS) or 1]:
        part = ends[: spec.nbytes]
        for start in (0, spec.nbytes - part.size):
            checkpoint.read(spec.name, start, part)
            if part.any():
                return False
    return bool(specs)


def quantisation(checkpoint: Checkpoint, unexpected: Iterable[str]) -> str | None:
    """In words, how a checkpoint's weights were quantised; None if they were not.

    Args:
        checkpoint: what to look at.
        unexpected: its tensors that a model in its place need not have.
    """
    names = [name for name in unexpected if name.endswith(tuple(_QUANTISED))]
    method = _quantised_with(checkpoint, names)
    if method is None:
        return None
    such = f"as {shown(names[0])} shows" if names else f"as its {_CONFIG} says"
    return (
        f"its weights are quantised with {method}, {such}: that rounded them, which cannot "
        "be undone; get the original weights, of 16 bits or more"
    )


def _quantised_with(checkpoint: Checkpoint, names: list[str]) -> str | None:
    section = config_beside(checkpoint).get("quantization_config")
    method = section.get("quant_method") if isinstance(section, dict) else None
    if isinstance(method, str):
        return _METHODS.get(method, shown(method))
    ends = (end for end in _QUANTISED if any(name.endswith(end) for name in names))
    return next((_QUANTISED[end] for end in ends), None)


def config_beside(checkpoint: Checkpoint) -> Mapping[str, object]:
    """The config of the model whose checkpoint this is; see `read_config`."""
    path = Path(checkpoint.subject)
    return read_config(path if path.is_dir() else path.parent)


def read_config(folder: Path) -> Mapping[str, object]:
    """A folder's `config.json`; nothing if there is none that can be read.

    It is only asked for hints, so one that is malformed is no fault.
    """
    path = folder / _CONFIG
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG:
        return {}
    try:
        found = strictjson.loads(path.read_bytes(), str(path))
    except FormatError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_norm(spec: TensorSpec) -> bool:
    return (
        "norm" in spec.name.lower()
        and not spec.name.endswith(".bias")
        and len(spec.shape) == 1
        and castable(spec.dtype, DType.F64)
        and 0 < spec.nbytes <= _NBYTES
    )


def _mean_size(checkpoint: Checkpoint, spec: TensorSpec) -> float:
    values = np.empty(spec.numel, np.float64)
    read_as(checkpoint, spec.name, 0, spec.numel, DType.F64, values.view(np.uint8))
    return float(np.abs(values).mean())
