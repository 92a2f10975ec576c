"""A base that several read: each byte once, in bounded memory; nobody waits for ever."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from releasekit.checkpoint.hashing import hash_tensor, hash_tensors
from releasekit.delta.making.common import CommonBase, CommonReader
from releasekit.delta.making.wanted import Key, Wanted
from releasekit.digest import blake3
from releasekit.errors import IntegrityError
from releasekit.pipeline import Buffer, Workers
from releasekit.progress import Stage
from releasekit.tensors import DType, TensorSpec

BLOCK = 16


class Counting:
    """A checkpoint in memory that counts what is read of it, and may fail."""

    subject = "base"

    def __init__(self, **sizes: int) -> None:
        source = np.random.default_rng(3)
        self.data = {
            name: np.frombuffer(source.bytes(size), np.uint8)
            for name, size in sizes.items()
        }
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name=name, dtype=DType.U8, shape=(size,))
            for name, size in sizes.items()
        }
        self.reads: Counter[str] = Counter()
        self.faults = 0
        self._lock = threading.Lock()

    def read(self, name: str, start: int, out: Buffer) -> None:
        with self._lock:
            self.reads[name] += out.size
            self.faults -= 1
            if self.faults >= 0:
                raise IntegrityError("base: the disk fails")
        out[:] = self.data[name][start : start + out.size]

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        pass

    @property
    def sizes(self) -> dict[str, int]:
        return {name: data.size for name, data in self.data.items()}

    def digest(self, name: str) -> str:
        return str(blake3(self.data[name].tobytes()).hexdigest())


def read(reader: CommonReader, name: str, step: int, stop: int) -> bytes:
    """A tensor's first bytes, as a make reads them: in chunks, and then the digest."""
    found = bytearray()
    for start in range(0, stop, step):
        chunk = np.empty(min(step, stop - start), np.uint8)
        reader.read(name, start, chunk)
        found += chunk.tobytes()
    return bytes(found)


def read_all(reader: CommonReader, order: Sequence[str], step: int) -> dict[str, bytes]:
    with reader:
        return {n: read(reader, n, step, reader.specs[n].nbytes) for n in order}


@pytest.mark.parametrize("step", [5, 16, 23, 100])
@pytest.mark.parametrize("blocks", [1, 3, 50])
def test_each_byte_is_read_once_and_all_get_it(step: int, blocks: int) -> None:
    base = Counting(a=100, empty=0, b=16, c=333)
    common = CommonBase(base, blocks * BLOCK, BLOCK)
    readers = [common.reader(base.sizes) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: read_all(one, list(base.data), step), readers))
    assert found == [{name: data.tobytes() for name, data in base.data.items()}] * 4
    assert dict(base.reads) == {"a": 100, "b": 16, "c": 333}
    digests = [common.reader({}).digest(name) for name in base.data]
    assert digests == [base.digest(name) for name in base.data]
    assert sum(base.reads.values()) == 449  # what was read was hashed on the way


def test_whoever_is_ahead_waits_for_the_others() -> None:
    base = Counting(a=6 * BLOCK)
    common = CommonBase(base, 2 * BLOCK, BLOCK)
    ahead, behind = common.reader(base.sizes), common.reader(base.sizes)
    steps: list[int] = []
    block = np.empty(BLOCK, np.uint8)

    def go_ahead() -> None:
        own = np.empty(BLOCK, np.uint8)
        for start in range(0, 6 * BLOCK, BLOCK):
            ahead.read("a", start, own)
            steps.append(start // BLOCK)

    thread = threading.Thread(target=go_ahead)
    thread.start()
    for number in range(6):
        while not (ahead.waiting or len(steps) == 6):
            thread.join(0.001)
        assert steps == list(range(min(number + 2, 6)))
        behind.read("a", number * BLOCK, block)
        while len(steps) < min(number + 3, 6):
            thread.join(0.001)
    thread.join()
    assert base.reads["a"] == 6 * BLOCK


def test_nobody_waits_for_ever_where_orders_differ() -> None:
    base = Counting(a=200, b=200)
    common = CommonBase(base, 2 * BLOCK, BLOCK)
    readers = [common.reader(base.sizes) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        pairs = zip(readers, (["a", "b"], ["b", "a"]), strict=True)
        found = list(pool.map(lambda pair: read_all(pair[0], pair[1], 16), pairs))
    assert (
        found[0] == found[1] == {name: data.tobytes() for name, data in base.data.items()}
    )
    assert sum(base.reads.values()) <= 2 * 400


def test_nothing_is_kept_for_one_that_left() -> None:
    base = Counting(a=10 * BLOCK)
    common = CommonBase(base, BLOCK, BLOCK)
    first, second = common.reader(base.sizes), common.reader(base.sizes)
    with ThreadPoolExecutor(1) as pool:
        going: Future[bytes] = pool.submit(read, first, "a", BLOCK, 10 * BLOCK)
        while not first.waiting:
            pass
        second.close()
        assert going.result() == base.data["a"].tobytes()
    second.close()
    assert base.reads["a"] == 10 * BLOCK


def test_what_is_not_wanted_is_not_kept_and_read_once_for_its_digest() -> None:
    base = Counting(a=5 * BLOCK + 3, unread=100)
    common = CommonBase(base, BLOCK, BLOCK)
    rows, other = common.reader({"a": 2 * BLOCK + 5, "unread": 0}), common.reader({})
    assert read(rows, "a", 10, 2 * BLOCK + 5) == base.data["a"][: 2 * BLOCK + 5].tobytes()
    assert rows.digest("a") == other.digest("a") == base.digest("a")
    assert base.reads["a"] == 5 * BLOCK + 3
    with Workers(2) as workers:
        hashed = dict(hash_tensors(other, ["a", "unread"], workers, Stage(None, "", 0)))
    assert hashed == {name: base.digest(name) for name in base.data}
    assert hash_tensor(rows, "unread") == base.digest("unread")
    assert base.reads["unread"] == 100


def test_one_that_asks_for_a_digest_wants_the_tensor_no_more() -> None:
    """As of a tensor that has another's bytes: it is never coded, but hashed in the end."""
    base = Counting(a=3 * BLOCK, b=3 * BLOCK)
    common = CommonBase(base, 3 * BLOCK, BLOCK)
    first, second = common.reader(base.sizes), common.reader(base.sizes)
    assert first.digest("b") == base.digest("b")  # beforehand, to see whether it is such
    block = np.empty(BLOCK, np.uint8)
    second.read("b", 0, block)
    for start in range(0, 3 * BLOCK, BLOCK):
        for reader in (first, second):
            reader.read("a", start, block)
    assert first.digest("b") == base.digest("b")
    second.read("b", BLOCK, block)
    second.read("b", 2 * BLOCK, block)
    assert base.reads["b"] == 6 * BLOCK
    first.read("b", 0, block)
    assert base.reads["b"] == 7 * BLOCK


def test_a_read_that_fails_is_tried_by_the_next() -> None:
    base = Counting(a=3 * BLOCK)
    common = CommonBase(base, BLOCK, BLOCK)
    first, second = common.reader(base.sizes), common.reader(base.sizes)
    base.faults = 1
    with pytest.raises(IntegrityError, match=r"^base: the disk fails$"):
        read(first, "a", BLOCK, 3 * BLOCK)
    first.close()
    assert read(second, "a", BLOCK, 3 * BLOCK) == base.data["a"].tobytes()
    base.faults = 1
    unread = CommonBase(base, BLOCK, BLOCK).reader({})
    with pytest.raises(IntegrityError, match=r"^base: the disk fails$"):
        unread.digest("a")
    assert unread.digest("a") == base.digest("a")


def test_all_can_be_stopped_also_those_that_wait() -> None:
    base = Counting(a=10 * BLOCK)
    common = CommonBase(base, BLOCK, BLOCK)
    first, second = common.reader(base.sizes), common.reader(base.sizes)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(read, first, "a", BLOCK, 10 * BLOCK)
        while not first.waiting:
            pass
        common.stop()
        with pytest.raises(CancelledError):
            going.result()
    with pytest.raises(CancelledError):
        read(second, "a", BLOCK, 10 * BLOCK)
    with pytest.raises(CancelledError):
        second.digest("a")


def test_a_digest_that_is_waited_for_no_more_ends() -> None:
    base = Counting(a=10 * BLOCK)

    def stop() -> None:
        if base.reads["a"] == 4 * BLOCK:
            raise CancelledError

    reader = CommonBase(base, BLOCK, BLOCK).reader({})
    with pytest.raises(CancelledError):
        reader.digest("a", stop)
    assert reader.digest("a") == base.digest("a")
    assert base.reads["a"] == 10 * BLOCK


@st.composite
def makes(draw: st.DrawFn) -> tuple[dict[str, int], list[list[tuple[str, int, int]]]]:
    """Sizes of tensors; and what each make reads of them: chunks of so many, so far."""
    sizes = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 70), min_size=1))
    plans = []
    for _ in range(draw(st.integers(1, 4))):
        names = draw(st.lists(st.sampled_from(sorted(sizes)), unique=True))
        plan = []
        for name in names:
            far = draw(st.sampled_from([sizes[name], sizes[name] // 2]))
            plan.append((name, draw(st.integers(1, 40)), far))
        plans.append(plan)
    return sizes, plans


@given(makes(), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=60)
def test_any_makes_read_what_is_there_and_end(
    made: tuple[dict[str, int], list[list[tuple[str, int, int]]]], blocks: int, threads: int
) -> None:
    sizes, plans = made
    base = Counting(**sizes)
    common = CommonBase(base, blocks * BLOCK, BLOCK)
    readers = [common.reader({name: far for name, _, far in plan}) for plan in plans]

    def make(reader: CommonReader, plan: list[tuple[str, int, int]]) -> None:
        chunks = [(n, at, step, far) for n, step, far in plan for at in range(0, far, step)]

        def code(chunk: tuple[str, int, int, int], _: Buffer) -> bytes:
            name, at, step, far = chunk
            out = np.empty(min(step, far - at), np.uint8)
            reader.read(name, at, out)
            return out.tobytes()

        with reader, Workers(threads) as workers:
            for (name, at, step, far), found in workers.in_order(code, chunks):
                assert found == base.data[name][at : min(at + step, far)].tobytes()
            for name in sizes:
                assert reader.digest(name) == base.digest(name)

    with ThreadPoolExecutor(len(plans)) as pool:
        for done in [pool.submit(make, *one) for one in zip(readers, plans, strict=True)]:
            done.result(timeout=60)


@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40))
def test_a_block_is_wanted_until_its_last_byte_was_read(
    data: st.DataObject, block: int, step: int, nbytes: int
) -> None:
    wanted, unread = Wanted({"a": nbytes, "b": 3, "c": 0}, block), set(range(nbytes))
    chunks = data.draw(st.permutations(range(0, nbytes, step)))
    keys = [Key("a", number) for number in range(nbytes // block + 2)]
    for start in chunks:
        for byte in range(start, min(start + step, nbytes)):
            wanted.read(Key("a", byte // block), 1)
            unread.remove(byte)
        for key in keys:
            assert (key in wanted) == any(byte // block == key.number for byte in unread)
    wanted.read(keys[0], 1)  # once more: an earlier run had coded something else
    assert keys[0] not in wanted
    assert Key("b", 0) in wanted
    wanted.forget("b")
    assert Key("b", 0) not in wanted
    assert Key("c", 0) not in wanted
