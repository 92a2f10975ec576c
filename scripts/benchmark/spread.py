"""Measure a rebuild by a Ray cluster of this machine against one in this process.

    python scripts/benchmark/spread.py WORK [--size 1.0] [--parts 8] [--runs 3]

Makes a LLaMA-shaped bf16 pair and a release in WORK, which stay there; the fine-tune has
as many weight files as there are to be parts. All ways run in turn, in one process, after
each was done once; the cluster is there before the clock runs, and its start is told apart.
Prints a table of medians, and leaves it in WORK/spread.md. What is made is compared with
the fine-tune by its digests, as every rebuild is.

- local: `apply_delta` with two threads, with four, which is its default on two processors,
  and with one.
- ray: `apply_spread` with parts of two threads, its default, which share a processor since
  they wait for the disk; then with parts of one thread, two at once, and one by one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from releasekit import Policy, apply_delta, apply_spread
from releasekit.parts.cluster import Cluster
from releasekit.parts.records import Done
from releasekit.parts.tasks import PART_THREADS, Advance, Batch
from scripts import bench

QUIET = Policy(warn=lambda warning: None)


class OneAtATime:
    """A cluster whose parts each ask for all of its processors, and so go one by one."""

    def __init__(self, cluster: Cluster, processors: int) -> None:
        self._cluster = cluster
        self._processors = processors
        self.threads: int | None = PART_THREADS

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        """See `Pool.run`."""
        needs = replace(batch.needs, threads=self._processors, waits=False)
        return self._cluster.run(replace(batch, needs=needs), advance)


def prepare(at: Path, size: str, parts: int) -> None:
    """Make base, fine-tune and release, unless an earlier run has."""
    if (at / "delta").exists():
        return
    bench.ask("make_pair.py", at, "BF16", size)
    command = [sys.executable, "-m", "releasekit"]
    each = str(int(float(size) * 1e9 / parts))
    cut: list[str | Path] = [at / "target", at / "cut", "--shard-size", f"{each}B", "-q"]
    subprocess.run([*command, "convert", *cut], check=True)
    options = bench.line(base=at / "base", target=at / "cut", out=at / "delta")
    subprocess.run([*command, "make-delta", "-q", *options], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="1.0", help="in GB")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    at = options.work / f"spread-{options.size}-{options.parts}"
    at.mkdir(parents=True, exist_ok=True)
    prepare(at, options.size, options.parts)
    out = at / "out"
    base, delta = at / "base", at / "delta"
    nbytes = sum(path.stat().st_size for path in (at / "cut").glob("*.safetensors"))
    started = time.perf_counter()
    with Cluster() as cluster:
        start = time.perf_counter() - started
        single = OneAtATime(cluster, 2)
        ways: dict[str, Callable[[], object]] = {
            "local, 2 threads": lambda: apply_delta(
                base, delta, out, threads=2, policy=QUIET
            ),
            "local, 4 threads": lambda: apply_delta(
                base, delta, out, threads=4, policy=QUIET
            ),
            "ray, 2 workers": lambda: apply_spread(
                base, delta, out, pool=cluster, policy=QUIET
            ),
            "local, 1 thread": lambda: apply_delta(
                base, delta, out, threads=1, policy=QUIET
            ),
            "ray, 2 workers of 1 thread": lambda: apply_spread(
                base, delta, out, pool=cluster, threads=1, policy=QUIET
            ),
            "ray, 1 worker of 1 thread": lambda: apply_spread(
                base, delta, out, pool=single, threads=1, policy=QUIET
            ),
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.runs + 1):
            for name, way in ways.items():
                shutil.rmtree(out, ignore_errors=True)
                subprocess.run(["sync"], check=True)
                began = time.perf_counter()
                way()
                if turn:  # the first is not counted
                    samples[name].append(time.perf_counter() - began)
    shutil.rmtree(out, ignore_errors=True)
    found = {name: median(times) for name, times in samples.items()}
    local, ray = found["local, 2 threads"], found["ray, 2 workers"]
    one, two = found["ray, 1 worker of 1 thread"], found["ray, 2 workers of 1 thread"]
    lines = [
        f"{nbytes / 1e9:.2f} GB in {options.parts} weight files, medians of "
        f"{options.runs}; the cluster began in {start:.1f} s.",
        "",
        "| way | seconds | GB/s |",
        "| --- | ---: | ---: |",
        *(
            f"| {name} | {seconds:.2f} | {nbytes / 1e9 / seconds:.2f} |"
            for name, seconds in found.items()
        ),
        "",
        f"- ray ÷ local, on two: {ray / local:.2f} "
        f"({(ray - local) / (nbytes / 1e9):+.2f} s a GB)",
        f"- ray, from one worker of a thread to two: {one / two:.2f} times as fast",
        f"- local, from one thread to two: {found['local, 1 thread'] / local:.2f}",
    ]
    text = "\n".join(lines) + "\n"
    (at / "spread.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
