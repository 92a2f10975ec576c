"""Measure a release swapped into a model in memory and out, against copying the model.

    python scripts/benchmark/swap.py WORK [--size 1.0] [--runs 5]

Makes a LLaMA-shaped bf16 pair and a release in WORK, which stay there. All is done in one
process, in turn, on a model that holds the base; each is done once before the clock runs.
Prints a table of medians, and leaves it in WORK/swap.md. After each way the model is
compared with base or fine-tune; the exit code is 1 if anything differs.

- copy: `copy_` of every tensor, from a fine-tune that is in memory as well, which takes
  as much memory again. Nothing is checked.
- load: the fine-tune's files, in memory, through `safetensors.torch.load_file`, and copied.
  Nothing is checked, and the base is gone until its files are loaded.
- load_into: the release, on the base that the model holds, which is gone then.
- swap in, swap out: the release, and the base again; every digest checked, both ways.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from releasekit import Swapped, load_into, swap_in
from scripts import bench

State = dict[str, torch.Tensor]


def prepare(at: Path, size: str) -> None:
    """Make base, fine-tune and release, unless an earlier run has."""
    if (at / "delta").exists():
        return
    bench.ask("make_pair.py", at, "BF16", size)
    command = [sys.executable, "-m", "releasekit", "make-delta", "-q"]
    options = bench.line(base=at / "base", target=at / "target", out=at / "delta")
    subprocess.run([*command, *options], check=True)


def load(folder: Path) -> State:
    """All tensors of a model's files."""
    state: State = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
    return state


def put(source: Mapping[str, torch.Tensor], model: State) -> None:
    """Copy every tensor."""
    for name, tensor in model.items():
        tensor.copy_(source[name])


class Bench:
    """A model in memory, and how long each way into it took."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self._base, self._target = load(at / "base"), load(at / "target")
        self.model = {name: tensor.clone() for name, tensor in self._base.items()}
        self.nbytes = sum(tensor.nbytes for tensor in self.model.values())
        self.kept_nbytes = 0
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self.right = True

    def turn(self) -> None:
        """Go each way once."""
        target, delta = self._at / "target", self._at / "delta"
        swapped: list[Swapped] = []
        self._time("copy", lambda: put(self._target, self.model), self._target)
        put(self._base, self.model)
        self._time("load", lambda: put(load(target), self.model), self._target)
        put(self._base, self.model)
        into = self._time
        into("load_into", lambda: load_into(self.model, None, delta), self._target)
        put(self._base, self.model)
        into("swap in", lambda: swapped.append(swap_in(self.model, delta)), self._target)
        self.kept_nbytes = swapped[0].undo_nbytes
        into("swap out", lambda: swapped[0].undo(), self._base)

    def _time(self, name: str, work: Callable[[], object], wanted: State) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        sample = time.perf_counter() - start, time.process_time() - cpu
        self.samples.setdefault(name, []).append(sample)
        for key, tensor in self.model.items():
            bits = tensor.view(torch.int16), wanted[key].view(torch.int16)
            self.right &= torch.equal(*bits)


def table(found: Bench) -> str:
    """The medians of all turns but the first, as Markdown."""
    taken = {
        name: [median(one[of] for one in samples[1:]) for of in (0, 1)]
        for name, samples in found.samples.items()
    }
    lines = [
        f"{found.nbytes / 1e9:.3g} GB, BF16, {torch.get_num_threads()} threads; kept to go "
        f"back: {found.kept_nbytes:,} bytes, {found.kept_nbytes / found.nbytes:.2%} of the "
        "model.",
        "",
        "| | seconds | ÷ copy | GB/s | CPU seconds |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, (seconds, cpu) in taken.items():
        ratio, rate = seconds / taken["copy"][0], found.nbytes / seconds / 1e9
        lines.append(f"| {name} | {seconds:.2f} | {ratio:.1f} | {rate:.2f} | {cpu:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="1.0", help="GB of each model")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    prepare(work, arguments.size)
    found = Bench(work)
    for _ in range(arguments.runs + 1):
        found.turn()
    text = table(found)
    (work / "swap.md").write_text(text)
    print(text)
    return 0 if found.right else 1


if __name__ == "__main__":
    sys.exit(main())
