"""Write any checkpoint that can be read as sharded, hashed safetensors.

    dtypes      what people call the dtypes of floats
    companions  the files beside the weights
    work        what is read, and what is to be written
    parts       one file of it, or a look at some tensors, in whatever process
    spread      all of it in parts, by other processes

Values are those of the source, bit for bit, unless another dtype is asked for: then floats
are rounded to nearest, ties to even, and the result says how many values that changed. The
dtype may also be the smallest that holds all values: found in a first pass, and nothing is
rounded. Where no dtype is asked for, it is noted on the way whether a smaller one would do.
Files beside the weights are copied; weights in other formats are left out, and named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from releasekit import smallest
from releasekit.checkpoint.locate import reach
from releasekit.conversion.companions import beside_as_written as beside_as_written
from releasekit.conversion.dtypes import FLOATS as FLOATS
from releasekit.conversion.dtypes import SMALLEST as SMALLEST
from releasekit.conversion.dtypes import dtype_name as dtype_name
from releasekit.conversion.dtypes import float_dtype as float_dtype
from releasekit.conversion.work import AMONG, Making, Seen, Source, Wish
from releasekit.conversion.work import source_state as source_state
from releasekit.model_writer import ModelWriter, resources_for
from releasekit.output import OutputFolder, check_output
from releasekit.parts.tasks import WorkerReport
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.sharding import DEFAULT_SHARD_NBYTES
from releasekit.statistics.diff import Narrowing


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What was written.

    Attributes:
        out: the folder.
        kind: how the source was stored: "safetensors", "PyTorch" or "Meta".
        identity: identity of the checkpoint that was written.
        files: SHA-256 of each file by path.
        nbytes: total size.
        tensors: number of tensors.
        dtype: what floats became; None if they are as they were. Of several, that which
            most of those that changed have now.
        narrower: dtypes in which smaller ones would hold every value. Empty if a dtype was
            asked for, and where shards are `uncounted`.
        rounded: values that another dtype changed, but for shards that are `uncounted`.
        overflowed: finite values that it made infinite.
        left_out: weights beside the checkpoint that were not copied.
        notes: what users should know of.
        kept: shards that an earlier, interrupted run had finished.
        uncounted: those of them of whose values nothing is known. Work in parts notes what
            each saw.
        workers: what each process did, if others did the work.
        seconds: time it took.
    """

    out: Path
    kind: str
    identity: str
    files: dict[str, str]
    nbytes: int
    tensors: int
    dtype: str | None
    narrower: tuple[Narrowing, ...]
    rounded: int
    overflowed: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    kept: tuple[str, ...]
    uncounted: tuple[str, ...]
    workers: tuple[WorkerReport, ...]
    seconds: float

    @classmethod
    def complete(
        cls,
        out: Path,
        making: Making,
        writer: ModelWriter,
        seen: Seen,
        *,
        kept: Sequence[str],
        uncounted: Sequence[str] = (),
        workers: Sequence[WorkerReport] = (),
        started: float,
    ) -> Self:
        """Write what is no weights, make the folder appear, and say what it holds.

        Args:
            out: the folder.
            making: what was written.
            writer: has written, or was told of, all weights and their index.
            seen: what was noticed of their values.
            kept: see the attribute, as for the others.
            uncounted: likewise.
            workers: likewise.
            started: when, on the monotonic clock.
        """
        identity, notes = making.complete(writer)
        written, source = writer.written, making.source
        return cls(
            out=out,
            kind=source.found.kind.label,
            identity=identity,
            files=written.files,
            nbytes=written.nbytes,
            tensors=len(written.tensors),
            dtype=making.dtype,
            narrower=() if uncounted else seen.narrower(making.model.specs),
            rounded=seen.changes.rounded,
            overflowed=seen.changes.overflowed,
            left_out=source.left_out,
            notes=notes,
            kept=tuple(kept),
            uncounted=tuple(uncounted),
            workers=tuple(workers),
            seconds=time.monotonic() - started,
        )


def convert(
    source: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> ConvertResult:
    """Write the checkpoint at `source` as safetensors, in a new folder `out`.

    Args:
        source: a checkpoint of any kind that can be read: folder, index, file, or model
            on the Hub.
        out: folder to make; appears complete, or not at all.
        dtype: `float16`, `bfloat16` or `float32`: what floats become, rounded to nearest,
            ties to even. `smallest`: floats of each dtype become the smallest of these
            that holds every value of theirs, bit for bit, or stay; see
            `releasekit.smallest`. By default they stay as they are.
        shard_nbytes: most bytes of tensors in a file that holds more than one.
        force: replace `out` if it exists.
        threads: worker threads; by default two a processor, as they wait for the disk.
        max_memory: bytes of host memory to use at most; fewer threads are used if need be.
        progress: called with the state of each stage.

    Raises:
        UsageError: if a path or an option is wrong, or `out` exists.
        FormatError: if `source` is malformed.
        IntegrityError: if a file of `source` is cut short meanwhile, or changes between
            the two times that `smallest` reads it.
        OSError: if the system fails; the same call goes on with what is done.
    """
    started = time.monotonic()
    out, wish = Path(out), Wish(dtype=dtype, shard_nbytes=shard_nbytes)
    wish.check()
    with ExitStack() as stack:
        at = stack.enter_context(reach(source, progress))
        check_output(out, force=force, inputs=(at.path,))
        opened = stack.enter_context(Source.opened(at, wish))
        survey = None
        if dtype == SMALLEST:
            survey = smallest.survey(
                opened.checkpoint,
                AMONG,
                threads=threads,
                max_memory=max_memory,
                progress=progress,
            )
        making = opened.making(survey)
        resources = resources_for(making.shards, threads, max_memory)
        with OutputFolder(out, key=opened.key, force=force, inputs=(at.path,)) as folder:
            folder.require_space(shard.layout.file_size for shard in making.shards)
            writer = ModelWriter(folder, making.model, making.shards)
            writer.write(resources, progress)
            kept = writer.written.kept
            return ConvertResult.complete(
                out,
                making,
                writer,
                Seen.of(making.model),
                kept=kept,
                uncounted=kept,
                started=started,
            )
