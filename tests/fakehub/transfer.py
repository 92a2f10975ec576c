"""Contents up and down: where files are, LFS's uploads, and the CDN's signed addresses."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from tests.fakehub.calls import Call
from tests.fakehub.wire import Answer, Part, RefusedError, XmlRefusedError

_NAME: Final = r"([^/]+/[^/]+)"
_KEY: Final = b"of the storage behind this Hub"
_HASH: Final = r"([0-9a-f]{64})"


def signed(path: str, expires: int) -> str:
    """An address's query: until when it is good, and a proof that the Hub says so."""
    text = f"{path}?{expires}".encode()
    return f"Expires={expires}&Signature={hmac.digest(_KEY, text, 'sha256').hex()}"


def _check_signature(call: Call) -> None:
    request = call.request
    expires = request.asks("Expires")
    good = expires.isdigit() and signed(request.route, int(expires))
    if good != f"Expires={expires}&Signature={request.asks('Signature')}":
        message = "The request signature we calculated does not match the one you provided."
        raise XmlRefusedError(403, "SignatureDoesNotMatch", message)
    if time.time() >= int(expires):
        raise XmlRefusedError(403, "AccessDenied", "Request has expired")


# Down.


def resolve(call: Call, name: str, revision: str, path: str) -> Answer:
    """Where a file's content is: on the CDN if in LFS, with the Hub otherwise."""
    _, commit = call.at(name, revision)
    call.readable(name)
    content = commit.files.get(path)
    if content is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.id)
    headers = {
        "X-Repo-Commit": commit.id,
        "X-Linked-Etag": f'"{content.etag}"',
        "X-Linked-Size": str(content.nbytes),
        "Accept-Ranges": "bytes",
    }
    if content.sha256 is None:
        where = f"/api/resolve-cache/models/{name}/{commit.id}/{quote(path)}"
        return Answer(307, b"", headers | {"Location": where})
    if content.xet is not None:
        headers["X-Xet-Hash"] = content.xet
        auth = f"{call.hub.url}/api/models/{name}/xet-read-token/{commit.id}"
        headers["Link"] = f'<{auth}>; rel="xet-auth"'
    headers["Location"] = call.hub.download_address(content.sha256)
    return Answer(302, b"", headers)


def small_file(call: Call, name: str, commit: str, path: str) -> Answer:
    content = call.at(name, commit)[1].files.get(path)
    call.readable(name)
    if content is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    return _sent(call, content.etag, {"X-Repo-Commit": commit})


def large_file(call: Call, sha256: str) -> Answer:
    _check_signature(call)
    call.hub.chunks.rebuild(sha256)
    return _sent(call, sha256, {})


def _sent(call: Call, etag: str, headers: Mapping[str, str]) -> Answer:
    """A content, or the range of it that is asked for."""
    path = call.hub.content(etag)
    if not path.exists():
        raise XmlRefusedError(404, "NoSuchKey", "The specified key does not exist.")
    nbytes = path.stat().st_size
    start, end, status = 0, nbytes, 200
    asked = call.request.headers.get("range", "")
    if match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
        start, status = int(match[1]), 206
        end = min(int(match[2] or nbytes) + 1, nbytes)
    elif match := re.fullmatch(r"bytes=-(\d+)", asked):
        start, status = max(0, nbytes - int(match[1])), 206
    if status == 206 and start >= end:
        return Answer(416, b"", {"Content-Range": f"bytes */{nbytes}"})
    headers = {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{nbytes}"
    return Answer(status, Part(path, start, end), headers)


# Up.


def batch(call: Call, name: str) -> Answer:
    """Where to put contents; those that the repository has need not come again."""
    asked = call.json()
    # The client asks so for pull requests too, and names no revision then.
    repo = call.writable(name, pull="ref" not in asked)
    new = [o for o in asked["objects"] if o["oid"] not in repo.stored]
    call.hub.check_quota(repo, sum(o["size"] for o in new))
    objects, transfer = [], "basic"
    for each in asked["objects"]:
        told: dict[str, Any] = {"oid": each["oid"], "size": each["size"]}
        if not re.fullmatch(_HASH, each["oid"]) or each["size"] < 0:
            told["error"] = {"code": 422, "message": "Invalid oid or size"}
        elif each in new:
            large = each["size"] > call.hub.multipart_over
            if large and "multipart" in asked.get("transfers", ()):
                transfer = "multipart"
                told["actions"] = {"upload": _in_parts(call, name, **each)}
            else:
                href = call.hub.upload_address(f"/lfs/{name}/{each['oid']}")
                told["actions"] = {"upload": {"href": href, "header": {}}}
            verify = f"{call.hub.url}/{name}.git/info/lfs/objects/verify"
            told["actions"]["verify"] = {"href": verify, "header": {}}
        objects.append(told)
    return Answer.of({"transfer": transfer, "objects": objects})


def _in_parts(call: Call, name: str, oid: str, size: int) -> dict[str, Any]:
    chunk = call.hub.chunk_size
    path, count = f"/lfs/{name}/{oid}", -(-size // chunk)
    urls = {str(n): call.hub.upload_address(f"{path}/{n}") for n in range(1, count + 1)}
    # The Hub, not its storage, puts the parts together, and knows who asked by the
    # address alone: the client sends no token there.
    complete = f"/api/complete_multipart/{name}/{oid}/{size}"
    href = f"{call.hub.url}{complete}?{signed(complete, call.hub.good_until())}"
    return {"href": href, "header": {"chunk_size": str(chunk), **urls}}


def put_whole(call: Call, name: str, sha256: str) -> Answer:
    _check_signature(call)
    hub, new = call.hub, call.hub.objects.incoming(f"{sha256}-{os.urandom(8).hex()}")
    digest = hashlib.sha256()
    try:
        with new.open("wb", buffering=0) as file:
            for piece in call.received.pieces():
                file.write(piece)
                digest.update(piece)
        if digest.hexdigest() != sha256:
            # A guess: some storage would take it and the Hub find out later.
            raise XmlRefusedError(
                400, "BadDigest", "The sha256 you specified did not match"
            )
        new.replace(hub.content(sha256))
    finally:
        new.unlink(missing_ok=True)
    hub.uploaded(name, sha256)
    return Answer(200, b"", {"ETag": f'"{sha256[:32]}"'})


def put_part(call: Call, name: str, sha256: str, number: str) -> Answer:
    """Takes a part of a content to its place in the whole."""
    _check_signature(call)
    del name
    path = call.hub.objects.incoming(sha256)
    at = (int(number) - 1) * call.hub.chunk_size
    count = 0
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
        file.seek(at)
        for piece in call.received.pieces():
            count += file.write(piece)
    # Not the md5 of S3, which would take longer than all else; clients only return it.
    etag = f'"{sha256[:16]}-{number}-{count}"'
    path.with_name(f"{sha256}.{number}").write_text(etag)
    return Answer(200, b"", {"ETag": etag})


def complete(call: Call, name: str, sha256: str, size: str) -> Answer:
    _check_signature(call)
    sent = call.json()
    whole = call.hub.objects.incoming(sha256)
    count = -(-int(size) // call.hub.chunk_size)
    parts = {each["partNumber"]: each["etag"] for each in sent["parts"]}
    files = [whole.with_name(f"{sha256}.{n}") for n in range(1, count + 1)]
    etags = [file.read_text() if file.exists() else None for file in files]
    if sent["oid"] != sha256 or [parts.get(n) for n in range(1, count + 1)] != etags:
        raise RefusedError(400, "One or more of the specified parts could not be found.")
    with whole.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256 or whole.stat().st_size != int(size):
        raise RefusedError(400, "The uploaded file does not have the announced digest.")
    whole.replace(call.hub.content(sha256))
    for each in files:
        each.unlink()
    call.hub.uploaded(name, sha256)
    return Answer.of({"success": True})


def verify(call: Call, name: str) -> Answer:
    repo, told = call.writable(name, pull=True), call.json()
    path = call.hub.content(told["oid"])
    if told["oid"] not in repo.stored or path.stat().st_size != told["size"]:
        raise RefusedError(404, "Object does not exist, or not with this size")
    return Answer.of({})


ROUTES: Final = (
    ("GET HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", resolve),
    ("GET HEAD", rf"/api/resolve-cache/models/{_NAME}/([0-9a-f]{{40}})/(.+)", small_file),
    ("GET HEAD", rf"/cdn/{_HASH}", large_file),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", batch),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/verify", verify),
    ("PUT", rf"/lfs/{_NAME}/{_HASH}", put_whole),
    ("PUT", rf"/lfs/{_NAME}/{_HASH}/(\d+)", put_part),
    ("POST", rf"/api/complete_multipart/{_NAME}/{_HASH}/(\d+)", complete),
)
