"""Other people's programs, in an environment of their own, which scripts/prove sets up."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

#: Names its interpreter. Tests are skipped without it, and fail if it is no interpreter.
VARIABLE = "RELEASEKIT_PEERS_PYTHON"


def run(code: str, *arguments: str | Path) -> str:
    """Runs Python code with the peers' packages; returns what it prints."""
    python = os.environ.get(VARIABLE)
    if python is None:
        pytest.skip(f"{VARIABLE} is not set: scripts/prove makes that environment")
    if not os.access(python, os.X_OK):
        pytest.fail(f"{VARIABLE}: {python} is no interpreter: run scripts/prove again")
    done = subprocess.run(
        [python, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
