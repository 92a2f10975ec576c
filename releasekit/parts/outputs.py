"""What the parts of work that makes an output are told of it, and what one takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from releasekit.device.choose import AUTO, CPU, TORCH_NBYTES
from releasekit.output import OutputFolder, Sharing, partial_of
from releasekit.parts.tasks import Needs
from releasekit.resources import Resources
from releasekit.storage.output import output_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The output of some work that is done in parts.

    Attributes:
        out: the folder that is to be made.
        key: names the work.
    """

    out: Path
    key: str

    @property
    def partial(self) -> Path:
        """Where the output is made, and the records are."""
        return partial_of(self.out)

    @property
    def folder(self) -> AbstractContextManager[OutputFolder]:
        """The output, as a part has it."""
        return output_folder(self.out, key=self.key, sharing=Sharing.GUEST)


def needs_of(resources: Resources, held_nbytes: int, device: str = CPU) -> Needs:
    """What a part takes of its machine.

    Args:
        resources: what its work may use.
        held_nbytes: memory that it takes besides, for headers and the like.
        device: what it computes on; a GPU is wanted if it names one.
    """
    on_gpu = device not in (AUTO, CPU)
    return Needs(
        threads=resources.threads,
        memory_nbytes=resources.memory_nbytes + held_nbytes + on_gpu * TORCH_NBYTES,
        gpus=float(on_gpu),
    )
