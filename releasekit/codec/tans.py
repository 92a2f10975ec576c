"""The encoder's coding of numbers in bins, as pcodec's wrapped format 4.1 has it.

    4 bits   mode, 0: a number is its own latent
    4 bits   delta encoding, 0: none
    4 bits   size_log, of the table of states: the weights sum up to 2**size_log
    15 bits  number of bins
    for each bin: weight - 1 in size_log bits; lowest number in 32 or 64 bits; bits of an
    offset, in 6 or 7 bits
    0s up to a whole byte, which ends the chunk's metadata and begins the page
    4 times: size_log bits, the state that the decoder begins with
    0s up to a whole byte
    for each batch of 256 numbers, the last one shorter:
        for each number, what the decoder adds to state `number % 4` after it read its bin
        for each number, its offset in the bin
    0s up to a whole byte

Bits fill bytes from the lowest. The states are those of tabled asymmetric numeral systems:
each stands for a bin, and a bin of weight w has w of them, spread over the table by a fixed
stride. The decoder takes the state's bin, then bits that lead to the next state; the
encoder goes the same way back, from the last number to the first. So the page is written
from its end, in one pass, and shifted into its place.

A step of the encoder writes the state's lowest n bits, where n is one of two numbers that
depend on the bin: `(state + threshold) >> 16`. One step of each of the four states, at most
12 bits each, goes into the stream at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from releasekit.codec.bins import BUCKETS, FRACTION, LOG2, Bins, latent_bits, log2_of
from releasekit.codec.native import Kernel
from releasekit.codec.scratch import scratch

#: Most bits of a state. The format has 14; this is what pcodec itself uses.
MAX_SIZE_LOG: Final = 12
#: With more bits than this the decoder's table leaves the first cache, which costs a tenth
#: of its speed: they must save a thousandth, where a hundredth of a percent is common.
_CACHED_LOG: Final = np.uint64(10)
_THOUSANDTH: Final = np.uint64(10)
_MAX_SIZE = np.uint64(1 << MAX_SIZE_LOG)
_MAX_LOG = np.uint64(MAX_SIZE_LOG)

_ZERO, _ONE, _TWO, _THREE = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_FOUR, _SIX, _SEVEN, _EIGHT = np.uint64(4), np.uint64(6), np.uint64(7), np.uint64(8)
_FIVE, _HALF, _LOW_HALF = np.uint64(5), np.uint64(32), np.uint64(2**32 - 1)
_FIFTEEN, _SIXTEEN = np.uint64(15), np.uint64(16)
_BUCKETS = np.uint64(BUCKETS)
_SIXTY_THREE = np.uint64(63)
_BATCH = np.uint64(256)
_BATCH_MASK = np.uint64(255)
_MOST = np.uint64(2**64 - 1)
_FRACTION = np.uint64(FRACTION)
_SHARE_BITS = np.uint64(16)
_GAIN_BITS = np.uint64(24)
_MANTISSA, _BIAS = np.uint64(52), np.uint64(1023)


def _weigh(count, numbers, size_log, weight):
    """Share out 2**size_log states among the bins, as their counts demand; one at least."""
    size = _ONE << size_log
    spare, rest = size, numbers
    for s in range(count.size):
        if count[s] << size_log <= numbers:
            spare -= _ONE
            rest -= count[s]
    given = _ZERO
    for s in range(count.size):
        if count[s] << size_log <= numbers:
            weight[s] = _ONE
        else:
            share = ((count[s] * spare) << _SHARE_BITS) // rest
            w = share >> _SHARE_BITS
            # Costs are logarithms: the turning point is the geometric mean.
            if share * share > (w * (w + _ONE)) << (_SHARE_BITS + _SHARE_BITS):
                w += _ONE
            weight[s] = max(w, _ONE)
        given += weight[s]
    while given != size:
        best, at = _ZERO, _ZERO
        for s in range(count.size):
            if given < size:  # most gained by one more
                gain = (count[s] << _GAIN_BITS) // (_TWO * weight[s] + _ONE)
            else:  # least lost by one less
                loss = (count[s] << _GAIN_BITS) // (_TWO * weight[s] - _ONE)
                gain = _MOST - loss if weight[s] > 1 else _ZERO
            if gain > best:
                best, at = gain, np.uint64(s)
        if given < size:
            weight[at] += _ONE
            given += _ONE
        else:
            weight[at] -= _ONE
            given -= _ONE


def _weight_cost(count, weight, size_log, log2):
    """Bits that these weights take, in units of 2**-FRACTION."""
    cost = ((np.uint64(count.size) + _FOUR) * size_log) << _FRACTION
    for s in range(count.size):
        cost += count[s] * ((size_log << _FRACTION) - log2_of(weight[s], log2))
    return cost


def _spread(weight, size_log, states, following, steps):
    """Make the tables of the encoder's steps.

    Step s has the threshold of bin s in its lower half. Its upper half, added to the bits
    that stay of a state, is where `following` has the state that follows.
    """
    bins = np.uint64(weight.size)
    size = _ONE << size_log
    stride = _THREE * size // _FIVE
    stride += _ONE - (stride & _ONE)
    at, until = _ZERO, _ZERO
    for s in range(bins):
        w = weight[s]
        for _ in range(w):
            states[at] = s
            at = (at + stride) & (size - _ONE)
        pattern = np.float64(_TWO * w - _ONE).view(np.uint64)
        most_bits = size_log + _ONE - ((pattern >> _MANTISSA) - _BIAS)
        # From w to 2 * w of the state stay, and w may be more than what came before.
        steps[s] = ((size + until - w) << _HALF) | (
            (most_bits << _SIXTEEN) - (w << most_bits)
        )
        states[size + s] = size + until
        until += w
    for x in range(size):
        state_bin = np.uint64(states[x])
        follower = np.uint64(states[size + state_bin])
        states[size + state_bin] = follower + _ONE
        following[follower] = size + x
    # A bin for the padding of the last four, which takes no bits and keeps the state.
    steps[bins] = size << _HALF
    for x in range(size, _TWO * size):
        following[size + x] = x


def _push(stream, word, bits, free, value):
    """Put a value before the bits at hand; returns the word at hand, its bits, free ones.

    `free` is what is left below the value: negative, modulo 2**64, if it fills the word. A
    store that comes too early is made again: all is arithmetic, as the processor could not
    guess a branch.
    """
    stream[word] = bits | ((value >> _ONE) >> (~free & _SIXTY_THREE))
    full = free >> _SIXTY_THREE
    rest = (bits & (full - _ONE)) | (value << (free & _SIXTY_THREE))
    return word - full, rest, free & _SIXTY_THREE


def _code(numbers, bucket, symbol_of, lower, width, steps, following, batch, final, stream):
    """Write the batches to the end of `stream`; returns the bit that they begin at.

    `final` holds the number of bins, the bits of a state, and those of the widest offset;
    then the states that the decoder begins with. `batch` has room for one.
    """
    bins, size_log, widest = final[_ZERO], final[_ONE], final[_TWO]
    state0 = state1 = state2 = state3 = _ONE << size_log
    word = np.uint64(stream.size) - _ONE
    # The word at hand has its upper bits, and this many free ones below.
    bits, free = _ZERO, _ZERO
    stop = np.uint64(numbers.size)
    while stop > 0:
        start = (stop - _ONE) & ~_BATCH_MASK
        values = numbers[start:stop]
        buckets = bucket[start:stop]
        stop = start
        size = np.uint64(values.size)
        if widest == 0:
            for at in range(size):
                batch[at] = steps[np.uint64(symbol_of[np.uint64(buckets[at])])]
        else:
            i = size
            # Four offsets fit into a word, if none is wider than this.
            quads = size >> _TWO << _TWO if widest <= _SIXTEEN else _ZERO
            while i > quads:
                i -= _ONE
                s = np.uint64(symbol_of[np.uint64(buckets[i])])
                batch[i] = steps[s]
                value, count = np.uint64(values[i]) - lower[s], width[s]
                free -= count
                word, bits, free = _push(stream, word, bits, free, value)
            while i > 0:
                i -= _FOUR
                value, count = _ZERO, _ZERO
                for lane in range(_FOUR):
                    j = i + _THREE - lane
                    s = np.uint64(symbol_of[np.uint64(buckets[j])])
                    batch[j] = steps[s]
                    value = (value << width[s]) | (np.uint64(values[j]) - lower[s])
                    count += width[s]
                free -= count
                word, bits, free = _push(stream, word, bits, free, value)
        if bins == 1:
            continue
        i = size
        while i & _THREE:
            batch[i] = steps[bins]
            i += _ONE
        while i > 0:
            i -= _FOUR
            value = _ZERO
            step = batch[i + _THREE]
            count = ((state3 + step) & _LOW_HALF) >> _SIXTEEN
            value = (value << count) | (state3 & ((_ONE << count) - _ONE))
            state3 = np.uint64(following[(state3 >> count) + (step >> _HALF)])
            free -= count
            step = batch[i + _TWO]
            count = ((state2 + step) & _LOW_HALF) >> _SIXTEEN
            value = (value << count) | (state2 & ((_ONE << count) - _ONE))
            state2 = np.uint64(following[(state2 >> count) + (step >> _HALF)])
            free -= count
            step = batch[i + _ONE]
            count = ((state1 + step) & _LOW_HALF) >> _SIXTEEN
            value = (value << count) | (state1 & ((_ONE << count) - _ONE))
            state1 = np.uint64(following[(state1 >> count) + (step >> _HALF)])
            free -= count
            step = batch[i]
            count = ((state0 + step) & _LOW_HALF) >> _SIXTEEN
            value = (value << count) | (state0 & ((_ONE << count) - _ONE))
            state0 = np.uint64(following[(state0 >> count) + (step >> _HALF)])
            free -= count
            word, bits, free = _push(stream, word, bits, free, value)
    stream[word] = bits
    mask = (_ONE << size_log) - _ONE
    final[_ZERO], final[_ONE] = state0 & mask, state1 & mask
    final[_TWO], final[_THREE] = state2 & mask, state3 & mask
    return (word << _SIX) + free


def _put(out, at, value, count):
    """Write bits at a bit, and 0s to the end of the next word; returns where they end."""
    word, shift = at >> _SIX, at & _SIXTY_THREE
    out[word] = (out[word] & ((_ONE << shift) - _ONE)) | (value << shift)
    out[word + _ONE] = (value >> (_SIXTY_THREE - shift)) >> _ONE
    return at + count


def _append(stream, begin, out, at):
    """Copy bits from `begin` to the end of `stream`; returns where they end in `out`."""
    count = ((np.uint64(stream.size) - _ONE) << _SIX) - begin
    word = at >> _SIX
    words = ((at + count + _SIXTY_THREE) >> _SIX) - word
    mask = (_ONE << (at & _SIXTY_THREE)) - _ONE
    head = out[word] & mask
    source = begin - (at & _SIXTY_THREE)
    low = source & _SIXTY_THREE
    source >>= _SIX
    for i in range(words):
        above = stream[source + i + _ONE] << (_SIXTY_THREE - low)
        out[word + i] = (stream[source + i] >> low) | (above << _ONE)
    if words > 0:
        out[word] = (out[word] & ~mask) | head
    return at + count


def _pack(
    numbers, stops, bucket, first, bins, log2, word_bits, work, tables16, stream, out, ends
):
    """Code each group; `ends[2 * g]` is its first byte in `out`, the next its end."""
    capacity = np.uint64(bins.size) >> _TWO
    weight, trial_weight = work[:_MAX_SIZE], work[_MAX_SIZE:]
    steps, batch = work[_TWO * _MAX_SIZE :], work[_THREE * _MAX_SIZE :]
    final = work[_THREE * _MAX_SIZE + _BATCH :]
    symbol_of, following = tables16[:_BUCKETS], tables16[_BUCKETS:]
    states = tables16[_BUCKETS + _THREE * _MAX_SIZE :]
    width_bits = _SIX if word_bits == 32 else _SEVEN
    at = _ZERO
    byte = _ZERO
    for g in range(np.uint64(stops.size)):
        begin, end = at, stops[g]
        at = end
        ends[_TWO * g], ends[_TWO * g + _ONE] = byte, byte
        low, high = first[g], first[g + _ONE]
        count = high - low
        if count == 0:
            continue
        lower, width = bins[low:high], bins[capacity + low : capacity + high]
        counts = bins[_TWO * capacity + low : _TWO * capacity + high]
        last = bins[_THREE * capacity + low : _THREE * capacity + high]
        size_log = _ZERO
        if count > 1:
            cheapest = _MOST
            trial = _ZERO
            while _ONE << trial < count:
                trial += _ONE
            while trial <= _MAX_LOG and _ONE << trial <= (end - begin) << _ONE:
                _weigh(counts, end - begin, trial, trial_weight)
                cost = _weight_cost(counts, trial_weight, trial, log2)
                least = cheapest >> _THOUSANDTH if trial > _CACHED_LOG else _ZERO
                if cost < cheapest - least:
                    cheapest, size_log = cost, trial
                    for s in range(count):
                        weight[s] = trial_weight[s]
                trial += _ONE
            _spread(weight[:count], size_log, states, following, steps)
        else:
            weight[_ZERO] = _ONE
        widest = _ZERO
        bucket_at = _ZERO
        for s in range(count):
            widest = max(widest, width[s])
            while bucket_at <= last[s]:
                symbol_of[bucket_at] = s
                bucket_at += _ONE
        position = _put(out, byte << _THREE, _ZERO, _EIGHT)
        position = _put(out, position, size_log, _FOUR)
        position = _put(out, position, count, _FIFTEEN)
        for s in range(count):
            position = _put(out, position, weight[s] - _ONE, size_log)
            position = _put(out, position, lower[s], word_bits)
            position = _put(out, position, width[s], width_bits)
        position = (position + _SEVEN) & ~_SEVEN
        final[_ZERO], final[_ONE], final[_TWO] = count, size_log, widest
        begin_bit = _code(
            numbers[begin:end],
            bucket[begin:end],
            symbol_of,
            lower,
            width,
            steps,
            following,
            batch,
            final,
            stream,
        )
        for lane in range(_FOUR):
            position = _put(out, position, final[lane], size_log)
        position = (position + _SEVEN) & ~_SEVEN
        position = _append(stream, begin_bit, out, position)
        ends[_TWO * g + _ONE] = (position + _SEVEN) >> _THREE
        # Each group begins with a word.
        byte = ((position + _SIXTY_THREE) >> _SIX) << _THREE


@cache
def _packer(nbytes: int) -> Kernel:
    return Kernel(
        _pack,
        f"u{nbytes}* u8* u2* u8* u8* u2* u8 u8* u2* u8* u8* u8*",
        helpers=(log2_of, _weigh, _weight_cost, _spread, _push, _code, _put, _append),
        variant=f"_{nbytes}",
    )


def code(numbers: NDArray[Any], count: NDArray[np.int64], chosen: Bins) -> list[bytes]:
    """Code each group with the bins that were chosen for it; nothing if it has none."""
    groups, bits = count.size, latent_bits(numbers.itemsize)
    most_bits = bits + MAX_SIZE_LOG
    found = int(chosen.first[-1])
    # Words for each group to begin with one, and to write past the end of one.
    out_words = (numbers.size * most_bits + found * (most_bits + 7)) // 64 + 8 * groups
    out = scratch("coded", out_words + 8, np.uint64)
    ends = np.empty(2 * groups, np.uint64)
    _packer(numbers.itemsize)(
        numbers,
        chosen.stops,
        chosen.bucket,
        chosen.first,
        chosen.table,
        LOG2,
        bits,
        scratch("weights", 3 * (1 << MAX_SIZE_LOG) + 256 + 4, np.uint64),
        scratch("states", BUCKETS + 5 * (1 << MAX_SIZE_LOG), np.uint16),
        scratch("stream", int(count.max(initial=0)) * most_bits // 64 + 8, np.uint64),
        out,
        ends,
    )
    data = out.view(np.uint8).data
    edges = ends.tolist()
    return [
        bytes(data[begin:end]) for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]
