"""Plan a rebuild, or the making of a release, for machines that need not be there.

Reads headers alone, here or by range on the Hub: so terabytes are planned in seconds, and
sparse files do as well as real ones. That the base's values are right is not looked at:
`preflight` does that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint import open_found
from releasekit.checkpoint.discover import Kind, find
from releasekit.checkpoint.locate import approach
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.delta.diagnosis import compare_headers
from releasekit.delta.lineage import Deltas, named, open_lineage
from releasekit.errors import UsageError
from releasekit.parts.tasks import PART_THREADS
from releasekit.pipeline import default_threads
from releasekit.planning.making import DEFAULT_RATIO, making
from releasekit.planning.model import Cluster, Estimate, estimate
from releasekit.planning.rates import Rates, load
from releasekit.planning.rebuilding import rebuilding
from releasekit.planning.work import MAKE, Work
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY

#: Speed of a node's link where several share a store and nobody says otherwise.
DEFAULT_GBPS: Final = 25.0
#: Numbers of nodes that a table is for.
TABLE: Final = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Machines that are alike, and what they share; speeds are in Gbit/s.

    Attributes:
        cpus: processors of each; by default as many as this one has.
        memory: bytes of memory of each; likewise.
        gbps: of each one's link to the store; by default 25, or with one node none: inputs
            and output then lie on its own disk.
        storage_gbps: of the store, to all nodes together, both ways; by default no limit.
        disk_gbps: of the node's own disk, both to read and to write; by default what was
            measured.
    """

    cpus: int | None = None
    memory: int | None = None
    gbps: float | None = None
    storage_gbps: float | None = None
    disk_gbps: float | None = None

    def cluster(self, nodes: int, rates: Rates, *, shared: bool) -> Cluster:
        """So many of them; `shared` says whether inputs and output lie in a store."""
        gbps = self.gbps if self.gbps is not None else DEFAULT_GBPS
        disk = None if self.disk_gbps is None else _nbytes(self.disk_gbps)
        store = self.storage_gbps
        return Cluster(
            nodes=nodes,
            cpus=self.cpus or default_threads(),
            memory=self.memory or _memory(),
            link=_nbytes(gbps) if shared else None,
            read=disk or rates.read,
            write=disk or rates.write,
            storage=None if store is None else _nbytes(store),
        )

    def is_shared(self, nodes: Sequence[int]) -> bool:
        """Whether a plan for these numbers of nodes is for a store that they share.

        Raises:
            UsageError: if it is said to be both.
        """
        shared = max(nodes) > 1 or self.gbps is not None or self.storage_gbps is not None
        if shared and self.disk_gbps is not None:
            raise UsageError(
                "--disk-gbps: is for one node whose inputs and output lie on its own disk; "
                "leave out --gbps and --storage-gbps, and plan with --nodes 1"
            )
        return shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What some work takes.

    Attributes:
        work: what has to be done.
        rates: with which it was reckoned.
        ratio: of a release that is made, bytes of payloads by those of what they change;
            None for a rebuild.
        estimates: one for each number of nodes that was asked for.
    """

    work: Work
    rates: Rates
    ratio: float | None
    estimates: tuple[Estimate, ...]


#: This machine, or machines like it.
LIKE_THIS: Final = Machine()


def plan(
    base: str | Path,
    *,
    delta: Deltas | None = None,
    target: str | Path | None = None,
    nodes: Sequence[int] = (1,),
    machine: Machine = LIKE_THIS,
    rates: Rates | None = None,
    ratio: float | None = None,
    threads: int = PART_THREADS,
    max_memory: int = DEFAULT_MAX_MEMORY,
    policy: Policy = DEFAULT_POLICY,
    progress: ProgressCallback | None = None,
) -> Plan:
    """Say what a rebuild takes, or the making of a release, from headers alone.

    Args:
        base: the base: a path, or a model on the Hub.
        delta: the release to rebuild from, or several, as in `apply_delta`.
        target: in its place the fine-tune to make a release of; a path, or on the Hub.
        nodes: for how many machines to plan, each number for itself.
        machine: what each has.
        rates: how fast each is; by default what was measured here, or else `BUILT_IN`.
        ratio: bytes of payloads by those of the tensors that they change; for a release
            that is to be made. By default 0.144.
        threads: of each part.
        max_memory: bytes of memory of each part at most, but for headers.
        policy: what is asked of the releases' signatures.
        progress: called with the bytes of small files that come from the Hub.

    Raises:
        UsageError: if a path is wrong, the arguments make no sense, or a part does not fit
            into the memory.
        FormatError: if an input is malformed.
        BaseMismatchError: if the base's headers are not those that the release needs.
        SignatureError: if `policy` refuses a release.
    """
    if (delta is None) is (target is None):
        raise UsageError(
            "plan: expected either a release to rebuild from, or a target to make one of: "
            "give --delta or --target"
        )
    if ratio is not None and delta is not None:
        raise UsageError("--ratio: is for a release that is to be made: with --target")
    if not nodes or min(nodes) < 1:
        raise UsageError("--nodes: expected numbers of 1 or more")
    if ratio is not None and ratio < 0:
        raise UsageError(f"--ratio: expected a number of at least 0, found {ratio:g}")
    shared = machine.is_shared(nodes)
    rates = rates or load()
    if target is None:
        assert delta is not None
        work = _rebuild(base, delta, rates, threads, max_memory, policy, progress)
    else:
        ratio = DEFAULT_RATIO if ratio is None else ratio
        work = _make(base, target, rates, ratio, threads, max_memory, progress)
    start = rates.start + work.entries / rates.headers
    return Plan(
        work=work,
        rates=rates,
        ratio=ratio if work.kind == MAKE else None,
        estimates=tuple(
            estimate(work.phases, machine.cluster(count, rates, shared=shared), start)
            for count in nodes
        ),
    )


def _rebuild(
    base: str | Path,
    delta: Deltas,
    rates: Rates,
    threads: int,
    max_memory: int,
    policy: Policy,
    progress: ProgressCallback | None,
) -> Work:
    deltas = named(delta)
    with ExitStack() as opened:
        found = [opened.enter_context(approach(one, progress)) for one in deltas]
        lineage = opened.enter_context(open_lineage(deltas, found, policy))
        at = opened.enter_context(approach(base, progress))
        checkpoint = opened.enter_context(lineage.open_base(at))
        first = lineage.releases[0].manifest
        for finding in compare_headers(first, checkpoint).faults:
            raise finding.error()
        return rebuilding(
            lineage, checkpoint, rates, threads=threads, max_memory=max_memory
        )


def _make(
    base: str | Path,
    target: str | Path,
    rates: Rates,
    ratio: float,
    threads: int,
    max_memory: int,
    progress: ProgressCallback | None,
) -> Work:
    with ExitStack() as opened:
        at = opened.enter_context(approach(target, progress))
        found = find(at.path, coming=at.coming)
        if found.kind is not Kind.SAFETENSORS:
            raise UsageError(
                f"{target}: holds {found.kind.label} weights; a release is of safetensors: "
                f"make them with `releasekit convert {target} NEW_FOLDER`, and name that"
            )
        tune = opened.enter_context(SafetensorsCheckpoint.open(found))
        where = opened.enter_context(approach(base, progress))
        checkpoint = opened.enter_context(open_found(find(where.path, coming=where.coming)))
        return making(
            Path(target).name,
            tune,
            checkpoint,
            rates,
            ratio=ratio,
            threads=threads,
            max_memory=max_memory,
        )


def _nbytes(gbps: float) -> float:
    """Bytes a second of gigabits a second."""
    return gbps * 1e9 / 8


def _memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
