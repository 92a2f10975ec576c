"""From residuals to words on any torch device: the inverse of grouping, as whole tensors.

`kernels.rebuilder` walks through a chunk and advances one cursor a group, which a device
cannot do. Here the same is said without a loop: a *stable sort* of the words by group puts
them into the order in which the residuals were coded, and its permutation tells where each
residual goes. Words of unchanged rows sort behind all groups and get no residual. After
the sort each group lies in one piece, so that a binary search finds its length, which is
compared with what was coded.

The permutation is one whatever the input holds, so no count and no base can make an index
leave its bounds. No tensor's size depends on what another one holds, so the host never
waits for the device, and the calls can be queued on a stream.

Words are *signed* integers of their width (`WORDS`), since torch has little for unsigned
ones. Arithmetic wraps, so the difference shows only in shifts to the right, which copy the
top bit. That bit is wanted where the sign is spread over a word, and masked elsewhere.

Common low zero bits are not shifted out, unlike in `codec.ulp`: the base is *rounded* to a
multiple of 2**shift and the residuals are shifted up, which gives the same modulo 2**width,
leaves the fields where they are and needs no masks above the word.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from releasekit.codec.kernels import UNCHANGED_ROW
from releasekit.tensors import Word

#: The dtype of words, by their width.
WORDS: Final = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}


def rebuild(
    base: Tensor,
    grouped: Tensor,
    classes: Tensor,
    table: Tensor,
    count: Tensor,
    out: Tensor,
    *,
    word: Word,
    shift: int,
    row: int,
) -> Tensor:
    """Rebuild one chunk into `out`, as `codec.ulp.decode` does from a grouped frame.

    All tensors are contiguous and on one device. The caller proves their sizes and those
    of the table's entries; the values of all others may be any.

    Args:
        base: (n,) words of the base, already of the target's dtype; n > 0.
        grouped: (m,) zigzagged residuals, group after group, of dtype int32, or int64 for
            64-bit words.
        classes: (rows,) uint8, the class of each row.
        table: (2 * kmask + 256,) the group of each index, where kmask masks the exponent:
            below G, or 0 if there are no groups. uint8 if G < 255, else int16, saves a
            conversion; other integers do as well.
        count: (G,) int64, the number of words in each group. Negative ones match nothing.
        out: (n,) words to fill; may be `base`. Unspecified content if the result is False.
        word: layout of the words.
        shift: low zero bits of all words, at most `word.mantissa_bits`; for words without
            an exponent, below `word.bits`.
        row: words in a row.

    Returns:
        A bool of no dimension on the device: whether each group got exactly the words
        that it was coded with. If not, the base is not the one that the delta was made
        with, or the delta is damaged.
    """
    residuals, groups = grouped.numel(), count.numel()
    flip = ((1 << (word.bits - 1)) - (1 << shift)) if word.signed_magnitude else 0
    start = _rounded(base, shift)
    group, order = torch.sort(
        _group_of_each(start, classes, table, groups, word, row), stable=True
    )
    steps = torch.zeros_like(out)
    steps.scatter_(0, order[:residuals], _steps(grouped, out.dtype, shift, word.bits))
    if flip:
        steps.add_(_flips(start, flip).bitwise_xor_(start))
        torch.bitwise_xor(steps, _flips(steps, flip), out=out)
    else:
        torch.add(start, steps, out=out)
    # One group more than was coded, which must be empty. Where it ends tells how many
    # words there are in all groups, even if there are none.
    bounds = torch.arange(groups + 1, dtype=group.dtype, device=group.device)
    ends = torch.searchsorted(group, bounds, right=True)
    coded = torch.full_like(ends, residuals)
    torch.cumsum(count, 0, out=coded[:groups])
    return ends.eq_(coded).all()


def _rounded(base: Tensor, shift: int) -> Tensor:
    """The nearest multiples of 2**shift, ties to even; modulo 2**width."""
    if not shift:
        return base
    odd = (base >> shift).bitwise_and_(1)
    up = odd.add_(base).add_((1 << (shift - 1)) - 1)
    return up.bitwise_and_(-1 << shift)


def _group_of_each(
    start: Tensor, classes: Tensor, table: Tensor, groups: int, word: Word, row: int
) -> Tensor:
    """Each word's group, in the narrowest dtype; `groups + 1` in unchanged rows."""
    size, row = start.numel(), min(row, start.numel())
    kmask = (1 << word.exponent_bits) - 1
    # Rows are made whole, so that they are a second dimension. What lies beyond the last
    # word has unspecified values, which are never looked at.
    shape = classes.numel(), row
    index = torch.empty(shape, dtype=torch.int32, device=start.device)
    exponents = index.view(-1)[:size]  # doubled, in the place of the index
    torch.bitwise_right_shift(start, max(word.mantissa_bits - 1, 0), out=exponents)
    exponents.bitwise_and_(2 * kmask)
    index.add_(classes[:, None])
    dtype = torch.uint8 if groups < 255 else torch.int16
    group = torch.empty(shape, dtype=dtype, device=start.device)
    flat = group.view(-1)[:size]
    torch.index_select(table.to(dtype), 0, index.view(-1)[:size], out=flat)
    group.masked_fill_((classes == UNCHANGED_ROW)[:, None], groups + 1)
    return flat


def _steps(grouped: Tensor, dtype: torch.dtype, shift: int, bits: int) -> Tensor:
    """What the residuals add to the ordered words, times 2**shift."""
    odd = (grouped & 1).neg_()
    half = grouped >> 1
    if bits - shift == 8 * grouped.itemsize:
        # The copy of the top bit; in narrower words it lies above them.
        half.bitwise_and_((1 << (bits - 1)) - 1)
    steps = torch.empty(grouped.shape, dtype=dtype, device=grouped.device)
    torch.bitwise_xor(half, odd, out=steps)
    return steps.bitwise_left_shift_(shift) if shift else steps


def _flips(words: Tensor, flip: int) -> Tensor:
    """The bits by which words that have the top bit differ from ordered integers."""
    return (words >> (8 * words.itemsize - 1)).bitwise_and_(flip)
