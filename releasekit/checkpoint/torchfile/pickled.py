"""What the names in PyTorch's pickles stand for, and what is said of other names.

Nothing is imported: a name that a state dict needs stands for a value of ours, and a call
of one is noted, not made. Of the names that other files hold, some say what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from releasekit.names import shown
from releasekit.tensors import DType


@dataclass(frozen=True, slots=True)
class Storage:
    """An array of numbers that tensors are views of.

    Attributes:
        key: what the file calls it.
        dtype: of its elements.
        numel: how many there are.
    """

    key: str
    dtype: DType
    numel: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.bits // 8


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A call that would make a tensor: the function's name, and what it would be given."""

    function: str
    arguments: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """A function or class that a state dict needs. It is never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages, by the dtype of their elements."""

    dtype: DType


class Ordered(dict[object, object]):
    """An OrderedDict, whose attributes do not matter."""

    __slots__ = ()


def kind_of(value: object) -> str:
    """What a value is, for messages; its contents are not looked at."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {shown(value, 60)}"
    if isinstance(value, tuple | list | dict):
        kind = "dict" if isinstance(value, dict) else type(value).__name__
        return f"a {kind} of {len(value)}"
    if isinstance(value, Rebuild):
        return "a tensor"
    if isinstance(value, Storage):
        return "a storage without a tensor"
    if isinstance(value, DType):
        return f"the dtype {value.label}"
    return f"the name {shown(value.name)}" if isinstance(value, Name) else "a storage type"


V3: Final = range(7, 9)  # the last but one is the dtype
#: Functions that make a tensor, and how many arguments: storage, offset, shape, strides,
#: whether it has gradients, hooks; and at the end bits that are seldom there.
TENSORS: Final = {
    "torch._utils._rebuild_tensor": range(4, 5),
    "torch._utils._rebuild_tensor_v2": range(6, 8),
    "torch._utils._rebuild_tensor_v3": V3,
}
#: Functions that make a parameter of a tensor, and how many arguments.
PARAMETERS: Final = {
    "torch._utils._rebuild_parameter": 3,
    "torch._utils._rebuild_parameter_with_state": 4,
}
#: Functions that call another and set the result's class and attributes.
TYPED: Final = (
    "torch._tensor._rebuild_from_type_v2",
    "torch._tensor._rebuild_from_type",
    "torch.tensor._rebuild_from_type",  # before PyTorch 1.9
)
PLAIN: Final = (Name("torch.Tensor"), Name("torch.nn.parameter.Parameter"))
_STORAGES: Final = {
    "torch.DoubleStorage": DType.F64,
    "torch.FloatStorage": DType.F32,
    "torch.HalfStorage": DType.F16,
    "torch.BFloat16Storage": DType.BF16,
    "torch.ComplexFloatStorage": DType.C64,
    "torch.LongStorage": DType.I64,
    "torch.IntStorage": DType.I32,
    "torch.ShortStorage": DType.I16,
    "torch.CharStorage": DType.I8,
    "torch.ByteStorage": DType.U8,
    "torch.BoolStorage": DType.BOOL,
    "torch.UntypedStorage": DType.U8,
    "torch.storage.UntypedStorage": DType.U8,
}
_DTYPES: Final = {
    "torch.float64": DType.F64,
    "torch.float32": DType.F32,
    "torch.float16": DType.F16,
    "torch.bfloat16": DType.BF16,
    "torch.float8_e4m3fn": DType.F8_E4M3,
    "torch.float8_e4m3fnuz": DType.F8_E4M3FNUZ,
    "torch.float8_e5m2": DType.F8_E5M2,
    "torch.float8_e5m2fnuz": DType.F8_E5M2FNUZ,
    "torch.float8_e8m0fnu": DType.F8_E8M0,
    "torch.complex64": DType.C64,
    "torch.int64": DType.I64,
    "torch.int32": DType.I32,
    "torch.int16": DType.I16,
    "torch.int8": DType.I8,
    "torch.uint64": DType.U64,
    "torch.uint32": DType.U32,
    "torch.uint16": DType.U16,
    "torch.uint8": DType.U8,
    "torch.bool": DType.BOOL,
}
ORDERED: Final = Name("collections.OrderedDict")
SIZE: Final = Name("torch.Size")
DEVICE: Final = Name("torch.device")
CALLED: Final = frozenset((*TENSORS, *PARAMETERS, *TYPED))
NAMES: Final[dict[str, object]] = {
    **{name: StorageType(dtype) for name, dtype in _STORAGES.items()},
    **_DTYPES,
    **{value.name: value for value in (ORDERED, SIZE, DEVICE, *PLAIN)},
    **{name: Name(name) for name in CALLED},
}


STATE_DICT: Final = "save the model's state_dict() alone"
_WARNING: Final = (
    "loading this file with pickle could run any code; nothing of it was run; get the "
    "model as safetensors, or from a source you trust"
)
_SUBCLASS: Final = ("tensors of a class of their own", "save plain tensors")
_NESTED: Final = ("nested tensors", "save their parts one by one")
_QUANTISED: Final = ("quantised tensors", "get the original weights")
#: Beginnings of names that say what a file holds; what that is, and what to do.
_KNOWN: Final = {
    "torch._utils._rebuild_qtensor": _QUANTISED,
    "torch.Q": _QUANTISED,
    "torch._utils._rebuild_sparse": ("sparse tensors", "save tensor.to_dense()"),
    "torch._utils._rebuild_nested": _NESTED,
    "torch.nested.": _NESTED,
    "torch._utils._rebuild_wrapper": _SUBCLASS,
    "torch._utils._rebuild_device": ("tensors of another device", "save tensor.cpu()"),
    "torch._utils._rebuild_meta": (
        "tensors on the device meta, which have no data",
        "save the model after its weights were loaded",
    ),
    "torch.nn.parameter.Uninit": (
        "parameters that have no values yet",
        "save the model after its weights were set",
    ),
    "torch.nn.": ("a whole module, which is code", STATE_DICT),
    "torch.fx.": ("a whole module, which is code", STATE_DICT),
    "torch.jit.": ("a TorchScript module, which is code", STATE_DICT),
    "numpy.": ("numpy's arrays or numbers", "save them as tensors, torch.from_numpy()"),
    "torch.ComplexDouble": (
        "complex numbers of 128 bits, for which safetensors has no dtype",
        "save real and imaginary parts on their own",
    ),
    "torch.float4_e2m1fn_x2": (
        "pairs of 4-bit floats, which safetensors counts one by one",
        "save tensor.view(torch.uint8)",
    ),
}
_HARMLESS: Final = ("torch._utils._rebuild_", "torch.Q", "torch.ComplexD", "torch.float")


def refused(name: str, *, classes: bool = False) -> str:
    """Says why a file is refused that holds a name which is not in `NAMES`.

    Args:
        name: the name, with its module.
        classes: whether it stands where the class of a tensor does.
    """
    known = [words for start, words in _KNOWN.items() if name.startswith(start)]
    if known or classes:
        what, step = known[0] if known else _SUBCLASS
        # What makes a tensor is harmless. In a whole package there is also what is not.
        warning = "" if known and name.startswith(_HARMLESS) else f"; {_WARNING}"
        return f"expected plain tensors, found {what} ({shown(name)}): {step}{warning}"
    return f"names {shown(name)}, which is no part of a state dict of tensors; {_WARNING}"


def refused_maker(opcode: str) -> str:
    """Says why a file is refused that makes an object by an opcode."""
    return f"makes an object ({opcode}), which is no tensor; {_WARNING}"
