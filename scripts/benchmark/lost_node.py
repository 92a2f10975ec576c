"""Measure how a rebuild by a Ray cluster ends that loses a node half-way.

    python scripts/benchmark/lost_node.py WORK [--size 1.0] [--parts 8] [--runs 3]

Two nodes of one processor each on this machine, besides the driver's, which has none. The
rebuild runs with both to its end; then again, and one node is removed, without a warning,
once half of the parts are done: its part is lost, and the other node does the rest alone.
Prints medians, how many parts were begun more often than once, and how much of the time
the lost node would account for; leaves them in WORK/…/lost_node.md. The exit code is 1 if
more was done again than the node had in hand.

The pair is that of spread.py. Ray is in a process of its own for each run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from releasekit import Policy, apply_spread
from releasekit.parts.cluster import Cluster
from releasekit.parts.records import Done
from releasekit.parts.tasks import Advance, Batch, Task
from scripts.benchmark.spread import prepare

#: An address that only this machine reaches, and that Ray takes as it is.
HERE = "127.0.0.2"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
}


class Counting:
    """A pool whose parts leave a file each time that they are begun."""

    def __init__(self, pool: Cluster, begun: Path) -> None:
        self.pool = pool
        self.begun = begun
        self.threads: int | None = 1
        self.done = 0

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        """See `Pool.run`."""
        work, begun = batch.work, self.begun

        def counted(spec: Any, task: Task, tell: Advance) -> Any:
            name = task.name.replace("/", "_")
            (begun / f"{name} {os.getpid()} {time.monotonic_ns()}").touch()
            return work(spec, task, tell)

        for done in self.pool.run(replace(batch, work=counted), advance):
            self.done += 1
            yield done


def rebuild(at: Path, parts: int, lose: bool) -> dict[str, float]:
    """Rebuild once; returns seconds, and how often parts were begun."""
    from ray.cluster_utils import Cluster as Nodes

    node = {"node_ip_address": HERE, "memory": 4 << 30}
    head = {**node, "num_cpus": 0, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=head)
    others = [nodes.add_node(**node, num_cpus=1) for _ in range(2)]
    nodes.wait_for_nodes()
    begun, out = at / "begun", at / "out"
    for folder in (begun, out, at / "out.partial"):
        shutil.rmtree(folder, ignore_errors=True)
    begun.mkdir()
    quiet = Policy(warn=lambda warning: None)
    base, delta = at / "base", at / "delta"
    with Cluster(nodes.address) as cluster:
        warm = at / "warm"  # so that both nodes have their workers
        shutil.rmtree(warm, ignore_errors=True)
        apply_spread(base, delta, warm, pool=cluster, threads=1, policy=quiet)
        shutil.rmtree(warm)
        pool = Counting(cluster, begun)

        def remove() -> None:
            while pool.done < parts // 2:
                time.sleep(0.01)
            nodes.remove_node(others[0], allow_graceful=False)

        if lose:
            threading.Thread(target=remove, daemon=True).start()
        started = time.perf_counter()
        apply_spread(base, delta, out, pool=pool, threads=1, policy=quiet)
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "begun": len(list(begun.iterdir())),
        "parts": len(list((at / "cut").glob("*.safetensors"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="1.0", help="in GB")
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--once", choices=["keep", "lose"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    at = options.work / f"spread-{options.size}-{options.parts}"
    if options.once:
        print(json.dumps(rebuild(at, options.parts, options.once == "lose")), flush=True)
        os._exit(0)  # whoever began this lets the nodes go
    at.mkdir(parents=True, exist_ok=True)
    prepare(at, options.size, options.parts)
    found: dict[str, list[dict[str, float]]] = {"keep": [], "lose": []}
    own = [options.work, "--size", options.size, "--parts", str(options.parts)]
    for _ in range(options.runs):
        for way, samples in found.items():
            command = [sys.executable, __file__, *own, "--once", way]
            with subprocess.Popen(
                command,
                env=os.environ | SETTINGS,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            ) as run:
                out, _ = run.communicate()
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)  # Ray's nodes
            samples.append(json.loads(out.splitlines()[-1]))
    keep, lose = (median(s["seconds"] for s in found[way]) for way in ("keep", "lose"))
    again = [int(s["begun"] - s["parts"]) for s in found["lose"]]
    parts = int(found["lose"][0]["parts"])
    lines = [
        f"{options.size} GB in {parts} parts, medians of {options.runs}.",
        "",
        "| | seconds |",
        "| --- | ---: |",
        f"| two nodes to the end | {keep:.2f} |",
        f"| one removed when {options.parts // 2} parts were done | {lose:.2f} |",
        "",
        f"- {lose / keep:.2f} times as long; half with two nodes and half with one: 1.5",
        f"- parts done again: {', '.join(map(str, again))}; the node had 1 in hand",
    ]
    text = "\n".join(lines) + "\n"
    (at / "lost_node.md").write_text(text)
    print(text)
    if max(again) > 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
