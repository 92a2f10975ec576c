"""What all work in parts has in common: running the parts, and telling of shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from releasekit.errors import ReleaseKitError, UsageError
from releasekit.names import listed
from releasekit.parts.records import Done
from releasekit.parts.split import Share
from releasekit.parts.tasks import Batch, Pool, Task
from releasekit.progress import ProgressCallback, Stage
from releasekit.storage.output import is_begun


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What a share of some work made.

    Attributes:
        out: the folder that is to be made.
        name: what it will hold, for people.
        share: whose share it is.
        parts: parts that were done now.
        kept: parts of this share that were done before.
        nbytes: bytes that were made now.
        seconds: time it took.
    """

    out: Path
    name: str
    share: Share
    parts: tuple[str, ...]
    kept: tuple[str, ...]
    nbytes: int
    seconds: float

    @classmethod
    def of(
        cls,
        out: Path,
        name: str,
        share: Share,
        mine: Iterable[Task],
        done: Sequence[Done],
        seconds: float,
    ) -> PartResult:
        """The parts of a share, and those that were done now."""
        names = [part.name for part in done]
        return cls(
            out=out,
            name=name,
            share=share,
            parts=tuple(names),
            kept=tuple(task.name for task in mine if task.name not in names),
            nbytes=sum(part.nbytes for part in done),
            seconds=seconds,
        )


def run_parts(
    pool: Pool, batch: Batch[Any], progress: ProgressCallback | None
) -> list[Done]:
    """Have parts done, with one stage for all; raises as `Pool.run`."""
    if not batch.tasks:
        return []
    stage = Stage(progress, batch.stage, sum(task.nbytes for task in batch.tasks))
    return list(pool.run(batch, stage.advance))


def require_begun(partial: Path) -> None:
    """Refuse to finish what was not begun; raises UsageError."""
    if not is_begun(partial):
        raise UsageError(
            f"{partial}: is not there: do all shares first, with --shard 1/N to --shard N/N"
        )


def require_done(partial: Path, todo: Sequence[Task], parts: Sequence[Task]) -> None:
    """Refuse to finish what lacks parts, naming some; raises ReleaseKitError."""
    if todo:
        raise ReleaseKitError(
            f"{partial}: {len(todo)} of {len(parts)} parts are not done: "
            f"{listed([task.name for task in todo], 3)}: run the shares again that were "
            "stopped; what is done is kept"
        )
