"""A part of some work, how it is done, and what became of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

from releasekit.parts.keeping import keeper
from releasekit.parts.records import Done, Records
from releasekit.progress import Progress, ProgressCallback

Spec = TypeVar("Spec", bound="WorkSpec")
#: Called with the bytes that were done since the last call.
Advance = Callable[[int], None]


#: Threads of a part, where many are done at once: one waits for the disk while the other
#: works.
PART_THREADS: Final = 2


class WorkSpec(Protocol):
    """What all parts of some work are told; it is pickled, and small."""

    @property
    def partial(self) -> Path | None:
        """Folder beside which the records are; None if nothing is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A part of some work.

    Attributes:
        name: tells it from the others, the same in every run of the same work.
        nbytes: bytes of its result, by which progress is told and parts are shared out.
        detail: what else it needs to know.
    """

    name: str
    nbytes: int
    detail: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one part takes of the machine that does it.

    Attributes:
        threads: that work.
        memory_nbytes: host memory at most.
        gpus: share of a GPU; 0 for none.
        waits: whether they wait for a disk, so that two of them keep one processor busy.
    """

    threads: int
    memory_nbytes: int
    gpus: float = 0.0
    waits: bool = False

    @property
    def processors(self) -> int:
        """Processors that the threads keep busy."""
        return -(-self.threads // 2) if self.waits else self.threads


#: Does a part; returns facts about it that JSON can hold.
Work = Callable[[Spec, Task, Advance], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[Spec]):
    """Parts that may be done at the same time, and how.

    Attributes:
        work: a function of a module, so that other processes find it by its name.
        spec: what all parts are told.
        tasks: the parts.
        needs: what each takes.
        stage: what is being done, for people.
    """

    work: Work[Spec]
    spec: Spec
    tasks: Sequence[Task]
    needs: Needs
    stage: str = field(default="work")


class Pool(Protocol):
    """Has parts done, somewhere.

    Attributes:
        threads: those of a part, where nobody says; None for as many as one process uses.
    """

    threads: int | None

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        """Do all parts, in whatever order; yields each once it is done.

        Raises what a part raises, and then lets no other go on.
        """


class Here:
    """Does parts one after another, in this process."""

    threads: int | None = None

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        """See `Pool.run`."""
        try:
            for task in batch.tasks:
                yield perform(batch.work, batch.spec, task, advance)
        finally:
            keeper().close()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What one process did.

    Attributes:
        name: host and process.
        parts: how many parts.
        nbytes: bytes of their results.
        seconds: time that they took.
    """

    name: str
    parts: int
    nbytes: int
    seconds: float


def reports(done: Iterable[Done]) -> tuple[WorkerReport, ...]:
    """What each process did, by their names."""
    found: dict[str, list[Done]] = {}
    for part in done:
        found.setdefault(part.worker, []).append(part)
    return tuple(
        WorkerReport(
            name=name,
            parts=len(parts),
            nbytes=sum(part.nbytes for part in parts),
            seconds=sum(part.seconds for part in parts),
        )
        for name, parts in sorted(found.items())
    )


def as_progress(advance: Advance) -> ProgressCallback:
    """Tells what a stage tells as bytes since the last time."""
    so_far = 0

    def tell(progress: Progress) -> None:
        nonlocal so_far
        nbytes, so_far = progress.done - so_far, progress.done
        if nbytes:
            advance(nbytes)

    return tell


def perform(work: Work[Spec], spec: Spec, task: Task, advance: Advance) -> Done:
    """Do a part, and note that it is done."""
    started = time.monotonic()
    facts = work(spec, task, advance)
    done = Done(
        name=task.name,
        nbytes=task.nbytes,
        seconds=time.monotonic() - started,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        facts=dict(facts),
    )
    if spec.partial is not None:
        Records(spec.partial).note(done)
    return done
