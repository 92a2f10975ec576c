"""Measure how fast this machine is, in some seconds: see `rates`.

A small release is made and rebuilt, in the folder whose disk is to be measured. What counts
of that is processor time, less that of the digests: the files are still in memory, so the
disk shows only in a file of its own, which is flushed, and then read once more past what
the kernel keeps of it. Each digest, and the reading of headers, is timed for itself, by
processor time as well, which other work on the machine hardly changes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from releasekit import layout
from releasekit.authenticity import Policy
from releasekit.blocks import writer
from releasekit.codec import Ulp
from releasekit.delta.apply import apply_delta
from releasekit.delta.making.make import make_delta
from releasekit.digest import blake3, sha256
from releasekit.manifest import FileEntry, Manifest, WeightEntry
from releasekit.manifest_parser import parse
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.output import require_space
from releasekit.pipeline import aligned, default_threads
from releasekit.planning.rates import Rates
from releasekit.tensors import DType, TensorSpec
from releasekit.writing import sync

#: Rows of the release that is made: 33 MB of bf16; and of one that shows what any takes.
_ROWS: Final = 4000
_FEW: Final = 16
_ROW: Final = 4096
#: Bytes that are hashed, and that are written to the disk.
_HASHED: Final = 1 << 27
_FILE: Final = 1 << 28
_PIECE: Final = 1 << 23
#: Tensors whose headers are read.
_TENSORS: Final = 10_000
_RUNS: Final = 2
_NO_DIGEST: Final = "0" * 64
_STARTED: Final = "import releasekit.delta.spread"
_QUIET: Final = Policy(warn=lambda warning: None)


def measure(folder: str | Path) -> Rates:
    """Measure this machine, and the disk that a folder lies on.

    Takes some seconds, and half a GB of disk, which is given back.

    Args:
        folder: where to write; it must be there.

    Raises:
        OSError: if the disk is too full, or cannot be written to.
    """
    require_space(Path(folder), [_FILE, 8 * _ROW * _ROWS])
    with TemporaryDirectory(dir=folder, prefix=".releasekit-measure-") as made:
        place = Path(made)
        hashing = _rate_of_digest(sha256), _rate_of_digest(blake3)
        encode, rebuild = _rates_of_codec(place, *hashing)
        write, read = _rates_of_disk(place / "disk")
    return Rates(
        measured=datetime.now(UTC).date().isoformat(),
        machine=_machine(),
        rebuild=rebuild,
        encode=encode,
        sha256=hashing[0],
        blake3=hashing[1],
        read=read,
        write=write,
        headers=_rate_of_headers(),
        start=_start(),
    )


def _best(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of the quickest of some runs: others waited for something else."""
    found = []
    for _ in range(_RUNS):
        began = clock()
        work()
        found.append(clock() - began)
    return max(min(found), 1e-9)


def _rate_of_digest(algorithm: Callable[[bytes], object]) -> float:
    data = bytes(_HASHED)
    return _HASHED / _best(lambda: algorithm(data), time.process_time)


def _rates_of_codec(place: Path, sha: float, blake: float) -> tuple[float, float]:
    """Bytes a second of a processor that are encoded, and rebuilt."""
    few, pair = place / "few", place / "pair"
    _write_pair(few, _FEW)
    _write_pair(pair, _ROWS)
    for work in (_make, _rebuild):  # compiles what has to be, and loads the rest
        work(few)
    made, rebuilt = (
        _best(partial(work, pair), time.process_time)
        - _best(partial(work, few), time.process_time)
        for work in (_make, _rebuild)
    )
    nbytes = 2 * _ROW * (_ROWS - _FEW)
    # To make a release, the target goes through both digests, and so does the base.
    digests = 2 * nbytes / sha + 2 * nbytes / blake
    return nbytes / _rest(made, digests), nbytes / _rest(rebuilt, nbytes / sha)


def _rest(seconds: float, digests: float) -> float:
    """What is left of processor time without digests; some, however they were timed."""
    return max(seconds - digests, seconds / 4)


def _write_pair(place: Path, rows: int) -> None:
    """A base and a fine-tune of it, in bf16: weights are normal, updates far smaller."""
    rng = np.random.default_rng(0)
    spec = TensorSpec(name="w", dtype=DType.BF16, shape=(rows, _ROW))
    head = layout.build([spec], {"format": "pt"})
    weights = rng.standard_normal((rows, _ROW), np.float32)
    weights *= 0.02
    moved = rng.standard_normal((rows, _ROW), np.float32)
    moved *= 6e-5
    moved += weights
    for name, values in (("base", weights), ("target", moved)):
        (place / name).mkdir(parents=True)
        with (place / name / "model.safetensors").open("wb") as file:
            file.write(head.prefix)
            file.write((values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).data)


def _make(place: Path) -> None:
    inputs = place / "base", place / "target"
    make_delta(*inputs, place / "delta", name="measure", force=True)


def _rebuild(place: Path) -> None:
    inputs = place / "base", place / "delta"
    apply_delta(*inputs, place / "out", policy=_QUIET, force=True)


def _rates_of_disk(path: Path) -> tuple[float, float]:
    """Bytes a second that are written, and read again."""
    data = np.random.default_rng(0).integers(0, 256, _PIECE, np.uint8)
    memory = aligned(_PIECE)
    memory[:] = data
    began = time.perf_counter()
    with path.open("w+b") as file:
        with writer(file) as output:
            for at in range(0, _FILE, _PIECE):
                output.write(at, memory)
        sync(file)
        written = time.perf_counter() - began
    with path.open("rb", buffering=0) as source:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        while source.readinto(memory.data):
            pass
        read = time.perf_counter() - began
    return _FILE / max(written, 1e-9), _FILE / max(read, 1e-9)


def _rate_of_headers() -> float:
    """Tensors a second that headers name and are read: of a manifest, and of a file."""
    specs = [
        TensorSpec(
            name=f"model.layers.{number // 9}.mlp.experts.{number % 9}.weight",
            dtype=DType.BF16,
            shape=(_ROW, _ROW),
        )
        for number in range(_TENSORS)
    ]
    head = layout.build(specs, None)
    document = Manifest(
        name="measure",
        made_with="releasekit",
        codec=Ulp(),
        base={s.name: BaseTensor(spec=s, digest=_NO_DIGEST) for s in specs},
        weights=(
            WeightEntry(
                file=FileEntry(path="w", size=head.file_size, sha256=_NO_DIGEST),
                layout=head,
            ),
        ),
        files=(),
        operations={s.name: Operation(op=Op.DELTA, digest=_NO_DIGEST) for s in specs},
        shards=(),
    ).pack()

    def read() -> None:
        parse(document)
        for _ in range(2):  # of the base, and of the payloads
            layout.parse(head.header, head.file_size, "measure")

    return 4 * _TENSORS / _best(read, time.process_time)


def _start() -> float:
    """Seconds until a process runs, and has loaded what it needs."""
    command = [sys.executable, "-c", _STARTED]
    return _best(lambda: subprocess.run(command, check=True), time.perf_counter)


def _machine() -> str:
    """Processors and their kind, as far as the system tells."""
    name = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    text = f"{default_threads()} processors, {name}"
    return "".join(c if c.isprintable() else " " for c in text)[:200]
