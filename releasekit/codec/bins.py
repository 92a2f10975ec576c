"""The encoder's choice of bins: the ranges of numbers that share a code.

A number is coded as its bin, in as many bits as the bin is rare, and its offset within the
bin, in a fixed number of bits. Many narrow bins follow the distribution closely, but each
takes room in the table of bins. The choice is made per group, in three steps:

1. Numbers are counted in buckets: one for each number if they are small, else of widths
   that grow with the number, 2**-10 of it, since sharp peaks may lie anywhere. Numbers
   count from the group's least.
2. Neighbouring buckets are joined into *items* of about equal counts, few enough to look at
   all. A frequent number stays alone, and no item spans a wide gap: a sign that flips gives
   numbers that are as large as numbers get.
3. Dynamic programming finds the bins, each a run of items, that take the fewest bits in
   all. For each start and number of offset bits it considers the longest run, and the
   longest that ends before a wide gap; in trials, looking at all runs gained nothing more.

Costs are integers in units of 2**-16 bits, with logarithms from a table, so that the same
numbers give the same bins on every machine, however its compiler orders or fuses floating
point. The one operation on floats, conversion of an integer that they hold exactly, finds
the highest bit and those below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.native import Kernel
from releasekit.codec.scratch import scratch

#: Two neighbouring items hold more than 1/512 of the numbers, or have a wide gap between
#: them: more than a quarter of the distance from the least number. There are at most 512
#: such pairs of the first kind that do not overlap, and 200 of the second, as 1.25**200 is
#: more than 2**64. The kernels rely on it: it is the size of their arrays.
MAX_ITEMS: Final = 2 * (512 + 200) + 1
_ITEM_SHIFT: Final = np.uint64(9)

#: Fractional bits of a cost or a logarithm.
FRACTION: Final = 16
_FRACTION = np.uint64(FRACTION)
#: Leading bits of a number, below the highest, that its logarithm depends on.
_LOG2_BITS: Final = 12

#: Buckets of larger numbers are this many to an octave, as a logarithm.
_OCTAVE_BITS: Final = 10
#: Numbers up to here have buckets of their own, if there are enough of them to fill these.
BUCKETS: Final = 1 << 16

#: What a bin takes in the table of bins, besides its lowest number: weight and width.
_BIN_BITS: Final = 16

_ZERO, _ONE, _TWO, _THREE = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_FOUR, _FIVE, _SIX, _SEVEN = np.uint64(4), np.uint64(5), np.uint64(6), np.uint64(7)
_EIGHT, _SIXTY_FOUR, _WIDTHS = np.uint64(8), np.uint64(64), np.uint64(65)
_ROW = np.uint64(MAX_ITEMS + 1)
_MANTISSA = np.uint64(52)
_BIAS = np.uint64(1023)
_LOG2_SHIFT = np.uint64(52 - _LOG2_BITS)
_LOG2_MASK = np.uint64((1 << _LOG2_BITS) - 1)
_OCTAVE = np.uint64(_OCTAVE_BITS)
_FEW, _EXACT_LIMIT, _LANES = np.uint64(1 << _OCTAVE_BITS), np.uint64(BUCKETS), _FOUR
_COUNT = np.uint32(1)
_MANY = np.uint64(512)
_OCTAVE_SHIFT = np.uint64(52 - _OCTAVE_BITS)
_OCTAVE_SIZE = np.uint64(1 << _OCTAVE_BITS)
_OCTAVE_MASK = np.uint64((1 << _OCTAVE_BITS) - 1)
_OCTAVE_FIRST = np.uint64((1023 + _OCTAVE_BITS) << _OCTAVE_BITS)
_MOST = np.uint64(2**64 - 1)
_INEXACT = np.uint64(2**11 - 1)
_PRECISION = np.uint64(53)


def _fractions() -> NDArray[np.uint16]:
    """Binary logarithms of 1 to 2, by repeated squaring: in integers alone."""
    square = (np.arange(1 << _LOG2_BITS, 2 << _LOG2_BITS, dtype=np.uint64)) << np.uint64(
        31 - _LOG2_BITS
    )
    fraction = np.zeros(square.size, np.uint64)
    for _ in range(FRACTION):
        square = (square * square) >> np.uint64(31)
        carry = square >> np.uint64(32)
        fraction = (fraction << _ONE) | carry
        square >>= carry
    return fraction.astype(np.uint16)


#: Fractional part of the logarithm, by the leading bits; read-only to the kernels.
LOG2: Final = _fractions()


def log2_of(number, log2):
    """Binary logarithm of a number that a float holds exactly, in units of 2**-FRACTION."""
    pattern = np.float64(number).view(np.uint64)
    fraction = np.uint64(log2[(pattern >> _LOG2_SHIFT) & _LOG2_MASK])
    return (((pattern >> _MANTISSA) - _BIAS) << _FRACTION) + fraction


def _extremes(numbers):
    least, most = numbers[0], numbers[0]
    for i in range(numbers.size):
        least = min(least, numbers[i])
        most = max(most, numbers[i])
    return np.uint64(least), np.uint64(most)


def _count_few(numbers, least, buckets, histogram, bucket):
    """Count numbers in at most 2**10 buckets of their own.

    Four tables, since a counter cannot be counted up again before the last store to it has
    come back: where most numbers are equal that is slow.
    """
    for b in range(_LANES << _OCTAVE):
        histogram[b] = 0
    size = np.uint64(numbers.size)
    quads = size >> _TWO
    for q in range(quads):
        i = q << _TWO
        for lane in range(_LANES):
            distance = np.uint64(numbers[i + lane]) - least
            bucket[i + lane] = distance
            histogram[(lane << _OCTAVE) + distance] += _COUNT
    for rest in range(quads << _TWO, size):
        distance = np.uint64(numbers[rest]) - least
        bucket[rest] = distance
        histogram[distance] += _COUNT
    for b in range(buckets):
        for lane in range(_ONE, _LANES):
            histogram[b] += histogram[(lane << _OCTAVE) + b]


def _octave_bucket(number):
    """The bucket of a number that may be large.

    Adding the numbers of an octave's first bucket makes the first buckets exact.
    """
    shifted = min(number, _MOST - _OCTAVE_SIZE) + _OCTAVE_SIZE
    # Without the bits that a float would round away, and perhaps upwards.
    shifted &= ~(_INEXACT if shifted >> _PRECISION else _ZERO)
    return (np.float64(shifted).view(np.uint64) >> _OCTAVE_SHIFT) - _OCTAVE_FIRST


def _count(bucket, buckets, histogram):
    for b in range(buckets):
        histogram[b] = 0
    for i in range(bucket.size):
        histogram[np.uint64(bucket[i])] += _COUNT


def _gather_items(histogram, buckets, exact, least, most, threshold, items):
    """Join buckets into items; returns their number.

    An item has its lowest and highest number, its last bucket, and how many numbers are in
    it and all before it.
    """
    lower, upper, last, until = items
    found, counted, before = _ZERO, _ZERO, _ZERO
    for b in range(buckets):
        count = np.uint64(histogram[b])
        if count == 0:
            continue
        octave = _ZERO if exact else b >> _OCTAVE
        below = np.uint64(b)
        if not exact:
            below = ((_OCTAVE_SIZE + (b & _OCTAVE_MASK)) << octave) - _OCTAVE_SIZE
        counted += count
        joined = found > 0 and counted - before <= threshold
        if joined:
            end = upper[found - _ONE]
            joined = least + below - end <= (end - least) >> _TWO
        if not joined:
            lower[found] = least + below
            before = counted - count
            found += _ONE
        upper[found - _ONE] = least + below + ((_ONE << octave) - _ONE)
        last[found - _ONE] = b
        until[found - _ONE] = counted
    upper[found - _ONE] = most
    return found


def _choose(items, found, log2, bin_cost, ends, gap, cost, start, width):
    """Find the cheapest bins that end with each item.

    `cost[i]` becomes that of the items before i, `start[i]` the first item of the last bin
    among these, `width[i]` the bits of an offset in that bin. `gap[i]` is the last item up
    to i that follows a wide gap, `ends[b]` the end of the longest run with b offset bits.
    """
    lower, upper, _, until = items
    numbers = until[found - _ONE]
    log2_numbers = log2_of(numbers, log2)
    for i in range(found + _ONE):
        cost[i] = _MOST
    cost[_ZERO] = _ZERO
    for bits in range(_WIDTHS):  # the end never falls, as the start rises
        ends[bits] = _ZERO
    gap[_ZERO] = _ZERO
    for i in range(_ONE, found + _ONE):
        gap[i] = gap[i - _ONE]
        if (
            i < found
            and lower[i] - upper[i - _ONE] > (upper[i - _ONE] - lower[_ZERO]) >> _TWO
        ):
            gap[i] = i
    for j in range(found):
        if cost[j] == _MOST:  # no run ends here
            continue
        until_j = until[j - _ONE] if j > 0 else _ZERO
        here = cost[j] + bin_cost
        longest = j
        for bits in range(_WIDTHS):
            span = _MOST >> (_SIXTY_FOUR - bits) if bits > 0 else _ZERO
            end = max(ends[bits], j)
            while end < found and upper[end] - lower[j] <= span:
                end += _ONE
            ends[bits] = end
            for stop in (gap[end], end):
                if stop <= longest:
                    continue
                longest = stop
                count = until[stop - _ONE] - until_j
                log2_count = log2_of(count, log2)
                total = here + count * ((bits << _FRACTION) + log2_numbers - log2_count)
                if total < cost[stop]:
                    cost[stop], start[stop], width[stop] = total, j, bits
            if end == found:
                break


def _select(items, found, start, width, first, bins):
    """List the bins that were chosen, from `first` on; returns where they end."""
    lower, _, last, until = items
    bin_lower, bin_width, bin_count, bin_last = bins
    chosen = _ZERO
    i = found
    while i > 0:
        i = start[i]
        chosen += _ONE
    at = first + chosen
    i = found
    while i > 0:
        j = start[i]
        at -= _ONE
        bin_lower[at] = lower[j]
        bin_width[at] = width[i]
        bin_count[at] = until[i - _ONE] - (until[j - _ONE] if j > 0 else _ZERO)
        bin_last[at] = last[i - _ONE]
        i = j
    return first + chosen


def _trim(numbers, bucket, first, stop, bins, bin_of, highest):
    """Narrow the bins from `first` to `stop` to the numbers that they hold."""
    bin_lower, bin_width, _, bin_last = bins
    b = _ZERO
    for s in range(first, stop):
        bin_lower[s], highest[s - first] = _MOST, _ZERO
        while b <= bin_last[s]:
            bin_of[b] = s - first
            b += _ONE
    for i in range(numbers.size):
        number, found = np.uint64(numbers[i]), np.uint64(bin_of[np.uint64(bucket[i])])
        bin_lower[first + found] = min(bin_lower[first + found], number)
        highest[found] = max(highest[found], number)
    for s in range(first, stop):
        bin_width[s] = _ZERO
        while bin_width[s] < _SIXTY_FOUR and (
            (highest[s - first] - bin_lower[s]) >> bin_width[s] > 0
        ):
            bin_width[s] += _ONE


def _bins(numbers, stops, log2, bin_bits, histogram, bucket, work, first, bins):
    lower, upper, last = work[:_ROW], work[_ROW:], work[_TWO * _ROW :]
    items = (lower, upper, last, work[_THREE * _ROW :])
    cost, start = work[_FOUR * _ROW :], work[_FIVE * _ROW :]
    width, gap = work[_SIX * _ROW :], work[_SEVEN * _ROW :]
    ends = work[_EIGHT * _ROW :]
    capacity = np.uint64(bins.size) >> _TWO
    bin_lower, bin_width = bins[:capacity], bins[capacity:]
    chosen = bin_lower, bin_width, bins[_TWO * capacity :], bins[_THREE * capacity :]
    at = _ZERO
    for g in range(np.uint64(stops.size)):
        group, group_bucket = numbers[at : stops[g]], bucket[at : stops[g]]
        size = stops[g] - at
        at = stops[g]
        first[g + _ONE] = first[g]
        least, most = _extremes(group) if size > 0 else (_ZERO, _ZERO)
        if most == 0:
            continue
        buckets = most - least + _ONE
        exact = True
        if most - least < _FEW:
            _count_few(group, least, buckets, histogram, group_bucket)
        else:
            exact = most - least < min(size, _EXACT_LIMIT)
            if exact:
                for i in range(size):
                    group_bucket[i] = np.uint64(group[i]) - least
            else:
                for i in range(size):
                    group_bucket[i] = _octave_bucket(np.uint64(group[i]) - least)
                buckets = _octave_bucket(most - least) + _ONE
            _count(group_bucket, buckets, histogram)
        threshold = size >> _ITEM_SHIFT if buckets > _MANY else _ZERO
        found = _gather_items(histogram, buckets, exact, least, most, threshold, items)
        _choose(items, found, log2, bin_bits << _FRACTION, ends, gap, cost, start, width)
        first[g + _ONE] = _select(items, found, start, width, first[g], chosen)
        peak = False
        for s in range(first[g], first[g + _ONE]):
            bucket_of_lower = _octave_bucket(bin_lower[s] - least)
            peak = peak or (bin_width[s] > 0 and bucket_of_lower == chosen[3][s])
        if peak and not exact:
            _trim(group, group_bucket, first[g], first[g + _ONE], chosen, histogram, cost)


@cache
def _chooser(nbytes: int) -> Kernel:
    return Kernel(
        _bins,
        f"u{nbytes}* u8* u2* u8 u4* u2* u8* u8* u8*",
        helpers=(
            log2_of,
            _extremes,
            _count_few,
            _octave_bucket,
            _count,
            _gather_items,
            _choose,
            _select,
            _trim,
        ),
        variant=f"_{nbytes}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """The bins of each group; valid until the next are chosen in this thread.

    Attributes:
        stops: (G,) where each group ends.
        first: (G + 1,) the first bin of each group, and the number of all. A group whose
            numbers are all 0 has none.
        table: (4 * B,) of all bins, the lowest numbers, then the bits of an offset, the
            numbers in each, and the last bucket of each.
        bucket: (n,) uint16, the bucket of each number.
    """

    stops: NDArray[np.uint64]
    first: NDArray[np.uint64]
    table: NDArray[np.uint64]
    bucket: NDArray[np.uint16]


def latent_bits(nbytes: int) -> int:
    """Width of the integers that pcodec takes numbers of so many bytes for."""
    return max(8 * nbytes, 32)


def choose(numbers: NDArray[Any], count: NDArray[np.int64]) -> Bins:
    """Choose the bins of each group, from the group's `count` numbers."""
    nbytes = numbers.itemsize
    stops = np.cumsum(count).astype(np.uint64)
    capacity = min(numbers.size, MAX_ITEMS * stops.size)
    bins = Bins(
        stops=stops,
        first=np.zeros(stops.size + 1, np.uint64),
        table=scratch("bins", 4 * capacity, np.uint64),
        bucket=scratch("bucket", numbers.size, np.uint16),
    )
    _chooser(nbytes)(
        numbers,
        stops,
        LOG2,
        latent_bits(nbytes) + _BIN_BITS,
        scratch("histogram", BUCKETS, np.uint32),
        bins.bucket,
        scratch("items", 9 * (MAX_ITEMS + 1), np.uint64),
        bins.first,
        bins.table,
    )
    return bins
