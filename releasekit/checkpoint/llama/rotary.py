"""The two orders in which the rows of rotated heads are stored.

Rotary position embeddings turn the rows of wq and wk in pairs. Meta's checkpoints pair rows
2i and 2i + 1 of a head, those of transformers rows i and i + half a head; the rows are the
same. A row's place is all that changes, so that the other order is a view.
"""

from __future__ import annotations

from dataclasses import replace

from releasekit.checkpoint.strided import View


def rotary(view: View, heads: int) -> View:
    """See rows in Meta's order in that of transformers.

    Args:
        view: a matrix whose rows are whole heads.
        heads: how many heads they are.

    Returns:
        A view of four dimensions, whose elements in row-major order are the matrix.

    Raises:
        ValueError: if the rows are not so many heads of an even size.
    """
    half, (row, column) = _half_head(view, heads), view.strides
    return replace(
        view,
        shape=(heads, 2, half, view.shape[1]),
        strides=(2 * half * row, row, 2 * row, column),
    )


def interleaved(view: View, heads: int) -> View:
    """See rows in transformers' order in that of Meta: the inverse of `rotary`."""
    half, (row, column) = _half_head(view, heads), view.strides
    return replace(
        view,
        shape=(heads, half, 2, view.shape[1]),
        strides=(2 * half * row, row, half * row, column),
    )


def _half_head(view: View, heads: int) -> int:
    half, rest = divmod(view.shape[0], 2 * heads)
    if rest:
        raise ValueError(f"{view.shape[0]} rows are not {heads} heads of an even size")
    return half
