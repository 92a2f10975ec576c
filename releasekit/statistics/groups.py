"""Figures of many tensors together: by kind, by layer, by module.

A model may have ten thousand tensors; a page has room for some hundred figures. Experts of
a layer count as one module, layers beyond `MOST_LAYERS` are joined with their neighbours,
and what is beyond the other bounds is summed up as one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from releasekit.statistics.changes import plus
from releasekit.statistics.diff import TensorDiff
from releasekit.statistics.places import Kind, Place, place
from releasekit.statistics.values import Values

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")

#: Columns and rows of a grid of layers and modules, at most.
MOST_LAYERS: Final = 160
MOST_MODULES: Final = 40
_MOST_STACKS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tensors taken together.

    Attributes:
        tensors: how many there are.
        nbytes: their size, in B where B has them.
        published: bytes that a release has for them; None outside a release.
        words: words that were compared.
        same: those that are equal.
        squares: sum of the squares of the update, of floats; None if not known.
        before: sum of the squares of what was updated; None likewise.
        values: what the floats are like, in B where B has them; None if there are none.
    """

    tensors: int = 0
    nbytes: int = 0
    published: int | None = None
    words: int = 0
    same: int = 0
    squares: float | None = 0.0
    before: float | None = 0.0
    values: Values | None = None

    @property
    def share_same(self) -> float | None:
        """Share of words that are equal; None if none were compared."""
        return self.same / self.words if self.words else None

    @property
    def relative(self) -> float | None:
        """L2 norm of the update, divided by that of what was updated."""
        if self.squares is None or not self.before or not self.words:
            return None
        return math.sqrt(self.squares) / math.sqrt(self.before)

    @classmethod
    def of(cls, tensors: Iterable[TensorDiff]) -> Group:
        """These, taken together."""
        count = nbytes = words = same = 0
        published: int | None = None
        squares: float | None = 0.0
        before: float | None = 0.0
        values: Values | None = None
        for tensor in tensors:
            side = tensor.second or tensor.first
            count += 1
            nbytes += tensor.nbytes
            if side is not None and side.published is not None:
                published = (published or 0) + side.published
            if tensor.change is not None:
                words += tensor.change.words
                same += tensor.change.same
                if tensor.change.update is not None and tensor.is_float:
                    squares = plus(squares, tensor.change.update.squares)
                    before = plus(before, tensor.change.update.before)
            if tensor.is_float and side is not None and side.values is not None:
                values = side.values if values is None else values + side.values
        return cls(
            tensors=count,
            nbytes=nbytes,
            published=published,
            words=words,
            same=same,
            squares=squares,
            before=before,
            values=values,
        )

    def __add__(self, other: Group) -> Group:
        published = self.published
        if other.published is not None:
            published = (published or 0) + other.published
        values = other.values
        if values is not None and self.values is not None:
            values = self.values + values
        return Group(
            tensors=self.tensors + other.tensors,
            nbytes=self.nbytes + other.nbytes,
            published=published,
            words=self.words + other.words,
            same=self.same + other.same,
            squares=plus(self.squares, other.squares),
            before=plus(self.before, other.before),
            values=self.values if values is None else values,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The layers of a model, in order.

    Attributes:
        labels: what each is called; with several stacks, or several layers in one, so.
        kinds: the tensors of each layer by kind, without kinds that it has not.
        modules: names of the modules within layers, of one kind next to each other.
        grid: for each module its tensors in each layer; None where there are none.
        joined: how many modules stand together in the last row; 0 if it is one of its own.
    """

    labels: tuple[str, ...]
    kinds: tuple[Mapping[Kind, Group], ...]
    modules: tuple[str, ...]
    grid: tuple[tuple[Group | None, ...], ...]
    joined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Tensors by where they belong.

    Attributes:
        kinds: by what they do.
        layers: those of layers.
        outside: those outside, by module, the largest first.
        rest: what `outside` has no room for.
    """

    kinds: Mapping[Kind, Group]
    layers: Layers
    outside: Mapping[str, Group]
    rest: Group | None


def group(tensors: Sequence[TensorDiff]) -> Groups:
    """Sort tensors by their names."""
    placed = [(place(tensor.name), tensor) for tensor in tensors]
    columns, labels = _columns(where for where, _ in placed)
    inside, outside = [], []
    for where, tensor in placed:
        column = columns.get((where.stack, where.layer))
        if column is not None:
            inside.append((column, where, tensor))
        else:
            name = where.module if where.layer is None else tensor.name
            outside.append((name, tensor))
    by_module = _by(outside)
    found = {module: Group.of(of) for module, of in by_module.items()}
    order = sorted(found, key=lambda module: -found[module].nbytes)
    left = [tensor for module in order[MOST_MODULES:] for tensor in by_module[module]]
    return Groups(
        kinds=_kinds(placed),
        layers=_layers(inside, labels),
        outside={module: found[module] for module in order[:MOST_MODULES]},
        rest=Group.of(left) if left else None,
    )


def _columns(
    places: Iterable[Place],
) -> tuple[dict[tuple[str, int | None], int], tuple[str, ...]]:
    """The column of each layer, and what columns are called."""
    stacks: dict[str, set[int]] = {}
    for where in places:
        if where.layer is not None:
            stacks.setdefault(where.stack, set()).add(where.layer)
    # Those of many layers first; of the others there may be any number.
    kept = sorted(stacks, key=lambda stack: -len(stacks[stack]))[:_MOST_STACKS]
    stacks = {stack: numbers for stack, numbers in stacks.items() if stack in kept}
    step = -(-sum(map(len, stacks.values())) // MOST_LAYERS) or 1
    columns: dict[tuple[str, int | None], int] = {}
    labels: list[str] = []
    for stack, numbers in stacks.items():
        ordered = sorted(numbers)
        for at in range(0, len(ordered), step):
            some = ordered[at : at + step]
            label = str(some[0]) if len(some) == 1 else f"{some[0]}–{some[-1]}"
            columns |= dict.fromkeys(((stack, number) for number in some), len(labels))
            labels.append(label if len(stacks) == 1 else f"{_short(stack, stacks)} {label}")
    return columns, tuple(labels)


def _short(stack: str, stacks: Iterable[str]) -> str:
    """What tells a stack from the others: the first part of its name that does."""
    parts = stack.split(".")
    others = [other.split(".") for other in stacks if other != stack]
    for at, part in enumerate(parts):
        if all(other[at : at + 1] != [part] for other in others):
            return part
    return stack


def _layers(
    inside: Sequence[tuple[int, Place, TensorDiff]], labels: tuple[str, ...]
) -> Layers:
    modules = _by((where.module, (column, tensor)) for column, where, tensor in inside)
    kinds = {where.module: where.kind for _, where, _ in inside}
    sizes = {name: sum(t.nbytes for _, t in of) for name, of in modules.items()}
    largest = sorted(modules, key=lambda name: -sizes[name])
    kept = set(largest if len(largest) <= MOST_MODULES else largest[: MOST_MODULES - 1])
    order = list(Kind)
    # Within a kind as in the files: q, k, v, o.
    names = sorted(
        (name for name in modules if name in kept),
        key=lambda name: order.index(kinds[name]),
    )
    rows = {name: modules[name] for name in names}
    joined = len(largest) - len(kept)
    if joined:
        rows[f"{joined} modules more"] = [
            one for name in largest if name not in kept for one in modules[name]
        ]
    by_layer = _by((column, (where, tensor)) for column, where, tensor in inside)
    return Layers(
        labels=labels,
        kinds=tuple(_kinds(by_layer.get(column, [])) for column in range(len(labels))),
        modules=tuple(rows),
        grid=tuple(_row(of, len(labels)) for of in rows.values()),
        joined=joined,
    )


def _row(of: Iterable[tuple[int, TensorDiff]], columns: int) -> tuple[Group | None, ...]:
    found = _by(of)
    return tuple(Group.of(found[c]) if c in found else None for c in range(columns))


def _kinds(placed: Iterable[tuple[Place, TensorDiff]]) -> dict[Kind, Group]:
    found = _by((where.kind, tensor) for where, tensor in placed)
    return {kind: Group.of(found[kind]) for kind in Kind if kind in found}


def _by(pairs: Iterable[tuple[_Key, _Item]]) -> dict[_Key, list[_Item]]:
    found: dict[_Key, list[_Item]] = {}
    for key, item in pairs:
        found.setdefault(key, []).append(item)
    return found
