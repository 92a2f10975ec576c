"""A Hugging Face Hub on loopback, as far as its clients need it to download models.

    hub.put("org/name", {"model.safetensors": b"…"})    a commit, on a branch
    hub.tag("org/name", "v1")
    hub.fault(match="/cdn/", flip=10)                   something goes wrong, once

Contents lie in files under their digests and are streamed from there, so models may be
larger than memory. Those in LFS come from another origin, as from the Hub's CDN. What was
asked for stands in `hub.requests`.

A request is served by the first of `_Handler.ROUTES` that matches it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

#: The only token that this Hub knows.
TOKEN: Final = "hf_known"
#: Files with these ends are in LFS, all others in git.
LFS_ENDS: Final = (".bin", ".gguf", ".safetensors")
_PIECE: Final = 1 << 16
_DATE: Final = "2025-01-01T00:00:00.000Z"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file holds.

    Attributes:
        nbytes: its size.
        git_id: its blob in git; in LFS that is only a pointer to the content.
        sha256: of the content, if that is in LFS.
    """

    nbytes: int
    git_id: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.git_id

    def listed(self) -> dict[str, Any]:
        """What the Hub tells of it beside its name."""
        if self.sha256 is None:
            return {"size": self.nbytes}
        lfs = {"size": self.nbytes, "pointerSize": len(_pointer(self.sha256, self.nbytes))}
        return {"size": self.nbytes, "lfs": lfs | {"oid": self.sha256}}


@dataclass
class Repo:
    """A repository.

    Attributes:
        private: unknown to those without the token.
        gated: listed for all, downloaded with the token only.
        commits: the files of each, by path.
        refs: branches and tags, and the commit of each.
    """

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Fault:
    """What is to go wrong, and with which requests.

    Attributes:
        match: a pattern that is searched in `METHOD path`.
        times: how many requests it strikes.
        status: answer with this, and with `body` as JSON or, if bytes, as it is.
        flip: send the content with the last bit of this byte wrong.
        cut: end the connection after this many bytes of the content.
        reset: end it as a crash does, rather than in good order.
    """

    match: str = ""
    times: int = 1
    status: int | None = None
    body: object = None
    flip: int | None = None
    cut: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class Request:
    """What a client asked for; the headers' names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class FakeHub:
    """The Hub: its repositories, its faults, and a server as long as it is entered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._server = _Server(self)
        port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.cdn = f"http://localhost:{port}/cdn"  # where clients send no token
        root.mkdir()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more; requests find no one at the address."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def put(
        self, name: str, files: Mapping[str, bytes | Path], branch: str = "main"
    ) -> str:
        """Makes a commit with just these files; returns its id."""
        tree = {path: self._store(path, data) for path, data in files.items()}
        repo = self.repos.setdefault(name, Repo())
        parent = repo.refs.get(branch)
        text = repr((name, parent, sorted((path, c.etag) for path, c in tree.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        repo.commits[commit] = tree
        repo.refs[branch] = commit
        return commit

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Gives a revision another name."""
        repo = self.repos[name]
        repo.refs[tag] = repo.refs.get(revision, revision)

    def fault(self, **what: Any) -> None:
        """Lets something go wrong: see `Fault`."""
        self.faults.append(Fault(**what))

    def asked(self, pattern: str) -> list[str]:
        """The requests so far, as `METHOD path`, in which the pattern is found."""
        return [str(r) for r in self.requests if re.search(pattern, str(r))]

    def content(self, etag: str) -> Path:
        """The file with that content."""
        return self.root / etag

    def struck(self, request: Request) -> Fault | None:
        """The fault that strikes a request; it is used up."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.match, str(request)):
                    fault.times -= 1
                    return fault
        return None

    def _store(self, path: str, data: bytes | Path) -> Content:
        new = self.root / "new"
        if isinstance(data, bytes):
            new.write_bytes(data)
        else:
            shutil.copyfile(data, new)
        nbytes = new.stat().st_size
        with new.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            git_id = hashlib.sha1(b"blob %d\0" % nbytes)
            for piece in iter(lambda: file.read(_PIECE), b""):
                git_id.update(piece)
        if not path.endswith(LFS_ENDS):
            stored = Content(nbytes=nbytes, git_id=git_id.hexdigest(), sha256=None)
        else:
            pointer = _pointer(sha256, nbytes)
            git_id = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer)
            stored = Content(nbytes=nbytes, git_id=git_id.hexdigest(), sha256=sha256)
        new.replace(self.content(stored.etag))
        return stored


def _pointer(sha256: str, nbytes: int) -> bytes:
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}")
    return "\n".join((*lines, f"size {nbytes}", "")).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self._lines: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        line, address = super().get_request()
        self._lines.append(line)
        return line, address

    def hang_up(self) -> None:
        """End the connections that clients keep for later."""
        for line in self._lines:
            with suppress(OSError):  # ended before
                line.shutdown(socket.SHUT_RDWR)


class _RefusedError(Exception):
    """The answer to a request that cannot be served."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    _fault: Fault | None

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def _serve(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, self.path, headers)
        self._fault = fault = self.server.hub.struck(request)
        if fault is not None and fault.status is not None:
            self._answer(fault.status, fault.body)
            return
        path = urlsplit(self.path).path
        try:
            for methods, pattern, serve in self.ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods.split():
                    serve(self, *(part and unquote(part) for part in match.groups()))
                    return
            raise _RefusedError(404, "", "no such route")
        except _RefusedError as error:
            self._answer(error.status, {"error": str(error)}, error.headers)

    # What is served.

    def _model_info(self, name: str, revision: str | None) -> None:
        repo, commit = self._at(name, revision or "main")
        blobs = "blobs" in self._query()
        info = {
            "_id": "1",
            "id": name,
            "modelId": name,
            "author": name.partition("/")[0],
            "sha": commit,
            "private": repo.private,
            "gated": "auto" if repo.gated else False,
            "disabled": False,
            "lastModified": _DATE,
            "createdAt": _DATE,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [
                {"rfilename": path, **(_sibling(content) if blobs else {})}
                for path, content in repo.commits[commit].items()
            ],
        }
        self._answer(200, info)

    def _tree(self, name: str, revision: str, folder: str | None) -> None:
        repo, commit = self._at(name, revision)
        inside = f"{folder}/" if folder else ""
        recursive = self._query().get("recursive", [""])[0].lower() in ("true", "1")
        entries = [
            {"type": "file", "path": path, "oid": content.git_id, **content.listed()}
            for path, content in repo.commits[commit].items()
            if path.startswith(inside) and (recursive or "/" not in path[len(inside) :])
        ]
        self._answer(200, entries)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo, commit = self._at(name, revision)
        if repo.gated and not self._knows_token():
            status = 403 if "Authorization" in self.headers else 401
            raise _RefusedError(status, "GatedRepo", f"Access to {name} is restricted")
        content = repo.commits[commit].get(path)
        if content is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{content.etag}"',
            "X-Linked-Size": str(content.nbytes),
        }
        if content.sha256 is not None:
            headers["Location"] = f"{self.server.hub.cdn}/{content.sha256}"
            self._answer(302, headers=headers)
        else:
            headers["Location"] = f"/api/resolve-cache/models/{name}/{commit}/{quote(path)}"
            self._answer(307, headers=headers)

    def _small_file(self, name: str, commit: str, path: str) -> None:
        content = self._at(name, commit)[0].commits[commit][path]
        self._send(content.etag, {"X-Repo-Commit": commit})

    def _large_file(self, sha256: str) -> None:
        self._send(sha256, {})

    ROUTES: tuple[tuple[str, str, Callable[..., None]], ...] = (
        ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", _model_info),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", _tree),
        ("GET HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
        (
            "GET HEAD",
            r"/api/resolve-cache/models/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)",
            _small_file,
        ),
        ("GET HEAD", r"/cdn/([0-9a-f]{64})", _large_file),
    )

    # What serving takes.

    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def _knows_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _at(self, name: str, revision: str) -> tuple[Repo, str]:
        """A repository, and a commit in it."""
        if "Authorization" in self.headers and not self._knows_token():
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        repo = self.server.hub.repos.get(name)
        if repo is None or (repo.private and not self._knows_token()):
            status = 404 if self._knows_token() else 401
            raise _RefusedError(status, "RepoNotFound", "Repository not found")
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, commit

    def _answer(
        self, status: int, body: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is None:
            data = b""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send(self, etag: str, headers: Mapping[str, str]) -> None:
        """Sends a content, or the range of it that is asked for."""
        path = self.server.hub.content(etag)
        nbytes = path.stat().st_size
        start, end, status = 0, nbytes, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = (
                int(match[1]),
                min(int(match[2] or nbytes) + 1, nbytes),
                206,
            )
        if status == 206 and start >= nbytes:
            self._answer(416, headers={"Content-Range": f"bytes */{nbytes}"})
            return
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{nbytes}")
        self.end_headers()
        if self.command != "HEAD":
            self._stream(path, start, end)

    def _stream(self, path: Path, start: int, end: int) -> None:
        fault = self._fault or Fault()
        stop = end if fault.cut is None else min(end, start + fault.cut)
        for offset, piece in _pieces(path, start, stop):
            if fault.flip is not None and 0 <= fault.flip - offset < len(piece):
                piece[fault.flip - offset] ^= 1
            self.wfile.write(piece)
        if fault.cut is not None:
            self.close_connection = True
            if fault.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()


def _sibling(content: Content) -> dict[str, Any]:
    """Sizes and digests as the model's description has them: others than the tree's."""
    listed = content.listed() | {"blobId": content.git_id}
    if content.sha256 is not None:
        listed["lfs"] = listed["lfs"] | {"sha256": content.sha256}
    return listed


def _pieces(path: Path, start: int, end: int) -> Iterator[tuple[int, bytearray]]:
    """A part of a file, piece by piece, each with where it begins."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = bytearray(file.read(min(_PIECE, end - start)))
            yield start, piece
            start += len(piece)
