"""Threads, lanes and buffers: what is shared out is never more than the limit."""

import re
from math import inf

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from releasekit import UsageError
from releasekit.pipeline import AHEAD, PAGE, Buffer, default_threads
from releasekit.resources import DEFAULT_MAX_MEMORY, Need, Resources, share_out

MIB = 1 << 20
PLENTY = 1 << 62
NOTHING = Need(buffer=0, scratch=0)
NEEDS = st.builds(Need, buffer=st.integers(0, 1 << 33), scratch=st.integers(0, 1 << 33))
REFUSAL = re.compile(
    r"memory: expected a limit of at least ([\d,]+) bytes, which one thread needs with "
    r"chunks of this size, found ([\d,]+): raise --max-memory"
)


def number(text: str) -> int:
    return int(text.replace(",", ""))


@given(
    need=NEEDS,
    files=st.integers(1, 40),
    threads=st.integers(1, 70),
    max_memory=st.integers(0, 1 << 38),
    extra=st.integers(0, 1 << 30),
)
@example(need=NOTHING, files=1, threads=1, max_memory=0, extra=0)
def test_the_limit_holds(
    need: Need, files: int, threads: int, max_memory: int, extra: int
) -> None:
    def shared(threads: int, limit: int) -> Resources:
        return share_out(need, files=files, threads=threads, max_memory=limit, extra=extra)

    try:
        shared(threads, max_memory)
    except UsageError as error:
        said = str(error)
    else:
        said = ""
    if said:
        match = REFUSAL.fullmatch(said)
        assert match, said
        enough, given_limit = map(number, match.groups())
        assert given_limit == max_memory < enough
        least = shared(threads, enough)
        assert least.memory_nbytes == enough
        assert least.threads == 1 or need == NOTHING
        with pytest.raises(UsageError):
            shared(threads, enough - 1)
        return
    found = shared(threads, max_memory)
    assert 1 <= found.threads <= threads
    assert 1 <= found.lanes <= files
    assert found.lanes == 1 or 4 * found.lanes <= found.threads
    assert found.lanes == files or 4 * (found.lanes + 1) > found.threads
    assert found.buffer_count == found.threads + AHEAD * found.lanes
    used = found.buffer_count * need.buffer + found.threads * need.scratch
    assert used + extra < found.memory_nbytes <= max_memory
    if found.threads < threads:  # no fewer than had to be
        assert shared(found.threads + 1, PLENTY).memory_nbytes > max_memory


@pytest.mark.parametrize(
    ("threads", "files", "lanes"),
    [(1, 9, 1), (2, 9, 1), (4, 9, 1), (7, 9, 1), (8, 9, 2), (8, 1, 1), (64, 9, 9)],
)
def test_four_threads_make_a_lane(threads: int, files: int, lanes: int) -> None:
    need = Need(buffer=MIB, scratch=MIB)
    found = share_out(need, files=files, threads=threads, max_memory=PLENTY)
    assert (found.threads, found.lanes) == (threads, lanes)


def test_a_model_without_files_has_a_lane() -> None:
    assert share_out(NOTHING, files=0, threads=8, max_memory=PLENTY).lanes == 1


def test_less_memory_means_fewer_threads() -> None:
    need = Need(buffer=10 * MIB, scratch=20 * MIB)
    fewer = inf
    for limit in (*range(1024, 180, -50), 178):
        found = share_out(need, files=4, threads=16, max_memory=limit * MIB)
        assert found.threads <= fewer
        fewer = found.threads
    assert fewer == 1


def test_by_default_each_processor_has_a_thread() -> None:
    need = Need(buffer=1, scratch=1)
    found = share_out(need, threads=None, max_memory=DEFAULT_MAX_MEMORY)
    assert (found.threads, found.lanes) == (default_threads(), 1)


def test_each_processor_may_have_more_threads_but_no_more_than_asked_for() -> None:
    need = Need(buffer=1, scratch=1)
    several = share_out(need, threads=None, each=3, max_memory=PLENTY)
    assert several.threads == 3 * default_threads()
    assert share_out(need, threads=5, each=3, max_memory=PLENTY).threads == 5


def test_something_beside_the_chunks_counts() -> None:
    need = Need(buffer=MIB, scratch=MIB)
    plain = share_out(need, threads=2, max_memory=PLENTY)
    more = share_out(need, threads=2, max_memory=PLENTY, extra=77)
    assert more.memory_nbytes == plain.memory_nbytes + 77


@pytest.mark.parametrize("threads", [0, -1, -100])
def test_there_is_no_work_without_a_thread(threads: int) -> None:
    need = Need(buffer=1, scratch=1)
    with pytest.raises(UsageError, match=rf"^threads: expected 1 or more, found {threads}"):
        share_out(need, threads=threads, max_memory=PLENTY)


@given(one=NEEDS, other=NEEDS)
def test_what_serves_either_serves_both(one: Need, other: Need) -> None:
    both = one | other
    assert both == other | one
    for need in (one, other):
        assert both.buffer >= need.buffer
        assert both.scratch >= need.scratch
    assert {both.buffer, both.scratch} <= {
        *(one.buffer, one.scratch),
        *(other.buffer, other.scratch),
    }


def test_buffers_are_as_many_and_as_large_as_was_counted() -> None:
    made = []

    def allocate(nbytes: int) -> Buffer:
        made.append(nbytes)
        return np.empty(nbytes, np.uint8)

    need = Need(buffer=3 * PAGE + 5, scratch=0)
    resources = share_out(need, files=2, threads=8, max_memory=PLENTY)
    buffers = resources.buffers(allocate)
    assert made == []
    taken = [buffers.take(wait=False) for _ in range(resources.buffer_count)]
    assert all(buffer is not None and buffer.size == need.buffer for buffer in taken)
    assert buffers.take(wait=False) is None
    assert made == [need.buffer] * resources.buffer_count == [need.buffer] * 12
    plain = resources.buffers().take(wait=False)
    assert plain is not None
    assert (plain.size, plain.ctypes.data % PAGE) == (need.buffer, 0)
