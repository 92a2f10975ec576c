"""`releasekit diff`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.licensing import accept_option, consent_of
from releasekit.cli.shell import Shell, common_options, memory_options
from releasekit.cli.signatures import check_options, policy_of

if TYPE_CHECKING:
    from releasekit.statistics.changes import Distances
    from releasekit.statistics.diff import Diff, Setting, TensorDiff

_BAR: Final = 30  # characters
_DIGITS: Final = re.compile(r"(\d+)")


@click.command("diff", epilog=EPILOG)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--base",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Base model, if A or B is a delta release: it is rebuilt in memory. Give it again "
    "for each earlier release between the base model and them.",
)
@click.option(
    "--sort",
    type=click.Choice(["change", "size", "name"]),
    default="change",
    show_default=True,
    help="Which tensors come first: those that changed most, or are largest.",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=40,
    show_default=True,
    help="Tensors to show; 0 shows all. --json has all in any case.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if A and B differ.")
@accept_option
@check_options
@memory_options
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    first: Path,
    second: Path,
    base: tuple[Path, ...],
    sort: str,
    limit: int,
    exit_code: bool,
    accept_license: bool,
    threads: int | None,
    max_memory: int,
    **options: Any,
) -> int:
    """Compare two models, tensor by tensor and bit by bit.

    A and B are models in any form: safetensors, PyTorch's .bin, .pt or .pth, Meta's
    consolidated.NN.pth, org/name@revision on the Hugging Face Hub; or, with --base, delta
    releases. Reads both once, in bounded memory.

    For each tensor it says which share of the words is the same, bit for bit; how far the
    others are apart in ULPs, that is in steps from one representable number to the next;
    and how large the update is, as the L2 norm of B − A divided by that of A. Floats of
    different dtypes are compared once both are widened, exactly. Header metadata and the
    files beside the weights are compared, too. Where a smaller dtype would hold every
    value, bit for bit, it is named: then `convert --dtype` loses nothing.

    A difference is no error: the exit code is 0, unless --exit-code is given.

    \b
    Examples:
      releasekit diff llama-7b my-tune
      releasekit diff llama-7b my-tune-delta --base llama-7b --limit 10
      releasekit diff acme/model@v1 acme/model@v2 --json > changes.json
      releasekit diff model model.copy --exit-code -q && echo identical
    """
    from releasekit.comparison import compare
    from releasekit.statistics.document import diff_document

    policy = policy_of(shell, options)
    shell.note_compiling()
    with shell.progress() as progress:
        found = compare(
            first,
            second,
            base=base,
            policy=policy,
            accept_license=consent_of(shell, accept_license),
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    shell.result(diff_document(found), _lines(found, sort, limit))
    return 1 if exit_code and found.differs else 0


def _lines(found: Diff, sort: str, limit: int) -> Iterator[str]:
    from releasekit.statistics.diff import Status

    differing = [t for t in found.tensors if t.status is not Status.SAME]
    if differing:
        differing.sort(key=_order(sort))
        shown = differing[:limit] if limit else differing
        header = ["tensor", "what", "type", "same", "mean ULPs", "most", "update", "at"]
        rows = [_row(tensor) for tensor in shown]
        yield from render.table(header, rows, "lllrrrrl")
        if len(differing) > len(shown):
            yield f"… and {len(differing) - len(shown)} more; --limit 0 shows all"
        yield ""
    totals = found.totals
    for dtype, ulps in totals.ulps.items():
        if ulps.largest:
            yield f"distances of {dtype.label} words, in ULPs"
            yield from _histogram(ulps)
            yield ""
    yield from render.facts(_summary(found))


def _order(sort: str) -> Any:
    """How tensors are sorted."""

    def natural(tensor: TensorDiff) -> list[tuple[int, str]]:
        # Splitting at groups puts digits at every other place.
        parts = _DIGITS.split(tensor.name)
        return [
            (int(part[:18]), part) if at % 2 and part.isascii() else (-1, part)
            for at, part in enumerate(parts)
        ]

    def change(tensor: TensorDiff) -> tuple[Any, ...]:
        # What cannot be measured comes first: it is no small change.
        relative = tensor.relative if tensor.change is not None else None
        same = tensor.change.share_same if tensor.change is not None else 0.0
        return (relative is not None, -(relative or 0.0), same, natural(tensor))

    def size(tensor: TensorDiff) -> tuple[Any, ...]:
        return (-tensor.nbytes, natural(tensor))

    return {"change": change, "size": size, "name": natural}[sort]


def _row(tensor: TensorDiff) -> list[str]:
    from releasekit.statistics.diff import place_of

    sides = [side.spec for side in (tensor.first, tensor.second) if side is not None]
    types = list(dict.fromkeys(spec.describe() for spec in sides))
    what = f"{tensor.rows:+} rows" if tensor.rows else tensor.status.value
    row = [tensor.name, what, " → ".join(types)]
    change = tensor.change
    if change is None:
        return [*row, "", "", "", "", ""]
    row.append(render.share(change.share_same))
    if change.ulps is None:
        row += ["–", "–"]
    else:
        row += [f"{change.ulps.mean:.3g}", _number(change.ulps.largest)]
    update = change.update
    if update is None:
        return [*row, "–", ""]
    at = ""
    if update.place is not None:
        at = f"{update.largest:.3g} {place_of(sides[0], update.place)}"
    return [*row, "–" if update.relative is None else f"{update.relative:.3g}", at]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value < 1e7 else f"{value:.3g}"


def _histogram(found: Distances) -> Iterator[str]:
    from releasekit.statistics.changes import bucket_range

    most = max(found.octaves.values())
    rows = []
    for bucket in range(max(found.octaves) + 1):
        low, high = bucket_range(bucket)
        count = found.octaves.get(bucket, 0)
        label = str(low) if low == high else f"{low} – {high}"
        if low >= 10**7:
            label = f"2^{bucket - 1} and more"
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        rows.append([label, f"{count:,}", render.share(count / found.count), bar])
    yield from render.table(["ULPs", "words", "share", ""], rows, "rrrl")


def _summary(found: Diff) -> list[tuple[str, str]]:
    from releasekit.statistics.diff import narrowings, side_tensors

    totals = found.totals
    counts = ", ".join(f"{n} {status.value}" for status, n in found.counts.items())
    facts = [
        ("A", str(found.first)),
        ("B", found.second),
        ("tensors", f"{counts or 'none'}; of {len(found.tensors)}"),
        (
            "same words",
            f"{totals.same:,} of {totals.words:,}, {render.share(totals.share_same)}",
        ),
    ]
    if totals.relative is not None:
        facts.append(("update", f"{totals.relative:.3g} of A's L2 norm, floats together"))
    if totals.skipped:
        facts.append(
            (
                "not finite",
                f"{totals.skipped:,} pairs with NaN or infinity, which are in no update",
            )
        )
    for tensor in found.grown[:4]:
        more = "more" if tensor.rows > 0 else "fewer"
        facts.append(("rows", f"{tensor.name} has {abs(tensor.rows):,} {more} in B"))
    casts = [
        f"{t.first.spec.dtype.label} in A and {t.second.spec.dtype.label} in B"
        for t in found.tensors
        if t.first and t.second and t.change and t.first.spec.dtype != t.second.spec.dtype
    ]
    for pair in dict.fromkeys(casts):
        facts.append(("dtype", f"{pair}: {casts.count(pair)} tensors, compared as widened"))
    facts += _settings("metadata", found.metadata)
    facts += _settings("files", found.files)
    for label, first in (("A", True), ("B", False)):
        for narrowing in narrowings(side_tensors(found, first=first)):
            facts.append((f"{label} could be smaller", narrowing.describe()))
    facts.append(("verdict", "they differ" if found.differs else "identical"))
    return facts


def _settings(label: str, settings: tuple[Setting, ...]) -> Iterator[tuple[str, str]]:
    """Files or metadata that differ, and how many do not."""
    from releasekit.statistics.diff import Status

    by_status: dict[Status, list[str]] = {}
    for setting in settings:
        by_status.setdefault(setting.status, []).append(setting.name)
    same = by_status.pop(Status.SAME, [])
    for status, names in by_status.items():
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        yield label, f"{status.value}: {', '.join(names[:8])}{more}"
    if same:
        yield label, f"{len(same)} the same"
