"""Hold what `releasekit plan` says of this machine against what then happens.

    python -m scripts.planning.against_a_run WORK [--size 0.4]

Measures the machine, makes a LLaMA-shaped bf16 pair of so many GB in WORK, plans to make a
release of it and to rebuild that, does both, each as a process of its own, and prints what
was planned and what it took. The pair stays in WORK, and is used again. On a machine that
has other work to do only processor time can be compared.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from releasekit import Policy, Rates, measure, plan
from releasekit.pipeline import default_threads
from releasekit.planning.planner import Plan
from releasekit.planning.telling import rates_told

_PAIR = Path(__file__).parents[1] / "benchmark" / "make_pair.py"
_QUIET = Policy(warn=lambda warning: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A plan and a run of the same work, in seconds: of the clock, and of processors."""

    name: str
    planned: float
    took: float
    core_planned: float
    core_took: float

    @property
    def ratio(self) -> float:
        """What it took by what was planned."""
        return self.took / self.planned

    @property
    def core_ratio(self) -> float:
        """The same of processor time."""
        return self.core_took / self.core_planned


def hold(work: Path, size: str) -> tuple[Rates, list[Held]]:
    """Measure, plan and run.

    Args:
        work: folder for all that is made.
        size: of the pair's models, in GB.
    """
    pair = work / f"pair-{size}"
    if not pair.exists():
        subprocess.run([sys.executable, _PAIR, pair, "BF16", size], check=True)
    base, target = pair / "base", pair / "target"
    delta, out = work / "delta", work / "out"
    rates = measure(work)
    # One process codes file after file with all processors.
    made = plan(base, target=target, rates=rates, threads=default_threads())
    run: list[str | Path] = [
        "make-delta",
        "--base",
        base,
        "--target",
        target,
        "--out",
        delta,
    ]
    held = [_held(made, run)]
    rebuilt = plan(base, delta=delta, rates=rates, policy=_QUIET)
    run = ["apply-delta", "--base", base, "--delta", delta, "--out", out]
    held.append(_held(rebuilt, run))
    for folder in (delta, out):
        shutil.rmtree(folder)
    return rates, held


def _held(planned: Plan, run: Sequence[str | Path]) -> Held:
    """Run what was planned."""
    (estimate,) = planned.estimates
    parts = [part for time in estimate.phases for part in time.phase.parts]
    command = [sys.executable, "-m", "releasekit", *map(str, run), "--force", "-q"]
    began, used = time.perf_counter(), _used()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return Held(
        name=str(run[0]),
        planned=estimate.seconds,
        took=time.perf_counter() - began,
        core_planned=estimate.start + sum(part.core_seconds for part in parts),
        core_took=_used() - used,
    )


def _used() -> float:
    """Processor time of all processes that this one had run."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Parse the arguments, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="0.4", help="in GB")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    rates, held = hold(given.work, given.size)
    for name, text in rates_told(rates):
        print(f"{name}: {text}")
    for one in held:
        print(
            f"{one.name}: planned {one.planned:.2f} s, took {one.took:.2f} s: "
            f"× {one.ratio:.2f}; planned {one.core_planned:.2f} core-s, took "
            f"{one.core_took:.2f}: × {one.core_ratio:.2f}"
        )


if __name__ == "__main__":
    main()
