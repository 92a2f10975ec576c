"""How fast a machine is at what releases are made of, and the file that keeps it.

    format    "releasekit-rates/1"
    measured  the day, as 2026-11-23
    machine   which, for people
    rebuild, encode, sha256, blake3   bytes a second of one processor
    read, write                       bytes a second of the disk, past what memory keeps
    headers                           tensors a second whose headers are read
    start                             seconds until a process runs

`rebuild` and `encode` leave the digests out, which are counted for themselves. Bytes are
those of the model, not of the delta.

The file lies in the user's state, `$XDG_STATE_HOME/releasekit/rates.json`, or
`~/.local/state/…`: it is no setting, and true of one machine only.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError, UsageError
from releasekit.names import is_title, shown
from releasekit.received import read_small
from releasekit.strictjson import Record
from releasekit.writing import replace

_FORMAT: Final = "releasekit-rates/1"
_MAX_NBYTES: Final = 1 << 16
_MOST: Final = 1e15  # a petabyte a second; what is faster is no measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast a machine is; see the module for units.

    Attributes:
        measured: the day, as ISO 8601 writes it.
        machine: which it was.
        rebuild: of one processor, without digests.
        encode: likewise.
        sha256: of one processor.
        blake3: likewise.
        read: of the disk.
        write: of the disk, flushed.
        headers: tensors of a release and its base that are opened in a second.
        start: seconds until a process runs.
    """

    measured: str
    machine: str
    rebuild: float
    encode: float
    sha256: float
    blake3: float
    read: float
    write: float
    headers: float
    start: float

    def pack(self) -> bytes:
        """The document; the inverse of `parse`."""
        return strictjson.dumps({"format": _FORMAT, **asdict(self)})


#: Used where nothing was measured. The codec's are of 4 GB of bf16 weights, by processor
#: time as scripts/BENCHMARKS.md lists it.
BUILT_IN: Final = Rates(
    measured="2026-11-23",
    machine="2 cores of an AMD EPYC in a virtual machine",
    rebuild=0.56e9,
    encode=0.18e9,
    sha256=1.2e9,
    blake3=3.0e9,
    read=1.2e9,
    write=1.3e9,
    headers=27_000.0,
    start=0.6,
)
_NUMBERS: Final = (
    *("rebuild", "encode", "sha256", "blake3", "read", "write", "headers", "start"),
)


def default_path() -> Path:
    """Where the rates of this machine are kept."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored, says the XDG Base Directory Specification.
    if not os.path.isabs(state):
        home = os.path.expanduser("~")
        state = os.path.join(home if os.path.isabs(home) else "/", ".local", "state")
    return Path(state) / "releasekit" / "rates.json"


def load(path: Path | None = None) -> Rates:
    """Read measured rates.

    Args:
        path: where they are; by default where `releasekit plan --measure` puts them, and if
            nothing is there, `BUILT_IN`.

    Raises:
        UsageError: if `path` is given, and nothing is there.
        FormatError: if the file is malformed.
    """
    place = path if path is not None else default_path()
    try:
        data = read_small(place, _MAX_NBYTES)
    except (FileNotFoundError, NotADirectoryError):
        if path is None:
            return BUILT_IN
        raise UsageError(
            f"{path}: no such file: make it with `releasekit plan --measure --out {path}`"
        ) from None
    return parse(data, str(place))


def save(rates: Rates, path: Path) -> None:
    """Keep rates in a file, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, rates.pack())


def parse(data: bytes, subject: str) -> Rates:
    """Read the text of a file of rates.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(strictjson.loads(data, subject), subject)
    root.choice("format", (_FORMAT,))
    measured, machine = root.text("measured"), root.text("machine")
    if not _is_date(measured):
        raise FormatError(
            f"{root.place('measured')}: expected a day such as 2026-11-23, found "
            f"{shown(measured)}"
        )
    if not is_title(machine):
        raise FormatError(
            f"{root.place('machine')}: expected a line of 1 to 200 characters, found "
            f"{shown(machine)}"
        )
    numbers = {name: root.number(name) for name in _NUMBERS}
    for name, number in numbers.items():
        if not 0 < number <= _MOST:
            raise root.fault(name, f"a number above 0, and of at most {_MOST:g}")
    root.close()
    return Rates(measured=measured, machine=machine, **numbers)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
