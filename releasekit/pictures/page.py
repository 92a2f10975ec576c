"""The page of a report: one file of HTML that needs nothing but itself.

No network, no other file, no font; it reads without scripts, which only show figures under
the pointer and sort a table. Names come from files and may be hostile: everything is
escaped where it is put in, control characters and those that turn text around are spelled
out, and a content security policy lets nothing run but the one script whose digest it has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from releasekit.pictures import plan, svg
from releasekit.pictures.palette import DARK, KINDS, LIGHT, SCALE
from releasekit.statistics.diff import Status, TensorDiff, place_of
from releasekit.statistics.groups import MOST_LAYERS, Group
from releasekit.statistics.places import Kind
from releasekit.statistics.portrait import Portrait, document
from releasekit.statistics.summary import sentences, vocabulary
from releasekit.statistics.wording import listed, number, percent, size

_HERE: Final = Path(__file__).parent
#: Tensors that a page lists one by one; with more, it lists modules instead.
_MOST_TENSORS: Final = 1200
_MOST_ROWS: Final = 600
_MOST_SETTINGS: Final = 100
_NAME: Final = 120  # characters
_UNIT: Final = re.compile(r"(?<=\d) (?=%|[kMGT]?B\b)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The chart of a model's evaluations.

    Attributes:
        light: the chart as SVG, for light pages.
        dark: the same for dark ones.
        words: the chart in words.
        rows: task, model's figure and, if there is a base, its figure and the difference.
        has_base: whether there is a base.
    """

    light: bytes
    dark: bytes
    words: str
    rows: tuple[tuple[str, ...], ...]
    has_base: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line of the table of tensors."""

    name: str
    type: str
    of: Group


def render(portrait: Portrait, evaluation: Evaluation | None = None) -> bytes:
    """The page.

    Args:
        portrait: what it shows.
        evaluation: the chart of evaluations, if there are some.
    """
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    is_long = len(portrait.diff.tensors) > _MOST_TENSORS
    layers, published = plan.by_layer(portrait), None
    if portrait.whole.published is not None:
        published = plan.by_layer(portrait, published=True)
    heats = {
        "updates": plan.updates(portrait) if portrait.base is not None else None,
        "unchanged": plan.unchanged(portrait) if portrait.base is not None else None,
        "deviations": plan.deviations(portrait),
    }
    drawn = {chart.name: svg.columns(chart) for chart in (layers, published) if chart}
    drawn |= {chart.name: svg.heat(chart) for chart in heats.values() if chart}
    distances = plan.distances(portrait)
    kinds = portrait.groups.kinds
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            name=plan.shortened(portrait.name, _NAME),
            base=portrait.base and plan.shortened(portrait.base, _NAME),
            version=portrait.version,
            portrait=portrait,
            light=LIGHT,
            dark=DARK,
            kinds=KINDS,
            scale=SCALE,
            colors={kind: color for color, kind in enumerate(Kind)},
            css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_digest=Markup(digest),
            json=_json(document(portrait, tensors=not is_long)),
            sentences=[_unbroken(text) for text in sentences(portrait)],
            grown=vocabulary(portrait.diff.grown),
            layers=layers,
            published=published,
            joined_layers=any("–" in label for label in portrait.groups.layers.labels),
            distances=distances,
            most_kind=max((of.nbytes for of in kinds.values()), default=0),
            most_distance=max(distances.values) if distances else 0,
            drawn={
                name: {"labels": Markup(one.labels), "plot": Markup(one.plot)}
                for name, one in drawn.items()
            },
            **heats,
            others=[t for t in portrait.diff.tensors if t.change is None]
            if portrait.base is not None
            else [],
            place_of=place_of,
            evaluation=evaluation and _shown(evaluation),
            joined=is_long,
            rows=list(_module_rows(portrait) if is_long else _tensor_rows(portrait)),
            tensors_about=_about(portrait, is_long=is_long),
            settings=[
                *(("file", setting) for setting in portrait.diff.files),
                *(("metadata", setting) for setting in portrait.diff.metadata),
            ][:_MOST_SETTINGS],
        )
    )
    return text.encode()


@cache  # to compile the template takes longer than to fill it in
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "listed": listed,
        "number": lambda value: "–" if value is None else number(value),
        "percent": percent,
        "plain": lambda text: plan.shortened(text, _NAME),
        "share": lambda value: "–" if value is None else percent(value),
        "size": size,
        "what": _what,
        "width": lambda part, whole: f"{100 * part / whole:.2f}" if whole else "0",
    }
    return environment


def _unbroken(text: str) -> str:
    """A sentence whose figures stay on one line with their units."""
    return _UNIT.sub("\u00a0", text)


def _what(status: Status) -> str:
    """What became of something, on a page that knows base and model."""
    words = {
        Status.ADDED: "only in the model",
        Status.REMOVED: "only in the base",
        Status.SHAPE: "another shape",
        Status.DTYPE: "another dtype",
    }
    return words.get(status, status.value)


def _json(found: dict[str, Any]) -> Markup:
    """JSON inside a script element, which nothing in it can end."""
    text = json.dumps(found, ensure_ascii=True, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _tensor_rows(portrait: Portrait) -> Iterator[_Row]:
    for tensor in _largest(portrait.diff.tensors):
        side = tensor.second or tensor.first
        if side is not None:
            yield _Row(name=tensor.name, type=side.spec.describe(), of=Group.of([tensor]))


def _largest(tensors: Sequence[TensorDiff]) -> list[TensorDiff]:
    """As many as there is room for, in their own order."""
    kept = sorted(range(len(tensors)), key=lambda at: -tensors[at].nbytes)[:_MOST_ROWS]
    return [tensors[at] for at in sorted(kept)]


def _module_rows(portrait: Portrait) -> Iterator[_Row]:
    layers = portrait.groups.layers
    for name, row in zip(layers.modules, layers.grid, strict=True):
        found = [of for of in row if of is not None]
        yield _Row(name=name, type=_many(found), of=_sum(found))
    for name, of in portrait.groups.outside.items():
        yield _Row(name=name, type=_many([of]), of=of)
    if portrait.groups.rest is not None:
        rest = portrait.groups.rest
        yield _Row(name="others outside layers", type=_many([rest]), of=rest)


def _many(groups: Sequence[Group]) -> str:
    return f"{sum(of.tensors for of in groups):,}"


def _sum(groups: Sequence[Group]) -> Group:
    total = groups[0]
    for of in groups[1:]:
        total += of
    return total


def _about(portrait: Portrait, *, is_long: bool) -> str:
    count = len(portrait.diff.tensors)
    if is_long:
        return (
            f"There are {count:,} tensors; modules stand for those of all layers and "
            f"experts. report.json has each. Of layers, at most {MOST_LAYERS} are shown."
        )
    if count > _MOST_ROWS:
        return f"The {_MOST_ROWS} largest of {count:,} tensors; report.json has all."
    return "All tensors, in the order of the files. Click on a heading to sort."


def _shown(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "light": Markup(base64.b64encode(evaluation.light).decode()),
        "dark": Markup(base64.b64encode(evaluation.dark).decode()),
        "words": evaluation.words,
        "rows": evaluation.rows,
        "has_base": evaluation.has_base,
    }
