"""The arithmetic of plans: schedules, bounds, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.errors import UsageError
from releasekit.planning.model import (
    DISK,
    EFFICIENCY,
    HEADERS,
    LARGEST,
    NETWORK,
    PROCESSORS,
    STORAGE,
    Cluster,
    Part,
    Phase,
    estimate,
    hand_out,
    time_phase,
)
from releasekit.planning.wording import duration, explain

GB = 1_000_000_000
CLUSTER = Cluster(
    nodes=4, cpus=16, memory=64 * GB, link=3e9, read=1e9, write=5e8, storage=None
)

nbytes = st.integers(0, 20 * GB)
seconds = st.floats(0, 1000)
parts = st.builds(
    Part,
    name=st.just("a file"),
    base=nbytes,
    target=nbytes,
    delta=nbytes,
    again=nbytes,
    written=nbytes,
    core_seconds=seconds,
    digest_seconds=seconds,
)
phases = st.builds(
    Phase,
    name=st.just("rebuild"),
    parts=st.lists(parts, min_size=1, max_size=40).map(tuple),
    threads=st.integers(1, 8),
    memory=st.integers(1, 8 * GB),
    headers_seconds=seconds,
)
speeds = st.floats(1e8, 1e11)
clusters = st.builds(
    Cluster,
    nodes=st.integers(1, 64),
    cpus=st.integers(1, 128),
    memory=st.integers(8 * GB, 512 * GB),
    link=st.none() | speeds,
    read=speeds,
    write=speeds,
    storage=st.none() | speeds,
)


def phase(*of: Part, threads: int = 2, memory: int = GB, headers: float = 0.0) -> Phase:
    return Phase(
        name="rebuild",
        parts=of,
        threads=threads,
        memory=memory,
        headers_seconds=headers,
    )


@given(phases, clusters, st.integers(1, 64))
def test_more_nodes_are_never_slower(work: Phase, cluster: Cluster, more: int) -> None:
    few = time_phase(work, cluster)
    many = time_phase(work, replace(cluster, nodes=cluster.nodes + more))
    assert many.seconds <= few.seconds * (1 + 1e-9)


@given(phases, clusters)
def test_no_phase_is_quicker_than_any_of_its_bounds(work: Phase, cluster: Cluster) -> None:
    time = time_phase(work, cluster)
    assert LARGEST in time.bounds
    assert (NETWORK in time.bounds) is (cluster.link is not None)
    assert (DISK in time.bounds) is (cluster.link is None)
    assert (STORAGE in time.bounds) is (cluster.storage is not None)
    for bound in time.bounds.values():
        assert time.seconds >= bound * (1 - 1e-9)


@given(phases, clusters)
def test_a_phase_is_within_what_one_slot_would_take(work: Phase, cluster: Cluster) -> None:
    """Greedy hand-outs waste less than one largest part: Graham's bound."""
    time = time_phase(work, cluster)
    slots = time.nodes * time.slots
    alone = len(work.parts) * time.largest.seconds / slots + time.largest.seconds
    most = max(work.headers_seconds + alone, time.bounds.get(STORAGE, 0.0))
    assert time.seconds <= most * (1 + 1e-9)


@given(phases, clusters)
def test_a_node_moves_no_more_than_all_and_no_less_than_its_share(
    work: Phase, cluster: Cluster
) -> None:
    time = time_phase(work, cluster)
    read = sum(part.read for part in work.parts)
    assert read <= time.node_read * time.nodes
    assert time.node_read <= read
    assert time.memory <= cluster.memory


@given(st.lists(seconds, max_size=40), st.integers(1, 50))
def test_every_part_is_handed_out_once(times: list[float], slots: int) -> None:
    last, owners = hand_out(times, slots)
    loads = [0.0] * slots
    for time, owner in zip(times, owners, strict=True):
        loads[owner] += time
    assert last == pytest.approx(max(loads))


def test_the_largest_parts_are_handed_out_first() -> None:
    assert hand_out([1.0, 2.0, 3.0], 2) == (3.0, [1, 1, 0])


def test_parts_of_a_node_share_its_link() -> None:
    one = Part(name="a", base=3 * GB, written=GB)
    alone = time_phase(phase(one), replace(CLUSTER, nodes=1))
    four = time_phase(phase(one, one, one, one), replace(CLUSTER, nodes=1))
    assert (alone.slots, alone.seconds, alone.bound) == (1, 1.0, NETWORK)
    assert (four.slots, four.seconds, four.bound) == (4, 4.0, NETWORK)
    assert (four.node_read, four.node_written) == (12 * GB, 4 * GB)


def test_few_parts_are_spread_over_all_nodes() -> None:
    one = Part(name="a", base=3 * GB)
    time = time_phase(phase(one, one, one, one), CLUSTER)
    assert (time.slots, time.seconds, time.rounds, time.node_read) == (1, 1.0, 1, 3 * GB)


def test_processors_and_memory_limit_how_many_parts_run_at_once() -> None:
    work = phase(*(Part(name="a", core_seconds=1.7) for _ in range(64)))
    assert time_phase(work, CLUSTER).slots == 8
    assert time_phase(work, CLUSTER).seconds == pytest.approx(2 * 1.7 / 2 / EFFICIENCY)
    assert time_phase(replace(work, memory=30 * GB), CLUSTER).slots == 2
    assert time_phase(replace(work, threads=64), CLUSTER).slots == 1


def test_a_disk_is_read_and_written_in_turn() -> None:
    local = replace(CLUSTER, nodes=1, link=None)
    time = time_phase(phase(Part(name="a", base=2 * GB, written=GB)), local)
    assert (time.seconds, time.bound) == (4.0, DISK)


def test_each_process_opens_the_inputs_once_however_many_parts_it_has() -> None:
    work = phase(*(Part(name="a", core_seconds=1.7) for _ in range(64)), headers=3.0)
    found = time_phase(work, CLUSTER)
    assert found.rounds == 2
    assert found.seconds == pytest.approx(3.0 + 2 * 1.7 / 2 / EFFICIENCY)
    assert found.bound == HEADERS


def test_the_store_bounds_all_nodes_together() -> None:
    work = phase(*(Part(name="a", base=GB, written=GB) for _ in range(8)))
    time = time_phase(work, replace(CLUSTER, storage=2e9))
    assert (time.seconds, time.bound) == (8.0, STORAGE)


def test_a_part_that_all_wait_for_is_named_as_the_bound() -> None:
    work = phase(Part(name="large", core_seconds=100), Part(name="small", core_seconds=1))
    assert time_phase(work, CLUSTER).bound == LARGEST


def test_parts_that_need_more_memory_than_a_node_has_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        time_phase(phase(Part(name="a"), memory=65 * GB), CLUSTER)
    assert str(caught.value) == (
        "memory of a node: expected at least 65,000,000,000 bytes, which one part of "
        "`rebuild` needs, found 64,000,000,000: plan with larger machines"
    )


def test_the_arithmetic_names_every_figure() -> None:
    part = Part(name="a", base=6 * GB, written=5 * GB, core_seconds=17, digest_seconds=5)
    cluster = replace(CLUSTER, nodes=2, storage=5e9)
    found = estimate([phase(*[part] * 4, headers=2.0), phase()], cluster, 1.0)
    assert found.bound == LARGEST
    assert (found.memory, found.node_read, found.node_written) == (
        *(2 * GB, 12 * GB, 10 * GB),
    )
    assert list(explain(found)) == [
        (
            "rebuild",
            "4 parts of 2 threads, 2 at once on each of 2 nodes (16 processors, 64 GB ÷ "
            "1 GB of memory): 1 round",
        ),
        (
            "",
            "largest part: max(processors 17.0 core-s ÷ 2 ÷ 0.85 = 10 s; digest in one "
            "chain = 5.0 s; network 6 GB ÷ (3 GB/s ÷ 2) = 4.0 s) = 10 s",
        ),
        (
            "",
            "no less than processors 68 core-s ÷ 2 ÷ 16 ÷ 0.85 = 2.5 s; network 24 GB in "
            "÷ 2 ÷ 3 GB/s = 4.0 s; storage 44 GB ÷ 5 GB/s = 8.8 s",
        ),
        (
            "",
            "headers, once in each process 2.0 s, + handed out largest first: 12 s, bound "
            "by largest part",
        ),
        ("time", "start and headers 1.0 s + 12 s = 13 s"),
    ]


def test_work_without_parts_takes_its_start_alone() -> None:
    found = estimate([phase()], CLUSTER, 2.0)
    assert (found.seconds, found.bound, found.memory) == (2.0, PROCESSORS, 0)


def test_the_arithmetic_of_a_disk_names_both_rates() -> None:
    part = Part(name="a", base=2 * GB, written=GB)
    local = replace(CLUSTER, nodes=1, link=None)
    lines = [text for _, text in explain(estimate([phase(part)], local, 0.0))]
    assert lines[1] == (
        "largest part: max(processors 0.0 core-s ÷ 2 ÷ 0.85 = 0.0 s; digest in one chain = "
        "0.0 s; disk (2 GB ÷ 1 GB/s + 1 GB ÷ 500 MB/s) × 1 = 4.0 s) = 4.0 s"
    )
    assert lines[2] == (
        "no less than processors 0 core-s ÷ 16 ÷ 0.85 = 0.0 s; disk (2 GB ÷ 1 GB/s + 1 GB "
        "÷ 500 MB/s) = 4.0 s"
    )


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (90_000.0, "25 h 0 min"),
    ],
)
def test_durations_are_told_as_people_tell_them(time: float, text: str) -> None:
    assert duration(time) == text
