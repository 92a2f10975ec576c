"""Torch tensors as the place where chunks go.

On the CPU a chunk is made in the tensor's own memory, so nothing is copied. On a device it
is added up there, straight into the tensor, and comes back only to be hashed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from releasekit.device.combine import DeviceCombine, allocator
from releasekit.errors import UsageError
from releasekit.names import shown
from releasekit.pipeline import Buffer
from releasekit.progress import Stage
from releasekit.tensors import TensorSpec

#: torch's names of the dtypes, where it has one. F4 is stored two values an element.
_TORCH_DTYPES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "F4": "float4_e2m1fn_x2",
}


def usable(device: str | torch.device) -> torch.device:
    """The device, if torch can use it here; else UsageError."""
    try:
        found = torch.device(device)
        found = torch.empty(0, device=found).device  # with its number: threads have others
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"device {device}: {reason}") from error
    if found.type == "meta":
        raise UsageError("device meta: holds no values; name a device that does")
    return found


def dtype_and_shape(spec: TensorSpec) -> tuple[torch.dtype, tuple[int, ...]]:
    """What torch calls a tensor's dtype and shape; UsageError if it has no such dtype."""
    dtype = getattr(torch, _TORCH_DTYPES.get(spec.dtype.label, ""), None)
    halves = spec.dtype.label == "F4"
    if dtype is None or (halves and spec.shape[-1] % 2):
        raise UsageError(
            f"tensor {shown(spec.name)}: torch has no dtype for {spec.describe()}; "
            "rebuild to files with apply-delta instead"
        )
    if halves:
        return dtype, (*spec.shape[:-1], spec.shape[-1] // 2)
    return dtype, spec.shape


def empty(spec: TensorSpec, device: torch.device) -> torch.Tensor:
    """A new tensor with unspecified values."""
    dtype, shape = dtype_and_shape(spec)
    return torch.empty(shape, dtype=dtype, device=device)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor's memory: (nbytes,) uint8."""
    return tensor.detach().reshape(-1).view(torch.uint8)


class TensorSink:
    """Makes tensors on one device; see `delta.rebuild.Sink`.

    Attributes:
        combine: adds residuals there; None if the processor does.
        allocate: makes the buffers that it likes best.
    """

    def __init__(
        self,
        device: torch.device,
        stage: Stage,
        make: Callable[[str], torch.Tensor],
        combine: DeviceCombine | None = None,
    ) -> None:
        """Prepare.

        Args:
            device: where the tensors are.
            stage: told of the bytes made.
            make: the tensor to fill, by name; contiguous.
            combine: adds residuals; by default on the device, if that is not the CPU.
        """
        if combine is None and device.type != "cpu":
            combine = DeviceCombine(device)
        self.combine = combine
        self.allocate = allocator(device)
        self._stage = stage
        self._make = make
        self._tensors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._lock = threading.Lock()
        if device.type == "cuda":  # what the caller has queued there; ours is other streams
            torch.cuda.synchronize(device)

    def _bytes(self, name: str) -> torch.Tensor:
        with self._lock:
            if name not in self._tensors:
                tensor = self._make(name)
                if tensor.device.type == "cuda":  # its memory may be used, and just freed
                    torch.cuda.current_stream(tensor.device).synchronize()
                self._tensors[name] = tensor, as_bytes(tensor)
            return self._tensors[name][1]

    def room(
        self, name: str, start: int, nbytes: int, spare: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """The tensor's memory, if the processor can reach it."""
        part = self._bytes(name)[start : start + nbytes]
        if self.combine is not None:
            self.combine.keep(part)
            return spare[:nbytes]
        memory: Buffer = part.numpy()
        return memory

    def place(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Send what was made on the processor."""
        if self.combine is None or self.combine.kept:
            return
        part = self._bytes(name)[start : start + data.size]
        with self.combine.on_stream():
            part.copy_(torch.from_numpy(data), non_blocking=True)
            self.combine.wait()

    def consume(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Tell of progress."""
        self._stage.advance(data.size)

    def finished(self, name: str) -> torch.Tensor:
        """Hand over a tensor that is complete."""
        self._bytes(name)  # an empty tensor had no chunks
        with self._lock:
            return self._tensors.pop(name)[0]


class MemoryCheckpoint:
    """Tensors in memory as a checkpoint; see `checkpoint.Checkpoint`."""

    subject = "the model in memory"

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], specs: Mapping[str, TensorSpec]
    ) -> None:
        """Wrap tensors, each of which begins with the bytes of its spec."""
        self.specs = specs
        self._memory = {name: as_bytes(tensors[name]) for name in specs}

    def read(self, name: str, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the tensor's bytes from byte `start` on."""
        out[:] = self._memory[name][start : start + out.size].cpu().numpy()

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass
