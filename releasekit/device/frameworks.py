"""Tensors as a framework has them, torch or numpy, made of bytes: for loaders of files.

The names are those of `safetensors.safe_open`, and so are the errors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from releasekit.errors import UsageError
from releasekit.names import shown
from releasekit.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

_TORCH: Final = ("pt", "torch", "pytorch")
_NUMPY: Final = ("np", "numpy")
#: numpy's names of the dtypes, where it has one.
_NUMPY_DTYPES: Final = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "C64": "<c8",
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
}


class ViewError(UsageError, SafetensorError):
    """What a view has not, or cannot do; also safetensors' error, which loaders catch."""


class Framework(Protocol):
    """How a framework has its tensors."""

    def require(self, spec: TensorSpec) -> None:
        """Refuse what it has no dtype for, as UsageError."""

    def seen(
        self, data: NDArray[np.uint8], spec: TensorSpec, shape: tuple[int, ...]
    ) -> Any:
        """Bytes as a tensor of that dtype, on the host, without a copy."""

    def empty(self, like: Any, rows: int) -> Any:
        """A new tensor on the host, with other rows than one that there is."""

    def hand_over(self, tensor: Any) -> Any:
        """The tensor, where the caller wants it."""


class Torch:
    """Tensors of torch; see `Framework`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def require(self, spec: TensorSpec) -> None:
        """Refuse what torch has no dtype for, as UsageError."""
        from releasekit.device.tensors import dtype_and_shape

        dtype_and_shape(spec)

    def seen(
        self, data: NDArray[np.uint8], spec: TensorSpec, shape: tuple[int, ...]
    ) -> torch.Tensor:
        """Bytes as a tensor."""
        import torch

        from releasekit.device.tensors import dtype_and_shape

        dtype, sizes = dtype_and_shape(replace(spec, shape=shape))
        if not data.size:  # which torch does not see as another dtype
            return torch.empty(sizes, dtype=dtype)
        return torch.from_numpy(data).view(dtype).view(sizes)

    def empty(self, like: torch.Tensor, rows: int) -> torch.Tensor:
        """A new tensor like one that there is, with other rows."""
        return like.new_empty((rows, *like.shape[1:]))

    def hand_over(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, on the device."""
        return tensor.to(self._device)


class Numpy:
    """Arrays of numpy; see `Framework`."""

    def require(self, spec: TensorSpec) -> None:
        """Refuse what numpy has no dtype for, as ViewError."""
        if spec.dtype.label not in _NUMPY_DTYPES:
            raise ViewError(
                f"tensor {shown(spec.name)}: numpy has no dtype for {spec.describe()}: "
                'open the view with framework="pt"'
            )

    def seen(
        self, data: NDArray[np.uint8], spec: TensorSpec, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Bytes as an array."""
        return data.view(_NUMPY_DTYPES[spec.dtype.label]).reshape(shape)

    def empty(self, like: NDArray[Any], rows: int) -> NDArray[Any]:
        """A new array like one that there is, with other rows."""
        return np.empty((rows, *like.shape[1:]), like.dtype)

    def hand_over(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """The array as it is."""
        return tensor


def framework_of(name: str, device: str | int | torch.device) -> Framework:
    """How a caller wants tensors; UsageError if there is no such framework or device."""
    if name in _TORCH:
        from releasekit.device.tensors import usable

        return Torch(usable(f"cuda:{device}" if isinstance(device, int) else device))
    if name not in _NUMPY:
        raise ViewError(f'framework: expected "pt" or "np", found {name!r}')
    if str(device) != "cpu":
        raise ViewError(f'device: expected "cpu" for numpy, found {str(device)!r}')
    return Numpy()
