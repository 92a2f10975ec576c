"""How long parts take on machines that share a store: arithmetic, shown and no more.

    part    max(processors, digest, network, disk)
    where   processors = core-seconds ÷ threads ÷ 0.85
            digest     = bytes ÷ rate of each digest, which is one chain
            network    = max(bytes in, bytes out) ÷ the part's share of the node's link
            disk       = bytes in ÷ read rate + bytes out ÷ write rate, of the part's share
    phase   max(headers + parts handed out the largest first, all bytes ÷ the store's rate)
    work    start, with headers + its phases, one after another

A node has as many parts at once as it has processors and memory for, or fewer if there are
fewer parts than that in all; these share its link. Each is done by a process that opens the
inputs for its first part and keeps them open for the next. Parts go, the longest first, to
the slot that is free first (Graham's longest-processing-time rule,
https://doi.org/10.1137/0117039), as a cluster has them done: what the last ones take beyond
the others is the tail.

More nodes are never slower: with as many slots each, one more only takes parts from the
others; with fewer, all parts run at once, and each has a larger share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Final

from releasekit.errors import UsageError

#: Share of the processors' time that work takes while it goes on; the rest is waiting for a
#: turn, or for the disk. Of whole processes on two cores it was 0.82 to 0.92.
EFFICIENCY: Final = 0.85
#: A phase is bound by its longest part if that takes this share of it, and it takes longer
#: by this factor than any machine or network needs for all parts.
_SHARE: Final = 0.9
_BEYOND: Final = 1.2

PROCESSORS: Final = "processors"
DIGEST: Final = "digest"
NETWORK: Final = "network"
DISK: Final = "disk"
HEADERS: Final = "headers"
STORAGE: Final = "storage"
LARGEST: Final = "largest part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Work that one process does at a time.

    Attributes:
        name: what people call it.
        base: bytes read of the base.
        target: bytes read of the target.
        delta: bytes read of the releases.
        again: bytes read of what an earlier phase wrote.
        written: bytes written.
        core_seconds: processor time.
        digest_seconds: of that, what one thread must do alone, in order.
    """

    name: str
    base: int = 0
    target: int = 0
    delta: int = 0
    again: int = 0
    written: int = 0
    core_seconds: float = 0.0
    digest_seconds: float = 0.0

    @property
    def read(self) -> int:
        """Bytes read, all in all."""
        return self.base + self.target + self.delta + self.again


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Parts that may be done at the same time, once the phase before is over.

    Attributes:
        name: what is done.
        parts: the parts.
        threads: processors that one part uses.
        memory: bytes of memory that one part needs.
        headers_seconds: in which a process opens the inputs, before its first part.
    """

    name: str
    parts: tuple[Part, ...]
    threads: int
    memory: int
    headers_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Machines that are alike, and where their inputs and outputs lie.

    Attributes:
        nodes: how many.
        cpus: processors of each.
        memory: bytes of memory of each that may be used.
        link: bytes a second of each node's link, in each direction; None if inputs and
            output lie on the node's own disk.
        read: bytes a second that are read from that disk.
        write: bytes a second that are written to it.
        storage: bytes a second of the shared store, both ways together; None for no limit.
    """

    nodes: int
    cpus: int
    memory: int
    link: float | None
    read: float
    write: float
    storage: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTime:
    """What one part takes, in seconds, of each of what it waits for at the same time.

    Attributes:
        part: the part.
        terms: by what it is that takes it.
    """

    part: Part
    terms: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return max(self.terms.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """What a phase takes.

    Attributes:
        phase: the phase.
        nodes: nodes that do it.
        slots: parts at once on a node.
        seconds: how long it takes.
        bound: what it waits for most.
        bounds: seconds below which it cannot come, by what it is that says so.
        largest: the part that takes longest.
        node_read: bytes that the node reads that reads most.
        node_written: bytes that the node writes that writes most.
    """

    phase: Phase
    nodes: int
    slots: int
    seconds: float
    bound: str
    bounds: Mapping[str, float]
    largest: PartTime
    node_read: int
    node_written: int

    @property
    def rounds(self) -> int:
        """How many parts a slot has at most, if all take as long."""
        return -(-len(self.phase.parts) // (self.nodes * self.slots))

    @property
    def memory(self) -> int:
        """Bytes of memory that the parts of a node take."""
        return self.slots * self.phase.memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What some work takes on a cluster.

    Attributes:
        cluster: the cluster.
        start: seconds until the first phase begins.
        phases: what each phase takes, in order; those without parts are left out.
    """

    cluster: Cluster
    start: float
    phases: tuple[PhaseTime, ...]

    @property
    def seconds(self) -> float:
        """How long all of it takes."""
        return self.start + sum(phase.seconds for phase in self.phases)

    @property
    def bound(self) -> str:
        """What the longest phase waits for most."""
        if not self.phases:
            return PROCESSORS
        return max(self.phases, key=lambda phase: phase.seconds).bound

    @property
    def memory(self) -> int:
        """Bytes of memory that a node needs."""
        return max((phase.memory for phase in self.phases), default=0)

    @property
    def node_read(self) -> int:
        """Bytes over a node's link to it, at most."""
        return sum(phase.node_read for phase in self.phases)

    @property
    def node_written(self) -> int:
        """Bytes over a node's link from it, at most."""
        return sum(phase.node_written for phase in self.phases)


def estimate(phases: Iterable[Phase], cluster: Cluster, start: float) -> Estimate:
    """What phases take on a cluster, one after another.

    Args:
        phases: the phases.
        cluster: the machines.
        start: seconds until the first phase begins.

    Raises:
        UsageError: if a node has too little memory for a part.
    """
    timed = tuple(time_phase(phase, cluster) for phase in phases if phase.parts)
    return Estimate(cluster=cluster, start=start, phases=timed)


def time_phase(phase: Phase, cluster: Cluster) -> PhaseTime:
    """What a phase of one part or more takes.

    Raises:
        UsageError: if a part does not fit into a node's memory.
    """
    nodes = cluster.nodes
    count = len(phase.parts)
    slots = max(1, min(slots_of(phase, cluster), -(-count // nodes)))
    times = [time_part(part, phase, cluster, slots) for part in phase.parts]
    largest = max(times, key=lambda time: time.seconds)
    makespan, owners = hand_out([time.seconds for time in times], nodes * slots)
    parts = phase.parts
    headers = phase.headers_seconds
    bounds = _bounds(parts, cluster, nodes) | {LARGEST: headers + largest.seconds}
    makespan += headers
    seconds = max(makespan, bounds.get(STORAGE, 0.0))
    # Slots are dealt to the nodes in turn, so that few parts are spread over all of them.
    read, written = [0] * nodes, [0] * nodes
    for part, owner in zip(parts, owners, strict=True):
        read[owner % nodes] += part.read
        written[owner % nodes] += part.written
    return PhaseTime(
        phase=phase,
        nodes=nodes,
        slots=slots,
        seconds=seconds,
        bound=_bound(times, headers * min(nodes * slots, count), makespan, bounds),
        bounds=bounds,
        largest=largest,
        node_read=max(read),
        node_written=max(written),
    )


def slots_of(phase: Phase, cluster: Cluster) -> int:
    """Parts at once that a node has processors and memory for.

    Raises:
        UsageError: if it has not memory enough for one.
    """
    fitting = cluster.memory // max(phase.memory, 1)
    if not fitting:
        raise UsageError(
            f"memory of a node: expected at least {phase.memory:,} bytes, which one part "
            f"of `{phase.name}` needs, found {cluster.memory:,}: plan with larger machines"
        )
    return max(1, min(cluster.cpus // phase.threads, fitting))


def time_part(part: Part, phase: Phase, cluster: Cluster, slots: int) -> PartTime:
    """What a part takes while all slots of its node are at work."""
    threads = min(phase.threads, cluster.cpus)
    terms = {
        PROCESSORS: part.core_seconds / threads / EFFICIENCY,
        DIGEST: part.digest_seconds,
    }
    if cluster.link is None:
        busy = part.read / cluster.read + part.written / cluster.write
        terms[DISK] = busy * slots
    else:
        terms[NETWORK] = max(part.read, part.written) * slots / cluster.link
    return PartTime(part=part, terms=terms)


def hand_out(seconds: Sequence[float], slots: int) -> tuple[float, list[int]]:
    """Give parts, the longest first, to the slot that is free first.

    Args:
        seconds: what each part takes.
        slots: how many there are.

    Returns:
        When the last part is done, and which slot had each part.
    """
    free = [(0.0, slot) for slot in range(slots)]
    heapify(free)
    owners = [0] * len(seconds)
    last = 0.0
    for index in sorted(range(len(seconds)), key=lambda index: -seconds[index]):
        at, slot = free[0]
        owners[index] = slot
        last = max(last, at + seconds[index])
        heapreplace(free, (at + seconds[index], slot))
    return last, owners


def _bounds(parts: Sequence[Part], cluster: Cluster, nodes: int) -> dict[str, float]:
    """Seconds below which parts cannot come, however they are handed out."""
    read, written = sum(part.read for part in parts), sum(part.written for part in parts)
    cores = sum(part.core_seconds for part in parts)
    found = {PROCESSORS: cores / (nodes * cluster.cpus) / EFFICIENCY}
    if cluster.link is None:
        found[DISK] = (read / cluster.read + written / cluster.write) / nodes
    else:
        found[NETWORK] = max(read, written) / (nodes * cluster.link)
    if cluster.storage is not None:
        found[STORAGE] = (read + written) / cluster.storage
    return found


def _bound(
    times: Sequence[PartTime], headers: float, makespan: float, bounds: Mapping[str, float]
) -> str:
    """What a phase waits for most; `headers` are seconds of all processes together."""
    if bounds.get(STORAGE, 0.0) > makespan:
        return STORAGE
    others = max(seconds for name, seconds in bounds.items() if name != LARGEST)
    if bounds[LARGEST] >= _SHARE * makespan and makespan > _BEYOND * others:
        return LARGEST
    waited = {HEADERS: headers}
    for time in times:
        name = max(time.terms, key=lambda term: time.terms[term])
        waited[name] = waited.get(name, 0.0) + time.terms[name]
    return max(waited, key=lambda name: waited[name])
