# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
"""The compiled loops behind statistics, over words as they lie in a file.

Work goes block by block, through scratch arrays that stay in the first cache. Sums are
kept in `LANES` partial sums, word i in number i modulo `LANES`: the compiler vectorises
that without reordering a sum, so results are the same on every processor.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from releasekit.codec.floats import Layout
from releasekit.codec.native import Kernel
from releasekit.statistics.words import number_steps, order_steps
from releasekit.tensors import DType

#: Words in a block.
BLOCK: Final = 2048
#: Partial sums; a power of 2.
LANES: Final = 32
#: Buckets of distances: 0, then one an octave.
OCTAVES: Final = 65
#: Numbers of scratch space that the loops take at most: of blocks, and of sums.
NUMBERS: Final = 3 * BLOCK
SUMS: Final = 6 * LANES

_INF: Final = float("inf")
_MAGIC: Final = np.uint64(0x4330000000000000)  # 2**52 as F64: its mantissa counts in ones
_MAGIC_VALUE: Final = float(1 << 52)
_LOW: Final = np.uint64(0xFFFFFFFF)
_MANTISSA: Final = np.uint64((1 << 52) - 1)
_ONE: Final = np.uint64(1)


def _octaves(distance, octave):
    """The bucket of each distance: 0 for 0, else the number of its binary digits."""
    for i in range(distance.size):
        high = distance[i] >> np.uint64(32)
        part = high if high > np.uint64(0) else distance[i] & _LOW
        # An integer below 2**52 becomes a float by putting it into the mantissa of 2**52.
        value = np.float64(np.uint64(part | _MAGIC).view(np.float64) - _MAGIC_VALUE)
        exponent = np.int64(value.view(np.uint64) >> np.uint64(52)) - np.int64(1022)
        above = np.int64(32) if high > np.uint64(0) else np.int64(0)
        octave[i] = max(exponent, np.int64(0)) + above


def _count(octave, count):
    """Count buckets, in four histograms: one would wait for itself."""
    size = np.uint64(OCTAVES)
    i, stop = np.uint64(0), np.uint64(octave.size)
    while i + np.uint64(3) < stop:
        count[np.uint64(octave[i])] += np.uint64(1)
        count[size + np.uint64(octave[i + np.uint64(1)])] += np.uint64(1)
        count[np.uint64(2) * size + np.uint64(octave[i + np.uint64(2)])] += np.uint64(1)
        count[np.uint64(3) * size + np.uint64(octave[i + np.uint64(3)])] += np.uint64(1)
        i += np.uint64(4)
    while i < stop:
        count[np.uint64(octave[i])] += np.uint64(1)
        i += np.uint64(1)


@cache
def distances(dtype: DType) -> Kernel:
    """Build the loop that takes distances in ULPs between two sequences of words.

    Its arguments are the words of both; scratch for `BLOCK` distances (uint64) and buckets
    (uint8); counts (uint64, 4 x `OCTAVES`), which are added to; and a result of two
    (float64): the sum of the distances and the largest of them, both exact below 2**53.
    """
    steps = order_steps(dtype)
    order = steps[-1]

    def distance(a, b, apart, octave, count, out):
        total, largest = 0.0, np.uint64(0)
        for start in range(0, a.size, BLOCK):
            stop = min(start + BLOCK, a.size)
            xs, ys = a[start:stop], b[start:stop]
            for i in range(xs.size):
                x, y = order(xs[i]), order(ys[i])
                apart[i] = np.uint64(max(x, y)) - np.uint64(min(x, y))
            found = apart[: stop - start]
            _octaves(found, octave[: stop - start])
            _count(octave[: stop - start], count)
            block = np.uint64(0)
            for i in range(found.size):
                block += found[i] & _LOW
                largest = max(largest, found[i])
            total += np.float64(block)
            block = np.uint64(0)
            for i in range(found.size):
                block += found[i] >> np.uint64(32)
            total += np.float64(block) * 4294967296.0
        out[0] = total
        out[1] = np.float64(largest)

    w = f"u{dtype.word.bits // 8}*"
    return Kernel(
        distance,
        f"{w} {w} u8* u1* u8* f8*",
        helpers=(*steps, _octaves, _count),
        variant=f"_{dtype.label}",
    )


def _sum_lanes(lanes):
    total = 0.0
    for i in range(lanes.size):
        total += lanes[i]
    return total


@cache
def update(dtype: DType) -> Kernel:
    """Build the loop that measures the update from one sequence of words to another.

    Its arguments are the words of both; scratch for `3 * BLOCK` numbers and `3 * LANES`
    sums; and a result of five (float64): the sums of the squares of the update and of the
    first numbers, how many pairs have no finite difference and are in neither sum, the
    largest magnitude of the update, and at which word it is (-1 if nothing moved).
    """
    steps = number_steps(dtype)
    number = steps[-1]

    def measure(a, b, numbers, lanes, out):
        before, moved, skip = (
            numbers[:BLOCK],
            numbers[BLOCK : 2 * BLOCK],
            numbers[2 * BLOCK : 3 * BLOCK],
        )
        squares, norms, most = (
            lanes[:LANES],
            lanes[LANES : 2 * LANES],
            lanes[2 * LANES : 3 * LANES],
        )
        skipped, largest, place = 0.0, 0.0, -1
        for i in range(2 * LANES):
            lanes[i] = 0.0
        for start in range(0, a.size, BLOCK):
            stop = min(start + BLOCK, a.size)
            xs, ys = a[start:stop], b[start:stop]
            for i in range(xs.size):
                x, y = number(xs[i]), number(ys[i])
                d = y - x
                fine = abs(d) < _INF  # not so for NaN
                before[i] = x if fine else 0.0
                moved[i] = d if fine else 0.0
                skip[i] = 0.0 if fine else 1.0
            for i in range(xs.size, BLOCK):
                before[i] = moved[i] = skip[i] = 0.0
            for i in range(LANES):
                most[i] = 0.0
            for at in range(0, BLOCK, LANES):
                for i in range(LANES):
                    x, d = before[at + i], moved[at + i]
                    norms[i] += x * x
                    squares[i] += d * d
                    most[i] = max(most[i], abs(d))
            skipped += _sum_lanes(skip)
            best = 0.0
            for i in range(LANES):
                best = max(best, most[i])
            if best > largest:
                largest = best
                at = 0
                while abs(moved[at]) != best:
                    at += 1
                place = start + at
        out[0] = _sum_lanes(squares)
        out[1] = _sum_lanes(norms)
        out[2] = skipped
        out[3] = largest
        out[4] = place

    w = f"u{dtype.word.bits // 8}*"
    return Kernel(
        measure,
        f"{w} {w} f8* f8* f8*",
        helpers=(*steps, _sum_lanes),
        variant=f"_update_{dtype.label}",
    )


@cache
def describe(dtype: DType) -> Kernel:
    """Build the loop that describes the numbers of a sequence of words.

    Its arguments are the words; scratch for `BLOCK` numbers and `6 * LANES` sums; and a
    result of nine (float64): finite numbers, NaNs, zeros; of the finite ones least,
    greatest, mean and sum of squared deviations from it (blocks joined as by Chan, Golub
    and LeVeque, doi:10.1007/978-3-642-51461-6_3); largest magnitude, and at which word it
    is (-1 if there is none).
    """
    steps = number_steps(dtype)
    number = steps[-1]

    def measure(words, numbers, lanes, out):
        finite, nans, zeros = 0.0, 0.0, 0.0
        least, greatest, mean, deviations = _INF, -_INF, 0.0, 0.0
        largest, place = -1.0, -1
        counts, unknown, none = (
            lanes[:LANES],
            lanes[LANES : 2 * LANES],
            lanes[2 * LANES : 3 * LANES],
        )
        sums, low, high = (
            lanes[3 * LANES : 4 * LANES],
            lanes[4 * LANES : 5 * LANES],
            lanes[5 * LANES : 6 * LANES],
        )
        for start in range(0, words.size, BLOCK):
            xs = words[start : min(start + BLOCK, words.size)]
            for i in range(xs.size):
                numbers[i] = number(xs[i])
            for i in range(xs.size, BLOCK):
                numbers[i] = _INF
            for i in range(4 * LANES):
                lanes[i] = 0.0
            for i in range(LANES):
                low[i], high[i] = _INF, -_INF
            for at in range(0, BLOCK, LANES):
                for i in range(LANES):
                    x = numbers[at + i]
                    fine = abs(x) < _INF
                    counts[i] += 1.0 if fine else 0.0
                    unknown[i] += 0.0 if x == x else 1.0
                    none[i] += 1.0 if x == 0.0 else 0.0
                    sums[i] += x if fine else 0.0
                    low[i] = min(low[i], x if fine else _INF)
                    high[i] = max(high[i], x if fine else -_INF)
            found = _sum_lanes(counts)
            nans += _sum_lanes(unknown)
            zeros += _sum_lanes(none)
            if found == 0.0:
                continue
            middle = _sum_lanes(sums) / found
            bottom, top = _INF, -_INF
            for i in range(LANES):
                bottom, top = min(bottom, low[i]), max(top, high[i])
                sums[i] = 0.0
            for at in range(0, BLOCK, LANES):
                for i in range(LANES):
                    x = numbers[at + i]
                    d = x - middle if abs(x) < _INF else 0.0
                    sums[i] += d * d
            least, greatest = min(least, bottom), max(greatest, top)
            apart = middle - mean
            together = finite + found
            deviations += _sum_lanes(sums) + apart * apart * (finite * found / together)
            mean += apart * (found / together)
            finite = together
            best = max(-bottom, top)
            if best > largest:
                largest = best
                at = 0
                while abs(numbers[at]) != best:
                    at += 1
                place = start + at
        out[0] = finite
        out[1] = nans
        out[2] = zeros
        out[3] = least
        out[4] = greatest
        out[5] = mean
        out[6] = deviations
        out[7] = largest
        out[8] = place

    return Kernel(
        measure,
        f"u{dtype.word.bits // 8}* f8* f8* f8*",
        helpers=(*steps, _sum_lanes),
        variant=f"_values_{dtype.label}",
    )


@cache
def extent(dtype: DType) -> Kernel:
    """Build the loop that finds how much of a float dtype its numbers use.

    Its arguments are the words; how many mantissa bits a narrower dtype may have, beyond
    which the loop need not go on; and a result of four (float64): the mantissa bits that
    the finite numbers take, the exponent of their lowest bit that is set, the number of
    infinities, and of NaNs that are not those that a cast makes.
    """
    steps = number_steps(dtype)
    number = steps[-1]
    layout = Layout(dtype)
    kind = np.uint64
    mask, infinity, nan = kind(layout.magnitude), kind(layout.largest), kind(layout.nan)

    def measure(words, most, out):
        precision, lowest, infinities, odd = np.int64(0), np.int64(1 << 20), 0, 0
        for start in range(0, words.size, BLOCK):
            xs = words[start : min(start + BLOCK, words.size)]
            for i in range(xs.size):
                magnitude = kind(xs[i]) & mask
                infinities += magnitude == infinity
                odd += (magnitude > infinity) & (magnitude != nan)
                pattern = np.float64(number(xs[i])).view(np.uint64)
                fraction = pattern & _MANTISSA
                field = np.int64(pattern >> np.uint64(52)) & np.int64(2047)
                last = fraction & (~fraction + _ONE)
                value = np.float64(np.uint64(last | _MAGIC).view(np.float64) - _MAGIC_VALUE)
                place = np.int64(value.view(np.uint64) >> np.uint64(52)) - np.int64(1023)
                place = np.int64(52) if fraction == np.uint64(0) else place
                # A number that is subnormal even in F64 fits nothing narrower: its place
                # is below all that they have.
                found = (field > 0) | (fraction > np.uint64(0))
                used = found & (magnitude < infinity)
                bits = np.int64(52) - place
                precision = max(precision, bits if used else np.int64(0))
                low = max(field, np.int64(1)) - np.int64(1023) - bits
                lowest = min(lowest, low if used else np.int64(1 << 20))
            if precision > most:
                break
        out[0] = precision
        out[1] = lowest
        out[2] = infinities
        out[3] = odd

    return Kernel(
        measure,
        f"u{dtype.word.bits // 8}* i8 f8*",
        helpers=steps,
        variant=f"_extent_{dtype.label}",
    )
