"""A Ray cluster of several nodes that loses workers, nodes, disks and its driver.

Each case is a process of its own, since Ray leaves threads behind in one that had a
cluster. The nodes are processes of this machine, on an address that nobody else reaches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.builders import model_folder
from tests.integration.faulty_parts import VARIABLE
from tests.integration.test_lineage import Line, make_line
from tests.integration.tools import digests, small_pair

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, os, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster as Nodes
from releasekit.delta import spread
from releasekit.parts.cluster import Cluster
from tests.integration import faulty_parts

folder, base, out, *releases = map(Path, sys.argv[1:])
here = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "memory": 4 << 30}
nodes = Nodes(initialize_head=True, head_node_args=here | {"include_dashboard": False})
others = [nodes.add_node(**here) for _ in range(2)]
nodes.wait_for_nodes()
faults = json.loads((folder / "faults.json").read_text())
ids = [node.node_id for node in others]
for fault in ("full", "other_base"):
    faults[fault] = ids[: faults.get(fault, 0)]
if faults.pop("everywhere", False):
    faults["full"] = [nodes.head_node.node_id, *ids]
(folder / "faults.json").write_text(json.dumps(faults))
spread.rebuild_part = faulty_parts.rebuild_part

def remove() -> None:
    while not list(folder.glob("begun *")):
        time.sleep(0.05)
    while True:  # a node that has a part
        busy = {path.read_text() for path in folder.glob("begun *")}
        found = [node for node in others if node.node_id in busy]
        if found:
            nodes.remove_node(found[0], allow_graceful=False)
            return
        time.sleep(0.05)

if faults.get("remove"):
    threading.Thread(target=remove, daemon=True).start()
try:
    with Cluster(nodes.address) as pool:
        made = spread.apply_spread(
            base, releases, out, pool=pool, threads=1, piece_nbytes=4000
        )
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps({"kept": made.kept, "parts": sum(w.parts for w in made.workers)}))
sys.stdout.flush()
os._exit(0)  # the nodes are let go by the test
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), *[1 << 12] * 3)


class Case:
    """A rebuild by a cluster to which something happens."""

    def __init__(self, line: Line, folder: Path, **faults: object) -> None:
        self.line = line
        self.folder = folder / "faults"
        self.out = folder / "out"
        self.folder.mkdir()
        self.set(**faults)

    def set(self, **faults: object) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", DRIVER, self.folder, self.line.base, self.out),
                *self.line.releases,
            ],
            cwd=ROOT,
            env=os.environ
            | {VARIABLE: str(self.folder), "PYTHONPATH": str(ROOT)}
            | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
            | {"RAY_AUTH_TOKEN": "0123456789abcdef" * 4},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> Any:
        """What became of it."""
        process = self.start()
        try:
            out, err = process.communicate(timeout=240)
        finally:
            self.end(process)
        assert out, err
        return json.loads(out.splitlines()[-1])

    def end(self, process: subprocess.Popen[str]) -> None:
        """Let the driver and its nodes go."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def begun(self) -> int:
        return len(list(self.folder.glob("begun *")))

    def is_right(self) -> bool:
        return digests(self.out) == digests(self.line.models[2])


def test_every_worker_is_killed_once(line: Line, tmp_path: Path) -> None:
    case = Case(line, tmp_path, kill=True)
    made = case.run()
    assert case.is_right(), made
    assert case.begun == 8  # each of the four pieces twice
    assert not (tmp_path / "out.partial").exists()


def test_a_node_goes_in_the_middle(line: Line, tmp_path: Path) -> None:
    case = Case(line, tmp_path, remove=True, seconds=3)
    made = case.run()
    assert case.is_right(), made
    assert 4 < case.begun <= 6  # what was in flight there, and nothing else, is redone


def test_a_node_with_a_full_disk_is_left_out(line: Line, tmp_path: Path) -> None:
    case = Case(line, tmp_path, full=2)
    made = case.run()
    assert case.is_right(), made


def test_where_all_disks_are_full_it_ends(line: Line, tmp_path: Path) -> None:
    case = Case(line, tmp_path, everywhere=True)
    made = case.run()
    assert made["error"] == "ReleaseKitError"
    assert "No space left on device" in made["message"]
    assert made["message"].startswith("on ")
    assert not case.out.exists()


def test_a_node_that_sees_another_base_ends_it(line: Line, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", small_pair(seed=5)[0])
    case = Case(line, tmp_path, other_base=2, base=str(other))
    made = case.run()
    assert made["error"] == "BaseMismatchError"
    assert str(other) in made["message"]
    assert not case.out.exists()
    case.set()
    assert "error" not in case.run()
    assert case.is_right()


def test_the_driver_is_killed_and_begins_again(line: Line, tmp_path: Path) -> None:
    case = Case(line, tmp_path, seconds=4)
    process = case.start()
    records = tmp_path / "out.partial" / "parts"
    try:
        for _ in range(1200):
            if list(records.glob("*.json")):
                break
            time.sleep(0.1)
    finally:
        case.end(process)
    assert not case.out.exists()
    there = len(list(records.glob("*.json")))
    assert there
    begun = case.begun
    case.set()
    made = case.run()
    assert case.is_right(), made
    # What was done is not done again; nor is what workers that lived a little longer did.
    assert 0 < case.begun - begun <= 4 - there
