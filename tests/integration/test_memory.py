"""Memory has a ceiling, and a model six times as large takes no more."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest

from tests.builders import raw_header
from tests.integration.tools import COMMAND

_COLUMNS = 2048
_TILE_ROWS = 4096  # 16 MiB
_EVERY = 64  # this many rows, one changed

# Stands between the test and the command: the peak of a process begins with that of the
# one it was forked from, and pytest with all that it imported may exceed the command's.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of ru_maxrss


def peak_nbytes(*arguments: str | Path) -> int:
    """The most memory that the command line held while it ran, with two threads."""
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-E",
            "-c",
            _MEASURE,
            *COMMAND,
            *arguments,
            "--threads",
            "2",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1]) * _UNIT


def write_model(path: Path, tile: bytes, count: int) -> int:
    """A model of one bf16 tensor, `count` tiles on top of each other; returns its size."""
    shape = [count * _TILE_ROWS, _COLUMNS]
    span = [0, count * len(tile)]
    header = {"weight": {"dtype": "BF16", "shape": shape, "data_offsets": span}}
    with path.open("wb") as file:
        file.write(raw_header(header))
        for _ in range(count):
            file.write(tile)
    return path.stat().st_size


class Peaks(NamedTuple):
    """What commands held for a model of this size, all in bytes."""

    model: int
    make: int
    apply: int


def measure(folder: Path, count: int) -> Peaks:
    """The peaks for a model of `count` tiles."""
    source = np.random.default_rng(13)
    values = source.standard_normal(_TILE_ROWS * _COLUMNS, np.float32) * np.float32(0.02)
    words = (values.view(np.uint32) >> 16).astype(np.uint16).reshape(-1, _COLUMNS)
    base, target = folder / "base.safetensors", folder / "target.safetensors"
    delta, out = folder / "delta", folder / "out"
    nbytes = write_model(base, words.tobytes(), count)
    words[::_EVERY] += source.integers(0, 3, words[::_EVERY].shape, np.uint16)
    write_model(target, words.tobytes(), count)
    make = peak_nbytes(*("make-delta", "--base", base, "--target", target, "--out", delta))
    apply = peak_nbytes(*("apply-delta", "--base", base, "--delta", delta, "--out", out))
    assert (out / target.name).stat().st_size == nbytes
    return Peaks(nbytes, make, apply)


@pytest.fixture(scope="module")
def peaks() -> Iterator[tuple[Peaks, Peaks]]:
    """For a small model and for a large one."""
    with TemporaryDirectory() as small, TemporaryDirectory() as large:
        yield measure(Path(small), 2), measure(Path(large), 12)


@pytest.mark.parametrize(
    ("command", "ceiling"), [("make", 768 << 20), ("apply", 512 << 20)]
)
def test_memory_has_a_ceiling_and_does_not_grow(
    peaks: tuple[Peaks, Peaks], command: str, ceiling: int
) -> None:
    small, large = (getattr(peak, command) for peak in peaks)
    print(f"{command}: {small / 2**20:.0f} MiB, then {large / 2**20:.0f} MiB")
    assert large <= ceiling
    assert large <= 1.1 * small
