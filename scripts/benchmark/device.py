"""What a device does with a release: copies, the adding alone, and whole rebuilds.

    python scripts/benchmark/device.py BASE DELTA [--device cuda] [--threads 8 16]

Prints a table of medians in GB/s of weights. Each is measured after a run that is not
counted, which has the inputs in memory. The rows say what bounds a rebuild into the
device's memory: it can be no faster than the copies (weights and residuals in, weights out
to be hashed), nor than the adding, nor than all processors decode.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from releasekit import open_delta
from releasekit.codec import ulp
from releasekit.codec.kernels import Words
from releasekit.device.combine import allocator
from releasekit.device.tensors import usable
from releasekit.device.ungroup import WORDS, rebuild
from releasekit.tensors import DType

_WORD = DType.BF16.word
_WORDS = 1 << 20
_ROW = 4096


def wait(device: torch.device) -> None:
    """Until all that was queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(work: Callable[[], object], nbytes: int, device: torch.device, runs: int) -> float:
    """Median GB/s of something that is done several times."""
    seconds = []
    for turn in range(runs + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        if turn:
            seconds.append(time.perf_counter() - start)
    return nbytes / statistics.median(seconds) / 1e9


def repeated(work: Callable[[], object], times: int) -> Callable[[], object]:
    """The same several times, so that starting it costs little."""

    def several() -> None:
        for _ in range(times):
            work()

    return several


def copies(device: torch.device, runs: int) -> Iterator[tuple[str, float]]:
    """Between the host's pinned memory and the device, and within the device."""
    for mib in (2, 64):
        nbytes = mib << 20
        host = torch.from_numpy(allocator(device)(nbytes))
        there = torch.empty(nbytes, dtype=torch.uint8, device=device)
        other = torch.empty_like(there)
        times = 512 // mib
        copying: tuple[tuple[str, torch.Tensor, torch.Tensor, int], ...] = (
            ("to the device", there, host, 1),
            ("from the device", host, there, 1),
            ("within the device, read and written", other, there, 2),
        )
        for name, into, source, moved in copying:
            copy = partial(into.copy_, source, non_blocking=True)
            found = rate(repeated(copy, times), moved * times * nbytes, device, runs)
            yield f"{mib} MiB {name}", found


def adding(device: torch.device, runs: int) -> tuple[str, float]:
    """One chunk of bf16, whose base and residuals are there."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(_WORDS, np.float32) * np.float32(0.02)
    base = (weights.view(np.uint32) >> 16).astype(np.uint16)
    target = base + rng.integers(0, 9, _WORDS).astype(np.uint16)
    frame = ulp.encode(base, target, word=_WORD, row=_ROW)
    held: list[ulp.Residuals] = []

    def keep(residuals: ulp.Residuals, words: Words) -> bool:
        held.append(residuals)
        return ulp.combine(residuals, words)

    ulp.decode(frame, base.copy(), word=_WORD, row=_ROW, where="bench", combine=keep)
    (residuals,) = held
    total = int(residuals.count.sum())
    words = torch.from_numpy(base.view(np.int16)).to(device)
    out = torch.empty_like(words)
    grouped = torch.from_numpy(residuals.grouped[:total].view(np.int32)).to(device)
    classes = torch.from_numpy(residuals.classes).to(device)
    table = torch.from_numpy(residuals.table.view(np.int16)).to(device)
    count = torch.from_numpy(residuals.count).to(device)

    def add() -> None:
        rebuild(words, grouped, classes, table, count, out, word=_WORD, shift=0, row=_ROW)

    add()
    assert out.dtype == WORDS[16]
    assert np.array_equal(out.cpu().numpy().view(np.uint16), target)
    times = 50 if device.type == "cuda" else 3
    return "adding alone, chunks of 2 MiB", rate(
        repeated(add, times), times * base.nbytes, device, runs
    )


def whole(
    base: Path, delta: Path, device: torch.device, threads: int, runs: int
) -> tuple[str, float]:
    """A rebuild into the device's memory, every digest checked."""
    with open_delta(delta, base, threads=threads) as opened:
        nbytes = sum(spec.nbytes for spec in opened.manifest.target.values())

        def run() -> None:
            for _, tensor in opened.tensors(device=device):
                del tensor

        return f"whole rebuild, {threads} threads", rate(run, nbytes, device, runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("delta", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    device = usable(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}\n")
    print("| | GB/s |\n|---|---|")
    rows = [*copies(device, arguments.runs), adding(device, arguments.runs)]
    for label, found in rows:
        print(f"| {label} | {found:.2f} |")
    for threads in arguments.threads:
        label, found = whole(
            arguments.base, arguments.delta, device, threads, arguments.runs
        )
        print(f"| {label} | {found:.2f} |", flush=True)


if __name__ == "__main__":
    main()
