"""Writing past the page cache: exact, from any memory, and honest about failures."""

import errno
import fcntl
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BufferedRandom
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray

from releasekit import blocks, pipeline
from releasekit.blocks import BlockWriter
from releasekit.pipeline import Buffers, aligned
from releasekit.writing import Flusher, open_new, reopen

BLOCK = pipeline.PAGE
DIRECT = getattr(os, "O_DIRECT", 0)
SIZES = [0, 1, 8, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17, 8 * BLOCK]
TMPFS = Path("/dev/shm")

Data = NDArray[np.uint8]
Pwrite = Callable[[int, memoryview, int], int]

pytestmark = pytest.mark.skipif(not DIRECT, reason="this system has no O_DIRECT")


@pytest.fixture(params=["disk", "tmpfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on each of two kinds of file system."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access(TMPFS, os.W_OK):
        pytest.skip("there is no tmpfs here")
    with TemporaryDirectory(dir=TMPFS) as name:
        yield Path(name)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BufferedRandom]:
    with open_new(tmp_path / "file") as opened:
        yield opened


def content(size: int, skew: int = 0) -> Data:
    """Bytes without a pattern, `skew` bytes after the begin of a page."""
    memory = aligned(size + skew)[skew:]
    memory[:] = np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8)
    return memory


def is_direct(file: BufferedRandom) -> bool:
    return bool(fcntl.fcntl(file, fcntl.F_GETFL) & DIRECT)


def direct_writer(file: BufferedRandom, start: int = 0) -> BlockWriter:
    output = blocks.writer(file, start)
    if not isinstance(output, BlockWriter):
        with output:
            pytest.skip("this file system has no direct writes")
    return output


def refuse_direct(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """As a file system that takes the flag, and then no write."""
    pwrite: Pwrite = os.pwrite

    def refusing(fd: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT:
            raise OSError(number, os.strerror(number))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", refusing)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("skew", [0, 1, 64])
def test_one_piece_is_the_file(folder: Path, size: int, skew: int) -> None:
    data = content(size, skew)
    with open_new(folder / "file") as file:
        with blocks.writer(file) as output:
            output.write(0, data)
        file.truncate(size)
    assert (folder / "file").read_bytes() == data.tobytes()


@pytest.mark.parametrize("skew", [0, 24])
def test_pieces_from_many_threads_in_any_order(folder: Path, skew: int) -> None:
    data = content(3_000_000, skew)  # a piece is larger than what is copied at once
    cuts = [0, 5, 9, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 50_000, 50_001, 2_500_000, data.size]
    pieces = list(pairwise(cuts))
    random.Random(1).shuffle(pieces)
    with open_new(folder / "file") as file:
        with blocks.writer(file) as output, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda span: output.write(span[0], data[slice(*span)]), pieces))
        file.truncate(data.size)
    assert (folder / "file").read_bytes() == data.tobytes()


def test_words_of_one_block_from_many_threads(folder: Path) -> None:
    data = content(2 * BLOCK)
    together = threading.Barrier(8, timeout=30)

    def write(worker: int) -> None:
        together.wait()
        for at in range(8 * worker, data.size, 64):
            output.write(at, data[at : at + 8])

    with open_new(folder / "file") as file:
        with blocks.writer(file) as output, ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        file.truncate(data.size)
    assert (folder / "file").read_bytes() == data.tobytes()


@pytest.mark.parametrize("start", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 100])
@pytest.mark.parametrize("stale", [0, 10, 3 * BLOCK])
def test_what_is_there_before_the_start_stays(folder: Path, start: int, stale: int) -> None:
    data = content(5 * BLOCK + 9)
    (folder / "file").write_bytes(data[:start].tobytes() + b"x" * stale)
    with reopen(folder / "file") as file:
        with blocks.writer(file, start) as output:
            for at in range(start, data.size, 1000):
                output.write(at, data[at : at + 1000])
        file.truncate(data.size)
    assert (folder / "file").read_bytes() == data.tobytes()


def test_what_was_written_through_the_file_is_seen(folder: Path) -> None:
    data = content(BLOCK + 100)
    with open_new(folder / "file") as file:
        file.write(data[:77].tobytes())
        file.flush()
        with blocks.writer(file, 77) as output:
            output.write(77, data[77:])
        file.truncate(data.size)
        file.seek(0)
        assert file.read() == data.tobytes()


def test_direct_writes_are_of_whole_blocks_in_aligned_memory(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite: Pwrite = os.pwrite
    seen = []

    def record(fd: int, data: memoryview, offset: int) -> int:
        memory = np.frombuffer(data, np.uint8)
        address = memory.__array_interface__["data"][0]
        seen.append((address % BLOCK, memory.size % BLOCK, offset % BLOCK))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", record)
    data = content(3_000_000)
    with direct_writer(file) as output:
        for at in range(0, data.size, 700_000):
            output.write(at, data[at : at + 700_000])
        assert is_direct(file)
    assert set(seen) == {(0, 0, 0)}


def test_a_piece_that_lies_right_is_written_where_it_is(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite: Pwrite = os.pwrite
    seen = []

    def record(fd: int, data: memoryview, offset: int) -> int:
        seen.append((np.frombuffer(data, np.uint8).ctypes.data, offset))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", record)
    memory = aligned(5 * BLOCK)
    memory[:] = 7
    with direct_writer(file) as output:
        output.write(3 * BLOCK + 24, memory[24 : 4 * BLOCK])
    assert (memory.ctypes.data + BLOCK, 4 * BLOCK) in seen


def test_a_block_is_written_once_it_is_complete(file: BufferedRandom) -> None:
    def size() -> int:
        return os.fstat(file.fileno()).st_size

    data = content(2 * BLOCK)
    with direct_writer(file) as output:
        output.write(0, data[:10])
        output.write(10, data[10 : BLOCK - 1])
        assert size() == 0
        output.write(BLOCK - 1, data[BLOCK - 1 : BLOCK + 5])
        assert size() == BLOCK
    assert size() == 2 * BLOCK
    file.seek(0)
    assert file.read(BLOCK + 5) == data[: BLOCK + 5].tobytes()


def test_short_writes_are_continued(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite: Pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:BLOCK], at))
    data = content(5 * BLOCK + 3, 1)
    with open_new(folder / "file") as file:
        with blocks.writer(file) as output:
            output.write(0, data)
        file.truncate(data.size)
    assert (folder / "file").read_bytes() == data.tobytes()


# Where direct writes are refused.


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_direct_writes_gets_cached_ones(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    call = fcntl.fcntl

    def refusing(fd: BufferedRandom, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(number, os.strerror(number))
        return call(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refusing)
    data = content(3 * BLOCK + 5)
    file.write(data[:100].tobytes())
    file.flush()
    with blocks.writer(file, 100) as output:
        assert isinstance(output, Flusher)
        output.write(BLOCK, data[BLOCK:])
        output.write(100, data[100:BLOCK])
    file.seek(0)
    assert file.read() == data.tobytes()


@pytest.mark.parametrize("start", [0, 100])
def test_a_disk_that_wants_other_alignment_gets_cached_writes(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    refuse_direct(monkeypatch, errno.EINVAL)
    data = content(9 * BLOCK + 5, 8)
    file.write(data[:start].tobytes())
    file.flush()
    with direct_writer(file, start) as output, ThreadPoolExecutor(3) as pool:
        spans = [(at, min(at + 5000, data.size)) for at in range(start, data.size, 5000)]
        list(pool.map(lambda span: output.write(span[0], data[slice(*span)]), spans))
        assert not is_direct(file)
    file.truncate(data.size)
    file.seek(0)
    assert file.read() == data.tobytes()


def test_a_disk_that_wants_other_alignment_is_read_through_the_cache(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv = os.preadv

    def refusing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", refusing)
    data = content(BLOCK + 9)
    file.write(data[:100].tobytes())
    file.flush()
    with blocks.writer(file, 100) as output:
        output.write(100, data[100:])
    file.truncate(data.size)
    file.seek(0)
    assert file.read() == data.tobytes()


# Failures.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("size", [8, 3 * BLOCK])
def test_an_error_names_the_file(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch, number: int, size: int
) -> None:
    output = direct_writer(file)
    refuse_direct(monkeypatch, number)
    data = content(size)

    def work() -> None:
        with output:
            output.write(0, data)

    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        work()
    assert (caught.value.errno, caught.value.filename) == (number, str(file.name))
    assert not is_direct(file)


def test_an_error_while_reading_names_the_file(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        blocks.writer(file, 100)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(file.name))
    assert not is_direct(file)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_after_an_exception_nothing_more_is_written(
    file: BufferedRandom, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    pwrite: Pwrite = os.pwrite
    written = []

    def record(fd: int, data: memoryview, offset: int) -> int:
        written.append(offset)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", record)
    output = direct_writer(file)

    def work() -> None:
        with output:
            output.write(0, content(BLOCK + 100))
            raise kind

    with pytest.raises(kind):
        work()
    assert written == [0]
    assert os.fstat(file.fileno()).st_size == BLOCK
    assert not is_direct(file)


@pytest.mark.parametrize("size", [0, 5, BLOCK, BLOCK + 5])
def test_flags_are_restored(file: BufferedRandom, size: int) -> None:
    before = fcntl.fcntl(file, fcntl.F_GETFL)
    with direct_writer(file) as output:
        assert is_direct(file)
        output.write(0, content(size))
        assert is_direct(file)
    assert fcntl.fcntl(file, fcntl.F_GETFL) == before
    os.pwrite(file.fileno(), b"odd", 3)


# Where chunks lie.


@pytest.mark.parametrize("nbytes", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 1])
def test_buffers_begin_at_a_page(nbytes: int) -> None:
    buffers = Buffers(nbytes, 5)
    taken = [buffers.take(wait=False) for _ in range(5)]
    assert buffers.take(wait=False) is None
    for number, buffer in enumerate(taken):
        assert buffer is not None
        assert (buffer.size, buffer.ctypes.data % BLOCK) == (nbytes, 0)
        buffer[:] = number
    assert all(
        set(buffer) == {number} for number, buffer in enumerate(taken) if buffer is not None
    )
    assert aligned(nbytes).size == nbytes
