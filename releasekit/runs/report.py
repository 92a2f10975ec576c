"""A run's report: one JSON file that can go into a bug report.

It says what was run, where, how long each stage took, and what went wrong, but not whose:
everything in it goes through `redaction`. A traceback is told by modules, functions and
lines, without the paths of files.

    {"run_report": 1,
     "notice", "run", "command", "options",
     "begun", "ended": times in UTC, "seconds",
     "exit_code", "error": null or {"type", "message", "trace", "cause"},
     "steps", "stages", "workers", "warnings": lists,
     "programs", "machine", "disk", "variables": see `surroundings`}
"""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from releasekit import strictjson
from releasekit.errors import UsageError
from releasekit.redaction import Redactor
from releasekit.runs import surroundings
from releasekit.runs.log import timestamp
from releasekit.runs.records import Failure, RunRecord, stage_document

_VERSION: Final = 1
#: How every report begins, by which an earlier one is known.
_BEGINNING: Final = b'{\n "run_report": '
_NOTICE: Final = (
    "Look through this before you send it. Folders, users, hosts, tokens and passwords "
    "were taken out; names of files, models and releases are in it."
)
#: Frames of a traceback that are told at most, and causes: an endless recursion has many.
_FRAMES: Final = 60
_CAUSES: Final = 8


def check_place(path: Path) -> None:
    """Refuse a place where a report would replace something else, or could not be written.

    Raises:
        UsageError: if it is so.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder; make it first, for --run-report")
    if os.path.lexists(path) and not _is_report(path):
        raise UsageError(
            f"{path}: exists already, and is no report of a run; give --run-report another "
            "file"
        )


def compose(record: RunRecord, environment: Mapping[str, str]) -> bytes:
    """The report of a run in these surroundings, with nothing in it that is private."""
    redactor = Redactor(surroundings.private(environment, tuple(record.options.values())))
    out = record.options.get("out")
    document = {
        "run_report": _VERSION,
        "notice": _NOTICE,
        "run": record.run,
        "command": record.command,
        "options": dict(record.options),
        "begun": timestamp(record.begun),
        "ended": timestamp(record.ended),
        "seconds": round(record.seconds, 3),
        "exit_code": record.exit_code,
        "error": _failure(record.failure),
        "steps": list(record.steps),
        "stages": [stage_document(stage) for stage in record.stages],
        "workers": list(record.workers),
        "warnings": list(record.warnings),
        "programs": surroundings.programs(),
        "machine": surroundings.machine(),
        "disk": surroundings.disk(out if isinstance(out, Path) else Path()),
        "variables": surroundings.variables(environment),
    }
    return strictjson.dumps(_plain(redactor.value(document)))


def write(path: Path, data: bytes) -> None:
    """Put a report at `path`, whole or not at all.

    Raises:
        OSError: if that is not possible.
    """
    # Not `writing`, which loads numpy: that may be what is broken.
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(new, flags, 0o644), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _is_report(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_BEGINNING)) == _BEGINNING


def _failure(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    told: dict[str, Any] = {"type": failure.kind, "message": failure.message}
    return told if failure.error is None else {**told, **_traced(failure.error)}


def _traced(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """Where an error was raised, and what caused it."""
    frames = [
        f"{frame.f_globals.get('__name__', '?')}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if len(frames) > _FRAMES:
        half = _FRAMES // 2
        left_out = f"… {len(frames) - 2 * half} more …"
        frames = [*frames[:half], left_out, *frames[-half:]]
    told: dict[str, Any] = {"trace": frames}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _CAUSES:
        said = {"type": type(cause).__name__, "message": str(cause)}
        told["cause"] = {**said, **_traced(cause, depth + 1)}
    return told


def _plain(value: object) -> object:
    """As JSON can hold it: whole characters, of which names of files may lack halves."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
