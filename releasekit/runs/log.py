"""A log for collectors: one JSON object a line, for each thing that happens in a run.

Every line has `timestamp` (UTC, RFC 3339, milliseconds), `level`, `event`, `run`, the same
in all lines of a run, and `message`, for people; the rest depends on the event. Lines are
ASCII, whatever the terminal's encoding, and written whole, so that runs may share a file.
Secrets are taken out; paths are not, since the log is its owner's.

A log that cannot be written, on a full disk, say, does not end the run: it ends there.
"""

from __future__ import annotations

import io
import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from releasekit.errors import UsageError

Now = Callable[[], datetime]
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def timestamp(time: datetime) -> str:
    """A time as RFC 3339 has it, in UTC: `2026-12-24T18:00:00.123Z`."""
    text = time.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


class EventLog:
    """Writes events as lines.

    Attributes:
        lost: why no more could be written; None while all was.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        run: str,
        hide: Callable[[str], str],
        now: Now,
    ) -> None:
        """Prepare to write.

        Args:
            write: takes a line, its end included.
            run: names the run.
            hide: takes secrets out of text.
            now: tells the time.
        """
        self.lost: OSError | ValueError | None = None
        self._write = write
        self._run = run
        self._hide = hide
        self._now = now
        self._lock = threading.Lock()

    def tell(
        self, event: str, message: str, fields: Mapping[str, object], level: str = "info"
    ) -> None:
        """Write an event; fields that are None are left out."""
        line = {
            "timestamp": timestamp(self._now()),
            "level": level,
            "event": event,
            "run": self._run,
            "message": message,
            **{name: value for name, value in fields.items() if value is not None},
        }
        text = json.dumps(self._safe(line))
        with self._lock:
            if self.lost is None:
                try:
                    self._write(f"{text}\n")
                except (OSError, ValueError) as error:  # ValueError: it was closed
                    self.lost = error

    def _safe(self, value: object) -> object:
        """As JSON can hold it, in Unicode, without secrets."""
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            # File names may hold bytes that are no text, which Python keeps as surrogates.
            return self._hide(value.encode(errors="backslashreplace").decode())
        if isinstance(value, float) and not math.isfinite(value):
            return repr(value)
        if isinstance(value, Mapping):
            return {name: self._safe(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._safe(item) for item in value]
        return value


class LogFile:
    """A file to whose end lines are written; others may write to it, too."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is made if there is none.

        Raises:
            UsageError: if that is not possible.
        """
        try:
            self._fd = os.open(path, _APPEND, 0o644)
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be written ({error.strerror}); give --log-json another "
                "file, or - for stderr"
            ) from None

    def write(self, text: str) -> None:
        """Append a line, at once."""
        data = text.encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Lines(io.TextIOBase):
    """A text stream in the place of stderr: what is written to it becomes events.

    So nothing that anybody prints there, libraries included, makes the log unreadable.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, told: Callable[[str], None], behind: TextIO) -> None:
        """Stand in.

        Args:
            told: takes a line without its end.
            behind: the stream in whose place this is.
        """
        self._told = told
        self._behind = behind
        self._held = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Take text; a line is told once it is whole."""
        with self._lock:
            *whole, self._held = (self._held + text).replace("\r", "\n").split("\n")
            for line in whole:
                self._tell(line)
        return len(text)

    def flush(self) -> None:
        """Tell what there is of a line: somebody may wait for it, as at a question."""
        with self._lock:
            line, self._held = self._held, ""
            self._tell(line)

    def fileno(self) -> int:
        """The descriptor of the stream behind, for processes that inherit it."""
        return self._behind.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def _tell(self, line: str) -> None:
        if line.strip():
            self._told(line.rstrip())


def stream_writer(stream: TextIO) -> Callable[[str], Any]:
    """Writes lines to a stream, each at once."""

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write
