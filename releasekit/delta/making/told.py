"""A release in the making, as its parts are told of it, and its inputs as they find them.

Whoever begins the work looks at base and target; whoever has a part checks that it sees the
same, once for all parts that a process has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from releasekit.checkpoint import StoredCheckpoint, open_found
from releasekit.checkpoint.discover import Found, find
from releasekit.checkpoint.locate import reach
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint, WeightFile
from releasekit.checkpoint.sighting import Sighting
from releasekit.codec import Ulp
from releasekit.parts.keeping import keeper
from releasekit.parts.outputs import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Base and target, open.

    Attributes:
        base: the base.
        found: its files.
        target: the target.
    """

    base: StoredCheckpoint
    found: Found
    target: SafetensorsCheckpoint

    def file(self, name: str) -> WeightFile:
        """A file of the target."""
        return next(file for file in self.target.files if file.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Making(Output):
    """What every part of a release in the making is told.

    Attributes:
        base: where the base is.
        target: where the target is.
        exclude: patterns of files in the target folder that are left out.
        seen: what both look like where the work was begun; `key` stands for it.
        codec: how to code.
        device: what proves the chunks.
        threads: as in `make_delta`, for each part.
        max_memory: likewise.
    """

    base: Path
    target: Path
    exclude: tuple[str, ...]
    seen: tuple[Sighting, Sighting] = field(compare=False)
    codec: Ulp
    device: str
    threads: int | None
    max_memory: int

    @contextmanager
    def opened(self) -> Iterator[Inputs]:
        """The inputs, as this process finds them.

        Raises:
            IntegrityError: if they are not those with which the work was begun.
        """
        with ExitStack() as stack:
            at = stack.enter_context(reach(self.base))
            found = find(at.path, coming=at.coming)
            base = stack.enter_context(open_found(found))
            where = stack.enter_context(reach(self.target, whole=True))
            files = find(where.path, self.exclude, where.coming)
            target = stack.enter_context(SafetensorsCheckpoint.open(files))
            for seen, checkpoint in zip(self.seen, (base, target), strict=True):
                seen.check(checkpoint)
            yield Inputs(base=base, found=found, target=target)

    def inputs(self) -> Inputs:
        """The same, kept open for this process's next part."""
        return keeper().get(self, Making.opened)
