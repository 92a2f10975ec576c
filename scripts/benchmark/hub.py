"""Measure the way to the Hub and back, on loopback, against the Hub's own client.

    python scripts/benchmark/hub.py WORK [--size 1.0] [--runs 3]

Makes a LLaMA-shaped bf16 pair, a delta, and of the target a full model that can be
published; they stay in WORK. The Hub is the test double of tests/fakehub, a process of its
own on the same processors, which it needs as much of as the client: the figures say how
contenders compare, not how fast a network is.

In each turn a new Hub, and for each contender an empty cache. Each is a process of its own,
with its start. Prints a table of medians, and leaves it in WORK/hub.md. What was published
is compared with what was fetched; the exit code is 1 if anything differs or failed.

- copy + sha256: of the full model, to another place on the same disk.
- upload_folder, snapshot_download: huggingface_hub's own, which hash nothing on the way
  down. All use plain HTTP, since the double's Xet is not the Hub's.
- apply-delta by name: base and delta come from the Hub while the model is rebuilt, and are
  compared with fetching both first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts import bench
from scripts.benchmark import measure, report
from tests.fakehub import TOKEN

ROOT = Path(__file__).resolve().parents[2]
OURS = (sys.executable, "-m", "releasekit")
COPY = "copy + sha256"
UPLOAD = """\
import sys, huggingface_hub as hub
api = hub.HfApi()
api.create_repo(sys.argv[2])
api.upload_folder(repo_id=sys.argv[2], folder_path=sys.argv[1])
"""
DOWNLOAD = """\
import sys, huggingface_hub as hub
for name in sys.argv[1:]:
    hub.snapshot_download(name)
"""


@contextmanager
def hub(root: Path) -> Iterator[str]:
    """A Hub; its address."""
    command = [sys.executable, "-m", "tests.fakehub", "--root", str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def prepare(at: Path, size: str) -> None:
    """Make what is published."""
    bench.ask("make_pair.py", at / "pair", "BF16", size)
    base, target = at / "pair" / "base", at / "pair" / "target"
    license = ["--license", "apache-2.0"]
    run = [
        ["convert", str(target), str(at / "model"), "--shard-size", "250MB"],
        ["card", str(at / "model"), *license],
        ["convert", str(base), str(at / "base"), "--shard-size", "250MB"],
        ["card", str(at / "base"), *license],
        [
            *("make-delta", "--base", str(base), "--target", str(target)),
            *("--out", str(at / "delta"), "--shard-size", "50MB", *license),
            *("--base-license", "apache-2.0"),
        ],
        ["card", str(at / "delta")],
    ]
    for words in run:
        subprocess.run([*OURS, *words, "-q"], check=True)


def contenders(at: Path) -> dict[str, list[list[str]]]:
    """Commands by name, each of one or more processes, in the order of a turn."""
    model, base, delta, out = (str(at / n) for n in ("model", "base", "delta", "out"))
    copy = str(Path(__file__).with_name("copy_and_sha256.py"))
    python, apply = sys.executable, [*OURS, "apply-delta", "-q", "--out", out]
    both = ["acme/base", "acme/delta"]
    return {
        COPY: [[python, copy, model, out]],
        "publish": [[*OURS, "publish", model, "acme/model", "-q"]],
        "upload_folder": [[python, "-c", UPLOAD, model, "acme/theirs"]],
        "fetch": [[*OURS, "fetch", "acme/model", "-q"]],
        "fetch --out": [[*OURS, "fetch", "acme/model", "--out", out, "-q"]],
        "snapshot_download": [[python, "-c", DOWNLOAD, "acme/model"]],
        "publish the base": [[*OURS, "publish", base, "acme/base", "-q"]],
        "publish the delta": [[*OURS, "publish", delta, "acme/delta", "-q"]],
        "apply-delta by name": [[*apply, "--base", both[0], "--delta", both[1]]],
        "fetch both, then apply-delta": [
            *([*OURS, "fetch", name, "-q"] for name in both),
            [*apply, "--base", both[0], "--delta", both[1]],
        ],
    }


def run(commands: list[list[str]], at: Path, address: str) -> tuple[float, float, int]:
    """Seconds, CPU seconds, and peak memory in bytes of the largest process."""
    for name in ("out", "out.partial", "home"):
        shutil.rmtree(at / name, ignore_errors=True)
    os.sync()
    environment = os.environ | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(at / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    begun, cpu, peak = time.perf_counter(), 0.0, 0
    for command in commands:
        child = os.posix_spawn(command[0], command, environment)
        _, status, usage = os.wait4(child, 0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"failed: {' '.join(command)}")
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss * measure.MAXRSS_UNIT)
    return time.perf_counter() - begun, cpu, peak


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder."""
    found = {}
    for path in measure.files_of(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def main() -> None:
    """Measure, check, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for models and results")
    parser.add_argument("--size", default="1.0", help="GB; default: 1")
    parser.add_argument("--runs", type=int, default=3, help="of each; default: 3")
    arguments = parser.parse_args()
    at = arguments.work.resolve() / f"hub-{arguments.size}"
    if not at.exists():
        at.mkdir(parents=True)
        prepare(at, arguments.size)
    samples: dict[str, list[tuple[float, float, int]]] = {}
    for turn in range(arguments.runs + 1):  # the first only warms up
        shutil.rmtree(at / "server", ignore_errors=True)
        with hub(at / "server") as address:
            for name, commands in contenders(at).items():
                print(f"turn {turn}: {name}", file=sys.stderr)
                sample = run(commands, at, address)
                if turn:
                    samples.setdefault(name, []).append(sample)
                if name == "fetch --out" and digests(at / "out") != digests(at / "model"):
                    sys.exit("what was fetched is not what was published")
                weights = digests(at / "pair" / "target")
                if "apply" in name and not weights.items() <= digests(at / "out").items():
                    sys.exit(f"{name}: rebuilt something else")
    nbytes = measure.size_of(at / "model")
    copied = median(sample[0] for sample in samples[COPY])
    lines = [
        f"### {nbytes / 1e9:.3g} GB, delta {measure.size_of(at / 'delta') / 1e9:.3g} GB",
        "",
        "| | seconds | ÷ (copy + sha256) | CPU seconds | peak MiB |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, found in samples.items():
        seconds, cpu, peak = (median(one[i] for one in found) for i in range(3))
        cells = [report.shown(v) for v in (seconds, seconds / copied, cpu)]
        lines.append(f"| {name} | {' | '.join(cells)} | {peak / 2**20:.0f} |")
    lines.append("")
    (at.parent / "hub.md").write_text("\n".join(lines))
    (at.parent / "hub.json").write_text(json.dumps(samples, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
