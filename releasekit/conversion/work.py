"""What a conversion reads, and what it is to write: the same for whoever writes it.

A `Source` is the model, open. Once it is known what its floats become, which may take a
pass over them, it gives a `Making`: the tensors as they will be, laid out in files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from releasekit import smallest
from releasekit.checkpoint import StoredCheckpoint, open_found
from releasekit.checkpoint.beside import beside
from releasekit.checkpoint.derived import Cast, Watched
from releasekit.checkpoint.discover import Found, find
from releasekit.checkpoint.locate import Located
from releasekit.checkpoint.meta import MetaCheckpoint, hf_config
from releasekit.codec.cast import Changes
from releasekit.conversion.companions import CONFIG, beside_as_written, packed
from releasekit.conversion.dtypes import FLOATS, SMALLEST, dtype_name
from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.manifest import SUMS
from releasekit.model_writer import ModelWriter
from releasekit.names import refuse_clashes
from releasekit.sharding import Shard, lay_out
from releasekit.smallest import Survey
from releasekit.statistics.diff import Narrowing
from releasekit.statistics.narrowing import Holding
from releasekit.tensors import DType, TensorSpec

#: What floats may become, without being rounded.
AMONG: Final = tuple(FLOATS.values())
_UNKNOWN: Final = (
    "config.json is made from params.json, which does not say the longest context and the "
    "special tokens: add them"
)
_NONE_WIDER: Final = "floats stay: none is of more than 16 bits"
_SCALED: Final = ", and rope_scaling, since this model scales positions"
#: What floats become that do not stay: a dtype, and what it becomes.
Casts = tuple[tuple[DType, DType], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of a conversion.

    Attributes:
        dtype: what floats become, as in `convert`.
        shard_nbytes: most bytes of tensors in a file that holds more than one.
    """

    dtype: str | None
    shard_nbytes: int

    def check(self) -> None:
        """Refuse what cannot be done, as UsageError."""
        if self.dtype is not None and self.dtype not in (*FLOATS, SMALLEST):
            known = ", ".join((*FLOATS, SMALLEST))
            raise UsageError(f"dtype {self.dtype}: expected one of {known}")
        if self.shard_nbytes < 1:
            found = self.shard_nbytes
            raise UsageError(f"shard size: expected at least 1 byte, found {found}")


def derive(checkpoint: StoredCheckpoint, dtype: str | None, casts: Casts) -> Cast | Watched:
    """A checkpoint as it is to be written.

    Args:
        checkpoint: what is read.
        dtype: what floats become, as in `convert`.
        casts: for the smallest: what that is.
    """
    specs, to = checkpoint.specs, dict(casts)
    if dtype is None:
        return Watched(checkpoint, smallest.unseen(specs, AMONG))
    if dtype != SMALLEST:
        return Cast(checkpoint, FLOATS[dtype])
    counted = smallest.weights(specs).items()
    names = {name: to[spec.dtype] for name, spec in counted if spec.dtype in to}
    return Cast(checkpoint, names, lossless=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was noticed of values as they were read. It adds up.

    Attributes:
        changes: what was lost of them.
        holders: smaller dtypes that hold all of them, by theirs; only if they stay as they
            are, and for dtypes of which there are such.
    """

    changes: Changes
    holders: Mapping[DType, tuple[DType, ...]]

    @classmethod
    def of(cls, model: Cast | Watched) -> Self:
        """What was noticed of all that was read of a model."""
        if isinstance(model, Cast):
            return cls(changes=model.changes, holders={})
        dtypes = dict.fromkeys(spec.dtype for spec in model.specs.values())
        found = {dtype: model.holding.holders(dtype) for dtype in dtypes}
        return cls(changes=Changes(), holders={d: o for d, o in found.items() if o})

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            changes=self.changes + other.changes,
            holders={
                dtype: tuple(o for o in holders if o in other.holders.get(dtype, ()))
                for dtype, holders in self.holders.items()
            },
        )

    def narrower(self, specs: Mapping[str, TensorSpec]) -> tuple[Narrowing, ...]:
        """Which dtypes of a model are wider than its values need."""
        return smallest.narrowings(specs, Holding(self.holders))


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A model in the making.

    Attributes:
        source: what it is made of.
        model: its tensors.
        shards: the files that they are written to.
        casts: as in `derive`.
        dtype: what floats become; None if they stay.
        stated: the dtype that a config is to state; None if it is right as it is.
        notes: what users should know of.
    """

    source: Source
    model: Cast | Watched
    shards: tuple[Shard, ...]
    casts: Casts
    dtype: str | None
    stated: DType | None
    notes: Sequence[str]

    def complete(self, writer: ModelWriter) -> tuple[str, tuple[str, ...]]:
        """Write what is no weights, and make the folder appear; its identity, and notes."""
        source, notes = self.source, [*self.notes]
        root, names = source.found.root, source.others
        writer.others(beside_as_written(root, names, self.stated))
        if isinstance(source.checkpoint, MetaCheckpoint) and CONFIG not in names:
            params = source.checkpoint.params
            writer.small(CONFIG, packed(hf_config(params, self.model.specs)))
            notes.append(_UNKNOWN + _SCALED * params.use_scaled_rope)
        return writer.finish(), tuple(notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model that is to be converted, open.

    Attributes:
        at: where it is.
        found: its files.
        checkpoint: its tensors.
        wish: what is asked for.
        others: files beside it that are copied, relative to its folder.
        left_out: weights beside it that are not.
    """

    at: Located
    found: Found
    checkpoint: StoredCheckpoint
    wish: Wish
    others: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    @contextmanager
    def opened(cls, at: Located, wish: Wish) -> Iterator[Self]:
        """Open a model.

        Raises:
            UsageError: if there is none, or it holds nothing.
            FormatError: if it is malformed.
        """
        found = find(at.path, coming=at.coming)
        with open_found(found) as checkpoint:
            if not checkpoint.specs:
                raise UsageError(
                    f"{at.path}: holds no tensors; there is nothing to convert"
                )
            others, left_out = beside(found)
            yield cls(
                at=at,
                found=found,
                checkpoint=checkpoint,
                wish=wish,
                others=tuple(others),
                left_out=tuple(left_out),
            )

    @property
    def key(self) -> str:
        """Names the work by all that shapes it, but for the values in the files."""
        shaping = [
            source_state(self.checkpoint, self.found),
            self.wish.dtype,
            self.wish.shard_nbytes,
            self.others,
        ]
        return f"convert {sha256_hex(json.dumps(shaping).encode())}"

    @property
    def wide(self) -> list[TensorSpec]:
        """Tensors that must be read before it is known what floats become."""
        if self.wish.dtype != SMALLEST:
            return []
        return smallest.wide(self.checkpoint.specs, AMONG)

    def making(self, survey: Survey | None) -> Making:
        """What is to be written.

        Args:
            survey: what was found of all that is `wide`; None if the smallest dtypes are
                not asked for.

        Raises:
            FormatError: if a file beside the model has the name of one to be written.
        """
        specs, dtype = self.checkpoint.specs, self.wish.dtype
        casts: Casts = ()
        if survey is not None:
            casts = tuple(smallest.choose(specs, survey.holding).items())
        model = derive(self.checkpoint, dtype, casts)
        stated, notes = FLOATS.get(dtype or ""), []
        if survey is not None:
            changed = {n: spec for n, spec in model.specs.items() if spec != specs[n]}
            dtype = dtype_name(most) if (most := _most(changed)) else None
            stated = _most(model.specs) if casts else None
            notes = [*survey.stays()] if survey.obstacles else [_NONE_WIDER]
        shards = lay_out(model.specs.values(), self.wish.shard_nbytes)
        own = [CONFIG, SUMS, *(shard.name for shard in shards)]
        clashing = [name for name in self.others if name not in (CONFIG, SUMS)]
        refuse_clashes([*clashing, *own], str(self.found.root))
        return Making(
            source=self,
            model=model,
            shards=shards,
            casts=casts,
            dtype=dtype,
            stated=stated,
            notes=notes,
        )


def source_state(checkpoint: StoredCheckpoint, found: Found) -> list[object]:
    """What tells an unchanged checkpoint from one that was changed, but for its bytes."""
    if found.coming is not None:  # a folder of a cache, whose name tells the state of all
        return [*found.root.parts[-2:], *checkpoint.file_sizes.items()]
    return [
        [name, size, (found.root / name).stat().st_mtime_ns]
        for name, size in checkpoint.file_sizes.items()
    ]


def _most(specs: Mapping[str, TensorSpec]) -> DType | None:
    """The dtype that most floats have; of equals the first."""
    counts = smallest.elements_by_dtype(specs)
    return max(counts, key=counts.__getitem__, default=None)
