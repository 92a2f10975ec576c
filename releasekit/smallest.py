"""The smallest dtypes that hold the floats of a checkpoint, bit for bit.

Floats of a dtype become the smallest that holds every value of every tensor of that dtype;
none becomes wider, and what no smaller dtype holds stays. So a model in bf16 with norms in
fp32 keeps these, unless they too are bf16 numbers; and one value that needs its dtype keeps
all of that dtype, since a model whose layers differ in dtype for no reason surprises.
Buffers that libraries compute, and once stored in fp32 beside weights of any dtype, neither
decide nor change: else FreeWilly2's rotary frequencies would keep all of it in fp32.

Where dtypes of one size hold the same values (float16 and bfloat16 both hold 0 and 1), the
one is taken that more of the model's elements have or must become, and else bfloat16.

One pass reads what is wider than need be, and leaves out the rest as soon as all smaller
dtypes are ruled out: of most models it reads one piece. Several processes may each read
some of the tensors; `merged` is what one would have found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.codec.formats import castable
from releasekit.model_writer import NEED, PIECE
from releasekit.names import shown
from releasekit.operations import is_buffer
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import share_out
from releasekit.statistics.diff import Narrowing
from releasekit.statistics.narrowing import Holding, narrower
from releasekit.statistics.wording import listed
from releasekit.tensors import DType, TensorSpec

_Specs = Mapping[str, TensorSpec]
#: For each dtype, and each smaller one that does not hold its values, what tensor shows it.
Obstacles = Mapping[DType, Mapping[DType, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the values of a checkpoint need.

    Attributes:
        holding: which smaller dtypes hold them.
        obstacles: for each dtype, and each smaller one that does not hold its values, the
            first tensor that shows it, in the order of reading.
    """

    holding: Holding
    obstacles: Obstacles

    def stays(self) -> Iterator[str]:
        """A sentence for each dtype that no smaller one can stand for."""
        for dtype, obstacles in self.obstacles.items():
            if self.holding.holders(dtype):
                continue
            by_name: dict[str, list[str]] = {}
            for other, name in obstacles.items():
                by_name.setdefault(name, []).append(other.label)
            reasons = "; ".join(
                f"{listed(labels)} cannot hold all of {shown(name)}"
                for name, labels in by_name.items()
            )
            yield f"{dtype.label} stays: {reasons}"


def weights(specs: _Specs) -> dict[str, TensorSpec]:
    """All but the buffers that model libraries compute."""
    return {name: spec for name, spec in specs.items() if not is_buffer(name)}


def unseen(specs: _Specs, among: Iterable[DType]) -> Holding:
    """For each dtype of a checkpoint those `among` the smaller ones, before any is read."""
    known = tuple(among)
    found = dict.fromkeys(spec.dtype for spec in weights(specs).values())
    smaller = {dtype: tuple(o for o in narrower(dtype) if o in known) for dtype in found}
    return Holding({dtype: others for dtype, others in smaller.items() if others})


def wide(specs: _Specs, among: Iterable[DType]) -> list[TensorSpec]:
    """Tensors of dtypes that some `among` the smaller ones might stand for."""
    holding = unseen(specs, among)
    return [spec for spec in weights(specs).values() if holding.holders(spec.dtype)]


def survey(
    checkpoint: Checkpoint,
    among: Sequence[DType],
    *,
    names: Collection[str] | None = None,
    threads: int | None,
    max_memory: int,
    progress: ProgressCallback | None,
) -> Survey:
    """Read which dtypes `among` those that are smaller hold a checkpoint's floats.

    Args:
        checkpoint: what to read.
        among: dtypes that floats may become.
        names: the tensors to read, of those that are `wide`; by default all of them.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most.
        progress: called with the bytes that were read, or need not be.

    Raises:
        UsageError: if the memory does not suffice.
        FormatError, IntegrityError: as the checkpoint's `read`.
    """
    holding = unseen(checkpoint.specs, among)
    asked = [
        spec
        for spec in wide(checkpoint.specs, among)
        if names is None or spec.name in names
    ]
    obstacles: dict[DType, dict[DType, str]] = {spec.dtype: {} for spec in asked}
    resources = share_out(NEED, threads=threads, max_memory=max_memory)
    stage = Stage(progress, "read", sum(spec.nbytes for spec in asked))

    def pieces() -> Iterator[tuple[TensorSpec, int]]:
        for spec in asked:
            for start in range(0, spec.nbytes, PIECE):
                if not holding.holders(spec.dtype):  # asked again: reading goes on
                    stage.advance(spec.nbytes - start)
                    break
                yield spec, start

    def look(item: tuple[TensorSpec, int], space: NDArray[np.uint8]) -> tuple[DType, ...]:
        spec, start = item
        data = space[: min(PIECE, spec.nbytes - start)]
        checkpoint.read(spec.name, start, data)
        return holding.look(data, spec.dtype)

    with Workers(resources.threads) as workers:
        looked = workers.in_order(look, pieces(), resources.buffers())
        with closing(looked):
            for (spec, start), found in looked:
                # In order, so that on any number of threads the same tensor is named.
                for other in holding.holders(spec.dtype):
                    if other not in found:
                        obstacles[spec.dtype][other] = spec.name
                holding.take(spec.dtype, found)
                stage.advance(min(PIECE, spec.nbytes - start))
    return Survey(holding=holding, obstacles=obstacles)


def merged(specs: _Specs, among: Sequence[DType], found: Iterable[Obstacles]) -> Survey:
    """What one pass would have found where several read some of the tensors each.

    Args:
        specs: all tensors of the checkpoint.
        among: dtypes that floats may become.
        found: what each of the surveys found, of all tensors that are `wide`, in the order
            of these.
    """
    holding = unseen(specs, among)
    obstacles: dict[DType, dict[DType, str]] = {s.dtype: {} for s in wide(specs, among)}
    for part in found:
        for dtype, others in part.items():
            for other, name in others.items():
                obstacles[dtype].setdefault(other, name)
    for dtype, others in obstacles.items():
        # Whatever was ruled out has the tensor that did so.
        kept = tuple(other for other in holding.holders(dtype) if other not in others)
        holding.take(dtype, kept)
    return Survey(holding=holding, obstacles=obstacles)


def choose(specs: _Specs, holding: Holding) -> dict[DType, DType]:
    """What floats of each dtype become that need not stay as they are."""
    elements = elements_by_dtype(specs)
    smallest: dict[DType, list[DType]] = {}
    for dtype in elements:
        holders = holding.holders(dtype)
        least = min((other.bits for other in holders), default=0)
        smallest[dtype] = [other for other in holders if other.bits == least] or [dtype]
    decided: Counter[DType] = Counter()
    for dtype, options in smallest.items():
        if len(options) == 1:
            decided[options[0]] += elements[dtype]

    def rank(option: DType) -> tuple[int, bool]:
        return decided[option], option is DType.BF16

    chosen = {dtype: max(options, key=rank) for dtype, options in smallest.items()}
    return {dtype: other for dtype, other in chosen.items() if other is not dtype}


def narrowings(specs: _Specs, holding: Holding) -> tuple[Narrowing, ...]:
    """Dtypes that are wider than their values need; what `choose` takes is named first."""
    found = []
    for dtype, other in choose(specs, holding).items():
        counted = weights(specs).values()
        sizes = [s.nbytes for s in counted if s.dtype is dtype and s.nbytes]
        if sizes:
            rest = (o for o in holding.holders(dtype) if o is not other)
            holders = (other, *rest)
            found.append(
                Narrowing(
                    dtype=dtype, holders=holders, tensors=len(sizes), nbytes=sum(sizes)
                )
            )
    return tuple(found)


def elements_by_dtype(specs: _Specs) -> Counter[DType]:
    """Number of elements of each float dtype."""
    found: Counter[DType] = Counter()
    for spec in weights(specs).values():
        if castable(spec.dtype, spec.dtype):  # to itself: those that a cast knows
            found[spec.dtype] += spec.numel
    return found
