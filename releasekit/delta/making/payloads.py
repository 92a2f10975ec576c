"""Payloads in the making: frames, then their table; one a file, or one behind another.

A tensor may turn out to need no payload only once all of it was coded. So whoever codes
begins one, adds frames, and then either ends or drops it (`Payloads`).
"""

from __future__ import annotations

from io import BufferedRandom
from typing import Protocol

from releasekit.codec.chunks import pack_table
from releasekit.digest import blake3
from releasekit.writing import write


class Payloads(Protocol):
    """Where payloads go, one after another."""

    def begin(self, name: str) -> None:
        """Start the payload of tensor `name`."""

    def add(self, frame: bytes) -> None:
        """Append a frame."""

    def end(self) -> tuple[int, str]:
        """Finish the payload; returns its size and its BLAKE3."""

    def drop(self) -> None:
        """Forget the payload begun last: the tensor turned out to need none."""


class PayloadWriter:
    """Appends one payload to a file."""

    def __init__(self, file: BufferedRandom) -> None:
        self._file = file
        self._sizes: list[int] = []
        self._hasher = blake3()

    def add(self, frame: bytes) -> None:
        """Append a frame."""
        self._sizes.append(len(frame))
        self._write(frame)

    def end(self) -> tuple[int, str]:
        """Append the table; returns the payload's size and its BLAKE3."""
        table = pack_table(self._sizes)
        self._write(table)
        return sum(self._sizes) + len(table), self._hasher.hexdigest()

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        write(self._file, data)


class Pack:
    """Payloads one behind another in one file: one of a release has too many for one each.

    Attributes:
        nbytes: bytes of all payloads that were ended.
    """

    def __init__(self, file: BufferedRandom) -> None:
        self.nbytes = 0
        self._file = file
        self._payload = PayloadWriter(file)

    def begin(self, name: str) -> None:
        """See `Payloads.begin`; the order says which payload is whose."""
        self._payload = PayloadWriter(self._file)

    def add(self, frame: bytes) -> None:
        """See `Payloads.add`."""
        self._payload.add(frame)

    def end(self) -> tuple[int, str]:
        """See `Payloads.end`."""
        nbytes, digest = self._payload.end()
        self.nbytes += nbytes
        return nbytes, digest

    def drop(self) -> None:
        """See `Payloads.drop`."""
        self._file.seek(self.nbytes)
        self._file.truncate()
