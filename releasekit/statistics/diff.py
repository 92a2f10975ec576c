"""What a comparison of two checkpoints found: values, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from releasekit.operations import is_buffer
from releasekit.statistics.changes import Change, Distances, plus
from releasekit.statistics.narrowing import common, narrower
from releasekit.statistics.values import Values
from releasekit.statistics.wording import size
from releasekit.tensors import DType, TensorSpec


class Status(Enum):
    """What became of a tensor, or of a file; in the order of tables."""

    CHANGED = "changed"
    ROWS = "rows"  # has more rows, or fewer
    DTYPE = "dtype"
    SHAPE = "shape"
    ADDED = "only in B"
    REMOVED = "only in A"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSide:
    """A tensor of one checkpoint.

    Attributes:
        spec: name, dtype and shape.
        values: what its numbers are like; None if that was not asked for, or its dtype has
            no numbers.
        holders: smaller dtypes that hold all of them, the smallest first.
        published: bytes that a release has for it; None outside a release.
    """

    spec: TensorSpec
    values: Values | None = None
    holders: tuple[DType, ...] = ()
    published: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDiff:
    """One tensor of two checkpoints, or of one of them.

    Attributes:
        name: its name.
        first: what A has.
        second: what B has.
        change: how they differ, in the rows that both have; None if they cannot be
            compared.
        ulp_dtype: the dtype in whose ULPs distances are; None if there are none.
    """

    name: str
    first: TensorSide | None
    second: TensorSide | None
    change: Change | None = None
    ulp_dtype: DType | None = None

    @property
    def rows(self) -> int:
        """Rows that B has more than A; fewer if negative; 0 if that is no question."""
        if self.first is None or self.second is None or self.change is None:
            return 0
        before, after = self.first.spec.shape, self.second.spec.shape
        return after[0] - before[0] if before != after else 0

    @property
    def status(self) -> Status:
        """What became of it; of several, what is the first to know."""
        if self.first is None:
            return Status.ADDED
        if self.second is None:
            return Status.REMOVED
        if self.first.spec.dtype is not self.second.spec.dtype:
            return Status.DTYPE
        if self.change is None:
            return Status.SHAPE
        if self.rows:
            return Status.ROWS
        return Status.SAME if self.change.same == self.change.words else Status.CHANGED

    @property
    def is_float(self) -> bool:
        """Whether it holds floats, at least in A."""
        side = self.first or self.second
        return side is not None and side.spec.dtype.word.signed_magnitude

    @property
    def nbytes(self) -> int:
        """Size in B, or in A if B lacks it."""
        side = self.second or self.first
        return side.spec.nbytes if side else 0

    @property
    def relative(self) -> float | None:
        """Size of the update relative to A's values; None if there is none."""
        return self.change.update.relative if self.change and self.change.update else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A file beside the weights, or an entry of their headers' metadata.

    Attributes:
        name: its path or key.
        first: its SHA-256 or text in A; None if A lacks it.
        second: that in B.
    """

    name: str
    first: str | None
    second: str | None

    @property
    def status(self) -> Status:
        """What became of it."""
        if self.first is None:
            return Status.ADDED
        if self.second is None:
            return Status.REMOVED
        return Status.SAME if self.first == self.second else Status.CHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Figures of several tensors together.

    Attributes:
        words: words that were compared.
        same: those that are equal.
        relative: L2 norm of all updates of floats, divided by that of their first values;
            None if it is not known. Integers, such as counters of steps, would drown them.
        skipped: pairs of floats that have no finite difference.
        ulps: distances, by the dtype in whose ULPs they are.
    """

    words: int
    same: int
    relative: float | None
    skipped: int
    ulps: Mapping[DType, Distances]

    @classmethod
    def of(cls, tensors: Iterable[TensorDiff]) -> Totals:
        """The totals of these."""
        words = same = skipped = 0
        squares: float | None = 0.0
        before: float | None = 0.0
        ulps: dict[DType, Distances] = {}
        for tensor in tensors:
            change = tensor.change
            if change is None:
                continue
            words += change.words
            same += change.same
            if change.ulps is not None and tensor.ulp_dtype is not None:
                found = ulps.get(tensor.ulp_dtype, Distances())
                ulps[tensor.ulp_dtype] = found + change.ulps
            if change.update is not None and tensor.is_float:
                skipped += change.update.skipped
                squares = plus(squares, change.update.squares)
                before = plus(before, change.update.before)
        relative = None
        if squares is not None and before:
            relative = math.sqrt(squares) / math.sqrt(before)
        return cls(words=words, same=same, relative=relative, skipped=skipped, ulps=ulps)

    @property
    def share_same(self) -> float | None:
        """Share of words that are equal; None if none were compared."""
        return self.same / self.words if self.words else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Two checkpoints, compared; or one, described, as B.

    Attributes:
        first: what A is, for people; None if there is only B.
        second: what B is.
        tensors: in the order of B's files, then those that only A has.
        metadata: entries of the headers' metadata, sorted.
        files: files beside the weights, sorted; values are SHA-256.
    """

    first: str | None
    second: str
    tensors: tuple[TensorDiff, ...]
    metadata: tuple[Setting, ...]
    files: tuple[Setting, ...]

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        found = [*(tensor.status for tensor in self.tensors)]
        found += [setting.status for setting in (*self.metadata, *self.files)]
        return any(status is not Status.SAME for status in found)

    @property
    def totals(self) -> Totals:
        """Figures of all tensors."""
        return Totals.of(self.tensors)

    @property
    def counts(self) -> dict[Status, int]:
        """Number of tensors by what became of them, without those of none."""
        found = [tensor.status for tensor in self.tensors]
        return {status: found.count(status) for status in Status if status in found}

    @property
    def grown(self) -> tuple[TensorDiff, ...]:
        """Tensors with more rows, or fewer."""
        return tuple(tensor for tensor in self.tensors if tensor.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """A dtype in which smaller ones hold every value.

    Attributes:
        dtype: what the tensors are stored as.
        holders: smaller dtypes that hold all values of all of them, the smallest first;
            there is at least one.
        tensors: how many tensors there are of that dtype.
        nbytes: their size.
    """

    dtype: DType
    holders: tuple[DType, ...]
    tensors: int
    nbytes: int

    def describe(self) -> str:
        """A sentence about it."""
        names = " or ".join(dtype.label for dtype in self.holders)
        saved = self.nbytes - self.nbytes * self.holders[0].bits // self.dtype.bits
        every = "The tensor" if self.tensors == 1 else f"All {self.tensors:,} tensors"
        hold = "holds" if self.tensors == 1 else "hold"
        return (
            f"{every} of {self.dtype.label} {hold} values of {names}, bit for bit: as "
            f"{self.holders[0].label} that takes {size(saved)} less, with no loss."
        )


def narrowings(sides: Iterable[TensorSide]) -> tuple[Narrowing, ...]:
    """Dtypes of a checkpoint that are wider than its values need, throughout."""
    by_dtype: dict[DType, list[TensorSide]] = {}
    for side in sides:
        if is_buffer(side.spec.name):
            continue  # libraries compute it: its dtype is no choice of the model's
        if narrower(side.spec.dtype) and side.spec.numel:
            by_dtype.setdefault(side.spec.dtype, []).append(side)
    return tuple(
        Narrowing(
            dtype=dtype,
            holders=holders,
            tensors=len(of),
            nbytes=sum(side.spec.nbytes for side in of),
        )
        for dtype, of in by_dtype.items()
        if (holders := common(side.holders for side in of))
    )


def side_tensors(diff: Diff, *, first: bool) -> Iterator[TensorSide]:
    """The tensors of A, or those of B."""
    for tensor in diff.tensors:
        side = tensor.first if first else tensor.second
        if side is not None:
            yield side


def place_of(spec: TensorSpec, word: int) -> str:
    """Where in a tensor a word is: `[17, 4]`, for people."""
    if spec.dtype is DType.C64:
        word //= 2
    index: list[int] = []
    for length in reversed(spec.shape):
        word, at = divmod(word, max(length, 1))
        index.append(at)
    return f"[{', '.join(map(str, reversed(index)))}]"
