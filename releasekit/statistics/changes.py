"""How one tensor differs from another of the same shape.

Distances are in ULPs, units in the last place: how many representable numbers lie between
two, plus one. They say what a lossless delta has to say, whatever the numbers' size. The
update, second number minus first, says what that means for the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.floats import wide_dtype
from releasekit.codec.kernels import Words, as_words
from releasekit.statistics import kernels
from releasekit.statistics.scratch import Scratch
from releasekit.statistics.values import known
from releasekit.statistics.words import (
    OPAQUE,
    as_numbers,
    as_ordered,
    ordered_dtype,
    widened,
)
from releasekit.tensors import DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """How many words are how far apart, in ULPs.

    Attributes:
        octaves: number of words by bucket, without those that are empty: bucket 0 holds
            those that are equal, bucket k those whose distance is at least 2**(k-1), and
            below 2**k.
        total: sum of all distances; rounded, if it is above 2**53.
        largest: the largest of them; rounded likewise.
    """

    octaves: Mapping[int, int] = field(default_factory=dict)
    total: float = 0.0
    largest: float = 0.0

    @property
    def count(self) -> int:
        """Number of words."""
        return sum(self.octaves.values())

    @property
    def mean(self) -> float:
        """Mean distance of all words; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def __add__(self, other: Distances) -> Distances:
        octaves = dict(self.octaves)
        for bucket, count in other.octaves.items():
            octaves[bucket] = octaves.get(bucket, 0) + count
        return Distances(
            octaves=dict(sorted(octaves.items())),
            total=self.total + other.total,
            largest=max(self.largest, other.largest),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The second numbers minus the first, in F64.

    Attributes:
        squares: sum of the squares of the update; None if too large for F64.
        before: sum of the squares of the first numbers; None likewise.
        skipped: pairs that have no finite difference, and are in neither sum.
        largest: its largest magnitude.
        place: the word that has it, counted from the tensor's first; the first of several.
            None if nothing moved.
    """

    squares: float | None = 0.0
    before: float | None = 0.0
    skipped: int = 0
    largest: float = 0.0
    place: int | None = None

    @property
    def norm(self) -> float | None:
        """The update's L2 norm."""
        return None if self.squares is None else math.sqrt(self.squares)

    @property
    def relative(self) -> float | None:
        """That, divided by the L2 norm of the first numbers; None if this is 0."""
        if self.squares is None or self.before is None:
            return None
        if not self.before:
            return None if self.squares else 0.0
        return known(math.sqrt(self.squares) / math.sqrt(self.before))

    def __add__(self, other: Update) -> Update:
        top = other if other.largest > self.largest else self
        return Update(
            squares=plus(self.squares, other.squares),
            before=plus(self.before, other.before),
            skipped=self.skipped + other.skipped,
            largest=top.largest,
            place=top.place,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How two sequences of words differ. Changes add up, in order, to that of the whole.

    Attributes:
        words: how many there are in each.
        same: how many are equal, bit for bit; of other dtypes, equal once widened.
        ulps: the distances; None for dtypes without an order (BOOL; 4 and 6 bits).
        update: the difference; None for dtypes without numbers (4 and 6 bits).
    """

    words: int = 0
    same: int = 0
    ulps: Distances | None = None
    update: Update | None = None

    @classmethod
    def of(
        cls,
        first: NDArray[np.uint8],
        first_dtype: DType,
        second: NDArray[np.uint8],
        second_dtype: DType,
        start: int = 0,
    ) -> Self:
        """How bytes of one tensor differ from those of another.

        Args:
            first: whole words.
            first_dtype: their dtype.
            second: as many words.
            second_dtype: theirs; `comparable` must say that it can be compared.
            start: the place of the first word in its tensor.
        """
        a = as_words(first, first_dtype.word)
        b = as_words(second, second_dtype.word)
        dtype = first_dtype
        if first_dtype is not second_dtype:
            dtype = wide_dtype(first_dtype, second_dtype)
            a = widened(a, first_dtype, dtype)
            b = widened(b, second_dtype, dtype)
        ulps = update = None
        if ordered_dtype(dtype, dtype) is not None:
            ulps = _distances(a, b, dtype)
            same = ulps.octaves.get(0, 0)
        else:
            same = int(np.count_nonzero(a == b))
        if dtype not in OPAQUE:
            update = _update(a, b, dtype, start)
        return cls(words=a.size, same=same, ulps=ulps, update=update)

    def __add__(self, other: Change) -> Change:
        if not self.words:
            return other
        ulps = update = None
        if self.ulps is not None and other.ulps is not None:
            ulps = self.ulps + other.ulps
        if self.update is not None and other.update is not None:
            update = self.update + other.update
        return Change(
            words=self.words + other.words,
            same=self.same + other.same,
            ulps=ulps,
            update=update,
        )

    @property
    def share_same(self) -> float:
        """Share of words that are equal; 1 if there are none."""
        return self.same / self.words if self.words else 1.0


def comparable(first: DType, second: DType) -> bool:
    """Whether words of one dtype can be compared with those of another."""
    return first is second or ordered_dtype(first, second) is not None


def bucket_range(bucket: int) -> tuple[int, int]:
    """Smallest and largest distance in a bucket."""
    return (0, 0) if bucket == 0 else (1 << (bucket - 1), (1 << bucket) - 1)


def plus(first: float | None, second: float | None) -> float | None:
    """A sum; None if a part is not known, or it is too large for F64."""
    return None if first is None or second is None else known(first + second)


def _distances(a: Words, b: Words, dtype: DType) -> Distances:
    a, known_dtype = as_ordered(a, dtype)
    b, _ = as_ordered(b, dtype)
    space = Scratch()
    kernels.distances(known_dtype)(a, b, space.apart, space.octave, space.count, space.out)
    counts = space.count.reshape(4, -1).sum(axis=0).tolist()
    return Distances(
        octaves={bucket: count for bucket, count in enumerate(counts) if count},
        total=float(space.out[0]),
        largest=float(space.out[1]),
    )


def _update(a: Words, b: Words, dtype: DType, start: int) -> Update:
    a, known_dtype = as_numbers(a, dtype)
    b, _ = as_numbers(b, dtype)
    space = Scratch()
    kernels.update(known_dtype)(a, b, space.numbers, space.sums, space.out)
    squares, before, skipped, largest, place, *_ = space.out.tolist()
    return Update(
        squares=known(squares),
        before=known(before),
        skipped=int(skipped),
        largest=largest,
        place=start + int(place) if place >= 0 else None,
    )
