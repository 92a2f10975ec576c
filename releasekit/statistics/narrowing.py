"""Which smaller dtype holds every value of a tensor, bit for bit.

Some models are published in fp32 though every weight in them is a bf16 number: half of
each file is zeros. A dtype *holds* a value if the cast there and back, as `convert` makes
it, gives the same bits: signs of zeros, infinities, and of NaNs only those that the cast
itself makes.

For finite numbers three figures decide, whatever the dtypes: how many mantissa bits they
take, the exponent of their lowest bit, and the largest magnitude. Where only some dtypes
are in question, and no figures are wanted, `Holding` makes the cast there and back, and
stops at the first block that a dtype does not hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.floats import Layout, lane, wide_dtype, widener
from releasekit.codec.floats import narrower as rounder
from releasekit.codec.formats import castable
from releasekit.codec.kernels import as_words
from releasekit.codec.native import Kernel
from releasekit.statistics import kernels
from releasekit.statistics.scratch import Scratch
from releasekit.statistics.words import table
from releasekit.tensors import DType

_NONE: Final = 1 << 20  # above every exponent
#: Words that are looked at before the next question whether it is worth going on.
_BLOCK: Final = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What the numbers of a float tensor take. Extents add up.

    Attributes:
        mantissa: bits of a mantissa, without the leading one.
        lowest: exponent of the lowest bit that is set in any of them.
        infinities: number of infinities.
        odd: number of NaNs that a cast would not keep.
        largest: the largest finite magnitude.
    """

    mantissa: int = 0
    lowest: int = _NONE
    infinities: int = 0
    odd: int = 0
    largest: float = 0.0

    @classmethod
    def of(cls, data: NDArray[np.uint8], dtype: DType, largest: float | None) -> Self:
        """What a tensor's bytes take, of a dtype that `narrower` knows smaller ones of.

        Args:
            data: whole words.
            dtype: theirs.
            largest: the largest finite magnitude among them; None if there is none.
        """
        most = max(target.word.mantissa_bits for target in narrower(dtype))
        out = Scratch().out
        kernels.extent(dtype)(as_words(data, dtype.word), most, out)
        mantissa, lowest, infinities, odd, *_ = out.tolist()
        return cls(
            mantissa=int(mantissa),
            lowest=int(lowest),
            infinities=int(infinities),
            odd=int(odd),
            largest=largest or 0.0,
        )

    def __add__(self, other: Extent) -> Extent:
        return Extent(
            mantissa=max(self.mantissa, other.mantissa),
            lowest=min(self.lowest, other.lowest),
            infinities=self.infinities + other.infinities,
            odd=self.odd + other.odd,
            largest=max(self.largest, other.largest),
        )

    def fits(self, dtype: DType) -> bool:
        """Whether a dtype holds all of the numbers."""
        word = dtype.word
        bias = (1 << (word.exponent_bits - 1)) - 1
        if word.bits == 8:
            numbers = table(dtype)
            largest = float(np.max(numbers[np.isfinite(numbers)]))
        else:
            largest = 2.0**bias * (2 - 2.0**-word.mantissa_bits)
        return (
            self.odd == 0
            and (self.infinities == 0 or dtype is not DType.F8_E4M3)
            and self.mantissa <= word.mantissa_bits
            and self.lowest >= 1 - bias - word.mantissa_bits
            and self.largest <= largest
        )


def narrower(dtype: DType) -> tuple[DType, ...]:
    """Smaller dtypes that floats of this one can be cast to, the smallest first."""
    known = (DType.F8_E4M3, DType.F8_E5M2, DType.F16, DType.BF16, DType.F32)
    return tuple(
        other for other in known if castable(dtype, other) and other.bits < dtype.bits
    )


def holders(dtype: DType, extent: Extent) -> tuple[DType, ...]:
    """Smaller dtypes that hold all numbers of a tensor, the smallest first."""
    return tuple(other for other in narrower(dtype) if extent.fits(other))


def common(tensors: Iterable[tuple[DType, ...]]) -> tuple[DType, ...]:
    """Dtypes that hold the numbers of every tensor, the smallest first."""
    found: tuple[DType, ...] | None = None
    for holding in tensors:
        found = holding if found is None else tuple(d for d in found if d in holding)
    return found or ()


def is_held(data: NDArray[np.uint8], source: DType, target: DType) -> bool:
    """Whether a cast of whole words of `source` to `target` and back changes none."""
    out = np.zeros(1, np.uint64)
    _loss(source, target)(as_words(data, source.word), out)
    return not out[0]


class Holding:
    """Which smaller dtypes hold every value that was looked at so far, by its dtype.

    May be used from several threads at once. What holds all is the same in any order.
    """

    def __init__(self, candidates: Mapping[DType, tuple[DType, ...]]) -> None:
        """Nothing was looked at: all candidates of a dtype still hold its values."""
        self._holders = dict(candidates)
        self._lock = threading.Lock()

    def holders(self, dtype: DType) -> tuple[DType, ...]:
        """Candidates that hold all values of a dtype, in the order in which they came."""
        return self._holders.get(dtype, ())

    def look(self, data: NDArray[np.uint8], dtype: DType) -> tuple[DType, ...]:
        """Of those that held all so far, the candidates that hold these words, too."""
        return tuple(o for o in self.holders(dtype) if is_held(data, dtype, o))

    def take(self, dtype: DType, found: tuple[DType, ...]) -> None:
        """Keep only what is `found` to hold more words of a dtype."""
        with self._lock:
            kept = tuple(other for other in self.holders(dtype) if other in found)
            self._holders[dtype] = kept


@cache
def _loss(source: DType, target: DType) -> Kernel:
    """Build the loop that counts words that do not survive; it stops after some."""
    wide = wide_dtype(source, target)
    word, _ = lane(wide)
    widen, narrow = widener(source, wide), rounder(wide, target)
    widen_again, narrow_again = widener(target, wide), rounder(wide, source)
    mask = word(Layout(source).magnitude)

    def lost(words: Any, out: Any) -> None:
        for start in range(0, words.size, _BLOCK):
            xs = words[start : min(start + _BLOCK, words.size)]
            count = np.uint64(0)
            for i in range(xs.size):
                magnitude = word(word(xs[i]) & mask)
                there = narrow(widen(magnitude))
                back = narrow_again(widen_again(there))
                count += np.uint64(back != magnitude)
            out[0] = count
            if count:
                break

    return Kernel(
        lost,
        f"u{source.bits // 8}* u8*",
        helpers=(widen, narrow, widen_again, narrow_again),
        variant=f"_{source.label}_{target.label}",
    )
