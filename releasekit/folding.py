"""Many names that differ in numbers alone, as a few.

A model repeats its layers: `layers.0.up.weight` to `layers.79.up.weight` are one line to a
reader, `layers.{0…79}.up.weight`. A number is a run of digits that stands alone, between
dots, underscores or slashes: not that of `fc1` or `w2`. Names with several numbers, as
experts in layers have, are folded in each of them.

A folded name stands for exactly its members: sets that are no product are split until they
are, so that `{0…31}` never hides that layer 7 lacks something.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product
from typing import Final

# Not of more digits than any model has layers; nor 007, which is no other way to write 7.
_NUMBER: Final = re.compile(r"(?<![^\W_])(0|[1-9][0-9]{0,8})(?![^\W_])", re.ASCII)
#: Numbers of a name that may vary, the first ones; bounds how deep `_products` goes.
_PLACES: Final = 8
#: Runs of numbers that are written out.
_RUNS: Final = 4

_Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """Names that are shown as one.

    Attributes:
        name: what stands for them: itself if there is only one.
        members: their places in what was folded, ascending.
    """

    name: str
    members: tuple[int, ...]


def fold(items: Sequence[tuple[str, Hashable]]) -> tuple[Folded, ...]:
    """Fold names that differ in numbers alone, in the order of their first members.

    Args:
        items: names, no two of them equal; with each what must be equal in those that are
            folded together.
    """
    alike: dict[Hashable, dict[_Numbers, int]] = {}
    texts: dict[Hashable, list[str]] = {}
    for place, (name, kind) in enumerate(items):
        parts = _NUMBER.split(name, _PLACES)  # a number at every other place
        key = (tuple(parts[::2]), kind)
        texts[key] = parts[::2]
        alike.setdefault(key, {})[tuple(map(int, parts[1::2]))] = place
    found = [
        Folded(
            name=_joined(texts[key], factors),
            members=tuple(sorted(places[numbers] for numbers in product(*factors))),
        )
        for key, places in alike.items()
        for factors in _products(frozenset(places))
    ]
    return tuple(sorted(found, key=lambda folded: folded.members))


def numbers_shown(numbers: Iterable[int]) -> str:
    """`7`, `0…79`, `0…38 by 2` or `0…3, 5, 8`; of many runs the first and the last."""
    ordered = sorted(numbers)
    steps = {after - before for before, after in pairwise(ordered)}
    if len(ordered) > 2 and len(steps) == 1 and steps != {1}:
        return f"{ordered[0]}…{ordered[-1]} by {steps.pop()}"
    runs = []
    # Numbers of a run are as far from their places as its first is.
    for _, run in groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        few = ", ".join(map(str, members))
        runs.append(few if len(members) < 3 else f"{members[0]}…{members[-1]}")
    if len(runs) > _RUNS:
        runs = [*runs[: _RUNS - 1], "…", runs[-1]]
    return ", ".join(runs)


def _joined(texts: Sequence[str], factors: Sequence[_Numbers]) -> str:
    """The name with a set of numbers at each place of one."""
    braced = (
        str(factor[0]) if len(factor) == 1 else f"{{{numbers_shown(factor)}}}"
        for factor in factors
    )
    return "".join(map("".join, zip(texts, (*braced, ""), strict=True)))


def _products(found: frozenset[_Numbers]) -> Iterator[tuple[_Numbers, ...]]:
    """Products of sets that together are a set of tuples, each in one of them."""
    if found == {()}:
        yield ()
        return
    following: dict[int, set[_Numbers]] = {}
    for first, *rest in sorted(found):
        following.setdefault(first, set()).add(tuple(rest))
    alike: dict[frozenset[_Numbers], list[int]] = {}
    for first, others in following.items():
        alike.setdefault(frozenset(others), []).append(first)
    for others_alike, firsts in alike.items():
        for factors in _products(others_alike):
            yield (tuple(firsts), *factors)
