"""A base and somebody else's additive delta: do they fit, and which recipe is it?

The delta says nothing of itself: it has no digests, and looks like a model. So the headers
are compared, and a few norms are read: a model's are around 1, a delta's around 0, which
tells a delta from a model in either's place. What cannot be told is which base it was made
from; that shows only in the result, whose digests are there to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Final

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.traits import is_blank, quantisation, sizes_of_norms
from releasekit.codec.formats import castable
from releasekit.errors import BaseMismatchError, UsageError
from releasekit.foreign.recipes import AUTO, RECIPES, Recipe
from releasekit.names import listed, shown
from releasekit.operations import is_buffer
from releasekit.tensors import DType, TensorSpec

#: Mean size of a norm's weights up to which it may be a delta's, and from which a model's.
_DELTA: Final = 0.01
_MODEL: Final = 0.05
#: How many times as large a base's may be if both are deltas, or both are models.
_ALIKE: Final = 4
_INTEGERS: Final = frozenset(
    (DType.U8, DType.I8, DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64)
)
_PROJECTOR: Final = "mm_projector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is to be added up.

    Attributes:
        recipe: how.
        why: how it was recognised, for people.
        skip: tensors of the delta that the result does not have.
        notes: what users should know of, though it is no fault.
    """

    recipe: Recipe
    why: str
    skip: frozenset[str]
    notes: tuple[str, ...]


def pair_up(base: Checkpoint, delta: Checkpoint, recipe: str = AUTO) -> Pair:
    """Check that a delta can be added to a base, from headers and a few small tensors.

    Args:
        base: the base.
        delta: somebody else's delta.
        recipe: a name in `RECIPES`, for which norms of an odd size are no fault; or `auto`.

    Raises:
        UsageError: if there is no such recipe, or `delta` is a model.
        BaseMismatchError: if `base` is not the delta's, or a delta itself.
    """
    if recipe != AUTO and recipe not in RECIPES:
        raise UsageError(f"recipe {recipe}: expected {AUTO}, xor, {', '.join(RECIPES)}")
    if not delta.specs:
        raise UsageError(f"{delta.subject}: holds no tensors; there is nothing to add")
    skip = frozenset(n for n in delta.specs if is_buffer(n))
    _check_names(base, delta, skip)
    grown = _check_shapes(base, delta, skip)
    if recipe == AUTO:
        _check_norms(base, delta)
    found, why = _recognised(base, delta, grown)
    if recipe != AUTO:
        found, why = RECIPES[recipe], "as asked for"
    return Pair(
        recipe=found,
        why=why,
        skip=skip,
        notes=tuple(_notes(base, delta, skip, grown, found)),
    )


def _check_names(base: Checkpoint, delta: Checkpoint, skip: frozenset[str]) -> None:
    how = quantisation(base, (name for name in base.specs if name not in delta.specs))
    if how is not None:
        raise BaseMismatchError(f"{base.subject}: {how}")
    lacking = [n for n in base.specs if n not in delta.specs and not is_buffer(n)]
    shared = [n for n in delta.specs if n in base.specs and n not in skip]
    if not shared:
        raise BaseMismatchError(
            f"{base.subject}: has none of the delta's tensors, such as "
            f"{shown(next(iter(delta.specs)))}: it is another architecture, or has other "
            "names; get the base that the delta's card names, in Hugging Face's layout"
        )
    strange = [
        name
        for name in delta.specs
        if name not in base.specs and name not in skip and _is_of_a_layer(name)
    ]
    if strange:
        raise BaseMismatchError(
            f"{base.subject}: {len(strange)} of the delta's {len(delta.specs)} tensors are "
            f"missing: {listed(strange)}: the base is incomplete, such as one shard of "
            "several, or it is another model"
        )
    if lacking:
        raise BaseMismatchError(
            f"{base.subject}: {len(lacking)} of its {len(base.specs)} tensors are not in "
            f"the delta: {listed(lacking)}: the delta is incomplete, or was made from "
            "another base"
        )


def _check_shapes(
    base: Checkpoint, delta: Checkpoint, skip: frozenset[str]
) -> list[TensorSpec]:
    """The delta's tensors with more rows than the base's; all others fit."""
    grown = []
    for name, spec in delta.specs.items():
        source = base.specs.get(name)
        if source is None or name in skip:
            continue
        if not _have_sum(source.dtype, spec.dtype):
            raise BaseMismatchError(
                f"{base.subject}: tensor {shown(name)}: {source.dtype.label} and the "
                f"delta's {spec.dtype.label} cannot be added: this is not its base"
            )
        if source.shape == spec.shape:
            continue
        rows_alone = spec.shape[1:] == source.shape[1:] and source.shape and source.numel
        if not rows_alone or _is_of_a_layer(name):
            raise BaseMismatchError(
                f"{base.subject}: tensor {shown(name)}: expected {list(spec.shape)} as in "
                f"the delta, found {list(source.shape)}: this is a base of another size"
            )
        if source.shape[0] > spec.shape[0]:
            raise BaseMismatchError(
                f"{base.subject}: tensor {shown(name)}: expected at most {spec.shape[0]} "
                f"rows as in the delta, found {source.shape[0]}: a token, such as [PAD], "
                "was added to this base; get the original one"
            )
        grown.append(spec)
    return grown


def _is_of_a_layer(name: str) -> bool:
    """Whether a tensor is one layer's, which no base lacks, and no token makes larger."""
    return _PROJECTOR not in name and any(part.isdecimal() for part in name.split("."))


def _have_sum(base: DType, delta: DType) -> bool:
    """Whether the scripts can add tensors of these dtypes, and keep what they are."""
    if castable(base, DType.F32) or castable(delta, DType.F32):
        return castable(base, DType.F32) and castable(delta, DType.F32)
    return base is delta and base in _INTEGERS


def _check_norms(base: Checkpoint, delta: Checkpoint) -> None:
    """Refuse a model in the delta's place, and a delta in the base's."""
    bases, deltas = sizes_of_norms(base), sizes_of_norms(delta)
    if not bases or not deltas:
        return
    of_base, of_delta = median(bases.values()), median(deltas.values())
    alike = of_base <= _ALIKE * of_delta
    if of_base < _DELTA and alike and not is_blank(base):
        raise BaseMismatchError(
            f"{base.subject}: the weights of its norms are around {of_base:.2g}, a model's "
            "around 1: this is a delta, not a base; give the base model with --base, or, "
            "if it is one, name a --recipe"
        )
    if of_delta > _MODEL and alike:
        raise UsageError(
            f"{delta.subject}: the weights of its norms are around {of_delta:.2g}, a "
            "delta's around 0: this is a whole model, which needs no base; use it as it "
            "is, or, if it is a delta, name a --recipe"
        )


def _recognised(
    base: Checkpoint, delta: Checkpoint, grown: list[TensorSpec]
) -> tuple[Recipe, str]:
    """The publisher's script, as far as headers tell."""
    if any(_PROJECTOR in name and name not in base.specs for name in delta.specs):
        return RECIPES["llava"], f"it brings a {_PROJECTOR} of its own"
    dtypes = {spec.dtype for spec in delta.specs.values()}
    if grown and dtypes == {DType.F32}:
        rows = grown[0].shape[0] - base.specs[grown[0].name].shape[0]
        return RECIPES["alpaca"], f"it is float32, with {rows} more rows than the base"
    return RECIPES["fastchat"], "an additive delta of the usual kind"


def _notes(
    base: Checkpoint,
    delta: Checkpoint,
    skip: frozenset[str],
    grown: list[TensorSpec],
    recipe: Recipe,
) -> Iterator[str]:
    if skip or any(map(is_buffer, base.specs)):
        yield (
            "rotary_emb.inv_freq buffers are ignored: model libraries compute them, and no "
            "longer store them"
        )
    for spec in grown:
        have = base.specs[spec.name].shape[0]
        yield (
            f"{spec.name}: the base has {have} rows, the delta {spec.shape[0]}: those that "
            f"the base lacks count {recipe.rows.value}, as in {recipe.name}'s script"
        )
    floats = {s.dtype for s in base.specs.values() if castable(s.dtype, DType.F32)}
    if floats == {DType.BF16} and recipe.dtype is not DType.BF16:
        yield (
            "the base is bfloat16, and the publisher's script adds in "
            f"{recipe.dtype.label}: if this copy was rounded from float16, the result is "
            "not the publisher's"
        )
    if is_blank(base):
        yield (
            f"{base.subject}: holds zeros wherever it was looked at: files that were "
            "reserved, and not downloaded, look so"
        )
    new = [name for name in delta.specs if name not in base.specs and name not in skip]
    if new:
        yield f"{len(new)} tensors are the delta's alone, taken as they are: {listed(new)}"
