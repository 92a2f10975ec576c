"""What a rebuild needs from the Hub, brought in the order of need, while it works.

Base and delta may lie on the Hub. Their small files are here by then, and base and delta
were found to fit; the weights come several files at once, those that the first of the
rebuilt files is made of first. Files that no tensor is made of are not downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from releasekit.checkpoint import StoredCheckpoint
from releasekit.checkpoint.files import Incoming
from releasekit.checkpoint.locate import Located
from releasekit.delta.release import Release
from releasekit.hub.address import CACHE_ELSEWHERE
from releasekit.manifest import WeightEntry
from releasekit.output import require_space
from releasekit.progress import ProgressCallback, Stage


@dataclass(frozen=True, slots=True)
class Supply:
    """Files to bring, in the order of need.

    Attributes:
        needs: what is on its way, each with the names of the files needed of it.
    """

    needs: tuple[tuple[Incoming, tuple[str, ...]], ...]

    @classmethod
    def of(
        cls,
        releases: Sequence[Release],
        base: StoredCheckpoint,
        located: Located,
        entries: Iterable[WeightEntry],
    ) -> Supply:
        """What making some of the weight files takes.

        Args:
            releases: the releases, each on what the one before it makes.
            base: what the first is on.
            located: where that is.
            entries: the weight files of the last to make, in order.
        """
        latest = tuple(reversed(releases))
        files: list[dict[str, None]] = [{} for _ in (*latest, base)]  # kept in order
        for entry in entries:
            for placed in entry.layout.tensors:
                name = placed.spec.name
                for needed, release in zip(files, latest, strict=False):
                    name = release.manifest.operations[name].of or name
                    needed.update(dict.fromkeys(release.files_of(name)))
                    if release.manifest.predictor(name) is None:
                        break
                else:
                    files[-1][base.home(name)] = None
        coming = (*(release.coming for release in latest), located.coming)
        return cls(
            tuple(
                (arrivals, tuple(name for name in names if name in arrivals.names))
                for arrivals, names in zip(coming, files, strict=True)
                if arrivals is not None
            )
        )

    @property
    def nbytes(self) -> int:
        """Bytes to download: those that the cache lacks."""
        return sum(sum(arrivals.lacking(names)) for arrivals, names in self.needs)

    def require_space(self, out: Path, nbytes: int) -> None:
        """Refuse work that would fill the cache's disk; raises ReleaseKitError.

        Args:
            out: where the rebuilt model will be.
            nbytes: its size, as far as it is not there yet.
        """
        taken: dict[int, tuple[Path, list[int]]] = {}  # all that comes to a disk together
        for arrivals, names in self.needs:
            cache = arrivals.place
            _, sizes = taken.setdefault(_disk(cache), (cache, []))
            sizes += arrivals.lacking(names)
        for disk, (cache, sizes) in taken.items():
            if disk == _disk(out):
                sizes.append(nbytes)
            require_space(cache, sizes, elsewhere=CACHE_ELSEWHERE)

    def begin(self, progress: ProgressCallback | None, check: Callable[[], None]) -> None:
        """Begin to bring them; whoever reads one waits until it is here.

        Args:
            progress: told how much has come.
            check: called by those who wait; raises to end that.
        """
        total = sum(arrivals.nbytes_of(names) for arrivals, names in self.needs)
        if not total:
            return

        def look() -> None:
            check()
            for arrivals, _ in self.needs:
                arrivals.check()

        stage = Stage(progress, "download", total)
        for arrivals, names in self.needs:
            arrivals.start(names, stage, look)

    def finish(self) -> None:
        """Wait until all is here; raises what went wrong."""
        for arrivals, _ in self.needs:
            arrivals.finish()


def _disk(path: Path) -> int:
    """The disk that a path is on, or would be."""
    path = path.absolute()
    existing = next(place for place in (path, *path.parents) if place.exists())
    return os.stat(existing).st_dev
