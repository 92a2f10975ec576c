"""Adds residuals to words on a torch device, from many threads at once.

Each worker thread has a stream of its own, and staging space for residuals in pinned
memory; words are in pinned buffers already (`allocator`), so that every copy is
asynchronous. A thread queues its copies and operations, then waits for its stream, while
the others decode, read and write: the buffers in flight are the ring, and transfers in
both directions overlap with computation and with the disk.

On the CPU the same code runs without streams, which is how it is tested where there is no
GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from releasekit.codec.kernels import Words
from releasekit.codec.ulp import Residuals
from releasekit.device.ungroup import WORDS, rebuild
from releasekit.errors import ReleaseKitError
from releasekit.pipeline import Buffer, aligned

#: Residuals of words of up to 16 bits travel in two bytes.
_NARROW: Final = 16


def allocator(device: torch.device) -> Callable[[int], Buffer]:
    """Makes the buffers whose copies to and from a device need no staging."""
    if device.type != "cuda":
        return aligned

    def pinned(nbytes: int) -> Buffer:
        memory: Buffer = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        return memory

    return pinned


class DeviceCombine:
    """`Combine` on a device; see `codec.ulp`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._local = threading.local()

    def keep(self, destination: torch.Tensor | None) -> None:
        """Have this thread's next result also in `destination`, bytes on the device."""
        self._local.destination = destination

    @property
    def kept(self) -> bool:
        """Whether the destination that this thread named has been filled."""
        return getattr(self._local, "destination", None) is None

    def __call__(self, residuals: Residuals, words: Words) -> bool:
        """Add residuals to words in place; returns whether they fit."""
        try:
            with self.on_stream():
                return self._combine(residuals, words)
        except torch.OutOfMemoryError as error:
            raise ReleaseKitError(
                f"{self.device}: is out of memory: use fewer --threads, or --device cpu"
            ) from error

    def on_stream(self) -> AbstractContextManager[Any]:
        """A context in which this thread queues work on its own stream."""
        if self.device.type != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
        return torch.cuda.stream(self._local.stream)

    def wait(self) -> None:
        """Wait for what this thread has queued."""
        if self.device.type == "cuda":
            self._local.stream.synchronize()

    def _combine(self, residuals: Residuals, words: Words) -> bool:
        word, shift = residuals.reduced.word, residuals.reduced.shift
        host = torch.from_numpy(words.view(f"i{words.itemsize}"))
        base = host.to(self.device, non_blocking=True, copy=True)
        destination = getattr(self._local, "destination", None)
        out = base if destination is None else destination.view(WORDS[word.bits])
        total = int(residuals.count.sum())
        fits = rebuild(
            base,
            self._send_residuals(residuals.grouped[:total], word.bits),
            self._send(residuals.classes),
            self._send(residuals.table.view(np.int16)),
            self._send(residuals.count),
            out,
            word=word,
            shift=shift,
            row=residuals.row,
        )
        host.copy_(out, non_blocking=True)
        self._local.destination = None
        self.wait()
        return bool(fits)

    def _send(self, data: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(data).to(self.device, non_blocking=True)

    def _send_residuals(self, grouped: NDArray[Any], bits: int) -> torch.Tensor:
        """Through this thread's staging space, in as few bytes as they need."""
        if bits > _NARROW:
            staged = self._staging(grouped.size, grouped.dtype)
            staged[:] = grouped
            return self._send(staged.view(f"i{staged.itemsize}"))
        staged = self._staging(grouped.size, np.dtype(np.uint16))
        staged[:] = grouped
        sent = self._send(staged.view(np.int16))
        return sent.to(torch.int32).bitwise_and_((1 << _NARROW) - 1)

    def _staging(self, size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        nbytes = size * dtype.itemsize
        memory: Buffer | None = getattr(self._local, "staging", None)
        if memory is None or memory.size < nbytes:
            memory = self._local.staging = allocator(self.device)(nbytes)
        return memory[:nbytes].view(dtype)
