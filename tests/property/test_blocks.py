"""Any cut of a file into pieces, written in any order, gives the file."""

import fcntl
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit import blocks
from releasekit.blocks import BlockWriter, Writer
from releasekit.pipeline import PAGE, aligned
from releasekit.writing import reopen

SIZE = 6 * PAGE
# Edges of blocks, their neighbours, and any place.
PLACES = st.integers(0, SIZE) | st.builds(
    lambda block, step: min(max(block * PAGE + step, 0), SIZE),
    st.integers(0, 6),
    st.integers(-2, 2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(data=st.data(), direct=st.booleans(), threads=st.sampled_from([1, 1, 3]))
def test_pieces_give_the_file(
    folder: Path, data: st.DataObject, direct: bool, threads: int
) -> None:
    start, size = sorted((data.draw(PLACES), data.draw(PLACES)))
    wanted = np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8)
    cuts = data.draw(st.lists(st.integers(start, size) | PLACES, max_size=12))
    cuts = sorted({start, size, *(cut for cut in cuts if start < cut < size)})
    pieces = data.draw(st.permutations(list(pairwise(cuts))))
    # As a sink lays chunks, and anyhow.
    skew = data.draw(st.sampled_from([0, 1, 8]) | st.integers(0, PAGE - 1))
    phases = [begin % PAGE if data.draw(st.booleans()) else skew for begin, _ in pieces]
    stale = data.draw(st.sampled_from([0, 0, 1, PAGE, SIZE]))
    with TemporaryDirectory(dir=folder) as name:
        path = Path(name, "file")
        path.write_bytes(wanted[:start].tobytes() + b"\xaa" * stale)
        with reopen(path) as file:
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            output: Writer = (
                blocks.writer(file, start) if direct else BlockWriter(file, flags, start)
            )

            def write(span: tuple[int, int], phase: int) -> None:
                begin, end = span
                memory = aligned(phase + end - begin)[phase:]
                memory[:] = wanted[begin:end]
                output.write(begin, memory)
                memory[:] = 0x55  # the writer keeps nothing of it

            with output, ThreadPoolExecutor(threads) as pool:
                list(pool.map(write, pieces, phases))
            assert fcntl.fcntl(file, fcntl.F_GETFL) == flags
            file.truncate(size)
        assert path.read_bytes() == wanted.tobytes()
