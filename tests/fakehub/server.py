"""The HTTP of the Hub: receives, has a route serve, lets go wrong what shall, sends.

A request is served by the first route that matches it. Contents are streamed both ways
and never whole in memory.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from tests.fakehub.calls import Call
from tests.fakehub.faults import Fault
from tests.fakehub.state import PIECE
from tests.fakehub.wire import Answer, Part, RefusedError, Request

if TYPE_CHECKING:
    from tests.fakehub.hub import FakeHub

#: Most of a request's content that is kept for tests to look at.
_KEPT: Final = 1 << 20


class HungUpError(Exception):
    """The connection was ended, on purpose or not."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: FakeHub, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.hub = hub
        self._lines: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        line, address = super().get_request()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._lines = [each for each in self._lines if each.fileno() >= 0] + [line]
        return line, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news; anything else is the double's own fault."""
        if not isinstance(sys.exception(), (ConnectionError, HungUpError)):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """End the connections that clients keep for later."""
        for line in self._lines:
            with suppress(OSError):  # ended before
                line.shutdown(socket.SHUT_RDWR)


class Received:
    """The content of a request, which may go wrong on its way in."""

    def __init__(self, handler: Handler, fault: Fault) -> None:
        self._handler, self._fault = handler, fault
        self._chunked = "chunked" in handler.headers.get("Transfer-Encoding", "")
        self._left = int(handler.headers.get("Content-Length") or 0)
        self._all: bytes | None = None
        self.there = self._chunked or self._left > 0
        self._done = not self.there

    def all(self) -> bytes:
        """All of it, for those who know that it is small."""
        if self._all is None:
            self._all = b"".join(bytes(piece) for piece in self.pieces())
        return self._all

    def pieces(self) -> Iterator[memoryview]:
        """It, piece by piece; each is good until the next is asked for."""
        if self._done:
            return
        self._done = True
        buffer = memoryview(bytearray(PIECE))
        count, began = 0, time.monotonic()
        for left in self._runs():
            while left:
                limit = min(left, PIECE)
                if self._fault.cut is not None:
                    limit = min(limit, self._fault.cut - count)
                if limit <= 0:
                    self._handler.hang_up(self._fault.reset)
                n = self._receive(buffer[:limit], count)
                if not n:
                    raise HungUpError
                left -= n
                count += n
                self._handler.pace(self._fault.rate, count, began)
                yield buffer[:n]
        if self._fault.cut is not None:
            self._handler.hang_up(self._fault.reset)

    def _receive(self, buffer: memoryview, count: int) -> int:
        """The next bytes; after the first, which came with the head, by one call."""
        if self._chunked or not count:
            return self._handler.rfile.readinto1(buffer)
        line = self._handler.connection
        n: int = line.recv_into(buffer, len(buffer), socket.MSG_WAITALL)
        return n

    def _runs(self) -> Iterator[int]:
        """How many bytes of content come next, again and again."""
        if not self._chunked:
            yield self._left
            return
        file = self._handler.rfile
        while n := int(file.readline().split(b";")[0] or b"0", 16):
            yield n
            file.readline()
        while file.readline().strip():
            pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rbufsize = 1 << 16
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        try:
            self._serve()
        except HungUpError:
            self.close_connection = True

    def __getattr__(self, name: str) -> Any:  # all methods are served alike
        if name in ("do_HEAD", "do_POST", "do_PUT", "do_DELETE"):
            return self.do_GET
        raise AttributeError(name)

    def _serve(self) -> None:
        hub = self.server.hub
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, self.path, headers, headers.get("host", ""))
        fault = hub.struck(request) or Fault()
        if fault.call is not None:
            fault.call(request)
        if fault.before:
            self.hang_up(reset=True)
        if fault.at is None:
            self._wait(fault.stall)
        received = Received(self, fault)
        if fault.status is not None and not fault.after:
            answer = fault.answer()
        else:
            request, answer = self._answer(request, received)
        for _ in received.pieces():
            pass  # what nobody wanted; a request may follow on the same connection
        if fault.after:
            if fault.status is None:
                self.hang_up(reset=True)
            answer = fault.answer()
        for name, value in fault.headers.items():
            answer.set(name, value)
        answer = hub.rewritten(request, answer)
        self._send(answer, Fault() if received.there else fault)

    def _answer(self, request: Request, received: Received) -> tuple[Request, Answer]:
        hub = self.server.hub
        length = request.headers.get("content-length", "0")
        if self.command != "PUT" and received.there and int(length) < _KEPT:
            content = received.all()
            request = replace(request, content=content)
            hub.recorded(request)
        try:
            return request, hub.serve(Call(hub, request, received))
        except RefusedError as error:
            return request, error.answer

    # Sending.

    def _send(self, answer: Answer, fault: Fault) -> None:
        body = answer.body
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        if "content-length" not in {key.lower() for key in answer.headers}:
            if isinstance(body, bytes | Part):
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(body, Part):
            self._send_file(body, fault)
        else:
            self._send_pieces(
                iter([body]) if isinstance(body, bytes) else iter(body), fault
            )
        told = {key.lower(): value for key, value in answer.headers.items()}
        if told.get("content-length", str(self._sent)) != str(self._sent):
            self.close_connection = True  # a lie about its length cannot be followed

    def _send_file(self, part: Part, fault: Fault) -> None:
        with part.path.open("rb") as file:
            if fault.flip is None and fault.rate is None:
                for start, end in _stretches(part, fault):
                    if end > start:
                        self.connection.sendfile(file, start, end - start)
                    if fault.at is not None:
                        self._wait(fault.stall)
                self._sent = len(part)
                self._end(fault)
                return
            file.seek(part.start)
            flip = fault.flip
            self._send_pieces(
                _read(file, part), fault, part.start if flip is not None else 0
            )

    def _send_pieces(self, pieces: Iterator[bytes], fault: Fault, offset: int = 0) -> None:
        """Sends a content, but for what goes wrong.

        Args:
            offset: where in the file it begins, as `flip` counts from the file's start.
        """
        self._sent, began = 0, time.monotonic()
        for piece in pieces:
            if fault.flip is not None:
                where = fault.flip - offset - self._sent
                if 0 <= where < len(piece):
                    changed = bytearray(piece)
                    changed[where] ^= 1
                    piece = bytes(changed)
            if fault.at is not None and 0 <= fault.at - self._sent < len(piece):
                middle = fault.at - self._sent
                self.wfile.write(piece[:middle])
                self._wait(fault.stall)
                self.wfile.write(piece[middle:])
            elif fault.cut is not None and self._sent + len(piece) > fault.cut:
                self.wfile.write(piece[: fault.cut - self._sent])
                break
            else:
                self.wfile.write(piece)
            self._sent += len(piece)
            self.pace(fault.rate, self._sent, began)
        self._end(fault)

    def _end(self, fault: Fault) -> None:
        if fault.cut is not None:
            self.hang_up(fault.reset)

    _sent = 0

    def _wait(self, seconds: float) -> None:
        """Does nothing, unless the Hub stops meanwhile."""
        if seconds and self.server.hub.stopped.wait(seconds):
            raise HungUpError

    def pace(self, rate: int | None, count: int, began: float) -> None:
        """Waits until so many bytes may have passed."""
        if rate is not None:
            self._wait(max(0.0, began + count / rate - time.monotonic()))

    def hang_up(self, reset: bool) -> None:
        """Ends the connection; never returns."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(self.connection.detach())  # at once, whoever else holds the socket
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        raise HungUpError

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # the client, or a fault, was first
            super().finish()


def _stretches(part: Part, fault: Fault) -> Iterator[tuple[int, int]]:
    """The parts of a file that are sent in one go."""
    end = part.end if fault.cut is None else min(part.end, part.start + fault.cut)
    middle = end if fault.at is None else min(end, part.start + fault.at)
    yield part.start, middle
    if middle < end:
        yield middle, end


def _read(file: Any, part: Part) -> Iterator[bytes]:
    left = len(part)
    while left and (piece := file.read(min(PIECE >> 4, left))):
        left -= len(piece)
        yield piece
