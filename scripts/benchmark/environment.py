"""Say what scripts/bench.py runs on and with, and install the tools that it compares with.

    python scripts/benchmark/environment.py FOLDER [PEER ...]

Where peers are named, FOLDER becomes a virtual environment of theirs: it is made if it is
missing, and what is missing in it is installed. Prints as JSON the machine, the versions of
what matters, and pip's last words for each peer that cannot be installed.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

# torch by name and first: the build that a peer would choose may bring gigabytes of CUDA.
TORCH = os.environ.get("RELEASEKIT_TORCH", "torch==2.13.0")
PEERS = {
    "zipnn": "zipnn==0.5.4",
    "fschat": "fschat[model_worker]==0.2.36",  # the extra is what its delta commands need
    "mergekit": "mergekit==0.1.5",
}
OURS = ("releasekit", "blake3", "numba", "numpy", "pcodec", "torch", "zstandard")
THEIRS = (*PEERS, "numpy", "safetensors", "torch", "transformers")


def versions(python: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Versions of those that are installed."""
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    found = {package["name"]: package["version"] for package in json.loads(done.stdout)}
    return {name: found[name] for name in wanted if name in found}


def install(python: str, requirement: str) -> str:
    """Install it; why not, if that fails."""
    print(f"installing {requirement}", file=sys.stderr)
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", requirement],
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        return ""
    return ["nothing said", *(line for line in done.stderr.splitlines() if line.strip())][
        -1
    ]


def prepare_peers(environment: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """Install the peers; their versions, and why one is missing."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    present = versions(str(python), THEIRS)
    failures: dict[str, str] = {}
    for name in names:
        requirement = PEERS[name]
        if present.get(name) != requirement.partition("==")[2]:
            reason = install(str(python), TORCH) or install(str(python), requirement)
            if reason:
                failures[name] = f"cannot be installed: {reason}"
    return {"peers": versions(str(python), THEIRS), "failures": failures}


def processor() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def main() -> None:
    """Print it all."""
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "processors": os.cpu_count(),
        "memory_nbytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(sys.executable, OURS),
        "peers": {},
        "failures": {},
    }
    folder, *names = sys.argv[1:]
    if names:
        about |= prepare_peers(Path(folder), names)
    print(json.dumps(about))


if __name__ == "__main__":
    main()
