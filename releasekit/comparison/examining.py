"""The one pass over two models, or over one.

Tensors are read in pieces of a fixed number of words, by as many threads as there are; the
pieces' figures are added up in order, so that the same inputs give the same figures on any
number of threads. Tensors that a release rebuilds are held against its digests meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.comparison.sides import Side
from releasekit.digest import blake3
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import DEFAULT_MAX_MEMORY, Need, share_out
from releasekit.statistics.changes import Change, comparable
from releasekit.statistics.diff import Diff, Setting, TensorDiff, TensorSide
from releasekit.statistics.narrowing import Extent, holders, narrower
from releasekit.statistics.values import Values
from releasekit.statistics.words import ordered_dtype
from releasekit.tensors import TensorSpec

#: Words that are read at once, where nothing else is better.
_PIECE: Final = 1 << 20
#: Space for the figures of a piece while they are made, in bytes: words of some dtypes are
#: widened to 8 bytes, on both sides.
_SCRATCH: Final = 1 << 20
_WIDENED: Final = 2 * 8

_Sides = tuple[Side | None, Side]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A tensor of either side, or of both."""

    name: str
    first: TensorSpec | None
    second: TensorSpec | None

    @property
    def compared(self) -> bool:
        """Whether they can be compared."""
        a, b = self.first, self.second
        if a is None or b is None or not comparable(a.dtype, b.dtype):
            return False
        if a.shape == b.shape:
            return True
        # Rows of a part of a byte have no place of their own.
        whole = a.dtype.bits % 8 == 0 == b.dtype.bits % 8
        return whole and bool(a.shape) and bool(b.shape) and a.shape[1:] == b.shape[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Words of a pair that are read at once."""

    pair: _Pair
    start: int
    first: int  # words of A
    second: int  # words of B
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Figures of one side of a piece, or of a tensor so far."""

    values: Values | None = None
    extent: Extent | None = None

    def __add__(self, other: _Part) -> _Part:
        values, extent = other.values, other.extent
        if values is not None and self.values is not None:
            values = self.values + values
        if extent is not None and self.extent is not None:
            extent = self.extent + extent
        return _Part(values=values, extent=extent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What a piece came to."""

    first: _Part
    second: _Part
    change: Change | None
    data: tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What the pieces of a tensor came to so far."""

    first: _Part = field(default_factory=_Part)
    second: _Part = field(default_factory=_Part)
    change: Change | None = None
    digests: tuple[blake3, blake3] = field(default_factory=lambda: (blake3(), blake3()))

    def take(self, found: _Figures, sides: _Sides) -> None:
        """Add the figures of the piece that follows."""
        self.first += found.first
        self.second += found.second
        if found.change is not None:
            self.change = self.change + found.change if self.change else found.change
        for side, hasher, data in zip(sides, self.digests, found.data, strict=True):
            if side is not None and side.virtual is not None:
                hasher.update(data.data)


def examine(
    first: Side | None,
    second: Side,
    *,
    values: bool = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> Diff:
    """Compare two models that are open, or describe one; arguments are as in `compare`."""
    sides = (first, second)
    pairs = _pairs(first, second)
    resources = share_out(_need(pairs, sides), threads=threads, max_memory=max_memory)
    total = sum(spec.nbytes for p in pairs for spec in (p.first, p.second) if spec)
    stage = Stage(progress, "compare" if first else "read", total)
    tensors: list[TensorDiff] = []
    tally = _Tally()
    with Workers(resources.threads) as workers:
        made = workers.in_order(
            _work(sides, values=values), _pieces(pairs, sides), resources.buffers()
        )
        with closing(made):
            for piece, found in made:
                tally.take(found, sides)
                stage.advance(sum(data.size for data in found.data))
                if piece.last:
                    tensors.append(_finished(piece.pair, tally, sides))
                    tally = _Tally()
    return Diff(
        first=None if first is None else first.label,
        second=second.label,
        tensors=tuple(tensors),
        metadata=_settings(first.metadata if first else {}, second.metadata),
        files=_settings(first.files if first else {}, second.files),
    )


def _pairs(first: Side | None, second: Side) -> list[_Pair]:
    mine: Mapping[str, TensorSpec] = {} if first is None else first.checkpoint.specs
    theirs = second.checkpoint.specs
    both = [
        _Pair(name=name, first=mine.get(name), second=spec) for name, spec in theirs.items()
    ]
    gone = [_Pair(name=n, first=mine[n], second=None) for n in mine if n not in theirs]
    return [*both, *gone]


def _words(spec: TensorSpec | None) -> int:
    return 0 if spec is None else spec.nbytes * 8 // spec.dtype.word.bits


def _piece(pair: _Pair, sides: _Sides) -> int:
    """Words of a pair to read at once."""
    for side, spec in ((sides[1], pair.second), (sides[0], pair.first)):
        if side is not None and spec is not None and side.virtual is not None:
            return side.virtual.piece(spec.name)
    return _PIECE


def _need(pairs: Sequence[_Pair], sides: _Sides) -> Need:
    buffer, scratch, most = 0, 0, 0
    for pair in pairs:
        words = _piece(pair, sides)
        most = max(most, words)
        nbytes = [
            min(words, _words(spec)) * spec.dtype.word.bits // 8
            for spec in (pair.first, pair.second)
            if spec is not None
        ]
        buffer = max(buffer, sum(nbytes) + 8)
    for side in sides:
        if side is not None and side.virtual is not None:
            # A chunk that is not read whole is made beside.
            need = side.virtual.need(side.checkpoint.specs)
            scratch += need.scratch + 2 * need.buffer
    return Need(buffer=buffer, scratch=scratch + _WIDENED * most + _SCRATCH)


def _pieces(pairs: Sequence[_Pair], sides: _Sides) -> Iterator[_Piece]:
    """All of the pairs, in order; an empty pair has one empty piece."""
    for pair in pairs:
        step = _piece(pair, sides)
        counts = [_words(spec) for spec in (pair.first, pair.second)]
        length = max(counts)
        for start in range(0, max(length, 1), step):
            first, second = (max(min(count - start, step), 0) for count in counts)
            yield _Piece(
                pair=pair,
                start=start,
                first=first,
                second=second,
                last=start + step >= length,
            )


def _work(
    sides: _Sides, *, values: bool
) -> Callable[[_Piece, NDArray[np.uint8]], _Figures]:
    """What is done with a piece, in a worker thread."""

    def work(piece: _Piece, space: NDArray[np.uint8]) -> _Figures:
        pair = piece.pair
        a = _read(sides[0], pair.first, piece.start, piece.first, space)
        after = space[-(-a.size // 8) * 8 :]  # words stay aligned
        b = _read(sides[1], pair.second, piece.start, piece.second, after)
        change = None
        if pair.compared and pair.first is not None and pair.second is not None:
            x, y = pair.first.dtype, pair.second.dtype
            shared = min(piece.first, piece.second)
            change = Change.of(
                a[: shared * (x.word.bits // 8)],
                x,
                b[: shared * (y.word.bits // 8)],
                y,
                piece.start,
            )
        return _Figures(
            first=_part(a, pair.first, piece.start, values=False),
            second=_part(b, pair.second, piece.start, values=values),
            change=change,
            data=(a, b),
        )

    return work


def _read(
    side: Side | None,
    spec: TensorSpec | None,
    start: int,
    words: int,
    space: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Words of one side of a piece, as bytes."""
    if side is None or spec is None:
        return space[:0]
    width = spec.dtype.word.bits // 8
    data = space[: words * width]
    if words:
        side.checkpoint.read(spec.name, start * width, data)
    return data


def _part(
    data: NDArray[np.uint8], spec: TensorSpec | None, start: int, *, values: bool
) -> _Part:
    """Figures of one side of a piece."""
    if spec is None:
        return _Part()
    dtype = spec.dtype
    found = Values.of(data, dtype, start) if values else None
    if not narrower(dtype):
        return _Part(values=found)
    largest = found.largest if found is not None else None
    extent = Extent.of(data, dtype, largest)
    if not values and holders(dtype, extent):
        # Only then does it matter how large they are.
        sized = Values.of(data, dtype)
        extent = Extent.of(data, dtype, sized.largest if sized is not None else None)
    return _Part(values=found, extent=extent)


def _finished(pair: _Pair, tally: _Tally, sides: _Sides) -> TensorDiff:
    """What became of a tensor, once all of it was read."""
    made: list[TensorSide | None] = []
    for side, spec, part, hasher in zip(
        sides,
        (pair.first, pair.second),
        (tally.first, tally.second),
        tally.digests,
        strict=True,
    ):
        if side is None or spec is None:
            made.append(None)
            continue
        if side.virtual is not None:
            side.virtual.check(spec.name, hasher.hexdigest())
        made.append(
            TensorSide(
                spec=spec,
                values=part.values,
                holders=() if part.extent is None else holders(spec.dtype, part.extent),
                published=side.published(spec.name),
            )
        )
    dtype = None
    if pair.first is not None and pair.second is not None and tally.change is not None:
        dtype = ordered_dtype(pair.first.dtype, pair.second.dtype)
    return TensorDiff(
        name=pair.name, first=made[0], second=made[1], change=tally.change, ulp_dtype=dtype
    )


def _settings(before: Mapping[str, str], second: Mapping[str, str]) -> tuple[Setting, ...]:
    return tuple(
        Setting(name=name, first=before.get(name), second=second.get(name))
        for name in sorted(before.keys() | second.keys())
    )
