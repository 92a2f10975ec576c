"""Workers: results in order, few buffers, and nothing left running."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial

import numpy as np
import pytest

from releasekit.pipeline import PAGE, Buffer, Buffers, Workers, default_threads

THREADS = [1, 2, 5]


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("releasekit")]


@pytest.mark.parametrize("threads", THREADS)
def test_results_come_in_the_order_of_the_items(threads: int) -> None:
    def work(item: int, _: Buffer) -> int:
        time.sleep(0.001 * (7 - item % 8))
        return item * item

    with Workers(threads) as workers:
        found = list(workers.in_order(work, range(40)))
    assert found == [(item, item * item) for item in range(40)]


@pytest.mark.parametrize("threads", THREADS)
def test_items_are_taken_only_as_results_are(threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(50):
            taken += 1
            yield item

    ahead = []
    with Workers(threads) as workers:
        for item, _ in workers.in_order(lambda item, _: item, items()):
            ahead.append(taken - item)
    assert max(ahead) <= threads + 2
    assert taken == 50


@pytest.mark.parametrize("threads", THREADS)
def test_buffers_are_few_and_reused(threads: int) -> None:
    seen = set()

    def work(item: int, buffer: Buffer) -> Buffer:
        seen.add(buffer.__array_interface__["data"][0])
        assert buffer.dtype == np.uint8
        buffer[:] = item
        return buffer[:10]

    with Workers(threads) as workers:
        for item, view in workers.in_order(work, range(100), Buffers(1000, 3)):
            time.sleep(0.0005)  # what the consumer holds must not change under it
            assert view.tolist() == [item] * 10
    assert 1 <= len(seen) <= 3
    assert all(address % PAGE == 0 for address in seen)


def test_work_runs_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=30)

    def work(item: int, _: Buffer) -> int:
        barrier.wait()
        return item

    with Workers(3) as workers:
        assert len(list(workers.in_order(work, range(3)))) == 3


@pytest.mark.parametrize("threads", THREADS)
def test_an_exception_is_raised_at_its_turn(threads: int) -> None:
    def work(item: int, _: Buffer) -> int:
        if item >= 3:
            raise LookupError(item)
        time.sleep(0.01)
        return item

    found = []

    def consume(workers: Workers) -> None:
        for item, _ in workers.in_order(work, range(10)):
            found.append(item)

    with Workers(threads) as workers:
        with pytest.raises(LookupError) as caught:
            consume(workers)
        assert list(workers.in_order(lambda item, _: item, [1])) == [(1, 1)]
    assert found == [0, 1, 2]
    assert caught.value.args == (3,)


@pytest.mark.parametrize("threads", THREADS)
def test_an_exception_of_the_items_leaves_nothing_running(threads: int) -> None:
    running = 0
    lock = threading.Lock()

    def work(item: int, _: Buffer) -> int:
        nonlocal running
        with lock:
            running += 1
        time.sleep(0.01)
        with lock:
            running -= 1
        return item

    def items() -> Iterator[int]:
        yield from range(4)
        raise LookupError

    with Workers(threads) as workers:
        with pytest.raises(LookupError):
            list(workers.in_order(work, items()))
        assert running == 0


@pytest.mark.parametrize("threads", THREADS)
def test_closing_early_leaves_nothing_running(threads: int) -> None:
    started, ended = [], []

    def work(item: int, _: Buffer) -> int:
        started.append(item)
        time.sleep(0.01)
        ended.append(item)
        return item

    with Workers(threads) as workers:
        results = workers.in_order(work, range(100))
        assert next(results) == (0, 0)
        results.close()
        assert sorted(started) == sorted(ended)
        count = len(started)
        time.sleep(0.03)
        assert len(started) == count < 10


def test_no_thread_outlives_the_workers() -> None:
    assert alive() == []
    with Workers(3) as workers:
        list(workers.in_order(lambda item, _: time.sleep(0.001), range(10)))
        assert alive()
    assert alive() == []

    def fail() -> None:
        with Workers(3) as workers:
            next(workers.in_order(lambda item, _: time.sleep(0.01), range(10)))
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert alive() == []


def test_no_items_are_no_work() -> None:
    with Workers(2) as workers:
        assert list(workers.in_order(lambda item, _: item, [])) == []


def test_one_pool_serves_one_pass_after_another() -> None:
    with Workers(2) as workers:
        for nbytes in (1, 100, 10):
            few = Buffers(nbytes, 2)
            sizes = workers.in_order(lambda item, buffer: buffer.size, range(5), few)
            assert [size for _, size in sizes] == [nbytes] * 5


def test_buffers_come_back_from_a_pass_that_failed() -> None:
    def work(item: int, _: Buffer) -> int:
        if item == 5:
            raise LookupError
        return item

    def items() -> Iterator[int]:
        yield from range(3)
        raise ArithmeticError

    buffers = Buffers(10, 3)
    with Workers(2) as workers:
        with pytest.raises(LookupError):
            list(workers.in_order(work, range(10), buffers))
        with pytest.raises(ArithmeticError):
            list(workers.in_order(work, items(), buffers))
    assert all(buffers.take(wait=False) is not None for _ in range(3))
    assert buffers.take(wait=False) is None


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 7])
def test_lanes_share_threads_and_buffers(lanes: int, count: int) -> None:
    """Even with no more buffers than lanes, each of which keeps its order."""
    found: dict[int, list[int]] = {lane: [] for lane in range(5)}
    buffers = Buffers(8, count)

    def work(item: int, buffer: Buffer) -> Buffer:
        buffer[:] = item
        time.sleep(0.0005)
        return buffer

    with Workers(4) as workers:

        def job(lane: int) -> None:
            for _, view in workers.in_order(work, range(20), buffers):
                found[lane].append(int(view[0]))

        workers.in_lanes([partial(job, lane) for lane in found], lanes)
    assert all(order == list(range(20)) for order in found.values())
    assert buffers.take(wait=False) is not None


def test_a_failing_lane_ends_the_others() -> None:
    started = []

    def work(item: int, _: Buffer) -> int:
        time.sleep(0.005)
        return item

    with Workers(3) as workers:

        def endless() -> None:
            started.append(1)
            for _ in workers.in_order(work, itertools.count(), Buffers(1, 2)):
                pass

        def failing() -> None:
            time.sleep(0.05)
            raise LookupError

        with pytest.raises(LookupError):
            workers.in_lanes([endless, failing, endless, endless], 3)
    assert 2 <= len(started) <= 3
    assert alive() == []


def test_long_work_of_a_failing_lane_is_told() -> None:
    told = threading.Event()

    with Workers(2) as workers:

        def work(item: int, buffer: Buffer) -> None:
            try:
                for _ in range(2000):
                    time.sleep(0.002)
                    workers.check()
            except CancelledError:
                told.set()
                raise

        def hash_one() -> None:
            list(workers.in_order(work, [1]))

        def failing() -> None:
            time.sleep(0.02)
            raise LookupError

        with pytest.raises(LookupError):
            workers.in_lanes([hash_one, failing], 2)
    assert told.is_set()


def test_threads_are_by_default_one_a_processor() -> None:
    with Workers() as workers:
        assert workers.threads == default_threads() >= 1
