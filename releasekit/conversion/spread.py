"""Convert a model in parts, by other processes: on this machine, or on many.

A part is a file of the result. Each is made from the source by whoever has it, as `convert`
makes it, takes its place in the partial folder by one rename, and is noted beside it with
its digests (`parts.records`). Who completes the folder writes the index, the small files
and the list of digests, and reads no weights.

The smallest dtypes are known once all wide floats were looked at, which is done in parts,
too. A cluster's driver has that done first. Shares, which nobody coordinates, are done
twice: each looks at its tensors, and writes once it finds that all were looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from releasekit.checkpoint.locate import reach, refuse_hub
from releasekit.conversion import ConvertResult
from releasekit.conversion.job import How, Job
from releasekit.conversion.parts import LOOK_NBYTES
from releasekit.conversion.work import Making, Source, Wish
from releasekit.output import Sharing, partial_of
from releasekit.parts.records import Done
from releasekit.parts.shares import PartResult, require_begun, require_done
from releasekit.parts.split import Share
from releasekit.parts.tasks import Here, Pool, reports
from releasekit.progress import ProgressCallback, in_turn
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.sharding import DEFAULT_SHARD_NBYTES
from releasekit.storage.address import text
from releasekit.storage.output import check_output, output_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertShare(PartResult):
    """What a share of a conversion made.

    Attributes:
        again: whether the share is to be done again, once all others have looked at their
            tensors: only then is it known what `smallest` makes of the floats.
    """

    again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the functions below are given."""

    source: Path
    out: Path
    wish: Wish
    how: How
    force: bool

    def check(self) -> None:
        """Refuse what makes no sense, as UsageError."""
        refuse_hub(self.source)
        self.wish.check()
        check_output(self.out, force=self.force, inputs=(self.source,))

    @contextmanager
    def job(self, sharing: Sharing = Sharing.ALONE) -> Iterator[Job]:
        """The parts, the source and the output being open."""
        self.check()
        with (
            reach(self.source) as at,
            Source.opened(at, self.wish) as source,
            output_folder(
                self.out,
                key=source.key,
                force=self.force,
                inputs=(self.source,),
                sharing=sharing,
            ) as folder,
        ):
            yield Job(source, folder, self.how)


def convert_spread(
    source: str | Path,
    out: str | Path,
    *,
    pool: Pool,
    dtype: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    look_nbytes: int = LOOK_NBYTES,
    progress: ProgressCallback | None = None,
) -> ConvertResult:
    """Convert as `convert` does, in parts that a pool of processes does.

    Args:
        source: as in `convert`; a path that all of the pool's machines have.
        out: likewise.
        pool: does the parts.
        dtype: as in `convert`.
        shard_nbytes: likewise; a part writes one file.
        force: as in `convert`.
        threads: of one part; by default as many as the pool says.
        max_memory: of one part, beside about 1,100 bytes a tensor for the model's header.
        look_nbytes: bytes of tensors that one part looks at, for `smallest`.
        progress: called with the state of each stage.

    Raises:
        ReleaseKitError: as `convert`; and if parts were lost too often, or found another
            model under the same path.
    """
    started = time.monotonic()
    wish = Wish(dtype=dtype, shard_nbytes=shard_nbytes)
    how = How(
        threads=threads or pool.threads,
        max_memory=max_memory,
        look_nbytes=look_nbytes,
        progress=in_turn(progress),
    )
    asked = _Asked(source=Path(source), out=Path(out), wish=wish, how=how, force=force)
    with asked.job() as job:
        done = job.look(pool, job.unseen())
        making = job.making()
        todo = job.unwritten(making)
        job.folder.require_space(task.nbytes for task in job.files(making))
        done += job.write(pool, making, todo)
        new = {part.name for part in done}
        kept = [shard.name for shard in making.shards if shard.name not in new]
        return _complete(asked, job, making, kept=kept, done=done, started=started)


def convert_share(
    source: str | Path,
    out: str | Path,
    *,
    share: Share,
    dtype: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    look_nbytes: int = LOOK_NBYTES,
    progress: ProgressCallback | None = None,
) -> ConvertShare:
    """Do one of several shares of a conversion; `finish_convert` does what remains then.

    Shares may be done at the same time, on machines that find the source and the output
    under the same paths, and again if one was stopped. With `smallest`, all shares are done
    twice: first they look at values, as the result's `again` says, and then they write.
    Arguments are those of `convert_spread`, and must be the same for all; and `share`,
    which is done here.

    Raises:
        ReleaseKitError: as `convert`; UsageError also if other shares have another source,
            or other arguments.
    """
    started = time.monotonic()
    wish = Wish(dtype=dtype, shard_nbytes=shard_nbytes)
    how = How(
        threads=threads,
        max_memory=max_memory,
        look_nbytes=look_nbytes,
        progress=in_turn(progress),
    )
    asked = _Asked(source=Path(source), out=Path(out), wish=wish, how=how, force=force)
    looked, written = [], []
    with asked.job(Sharing.PARTS) as job:
        mine = share.of(job.looks)
        looked = job.look(Here(), [task for task in job.unseen() if task in mine])
        again = not job.is_seen()
        if not again:
            making = job.making()
            files = share.of(job.files(making))
            todo = [task for task in job.unwritten(making) if task in files]
            job.folder.require_space(task.nbytes for task in job.files(making))
            written = job.write(Here(), making, todo)
            mine += files
    done = [part.name for part in (*looked, *written)]
    return ConvertShare(
        out=asked.out,
        name=text(source),
        share=share,
        parts=tuple(done),
        kept=tuple(task.name for task in mine if task.name not in done),
        nbytes=sum(part.nbytes for part in written),
        seconds=time.monotonic() - started,
        again=again,
    )


def finish_convert(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    look_nbytes: int = LOOK_NBYTES,
    progress: ProgressCallback | None = None,
) -> ConvertResult:
    """Make the output appear, once all shares are done; arguments as in `convert_share`.

    Raises:
        ReleaseKitError: if some parts are not done, which it names; or as `convert_share`.
    """
    started = time.monotonic()
    wish = Wish(dtype=dtype, shard_nbytes=shard_nbytes)
    how = How(
        threads=threads,
        max_memory=max_memory,
        look_nbytes=look_nbytes,
        progress=in_turn(progress),
    )
    asked = _Asked(source=Path(source), out=Path(out), wish=wish, how=how, force=force)
    asked.check()
    require_begun(partial_of(asked.out))
    with asked.job(Sharing.LAST) as job:
        making = job.making()
        require_done(job.partial, job.unwritten(making), job.files(making))
        return _complete(asked, job, making, kept=(), done=job.done, started=started)


def _complete(
    asked: _Asked,
    job: Job,
    making: Making,
    *,
    kept: Sequence[str],
    done: Sequence[Done],
    started: float,
) -> ConvertResult:
    """Make the folder appear."""
    writer, seen = job.told(making)
    return ConvertResult.complete(
        asked.out,
        making,
        writer,
        seen,
        kept=kept,
        workers=reports(done),
        started=started,
    )
