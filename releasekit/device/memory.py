"""The tensors of a model in memory, to be read and written by range, wherever they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from releasekit.device.tensors import MemoryCheckpoint
from releasekit.tensors import TensorSpec


class ModelMemory(MemoryCheckpoint):
    """As `MemoryCheckpoint`, and can be written to."""

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], specs: Mapping[str, TensorSpec]
    ) -> None:
        """Wrap tensors, each of which has the bytes of its spec."""
        super().__init__(tensors, specs)
        self._places = {name: place_of(tensors[name]) for name in specs}

    def only(self, specs: Mapping[str, TensorSpec]) -> MemoryCheckpoint:
        """Tensors that begin with the bytes of other specs, as a checkpoint."""
        return MemoryCheckpoint({name: self._memory[name] for name in specs}, specs)

    def write(self, name: str, start: int, data: NDArray[np.uint8]) -> None:
        """Put bytes into the tensor from byte `start` on."""
        part = self._memory[name][start : start + data.size]
        part.copy_(torch.from_numpy(data))

    def copy(self, source: str, name: str) -> None:
        """Put all bytes of one tensor into another."""
        self._memory[name].copy_(self._memory[source])

    def apart(self, names: Iterable[str]) -> list[str]:
        """The named tensors that have bytes, but for those that lie where others do."""
        held = (name for name in names if self.specs[name].nbytes)
        return list({self._places[name]: name for name in held}.values())

    def lie_together(self, one: str, other: str) -> bool:
        """Whether two tensors are the same memory."""
        return self._places[one] == self._places[other]

    def strayed(self, tensors: Mapping[str, torch.Tensor]) -> str | None:
        """The first tensor that `tensors` lacks or has elsewhere; None if there is none."""
        for name, spec in self.specs.items():
            found = tensors.get(name)
            if found is None or found.nbytes != spec.nbytes:
                return name
            if spec.nbytes and place_of(found) != self._places[name]:
                return name
        return None

    def settle(self) -> None:
        """Wait for what the caller has queued on the tensors' devices."""
        for device in {device for device, _ in self._places.values()}:
            if device.type == "cuda":
                torch.cuda.synchronize(device)


def place_of(tensor: torch.Tensor) -> tuple[torch.device, int]:
    """Where a tensor's memory begins."""
    return tensor.device, tensor.data_ptr()
