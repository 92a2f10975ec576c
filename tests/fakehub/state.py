"""The repositories: their commits, refs, requests to pull, and the contents of files.

A content lies in a file under its digest. All else is one JSON document, rewritten in
one step after every change, so a server that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

#: Files with these ends are in LFS if a test puts them there, all others in git.
LFS_ENDS: Final = (".bin", ".gguf", ".safetensors")
#: When everything happens, so that a test's answers are the same each time.
DATE: Final = "2025-01-01T00:00:00.000Z"
PIECE: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file holds.

    Attributes:
        nbytes: its size.
        git_id: its blob in git; in LFS that is only a pointer to the content.
        sha256: of the content, if that is in LFS.
        xet: its hash in the storage of chunks, if it is there too.
    """

    nbytes: int
    git_id: str
    sha256: str | None
    xet: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.git_id

    def listed(self) -> dict[str, Any]:
        """What the Hub tells of it beside its name."""
        if self.sha256 is None:
            return {"size": self.nbytes}
        lfs = {"size": self.nbytes, "pointerSize": len(pointer(self.sha256, self.nbytes))}
        listed: dict[str, Any] = {"size": self.nbytes, "lfs": lfs | {"oid": self.sha256}}
        return listed if self.xet is None else listed | {"xetHash": self.xet}


@dataclass(kw_only=True)
class Commit:
    """A state of a branch, and what led to it."""

    id: str
    parent: str | None
    files: dict[str, Content]
    title: str = ""
    message: str = ""
    author: str = "me"
    date: str = DATE


@dataclass(kw_only=True)
class Discussion:
    """A discussion, or the request to pull the branch `refs/pr/<num>` into `base`."""

    num: int
    title: str
    author: str
    text: str = ""
    status: str = "open"
    base: str | None = None
    commits: list[str] = field(default_factory=list)
    merged: str | None = None


@dataclass
class Repo:
    """A repository.

    Attributes:
        private: unknown to those who are no members of its namespace.
        gated: listed for all, downloaded by members and those who were `granted` access;
            the Hub knows "auto" and "manual", for True it says "auto".
        commits: by id.
        branches: and the commit of each; so have `tags` and `pulls`, the latter under
            their full names, `refs/pr/1`.
        stored: the digests of what was uploaded to LFS for it.
    """

    private: bool = False
    gated: bool | str = False
    granted: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    discussions: list[Discussion] = field(default_factory=list)
    stored: set[str] = field(default_factory=set)

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag, a pull request or its own id names."""
        short = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        for refs in (self.branches, self.tags, self.pulls):
            if commit := refs.get(revision) or refs.get(short):
                return commit
        if revision in self.commits:
            return revision
        # The Hub takes abbreviations of at least seven digits.
        begun = [
            id for id in self.commits if len(revision) >= 7 and id.startswith(revision)
        ]
        return begun[0] if len(begun) == 1 else None

    def commit(
        self,
        refs: dict[str, str],
        ref: str,
        files: Mapping[str, Content],
        *,
        parent: str | None,
        title: str = "",
        message: str = "",
        author: str = "me",
    ) -> str:
        """Moves a ref to a new commit with just these files; returns its id."""
        named = sorted((path, content.etag) for path, content in files.items())
        text = repr((parent, named, title, message))
        id = hashlib.sha1(text.encode()).hexdigest()
        made = Commit(
            id=id,
            parent=parent,
            files=dict(files),
            title=title,
            message=message,
            author=author,
        )
        self.commits[id] = made
        refs[ref] = id
        return id


class Objects:
    """Contents, in files under their digests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (self.path(""), self.root / "incoming"):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, etag: str) -> Path:
        return self.root / "objects" / etag

    def incoming(self, name: str) -> Path:
        """Where something lies until it is complete."""
        return self.root / "incoming" / name

    def add(self, data: bytes | Path, lfs: bool) -> Content:
        """Stores what a file holds."""
        new = self.incoming(f"new-{os.urandom(8).hex()}")
        if isinstance(data, bytes):
            new.write_bytes(data)
        else:
            shutil.copyfile(data, new)
        nbytes = new.stat().st_size
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % nbytes)
        digest = sha256 if lfs else git
        with new.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        if lfs:
            stored = in_lfs(sha256.hexdigest(), nbytes)
        else:
            stored = Content(nbytes=nbytes, git_id=git.hexdigest(), sha256=None)
        new.replace(self.path(stored.etag))
        return stored


def in_lfs(sha256: str, nbytes: int, xet: str | None = None) -> Content:
    """A content in LFS; git holds a pointer to it."""
    text = pointer(sha256, nbytes)
    git_id = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
    return Content(nbytes=nbytes, git_id=git_id, sha256=sha256, xet=xet)


def pointer(sha256: str, nbytes: int) -> bytes:
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}")
    return "\n".join((*lines, f"size {nbytes}", "")).encode()


def save(path: Path, repos: Mapping[str, Repo]) -> None:
    """Writes the repositories down, in one step."""

    def plain(value: object) -> object:
        if isinstance(value, set):
            return sorted(value)
        raise TypeError(value)

    text = json.dumps({name: asdict(repo) for name, repo in repos.items()}, default=plain)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def load(path: Path) -> dict[str, Repo]:
    """What `save` wrote, or nothing where it did not."""
    if not path.exists():
        return {}
    return {name: _repo(value) for name, value in json.loads(path.read_text()).items()}


def _repo(value: dict[str, Any]) -> Repo:
    for key in ("granted", "stored"):
        value[key] = set(value[key])
    value["discussions"] = [Discussion(**each) for each in value["discussions"]]
    for commit in value["commits"].values():
        commit["files"] = {path: Content(**each) for path, each in commit["files"].items()}
    value["commits"] = {id: Commit(**each) for id, each in value["commits"].items()}
    return Repo(**value)
