"""Apply somebody else's additive delta: base + delta, as the publisher's script adds them.

The sum is read as a checkpoint is (`added`), and written as any is (`model_writer`), so it
streams in bounded memory, resumes, and appears whole or not at all. The delta carries no
digests; those of the result are written to SHA256SUMS beside it, for users to compare.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from releasekit.authenticity import DEFAULT_POLICY, Policy, refuse_unsigned
from releasekit.checkpoint import StoredCheckpoint, open_found
from releasekit.checkpoint.beside import beside
from releasekit.checkpoint.discover import Found, find
from releasekit.checkpoint.locate import locate
from releasekit.conversion import (
    beside_as_written,
    dtype_name,
    float_dtype,
    source_state,
)
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError, UsageError
from releasekit.foreign.added import Added
from releasekit.foreign.pair import Pair, pair_up
from releasekit.foreign.recipes import AUTO, Recipe
from releasekit.foreign.sums import TOLERANCE, SumOfWeights, sums_of_buffers
from releasekit.model_writer import ModelWriter, resources_for
from releasekit.output import OutputFolder, check_output, free_nbytes, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.sharding import DEFAULT_SHARD_NBYTES, Shard, lay_out
from releasekit.tensors import DType


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPlan:
    """What applying somebody else's delta reads, writes and needs.

    Attributes:
        recipe: the script whose arithmetic is done.
        why: how the delta was recognised.
        dtype: of the result's floats.
        notes: what users should know of.
        files: paths and sizes of the weight files to write.
        base_nbytes: bytes read from the base.
        delta_nbytes: bytes read from the delta.
        write_nbytes: bytes written, which is the disk space needed.
        memory_nbytes: host memory used at most.
        threads: threads that do the work.
        free_nbytes: disk space that is free where the output would lie.
    """

    recipe: str
    why: str
    dtype: str
    notes: tuple[str, ...]
    files: dict[str, int]
    base_nbytes: int
    delta_nbytes: int
    write_nbytes: int
    memory_nbytes: int
    threads: int
    free_nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignResult:
    """What was rebuilt from somebody else's delta.

    Attributes:
        out: the folder.
        recipe: the script whose arithmetic was done.
        why: how the delta was recognised.
        dtype: of the result's floats; None if bytes were combined.
        identity: identity of the rebuilt checkpoint; None if bytes were combined.
        files: SHA-256 of each file by path.
        nbytes: total size.
        sum: sum of all weights, as stanford_alpaca's script takes it, but for buffers.
        sum_with_buffers: the same with the `inv_freq` buffers that the delta has.
        notes: what users should know of.
        kept: files that an earlier, interrupted run had finished.
        seconds: time it took.
    """

    out: Path
    recipe: str
    why: str
    dtype: str | None
    identity: str | None
    files: dict[str, str]
    nbytes: int
    sum: float | None
    sum_with_buffers: float | None
    notes: tuple[str, ...]
    kept: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """A base and a delta, open and fitting each other, as the model that they make.

    Attributes:
        model: the sum.
        pair: how it is made.
        shards: the files to write it to.
        others: paths of the files to copy from beside the delta.
        found: where the delta is.
        key: names the work.
    """

    model: Added
    pair: Pair
    recipe: Recipe
    shards: tuple[Shard, ...]
    others: tuple[str, ...]
    found: Found
    inputs: tuple[StoredCheckpoint, StoredCheckpoint]
    key: str


@contextmanager
def open_sum(
    base: Path,
    delta: Path,
    *,
    recipe: str = AUTO,
    dtype: str | None = None,
    order: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
) -> Iterator[Sum]:
    """Open a base and an additive delta as one model; raises as `apply_foreign` does."""
    if shard_nbytes < 1:
        raise UsageError(f"shard size: expected at least 1 byte, found {shard_nbytes}")
    changed: DType | None = float_dtype(dtype)
    found, found_base = find(delta), find(base)
    with open_found(found_base) as of_base, open_found(found) as of_delta:
        pair = pair_up(of_base, of_delta, recipe)
        how = pair.recipe.changed(changed, order)
        model = Added(of_base, of_delta, how, pair.skip)
        shards = lay_out(model.specs.values(), shard_nbytes)
        others = beside(found)[0]
        shaping = [
            source_state(of_base, found_base),
            source_state(of_delta, found),
            [how.name, how.dtype.label, how.order.value, how.rows.value],
            [shard_nbytes, others],
        ]
        yield Sum(
            model=model,
            pair=pair,
            recipe=how,
            shards=shards,
            others=tuple(others),
            found=found,
            inputs=(of_base, of_delta),
            key=f"add {sha256_hex(json.dumps(shaping).encode())}",
        )


def plan_foreign(
    base: str | Path,
    delta: str | Path,
    out: str | Path,
    *,
    recipe: str = AUTO,
    dtype: str | None = None,
    order: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> ForeignPlan:
    """Check that `apply_foreign` would start with these arguments, and say what it takes.

    Reads headers and a few small tensors, writes nothing. Raises as `apply_foreign` does.
    """
    base, delta, out = locate(base), locate(delta), Path(out)
    check_output(out, force=force, inputs=(base, delta))
    with open_sum(
        base, delta, recipe=recipe, dtype=dtype, order=order, shard_nbytes=shard_nbytes
    ) as total:
        resources = resources_for(total.shards, threads, max_memory)
        files = {shard.name: shard.layout.file_size for shard in total.shards}
        of_base, of_delta = total.inputs
        return ForeignPlan(
            recipe=total.recipe.name,
            why=total.pair.why,
            dtype=dtype_name(total.recipe.dtype),
            notes=total.pair.notes,
            files=files,
            base_nbytes=sum(spec.nbytes for spec in of_base.specs.values()),
            delta_nbytes=sum(spec.nbytes for spec in of_delta.specs.values()),
            write_nbytes=sum(files.values()),
            memory_nbytes=resources.memory_nbytes,
            threads=resources.threads,
            free_nbytes=free_nbytes(out),
        )


def apply_foreign(
    base: str | Path,
    delta: str | Path,
    out: str | Path,
    *,
    recipe: str = AUTO,
    dtype: str | None = None,
    order: str | None = None,
    expect_sum: float | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    force: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    policy: Policy = DEFAULT_POLICY,
    progress: ProgressCallback | None = None,
) -> ForeignResult:
    """Add somebody else's delta to its base, as a new folder `out` of safetensors.

    Args:
        base: the base: a path, or a model on the Hub.
        delta: the delta, likewise; the files beside its weights are copied.
        out: folder to make; appears complete, or not at all.
        recipe: `fastchat`, `llava` or `alpaca`: whose arithmetic to do (see
            `foreign.recipes`); `auto` goes by the delta's tensors.
        dtype: `float16`, `bfloat16` or `float32`, of sum and result; by default what the
            publisher's script has.
        order: `cast-add`, as the scripts do, or `add-cast`.
        expect_sum: what the sum of all weights must be, within 0.01, as
            stanford_alpaca's script checks it.
        shard_nbytes: most bytes of tensors in a file that holds more than one.
        force: replace `out` if it exists.
        threads: worker threads; by default two a processor, as they wait for the disk.
        max_memory: bytes of host memory to use at most; fewer threads are used if need be.
        policy: what is asked of signatures, which such a delta has none of.
        progress: called with the state of each stage.

    Raises:
        SignatureError: if `policy` wants a signature.
        UsageError: if a path or an option is wrong, `out` exists, or `delta` is a model.
        FormatError: if an input is malformed.
        BaseMismatchError: if `base` cannot be the delta's.
        IntegrityError: if the sum of weights is not the expected one; nothing is left.
        OSError: if the system fails; the same call goes on with what is done.
    """
    started = time.monotonic()
    refuse_unsigned(delta, policy.of(delta))
    base, delta, out = locate(base, progress), locate(delta, progress), Path(out)
    check_output(out, force=force, inputs=(base, delta))
    with open_sum(
        base, delta, recipe=recipe, dtype=dtype, order=order, shard_nbytes=shard_nbytes
    ) as total:
        resources = resources_for(total.shards, threads, max_memory)
        with OutputFolder(out, key=total.key, force=force, inputs=(base, delta)) as folder:
            sizes = [shard.layout.file_size for shard in total.shards]
            require_space(folder.partial, sizes, folder.used_nbytes())
            weights = SumOfWeights(total.model)
            writer = ModelWriter(folder, total.model, total.shards, weights)
            writer.write(resources, progress)
            found = weights.total(total.model.specs)
            buffers = sums_of_buffers(*total.inputs, total.pair.skip)
            with_buffers = weights.total(total.inputs[1].specs, buffers)
            if expect_sum is not None and not any(
                abs(known - expect_sum) <= TOLERANCE for known in (found, with_buffers)
            ):
                folder.discard()
                more = f" ({with_buffers} with buffers)" if buffers else ""
                raise IntegrityError(
                    f"{out}: expected weights whose sum is {expect_sum}, found "
                    f"{found}{more}: the base is not the one that the delta was made from, "
                    "or a file is damaged; nothing was kept"
                )
            others = beside_as_written(total.found.root, total.others, total.recipe.dtype)
            writer.others(others)
            identity = writer.finish()
    written = writer.written
    return ForeignResult(
        out=out,
        recipe=total.recipe.name,
        why=total.pair.why,
        dtype=dtype_name(total.recipe.dtype),
        identity=identity,
        files=written.files,
        nbytes=written.nbytes,
        sum=found,
        sum_with_buffers=with_buffers,
        notes=total.pair.notes,
        kept=tuple(written.kept),
        seconds=time.monotonic() - started,
    )
