"""Measure the deltas of several fine-tunes of one base, made one by one and side by side.

    python scripts/benchmark/sweep.py WORK [--size 0.5] [--count 3] [--runs 3] [--cold]

Makes a LLaMA-shaped bf16 base in WORK and as many fine-tunes of it, which stay there. Then
`releasekit release --until make` makes all deltas: one run for each, one after the other,
and one run for all. Both ways take turns, after each was done once; every run is a process
of its own, with its start. Prints a table of medians, and leaves it in WORK/sweep.md. The
exit code is 1 unless both ways made the same bytes.

What is read is in memory before a run begins; with --cold the base is not, as if it were
larger than the memory. Bytes that are read of the base's files, and hashed with SHA-256,
are counted in the run. CPU seconds and peak memory are those of `wait4`; one by one, the
sum of the runs, and the largest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts import bench
from scripts.benchmark import measure

WAYS = ("one by one", "side by side")
_FILE = """[release]
name = "tune-{n}"
version = "1.0"
kind = "delta"
target = "target{n}"
base = "base"
out = "out/{n}"
[licenses]
license = "apache-2.0"
bases = ["apache-2.0"]
files = ["apache-2.0=LICENSE"]
"""


def prepare(at: Path, size: str, count: int) -> None:
    """Make the models, unless an earlier run has."""
    if not (at / f"target{count - 1}").exists():
        bench.ask("make_pair.py", at, "BF16", size)
        (at / "target").rename(at / "target0")
        subprocess.run([sys.executable, __file__, "--tune", str(count), at], check=True)
    (at / "LICENSE").write_text("A licence.\n")
    for number in range(count):
        (at / f"{number}.toml").write_text(_FILE.format(n=number))


def tune(at: Path, count: int) -> None:
    """Make the other fine-tunes: the first one's updates, moved on by some rows."""
    import numpy as np

    from scripts.benchmark.make_pair import from_words, to_words

    for source in sorted((at / "base").glob("*.safetensors")):
        base, first = (
            (at / side / source.name).read_bytes() for side in ("base", "target0")
        )
        start = 8 + int.from_bytes(base[:8], "little")
        values = from_words(np.frombuffer(base, np.uint16, offset=start), "BF16")
        update = from_words(np.frombuffer(first, np.uint16, offset=start), "BF16") - values
        for number in range(1, count):
            folder = at / f"target{number}"
            folder.mkdir(exist_ok=True)
            moved = to_words(values + np.roll(update, 4096 * 97 * number), "BF16")
            (folder / source.name).write_bytes(base[:start] + moved.tobytes())


def counted(at: Path, arguments: list[str]) -> None:
    """Run the command line here; print what it has read of the base, and hashed."""
    from releasekit import hashing
    from releasekit.cli import cli
    from releasekit.cli.shell import run
    from releasekit.delta.making import once

    counts, lock = {"read": 0, "hashed": 0}, threading.Lock()
    ours = {path.stat().st_ino for path in (at / "base").glob("*.safetensors")}
    preadv, hash_one = os.preadv, hashing.hash_one

    def read(fd: int, buffers: Any, offset: int) -> int:
        found = preadv(fd, buffers, offset)
        with lock:
            counts["read"] += found * (os.fstat(fd).st_ino in ours)
        return found

    def hashed(path: Path, *others: Any) -> str:
        status = path.stat()
        with lock:
            counts["hashed"] += status.st_size * (status.st_ino in ours)
        return hash_one(path, *others)

    with ExitStack() as stack:
        stack.enter_context(patch.object(os, "preadv", read))
        for module in (hashing, once):
            stack.enter_context(patch.object(module, "hash_one", hashed))
        code = run(cli, ["release", *arguments, "--until", "make", "-q"])
    print(json.dumps(counts))
    sys.exit(code)


def make(at: Path, numbers: list[int], out: Path, *, cold: bool) -> dict[str, Any]:
    """One run, measured."""
    base = at / "base"
    if cold:
        for path in base.glob("*.safetensors"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    files = [str(at / f"{number}.toml") for number in numbers]
    reads = [str(at / f"target{number}") for number in numbers]
    found = measure.run(
        {
            "command": [sys.executable, __file__, "--counted", str(at), *files],
            "out": str(out),
            "reads": reads if cold else [*reads, str(base)],
            "published": "",
            "answers": True,
        },
        at,
    )
    if "failure" in found:
        sys.exit(found["failure"])
    return found


def turn(at: Path, way: str, count: int, *, cold: bool) -> tuple[dict[str, float], str]:
    """All deltas, made one way: what that took, and a digest of them."""
    out, numbers = at / "out", list(range(count))
    if way == WAYS[1]:
        runs = [make(at, numbers, out, cold=cold)]
    else:
        runs = [make(at, [n], out if n == 0 else out / str(n), cold=cold) for n in numbers]
    sample = {
        "seconds": sum(run["seconds"] for run in runs),
        "cpu": sum(run["cpu_seconds"] for run in runs),
        "peak": max(run["peak_nbytes"] for run in runs),
        "read": sum(run["answer"]["read"] for run in runs),
        "hashed": sum(run["answer"]["hashed"] for run in runs),
    }
    digest = hashlib.sha256()
    for path in sorted(out.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(out)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return sample, digest.hexdigest()


def table(samples: dict[str, list[dict[str, float]]], nbytes: int) -> str:
    """The medians, as Markdown."""
    found = {
        way: {key: median(one[key] for one in some) for key in some[0]}
        for way, some in samples.items()
    }
    lines = [
        "| | seconds | CPU seconds | peak MiB | base read ÷ base | base hashed ÷ base |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for way, one in found.items():
        lines.append(
            f"| {way} | {one['seconds']:.2f} | {one['cpu']:.2f} | "
            f"{one['peak'] / 2**20:.0f} | {one['read'] / nbytes:.2f} | "
            f"{one['hashed'] / nbytes:.2f} |"
        )
    both = [found[way] for way in WAYS]
    seconds, cpu = (both[1][key] / both[0][key] for key in ("seconds", "cpu"))
    lines.append(f"| ratio | {seconds:.2f} | {cpu:.2f} | | | |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--size", default="0.5", help="GB of each model")
    parser.add_argument("--count", type=int, default=3, help="how many fine-tunes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="read the base from the disk")
    parser.add_argument("--tune", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--counted", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    at, count = arguments.work.resolve(), arguments.count
    if arguments.tune is not None:
        tune(at, arguments.tune)
        return 0
    if arguments.counted:
        counted(at, arguments.files)
    at.mkdir(parents=True, exist_ok=True)
    prepare(at, arguments.size, count)
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    made = set()
    for number in range(arguments.runs + 1):
        for way in WAYS:
            sample, digest = turn(at, way, count, cold=arguments.cold)
            made.add(digest)
            if number:
                samples[way].append(sample)
    base = sum(path.stat().st_size for path in (at / "base").glob("*.safetensors"))
    text = table(samples, base)
    (at / "sweep.md").write_text(text)
    print(text)
    return 0 if len(made) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
