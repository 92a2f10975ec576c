"""Write any checkpoint that can be read as sharded, hashed safetensors.

Values are those of the source, bit for bit, unless another dtype is asked for: then floats
are rounded to nearest, ties to even, and the result says how many values that changed. The
dtype may also be the smallest that holds all values: found in a first pass, and nothing is
rounded. Where no dtype is asked for, it is noted on the way whether a smaller one would do.
Files beside the weights are copied; weights in other formats are left out, and named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from releasekit import smallest
from releasekit.checkpoint import StoredCheckpoint, open_found
from releasekit.checkpoint.beside import beside
from releasekit.checkpoint.derived import Cast, Watched
from releasekit.checkpoint.discover import Found, find
from releasekit.checkpoint.locate import locate
from releasekit.checkpoint.meta import MetaCheckpoint, hf_config
from releasekit.codec.cast import Changes
from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.manifest import SUMS
from releasekit.model_writer import ModelWriter, resources_for
from releasekit.names import refuse_clashes
from releasekit.output import OutputFolder, check_output, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.sharding import DEFAULT_SHARD_NBYTES, lay_out
from releasekit.statistics.diff import Narrowing
from releasekit.tensors import DType, TensorSpec

#: What people call the dtypes that a model may be converted to.
FLOATS: Final = {
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float32": DType.F32,
}
#: Instead of one of these: the smallest of them that holds every value.
SMALLEST: Final = "smallest"
CONFIG: Final = "config.json"
_MAX_CONFIG: Final = 1 << 20
_UNKNOWN: Final = (
    "config.json is made from params.json, which does not say the longest context and the "
    "special tokens: add them"
)
_NONE_WIDER: Final = "floats stay: none is of more than 16 bits"
_SCALED: Final = ", and rope_scaling, since this model scales positions"


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
            asked for, and where shards were kept: this run has not seen their values.
        rounded: values that another dtype changed, in the files that this run wrote.
        overflowed: finite values that it made infinite.
        left_out: weights beside the checkpoint that were not copied.
        notes: what users should know of.
        kept: shards that an earlier, interrupted run had finished.
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
    seconds: float


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
    source, out = locate(source, progress), Path(out)
    if dtype is not None and dtype not in (*FLOATS, SMALLEST):
        known = ", ".join((*FLOATS, SMALLEST))
        raise UsageError(f"dtype {dtype}: expected one of {known}")
    if shard_nbytes < 1:
        raise UsageError(f"shard size: expected at least 1 byte, found {shard_nbytes}")
    check_output(out, force=force, inputs=(source,))
    found = find(source)
    with open_found(found) as checkpoint:
        if not checkpoint.specs:
            raise UsageError(f"{source}: holds no tensors; there is nothing to convert")
        work = _work(checkpoint, dtype, threads, max_memory, progress)
        shards = lay_out(work.model.specs.values(), shard_nbytes)
        resources = resources_for(shards, threads, max_memory)
        names, left_out = beside(found)
        own = [CONFIG, SUMS, *(shard.name for shard in shards)]
        clashing = [name for name in names if name not in (CONFIG, SUMS)]
        refuse_clashes([*clashing, *own], str(found.root))
        key = _key(checkpoint, found, work, shard_nbytes, names)
        with OutputFolder(out, key=key, force=force, inputs=(source,)) as folder:
            sizes = [shard.layout.file_size for shard in shards]
            require_space(folder.partial, sizes, folder.used_nbytes())
            writer = ModelWriter(folder, work.model, shards)
            writer.write(resources, progress)
            writer.others(beside_as_written(found.root, names, work.stated))
            notes = [*work.notes]
            if isinstance(checkpoint, MetaCheckpoint) and CONFIG not in names:
                config = hf_config(checkpoint.params, work.model.specs)
                writer.small(CONFIG, _packed(config))
                notes.append(_UNKNOWN + _SCALED * checkpoint.params.use_scaled_rope)
            identity = writer.finish()
    written = writer.written
    return ConvertResult(
        out=out,
        kind=found.kind.label,
        identity=identity,
        files=written.files,
        nbytes=written.nbytes,
        tensors=len(written.tensors),
        dtype=work.dtype,
        narrower=() if written.kept else work.narrower,
        rounded=work.changes.rounded,
        overflowed=work.changes.overflowed,
        left_out=tuple(left_out),
        notes=tuple(notes),
        kept=tuple(written.kept),
        seconds=time.monotonic() - started,
    )


def float_dtype(name: str | None) -> DType | None:
    """The dtype that people call so; UsageError if there is none."""
    if name is None:
        return None
    if name not in FLOATS:
        raise UsageError(f"dtype {name}: expected one of {', '.join(FLOATS)}")
    return FLOATS[name]


def dtype_name(dtype: DType) -> str:
    """What people call a float dtype."""
    return next(name for name, known in FLOATS.items() if known is dtype)


def source_state(checkpoint: StoredCheckpoint, found: Found) -> list[object]:
    """What tells an unchanged checkpoint from one that was changed, but for its bytes."""
    return [
        [name, size, (found.root / name).stat().st_mtime_ns]
        for name, size in checkpoint.file_sizes.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What becomes of the floats.

    Attributes:
        model: what is written.
        dtype: what floats become; None if they stay.
        stated: the dtype that a config is to state; None if it is right as it is.
        shaping: tells work from other work on the same files.
        notes: what users should know of.
    """

    model: Cast | Watched
    dtype: str | None = None
    stated: DType | None = None
    shaping: object = None
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> Changes:
        """What was lost of the values that were read."""
        return self.model.changes if isinstance(self.model, Cast) else Changes()

    @property
    def narrower(self) -> tuple[Narrowing, ...]:
        """Once all was read: which dtypes are wider than need be."""
        if isinstance(self.model, Cast):
            return ()
        return smallest.narrowings(self.model.specs, self.model.holding)


def _work(
    checkpoint: StoredCheckpoint,
    dtype: str | None,
    threads: int | None,
    max_memory: int,
    progress: ProgressCallback | None,
) -> _Work:
    """Decide it; to find the smallest dtypes, read what is wide."""
    specs, floats = checkpoint.specs, FLOATS.values()
    if dtype is None:
        return _Work(model=Watched(checkpoint, smallest.unseen(specs, floats)))
    if dtype != SMALLEST:
        to = FLOATS[dtype]
        return _Work(model=Cast(checkpoint, to), dtype=dtype, stated=to, shaping=dtype)
    found = smallest.survey(
        checkpoint, floats, threads=threads, max_memory=max_memory, progress=progress
    )
    casts = smallest.choose(specs, found.holding)
    counted = smallest.weights(specs).items()
    names = {name: casts[spec.dtype] for name, spec in counted if spec.dtype in casts}
    model = Cast(checkpoint, names, lossless=True)
    changed = {name: spec for name, spec in model.specs.items() if spec != specs[name]}
    return _Work(
        model=model,
        dtype=dtype_name(most) if (most := _most(changed)) else None,
        stated=_most(model.specs) if casts else None,
        # The choice, too: what an interrupted run left must have been chosen alike.
        shaping=[SMALLEST, *([a.label, b.label] for a, b in casts.items())],
        notes=list(found.stays()) if found.obstacles else [_NONE_WIDER],
    )


def _most(specs: Mapping[str, TensorSpec]) -> DType | None:
    """The dtype that most floats have; of equals the first."""
    counts = smallest.elements_by_dtype(specs)
    return max(counts, key=counts.__getitem__, default=None)


def _key(
    checkpoint: StoredCheckpoint,
    found: Found,
    work: _Work,
    shard_nbytes: int,
    names: list[str],
) -> str:
    """Names the work by all that shapes it, but for the values in the files."""
    shaping = [source_state(checkpoint, found), work.shaping, shard_nbytes, names]
    return f"convert {sha256_hex(json.dumps(shaping).encode())}"


def beside_as_written(
    root: Path, names: Iterable[str], dtype: DType | None
) -> dict[str, Path | bytes]:
    """Files that go with a model that is written anew: where they are, or what they hold.

    The config is told of another dtype, since loaders go by what it says. A list of digests
    is left out: it is of other files.
    """
    files: dict[str, Path | bytes] = {name: root / name for name in names if name != SUMS}
    config = root / CONFIG
    stated = next((name for name, known in FLOATS.items() if known is dtype), None)
    if CONFIG in files and stated and config.stat().st_size <= _MAX_CONFIG:
        files[CONFIG] = _with_dtype(config.read_bytes(), stated)
    return files


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """A config with another dtype; as it is if it is none, has none, or has that."""
    try:
        fields = json.loads(config)
    except (ValueError, RecursionError):  # the latter if it is nested deeply
        return config
    if not isinstance(fields, dict):
        return config
    named = {name: dtype for name in ("dtype", "torch_dtype") if name in fields}
    if named.items() <= fields.items():
        return config
    return _packed(fields | named)


def _packed(fields: Mapping[str, object]) -> bytes:
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()
