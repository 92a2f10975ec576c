"""Statistics as a JSON document: what `diff --json` prints, and reports keep."""

from __future__ import annotations

from typing import Any

from releasekit.statistics.changes import Change, Distances, bucket_range
from releasekit.statistics.diff import (
    Diff,
    Narrowing,
    Setting,
    TensorDiff,
    TensorSide,
    narrowings,
    place_of,
    side_tensors,
)
from releasekit.statistics.values import Values
from releasekit.tensors import TensorSpec


def diff_document(diff: Diff, *, tensors: bool = True) -> dict[str, Any]:
    """All that a comparison found; `tensors` says whether to list them one by one."""
    totals = diff.totals
    document: dict[str, Any] = {"a": diff.first, "b": diff.second}
    if diff.first is not None:
        document |= {
            "differs": diff.differs,
            "counts": {status.value: n for status, n in diff.counts.items()},
            "words": totals.words,
            "same_words": totals.same,
            "share_same": totals.share_same,
            "relative_update": totals.relative,
            "not_finite": totals.skipped,
            "ulps": {
                dtype.label: distances_document(found)
                for dtype, found in totals.ulps.items()
            },
            "narrower_a": [
                narrowing_document(found)
                for found in narrowings(side_tensors(diff, first=True))
            ],
        }
    document |= {
        "narrower_b": [
            narrowing_document(found)
            for found in narrowings(side_tensors(diff, first=False))
        ],
        "metadata": [_setting(setting) for setting in diff.metadata],
        "files": [_setting(setting) for setting in diff.files],
    }
    if tensors:
        document["tensors"] = [tensor_document(tensor) for tensor in diff.tensors]
    return document


def distances_document(found: Distances) -> dict[str, Any]:
    """Distances in ULPs; `octaves` is a list of `[least, largest, words]`."""
    return {
        "octaves": [[*bucket_range(b), count] for b, count in found.octaves.items()],
        "mean": found.mean,
        "largest": found.largest,
    }


def narrowing_document(found: Narrowing) -> dict[str, Any]:
    """A dtype that is wider than its values."""
    return {
        "dtype": found.dtype.label,
        "fits": [dtype.label for dtype in found.holders],
        "tensors": found.tensors,
        "nbytes": found.nbytes,
    }


def tensor_document(tensor: TensorDiff) -> dict[str, Any]:
    """One tensor."""
    document: dict[str, Any] = {"name": tensor.name, "status": tensor.status.value}
    for name, side in (("a", tensor.first), ("b", tensor.second)):
        if side is not None:
            document[name] = _side(side)
    if tensor.rows:
        document["rows"] = tensor.rows
    if tensor.change is not None and tensor.first is not None:
        document["change"] = _change(tensor.change, tensor.first.spec)
        if tensor.ulp_dtype is not None:
            document["change"]["ulp_dtype"] = tensor.ulp_dtype.label
    return document


def _side(side: TensorSide) -> dict[str, Any]:
    spec = side.spec
    document: dict[str, Any] = {
        "dtype": spec.dtype.label,
        "shape": list(spec.shape),
        "nbytes": spec.nbytes,
    }
    if side.published is not None:
        document["published_nbytes"] = side.published
    if side.holders:
        document["fits"] = [dtype.label for dtype in side.holders]
    if side.values is not None:
        document["values"] = values_document(side.values, spec)
    return document


def values_document(values: Values, spec: TensorSpec | None = None) -> dict[str, Any]:
    """Figures of values."""
    document: dict[str, Any] = {
        "count": values.count,
        "zeros": values.zeros,
        "nans": values.nans,
        "infinities": values.infinities,
        "least": values.least,
        "greatest": values.greatest,
        "mean": values.mean,
        "std": values.std,
        "largest": values.largest,
    }
    if spec is not None and values.place is not None:
        document["largest_at"] = place_of(spec, values.place)
    return document


def _change(change: Change, spec: TensorSpec) -> dict[str, Any]:
    document: dict[str, Any] = {
        "words": change.words,
        "same_words": change.same,
        "share_same": change.share_same,
    }
    if change.ulps is not None:
        document["ulps"] = distances_document(change.ulps)
    if change.update is not None:
        document["update"] = {
            "relative": change.update.relative,
            "norm": change.update.norm,
            "largest": change.update.largest,
            "not_finite": change.update.skipped,
        }
        if change.update.place is not None:
            document["update"]["largest_at"] = place_of(spec, change.update.place)
    return document


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "name": setting.name,
        "status": setting.status.value,
        "a": setting.first,
        "b": setting.second,
    }
