"""Bring one file from the Hub, going on where an earlier attempt, or run, stopped.

The bytes go to the end of a file whose length says how far they have come. Each connection
asks the Hub anew, which leads on to its CDN with an address signed for a time: so one that
has expired is renewed by trying again. An attempt counts as failed unless it came further
than all before it.

Plain HTTP by ranges, and not Xet, since that cannot go on inside a file after a restart.
The Hub serves files of more than 50 GB by Xet alone; those come as a stream of it, which
can begin at any byte.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedRandom
from typing import Any, Final

from releasekit.digest import Hash, pieces
from releasekit.hub import answers
from releasekit.hub.address import Address
from releasekit.hub.answers import Fault, FaultError, explaining, reason
from releasekit.names import shown
from releasekit.writing import write

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
#: Bytes of an answer that says why there is none.
_MAX_REFUSAL: Final = 1 << 16
_AGAIN: Final = "try again; if it stays so, tell the model's publisher"


class StoppedError(Exception):
    """The transfer was asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file of a commit, from its first byte or another.

    Attributes:
        address: the model.
        commit: a commit of it.
        name: the file's path in it.
        nbytes: its size; None if it is not known.
        stop: set by whoever wants no more of it.
    """

    address: Address
    commit: str
    name: str
    nbytes: int | None
    stop: threading.Event

    def read(self, start: int, nbytes: int) -> bytes:
        """Bytes of the file from `start` on, as they are there now.

        Raises:
            FaultError: if they cannot be had.
        """

        def ask() -> bytes:
            found = bytearray()
            with self._response(start, start + nbytes) as (_, chunks):
                for chunk in chunks:
                    found += chunk
                    if len(found) > nbytes:
                        break  # of the whole file, from a server that knows no ranges
            if len(found) < nbytes:
                raise FaultError(self._broken(f"{len(found)} bytes of {nbytes}"))
            return bytes(found[:nbytes])

        return answers.persist(self.address, ask, sleep=self._sleep)

    def into(
        self, file: BufferedRandom, hashes: list[Hash], advance: Callable[[int], None]
    ) -> tuple[int, int]:
        """Bring the file to its end.

        Args:
            file: holds its first bytes, or none; is left at its end.
            hashes: take all bytes, also those that are there already.
            advance: told how many more there are; fewer than none if they begin anew.

        Returns:
            How many bytes were there before, and how many came.

        Raises:
            FaultError: if it cannot be had; what came stays.
            StoppedError: if `stop` was set.
            OSError: the disk's.
        """
        transfer = _Transfer(self, file, hashes, advance)
        kept = furthest = transfer.take_up()
        failed = 0
        while not transfer.done:
            try:
                with explaining(self.address):
                    transfer.go_on()
            except FaultError as error:
                # A server that knows no ranges begins anew each time, and may for ever.
                failed = 1 if transfer.have > furthest else failed + 1
                furthest = max(furthest, transfer.have)
                wait = answers.pause(error.fault, failed, answers.ATTEMPTS)
                if wait is None:
                    raise
                self._sleep(wait)
        return kept, transfer.came

    def chunks(self, start: int) -> Iterator[tuple[int, bytes]]:
        """The bytes from `start` on, each piece with where it begins."""
        if self.nbytes == start:
            return  # nothing is left to ask for
        with self._response(start, None) as (begin, chunks):
            for chunk in chunks:
                if self.stop.is_set():
                    raise StoppedError
                yield begin, chunk
                begin += len(chunk)

    @contextmanager
    def _response(
        self, start: int, end: int | None
    ) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Where an answer begins, and its pieces."""
        from huggingface_hub import constants

        if self.nbytes is not None and self.nbytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
            with _xet(self, start, end) as stream:
                yield start, stream
            return
        from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

        headers = build_hf_headers(library_name="releasekit")
        headers["Accept-Encoding"] = "identity"
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        with get_session().stream(
            "GET",
            self.address.url(self.commit, self.name),
            headers=headers,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            follow_redirects=True,  # the token stays behind when they leave the Hub
        ) as response:
            if response.status_code >= 400:
                answers.raise_for_status(self._refusal(response))
            yield self._begin(response, start, end), response.iter_bytes()

    def _refusal(self, response: Any) -> Any:
        """An answer that refuses, with what it says, unless that is endless."""
        said = bytearray()
        for chunk in response.iter_bytes():
            said += chunk
            if len(said) > _MAX_REFUSAL:
                raise FaultError(self._wrong(f"status {response.status_code}, and no end"))
        headers = {
            key: value
            for key, value in response.headers.items()
            if key.lower() not in ("content-encoding", "content-length")
        }
        return answers.httpx().Response(
            response.status_code,
            headers=headers,
            content=bytes(said),
            request=response.request,
        )

    def _begin(self, response: Any, start: int, end: int | None) -> int:
        """Where an answer begins; FaultError if that is not where it may."""
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            last = self.nbytes if end is None else end
            if (
                match is None
                or int(match[1]) != start
                or (last is not None and int(match[2]) + 1 != last)
                or (self.nbytes is not None and match[3] not in ("*", str(self.nbytes)))
            ):
                found = response.headers.get("Content-Range", "none")
                raise FaultError(self._wrong(f"the range {shown(found)}"))
            return start
        if response.status_code != 200:
            raise FaultError(self._wrong(f"status {response.status_code}"))
        if end is not None and start:
            step = (
                f"it knows no ranges: run `releasekit fetch {self.address.reference}` first"
            )
            found = "the whole file in place of a range"
            raise FaultError(replace(self._wrong(found), step=step))
        return 0  # it knows no ranges

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise StoppedError

    def _wrong(self, found: str) -> Fault:
        """An answer that would be wrong another time as well."""
        return Fault(
            what=f"expected {self.nbytes} bytes of {shown(self.name)} or a range of them, "
            f"as {self.address.site} lists them, found {found}",
            step=_AGAIN,
        )

    def _broken(self, found: str) -> Fault:
        """An answer that ended early."""
        return Fault(what=f"the connection ended after {found}", step=_AGAIN, passes=True)


class _Transfer:
    """How far a file has come."""

    def __init__(
        self,
        source: Source,
        file: BufferedRandom,
        hashes: list[Hash],
        advance: Callable[[int], None],
    ) -> None:
        self._source = source
        self._file = file
        self._hashes = hashes
        self._empty = [one.copy() for one in hashes]
        self._advance = advance
        self.have = 0
        self.came = 0
        self.done = False

    def take_up(self) -> int:
        """Take in what is there already; returns how much that is."""
        self._file.seek(0)
        for piece in pieces(self._file):
            if self._source.stop.is_set():
                raise StoppedError
            self._took(piece)
        if self._source.nbytes is not None and self.have > self._source.nbytes:
            self.restart()
        self.done = self.have == self._source.nbytes
        return self.have

    def restart(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._advance(-self.have)
        self.have = 0
        self._hashes[:] = [one.copy() for one in self._empty]

    def go_on(self) -> None:
        """Take in what one connection brings; FaultError if it is not all."""
        nbytes = self._source.nbytes
        for begin, chunk in self._source.chunks(self.have):
            if begin == 0 and self.have:
                self.restart()
            if nbytes is not None and begin + len(chunk) > nbytes:
                raise FaultError(self._source._wrong(f"more than {nbytes} bytes"))
            write(self._file, chunk)
            self._took(chunk)
            self.came += len(chunk)
        if nbytes is not None and self.have < nbytes:
            raise FaultError(self._source._broken(f"{self.have} bytes of {nbytes}"))
        self.done = True

    def _took(self, piece: bytes | memoryview) -> None:
        for one in self._hashes:
            one.update(piece)
        self.have += len(piece)
        self._advance(len(piece))


@contextmanager
def _xet(source: Source, start: int, end: int | None) -> Iterator[Iterator[bytes]]:
    """The bytes of a file as a stream of Xet, from `start` on."""
    try:
        from hf_xet import XetFileInfo
        from huggingface_hub import get_hf_file_metadata, get_token
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
        from huggingface_hub.utils._xet import (
            get_xet_session,
            refresh_xet_connection_info,
            xet_headers_without_auth,
        )
    except ImportError as error:
        raise FaultError(
            Fault(
                what=f"files of {source.nbytes} bytes come by Xet alone, and this "
                f"huggingface_hub cannot stream it ({reason(error)})",
                step="pip install -U 'huggingface_hub[hf_xet]'",
            )
        ) from error
    url = source.address.url(source.commit, source.name)
    found = get_hf_file_metadata(url, token=get_token(), endpoint=source.address.endpoint)
    if found.xet_file_data is None:
        raise FaultError(source._wrong("no address in Xet"))
    headers = build_hf_headers(library_name="releasekit")
    try:
        with explaining(source.address):
            access = refresh_xet_connection_info(
                file_data=found.xet_file_data, headers=headers
            )
    except FaultError as error:  # which was asked for again and again already
        raise FaultError(replace(error.fault, passes=False)) from error
    group = get_xet_session().new_download_stream_group(
        endpoint=access.endpoint,
        token=access.access_token,
        token_expiry_unix_secs=access.expiration_unix_epoch,
        token_refresh_url=found.xet_file_data.refresh_route,
        token_refresh_headers=headers,
        custom_headers=xet_headers_without_auth(headers),
    )
    info = XetFileInfo(found.xet_file_data.file_hash, source.nbytes)
    stream = group.download_stream(info, start=start, end=end)
    try:
        yield iter(stream)
    finally:
        stream.cancel()
