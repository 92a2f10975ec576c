"""A model's figures in a few sentences, as Markdown, for a model card.

A report keeps them in a file of its own, `summary.md`, which a card takes over as it is: so
a card that is written again, after the report was drawn, is the same to the byte. Names of
tensors are left out, since they may hold markup; and `parse` refuses a file with any.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from releasekit.errors import FormatError
from releasekit.statistics.changes import Distances, bucket_range
from releasekit.statistics.diff import TensorDiff
from releasekit.statistics.groups import Group
from releasekit.statistics.places import Kind, place
from releasekit.statistics.portrait import Portrait
from releasekit.statistics.wording import listed, percent, size

SUMMARY: Final = "summary.md"
#: Bytes that such a file may have.
MAX_SUMMARY: Final = 1 << 14
#: What is neither markup nor a link, wherever it stands, but for a table's bars. A line
#: begins with no mark that makes it a heading, a list or code; a dot stands in no host.
_PLAIN: Final = re.compile(
    r"(?:(?:[A-Za-z|]"
    r"(?:[A-Za-z0-9 ,:;%'()|–-]|\.(?![A-Za-z])|(?<=[A-Z0-9])_(?=[A-Z0-9]))*)?\n)+"
)


def summary(portrait: Portrait) -> str:
    """The figures in words: one paragraph, and for a pair a table by kind."""
    parts = [" ".join(sentences(portrait))]
    if portrait.base is not None and portrait.whole.words:
        parts.append("\n".join(_table(portrait)))
    return "\n\n".join(parts) + "\n"


def parse(document: bytes, subject: str) -> str:
    """Read what `summary` made, and a report kept.

    Raises:
        FormatError: if it holds anything but sentences and a table.
    """
    text = document.decode("utf-8", "replace")
    if not _PLAIN.fullmatch(text):
        raise FormatError(
            f"{subject}: expected sentences and a table without markup, as `releasekit "
            "report` writes them; draw the report again, and write into the card what is "
            "your own"
        )
    return text


def sentences(portrait: Portrait) -> Iterator[str]:
    """The figures in sentences, the most telling first."""
    whole, labels = portrait.whole, list(portrait.dtypes)
    layers = len(portrait.groups.layers.labels)
    where = f" in {layers} layers" if layers > 1 else ""
    many = "1 tensor" if whole.tensors == 1 else f"{whole.tensors:,} tensors"
    yield f"The model has {many}{where}, {size(whole.nbytes)} in {listed(labels) or 'all'}."
    if portrait.base is not None:
        yield from _against_base(portrait)
    values = whole.values
    if values is not None and values.count > values.finite:
        yield f"It holds {values.nans:,} NaNs and {values.infinities:,} infinities."
    for narrowing in portrait.narrower:
        yield narrowing.describe()


def _against_base(portrait: Portrait) -> Iterator[str]:
    totals, whole = portrait.totals, portrait.whole
    if totals.share_same is not None:
        yield (
            f"Compared with its base, {percent(totals.share_same)} of the weights are the "
            "same, bit for bit."
        )
    main = main_distances(portrait)
    if main is not None and main[1].largest:
        half = typical(main[1])
        yield (
            f"Of those that moved, half moved by at most {half:,} "
            f"{'ULP' if half == 1 else 'ULPs'} (steps between neighbouring {main[0]} "
            "numbers)."
        )
    if totals.relative:
        yield f"The update is {percent(totals.relative)} of the base's L2 norm."
        most = [
            (of.relative, kind)
            for kind, of in portrait.groups.kinds.items()
            if of.relative and kind is not Kind.OTHER
        ]
        if len(most) > 1:
            share, kind = max(most, key=lambda pair: pair[0])
            yield f"It is largest for {kind.title}: {percent(share)}."
    if totals.skipped:
        yield f"{totals.skipped:,} pairs of values have no finite difference."
    grown = vocabulary(portrait.diff.grown)
    if grown:
        more = "added" if grown > 0 else "removed"
        yield f"{abs(grown):,} rows of the vocabulary were {more}."
    if whole.published is not None and whole.nbytes:
        yield (
            f"Published, the weights take {size(whole.published)}, "
            f"{percent(whole.published / whole.nbytes)} of their size."
        )


def vocabulary(grown: tuple[TensorDiff, ...]) -> int:
    """Rows that the embedding or head gained, or lost."""
    known = (Kind.EMBEDDING, Kind.HEAD)
    rows = [tensor.rows for tensor in grown if place(tensor.name).kind in known]
    return max(rows, key=abs, default=0)


def main_distances(portrait: Portrait) -> tuple[str, Distances] | None:
    """The dtype that most words have, and their distances."""
    found = [(d.count, dtype.label, d) for dtype, d in portrait.totals.ulps.items()]
    if not found:
        return None
    _, label, distances = max(found, key=lambda one: (one[0], one[1]))
    return label, distances


def typical(found: Distances) -> int:
    """A distance that half of the words that moved do not exceed: an end of a bucket."""
    moved = found.count - found.octaves.get(0, 0)
    so_far = 0
    for bucket, count in found.octaves.items():
        so_far += count if bucket else 0
        if bucket and 2 * so_far >= moved:
            return bucket_range(bucket)[1]
    return 0


def _table(portrait: Portrait) -> Iterator[str]:
    published = portrait.whole.published is not None
    head = ["kind", "size", *(["published"] * published), "same", "update"]
    yield f"| {' | '.join(head)} |"
    yield "| --- |" + " ---: |" * (len(head) - 1)
    rows: list[tuple[str, Group]] = [
        (kind.title, of) for kind, of in portrait.groups.kinds.items()
    ]
    for title, of in [*rows, ("All", portrait.whole)]:
        cells = [title, size(of.nbytes)]
        if published:
            cells.append(size(of.published or 0))
        cells += [
            "–" if share is None else percent(share)
            for share in (of.share_same, of.relative)
        ]
        yield f"| {' | '.join(cells)} |"
