"""Weight files on the Hub that are read before they have come, and while they come.

A rebuild wants to know early whether base and delta fit, and that takes headers and a few
small tensors. So until the downloads begin, what is read is asked of the Hub by range. Once
they have begun, whoever reads a file waits until it is here, whole, and has the digest that
the Hub lists, and that the publisher's manifest lists, where there is one.

What was read by range was believed for the time being. It is compared with the file when
that has come: a Hub that told something else then is found out before the file is used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint.files import OpenFile, open_weights
from releasekit.digest import hash_file, sha256_hex
from releasekit.errors import FormatError, IntegrityError
from releasekit.hub.answers import FaultError
from releasekit.hub.cache import add, remember
from releasekit.hub.crew import Crew, wait
from releasekit.hub.snapshots import Remote, Share, bring, look_up
from releasekit.names import shown
from releasekit.progress import ProgressCallback, Stage

#: Bytes of a file that are asked for at once when its beginning is read: most headers.
_HEAD: Final = 1 << 17
#: Bytes that are asked for at once of a tensor that is read piece by piece.
_AHEAD: Final = 1 << 23


@contextmanager
def arriving(
    reference: str,
    *,
    wanted: Callable[[list[str]], list[str]],
    late: Callable[[str], bool],
    progress: ProgressCallback | None = None,
) -> Iterator[tuple[Path, Arrivals | None]]:
    """A snapshot whose late files are on their way, and those; None if none are.

    Args:
        reference: `org/name` or `org/name@revision`.
        wanted: as for `releasekit.hub.snapshots.resolve`.
        late: whether a file may come later; the others are downloaded now.
        progress: told how many bytes of those have come.

    Raises as `releasekit.hub.snapshots.resolve` does.
    """
    remote, names = look_up(reference, wanted=wanted)
    waiting = [name for name in remote.missing(names) if late(name)]
    if any(remote.listing.files[name].nbytes is None for name in waiting):
        waiting = []  # of a mirror that lists no sizes, without which none can be planned
    bring(remote, (name for name in names if name not in waiting), progress, waiting)
    if not waiting:
        yield remote.folder, None
        return
    remote.folder.mkdir(parents=True, exist_ok=True)  # nothing else may be in it
    with Crew() as crew:
        arrivals = Arrivals(remote, waiting, crew)
        try:
            yield remote.folder, arrivals
        finally:
            arrivals.close()


class Arrivals:
    """Files of a snapshot that are on their way.

    Attributes:
        remote: the revision that they are of.
        names: theirs.
    """

    def __init__(self, remote: Remote, names: Iterable[str], crew: Crew) -> None:
        """Look at the beginning of each file; raises as `Source.read` does, as HubError."""
        self.remote = remote
        self.names = frozenset(names)
        self._crew = crew
        self._kept = ExitStack()
        self._files = {
            name: ArrivingFile(remote, name, crew, self._kept) for name in self.names
        }
        heads = [crew.submit(file.look) for file in self._files.values()]
        for head in heads:
            head.result()

    @property
    def place(self) -> Path:
        """The snapshot's folder."""
        return self.remote.folder

    @property
    def nbytes(self) -> int:
        """Bytes that have yet to come."""
        return self.nbytes_of(self.names)

    def nbytes_of(self, names: Iterable[str]) -> int:
        """The size of some of them together."""
        return sum(self._files[name].size for name in names)

    def lacking(self, names: Iterable[str]) -> list[int]:
        """Bytes that the cache lacks of some of them, by content."""
        return self.remote.lacking(names)

    def open(self, path: Path) -> ArrivingFile | None:
        """A file by its place in the snapshot; None if it is not one of these."""
        if not path.is_relative_to(self.remote.folder):
            return None
        return self._files.get(path.relative_to(self.remote.folder).as_posix())

    def expect(self, name: str, nbytes: int, sha256: str) -> None:
        """Say what a file must be, by the publisher's word; IntegrityError if it cannot."""
        self._files[name].expect(nbytes, sha256)

    def start(self, names: Iterable[str], stage: Stage, check: Callable[[], None]) -> None:
        """Begin to bring files, in this order; all reads wait for them from now on.

        Args:
            names: those that are needed.
            stage: told how much has come.
            check: called now and then by those who wait; raises to end that.
        """
        for name in names:
            self._files[name].start(stage, check)

    def bring(self, names: Iterable[str]) -> None:
        """Download files now; raises what goes wrong."""
        names = list(names)
        self.start(names, Stage(None, "download", 0), lambda: None)
        for name in names:
            self._files[name].finish()

    def check(self) -> None:
        """Raise what went wrong with any file so far: no other need be waited for."""
        for file in self._files.values():
            if file.is_here:
                file.finish()

    def finish(self) -> None:
        """Wait until all that was begun is here; raises what went wrong."""
        for file in self._files.values():
            file.finish()
        if all(file.is_here for file in self._files.values()):
            remember(self.remote.address, self.remote.listing.commit)

    def close(self) -> None:
        """Close the files."""
        self._kept.close()


class ArrivingFile:
    """One file: what `releasekit.checkpoint.files.Readable` asks for.

    Attributes:
        path: where it will be.
        size: in bytes.
    """

    def __init__(self, remote: Remote, name: str, crew: Crew, kept: ExitStack) -> None:
        listed = remote.listing.files[name]
        self.path = remote.folder / name
        self.size = listed.nbytes or 0
        self._name = name
        self._remote = remote
        self._crew = crew
        self._kept = kept
        self._listed = listed
        self._expected: str | None = None
        self._head = b""
        self._window = (0, b"")  # what was read last, and where that begins
        self._seen: list[tuple[int, int, str]] = []  # begin, size and digest
        self._coming: Future[OpenFile] | None = None
        self._check: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read its beginning."""
        self._head = self._ask(0, min(_HEAD, self.size))

    def expect(self, nbytes: int, sha256: str) -> None:
        """Hold it against what the publisher says of it."""
        listed = self._listed.sha256
        if nbytes != self.size or (listed is not None and listed != sha256):
            raise IntegrityError(
                f"{self._remote.address.page}: {shown(self._name)}: expected {nbytes} "
                f"bytes with sha256 {sha256}, as the publisher lists them, found "
                f"{self.size} with {listed}: it was damaged or changed there; tell the "
                "publisher"
            )
        self._expected = sha256

    def read(self, offset: int, nbytes: int) -> bytes:
        """Bytes from `offset` on; see `read_into`."""
        data = np.empty(nbytes, np.uint8)
        self.read_into(offset, data)
        return data.tobytes()

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from `offset` on.

        Raises:
            HubError: if it cannot be had.
            IntegrityError: if it is not what it should be.
            FormatError: if it ends before.
        """
        if self._coming is not None:
            wait(self._coming, self._check).read_into(offset, out)
        elif offset + out.size <= len(self._head):
            out[:] = np.frombuffer(self._head, np.uint8, out.size, offset)
        elif offset + out.size > self.size:
            raise FormatError(
                f"{self.path}: ends at byte {self.size}, before what it says it holds"
            )
        elif out.size:
            out[:] = np.frombuffer(self._read_ahead(offset, out.size), np.uint8)

    def start(self, stage: Stage, check: Callable[[], None]) -> None:
        """Begin to bring it."""
        self._check = check
        self._coming = self._crew.submit(partial(self._bring, stage))

    @property
    def is_here(self) -> bool:
        """Whether it has come, or failed to."""
        return self._coming is not None and self._coming.done()

    def finish(self) -> None:
        """Wait until it is here, if it was begun; raises what went wrong."""
        if self._coming is not None:
            self._coming.result()

    def _read_ahead(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file; more are asked for once one read follows another."""
        begin, data = self._window
        if not begin <= offset <= offset + nbytes <= begin + len(data):
            ahead = _AHEAD if data and offset == begin + len(data) else 0
            begin = offset
            data = self._ask(offset, min(max(nbytes, ahead), self.size - offset))
            self._window = begin, data
        return data[offset - begin :][:nbytes]

    def _ask(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file as the Hub has it now."""
        if not nbytes:
            return b""
        address = self._remote.address
        try:
            data = self._remote.source(self._name, self._crew).read(offset, nbytes)
        except FaultError as error:
            raise error.told(address, f"{shown(self._name)} could not be read") from error
        with self._lock:
            self._seen.append((offset, nbytes, sha256_hex(data)))
        return data

    def _bring(self, stage: Stage) -> OpenFile:
        """Download it, hold it against all that was said of it, and open it."""
        share = Share(stage, self.size)
        add(self._remote.source(self._name, self._crew), self._listed, share)
        path = self.path
        opened = open_weights(path, self._kept)
        wanted = self._expected
        if opened.size != self.size or wanted not in (None, self._listed.sha256):
            # Of a mirror that lists no digests, or outside LFS.
            found = hash_file(path)
            if opened.size != self.size or found != wanted:
                raise IntegrityError(
                    f"{path}: expected {self.size} bytes with sha256 {wanted}, found "
                    f"{opened.size} with {found}: delete it and run again"
                )
        for offset, nbytes, digest in self._seen:
            if sha256_hex(opened.read(offset, nbytes)) != digest:
                raise IntegrityError(
                    f"{self._remote.address.page}: {shown(self._name)}: bytes {offset} to "
                    f"{offset + nbytes} were others before: the Hub, or a proxy, does not "
                    "tell the same twice; try again, elsewhere if it stays so"
                )
        return opened
