"""Print what releases of 7B to 671B take on 1 to 64 nodes, as the README has it.

    python -m scripts.planning.table

Headers of each model are written into a temporary folder, its weights being holes, and
planned with built-in rates: so the same table comes out everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from releasekit import Machine, Plan, Policy, plan, sizes
from releasekit.cli import render
from releasekit.planning.making import DEFAULT_RATIO
from releasekit.planning.model import Estimate
from releasekit.planning.planner import TABLE
from releasekit.planning.rates import BUILT_IN
from releasekit.planning.telling import facts_of, told
from releasekit.planning.wording import duration
from scripts.planning.headers import write_model, write_release
from scripts.planning.models import Model, models

MACHINE: Final = Machine(cpus=16, memory=64 << 30, gbps=25.0)
#: The model and the number of nodes whose arithmetic is shown.
SHOWN: Final = ("70B", 4)
_QUIET: Final = Policy(warn=lambda warning: None)


def header() -> list[str]:
    """The first lines of the table."""
    nodes = [f"{TABLE[0]} node", *map(str, TABLE[1:])]
    columns = ["model", "weights", "delta", "parts", "memory of each", "work", *nodes]
    return [
        _line(columns),
        _line(["---"] * 2 + ["--:"] * 3 + ["---"] + ["--:"] * len(TABLE)),
    ]


def lines(model: Model, place: Path) -> Iterator[str]:
    """The lines of one model, whose headers are written to `place`."""
    _write(model, place)
    rebuilt = _plan(place, TABLE, rebuild=True)
    made = _plan(place, TABLE, rebuild=False)
    for work, planned in (("rebuild", rebuilt), ("make", made)):
        of = planned.work
        cells = [
            model.name,
            sizes.shown(of.output if work == "rebuild" else of.target),
            sizes.shown(of.delta),
            f"{of.parts}",
            sizes.shown(of.chunk_memory + of.header_memory),
            work,
            *map(_cell, planned.estimates),
        ]
        yield _line(cells)


def arithmetic(place: Path) -> list[str]:
    """How the time of one model is reckoned, as `releasekit plan` prints it."""
    name, nodes = SHOWN
    model = next(model for model in models() if model.name == name)
    _write(model, place)
    planned = _plan(place, (nodes,), rebuild=True)
    pairs = [*facts_of(planned), *told(planned)]
    return ["```text", *render.facts(pairs), "```"]


def _write(model: Model, place: Path) -> None:
    """The headers of a base and of a release; the target's are the base's."""
    files = write_model(place / "base", model.specs, model.shard_nbytes)
    write_release(
        place / "delta",
        model.specs,
        files,
        DEFAULT_RATIO,
        name=f"a fine-tune of {model.name}",
    )


def _plan(place: Path, nodes: Sequence[int], *, rebuild: bool) -> Plan:
    base = place / "base"
    return plan(
        base,
        delta=place / "delta" if rebuild else None,
        target=None if rebuild else base,
        nodes=nodes,
        machine=MACHINE,
        rates=BUILT_IN,
        policy=_QUIET,
    )


def _cell(estimate: Estimate) -> str:
    return f"{duration(estimate.seconds)} {estimate.bound[0]}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, and the arithmetic of one of its cells."""
    print("\n".join(header()))
    with TemporaryDirectory() as folder:
        for model in models():
            print("\n".join(lines(model, Path(folder) / model.name)), flush=True)
        print("\n".join(["", *arithmetic(Path(folder) / "shown")]))


if __name__ == "__main__":
    main()
