"""What changes repositories: their making and settings, branches, tags and commits."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Final

from tests.fakehub.calls import Call
from tests.fakehub.ignored import LFS_PATTERNS, matches
from tests.fakehub.state import Commit, Content, Discussion, Repo
from tests.fakehub.wire import Answer, RefusedError

_NAME: Final = r"([^/]+/[^/]+)"
_MODEL: Final = rf"/api/models/{_NAME}"
_ATTRIBUTES: Final = "".join(
    f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS
)
#: Files of this size and more go to LFS, whatever they are called.
LARGE: Final = 10_000_000


def create_repo(call: Call) -> Answer:
    asked, token = call.json(), call.known()
    if asked.get("type", "model") != "model":
        raise RefusedError(400, "only models are known here")
    owner = asked.get("organization") or token.user
    name = f"{owner}/{asked['name']}"
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name, re.ASCII):
        raise RefusedError(400, f"Invalid repo name: {asked['name']}")
    if token.role != "write" or not token.member(name):
        message = (
            f'You don\'t have the rights to create a model under the namespace "{owner}"'
        )
        raise RefusedError(403, message)
    url = f"{call.hub.url}/{name}"
    with call.hub.changing():
        if name in call.hub.repos:
            told = {"error": "You already created this model repo", "url": url}
            return Answer.of(told, 409, X_Error_Message=told["error"])
        repo = call.hub.repos[name] = Repo(private=_private(asked) or False)
        files = {".gitattributes": call.hub.objects.add(_ATTRIBUTES.encode(), lfs=False)}
        repo.commit(repo.branches, "main", files, parent=None, title="initial commit")
    return Answer.of({"url": url, "name": name, "id": "1"})


def delete_repo(call: Call) -> Answer:
    asked, token = call.json(), call.known()
    name = f"{asked.get('organization') or token.user}/{asked['name']}"
    call.writable(name)
    with call.hub.changing():
        del call.hub.repos[name]
    return Answer.of({})


def settings(call: Call, name: str) -> Answer:
    repo, asked = call.writable(name), call.json()
    gated = asked.get("gated", repo.gated)
    if gated not in ("auto", "manual", False, True):
        raise RefusedError(400, "Invalid gated")
    with call.hub.changing():
        repo.gated = gated
        private = _private(asked)
        repo.private = repo.private if private is None else private
    return Answer.of({"gated": repo.gated, "private": repo.private})


def _private(asked: dict[str, Any]) -> bool | None:
    visibility = asked.get("visibility")
    if visibility not in (None, "public", "private"):
        raise RefusedError(400, f"Invalid visibility: {visibility}")
    told: bool | None = asked.get("private")
    return told if visibility is None else visibility == "private"


def tag(call: Call, name: str, revision: str) -> Answer:
    """Makes a tag of a revision; tags, unlike branches, are never moved."""
    repo = call.writable(name)
    asked, commit = call.json(), call.at(name, revision)[1]
    with call.hub.changing():
        if asked["tag"] in repo.tags:
            raise RefusedError(409, "Tag reference exists already")
        repo.tags[asked["tag"]] = commit.id
    return Answer.of({})


def delete_tag(call: Call, name: str, tag: str) -> Answer:
    repo = call.writable(name)
    with call.hub.changing():
        if repo.tags.pop(tag, None) is None:
            raise RefusedError(404, f"Invalid rev id: {tag}", "RevisionNotFound")
    return Answer.of({})


def branch(call: Call, name: str, branch: str) -> Answer:
    repo = call.writable(name)
    if branch.startswith("refs/"):
        raise RefusedError(400, f"Invalid reference for a branch: {branch}")
    asked = call.json() if call.received.there else {}
    start = call.at(name, asked.get("startingPoint") or "main")[1]
    with call.hub.changing():
        if branch in repo.branches:
            raise RefusedError(409, "Reference already exists")
        repo.branches[branch] = start.id
    return Answer.of({})


def delete_branch(call: Call, name: str, branch: str) -> Answer:
    repo = call.writable(name)
    if branch == "main":
        raise RefusedError(403, "Cannot delete the main branch")  # a guess at the words
    with call.hub.changing():
        if repo.branches.pop(branch, None) is None:
            raise RefusedError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    return Answer.of({})


# Commits.


def preupload(call: Call, name: str, revision: str) -> Answer:
    """How each file is to come: with the commit, or before it by LFS, or not at all."""
    call.writable(name, pull=bool(call.request.asks("create_pr")))
    commit, asked = call.at(name, revision)[1], call.json()
    ignored = asked.get("gitIgnore")
    if ignored is None:
        ignored = _text(call, commit, ".gitignore")
    attributes = _text(call, commit, ".gitattributes").splitlines()
    patterns = [line.split()[0] for line in attributes if "filter=lfs" in line]
    told = []
    for file in asked["files"]:
        path, there = file["path"], commit.files.get(file["path"])
        lfs = (
            file["size"] >= LARGE
            or b"\0" in base64.b64decode(file["sample"])  # as git tells what is no text
            or matches([*LFS_PATTERNS, *patterns], path)
        )
        entry = {"path": path, "uploadMode": "lfs" if lfs else "regular"}
        entry |= {"shouldIgnore": matches(ignored.splitlines(), path)}
        told.append(entry if there is None else entry | {"oid": there.etag})
    return Answer.of({"files": told, "commitOid": commit.id})


def _text(call: Call, commit: Commit, path: str) -> str:
    content = commit.files.get(path)
    return "" if content is None else call.hub.content(content.etag).read_text()


def commit(call: Call, name: str, revision: str) -> Answer:
    """Makes a commit of what the lines say, on a branch or on a new one to be pulled."""
    pull = bool(call.request.asks("create_pr"))
    repo = call.writable(name, pull=pull)
    author = call.known().user
    lines = list(call.lines())
    head = next((line["value"] for line in lines if line["key"] == "header"), None)
    if head is None or not head.get("summary"):
        raise RefusedError(400, "The commit message is missing")
    with call.hub.changing():
        parent = call.at(name, revision)[1]
        if wanted := head.get("parentCommit"):
            if pull:
                parent = call.at(name, wanted)[1]
            elif not parent.id.startswith(wanted.lower()):
                message = "A commit has happened since. Please refresh and try again."
                raise RefusedError(412, message)
        files = dict(parent.files)
        for line in lines:
            _apply(call, name, repo, files, line["key"], line["value"])
        told: dict[str, Any] = {"success": True, "hookOutput": ""}
        refs, ref = _ref(repo, revision), revision
        if pull:
            num = 1 + len(repo.discussions)
            refs, ref = repo.pulls, f"refs/pr/{num}"
            asked = Discussion(num=num, title=head["summary"], author=author, base=revision)
            asked.text = head.get("description", "")
            repo.discussions.append(asked)
            told["pullRequestUrl"] = f"{call.hub.url}/{name}/discussions/{num}"
        id = repo.commit(
            refs,
            ref,
            files,
            parent=parent.id,
            title=head["summary"],
            message=head.get("description", ""),
            author=author,
        )
        for discussion in repo.discussions:
            if ref == f"refs/pr/{discussion.num}":
                discussion.commits.append(id)
    url = f"{call.hub.url}/{name}/commit/{id}"
    return Answer.of(told | {"commitOid": id, "commitUrl": url})


def _ref(repo: Repo, revision: str) -> dict[str, str]:
    for refs in (repo.branches, repo.pulls):
        if revision in refs:
            return refs
    raise RefusedError(400, f"{revision} is no branch")  # a guess at the words


def _apply(
    call: Call,
    name: str,
    repo: Repo,
    files: dict[str, Content],
    key: str,
    value: dict[str, Any],
) -> None:
    """Does to the files what one line of a commit says."""
    path = value.get("path", "")
    if key == "header":
        return
    if path in ("", ".", "..") or re.search(r"(^|/)(\.\.?|\.git|)(/|$)", path.rstrip("/")):
        raise RefusedError(400, f"Invalid path: {path}")
    if key == "file":
        data = base64.b64decode(value["content"])
        files[path] = call.hub.objects.add(data, lfs=False)
    elif key == "lfsFile":
        # A copy of a file that is in LFS comes without its size.
        content = call.hub.lookup(repo, value["oid"], value.get("size"))
        if content is None:
            message = f"LFS pointer pointed to a file that does not exist: {path}"
            raise RefusedError(400, message)
        files[path] = content
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
    elif key == "deletedFolder":
        held = [p for p in files if p.startswith(path.rstrip("/") + "/")]
        if not held:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        for each in held:
            del files[each]
    elif key == "copyFile":
        # As the Hub's own pages send it; the Python client sends the content instead.
        source = files
        if value.get("srcRevision"):
            source = call.at(name, value["srcRevision"])[1].files
        if value["srcPath"] not in source:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        files[path] = source[value["srcPath"]]
    else:
        raise RefusedError(400, f"Unknown operation: {key}")


ROUTES: Final[tuple[tuple[str, str, Callable[..., Answer]], ...]] = (
    ("POST", r"/api/repos/create", create_repo),
    ("DELETE", r"/api/repos/delete", delete_repo),
    ("PUT", rf"{_MODEL}/settings", settings),
    ("POST", rf"{_MODEL}/tag/([^/]+)", tag),
    ("DELETE", rf"{_MODEL}/tag/([^/]+)", delete_tag),
    ("POST", rf"{_MODEL}/branch/([^/]+)", branch),
    ("DELETE", rf"{_MODEL}/branch/([^/]+)", delete_branch),
    ("POST", rf"{_MODEL}/preupload/([^/]+)", preupload),
    ("POST", rf"{_MODEL}/commit/([^/]+)", commit),
)
