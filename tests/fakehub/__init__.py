"""A Hugging Face Hub on loopback: to publish to, to download from, and to misbehave.

    hub.put("org/name", {"model.safetensors": b"…"})    a commit, on a branch
    hub.tag("org/name", "v1")
    hub.fault(match="/cdn/", flip=10)                   something goes wrong, once
    hub.fault(match="POST .*/commit/", after=True)      is done, but the answer is lost
    hub.rewrite("/tree/", how)                          answers other than the truth

Contents lie in files under their digests and are streamed from and to there, so models
may be larger than memory. Those in LFS come from another origin, as from the Hub's CDN,
at addresses that are signed and expire. What was asked for stands in `hub.requests`.

Run alone, for other processes, by `python -m tests.fakehub --root DIR`.
"""

from tests.fakehub.calls import Token
from tests.fakehub.faults import Fault
from tests.fakehub.hub import OTHER_TOKEN, READ_TOKEN, TOKEN, FakeHub
from tests.fakehub.misbehaviour import path_of
from tests.fakehub.state import LFS_ENDS, Commit, Content, Discussion, Repo
from tests.fakehub.wire import Answer, Part, Request

__all__ = [
    "LFS_ENDS",
    "OTHER_TOKEN",
    "READ_TOKEN",
    "TOKEN",
    "Answer",
    "Commit",
    "Content",
    "Discussion",
    "FakeHub",
    "Fault",
    "Part",
    "Repo",
    "Request",
    "Token",
    "path_of",
]
