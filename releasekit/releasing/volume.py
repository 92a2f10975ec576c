"""How many bytes a release reads, writes, downloads, and takes on the disk.

Told from headers, names and sizes alone, so in a moment, before any of it is done. A full
model's size is known; how far a delta shrinks is not, so what is said of it are bounds:

    of the delta     at most the target, as without a base at all
    while it is made one shard more, whose parts wait beside it until it is written
    plain differences, for other tools: once more the target

What has yet to come from the Hub goes into its cache, which may lie on another disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.checkpoint import open_found
from releasekit.checkpoint.beside import beside
from releasekit.checkpoint.derived import Cast
from releasekit.checkpoint.discover import choose, find
from releasekit.conversion import FLOATS, SMALLEST
from releasekit.delta.making.make import DEFAULT_SHARD_NBYTES
from releasekit.hub.address import CACHE_ELSEWHERE
from releasekit.output import PARTIAL_SUFFIX, free_nbytes, require_space
from releasekit.releasing.file import DELTA
from releasekit.releasing.pace import UPLOAD
from releasekit.releasing.work import Work

#: Bytes of a report: a page and some pictures.
_REPORT: Final = 10_000_000
#: Bytes of files that say what a release is, beside its weights: licences, card, charts.
_PAPERS: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What is released: its bytes as they will be written; None if that is not known."""

    nbytes: int | None
    largest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coming:
    """What comes from the Hub: `nbytes` in all, of which some are `left`, and where to."""

    nbytes: int | None
    left: int
    cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a release takes of a disk, in bytes.

    Attributes:
        folder: where that is.
        most: that stays there, at most; None if that is not known.
        peak: that are there while it is made, at most; None likewise.
        least: that are there in the end for sure.
        there: of an earlier run that is gone on with.
        downloads: from the Hub, by what is downloaded.
        cache: where downloads go; None if there are none.
    """

    folder: Path
    most: int | None
    peak: int | None
    least: int
    there: int
    downloads: Mapping[str, int]
    cache: Path | None

    @property
    def download(self) -> int:
        """Bytes that are downloaded."""
        return sum(self.downloads.values())

    @property
    def free(self) -> int:
        """Bytes that are free for the release, or taken by what is gone on with."""
        return free_nbytes(self.folder) + self.there

    @property
    def cache_free(self) -> int:
        """Bytes that are free for downloads."""
        return free_nbytes(self.cache) if self.cache is not None else 0

    @property
    def shares_disk(self) -> bool:
        """Whether downloads go to the disk that the release is made on."""
        return self.cache is not None and _disk(self.cache) == _disk(self.folder)

    def lacks(self) -> Iterator[str]:
        """What there may be too little room for; a sentence each."""
        shared = self.shares_disk
        more = self.download if shared else 0
        if self.peak is not None and self.peak + more > self.free:
            yield (
                f"{self.folder}: up to {self.peak + more:,} bytes are taken while the "
                f"release is made, and {self.free:,} are free; free some space, or name a "
                "folder on another disk in release.out"
            )
        if not shared and self.download > self.cache_free:
            yield (
                f"{self.cache}: {self.download:,} bytes are downloaded, and "
                f"{self.cache_free:,} are free; free some space, or {CACHE_ELSEWHERE}"
            )

    def require(self) -> None:
        """Refuse what surely does not fit, as `require_space`."""
        shared = self.shares_disk
        more = [self.download] if shared else []
        require_space(
            self.folder,
            [self.least, *more],
            self.there,
            "name a folder on another disk in release.out",
        )
        if self.cache is not None and not shared:
            require_space(self.cache, [self.download], elsewhere=CACHE_ELSEWHERE)


def needs(work: Work) -> Needs:
    """What making a release takes; asks the Hub about models that are there.

    Raises:
        UsageError: if a model is not there.
        FormatError: if one is malformed.
        HubError: if the Hub does not know it, or cannot be reached.
    """
    file = work.file
    is_delta = file.kind == DELTA
    read = [file.target, *([file.base, *file.accept_base] if is_delta else [])]
    models = [work.model(text) for text in read if text is not None]
    coming = {model: _coming(model) for model in models if not isinstance(model, Path)}
    model = models[0]
    if isinstance(model, Path):
        target = _target(work, model)
    else:
        # What other floats take depends on what they are, which only the weights say.
        known = coming[model].nbytes if file.dtype in (None, SMALLEST) else None
        target = _Target(nbytes=known)
    most = peak = target.nbytes
    if is_delta and most is not None:
        waiting = max(file.shard_nbytes or DEFAULT_SHARD_NBYTES, target.largest)
        peak = most * (1 + (file.codec == "add")) + min(waiting, most)
        most *= 1 + (file.codec == "add")
    small = _PAPERS + (_REPORT if file.report is not None else 0)
    return Needs(
        folder=work.out.absolute().parent,
        most=None if most is None else most + small,
        peak=None if peak is None else peak + small,
        least=0 if is_delta or file.dtype == SMALLEST else target.nbytes or 0,
        there=_used(work.out.with_name(work.out.name + PARTIAL_SUFFIX)),
        downloads={model: one.left for model, one in coming.items()},
        cache=next((one.cache for one in coming.values()), None),
    )


def combined(each: Sequence[Needs]) -> list[Needs]:
    """What several releases take, one for each disk that they are made on.

    What several of them read is downloaded once, and is told of with the first.
    """
    disks: dict[int, list[Needs]] = {}
    for one in each:
        disks.setdefault(_disk(one.folder), []).append(one)
    found, told = [], set[str]()
    for some in disks.values():
        coming = {name: n for one in some for name, n in one.downloads.items()}
        found.append(
            Needs(
                folder=some[0].folder,
                most=_sum(one.most for one in some),
                peak=_sum(one.peak for one in some),
                least=sum(one.least for one in some),
                there=sum(one.there for one in some),
                downloads={name: n for name, n in coming.items() if name not in told},
                cache=next((one.cache for one in some if one.cache is not None), None),
            )
        )
        told |= coming.keys()
    return found


def expected(work: Work, todo: Collection[str]) -> dict[str, dict[str, int] | None]:
    """Bytes of each stage of the steps that are to be done; see `releasing.pace`.

    Of models on the Hub nothing is said: what of them is here is known once they are asked
    for. What a delta will be is small beside what it is made from, and left out until then.
    """
    reads: dict[str, int] | None = {}
    compares: dict[str, int] | None = {}
    is_delta = work.file.kind == DELTA
    written = _used(work.out)
    if not {"make", "report"}.isdisjoint(todo):
        target = _local(work, work.file.target, work.file.exclude)
        base = _local(work, work.file.base)
        if target is None or (is_delta and base is None):
            reads = compares = None
        else:
            reads = {"encode": target, "hash inputs": base or 0}
            compares = {"read": target} if base is None else {"compare": target + base}
            if not is_delta:
                reads, written = {"write": target}, written or target
    stages = {
        "make": reads,
        "report": compares,
        "sign": {"hash": written},
        "verify": {"verify": written},
        # However much that will be, it takes a while.
        "publish": {"verify": written, UPLOAD: written or 1},
    }
    return {step: stages.get(step, {}) for step in todo}


def _target(work: Work, path: Path) -> _Target:
    found = find(path, work.file.exclude)
    others = sum((found.root / name).stat().st_size for name in beside(found)[0])
    with open_found(found) as checkpoint:
        specs = checkpoint.specs
        dtype = FLOATS.get(work.file.dtype or "")
        written = Cast(checkpoint, dtype).specs if dtype is not None else specs
    return _Target(
        nbytes=sum(spec.nbytes for spec in written.values()) + others,
        largest=max((spec.nbytes for spec in written.values()), default=0),
    )


def _coming(reference: str) -> _Coming:
    from releasekit.hub.snapshots import look_up

    remote, names = look_up(reference, wanted=choose)
    sizes = [remote.listing.files[name].nbytes for name in names]
    known = [size for size in sizes if size is not None]
    return _Coming(
        nbytes=sum(known) if len(known) == len(sizes) else None,
        left=sum(remote.lacking(names)),
        cache=remote.address.folder,
    )


def _local(work: Work, text: str | None, exclude: Sequence[str] = ()) -> int | None:
    """Bytes of a model's weights; None if it is not here, or there is none."""
    model = work.model(text) if text is not None else None
    if not isinstance(model, Path):
        return None
    found = find(model, exclude)
    return sum((found.root / name).stat().st_size for name in found.files)


def _sum(sizes: Iterable[int | None]) -> int | None:
    """The sum of sizes; None if one of them is not known."""
    known = list(sizes)
    found = [nbytes for nbytes in known if nbytes is not None]
    return sum(found) if len(found) == len(known) else None


def _used(folder: Path) -> int:
    """Disk space that is taken by what lies in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.lstat().st_blocks * 512 for path in files)


def _disk(folder: Path) -> int:
    """What tells disks apart."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return os.stat(there).st_dev
