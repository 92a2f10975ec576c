"""A plan in words: each line of the arithmetic with its numbers.

All lines are pairs of what it is about and what is said of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from releasekit import sizes
from releasekit.planning.model import (
    DIGEST,
    DISK,
    EFFICIENCY,
    LARGEST,
    NETWORK,
    PROCESSORS,
    STORAGE,
    Estimate,
    PhaseTime,
)

Pair = tuple[str, str]


def gb(nbytes: float) -> str:
    """Bytes with three digits: `141 GB`."""
    return sizes.shown(round(nbytes))


def rate(speed: float) -> str:
    """Bytes a second: `1.2 GB/s`."""
    return f"{sizes.shown(round(speed))}/s"


def gbits(speed: float) -> str:
    """A network's speed of bytes a second: `25 Gbit/s`."""
    return f"{speed * 8 / 1e9:g} Gbit/s"


def duration(seconds: float) -> str:
    """Seconds as people tell them: `4.2 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def explain(estimate: Estimate) -> Iterator[Pair]:
    """The arithmetic of one estimate, phase by phase."""
    cluster = estimate.cluster
    for time in estimate.phases:
        phase = time.phase
        where = f"on each of {time.nodes} nodes" if time.nodes > 1 else "on one node"
        headers = ""
        if phase.headers_seconds:
            headers = f"headers, once in each process {duration(phase.headers_seconds)}, + "
        yield (
            phase.name,
            f"{len(phase.parts)} parts of {phase.threads} "
            f"{'threads' if phase.threads > 1 else 'thread'}, {time.slots} at once {where} "
            f"({cluster.cpus} processors, {gb(cluster.memory)} ÷ {gb(phase.memory)} of "
            f"memory): {time.rounds} {'rounds' if time.rounds > 1 else 'round'}",
        )
        yield "", f"largest part: {_part(time, estimate)}"
        yield "", f"no less than {_bounds(time, estimate)}"
        yield (
            "",
            f"{headers}handed out largest first: {duration(time.seconds)}, bound by "
            f"{time.bound}",
        )
    sums = [estimate.start, *(time.seconds for time in estimate.phases)]
    terms = " + ".join(duration(seconds) for seconds in sums)
    yield "time", f"start and headers {terms} = {duration(estimate.seconds)}"


def _part(time: PhaseTime, estimate: Estimate) -> str:
    """What the part that takes longest is made up of."""
    largest, cluster = time.largest, estimate.cluster
    part = largest.part
    threads = min(time.phase.threads, cluster.cpus)
    told = []
    for name, seconds in largest.terms.items():
        if name == PROCESSORS:
            how = f"{part.core_seconds:.1f} core-s ÷ {threads} ÷ {EFFICIENCY}"
        elif name == DIGEST:
            how = "in one chain"
        elif name == NETWORK:
            most = max(part.read, part.written)
            share = f"({rate(cluster.link or 0)} ÷ {time.slots})"
            how = f"{gb(most)} ÷ {share}"
        else:
            how = (
                f"({gb(part.read)} ÷ {rate(cluster.read)} + {gb(part.written)} ÷ "
                f"{rate(cluster.write)}) × {time.slots}"
            )
        told.append(f"{name} {how} = {duration(seconds)}")
    return f"max({'; '.join(told)}) = {duration(largest.seconds)}"


def _bounds(time: PhaseTime, estimate: Estimate) -> str:
    """Every bound of a phase, and how it comes about."""
    cluster, parts = estimate.cluster, time.phase.parts
    read, written = sum(part.read for part in parts), sum(part.written for part in parts)
    nodes = f"{time.nodes} ÷ " if time.nodes > 1 else ""
    told = []
    for name, seconds in time.bounds.items():
        if name == LARGEST:
            continue
        if name == PROCESSORS:
            cores = sum(part.core_seconds for part in parts)
            how = f"{cores:,.0f} core-s ÷ {nodes}{cluster.cpus} ÷ {EFFICIENCY}"
        elif name == NETWORK:
            most = f"{gb(max(read, written))} {'in' if read >= written else 'out'}"
            how = f"{most} ÷ {nodes}{rate(cluster.link or 0)}"
        elif name == DISK:
            how = (
                f"({gb(read)} ÷ {rate(cluster.read)} + {gb(written)} ÷ "
                f"{rate(cluster.write)}){f' ÷ {time.nodes}' * (time.nodes > 1)}"
            )
        else:
            assert name == STORAGE, name
            how = f"{gb(read + written)} ÷ {rate(cluster.storage or 0)}"
        told.append(f"{name} {how} = {duration(seconds)}")
    return "; ".join(told)
