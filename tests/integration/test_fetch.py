"""`releasekit fetch`: the right bytes, or a message that says what to do next.

Faults of the line and of servers are here; what a hostile Hub tells, too.
"""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from releasekit import PrivateKey, PublicKey, Ulp, make_delta, sign
from releasekit.digest import sha256_hex
from releasekit.errors import ReleaseKitError
from releasekit.hub.address import Address
from releasekit.hub.answers import FaultError
from releasekit.hub.cache import receive
from releasekit.hub.listing import HubFile
from releasekit.hub.snapshots import resolve
from releasekit.hub.transfer import Source
from releasekit.progress import Progress
from releasekit.signing.keys import write_pair
from tests.builders import model_folder
from tests.fakehub import TOKEN, Answer, FakeHub, Part, Request, path_of
from tests.integration.test_memory import peak_nbytes
from tests.integration.tools import COMMAND, TRACEBACK, Done, digests, here, small_pair

NAME = "org/model"
WEIGHTS = "model.safetensors"
DATA = bytes(range(251)) * 4000  # about a megabyte
CONFIG = b'{"model_type": "llama"}'
FILES: dict[str, bytes | Path] = {"config.json": CONFIG, WEIGHTS: DATA}
DIGEST = sha256_hex(DATA)
CDN = f"GET /cdn/{DIGEST}"
#: The three kinds of request that a download takes, and one for what is not in LFS.
PLACES = {
    "listing": "GET /api/models/",
    "redirect": f"GET /{NAME}/resolve/.*{WEIGHTS}",
    "content": CDN,
    "small": "GET /api/resolve-cache/.*config.json",
}
SECRETS = re.compile(rf"Signature=|Expires=|{TOKEN}|Bearer")


def fetch(reference: str = NAME, *more: str | Path) -> Done:
    """The command; neither a token nor a signed address is ever told."""
    done = here("fetch", reference, "--json", *more)
    assert not SECRETS.search(done.stdout + done.stderr), done
    assert TRACEBACK not in done.stderr
    return done


def fetched(reference: str = NAME, *more: str | Path) -> Any:
    """The same, where it must succeed."""
    done = fetch(reference, *more)
    assert done.code == 0, done.stdout + done.stderr
    return done.json


def refused(code: int, reference: str = NAME, *more: str | Path) -> str:
    """What it says where it must fail."""
    done = fetch(reference, *more)
    assert done.code == code, done.stdout + done.stderr
    message: str = done.json["error"]["message"]
    return message


def contents(folder: str | Path) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def files_of(folder: Path) -> dict[str, bytes | Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


def ranges(hub: FakeHub, match: str = CDN) -> list[str | None]:
    """Which parts of a file were asked for."""
    return [r.headers.get("range") for r in hub.requests if re.search(match, str(r))]


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than most tests here, none of which needs any."""
    context = partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("ssl.create_default_context", lambda *args, **kwargs: context())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf" / "hub" / "models--org--model"


@pytest.fixture
def growing(cache: Path) -> Path:
    """What an interrupted download left in the cache."""
    return cache / "blobs" / f"{DIGEST}.releasekit"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is borne for a moment only."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", 0.2)


@pytest.fixture(params=["cache", "out"])
def to(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str | Path, ...]:
    """Options: into the cache, and into a folder."""
    return () if request.param == "cache" else ("--out", tmp_path / "out")


# What there is to fetch.


def test_a_model_into_the_cache(hub: FakeHub, cache: Path) -> None:
    commit = hub.put(NAME, FILES)
    found = fetched()
    stages = {stage["name"]: stage["nbytes"] for stage in found.pop("stages")}
    assert stages == {"download": len(DATA) + len(CONFIG), "verify": len(CONFIG)}
    assert found == {
        "path": str(cache / "snapshots" / commit),
        "name": NAME,
        "commit": commit,
        "kind": "model",
        "nbytes": len(DATA) + len(CONFIG),
        "downloaded_nbytes": len(DATA) + len(CONFIG),
        "offline": None,
        "against": "hub",
        "files": {"config.json": sha256_hex(CONFIG), WEIGHTS: DIGEST},
        "signature": {
            "status": "unsigned",
            "key": None,
            "publisher": None,
            "warnings": found["signature"]["warnings"],
        },
        "notes": [],
    }
    assert contents(found["path"]) == FILES
    assert len(hub.asked(CDN)) == 1
    hub.requests.clear()
    again = fetched()
    assert [stage["name"] for stage in again.pop("stages")] == ["verify"]
    assert again == found | {"downloaded_nbytes": 0}
    assert hub.asked("") == [f"GET /api/models/{NAME}/revision/main?blobs=true"]


def test_a_model_into_a_folder_is_the_only_copy(
    hub: FakeHub, cache: Path, tmp_path: Path
) -> None:
    hub.put(NAME, FILES)
    out = tmp_path / "out"
    found = fetched(NAME, "--out", out)
    assert found["path"] == str(out)
    assert found["downloaded_nbytes"] == len(DATA) + len(CONFIG)
    assert contents(out) == FILES
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert not cache.exists()
    assert not out.with_name("out.partial").exists()


def test_what_the_cache_has_is_copied_from_there(hub: FakeHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    fetched()
    hub.requests.clear()
    found = fetched(NAME, "--out", tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    assert found["downloaded_nbytes"] == 0
    assert hub.asked("/resolve|/cdn") == []


def test_a_damaged_content_in_the_cache_is_not_copied(
    hub: FakeHub, cache: Path, tmp_path: Path
) -> None:
    hub.put(NAME, FILES)
    fetched()
    (cache / "blobs" / DIGEST).write_bytes(b"!" + DATA[1:])
    assert fetched(NAME, "--out", tmp_path / "out")["downloaded_nbytes"] == len(DATA)
    assert contents(tmp_path / "out") == FILES


def test_in_words(hub: FakeHub, cache: Path) -> None:
    commit = hub.put(NAME, FILES)
    done = here("fetch", NAME, "-v")
    folder = cache / "snapshots" / commit
    assert re.sub(" +", " ", done.stdout).splitlines() == [
        f"model {NAME}@{commit}",
        f"folder {folder}",
        "files 2, 1 MB",
        " 1 MB downloaded, 0 B here before",
        "checked every byte, against the Hub's own digests; its publisher left no list",
        "signature none",
        f"{sha256_hex(CONFIG)} config.json",
        f"{DIGEST} {WEIGHTS}",
    ]


def test_an_output_that_exists(hub: FakeHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    out = tmp_path / "out"
    fetched(NAME, "--out", out)
    hub.requests.clear()
    assert refused(2, NAME, "--out", out) == (
        f"{out}: exists already; choose another --out, or replace it with --force"
    )
    assert hub.asked("/resolve/") == []
    (out / WEIGHTS).write_bytes(b"changed")
    fetched(NAME, "--out", out, "--force")
    assert contents(out) == FILES


def test_names_and_sizes_of_all_kinds(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...]
) -> None:
    files: dict[str, bytes | Path] = {
        "config.json": b"{}",
        "model.safetensors.index.json": b"",
        "model-00001-of-00002.safetensors": DATA,
        "model-00002-of-00002.safetensors": DATA,
        "empty.safetensors": b"",
        "größe 100% + #1?.json": b"[1]",
        "日本語/sub folder/a&b=c.txt": b"text",
        "SHA256SUMS": b"",
    }
    sums = "".join(
        f"{sha256_hex(data)}  {name}\n"
        for name, data in sorted(files.items())
        if name != "SHA256SUMS" and isinstance(data, bytes)
    )
    files["SHA256SUMS"] = sums.encode()
    hub.put(NAME, files)
    found = fetched(NAME, *to)
    assert contents(found["path"]) == files
    assert found["against"] == "list"
    if not to:
        assert len(hub.asked(CDN)) == 1  # two files of one content


def test_only_what_a_model_consists_of(hub: FakeHub) -> None:
    extra = {"model.gguf": b"GGUF", "pytorch_model.bin": b"PK", ".gitattributes": b"*"}
    hub.put(NAME, FILES | extra)
    assert fetched()["files"].keys() == FILES.keys()
    assert not hub.asked("gguf|[.]bin|gitattributes")


# The revision.


@pytest.mark.parametrize("revision", ["v1", "COMMIT", "branch"])
def test_another_revision(
    hub: FakeHub, tmp_path: Path, revision: str, to: tuple[str | Path, ...]
) -> None:
    commit = hub.put(NAME, FILES, branch="branch")
    hub.tag(NAME, "v1", "branch")
    hub.put(NAME, FILES | {"config.json": b"{}"})
    found = fetched(f"{NAME}@{revision.replace('COMMIT', commit)}", *to)
    assert found["commit"] == commit
    assert contents(found["path"]) == FILES


def test_a_revision_that_moves_meanwhile_is_pinned(
    hub: FakeHub, to: tuple[str | Path, ...]
) -> None:
    commit = hub.put(NAME, FILES)
    other = {"config.json": b"{}", WEIGHTS: DATA[::-1]}
    hub.fault(match="/resolve/", call=lambda request: hub.put(NAME, other))
    found = fetched(NAME, *to)
    assert found["commit"] == commit
    assert contents(found["path"]) == FILES
    assert hub.head(NAME) != commit
    assert not hub.asked("/resolve/main/")


def test_an_interrupted_folder_goes_on_with_a_revision_that_moved(
    hub: FakeHub, tmp_path: Path
) -> None:
    sums = f"{sha256_hex(CONFIG)}  config.json\n{DIGEST}  {WEIGHTS}\n".encode()
    hub.put(NAME, FILES | {"SHA256SUMS": sums, "old/x": b"", "licenses": b""})
    out = tmp_path / "out"
    hub.fault(match=CDN, skip=1, status=409, times=math.inf)
    hub.fault(match=CDN, cut=600_000)
    assert "did not arrive" in refused(8, NAME, "--out", out)
    new = {"config.json": b"{}", WEIGHTS: DATA, "old": b"", "licenses/y": b"y"}
    commit = hub.put(NAME, new)
    hub.faults.clear()
    hub.requests.clear()
    found = fetched(NAME, "--out", out)
    assert found["commit"] == commit
    assert contents(out) == new
    assert ranges(hub) == ["bytes=600000-"]
    assert found["downloaded_nbytes"] == len(DATA) - 600_000 + len(b"{}") + len(b"y")


# What passes by itself.


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
FLEETING: dict[str, list[dict[str, Any]]] = {
    "status": [{"status": status} for status in (408, 429, 500, 502)],
    "more of them": [{"status": status} for status in (503, 504, 520, 425)],
    "limits": [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 429, "headers": {"Retry-After": DATE}},
        {"status": 503, "headers": {"Retry-After": "0"}},
    ],
    "reset": [{"before": True}, {"before": True}],
    "ended": [{"cut": 0}, {"cut": 0, "reset": True}, {"cut": 10}],
    "stalled": [{"stall": 5}],
    "stalled inside": [{"stall": 5, "at": 10}],
}


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("listing", kind) for kind in FLEETING),
        *(("content", kind) for kind in FLEETING),
        *(("redirect", kind) for kind in ("status", "limits", "reset", "stalled")),
        *(("small", kind) for kind in ("status", "ended", "stalled inside")),
        *(("out", kind) for kind in ("more of them", "reset", "ended")),
    ],
)
def test_what_passes_is_borne(hub: FakeHub, tmp_path: Path, place: str, kind: str) -> None:
    to = ("--out", tmp_path / "out") if place == "out" else ()
    match = CDN if place == "out" else PLACES[place]
    hub.put(NAME, FILES)
    for fault in FLEETING[kind]:
        hub.fault(match=match, **fault)
    found = fetched(NAME, *to)
    assert contents(found["path"]) == FILES
    assert found["downloaded_nbytes"] == len(DATA) + len(CONFIG)
    assert len(hub.asked(match)) == len(FLEETING[kind]) + 1


@pytest.mark.parametrize("place", ["redirect", "content"])
def test_what_the_hub_says_of_its_limits_is_kept(hub: FakeHub, place: str) -> None:
    hub.put(NAME, FILES)
    limits = {"RateLimit": '"api";r=0;t=0', "RateLimit-Policy": '"api";q=500;w=300'}
    hub.fault(match=PLACES[place], status=429, headers=limits)
    began = time.monotonic()
    assert contents(fetched()["path"]) == FILES
    # `t` is in whole seconds; contents are not the Hub's to limit.
    assert (time.monotonic() - began > 0.95) == (place != "content")


@pytest.mark.parametrize("place", ["listing", "redirect"])
@pytest.mark.parametrize(
    "headers", [{"Retry-After": "301"}, {"RateLimit": '"api";r=0;t=300'}]
)
def test_who_is_to_wait_too_long_is_told_at_once(
    hub: FakeHub, place: str, headers: dict[str, str]
) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=PLACES[place], status=429, headers=headers)
    assert "answered 429 Too Many Requests" in refused(8)
    assert len(hub.asked(PLACES[place])) == 1


def test_a_limit_with_the_cache_at_hand_is_waited_for(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    fetched()
    commit = hub.put(NAME, FILES | {"config.json": b"{}"})
    hub.fault(match=PLACES["listing"], status=429, times=2)
    assert fetched()["commit"] == commit


def test_an_address_that_expired_is_renewed(
    hub: FakeHub, to: tuple[str | Path, ...]
) -> None:
    hub.put(NAME, FILES)
    hub.expire_downloads(2)
    assert contents(fetched(NAME, *to)["path"]) == FILES
    assert len(hub.asked(CDN)) == len(hub.asked(PLACES["redirect"])) == 3


def test_an_address_that_expires_inside_a_file_is_renewed(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, cut=400_000, call=lambda request: hub.expire_downloads(1))
    assert contents(fetched()["path"]) == FILES
    assert ranges(hub) == [None, "bytes=400000-", "bytes=400000-"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_cdn_that_refuses_an_address_is_asked_with_another(
    hub: FakeHub, status: int
) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, status=status, times=4)
    assert contents(fetched()["path"]) == FILES


def whole(request: Request, answer: Answer) -> None:
    """A server that knows no ranges."""
    if answer.status == 206:
        assert isinstance(answer.body, Part)
        answer.status, answer.body = 200, replace(answer.body, start=0, end=len(DATA))
        answer.set("Content-Range", None)


def test_a_server_that_knows_no_ranges(hub: FakeHub, to: tuple[str | Path, ...]) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, cut=500_000)
    hub.rewrite("/cdn/", whole)
    found = fetched(NAME, *to)
    assert contents(found["path"]) == FILES
    assert found["downloaded_nbytes"] == 500_000 + len(DATA) + len(CONFIG)


def test_a_server_that_begins_anew_for_ever_is_given_up(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.rewrite("/cdn/", whole)
    for _ in range(20):
        hub.fault(match=CDN, cut=500_000)
        hub.fault(match=CDN, cut=400_000)
    assert "run again: what has arrived is kept" in refused(8)
    assert len(hub.asked(CDN)) == 5


def test_each_step_forward_counts(hub: FakeHub) -> None:
    """Eleven connections, none of which brings the rest."""
    hub.put(NAME, FILES)
    hub.fault(match=CDN, cut=100_000, times=10)
    assert contents(fetched()["path"]) == FILES
    assert len(hub.asked(CDN)) == 11


# What does not pass.


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("place", "fault", "count", "message"),
    [
        ("redirect", {"status": 503}, 5, "answered 503 Service Unavailable); run again: "),
        ("content", {"status": 503}, 5, "answered 503 Service Unavailable); run again: "),
        ("content", {"status": 403}, 5, "answered 403 Forbidden); run again: what has"),
        ("content", {"status": 451}, 1, "answered 451 Unavailable For Legal Reasons); "),
        ("content", {"status": 416}, 1, "answered 416 "),
        ("redirect", {"status": 404}, 1, "answered 404 Not Found); try again later"),
        ("content", {"before": True}, 5, "could not be reached (ReadError: "),
        ("content", {"cut": 0}, 5, "could not be reached (RemoteProtocolError: "),
        ("content", {"stall": 5}, 5, "could not be reached (ReadTimeout: timed out)); run"),
        ("content", {"status": 302}, 1, "found status 302); try again; if it stays so, "),
        (
            "content",
            {"status": 200, "body": DATA + b"!"},
            1,
            "found more than 1004000 byte",
        ),
        (
            "content",
            {"status": 200, "body": DATA[:-1]},
            5,
            "after 1003999 bytes of 1004000)",
        ),
        (
            "content",
            {"status": 204},
            1,
            "found status 204); try again; if it stays so, tel",
        ),
        (
            "redirect",
            {"status": 302, "headers": {"Location": "ftp://localhost/x?Signature=1"}},
            1,
            "UnsupportedProtocol: ",
        ),
        (
            "redirect",
            {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
            1,
            "UnsupportedProtocol: ",
        ),
        (
            "redirect",
            {"status": 302, "headers": {"Location": "//[::1/x"}},
            5,
            "RemoteProtocolError: Invalid URL in location header",
        ),
        (
            "redirect",
            {"status": 307, "headers": {"Location": "?again=1&Signature=1"}},
            21,
            "found an answer that it does not give (TooManyRedirects: ",
        ),
    ],
)
def test_what_stays_is_told(
    hub: FakeHub, cache: Path, place: str, fault: dict[str, Any], count: int, message: str
) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=PLACES[place], times=math.inf, **fault)
    told = refused(8)
    assert told.startswith(f'{NAME}: "{WEIGHTS}" did not arrive (')
    assert message in told
    assert "; " in told
    assert len(hub.asked(PLACES[place])) == count
    assert not (cache / "blobs" / DIGEST).exists()
    assert not (cache / "refs").exists()
    hub.faults.clear()
    assert contents(fetched()["path"]) == FILES


@pytest.mark.parametrize(
    "told",
    [
        "bytes 0-9/1004000",
        "bytes 500000-1003998/1004000",
        "bytes 499999-1003999/1004000",
        "bytes 500000-1003999/1004001",
        "items 500000-1003999/1004000",
        "",
    ],
)
def test_another_range_than_was_asked_for(hub: FakeHub, growing: Path, told: str) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, cut=500_000)

    def lie(request: Request, answer: Answer) -> None:
        if answer.status == 206:
            answer.set("Content-Range", told)

    hub.rewrite("/cdn/", lie)
    found = json.dumps(told) if told else '""'
    assert refused(8) == (
        f'{NAME}: "{WEIGHTS}" did not arrive (expected 1004000 bytes of "{WEIGHTS}" or a '
        f"range of them, as {hub.url} lists them, found the range {found}); try again; if "
        "it stays so, tell the model's publisher"
    )
    assert growing.read_bytes() == DATA[:500_000]


def test_a_file_that_is_shorter_than_listed(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.listing(lambda entries: [longer(entry) for entry in entries])
    assert "answered 416 " in refused(8)
    assert ranges(hub) == [None, "bytes=1004000-"]


def longer(entry: dict[str, Any]) -> dict[str, Any]:
    if path_of(entry) == WEIGHTS:
        entry["size"] = entry["lfs"]["size"] = len(DATA) + 1
    return entry


@pytest.mark.parametrize("status", [200, 503, 416])
def test_an_answer_without_an_end(hub: FakeHub, status: int) -> None:
    hub.put(NAME, FILES)
    hub.rewrite("/cdn/", lambda *_: Answer(status, repeat(bytes(1 << 16))))
    told = "more than 1004000 bytes" if status == 200 else f"status {status}, and no end"
    assert f"found {told}); try again" in refused(8)
    assert len(hub.asked(CDN)) == 1


def test_an_answer_that_swells(hub: FakeHub, growing: Path) -> None:
    hub.put(NAME, FILES)
    bomb = gzip.compress(bytes(100_000_000))
    hub.rewrite("/cdn/", lambda *_: Answer(200, bomb, {"Content-Encoding": "gzip"}))
    assert "found more than 1004000 bytes); try again" in refused(8)
    assert growing.stat().st_size <= len(DATA)


# Who may.


@pytest.mark.parametrize(
    ("who", "token", "message"),
    [
        (
            "private",
            None,
            "{name}: expected a local folder or a model on {url}, found neither; correct "
            "the name or, if the model is private, log in: hf auth login",
        ),
        (
            "private",
            "hf_other",
            "{name}: expected a local folder or a model on {url}, found neither; correct "
            "the name or, if the model is private, log in: hf auth login",
        ),
        (
            "gated",
            None,
            "{name}: the model is gated; ask for access and accept its licence on "
            "{url}/{name}, then log in: hf auth login",
        ),
        (
            "gated",
            "hf_other",
            "{name}: the model is gated; ask for access and accept its licence on "
            "{url}/{name}, then log in: hf auth login",
        ),
        (
            "open",
            "hf_unknown",
            '{name}: {url} answered 401 Unauthorized ("Invalid credentials in '
            'Authorization header"); log in: hf auth login',
        ),
    ],
)
def test_who_may_not(
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
    token: str | None,
    message: str,
) -> None:
    hub.put(NAME, FILES)
    hub.repos[NAME].private = who == "private"
    hub.repos[NAME].gated = who == "gated"
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    assert refused(8, NAME) == message.format(name=NAME, url=hub.url)
    assert hub.asked("/cdn/") == []


@pytest.mark.parametrize("fault", [{}, {"status": 503}, {"flip": 7}, {"cut": 400_000}])
def test_the_token_is_for_the_hub_alone(
    hub: FakeHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: tuple[str | Path, ...],
    fault: dict[str, Any],
) -> None:
    hub.put(NAME, FILES)
    hub.repos[NAME].private = True
    hub.repos[NAME].gated = "auto"
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(TOKEN)
    if fault:
        hub.fault(match="/cdn/", times=math.inf, **fault)
    done = fetch(NAME, *to)
    assert (done.code == 0) == (fault == {} or "cut" in fault)
    assert hub.leaked() == []
    sent = {r.on_cdn: r.headers.get("authorization") for r in hub.requests}
    assert sent == {False: f"Bearer {TOKEN}", True: None}
    for path in (*(tmp_path / "hf").rglob("*"), *tmp_path.glob("out*/**/*")):
        if path.is_file() and path != tmp_path / "hf" / "token":
            assert not SECRETS.search(path.read_text(errors="replace")), path


# Damage.


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_flipped_byte(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...], name: str
) -> None:
    commit = hub.put(NAME, FILES)
    hub.fault(match=PLACES["content" if name == WEIGHTS else "small"], flip=9)
    told = refused(5, NAME, *to)
    where = r"\S+" if not to else f"{hub.url}/{NAME}"
    assert re.fullmatch(
        f'{where}: expected [0-9a-f]+, the digest of "{name}"(?: in {hub.url}/{NAME})?, '
        "found [0-9a-f]+; (it|what came) was removed: run again",
        told,
    )
    assert not (tmp_path / "out").exists()
    found = fetched(NAME, *to)
    assert (found["commit"], contents(found["path"])) == (commit, FILES)


def left(hub: FakeHub, to: tuple[str | Path, ...], tmp_path: Path) -> Path:
    """What an interrupted run left of the weights: half of them."""
    hub.put(NAME, FILES)
    hub.fault(match=CDN, cut=500_000)
    hub.fault(match=CDN, status=409)
    refused(8, NAME, *to)
    hub.requests.clear()
    (path,) = (
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.stat().st_size == 500_000
    )
    return path


def test_what_an_earlier_run_left_is_gone_on_with(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...]
) -> None:
    left(hub, to, tmp_path)
    found = fetched(NAME, *to)
    assert contents(found["path"]) == FILES
    assert ranges(hub) == ["bytes=500000-"]
    assert found["downloaded_nbytes"] == len(DATA) - 500_000


@pytest.mark.parametrize(
    "spoiled",
    [b"!" + DATA[1:500_000], DATA + b"!", b"!" + DATA[1:]],
    ids=["wrong", "too long", "wrong, and complete"],
)
def test_what_an_earlier_run_left_damaged_is_fetched_again(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...], spoiled: bytes
) -> None:
    left(hub, to, tmp_path).write_bytes(spoiled)
    seen: list[Progress] = []
    if not to:
        resolve(NAME, wanted=list, progress=seen.append)
    found = fetched(NAME, *to)
    assert contents(found["path"]) == FILES
    assert ranges(hub)[-1] is None
    assert all(0 <= step.done <= step.total for step in seen)
    assert not seen or seen[-1].done == seen[-1].total


def test_what_was_complete_but_for_its_name_is_not_asked_for(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...]
) -> None:
    left(hub, to, tmp_path).write_bytes(DATA)
    assert contents(fetched(NAME, *to)["path"]) == FILES
    assert hub.asked(CDN) == []


def test_a_link_in_the_place_of_what_was_left_is_not_followed(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...]
) -> None:
    path = left(hub, to, tmp_path)
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(mine)
    assert contents(fetched(NAME, *to)["path"]) == FILES
    assert mine.read_bytes() == b"precious"


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_snapshot_that_was_damaged_is_found(hub: FakeHub, name: str) -> None:
    hub.put(NAME, FILES)
    path = (Path(fetched()["path"]) / name).resolve()
    path.write_bytes(b"!" + path.read_bytes()[1:])
    told = refused(5)
    assert told.startswith(f"{path}: expected ")
    assert told.endswith(": this copy is damaged: delete it and run again")
    path.unlink()
    assert contents(fetched()["path"]) == FILES


def test_a_damaged_content_is_found_when_another_commit_uses_it(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    path = (Path(fetched()["path"]) / WEIGHTS).resolve()
    path.write_bytes(b"!" + DATA[1:])
    hub.put(NAME, FILES | {"config.json": b"{}"})
    told = refused(5)
    assert told.startswith(f"{path}: expected {DIGEST}, the digest of ")
    assert told.endswith("; delete it and run again")


@pytest.mark.parametrize("damage", ["final", "final and cut", "link"])
def test_a_damaged_file_in_an_unfinished_folder_is_fetched_again(
    hub: FakeHub, tmp_path: Path, damage: str
) -> None:
    to = ("--out", tmp_path / "out")
    place = left(hub, to, tmp_path).with_name(WEIGHTS)
    if damage == "link":
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_bytes(b"!" + DATA[1 : 100 if "cut" in damage else None])
    assert contents(fetched(NAME, *to)["path"]) == FILES
    assert not (tmp_path / "elsewhere").exists()


# Killed, interrupted, and two at once.


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "fetch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_file(root: Path, process: subprocess.Popen[str], nbytes: int) -> None:
    """Wait until a file on its way is that long."""
    for _ in range(2000):
        for path in [*root.rglob("*.releasekit"), *root.rglob("*.part")]:
            with suppress(FileNotFoundError):  # it was whole, and has its own name now
                if path.is_file() and path.stat().st_size >= nbytes:
                    return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("nothing came")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_process_is_gone_on_with_inside_the_file(
    hub: FakeHub, tmp_path: Path, to: tuple[str | Path, ...], how: signal.Signals
) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, rate=400_000)
    process = begin(NAME, *to)
    await_file(tmp_path, process, 100_000)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=20)
    if how is signal.SIGINT:
        kept = f"{tmp_path}/out.partial" if to else "the cache"
        *_, last = stderr.splitlines()
        assert last == (
            "error: interrupted; run the same command to go on; what has arrived is in "
            f"{kept}"
        )
        assert process.returncode == 130
    assert not (tmp_path / "out").exists()
    hub.requests.clear()
    assert contents(fetched(NAME, *to)["path"]) == FILES
    (asked,) = ranges(hub)
    assert asked is not None
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 100_000


def test_two_processes_share_a_download(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=CDN, rate=2_000_000)
    processes = [begin(NAME, "--json") for _ in range(2)]
    results = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert len(hub.asked(CDN)) == 1
    came = sorted(result["downloaded_nbytes"] for result in results)
    assert came[0] <= len(CONFIG)
    assert sum(came) == len(DATA) + len(CONFIG)
    assert contents(results[0]["path"]) == FILES


def test_who_waits_for_another_process_can_be_stopped(hub: FakeHub, cache: Path) -> None:
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    hub.put(NAME, FILES)
    lock = cache.parent / ".locks" / cache.name / f"{DIGEST}.lock"
    lock.parent.mkdir(parents=True)
    with WeakFileLock(lock):
        process = begin(NAME)
        while not (cache / "blobs").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


# Files that are too large for plain HTTP.


@pytest.fixture
def by_xet(xet_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub that serves files of more than a kilobyte by Xet alone."""
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 1000)
    xet_hub.put(NAME, FILES)
    xet_hub.fault(match="GET /cdn/", status=403, times=math.inf)
    return xet_hub


@pytest.mark.parametrize("left", [0, 500_000, len(DATA)])
def test_what_comes_by_xet_is_gone_on_with(
    by_xet: FakeHub, growing: Path, left: int
) -> None:
    growing.parent.mkdir(parents=True)
    growing.write_bytes(DATA[:left])
    found = fetched()
    assert contents(found["path"]) == FILES
    assert found["downloaded_nbytes"] == len(DATA) - left + len(CONFIG)
    assert by_xet.asked("/cdn/") == []


def test_what_came_by_xet_and_is_wrong_is_found(by_xet: FakeHub) -> None:
    lying(by_xet, WEIGHTS, digest="0" * 64)
    assert "it was removed: run again" in refused(5)


@pytest.mark.parametrize("status", [401, 404])
def test_xet_that_is_not_to_be_had(by_xet: FakeHub, status: int) -> None:
    by_xet.fault(match="/xet-read-token/", status=status, times=math.inf)
    assert f"answered {status}" in refused(8)


def test_xet_that_is_elsewhere(by_xet: FakeHub, tmp_path: Path) -> None:
    def lead_astray(request: Request, answer: Answer) -> None:
        where = f"local://{tmp_path}/nowhere"
        answer.json = answer.json | {"casUrl": where}
        answer.set("X-Xet-Cas-Url", where)

    by_xet.rewrite("/xet-read-token/", lead_astray)
    assert "did not arrive (" in refused(8)


# Releases, and signed models.


@dataclass(frozen=True)
class World:
    """Releases and models, as files for the Hub, and keys in `root`."""

    root: Path
    signed: dict[str, bytes | Path]
    plain: dict[str, bytes | Path]
    model: dict[str, bytes | Path]
    listed: dict[str, bytes | Path]

    def public(self, name: str) -> Path:
        return self.root / f"{name}.pub.pem"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    base, target = small_pair()
    model_folder(root / "base", base)
    model_folder(root / "tune", target, shards=2)
    (root / "tune" / "config.json").write_text("{}")
    keys = {name: PrivateKey.generate() for name in "ab"}
    for name, key in keys.items():
        write_pair(key, root / f"{name}.pem", None)
    codec = Ulp(chunk=1024)
    make_delta(
        root / "base", root / "tune", root / "signed", codec=codec, sign_key=keys["a"]
    )
    make_delta(root / "base", root / "tune", root / "plain", codec=codec)
    shutil.copytree(root / "tune", root / "model")
    sign(root / "model", keys["a"])
    tune = files_of(root / "tune")
    sums = "".join(f"{digest}  {n}\n" for n, digest in digests(root / "tune").items())
    return World(
        root=root,
        signed=files_of(root / "signed"),
        plain=files_of(root / "plain"),
        model=files_of(root / "model"),
        listed=tune | {"SHA256SUMS": sums.encode()},
    )


def as_bytes(files: Mapping[str, bytes | Path]) -> dict[str, bytes]:
    return {n: f.read_bytes() if isinstance(f, Path) else f for n, f in files.items()}


@pytest.mark.parametrize(
    ("what", "kind", "against"),
    [
        ("signed", "delta", "signature"),
        ("plain", "delta", "list"),
        ("model", "model", "signature"),
        ("listed", "model", "list"),
    ],
)
def test_what_its_publisher_lists(
    hub: FakeHub,
    world: World,
    to: tuple[str | Path, ...],
    what: str,
    kind: str,
    against: str,
) -> None:
    files = as_bytes(getattr(world, what))
    hub.put(NAME, files | {".gitattributes": b"*.safetensors filter=lfs\n"})
    key = ("--public-key", world.public("a")) if against == "signature" else ()
    found = fetched(NAME, *to, *key)
    assert contents(found["path"]) == files
    assert found["files"] == {name: sha256_hex(data) for name, data in files.items()}
    assert (found["kind"], found["against"]) == (kind, against)
    signed = found["signature"]
    if against == "signature":
        fingerprint = PublicKey.load(world.public("a")).fingerprint
        assert (signed["status"], signed["key"]) == ("signed", fingerprint)
    else:
        assert (signed["status"], signed["key"]) == ("unsigned", None)


@pytest.mark.parametrize("what", ["signed", "model"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--public-key", "b"), "is not signed by"),
        (("--require-signature",), "no key is trusted that made it"),
    ],
)
def test_another_key_is_refused_before_anything_large_comes(
    hub: FakeHub,
    world: World,
    what: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    hub.put(NAME, getattr(world, what))
    more = [str(world.public(option)) if option == "b" else option for option in options]
    told = refused(6, NAME, *more)
    assert "model.sig" in told, message
    assert hub.asked("/cdn/") == []


@pytest.mark.parametrize("what", ["plain", "listed"])
def test_unsigned_where_a_signature_is_required(
    hub: FakeHub, world: World, what: str
) -> None:
    hub.put(NAME, getattr(world, what))
    told = refused(6, NAME, "--require-signature")
    assert "is not signed, and a signature is required: get it anew" in told
    assert hub.asked("/cdn/") == []


def test_a_signature_that_was_taken_away(hub: FakeHub, world: World) -> None:
    files = dict(world.signed)
    del files["model.sig"]
    hub.put(NAME, files)
    told = refused(6, NAME, "--public-key", world.public("a"))
    assert "is not signed, and a key was given to check it with" in told
    assert fetched(NAME)["against"] == "list"


def changed(files: Mapping[str, bytes | Path], name: str) -> dict[str, bytes]:
    """The files with one of them altered, at its end."""
    held = as_bytes(files)
    held[name] = held[name][:-1] + bytes([held[name][-1] ^ 1])
    return held


@pytest.mark.parametrize("what", ["signed", "plain", "model", "listed"])
def test_a_file_that_was_changed_on_the_hub(hub: FakeHub, world: World, what: str) -> None:
    """With a digest to match in what the Hub lists; so it is known before."""
    files: dict[str, bytes | Path] = getattr(world, what)
    name = next(name for name in files if name.endswith(".safetensors"))
    hub.put(NAME, changed(files, name))
    key = ("--public-key", world.public("a")) if what in ("signed", "model") else ()
    told = refused(5, NAME, *key)
    assert re.fullmatch(
        rf"{hub.url}/{NAME} \([0-9a-f]{{40}}\): {name}: expected sha256 [0-9a-f]{{64}}, as "
        "the publisher lists it, found [0-9a-f]{64}: it was damaged or changed there; tell "
        "the publisher",
        told,
    )
    assert hub.asked("/cdn/") == []


@pytest.mark.parametrize("what", ["signed", "plain", "model", "listed"])
def test_a_small_file_that_was_changed_on_the_hub(
    hub: FakeHub, world: World, to: tuple[str | Path, ...], what: str
) -> None:
    files: dict[str, bytes | Path] = getattr(world, what)
    name = next(name for name in files if name.endswith("config.json"))
    hub.put(NAME, changed(files, name))
    key = ("--public-key", world.public("a")) if what in ("signed", "model") else ()
    assert "expected" in refused(5, NAME, *to, *key)


@pytest.mark.parametrize("what", ["signed", "plain", "model", "listed"])
def test_a_file_that_the_hub_lacks(hub: FakeHub, world: World, what: str) -> None:
    files = dict(getattr(world, what))
    name = next(name for name in files if name.endswith(".safetensors"))
    del files[name]
    commit = hub.put(NAME, files)
    key = ("--public-key", world.public("a")) if what in ("signed", "model") else ()
    assert refused(5, NAME, *key) == (
        f'{hub.url}/{NAME} ({commit}): lacks "{name}", which are listed: tell the publisher'
    )
    assert hub.asked("/cdn/") == []


@pytest.mark.parametrize("what", ["signed", "plain", "model", "listed"])
def test_a_file_that_was_added_on_the_hub(hub: FakeHub, world: World, what: str) -> None:
    commit = hub.put(NAME, getattr(world, what) | {"extra/run.py": b"import os"})
    key = ("--public-key", world.public("a")) if what in ("signed", "model") else ()
    if what == "listed":
        found = fetched(NAME)
        assert found["notes"] == [
            '"extra/run.py": not in SHA256SUMS, held against the Hub\'s digests alone'
        ]
        return
    assert refused(5, NAME, *key) == (
        f"{hub.url}/{NAME} ({commit}): holds files that the publisher does not list: "
        '"extra/run.py": tell the publisher'
    )
    assert hub.asked("/cdn/") == []


def test_a_list_in_another_form_is_passed_over(hub: FakeHub) -> None:
    hub.put(NAME, FILES | {"SHA256SUMS": b"see the web site\n"})
    found = fetched()
    assert found["against"] == "hub"
    (note,) = found["notes"]
    assert note.startswith("SHA256SUMS was passed over: ")


# What a Hub may lie about.


def lying(hub: FakeHub, name: str, **lie: Any) -> None:
    """Has the Hub list a file otherwise than it is."""

    def how(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if path_of(entry) == name:
                size = lie.get("size", entry["size"])
                entry["size"] = entry["lfs"]["size"] = size
                digest = lie.get("digest", entry["lfs"]["sha256"])
                entry["lfs"]["sha256"] = entry["lfs"]["oid"] = digest

    hub.listing(how)


@pytest.mark.parametrize("what", ["signed", "plain"])
@pytest.mark.parametrize("size", [0, 1, 10**15])
def test_a_size_that_is_not_the_releases(
    hub: FakeHub, world: World, to: tuple[str | Path, ...], what: str, size: int
) -> None:
    files: dict[str, bytes | Path] = getattr(world, what)
    name = next(name for name in files if name.endswith(".safetensors"))
    hub.put(NAME, files)
    lying(hub, name, size=size)
    key = ("--public-key", world.public("a")) if what == "signed" else ()
    done = fetch(NAME, *to, *key)
    told = done.json["error"]["message"]
    if size == 10**15 and to:  # known before anything came
        assert done.code == 1
        assert "bytes free, found" in told
    else:
        assert done.code == 5
        assert f"as the publisher lists it, found {size}: tell the publisher" in told
    assert hub.asked("/cdn/") == []


@pytest.mark.parametrize(
    ("lie", "code", "message"),
    [
        ({"size": -1}, 3, f'"{WEIGHTS}": "-1" is no size'),
        ({"size": "many"}, 3, f'"{WEIGHTS}": "many" is no size'),
        ({"size": 1.5}, 3, f'"{WEIGHTS}": "1.5" is no size'),
        ({"size": 10**30}, 1, "bytes free, found"),
        ({"size": 10}, 8, "found more than 10 bytes"),
        ({"digest": "0" * 64}, 5, f'expected {"0" * 64}, the digest of "{WEIGHTS}"'),
        ({"digest": "../../x"}, 3, f'"{WEIGHTS}": "../../x" is no digest'),
        ({"digest": DIGEST.upper()}, 3, "is no digest"),
    ],
)
def test_a_listing_that_lies(
    hub: FakeHub,
    tmp_path: Path,
    to: tuple[str | Path, ...],
    lie: dict[str, Any],
    code: int,
    message: str,
) -> None:
    hub.put(NAME, FILES)
    lying(hub, WEIGHTS, **lie)
    assert message in refused(code, NAME, *to)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["SHA256SUMS", "model.sig", "release.json"])
def test_a_proof_that_is_too_large_is_not_downloaded(hub: FakeHub, name: str) -> None:
    hub.put(NAME, FILES | {name: b"{}"})

    def how(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if path_of(entry) == name:
                entry["size"] = 10**9

    hub.listing(how)
    assert refused(3) == f"{hub.url}/{NAME}: {name}: is too large to be one"
    assert hub.asked("/resolve/") == []


@pytest.mark.parametrize(
    "names",
    [
        ["../x.json"],
        ["/x.json"],
        ["a/../../x.json"],
        ["C:\\x.json"],
        ["x\0.json"],
        ["x\n.json"],
        ["\udcff.json"],
        ["A.json", "a.json"],
        ["a.json", "a.json/b.json"],
        ["CON.json"],
        [".git/config"],
        ["a/.GIT/hooks/post-checkout"],
        [f"{'n' * 256}.json"],
    ],
)
def test_hostile_names(hub: FakeHub, tmp_path: Path, names: list[str]) -> None:
    commit = hub.put(NAME, FILES)
    before = digests(tmp_path)
    entries = [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in names]
    more = [{"rfilename": "SHA256SUMS", "size": 1, "blobId": "1" * 40}]
    told = {"id": NAME, "sha": commit, "siblings": [*entries, *more]}
    hub.fault(status=200, body=told)
    assert refused(3, NAME).startswith(f"{hub.url}/{NAME}: path")
    assert digests(tmp_path) == before
    assert len(hub.requests) == 1


def test_a_mirror_that_lists_no_digests(hub: FakeHub, to: tuple[str | Path, ...]) -> None:
    hub.put(NAME, FILES)
    hub.listing(lambda entries: [{"rfilename": path_of(entry)} for entry in entries])
    found = fetched(NAME, *to)
    assert contents(found["path"]) == FILES
    assert found["files"][WEIGHTS] == DIGEST


def test_a_mirror_that_lists_no_digests_and_a_list(
    hub: FakeHub, world: World, to: tuple[str | Path, ...]
) -> None:
    name = next(name for name in world.model if name.endswith(".safetensors"))
    hub.put(NAME, changed(world.model, name))
    hub.listing(lambda entries: [{"rfilename": path_of(entry)} for entry in entries])
    told = refused(5, NAME, *to, "--public-key", world.public("a"))
    assert ": this copy is damaged: delete it and run again" in told


def test_a_part_of_which_no_digest_is_known_is_not_gone_on_with(
    hub: FakeHub, tmp_path: Path
) -> None:
    """The revision may have moved, and nothing would tell."""
    out = tmp_path / "out"
    hub.put(NAME, FILES)
    hub.listing(lambda entries: [{"rfilename": path_of(entry)} for entry in entries])
    hub.fault(match=CDN, cut=500_000)
    hub.fault(match=CDN, status=409)
    refused(8, NAME, "--out", out)
    new = {"config.json": CONFIG, WEIGHTS: DATA[::-1]}
    hub.put(NAME, new)
    fetched(NAME, "--out", out)
    assert contents(out) == new


# Offline, and where things are.


@pytest.mark.parametrize("how", ["variable", "no answer", "503"])
def test_offline_from_the_cache(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, world: World, tmp_path: Path, how: str
) -> None:
    hub.put(NAME, world.signed)
    commit = fetched()["commit"]
    if how == "variable":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif how == "no answer":
        hub.stop()
    else:
        hub.fault(status=503, times=math.inf)
    out = tmp_path / "out"
    for to in ((), ("--out", out)):
        found = fetched(NAME, *to, "--public-key", world.public("a"))
        assert (found["commit"], found["downloaded_nbytes"]) == (commit, 0)
        reason = {
            "variable": "HF_HUB_OFFLINE is set",
            "503": "503 Service Unavailable",
        }.get(how, "could not be reached")
        assert reason in found["offline"]
    assert contents(out) == as_bytes(world.signed)


def test_offline_from_a_cache_without_links(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    hub.put(NAME, FILES | {"tokenizer.model": CONFIG})  # of one content
    path = Path(fetched()["path"])
    assert not any(path.is_symlink() for path in path.iterdir())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fetched(NAME, "--out", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(path)
    assert contents(path) == FILES | {"tokenizer.model": CONFIG}


def test_offline_with_a_part_only(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    hub.put(NAME, world.listed)
    folder = Path(fetched()["path"])
    (folder / "config.json").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused(5) == (
        f'{hub.url}/{NAME} ({folder.name}): lacks "config.json", which are listed: '
        "HF_HUB_OFFLINE is set, and the cache has only a part: run again with the Hub"
    )
    (folder / "SHA256SUMS").unlink()
    assert fetched()["notes"] == ["the cache may hold a part of the model only"]


def test_offline_with_damage(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.put(NAME, FILES)
    path = (Path(fetched()["path"]) / WEIGHTS).resolve()
    path.write_bytes(b"!" + DATA[1:])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "damaged" in refused(5)
    assert "HF_HUB_OFFLINE is set" in refused(8, NAME, "--out", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"main", b"0" * 40])
def test_a_damaged_reference_in_the_cache_is_none(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    hub.put(NAME, FILES)
    fetched()
    (cache / "refs" / "main").write_bytes(content)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert f"{cache} does not hold what is needed; unset it" in refused(8)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert contents(fetched()["path"]) == FILES


def test_where_the_environment_says(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, as a process of its own reads them."""
    hub.put(NAME, FILES)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    for offline in ("0", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        process = begin(NAME, "--json")
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        found = json.loads(stdout)
        assert Path(found["path"]).is_relative_to(tmp_path / "elsewhere" / "hub")
        assert contents(found["path"]) == FILES
        assert (found["offline"] is None) == (offline == "0")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize("reference", ["gpt2", "/tmp/x", "org/name@", "a/b/c"])
def test_what_is_no_reference(hub: FakeHub, reference: str) -> None:
    assert refused(2, reference).endswith("expected org/name or org/name@revision")
    assert hub.requests == []


# Memory, and any sequence of faults.


@pytest.mark.slow
def test_memory_has_a_ceiling(hub: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    with path.open("wb") as file:
        for number in range(300):
            file.write(bytes([number % 256]) * 1_000_000)
    hub.put(NAME, {"config.json": b"{}", WEIGHTS: path})
    for to in ((), ("--out", tmp_path / "out")):
        assert peak_nbytes("fetch", NAME, *to) < 250 << 20


SIZE = 100_000
SMALL = DATA[:SIZE]
STEPS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, cut=st.integers(0, SIZE), reset=st.booleans()),
    st.builds(dict, before=st.just(True)),
    st.builds(dict, status=st.sampled_from([200, 206, 304, 400, 403, 404, 416, 429, 500])),
    st.builds(dict, flip=st.integers(0, SIZE - 1)),
    st.builds(dict, status=st.just(200), body=st.sampled_from([SMALL, SMALL[:99], b""])),
)


@pytest.fixture(scope="module")
def quick() -> Iterator[FakeHub]:
    """A Hub for many downloads, asked again at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setattr("releasekit.hub.answers.FIRST_WAIT", 0.0)
        root = Path(os.environ["XDG_CONFIG_HOME"]) / "quick"
        with FakeHub(root) as hub:
            patch.setenv("HF_ENDPOINT", hub.url)
            hub.put(NAME, {WEIGHTS: SMALL})
            yield hub


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=8), left=st.none() | st.integers(0, SIZE + 9))
@example(steps=[{"cut": 50, "reset": False}, {"flip": 60}], left=None)
@example(steps=[{"status": 200, "body": b""}] * 5, left=99)
def test_any_sequence_of_faults_ends_right_or_is_told(
    quick: FakeHub, tmp_path: Path, steps: list[dict[str, Any]], left: int | None
) -> None:
    path = tmp_path / "growing"
    path.unlink(missing_ok=True)
    if left is not None:
        path.write_bytes((SMALL + bytes(9))[:left])
    quick.requests.clear()
    quick.faults.clear()
    for step in steps:
        quick.fault(match="GET /cdn/", **step)
    file = HubFile(nbytes=SIZE, digest=sha256_hex(SMALL), lfs=True)
    source = Source(
        address=Address.of(NAME),
        commit=quick.head(NAME),
        name=WEIGHTS,
        nbytes=SIZE,
        stop=threading.Event(),
    )

    def found() -> str:
        return receive(source, file, path, lambda nbytes: None)[0]

    try:
        right = found() == file.digest
    except (FaultError, ReleaseKitError):
        right = False
    assert len(quick.requests) <= 2 * (len(steps) + 2)
    if right:
        assert path.read_bytes() == SMALL
    quick.faults.clear()
    assert found() == file.digest  # once the faults have stopped, always
    assert path.read_bytes() == SMALL


def test_what_is_told_speaks_of_the_model_not_of_the_folder_in_the_making(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.put(NAME, {"model.sig": b"{}", "config.json": b"{}"})
    done = here("fetch", NAME, "--out", tmp_path / "out")
    assert done.code == 3
    assert done.error.startswith(f"{NAME}/model.sig: ")
    assert ".partial" not in done.stderr
