"""The Hub as tests hold it: its repositories, switches and faults."""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote

from tests.fakehub import api, changes, discussions, state, transfer, xet
from tests.fakehub.calls import Call, Token
from tests.fakehub.chunks import Chunks
from tests.fakehub.misbehaviour import Misbehaviour
from tests.fakehub.server import Server
from tests.fakehub.state import LFS_ENDS, Content, Objects, Repo
from tests.fakehub.wire import Answer, RefusedError

#: May write wherever its user, "me", is a member: see `FakeHub.orgs`.
TOKEN: Final = "hf_known"
#: May read what `TOKEN` may.
READ_TOKEN: Final = "hf_reader"
#: Somebody else's, "other", who is a member of no organisation.
OTHER_TOKEN: Final = "hf_other"

_ROUTES: Final[tuple[tuple[str, str, Callable[..., Answer]], ...]] = (
    *api.ROUTES,
    *transfer.ROUTES,
    *changes.ROUTES,
    *discussions.ROUTES,
    *xet.ROUTES,
)

_FULL_PRIVATE: Final = (
    "Private repository storage limit reached, please upgrade your plan to increase your "
    "private storage limit."
)
_FULL: Final = (
    "Your storage patterns tripped our internal systems! Please contact us at "
    "website@huggingface.co so we can verify your account and unlock more storage for your "
    "use-case."
)


class FakeHub(Misbehaviour):
    """The Hub: its repositories, its faults, and a server as long as it is entered.

    Attributes:
        repos: by name; what tests change in them is in force at once.
        tokens: who each known token belongs to.
        xet: whether LFS contents are in Xet's storage too, and clients may use it.
        quota: most bytes of LFS contents that a repository may hold.
        page: most entries of a listing in one answer.
        multipart_over: contents of more bytes are uploaded in parts, of `chunk_size`.
        lifetime: for how many seconds signed addresses are good.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__()
        self.root = root
        self.objects = Objects(root)
        self.chunks = Chunks(root / "xet", self.objects)
        self.repos: dict[str, Repo] = state.load(root / "state.json")
        self.stopped = threading.Event()
        self.tokens = {TOKEN: Token(user="me"), READ_TOKEN: Token(user="me", role="read")}
        self.tokens[OTHER_TOKEN] = Token(user="other", orgs=frozenset())
        self.xet = False
        self.quota: int | None = None
        self.page = 1000
        self.multipart_over = 20_000_000
        self.chunk_size = 8_000_000
        self.lifetime = 3600.0
        self._server = Server(self, port)
        port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.origin = f"http://localhost:{port}"  # of contents, where no token belongs
        self.cdn = f"{self.origin}/cdn"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no more; requests find no one at the address."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    # What is there.

    def put(
        self, name: str, files: Mapping[str, bytes | Path], branch: str = "main"
    ) -> str:
        """Makes a commit with just these files; returns its id."""
        with self.changing():
            repo = self.repos.setdefault(name, Repo())
            held = {path: self._stored(repo, path, data) for path, data in files.items()}
            parent = repo.branches.get(branch)
            return repo.commit(repo.branches, branch, held, parent=parent, title=name)

    def tag(self, name: str, tag: str, revision: str = "main") -> None:
        """Gives a revision another name."""
        with self.changing():
            repo = self.repos[name]
            repo.tags[tag] = repo.resolve(revision) or revision

    def content(self, etag: str) -> Path:
        """The file with that content."""
        return self.objects.path(etag)

    def head(self, name: str, revision: str = "main") -> str:
        """The commit that a revision names."""
        commit = self.repos[name].resolve(revision)
        assert commit is not None, revision
        return commit

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a revision holds."""
        held = self.repos[name].commits[self.head(name, revision)].files
        for content in held.values():
            self.chunks.rebuild(content.etag)
        return {path: self.content(each.etag).read_bytes() for path, each in held.items()}

    @property
    def orgs(self) -> frozenset[str] | None:
        """The organisations that "me" is a member of; None, as at first, for all."""
        return self.tokens[TOKEN].orgs

    @orgs.setter
    def orgs(self, names: frozenset[str] | set[str] | None) -> None:
        chosen = None if names is None else frozenset(names)
        self.tokens[TOKEN] = Token(user="me", orgs=chosen)
        self.tokens[READ_TOKEN] = Token(user="me", role="read", orgs=chosen)

    # For the routes.

    def serve(self, call: Call) -> Answer:
        """Has the first route that matches serve."""
        for methods, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, call.request.route)
            if match and call.request.method in methods.split():
                return route(call, *(unquote(part or "") for part in match.groups()))
        raise RefusedError(404, "no such route")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One change at a time, which is then written down."""
        with self.lock:
            yield
            state.save(self.root / "state.json", self.repos)

    def upload_address(self, path: str) -> str:
        return f"{self.origin}{path}?{transfer.signed(path, self._until('up'))}"

    def download_address(self, sha256: str) -> str:
        path = f"/cdn/{sha256}"
        return f"{self.origin}{path}?{transfer.signed(path, self._until('down'))}"

    def good_until(self) -> int:
        return math.ceil(time.time() + self.lifetime)

    def uploaded(self, name: str, sha256: str) -> None:
        """A content came for a repository."""
        with self.changing():
            if name in self.repos:
                self.repos[name].stored.add(sha256)

    def check_quota(self, repo: Repo, more: int) -> None:
        """Refuses more bytes in LFS than a repository may hold."""
        paths = (self.content(sha256) for sha256 in repo.stored)
        held = sum(path.stat().st_size for path in paths if path.exists())
        if self.quota is not None and held + more > self.quota:
            raise RefusedError(403, _FULL_PRIVATE if repo.private else _FULL)

    def lookup(self, repo: Repo, sha256: str, size: int | None) -> Content | None:
        """A content that was uploaded for a repository, by LFS or in chunks."""
        path = self.content(sha256)
        if sha256 in repo.stored and path.exists():
            if size not in (None, path.stat().st_size):
                return None
            return self._in_lfs(sha256, path.stat().st_size)
        found = self.chunks.find(sha256) if self.xet else None
        if found is None:
            for commit in repo.commits.values():
                for content in commit.files.values():
                    if content.sha256 == sha256 and size in (None, content.nbytes):
                        return content
            return None
        self.check_quota(repo, found.nbytes)
        repo.stored.add(sha256)
        return state.in_lfs(sha256, found.nbytes, found.xet)

    def _until(self, way: str) -> int:
        return int(time.time()) - 1 if self.expires(way) else self.good_until()

    def _stored(self, repo: Repo, path: str, data: bytes | Path) -> Content:
        content = self.objects.add(data, lfs=path.endswith(LFS_ENDS))
        if content.sha256 is None:
            return content
        repo.stored.add(content.sha256)
        return self._in_lfs(content.sha256, content.nbytes)

    def _in_lfs(self, sha256: str, nbytes: int) -> Content:
        content = state.in_lfs(sha256, nbytes)
        xet_hash = self.chunks.hash(content) if self.xet else None
        return state.in_lfs(sha256, nbytes, xet_hash)
