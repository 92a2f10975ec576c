"""A plan for people: what it is about, and a table of numbers of nodes."""

from __future__ import annotations

from collections.abc import Iterator

from releasekit.planning.model import Estimate
from releasekit.planning.planner import Plan
from releasekit.planning.rates import BUILT_IN, Rates
from releasekit.planning.wording import Pair, duration, explain, gb, gbits, rate
from releasekit.planning.work import REBUILD

#: Titles of the columns of `rows`.
_HEADER = ("nodes", "time", "parts at once", "a node reads", "writes", "memory", "bound by")


def facts_of(plan: Plan) -> Iterator[Pair]:
    """What is planned: bytes, parts, memory and disk, however many nodes there are."""
    work = plan.work
    if work.kind == REBUILD:
        yield "rebuild", f"{work.name}, {work.tensors:,} tensors in {work.files} files"
        yield "reads", f"{gb(work.base)} of the base, {gb(work.delta)} of the delta"
    else:
        yield "release", f"of {work.name}, {work.tensors:,} tensors in {work.files} files"
        yield "reads", f"{gb(work.target)} of the target, {gb(work.base)} of the base"
    yield (
        "writes",
        f"{gb(work.output)} in {work.shards} weight files; of the disk it takes "
        f"{gb(work.disk)} at most",
    )
    largest = f"{work.parts} parts, of weight files of up to {gb(work.largest)}"
    yield "parts", largest
    yield (
        "memory",
        f"of each part {gb(work.chunk_memory)}, and {gb(work.header_memory)} for headers",
    )
    yield from work.arithmetic
    yield "rates", rates_line(plan.rates)


def rates_line(rates: Rates) -> str:
    """Where rates come from."""
    if rates == BUILT_IN:
        return (
            f"built in, of {rates.machine} on {rates.measured}; measure your own with "
            "`releasekit plan --measure`"
        )
    return f"measured on {rates.measured}: {rates.machine}"


def rates_told(rates: Rates) -> Iterator[Pair]:
    """Every rate."""
    yield "machine", rates.machine
    for name, speed in (
        ("rebuild", rates.rebuild),
        ("encode", rates.encode),
        ("SHA-256", rates.sha256),
        ("BLAKE3", rates.blake3),
    ):
        yield name, f"{rate(speed)} of one processor"
    yield "disk", f"reads {rate(rates.read)}, writes {rate(rates.write)}"
    yield "headers", f"{rates.headers:,.0f} tensors/s"
    yield "start", f"{rates.start:.2f} s"


def told(plan: Plan) -> Iterator[Pair]:
    """The one estimate of a plan, with its arithmetic."""
    (estimate,) = plan.estimates
    cluster = estimate.cluster
    where = "its own disk"
    if cluster.link is not None:
        where = f"a store, {gbits(cluster.link)} to each"
    if cluster.storage is not None:
        where += f", {gbits(cluster.storage)} to all"
    yield (
        "nodes",
        f"{cluster.nodes} of {cluster.cpus} processors and {gb(cluster.memory)}, with "
        f"{where}",
    )
    yield (
        "each node",
        f"reads {gb(estimate.node_read)} and writes {gb(estimate.node_written)} at most, "
        f"and needs {gb(estimate.memory)} of memory",
    )
    yield from explain(estimate)


def rows(plan: Plan) -> list[tuple[str, ...]]:
    """A table of the estimates, a line for each number of nodes, its titles first."""
    return [_HEADER, *map(_row, plan.estimates)]


def _row(estimate: Estimate) -> tuple[str, ...]:
    main = max(estimate.phases, key=lambda phase: phase.seconds, default=None)
    return (
        str(estimate.cluster.nodes),
        duration(estimate.seconds),
        str(main.nodes * main.slots) if main else "0",
        gb(estimate.node_read),
        gb(estimate.node_written),
        gb(estimate.memory),
        f"{main.phase.name}: {main.bound}" if main else "start",
    )
