"""Measure size, speed and memory against plain copying and the usual way to make deltas.

Makes LLaMA-shaped pairs of random weights, then runs each contender as a process of its
own, in turn, several times, and prints medians and ratios. Times are whole processes, with
their start; inputs are warm. Peers: copying the output and hashing it, and the byte planes
of the XOR through zstd level 3, in one thread.

    python scripts/bench.py WORK_FOLDER [--gb 0.25 1] [--dtype BF16 F16] [--runs 3]
    python scripts/bench.py WORK_FOLDER --pair BASE TARGET
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from releasekit import inspect, layout
from releasekit.checkpoint import open_checkpoint
from releasekit.digest import hash_file
from releasekit.tensors import DTYPES, TensorSpec

_HIDDEN, _FFN, _VOCABULARY = 4096, 11008, 32000  # LLaMA-7B's
_POOL = 1 << 24
_PIECE = 1 << 22


def llama_specs(dtype: str, nbytes: float) -> list[TensorSpec]:
    """Tensors of as many LLaMA-7B layers as make up `nbytes`."""
    shapes: dict[str, tuple[int, ...]] = {}
    if nbytes > 6e8:
        shapes["model.embed_tokens.weight"] = (_VOCABULARY, _HIDDEN)
    size = DTYPES[dtype].bits // 8
    for layer in range(1000):
        if sum(size * int(np.prod(shape)) for shape in shapes.values()) >= nbytes:
            break
        at = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{at}.self_attn.{name}_proj.weight"] = (_HIDDEN, _HIDDEN)
        shapes[f"{at}.mlp.gate_proj.weight"] = (_FFN, _HIDDEN)
        shapes[f"{at}.mlp.down_proj.weight"] = (_HIDDEN, _FFN)
        shapes[f"{at}.input_layernorm.weight"] = (_HIDDEN,)
    return [
        TensorSpec(name=name, dtype=DTYPES[dtype], shape=shape)
        for name, shape in shapes.items()
    ]


def make_pair(folder: Path, dtype: str, nbytes: float) -> None:
    """Write `folder/base` and `folder/target`, whose scales vary by row.

    Draws come from a pool of normal numbers, since drawing gigabytes would take longer than
    all else; repeats are too far apart for any contender to see.
    """
    rng = np.random.default_rng(0)
    pools = [rng.standard_normal(_POOL, np.float32) for _ in range(2)]
    header = layout.build(llama_specs(dtype, nbytes), {"format": "pt"})
    for side in ("base", "target"):
        (folder / side).mkdir(parents=True)
    with (
        (folder / "base" / "model.safetensors").open("wb") as base,
        (folder / "target" / "model.safetensors").open("wb") as target,
    ):
        for file in (base, target):
            file.write(header.prefix)
        for placed in header.tensors:
            columns = placed.spec.shape[-1]
            for start in range(0, placed.spec.numel, _PIECE // columns * columns):
                count = min(_PIECE // columns * columns, placed.spec.numel - start)
                weights, update = (
                    (
                        pool[(at := rng.integers(_POOL - count)) : at + count].reshape(
                            -1, columns
                        )
                        * scale
                        * np.exp(
                            spread * rng.standard_normal((count // columns, 1), np.float32)
                        )
                    ).ravel()
                    for pool, scale, spread in zip(
                        pools, (np.float32(0.02), np.float32(6e-5)), (0.3, 0.5), strict=True
                    )
                )
                words = _to_words(weights, dtype)
                base.write(words.tobytes())
                target.write(_to_words(_from_words(words, dtype) + update, dtype).tobytes())


def _to_words(values: NDArray[np.float32], dtype: str) -> NDArray[np.uint16]:
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _from_words(words: NDArray[np.uint16], dtype: str) -> NDArray[np.float32]:
    if dtype == "F16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


# The contenders. Each runs in a process of its own, named on the command line.


def copy_and_hash(folder: Path) -> dict[str, Any]:
    """Copy the target's files, then hash the copy: the least that a check takes."""
    shutil.copytree(folder / "target", folder / "copy")
    for path in sorted((folder / "copy").rglob("*")):
        if path.is_file():
            hash_file(path)
    return {}


def xor_zstd(folder: Path) -> dict[str, Any]:
    """XOR base and target, split into byte planes, zstd level 3; one thread."""
    compressor = zstandard.ZstdCompressor(level=3)
    total = 0
    with (
        open_checkpoint(folder / "base") as base,
        open_checkpoint(folder / "target") as target,
    ):
        for name, spec in target.specs.items():
            width = spec.dtype.word.bits // 8
            same_type = base.specs.get(name) == spec
            for start in range(0, spec.nbytes, 1 << 23):
                ours = np.empty(min(1 << 23, spec.nbytes - start), np.uint8)
                target.read(name, start, ours)
                if same_type:
                    theirs = np.empty_like(ours)
                    base.read(name, start, theirs)
                    ours ^= theirs
                for plane in ours.reshape(-1, width).T:
                    total += len(compressor.compress(np.ascontiguousarray(plane).data))
    return {"published_nbytes": total}


def _releasekit(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "releasekit", *arguments, "--json"],
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def make(folder: Path) -> dict[str, Any]:
    """releasekit make-delta, proof included."""
    base, target, delta = (str(folder / name) for name in ("base", "target", "delta"))
    return _releasekit(
        "make-delta", "--base", base, "--target", target, "--out", delta, "--force"
    )


def apply(folder: Path) -> dict[str, Any]:
    """releasekit apply-delta, every digest checked, synced to disk."""
    base, delta, out = (str(folder / name) for name in ("base", "delta", "copy"))
    return _releasekit("apply-delta", "--base", base, "--delta", delta, "--out", out)


CONTENDERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "copy + sha256": copy_and_hash,
    "XOR + zstd-3": xor_zstd,
    "make-delta": make,
    "apply-delta": apply,
}


def measure(folder: Path, runs: int) -> dict[str, dict[str, Any]]:
    """Run each contender in turn, `runs` times after a warm-up; medians of each figure."""
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for turn in range(runs + 1):
        for name in CONTENDERS:
            shutil.rmtree(folder / "copy", ignore_errors=True)
            done = subprocess.run(
                [sys.executable, __file__, str(folder), "--contender", name],
                stdout=subprocess.PIPE,
                check=True,
            )
            if turn:
                records[name].append(json.loads(done.stdout))
    shutil.rmtree(folder / "copy", ignore_errors=True)
    return {
        name: record[0]
        | {key: statistics.median(one[key] for one in record) for key in ("seconds", "rss")}
        for name, record in records.items()
    }


def run_contender(folder: Path, name: str) -> None:
    """Run one contender here, and print its result, wall time and peak memory."""
    start = time.perf_counter()
    result = CONTENDERS[name](folder)
    seconds = time.perf_counter() - start
    rss = max(
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps(result | {"seconds": seconds, "rss": rss}))


def report(title: str, folder: Path, runs: int) -> Iterator[str]:
    """Lines of Markdown for one pair."""
    measured = measure(folder, runs)
    size = sum(inspect(folder / "target").files.values())
    weights = sum(info.spec.numel for info in inspect(folder / "target").tensors)
    yield f"### {title}: {size / 1e9:.2f} GB, {weights / 1e6:.0f} M weights"
    yield ""
    yield "| | seconds | GB/s | peak MiB | published bits a weight |"
    yield "|---|---|---|---|---|"
    for name, one in measured.items():
        published = one.get("published_nbytes")
        bits = "" if published is None else f"{8 * published / weights:.3f}"
        yield (
            f"| {name} | {one['seconds']:.2f} | {size / one['seconds'] / 1e9:.2f} | "
            f"{one['rss'] / 2**20:.0f} | {bits} |"
        )
    yield ""
    for top, bottom, key in (
        ("apply-delta", "copy + sha256", "seconds"),
        ("make-delta", "XOR + zstd-3", "seconds"),
        ("make-delta", "XOR + zstd-3", "published_nbytes"),
    ):
        ratio = measured[top][key] / measured[bottom][key]
        yield f"- {top} ÷ {bottom}, {key.replace('_nbytes', ' bytes')}: **{ratio:.2f}**"
    yield ""


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--gb", type=float, nargs="*", default=[0.25, 1.0])
    parser.add_argument("--dtype", nargs="*", default=["BF16", "F16"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--pair", type=Path, nargs=2, metavar=("BASE", "TARGET"))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run_contender(arguments.work, arguments.contender)
        return
    if arguments.pair:
        folder = arguments.work / "pair"
        folder.mkdir(parents=True)
        for name, path in zip(("base", "target"), arguments.pair, strict=True):
            (folder / name).symlink_to(path.resolve())
        print("\n".join(report("given pair", folder, arguments.runs)))
        return
    for dtype in arguments.dtype:
        for gb in arguments.gb:
            folder = arguments.work / f"{dtype}-{gb}"
            # In a child: a process' peak memory is handed down to those that it starts.
            maker = multiprocessing.Process(
                target=make_pair, args=(folder, dtype, gb * 1e9)
            )
            maker.start()
            maker.join()
            print("\n".join(report(f"LLaMA-shaped {dtype}", folder, arguments.runs)))
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
