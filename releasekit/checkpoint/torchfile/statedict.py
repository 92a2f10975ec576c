"""The tensors of a state dict: what a pickle says of each, proved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from releasekit.checkpoint.torchfile.pickled import (
    PARAMETERS,
    PLAIN,
    STATE_DICT,
    TENSORS,
    TYPED,
    V3,
    Name,
    Rebuild,
    Storage,
    kind_of,
)
from releasekit.checkpoint.torchfile.pickles import Loaded
from releasekit.errors import FormatError
from releasekit.names import shown, tensor_name
from releasekit.tensors import DType

_MAX_RANK: Final = 64
_MAX_WRAPPERS: Final = 8
_MAX_NBYTES: Final = 2**63 - 1
_SAVE_ONLY: Final = "torch.save(torch.load(FILE, weights_only=True)[{}], NEW)"
_SAVE_TENSORS: Final = (
    "torch.save({k: v for k, v in torch.load(FILE, weights_only=True).items() "
    "if isinstance(v, torch.Tensor)}, NEW)"
)
#: Where training checkpoints keep the state dict of the model.
_USUAL_KEYS: Final = ("state_dict", "model_state_dict", "model", "module", "net", "params")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage. All its elements lie in it.

    Attributes:
        storage: what it is a view of.
        dtype: of its elements; a storage of bytes holds any.
        offset: of its first element in the storage, in elements of `dtype`.
        shape: sizes, outermost first.
        strides: from one element to the next in each dimension, in elements.
    """

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def state_dict(loaded: Loaded, where: str) -> dict[str, Tensor]:
    """The tensors that a pickle holds by name, each proved to lie in its storage.

    Args:
        loaded: the pickle.
        where: the file that it comes from; begins every message.

    Raises:
        FormatError: if it holds anything else.
    """
    value = loaded.value
    if not isinstance(value, dict):
        raise FormatError(
            f"{where}: expected a dict of tensors by name, found {kind_of(value)}: "
            f"{STATE_DICT}, torch.save(model.state_dict(), NEW)"
        )
    if not value:
        raise FormatError(f"{where}: holds no tensors: its state dict is empty")
    tensors = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise FormatError(
                f"{where}: expected names of tensors as the dict's keys, found "
                f"{kind_of(name)}: {STATE_DICT}"
            )
        if not isinstance(item, Rebuild):
            raise FormatError(
                f"{where}: expected nothing but tensors, but {shown(name)} is "
                f"{kind_of(item)}: {_advice(value, name)}"
            )
        tensor_name(name, where)
        try:
            tensors[name] = _tensor(item)
        except FormatError as error:
            raise FormatError(f"{where}: tensor {shown(name)}: {error}") from None
    return tensors


def _advice(value: dict[object, object], found: str) -> str:
    for key in (*_USUAL_KEYS, found):
        inner = value.get(key)
        if isinstance(inner, dict) and inner:
            return f"save the state dict alone, {_SAVE_ONLY.format(shown(key))}"
    return f"save the tensors alone, {_SAVE_TENSORS}"


# Tensors: `state_dict` puts file and name before the messages of what follows.


def _tensor(call: Rebuild) -> Tensor:
    """What a call would make, without parameters and attributes around it."""
    function, arguments = call.function, call.arguments
    for _ in range(_MAX_WRAPPERS):
        if function in PARAMETERS:
            if len(arguments) != PARAMETERS[function] or type(arguments[0]) is not Rebuild:
                raise FormatError("expected a parameter made of a tensor")
            function, arguments = arguments[0].function, arguments[0].arguments
        elif function in TYPED:
            if len(arguments) != 4 or type(arguments[0]) is not Name:
                raise FormatError("expected a function, a class, its arguments and a state")
            if not any(arguments[1] is plain for plain in PLAIN):
                raise FormatError(f"expected a plain tensor, found {kind_of(arguments[1])}")
            if type(arguments[2]) is not tuple:
                raise FormatError(f"expected arguments, found {kind_of(arguments[2])}")
            function, arguments = arguments[0].name, arguments[2]
        elif function in TENSORS:
            return _view(arguments, TENSORS[function])
        else:
            raise FormatError(f"expected a tensor, found a call of {shown(function)}")
    raise FormatError(f"expected a tensor, found {_MAX_WRAPPERS} wrappers around it")


def _view(arguments: Sequence[object], counts: range) -> Tensor:
    """The tensor that `_rebuild_tensor` and those after it make of their arguments."""
    if len(arguments) not in counts:
        raise FormatError(f"expected {counts[0]} arguments, found {len(arguments)}")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise FormatError(f"expected a storage, found {kind_of(storage)}")
    dtype = arguments[6] if counts is V3 else storage.dtype
    if not isinstance(dtype, DType):
        raise FormatError(f"expected a dtype, found {kind_of(dtype)}")
    if len(arguments) > counts[0]:
        _refuse_lazy(arguments[-1])
    if type(offset) is not int or offset < 0:
        raise FormatError(f"offset: expected 0 or more, found {kind_of(offset)}")
    sizes, steps = _sizes(shape, "shape"), _sizes(strides, "strides")
    if len(sizes) != len(steps):
        raise FormatError(f"expected {len(sizes)} strides, found {len(steps)}")
    itemsize = dtype.bits // 8
    if math.prod(size or 1 for size in sizes) * itemsize > _MAX_NBYTES:
        raise FormatError(
            f"shape: {dtype.label}{list(sizes)} overflows: more than {_MAX_NBYTES} bytes"
        )
    if 0 in sizes:
        return Tensor(storage, dtype, 0, sizes, steps)
    pairs = zip(sizes, steps, strict=True)
    end = offset + 1 + sum((size - 1) * step for size, step in pairs)
    if end * itemsize > storage.nbytes:
        raise FormatError(
            f"expected all elements in storage {shown(storage.key)} of {storage.nbytes} "
            f"bytes, found {dtype.label}{list(sizes)} with strides {list(steps)} from "
            f"element {offset} on, which ends at byte {end * itemsize}"
        )
    return Tensor(storage, dtype, offset, sizes, steps)


def _sizes(value: object, field: str) -> tuple[int, ...]:
    if type(value) is not tuple:
        raise FormatError(f"{field}: expected a tuple, found {kind_of(value)}")
    if len(value) > _MAX_RANK:
        raise FormatError(f"{field}: expected up to {_MAX_RANK}, found {len(value)}")
    for size in value:
        if type(size) is not int or size < 0:
            raise FormatError(f"{field}: expected 0 or more, found {kind_of(size)}")
    return value


def _refuse_lazy(metadata: object) -> None:
    """Refuse bits that say that the numbers are to be changed when they are read."""
    if not isinstance(metadata, dict):
        raise FormatError(f"metadata: expected a dict, found {kind_of(metadata)}")
    if metadata:
        raise FormatError(
            "is a conjugate or negative view, whose data is that of another tensor: save "
            "tensor.resolve_conj().resolve_neg()"
        )
