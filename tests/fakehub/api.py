"""What the Hub tells: of users, repositories, commits and files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import yaml

from tests.fakehub.calls import Call
from tests.fakehub.state import DATE, Commit, Content, Repo
from tests.fakehub.wire import Answer, RefusedError

_NAME: Final = r"([^/]+/[^/]+)"
_MODEL: Final = rf"/api/models/{_NAME}"


def whoami(call: Call) -> Answer:
    if (token := call.token) is None:
        raise RefusedError(401, "Invalid username or password.")
    orgs = sorted(token.orgs or {name.partition("/")[0] for name in call.hub.repos})
    told = {
        "type": "user",
        "id": "1",
        "name": token.user,
        "fullname": token.user,
        "isPro": False,
        "orgs": [
            {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": "write"}
            for org in orgs
            if org != token.user and token.member(f"{org}/")
        ],
        "auth": {
            "type": "access_token",
            "accessToken": {"displayName": "test", "role": token.role, "createdAt": DATE},
        },
    }
    return Answer.of(told)


def auth_check(call: Call, name: str, write: str) -> Answer:
    if write:
        call.writable(name)
    else:
        call.repo(name)
        call.readable(name)
    return Answer.of({})


def model_info(call: Call, name: str, revision: str) -> Answer:
    repo, commit = call.at(name, revision or "main")
    blobs = call.request.asks("blobs").lower() in ("true", "1")
    told = {
        "_id": "1",
        "id": name,
        "modelId": name,
        "author": name.partition("/")[0],
        "sha": commit.id,
        "private": repo.private,
        "gated": "auto" if repo.gated is True else repo.gated,
        "disabled": False,
        "lastModified": commit.date,
        "createdAt": DATE,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [
            {"rfilename": path, **(_sibling(content) if blobs else {})}
            for path, content in commit.files.items()
        ],
    }
    query = call.request.query
    if wanted := query.get("expand", []) + query.get("expand[]", []):
        told["cardData"] = _card_data(call, commit)
        told["usedStorage"] = sum(content.nbytes for content in _distinct(repo))
        told = {key: told[key] for key in ("_id", "id", *wanted) if key in told}
    return Answer.of(told)


def _sibling(content: Content) -> dict[str, Any]:
    """Sizes and digests as the model's description has them: others than the tree's."""
    listed = content.listed() | {"blobId": content.git_id}
    listed.pop("xetHash", None)
    if content.sha256 is not None:
        listed["lfs"] = listed["lfs"] | {"sha256": content.sha256}
    return listed


def _card_data(call: Call, commit: Commit) -> Any:
    content = commit.files.get("README.md")
    if content is None or content.sha256 is not None:
        return None
    try:
        return _metadata(call.hub.content(content.etag).read_text())
    except ValueError:
        return None


def _distinct(repo: Repo) -> Iterable[Content]:
    every = (
        content for commit in repo.commits.values() for content in commit.files.values()
    )
    return {content.etag: content for content in every}.values()


# Files.


def tree(call: Call, name: str, revision: str, folder: str) -> Answer:
    repo, commit = call.at(name, revision)
    inside = f"{folder}/" if folder else ""
    recursive = call.request.asks("recursive").lower() in ("true", "1")
    expand = call.request.asks("expand").lower() in ("true", "1")
    entries: dict[str, dict[str, Any]] = {}
    for path in commit.files:
        if not path.startswith(inside):
            continue
        parts = path[len(inside) :].split("/")
        for depth in range(1, len(parts)) if recursive else range(1, min(len(parts), 2)):
            here = inside + "/".join(parts[:depth])
            entries.setdefault(here, _entry(repo, commit, here, expand))
        if recursive or len(parts) == 1:
            entries[path] = _entry(repo, commit, path, expand)
    if folder and not entries:
        message = f"{folder} does not exist on {revision!r}"
        raise RefusedError(404, message, "EntryNotFound")
    size = min(call.hub.page, 50) if expand else call.hub.page
    return _page(call, list(entries.values()), size)


def _entry(repo: Repo, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    content = commit.files.get(path)
    if content is not None:
        entry = {"type": "file", "oid": content.git_id, **content.listed(), "path": path}
    else:
        held = sorted((p, c.git_id) for p, c in commit.files.items() if p.startswith(path))
        oid = hashlib.sha1(repr(held).encode()).hexdigest()  # not git's, but as good a name
        entry = {"type": "directory", "oid": oid, "size": 0, "path": path}
    if expand:
        last = commit
        while last.parent in repo.commits:
            before = repo.commits[last.parent]
            if content is None or before.files.get(path) != content:
                break
            last = before
        entry["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
        if content is not None:
            status = {"status": "safe", "avScan": None, "pickleImportScan": None}
            entry["securityFileStatus"] = status
    return entry


def _page(call: Call, entries: list[dict[str, Any]], size: int) -> Answer:
    """As many entries as one answer takes, and where the next are."""
    start = int(call.request.asks("cursor") or 0)
    answer = Answer.of(entries[start : start + size])
    if start + size < len(entries):
        query = call.request.query | {"cursor": [str(start + size)]}
        where = f"{call.hub.url}{call.request.route}?{urlencode(query, doseq=True)}"
        answer.headers["Link"] = f'<{where}>; rel="next"'
    return answer


def paths_info(call: Call, name: str, revision: str) -> Answer:
    repo, commit = call.at(name, revision)
    if "json" in call.request.headers.get("content-type", ""):
        asked = call.json()
    else:
        asked = parse_qs(call.received.all().decode())
    paths = asked.get("paths", [])
    if len(paths) > 1000:
        raise RefusedError(413, "too many parameters")
    expand = str(asked.get("expand", "")).lower().strip("[]'") in ("true", "1")
    entries = []
    for path in paths:
        path = path.rstrip("/")
        known = path in commit.files or any(p.startswith(f"{path}/") for p in commit.files)
        if known:
            entries.append(_entry(repo, commit, path, expand))
    return Answer.of(entries)


# History.


def refs(call: Call, name: str) -> Answer:
    repo = call.repo(name)
    told = {
        "branches": _refs(repo.branches, "refs/heads/"),
        "converts": [],
        "tags": _refs(repo.tags, "refs/tags/"),
    }
    if call.request.asks("include_prs"):
        told["pullRequests"] = _refs(repo.pulls, "")
    return Answer.of(told)


def _refs(named: dict[str, str], prefix: str) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": prefix + name, "targetCommit": commit}
        for name, commit in named.items()
    ]


def commits(call: Call, name: str, revision: str) -> Answer:
    repo, commit = call.at(name, revision or "main")
    told: list[dict[str, Any]] = []
    here: Commit | None = commit
    while here is not None:
        authors = [{"user": here.author, "avatar": ""}]
        entry = {"id": here.id, "title": here.title, "message": here.message}
        told.append({**entry, "date": here.date, "authors": authors})
        here = repo.commits.get(here.parent or "")
    return _page(call, told, min(call.hub.page, 50))


# Cards.


def validate_yaml(call: Call) -> Answer:
    """Some of the Hub's rules for cards: it has more."""
    warnings: list[str] = []
    errors: list[str] = []
    try:
        metadata = _metadata(call.json()["content"])
        if metadata is None:
            warnings.append("empty or missing yaml metadata in repo card")
        elif not isinstance(metadata, dict):
            errors.append("metadata should be an object")
        else:
            errors += _faults(metadata)
    except ValueError as error:
        errors.append(f"invalid yaml: {error}")
    told = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return Answer.of(told, 400 if errors else 200)


def _metadata(card: str) -> Any:
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(\r?\n|$)", card, re.DOTALL)
    if match is None:
        return None
    try:
        return yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise ValueError(error) from None


def _faults(metadata: dict[str, Any]) -> list[str]:
    faults = []
    if metadata.get("license") == "other" and "license_name" not in metadata:
        faults.append('"license_name" is required when "license" is "other"')
    for key, kinds in (
        ("license", (str, list)),
        ("tags", (list,)),
        ("base_model", (str, list)),
    ):
        if key in metadata and not isinstance(metadata[key], kinds):
            faults.append(f'"{key}" has a wrong type')
    return faults


ROUTES: Final[tuple[tuple[str, str, Callable[..., Answer]], ...]] = (
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("GET", rf"{_MODEL}(?:/revision/([^/]+))?", model_info),
    ("GET", rf"{_MODEL}/auth-check(/write)?", auth_check),
    ("GET", rf"{_MODEL}/tree/([^/]+)(?:/(.+))?", tree),
    ("POST", rf"{_MODEL}/paths-info/([^/]+)", paths_info),
    ("GET", rf"{_MODEL}/refs", refs),
    ("GET", rf"{_MODEL}/commits/([^/]+)", commits),
)
