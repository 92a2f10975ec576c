"""What `--device` means: which devices do the adding, and why.

`auto` is the processor for work that ends on disk. Decoding is done on the processor in any
case, hashing too, and what a GPU could take over, one pass over the words, costs less than
sending them there and back. Weights that are to end in a GPU's memory are another matter,
and there the caller names the device. torch is imported only once a device is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from releasekit.codec import ulp
from releasekit.errors import UsageError
from releasekit.pipeline import Buffer, aligned

if TYPE_CHECKING:
    import torch

AUTO: Final = "auto"
CPU: Final = "cpu"
#: Host memory that torch takes by being there, in bytes.
TORCH_NBYTES: Final = 256 << 20
_KNOWN: Final = re.compile(r"auto|cpu|mps|cuda(:([0-9]{1,4}|all))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What does the adding.

    Attributes:
        combine: adds residuals to words.
        allocate: makes the buffers that it likes best.
        host_nbytes: host memory that it takes by being there.
    """

    combine: ulp.Combine = ulp.combine
    allocate: Callable[[int], Buffer] = aligned
    host_nbytes: int = 0


def engines(device: str) -> list[Engine]:
    """One engine a device; raises as `resolve` does."""
    devices = resolve(device)
    if not devices:
        return [Engine()]
    from releasekit.device.combine import DeviceCombine, allocator

    return [
        Engine(
            combine=DeviceCombine(one),
            allocate=allocator(one),
            host_nbytes=TORCH_NBYTES,
        )
        for one in devices
    ]


def check_device(device: str) -> str:
    """The name of a device, if it could be one; does not look whether it is there.

    Raises:
        UsageError: if it could not.
    """
    if not _KNOWN.fullmatch(device):
        raise UsageError(
            f"device: expected auto, cpu, cuda, cuda:0, cuda:all or mps, found {device!r}"
        )
    return device


def explain(device: str) -> str:
    """Where the work will be done, for people."""
    if device == AUTO:
        return "cpu (auto: decoding, hashing and the disk bound this work, not adding)"
    return device


def resolve(device: str) -> list[torch.device]:
    """The devices that add residuals; none if the processor does.

    Raises:
        UsageError: if there is no such device here.
    """
    if check_device(device) in (AUTO, CPU):
        return []
    import torch

    if device == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("device: torch finds no mps here; use --device cpu")
        return [torch.device("mps")]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UsageError(
            f"device: torch {torch.__version__} finds no CUDA device here: use --device "
            "cpu, or install a build of torch for this machine's GPU"
        )
    _, _, which = device.partition(":")
    if which == "all":
        return [torch.device("cuda", number) for number in range(count)]
    number = int(which) if which else torch.cuda.current_device()
    if number >= count:
        raise UsageError(
            f"device: expected cuda:0 to cuda:{count - 1}, found {device}: this machine "
            f"has {count}"
        )
    return [torch.device("cuda", number)]
