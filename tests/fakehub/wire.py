"""Requests and answers, as the routes and the tests see them: no sockets here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked for; the headers' names are in lower case.

    Attributes:
        host: where it came to, as the client named it: the Hub or its CDN.
        content: what was sent, if that is no upload and less than a MiB.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    host: str = ""
    content: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def on_cdn(self) -> bool:
        """Whether it came to the origin of contents, where no token belongs."""
        return self.host.startswith("localhost")

    @property
    def route(self) -> str:
        """The path without the query, as it was quoted."""
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def asks(self, name: str) -> str:
        """The first value in the query under a name, or nothing."""
        return self.query.get(name, [""])[0]


@dataclass(frozen=True)
class Part:
    """A part of a file, from `start` to before `end`."""

    path: Path
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(len(self))


@dataclass
class Answer:
    """What the Hub says; a rewriting may change all of it.

    Attributes:
        body: bytes, a part of a file, or pieces: those are sent without an end of their
            own, so the connection ends with them.
        headers: Content-Length follows from the body unless it is given here.
    """

    status: int = 200
    body: bytes | Part | Iterable[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: object, status: int = 200, **headers: str) -> Answer:
        """A value as JSON; underscores in the headers' names stand for hyphens."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        kind = {"Content-Type": "application/json; charset=utf-8"}
        return cls(status, json.dumps(value).encode(), kind | named)

    @property
    def json(self) -> Any:
        """The body's value; set it for another body."""
        assert isinstance(self.body, bytes)
        return json.loads(self.body)

    @json.setter
    def json(self, value: object) -> None:
        self.body = json.dumps(value).encode()

    def set(self, name: str, value: str | None) -> None:
        """Puts a header in the place of those with its name; None leaves it out."""
        for key in [key for key in self.headers if key.lower() == name.lower()]:
            del self.headers[key]
        if value is not None:
            self.headers[name] = value


class RefusedError(Exception):
    """A request that cannot be served, and how the Hub says so.

    Attributes:
        code: what clients tell errors apart by, for some of them.
    """

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.answer = Answer.of({"error": message}, status)
        if code:
            self.answer.headers["X-Error-Code"] = code
        self.answer.headers["X-Error-Message"] = message
        for name, value in headers.items():
            self.answer.headers[name.replace("_", "-")] = value


class XmlRefusedError(RefusedError):
    """A refusal by the storage behind the CDN, which speaks XML."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, message)
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
        self.answer = Answer(status, text.encode(), {"Content-Type": "application/xml"})


def unquoted(part: str | None) -> str:
    return unquote(part or "")
