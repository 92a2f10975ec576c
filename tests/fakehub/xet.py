"""Where the Hub sends clients that store and fetch chunks by themselves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from tests.fakehub.calls import Call
from tests.fakehub.wire import Answer, RefusedError

_MODEL: Final = r"/api/models/([^/]+/[^/]+)"


def write_token(call: Call, name: str, revision: str) -> Answer:
    repo = call.writable(name, pull=bool(call.request.asks("create_pr")))
    del repo
    if not call.request.asks("create_pr"):
        call.at(name, revision)
    return _told(call, call.hub.chunks.writer)


def read_token(call: Call, name: str, revision: str) -> Answer:
    _, commit = call.at(name, revision)
    call.readable(name)
    return _told(call, lambda: call.hub.chunks.reader(commit.id, commit.files.values()))


def _told(call: Call, folder: object) -> Answer:
    if not call.hub.xet:
        raise RefusedError(404, "Xet is off")
    assert callable(folder)
    path: Path = folder()
    where, token = f"local://{path}", "xet_token"
    until = int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": where,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(until),
    }
    answer = Answer.of({"casUrl": where, "accessToken": token, "exp": until})
    answer.headers |= headers
    return answer


ROUTES: Final = (
    ("GET", rf"{_MODEL}/xet-write-token/([^/]+)", write_token),
    ("GET", rf"{_MODEL}/xet-read-token/([^/]+)", read_token),
)
