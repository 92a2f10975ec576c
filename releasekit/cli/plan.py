"""`releasekit plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from releasekit.cli import render
from releasekit.cli.exits import EPILOG
from releasekit.cli.shell import Shell, Size, common_options
from releasekit.cli.signatures import check_options, downgrade_option, policy_of

if TYPE_CHECKING:
    from releasekit.planning.model import Estimate, PhaseTime
    from releasekit.planning.planner import Plan
    from releasekit.planning.rates import Rates

_SPEED = click.FloatRange(min=0, min_open=True)


@click.command("plan", epilog=EPILOG)
@click.option("--base", metavar="BASE", help="Base model.")
@click.option(
    "--delta",
    "deltas",
    multiple=True,
    metavar="DELTA",
    help="Plan the rebuild from this release. Give it again for each of several that "
    "build on each other.",
)
@click.option("--target", metavar="TARGET", help="Plan to make a release of this model.")
@click.option(
    "--nodes",
    multiple=True,
    type=click.IntRange(1, 100_000),
    help="Machines that share the work. Give it again to compare several numbers.",
)
@click.option("--table", is_flag=True, help="Compare 1, 2, 4, 8, 16, 32 and 64 nodes.")
@click.option("--cpus", type=click.IntRange(1), help="Of each node. Default: as here.")
@click.option("--memory", type=Size(), help="Of each node. Default: as here.")
@click.option(
    "--gbps",
    type=_SPEED,
    help="Gbit/s of each node's link to shared storage. Default with several nodes: 25. "
    "With one, and without this, inputs and output lie on its own disk.",
)
@click.option(
    "--storage-gbps",
    type=_SPEED,
    help="Gbit/s of the shared storage, to all nodes together. Default: no limit.",
)
@click.option(
    "--disk-gbps",
    type=_SPEED,
    help="Gbit/s of one node's own disk. Default: as measured.",
)
@click.option(
    "--ratio",
    type=click.FloatRange(min=0),
    help="With --target: size of the delta by that of the weights with a base. Default: "
    "0.144, 2.31 bits of 16.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Of each part of the work.",
)
@click.option(
    "--max-memory",
    type=Size(),
    default="1GiB",
    show_default=True,
    help="Host memory of each part at most, without what headers take.",
)
@click.option(
    "--rates",
    "rates_file",
    type=click.Path(path_type=Path),
    help="What --measure found. Default: what it found here, or else built-in rates.",
)
@click.option(
    "--measure",
    "measuring",
    is_flag=True,
    help="Measure this machine, and the disk under the current folder, and plan nothing.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="With --measure: file for the rates. Default: $XDG_STATE_HOME/releasekit/"
    "rates.json, or ~/.local/state/….",
)
@check_options
@downgrade_option
@common_options
@click.pass_obj
def command(
    shell: Shell,
    /,
    base: str | None,
    deltas: tuple[str, ...],
    target: str | None,
    rates_file: Path | None,
    measuring: bool,
    out: Path | None,
    **options: Any,
) -> None:
    """Say what a release takes: parts, bytes over each link, memory, disk, time.

    With --delta, to rebuild it; with --target, to make it. Only headers are read, here or
    by range on the Hugging Face Hub, so a terabyte is planned in seconds, also from sparse
    files. Every figure is shown with its arithmetic. Rates are those of this machine once
    --measure was run. On several nodes apply-delta and make-delta work with --engine ray.

    \b
    Examples:
      releasekit plan --measure
      releasekit plan --base llama-65b --delta my-tune-delta
      releasekit plan --base llama-405b --target my-tune --nodes 8 --gbps 25 --cpus 64
      releasekit plan --base llama-405b --delta my-tune-delta --table
    """
    if measuring:
        if base or target or deltas or rates_file:
            raise click.UsageError(
                "--measure plans nothing; leave out --base, --delta, --target and --rates"
            )
        _measure(shell, out)
        return
    if out is not None:
        raise click.UsageError("--out is for what --measure finds; leave it out")
    if base is None:
        raise click.UsageError("Missing option '--base'.")
    _plan(shell, base, deltas, target, rates_file, options)


def _measure(shell: Shell, out: Path | None) -> None:
    from releasekit.planning import rates
    from releasekit.planning.measure import measure

    shell.note_compiling()
    found = measure(Path())
    place = out if out is not None else rates.default_path()
    rates.save(found, place)
    document = {"path": str(place), **_rates_document(found)}
    shell.result(document, render.facts([*_rates(found), ("kept in", str(place))]))


def _plan(
    shell: Shell,
    base: str,
    deltas: tuple[str, ...],
    target: str | None,
    rates_file: Path | None,
    options: dict[str, Any],
) -> None:
    from releasekit import plan
    from releasekit.planning import rates
    from releasekit.planning.planner import TABLE, Machine

    nodes = options["nodes"] or (1,)
    if options["table"]:
        if options["nodes"]:
            raise click.UsageError("--table and --nodes: give one of them")
        nodes = TABLE
    kinds = ("cpus", "memory", "gbps", "storage_gbps", "disk_gbps")
    with shell.progress() as progress:
        found = plan(
            base,
            delta=deltas or None,
            target=target,
            nodes=tuple(sorted(set(nodes))),
            machine=Machine(**{kind: options[kind] for kind in kinds}),
            rates=rates.load(rates_file),
            ratio=options["ratio"],
            threads=options["threads"],
            max_memory=options["max_memory"],
            policy=policy_of(shell, options),
            progress=progress,
        )
    shell.result(_document(found), _lines(found))


def _lines(plan: Plan) -> list[str]:
    from releasekit.planning.telling import facts_of, rows, told

    lines = list(render.facts(list(facts_of(plan))))
    if len(plan.estimates) == 1:
        return [*lines, *render.facts(list(told(plan)))]
    header, *body = rows(plan)
    return [*lines, "", *render.table(header, body, "r" * (len(header) - 1) + "l")]


def _rates(rates: Rates) -> list[tuple[str, str]]:
    from releasekit.planning.telling import rates_told

    return list(rates_told(rates))


def _rates_document(rates: Rates) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(rates)


def _document(plan: Plan) -> dict[str, Any]:
    from releasekit.planning.wording import explain

    work = plan.work
    return {
        "kind": work.kind,
        "name": work.name,
        "tensors": work.tensors,
        "files": work.files,
        "largest_file_nbytes": work.largest,
        "shards": work.shards,
        "parts": work.parts,
        "base_nbytes": work.base,
        "target_nbytes": work.target,
        "delta_nbytes": work.delta,
        "output_nbytes": work.output,
        "disk_nbytes": work.disk,
        "ratio": plan.ratio,
        "part_memory_nbytes": work.chunk_memory + work.header_memory,
        "rates": _rates_document(plan.rates),
        "estimates": [
            _estimate(estimate)
            | {"arithmetic": [" ".join(filter(None, p)) for p in explain(estimate)]}
            for estimate in plan.estimates
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "nodes": estimate.cluster.nodes,
        "seconds": estimate.seconds,
        "bound": estimate.bound,
        "memory_nbytes": estimate.memory,
        "node_read_nbytes": estimate.node_read,
        "node_written_nbytes": estimate.node_written,
        "start_seconds": estimate.start,
        "phases": [_phase(phase) for phase in estimate.phases],
    }


def _phase(time: PhaseTime) -> dict[str, Any]:
    parts = time.phase.parts
    return {
        "name": time.phase.name,
        "parts": len(parts),
        "nodes": time.nodes,
        "at_once_on_a_node": time.slots,
        "seconds": time.seconds,
        "bound": time.bound,
        "bounds": dict(time.bounds),
        "read_nbytes": sum(part.read for part in parts),
        "written_nbytes": sum(part.written for part in parts),
        "node_read_nbytes": time.node_read,
        "node_written_nbytes": time.node_written,
    }
