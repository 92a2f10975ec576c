"""Turn the samples of scripts/bench.py into tables, verdicts and a plot.

    python scripts/benchmark/report.py bench.json

Prints Markdown and writes it beside the file as bench.md, with the plot as bench.svg.
Figures are medians of the runs. A verdict compares one figure, as it is shown, with what we
must reach and what we aim for; where a part of it failed, it says so.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

Pair = dict[str, Any]
Record = dict[str, Any]
Limits = tuple[float, float]  # must, aim

SMALLEST = {"BF16": (0.60, 0.55), "F16": (0.77, 0.73)}
OURS = ("make-delta", "apply-delta")
ROW, BAR, HEADING, LABELS, PANEL, VALUES = (
    17,
    11,
    30,
    165,
    150,
    50,
)  # of the plot, in pixels
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .heading { font-weight: 600 }
  .quiet { fill: #656d76 }
  .ours { fill: #2f81f7 }
  .theirs { fill: #9aa4af }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .quiet { fill: #9198a1 }
    .theirs { fill: #6e7681 }
  }
"""


def median(record: Record, key: str) -> float | None:
    """Median of a figure over the runs; None where there is none."""
    values = [sample[key] for sample in record.get("samples", []) if key in sample]
    return None if "failure" in record or not values else statistics.median(values)


def of(pair: Pair, name: str, key: str) -> float | None:
    """The same, of a contender that may not have taken part."""
    return median(pair["contenders"].get(name, {}), key)


def shown(value: float | None, digits: int = 2) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def table(pair: Pair) -> Iterator[str]:
    """What was measured on one pair."""
    gb = pair["nbytes"] / 1e9
    yield f"### {pair['title']}: {gb:.3g} GB, {pair['weights'] / 1e6:.3g} M weights"
    yield ""
    yield (
        "| | seconds | GB/s | CPU seconds | peak MiB | published bits a weight "
        "| wrong weights | notes |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|---|"
    for name, record in pair["contenders"].items():
        seconds, peak = median(record, "seconds"), median(record, "peak_nbytes")
        published, wrong = median(record, "published_nbytes"), record.get("wrong_weights")
        is_cold = any(not sample["warm"] for sample in record["samples"])
        cells = (
            name,
            shown(seconds),
            shown(seconds and gb / seconds, 3),
            shown(median(record, "cpu_seconds")),
            shown(peak and peak / 2**20, 0),
            shown(published and 8 * published / pair["weights"], 3),
            "0"
            if wrong == 0
            else shown(wrong and 100 * wrong, 3) + (" %" if wrong else ""),
            f"**failed**: {record['failure']}" if "failure" in record else "cold" * is_cold,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def ratio(top: float | None, bottom: float | None) -> float | None:
    """Their quotient, where both are known."""
    return None if top is None or not bottom else top / bottom


def least(*values: float | None) -> float | None:
    """The smallest of those that are known."""
    return min((value for value in values if value is not None), default=None)


def verdicts(everything: list[Pair]) -> Iterator[tuple[str, str, float | None, Limits]]:
    """Each figure with a limit: its name, its pair, its value, what it must and may be."""
    pairs = [pair for pair in everything if not pair["tiny"]]
    limits: Limits | None
    for top, others, limits in (
        ("apply-delta", ("copy + sha256",), (2.0, 1.0)),
        ("apply-delta", ("FastChat", "FastChat --low-cpu-mem"), (0.25, 0.1)),
        ("make-delta", ("XOR + zstd-3",), (1.0, 0.5)),
    ):
        for pair in having(pairs, top, others[0]):
            best = least(*(of(pair, name, "seconds") for name in others))
            value = ratio(of(pair, top, "seconds"), best)
            yield f"{top} ÷ ({others[0]})", pair["title"], value, limits
    for pair in having(pairs, "make-delta", "XOR + zstd-3"):
        if limits := SMALLEST.get(pair["dtype"]):
            sizes = {
                name: size
                for name in ("XOR + zstd-3", "ZipNN delta")
                if (size := of(pair, name, "published_nbytes")) is not None
            }
            value = ratio(
                of(pair, "make-delta", "published_nbytes"), least(*sizes.values())
            )
            yield (
                f"published bytes ÷ least of ({', '.join(sizes)})",
                pair["title"],
                value,
                limits,
            )
    yield from growth(having(everything, "apply-delta"))


def having(pairs: list[Pair], *names: str) -> list[Pair]:
    """The pairs on which all of these took part."""
    return [pair for pair in pairs if set(names) <= set(pair["contenders"])]


def growth(pairs: list[Pair]) -> Iterator[tuple[str, str, float | None, Limits]]:
    """How apply-delta's memory and time grow with the model, for each dtype."""
    for dtype in dict.fromkeys(pair["dtype"] for pair in pairs):
        tiny, *sizes = sorted(
            (pair for pair in pairs if pair["dtype"] == dtype),
            key=lambda pair: pair["nbytes"],
        )
        if len(sizes) < 2:
            continue
        small, large = sizes[0], sizes[-1]
        which = f"{large['title']} ÷ {small['title']}"
        peaks = (of(pair, "apply-delta", "peak_nbytes") for pair in (large, small))
        yield "peak memory of apply-delta", which, ratio(*peaks), (1.1, 1.0)
        costs = (cost(pair, tiny) for pair in (large, small))
        yield (
            "apply-delta's seconds a GB without its start",
            which,
            ratio(*costs),
            (1.1, 1.0),
        )


def cost(pair: Pair, tiny: Pair) -> float | None:
    """Seconds that apply-delta takes for a GB, less what it takes for a tiny model."""
    seconds, start = (of(one, "apply-delta", "seconds") for one in (pair, tiny))
    return (
        None
        if seconds is None or start is None
        else (seconds - start) / pair["nbytes"] * 1e9
    )


def summary(pairs: list[Pair]) -> Iterator[str]:
    """All verdicts as one table."""
    found = list(verdicts(pairs))
    if not found:
        return
    yield "### Against what was promised"
    yield ""
    yield "| figure | pair | measured | must | | aim | |"
    yield "|---|---|--:|--:|---|--:|---|"
    for name, title, value, limits in found:
        cells = [name, title, "not measured" if value is None else f"**{shown(value)}**"]
        for limit in limits:
            is_met = None if value is None else round(value, 2) <= limit
            cells += [f"≤ {limit:.2f}", {None: "", True: "yes", False: "**no**"}[is_met]]
        yield f"| {' | '.join(cells)} |"
    yield ""


def about(found: dict[str, Any]) -> Iterator[str]:
    """Where, when and with what."""
    here = found["environment"]
    yield (
        f"## {here['date']}, {here['processor']}, {here['processors']} processors, "
        f"{here['memory_nbytes'] / 2**30:.0f} GiB, {here['system']}, "
        f"Python {here['python']}"
    )
    yield ""
    yield f"Runs of each contender: {found['runs']}; figures are medians."
    for title, versions in (("", here["versions"]), ("Peers: ", here["peers"])):
        if versions:
            listed = (f"{name} {version}" for name, version in versions.items())
            yield f"{title}{', '.join(listed)}."
    yield ""


def plot(pairs: list[Pair]) -> Iterator[str]:
    """Bars for each contender, grouped by pair: time, memory, and size if it publishes."""
    panels: list[tuple[str, dict[tuple[str, str], float]]] = []
    for title, key in (
        ("seconds a GB", "seconds"),
        ("peak MiB", "peak_nbytes"),
        ("published bits a weight", "published_nbytes"),
    ):
        values = {}
        for pair in pairs:
            per = {
                "seconds": pair["nbytes"] / 1e9,
                "peak_nbytes": 2**20,
                "published_nbytes": pair["weights"] / 8,
            }[key]
            for name in pair["contenders"]:
                if (value := of(pair, name, key)) is not None:
                    values[pair["title"], name] = value / per
        panels.append((title, values))

    rows = sum(HEADING + ROW * len(pair["contenders"]) for pair in pairs)
    width, height = LABELS + len(panels) * (PANEL + VALUES), ROW + rows + ROW
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{STYLE}</style>'
    )

    def text(x: float, y: float, words: str, kind: str = "") -> str:
        return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'

    lefts = [LABELS + number * (PANEL + VALUES) for number in range(len(panels))]
    for left, (title, _) in zip(lefts, panels, strict=True):
        yield text(left, ROW, title, "quiet")
    y = ROW
    for pair in pairs:
        y += HEADING
        yield text(0, y - 6, pair["title"], "heading")
        for name, record in pair["contenders"].items():
            y += ROW
            yield text(10, y - 5, name)
            if "failure" in record:
                yield text(lefts[0], y - 5, "failed", "quiet")
            for left, (_, values) in zip(lefts, panels, strict=True):
                value = values.get((pair["title"], name))
                if value is None:
                    continue
                length = PANEL * value / max(values.values())
                kind = "ours" if name in OURS else "theirs"
                yield (
                    f'<rect x="{left}" y="{y - 4 - BAR}" width="{length:.1f}" '
                    f'height="{BAR}" rx="2" class="{kind}"/>'
                )
                digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
                yield text(round(left + length + 4), y - 5, digits, "quiet")
    yield "</svg>"


def main() -> None:
    """Read the samples, print and write what follows from them."""
    path = Path(sys.argv[1])
    found = json.loads(path.read_text())
    pairs: list[Pair] = found["pairs"]
    lines = [*about(found)]
    for pair in pairs:
        lines += table(pair)
    lines += summary(pairs)
    markdown = "\n".join(lines)
    path.with_suffix(".md").write_text(markdown)
    big = [pair for pair in pairs if not pair["tiny"]]
    path.with_suffix(".svg").write_text("\n".join(plot(big)) + "\n")
    print(markdown)


if __name__ == "__main__":
    main()
