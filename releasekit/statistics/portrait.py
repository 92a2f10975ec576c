"""All that a report shows of a model, or of a model against its base.

Made of one comparison, from which pictures, tables, the summary and the JSON document all
come; so nothing is read twice, and no two of them disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from releasekit.statistics.diff import (
    Diff,
    Narrowing,
    TensorDiff,
    Totals,
    narrowings,
    side_tensors,
)
from releasekit.statistics.document import diff_document, values_document
from releasekit.statistics.groups import Group, Groups, group

FORMAT: Final = "releasekit-report/1"
#: Tensors that are listed as outliers.
_MOST_OUTLIERS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Tensors of one dtype: how many, and their size."""

    tensors: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """A model's figures.

    Attributes:
        name: what the model is called.
        base: what it is compared with is called; None if it stands alone.
        version: of the release that the model comes from; None if it is from none.
        diff: the comparison.
        totals: figures of all tensors together, against the base.
        whole: all tensors, taken together.
        groups: the tensors by where they belong.
        dtypes: the model's tensors by dtype, the largest first.
        outliers: tensors with the largest changes of a single value; without a base, with
            the largest values for their deviation.
        narrower: dtypes of the model that are wider than its values need.
    """

    name: str
    base: str | None
    version: str | None
    diff: Diff
    totals: Totals
    whole: Group
    groups: Groups
    dtypes: dict[str, Stored]
    outliers: tuple[TensorDiff, ...]
    narrower: tuple[Narrowing, ...]

    @classmethod
    def of(
        cls, diff: Diff, *, name: str, base: str | None, version: str | None = None
    ) -> Self:
        """The figures of what was compared, or described, with `values`."""
        own = [tensor for tensor in diff.tensors if tensor.second is not None]
        return cls(
            name=name,
            base=base,
            version=version,
            diff=diff,
            totals=diff.totals,
            whole=Group.of(own),
            groups=group(own),
            dtypes=_dtypes(diff),
            outliers=_outliers(own, is_pair=base is not None),
            narrower=narrowings(side_tensors(diff, first=False)),
        )


def reach(tensor: TensorDiff) -> float:
    """The largest magnitude in standard deviations; 0 if there is none."""
    side = tensor.second
    if side is None or side.values is None or not tensor.is_float:
        return 0.0
    return side.values.reach or 0.0


def _dtypes(diff: Diff) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for side in side_tensors(diff, first=False):
        so_far = found.get(side.spec.dtype.label, Stored(tensors=0, nbytes=0))
        found[side.spec.dtype.label] = Stored(
            tensors=so_far.tensors + 1, nbytes=so_far.nbytes + side.spec.nbytes
        )
    return dict(sorted(found.items(), key=lambda pair: (-pair[1].nbytes, pair[0])))


def _outliers(tensors: list[TensorDiff], *, is_pair: bool) -> tuple[TensorDiff, ...]:
    def size(tensor: TensorDiff) -> float:
        if not is_pair:
            return reach(tensor)
        update = tensor.change.update if tensor.change else None
        return update.largest if update is not None and tensor.is_float else 0.0

    found = sorted((t for t in tensors if size(t)), key=lambda t: (-size(t), t.name))
    return tuple(found[:_MOST_OUTLIERS])


def document(portrait: Portrait, *, tensors: bool = True) -> dict[str, Any]:
    """The figures as JSON.

    Args:
        portrait: the figures.
        tensors: whether to list tensors one by one.
    """
    found = diff_document(portrait.diff, tensors=tensors)
    found = {name: value for name, value in found.items() if name not in ("a", "b")}
    layers = portrait.groups.layers
    made: dict[str, Any] = {
        "format": FORMAT,
        "name": portrait.name,
        "base": portrait.base,
    }
    if portrait.version is not None:
        made["version"] = portrait.version
    made |= {
        "whole": _group(portrait.whole),
        "dtypes": {
            label: {"tensors": stored.tensors, "nbytes": stored.nbytes}
            for label, stored in portrait.dtypes.items()
        },
        "kinds": {kind.label: _group(of) for kind, of in portrait.groups.kinds.items()},
        "layers": {
            "labels": list(layers.labels),
            "kinds": [
                {kind.label: _group(of) for kind, of in by.items()} for by in layers.kinds
            ],
            "modules": list(layers.modules),
            "grid": [
                [None if of is None else _group(of) for of in row] for row in layers.grid
            ],
        },
        "outside": {name: _group(of) for name, of in portrait.groups.outside.items()},
        "outliers": [tensor.name for tensor in portrait.outliers],
    }
    if portrait.groups.rest is not None:
        made["rest"] = _group(portrait.groups.rest)
    return made | found


def _group(of: Group) -> dict[str, Any]:
    made: dict[str, Any] = {"tensors": of.tensors, "nbytes": of.nbytes}
    if of.published is not None:
        made["published_nbytes"] = of.published
    if of.words:
        made |= {"share_same": of.share_same, "relative_update": of.relative}
    if of.values is not None:
        figures = values_document(of.values)
        made["values"] = {
            name: figures[name]
            for name in ("least", "greatest", "mean", "std", "zeros", "nans", "infinities")
        }
    return made
