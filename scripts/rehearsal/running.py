"""Run commands as their users do, and see what they take: time, memory, disk."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, Protocol, Self

from releasekit.errors import ReleaseKitError
from scripts.benchmark.measure import MAXRSS_UNIT

ROOT: Final = Path(__file__).resolve().parents[2]
_EVERY: Final = 0.05  # seconds between two looks at the disk
_BLOCK: Final = 512  # bytes that st_blocks counts in


class StepError(ReleaseKitError):
    """A step of a rehearsal did not do what it has to; says what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command came to.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        peak_nbytes: of memory.
        stdout, stderr: what it said.
    """

    code: int
    seconds: float
    peak_nbytes: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Actor(Protocol):
    """Somebody who runs releasekit."""

    @property
    def home(self) -> Path:
        """The folder that they do it in."""

    def run(self, *words: str | Path, code: int = 0) -> Ran:
        """Run `releasekit WORDS`, which must end with that exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with a home of their own, in which they run releasekit.

    Attributes:
        home: the folder, which also has their cache, configuration, and what they trust.
        hub: address of the Hub that they use.
        token: what they are known by there.
    """

    home: Path
    hub: str
    token: str

    def run(self, *words: str | Path, code: int = 0) -> Ran:
        """Run `releasekit WORDS`.

        Raises:
            StepError: if it ends with another exit code.
        """
        texts = [str(word) for word in words]
        mine = {
            "HF_ENDPOINT": self.hub,
            "HF_HOME": str(self.home / "hf"),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",  # the double's is not the Hub's
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "XDG_CONFIG_HOME": str(self.home / "config"),
        }
        environment = _but_hub(os.environ) | mine
        ran = wait([sys.executable, "-m", "releasekit", *texts], environment, self.home)
        if ran.code != code:
            raise StepError(
                f"`releasekit {shlex.join(texts)}` ended with code {ran.code}, expected "
                f"{code}:\n{ran.stdout}{ran.stderr}"
            )
        return ran


def wait(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Ran:
    """Run a command in a folder, with nobody at its terminal."""
    with TemporaryFile() as out, TemporaryFile() as err:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()  # so that nothing runs on
            child.wait()
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begun
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return Ran(
        code=child.returncode,
        seconds=seconds,
        peak_nbytes=usage.ru_maxrss * MAXRSS_UNIT,
        stdout=said[0],
        stderr=said[1],
    )


def _but_hub(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what the caller has set for the true Hub."""
    theirs = ("HF_", "HUGGING", "TRANSFORMERS_", "SOURCE_DATE_EPOCH")
    return {name: v for name, v in environment.items() if not name.startswith(theirs)}


class Disk:
    """Watches how much of the disk folders take, while it is entered.

    Attributes:
        peaks: the most bytes that each was seen to take, by its name.
        peak: the most that all took at once.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self.peaks = dict.fromkeys(folders, 0)
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            found = {name: used(folder) for name, folder in self._folders.items()}
            self.peaks = {name: max(self.peaks[name], n) for name, n in found.items()}
            self.peak = max(self.peak, sum(found.values()))
            if self._stop.wait(_EVERY):
                return


def used(folder: Path) -> int:
    """Bytes of the disk that a folder takes; a file with two names counts once."""
    found: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # renamed, or removed, meanwhile
                status = os.lstat(os.path.join(place, name))
                found[status.st_dev, status.st_ino] = status.st_blocks * _BLOCK
    return sum(found.values())
