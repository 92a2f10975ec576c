"""Run contenders on one pair, in turn, and measure each as a whole process.

    python scripts/benchmark/measure.py < PLAN > RECORDS

PLAN is JSON, from scripts/bench.py: `at`, the pair's folder; `target`; `warm_ups`, which
are not recorded; `runs`; and `contenders`, each as that script's class of the name says.
One may have `answers`, too: then it prints JSON, which is kept, also that of warm-ups.

CPU time and peak memory come from wait4, so they hold for the contender and all processes
that it waited for: the sum of their CPU time, and the peak of the largest one. Linux hands
the peak of a process down to those that it starts, so this one must stay small: it imports
nothing beyond the standard library, and holds no weights.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

Record = dict[str, Any]


def files_of(path: Path) -> list[Path]:
    """A file, or all files below a folder."""
    return (
        [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    )


def size_of(path: Path) -> int:
    """Bytes in all files."""
    return sum(file.stat().st_size for file in files_of(path))


def warm(paths: list[Path]) -> bool:
    """Read all files, so that the next reader finds them in memory; False if too large."""
    if sum(map(size_of, paths)) > MEMORY / 2:
        return False
    buffer = bytearray(1 << 20)
    for path in paths:
        for file_path in files_of(path):
            with file_path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
    return True


def run(contender: Record, at: Path) -> Record:
    """One run: its figures, or why it failed."""
    out = Path(contender["out"])
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what others wrote is not to be written on this one's time
    is_warm = warm([Path(path) for path in contender["reads"]])
    logs = at / "stdout", at / "stderr"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    start = time.perf_counter()
    child = os.posix_spawn(
        contender["command"][0],
        contender["command"],
        # FastChat splits files in a temporary folder: on the same disk as all else.
        os.environ | {"HF_HUB_OFFLINE": "1", "TMPDIR": str(at)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, number, str(log), flags, 0o644)
            for number, log in enumerate(logs, 1)
        ],
    )
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    stdout, stderr = (log.read_text(errors="replace") for log in logs)
    if code := os.waitstatus_to_exitcode(status):
        said = [line for line in stderr.splitlines() if line.strip()]
        reasons = [line for line in said if "rror" in line] or said or ["nothing said"]
        return {"failure": f"exit code {code}: {reasons[-1].replace(str(at), '…')}"}
    sample: Record = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_nbytes": usage.ru_maxrss * MAXRSS_UNIT,
        "warm": is_warm,
    }
    if contender["published"] == "printed":
        sample["published_nbytes"] = json.loads(stdout)["published_nbytes"]
    elif contender["published"] == "written":
        sample["published_nbytes"] = size_of(out)
    if contender.get("answers"):
        sample["answer"] = json.loads(stdout)
    return sample


def check(target: Path, out: Path) -> Record:
    """How a rebuilt model differs: a tool may fail, leave half of one, and exit with 0."""
    rebuilt, whole = size_of(out), size_of(target)
    if rebuilt < 0.9 * whole:
        return {"failure": f"rebuilt {rebuilt} bytes of {whole}"}
    if not any(out.glob("*.safetensors")):
        return {}  # PyTorch's format, which the comparison does not read
    contend = Path(__file__).with_name("contend.py")
    done = subprocess.run(
        [sys.executable, contend, "compare", target, out],
        stdout=subprocess.PIPE,
        check=True,
    )
    found: Record = json.loads(done.stdout)
    return found


def measure(plan: Record) -> dict[str, Record]:
    """Samples of all contenders by name, with the reason where one failed."""
    at, target = Path(plan["at"]), Path(plan["target"])
    turns = plan["warm_ups"] + plan["runs"]
    records: dict[str, Record] = {
        one["name"]: {"samples": []} for one in plan["contenders"]
    }
    for turn in range(turns):
        for one in plan["contenders"]:
            record = records[one["name"]]
            if "failure" in record or (one["once"] and turn):
                continue
            if one["failure"] or "failure" in records.get(one["after"], {}):
                record["failure"] = one["failure"] or f"{one['after']} failed"
                continue
            print(f"{at.name}, turn {turn + 1} of {turns}: {one['name']}", file=sys.stderr)
            found = run(one, at)
            if "failure" in found:
                record |= found
                continue
            if "answer" in found:
                record.setdefault("answers", []).append(found.pop("answer"))
            if turn >= plan["warm_ups"] and not one["once"]:
                record["samples"].append(found)
            if turn + 1 == turns and one["rebuilds"]:
                record |= check(target, Path(one["out"]))
    return {name: record for name, record in records.items() if record != {"samples": []}}


if __name__ == "__main__":
    print(json.dumps(measure(json.load(sys.stdin))))
