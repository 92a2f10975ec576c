"""Discussions and pull requests."""

from __future__ import annotations

from typing import Any, Final

from tests.fakehub.calls import Call
from tests.fakehub.state import DATE, Discussion, Repo
from tests.fakehub.wire import Answer, RefusedError

_MODEL: Final = r"/api/models/([^/]+/[^/]+)"
_PAGE: Final = 25


def listed(call: Call, name: str) -> Answer:
    asks, chosen = call.request.asks, call.repo(name).discussions
    kind, status = asks("type"), asks("status")
    if kind in ("discussion", "pull_request"):
        chosen = [d for d in chosen if (d.base is not None) == (kind == "pull_request")]
    if status in ("open", "closed"):
        chosen = [d for d in chosen if (d.status == "open") == (status == "open")]
    if author := asks("author"):
        chosen = [d for d in chosen if d.author == author]
    start = _PAGE * int(asks("p") or 0)
    newest = list(reversed(chosen))[start : start + _PAGE]
    told = {"count": len(chosen), "start": start, "numClosedDiscussions": 0}
    return Answer.of(told | {"discussions": [_head(name, each) for each in newest]})


def _head(name: str, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "author": {"name": discussion.author, "type": "user"},
        "createdAt": DATE,
        "status": discussion.status,
        "isPullRequest": discussion.base is not None,
        "repo": {"name": name, "type": "model"},
        "pinned": False,
    }


def details(call: Call, name: str, num: str) -> Answer:
    repo = call.repo(name)
    discussion = _numbered(repo, num)
    told = _head(name, discussion) | {"events": _events(repo, discussion), "diff": ""}
    if discussion.base is not None:
        changes = {"base": f"refs/heads/{discussion.base}"}
        if discussion.merged is not None:
            changes["mergeCommitId"] = discussion.merged
        told |= {"changes": changes, "filesWithConflicts": []}
    return Answer.of(told)


def _numbered(repo: Repo, num: str) -> Discussion:
    for discussion in repo.discussions:
        if discussion.num == int(num):
            return discussion
    raise RefusedError(404, "Discussion not found")


def _events(repo: Repo, discussion: Discussion) -> list[dict[str, Any]]:
    author = {"name": discussion.author, "type": "user"}
    latest = {"raw": discussion.text, "html": "", "updatedAt": DATE, "author": author}
    data = {"edited": False, "hidden": False, "latest": latest, "history": []}
    events = [{"type": "comment", "data": data}]
    for id in discussion.commits:
        data = {"subject": repo.commits[id].title, "oid": id}
        events.append({"type": "commit", "data": data})
    if discussion.status != "open":
        events.append({"type": "status-change", "data": {"status": discussion.status}})
    return [
        {"id": f"{n:024x}", "createdAt": DATE, "author": author, **event}
        for n, event in enumerate(events)
    ]


def opened(call: Call, name: str) -> Answer:
    """Opens a discussion, or a pull request that has no commits yet."""
    repo, author, asked = call.repo(name), call.known(), call.json()
    with call.hub.changing():
        base = "main" if asked.get("pullRequest") else None
        num = 1 + len(repo.discussions)
        new = Discussion(num=num, title=asked["title"], author=author.user, base=base)
        new.text = asked.get("description", "")
        if base is not None:
            repo.pulls[f"refs/pr/{num}"] = repo.branches["main"]
        repo.discussions.append(new)
    return Answer.of(_head(name, new) | {"url": f"{call.hub.url}/{name}/discussions/{num}"})


def changed(call: Call, name: str, num: str) -> Answer:
    repo, asked = call.writable(name), call.json()
    with call.hub.changing():
        _numbered(repo, num).status = asked["status"]
    return Answer.of({"newStatus": {"status": asked["status"]}})


def merged(call: Call, name: str, num: str) -> Answer:
    """Takes a pull request's files as they are: nothing is joined here."""
    repo = call.writable(name)
    discussion = _numbered(repo, num)
    if discussion.base is None or discussion.status != "open":
        raise RefusedError(400, "This cannot be merged")
    with call.hub.changing():
        files = repo.commits[repo.pulls[f"refs/pr/{num}"]].files
        discussion.merged = repo.commit(
            repo.branches,
            discussion.base,
            files,
            parent=repo.branches[discussion.base],
            title=f"{discussion.title} (#{num})",
        )
        discussion.status = "merged"
    return Answer.of({})


ROUTES: Final = (
    ("GET", rf"{_MODEL}/discussions", listed),
    ("POST", rf"{_MODEL}/discussions", opened),
    ("GET", rf"{_MODEL}/discussions/(\d+)", details),
    ("POST", rf"{_MODEL}/discussions/(\d+)/status", changed),
    ("POST", rf"{_MODEL}/discussions/(\d+)/merge", merged),
)
