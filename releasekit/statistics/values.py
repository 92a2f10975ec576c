"""What the numbers of one tensor are like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.kernels import as_words
from releasekit.statistics import kernels
from releasekit.statistics.scratch import Scratch
from releasekit.statistics.words import OPAQUE, as_numbers
from releasekit.tensors import DType


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Figures of a sequence of numbers. They add up, in order, to those of the whole.

    Numbers are seen as F64; integers of 64 bits are rounded to that. A complex number
    counts as two.

    Attributes:
        count: how many numbers there are.
        finite: how many of them are neither infinite nor NaN; all that follow are of these,
            but for `nans`.
        nans: how many are NaN.
        zeros: how many are 0, of either sign.
        least: the smallest; None if there is none.
        greatest: the largest.
        mean: their mean; None if there is none, or it is too large for F64.
        deviations: sum of the squared deviations from it; None likewise.
        largest: the largest magnitude; None if there is none.
        place: the first number that has it, counted from the tensor's first.
    """

    count: int = 0
    finite: int = 0
    nans: int = 0
    zeros: int = 0
    least: float | None = None
    greatest: float | None = None
    mean: float | None = None
    deviations: float | None = None
    largest: float | None = None
    place: int | None = None

    @property
    def infinities(self) -> int:
        """How many are infinite."""
        return self.count - self.finite - self.nans

    @property
    def std(self) -> float | None:
        """Standard deviation, of the numbers as a whole (divided by their count)."""
        if self.deviations is None:
            return None
        return math.sqrt(self.deviations / self.finite)

    @property
    def reach(self) -> float | None:
        """The largest magnitude in standard deviations; None where these are 0."""
        if not self.std or self.largest is None:
            return None
        return known(self.largest / self.std)

    @classmethod
    def of(cls, data: NDArray[np.uint8], dtype: DType, start: int = 0) -> Self | None:
        """The figures of a tensor's bytes; None if its dtype has no numbers in them.

        Args:
            data: whole words.
            dtype: the tensor's.
            start: the place of the first word in its tensor.
        """
        if dtype in OPAQUE:
            return None
        words, known_dtype = as_numbers(as_words(data, dtype.word), dtype)
        space = Scratch()
        kernels.describe(known_dtype)(words, space.numbers, space.sums, space.out)
        finite, nans, zeros, *others, place = space.out.tolist()
        if not finite:
            return cls(count=words.size, nans=int(nans), zeros=int(zeros))
        least, greatest, mean, deviations, largest = others
        return cls(
            count=words.size,
            finite=int(finite),
            nans=int(nans),
            zeros=int(zeros),
            least=least,
            greatest=greatest,
            mean=known(mean),
            deviations=known(deviations),
            largest=largest,
            place=start + int(place),
        )

    def __add__(self, other: Values) -> Values:
        """Figures of these numbers and those that follow them.

        Source: Chan, Golub and LeVeque, doi:10.1007/978-3-642-51461-6_3.
        """
        if not self.finite or not other.finite:
            some = self if self.finite else other
            mean, deviations = some.mean, some.deviations
        else:
            mean, deviations = _joined(self, other)
        top = other if _above(other.largest, self.largest) else self
        return Values(
            count=self.count + other.count,
            finite=self.finite + other.finite,
            nans=self.nans + other.nans,
            zeros=self.zeros + other.zeros,
            least=_either(min, self.least, other.least),
            greatest=_either(max, self.greatest, other.greatest),
            mean=mean,
            deviations=deviations,
            largest=top.largest,
            place=top.place,
        )


def known(value: float) -> float | None:
    """A number, unless it is none or went beyond what F64 holds."""
    return value if math.isfinite(value) else None


def _above(value: float | None, other: float | None) -> bool:
    return value is not None and (other is None or value > other)


def _joined(first: Values, second: Values) -> tuple[float | None, float | None]:
    """Mean and squared deviations of both together."""
    if first.mean is None or second.mean is None:
        return None, None
    total = first.finite + second.finite
    apart = second.mean - first.mean
    mean = first.mean + apart * (second.finite / total)
    if first.deviations is None or second.deviations is None:
        return known(mean), None
    between = apart * apart * (first.finite / total) * second.finite
    return known(mean), known(first.deviations + second.deviations + between)


def _either(
    choose: Callable[[float, float], float], first: float | None, second: float | None
) -> float | None:
    if first is None or second is None:
        return second if first is None else first
    return choose(first, second)
