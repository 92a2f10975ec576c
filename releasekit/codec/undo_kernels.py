"""The compiled loops of `undo`: which words changed groups, and residuals taken off.

*Marks* are bytes. Each mark is one number, seven bits a byte, lowest first, with the top
bit set in all bytes but the last: five times the distance from the mark before it, plus a
code. Code c, if it is not 2, says that the base's word was of the group c − 2 after the
target's; behind code 2 are two bytes with the group itself.

Compiled code checks no bounds by itself. Marks never leave memory, but they meet a payload
that is read anew, so nothing is taken for granted: positions and groups are compared with
what they index, and the arrays are bounded as in `kernels`.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from releasekit.codec.kernels import BLOCK, UNCHANGED_ROW, coded_nbytes
from releasekit.codec.native import Kernel

#: Codes of marks, and what comes after them where a mark is read: groups.
CODES: Final = 5
#: The longest mark, in bytes.
MARK_NBYTES: Final = 7

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_FIVE = np.uint64(5)
_SEVEN = np.uint64(7)
_EIGHT = np.uint64(8)
_LOW = np.uint64(127)
_MORE = np.uint64(128)
_LONGEST = np.uint64(MARK_NBYTES)
_SHIFTS = np.uint64(28)


@cache
def marker(word_nbytes: int) -> Kernel:
    """Build the loop that finds words whose group is not that of the base's.

    Its arguments are base, target, row classes, words in a row, table of groups, position
    and mask of the exponent field, and the marks to fill. It returns their size in bytes;
    one more than there is room for if they do not fit. The caller proves that base and
    target have as many words, and that the table has `2 * kmask + 256` entries.
    """

    def mark(base, target, classes, row, table, mant, kmask, out):
        at, before = _ZERO, _ZERO
        room = np.uint64(out.size)
        for r in range(classes.size):
            if classes[r] == UNCHANGED_ROW:
                continue
            start = np.uint64(r * row)
            stop = np.uint64(min(r * row + row, target.size))
            groups = table[classes[r] :]
            for i in range(start, stop):
                b = (np.uint64(base[i]) >> mant) & kmask
                t = (np.uint64(target[i]) >> mant) & kmask
                if b == t:
                    continue
                old, new = np.uint64(groups[_TWO * b]), np.uint64(groups[_TWO * t])
                if old == new:
                    continue
                if at + _LONGEST > room:
                    return room + _ONE
                code = old + _TWO - new  # wraps if it is none
                if code >= _FIVE:
                    code = _TWO
                number = (np.uint64(i) - before) * _FIVE + code
                before = np.uint64(i)
                while number > _LOW:
                    out[at] = (number & _LOW) | _MORE
                    number >>= _SEVEN
                    at += _ONE
                out[at] = number
                at += _ONE
                if code == _TWO:
                    out[at] = old & np.uint64(255)
                    out[at + _ONE] = old >> _EIGHT
                    at += _TWO
        return at

    w = f"u{word_nbytes}*"
    return Kernel(
        mark, f"{w} {w} u1* i8 u2* u8 u8 u1*", returns="u8", variant=f"_{word_nbytes}"
    )


def _read_marks(marks, words, position, change):
    """Take marks apart: where each is, and its code, or `CODES` plus its group."""
    at, before, found = _ZERO, _ZERO, _ZERO
    size = np.uint64(marks.size)
    room = np.uint64(min(position.size, change.size))
    while at < size:
        number, shift, more = _ZERO, _ZERO, _MORE
        while more != _ZERO:
            if at >= size or shift > _SHIFTS:
                return room + _ONE
            byte = np.uint64(marks[at])
            at += _ONE
            number |= (byte & _LOW) << shift
            shift += _SEVEN
            more = byte & _MORE
        before += number // _FIVE
        code = number % _FIVE
        if before >= words or found >= room:
            return room + _ONE
        if code == _TWO:
            if at + _ONE >= size:
                return room + _ONE
            code = _FIVE + np.uint64(marks[at]) + (np.uint64(marks[at + _ONE]) << _EIGHT)
            at += _TWO
        position[found] = before
        change[found] = min(code, np.uint64(65535))
        found += _ONE
    return found


#: Its arguments are marks, the chunk's words, and two arrays to fill, uint32 and uint16. It
#: returns how many marks there are; more than there is room for if they are malformed.
mark_reader: Final = Kernel(_read_marks, "u1* u8 u4* u2*", returns="u8")


@cache
def restorer(word_nbytes: int, bits: int, signed_magnitude: bool) -> Kernel:
    """Build the loop that takes residuals off the target, the inverse of `rebuilder`.

    Its arguments are those of `rebuilder`, with the target's words to be replaced by the
    base's; then the marks' positions and changes, as `mark_reader` fills them, and scratch
    space for `BLOCK` groups. The caller proves the same. It returns how many marks were
    used; `2**64 - 1` if one names what is not there.
    """
    word = np.uint32 if bits <= 32 else np.uint64
    zero, one = word(0), word(1)
    top, mask = word(bits - 1), word((1 << bits) - 1)
    flip = word((1 << (bits - 1)) - 1 if signed_magnitude else 0)

    def restore(
        words,
        grouped,
        classes,
        row,
        table,
        cursor,
        mant,
        kmask,
        residual,
        position,
        change,
        group,
    ):
        used, marks = _ZERO, np.uint64(min(position.size, change.size))
        groups = np.uint64(cursor.size)
        last = np.uint64(grouped.size - 1)
        for r in range(classes.size):
            if classes[r] == UNCHANGED_ROW:
                continue
            stop = min(r * row + row, words.size)
            indices = table[classes[r] :]
            for start in range(r * row, stop, BLOCK):
                block = words[start : min(start + BLOCK, stop)]
                size, begin = np.uint64(block.size), np.uint64(start)
                for i in range(size):
                    group[i] = indices[_TWO * ((np.uint64(block[i]) >> mant) & kmask)]
                while used < marks and np.uint64(position[used]) < begin + size:
                    at = np.uint64(position[used]) - begin  # wraps if it was passed by
                    if at >= size:
                        return ~_ZERO
                    code = np.uint64(change[used])
                    was = np.uint64(group[at]) + code - _TWO
                    if code >= _FIVE:
                        was = code - _FIVE
                    if was >= groups:
                        return ~_ZERO
                    group[at] = was
                    used += _ONE
                for i in range(size):
                    g = np.uint64(group[i])
                    at = cursor[g]
                    cursor[g] = at + _ONE
                    residual[i] = grouped[at & last]
                for i in range(block.size):
                    t = word(block[i])
                    z = word(residual[i])
                    d = (z >> one) ^ (zero - (z & one))
                    o = ((t ^ (flip & (zero - (t >> top)))) - d) & mask
                    block[i] = o ^ (flip & (zero - (o >> top)))
        return used

    w, z = f"u{word_nbytes}*", f"u{coded_nbytes(word_nbytes)}*"
    return Kernel(
        restore,
        f"{w} {z} u1* i8 u2* u8* u8 u8 {z} u4* u2* u2*",
        returns="u8",
        variant=f"_{word_nbytes}_{bits}_{signed_magnitude:d}",
    )
