"""`releasekit publish` while things go wrong: it ends as if they had not, or can go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakehub import TOKEN, FakeHub, Request, path_of
from tests.integration.publishing import (
    REPO,
    Shelf,
    asked,
    commits,
    copy,
    has,
    publish,
    refused,
    sent,
)
from tests.integration.test_memory import peak_nbytes
from tests.integration.tools import COMMAND, digests, good

OPTIONS: Final = ("--version", "1.0", "--public", "--gated", "auto")
SHARD: Final = "model-00002-of-00002.safetensors"

#: All that a good run asks for, in this order.
STEPS: Final = (
    "GET revision",
    "POST validate-yaml",
    "POST create",
    "GET revision",
    "PUT settings",
    "POST preupload",
    "POST batch",
    "PUT lfs",
    "POST verify",
    "POST preupload",
    "POST batch",
    "PUT lfs",
    "POST verify",
    "POST preupload",
    "POST validate-yaml",
    "POST commit",
    "GET revision",
    "POST tag",
    "PUT settings",
)
FAULTS: Final[dict[str, dict[str, Any]]] = {
    "no connection": {"before": True},
    "no answer": {"after": True},
    "500": {"status": 500},
    "500 instead of an answer": {"status": 500, "after": True},
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "401": {"status": 401},
    "403": {"status": 403},
    "no JSON": {"status": 200, "body": b"<html>Please log in</html>"},
}
#: Where the client itself asks again, and waits a second first.
SLOW: Final = ("preupload", "batch", "lfs", "verify")
#: Where nobody reads the answer, so a lie in it is not noticed; but gating is looked at.
UNREAD: Final = ("PUT settings", "POST tag")
#: What says most, where time is short; of the commit, all is tried.
QUICK: Final = ("no answer",)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def login(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def settled(hub: FakeHub, folder: Path, version: str = "1.0") -> None:
    """The Hub has the release: once, tagged, and open."""
    assert has(hub, folder)
    assert commits(hub) == [f"Release tune {version}"]
    assert hub.repos[REPO].tags == {f"v{version}": hub.head(REPO)}
    assert (hub.repos[REPO].private, hub.repos[REPO].gated) == (False, "auto")
    assert hub.leaked() == []


def test_a_good_run_asks_for_this(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.model, REPO, *OPTIONS)
    assert tuple(asked(hub)) == STEPS
    settled(hub, shelf.model)


def cases() -> list[Any]:
    """Each request of a run, and each way in which it goes wrong."""
    found = []
    for number, step in enumerate(STEPS):
        for fault in FAULTS:
            if fault == "no JSON" and step in UNREAD and number > 4:
                continue
            waits = step.endswith(SLOW)
            again = step in STEPS[:number] and waits and step != "PUT lfs"
            quick = (fault in QUICK or step == "POST commit") and not again
            marks = [] if quick else [pytest.mark.slow]
            found.append(pytest.param(number, fault, marks=marks, id=f"{number}-{fault}"))
    return found


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("number", "fault"), cases())
def test_whatever_goes_wrong_once(
    hub: FakeHub, shelf: Shelf, number: int, fault: str
) -> None:
    hub.fault(skip=number, **FAULTS[fault])
    done = publish(shelf.model, *OPTIONS)
    assert hub.faults[0].times == 0
    if done.code:
        # It says so, and what to do; and shows nobody what is not complete.
        assert done.code == 8, done.stderr
        assert done.stdout == ""
        assert re.fullmatch(rf"error: {REPO}: [^\n]*; [^\n]*\n", done.stderr), done.stderr
        assert REPO not in hub.repos or hub.repos[REPO].private or number == len(STEPS) - 1
        assert fault in ("401", "403", "no JSON"), done.stderr
        good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)
    # No content is sent again that is there, but one whose answer was lost.
    struck = STEPS[number] == "PUT lfs"
    # A client that does not ask again by itself has us ask, who look first.
    assert sorted(sent(hub).values()) in ([1, 1], [1, 1 + struck]), asked(hub)


@pytest.mark.parametrize(
    "fault",
    [
        *("no answer", "403"),
        *(
            pytest.param(fault, marks=pytest.mark.slow)
            for fault in ("no connection", "503")
        ),
    ],
)
@pytest.mark.parametrize("step", ["GET discussions", "POST commit"])
def test_whatever_goes_wrong_with_a_proposal(
    hub: FakeHub, shelf: Shelf, step: str, fault: str
) -> None:
    good("publish", shelf.plain, REPO)
    hub.fault(match=rf"{step.partition(' ')[0]} .*/{step.split()[1]}", **FAULTS[fault])
    done = publish(shelf.newer, "--create-pr")
    assert hub.faults[0].times == 0
    assert done.code == (8 if fault == "403" else 0), done.stderr
    good("publish", shelf.newer, REPO, "--create-pr")
    assert has(hub, shelf.newer, "refs/pr/1")
    assert len(hub.repos[REPO].discussions) == 1
    assert commits(hub) == ["Release Tune 1.0"]
    assert set(sent(hub).values()) == {1}


# Others, at the same time.


def test_somebody_else_commits_in_between(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO)

    def commit(_: Request) -> None:
        hub.put(REPO, {**hub.files(REPO), "README.md": b"# Theirs\n"})

    hub.fault(match="POST .*/commit/", call=commit)
    error = refused(publish(shelf.newer, "--public"), 8)
    theirs = hub.head(REPO)
    assert error == (
        f"{REPO}: somebody else made commit {theirs} meanwhile; look at {hub.url}/{REPO}"
        "/commits/main, and run again: what was uploaded is kept"
    )
    assert hub.files(REPO)["README.md"] == b"# Theirs\n"
    assert list(hub.repos[REPO].tags) == ["v1.0"]
    assert hub.repos[REPO].private
    hub.requests.clear()
    good("publish", shelf.newer, REPO, "--public")
    assert has(hub, shelf.newer)
    assert sent(hub) == {}
    assert hub.repos[REPO].commits[hub.head(REPO)].parent == theirs


def test_somebody_else_publishes_the_same(hub: FakeHub, shelf: Shelf) -> None:
    def commit(_: Request) -> None:
        files: dict[str, bytes | Path] = {
            name: shelf.plain / name for name in digests(shelf.plain)
        }
        hub.put(REPO, {".gitattributes": hub.files(REPO)[".gitattributes"], **files})

    hub.fault(match="POST .*/commit/", call=commit)
    good("publish", shelf.plain, REPO)
    assert commits(hub) == [REPO]
    assert hub.repos[REPO].tags == {"v1.0": hub.head(REPO)}


def test_somebody_else_makes_the_tag(hub: FakeHub, shelf: Shelf) -> None:
    parent = hub.put(REPO, {".gitattributes": b""})
    hub.fault(match="POST .*/tag/", call=lambda _: hub.tag(REPO, "v1.0", parent))
    error = refused(publish(shelf.plain, "--public"), 8)
    assert error == (
        f"{REPO}: tag v1.0 is at commit {parent}, and does not move; make a new version"
    )


def test_somebody_else_makes_the_repository(hub: FakeHub, shelf: Shelf) -> None:
    theirs = {".gitattributes": b"", "model.safetensors": b"1", "README.md": b"# Theirs\n"}
    hub.fault(match="repos/create", call=lambda _: hub.put(REPO, theirs))
    assert refused(publish(shelf.plain, "--public"), 8) == (
        f'{REPO}: was not there before, and has "README.md", "model.safetensors" now: look '
        "at it, and run again"
    )
    assert hub.files(REPO) == theirs


# What the Hub has in the end.


def test_a_hub_that_stores_something_else(hub: FakeHub, shelf: Shelf) -> None:
    def store(_: Request) -> None:
        held = hub.repos[REPO].commits[hub.head(REPO)].files
        held["config.json"] = held["LICENSE"]

    # After the commit, before it is looked at.
    hub.fault(match="GET .*/revision/[0-9a-f]{40}", call=store)
    error = refused(publish(shelf.model, *OPTIONS), 5)
    assert error == (
        f'{hub.url}/{REPO} ({hub.head(REPO)}): "config.json": not as it was sent; it was '
        "not tagged, nor shown to anybody: run again"
    )
    assert hub.repos[REPO].tags == {}
    assert hub.repos[REPO].private
    good("publish", shelf.model, REPO, *OPTIONS)
    assert has(hub, shelf.model)
    assert not hub.repos[REPO].private


@pytest.mark.parametrize("key", ["lfs", "blobId"])
def test_a_hub_that_lists_another_digest(hub: FakeHub, shelf: Shelf, key: str) -> None:
    def lie(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if key == "lfs" and path_of(entry) == SHARD:
                entry["lfs"] = entry["lfs"] | {"sha256": "0" * 64}
            if key == "blobId" and path_of(entry) == "config.json":
                entry["blobId"] = "0" * 40

    hub.listing(lie)
    done = publish(shelf.model, *OPTIONS)
    name = SHARD if key == "lfs" else "config.json"
    assert f'"{name}": not as it was sent' in refused(done, 5)
    assert hub.repos[REPO].tags == {}
    assert hub.repos[REPO].private


def test_a_hub_that_loses_a_file(hub: FakeHub, shelf: Shelf) -> None:
    def lose(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [entry for entry in entries if path_of(entry) != SHARD]

    hub.listing(lose)
    assert f'"{SHARD}": not as' in refused(publish(shelf.model, *OPTIONS), 5)
    assert (hub.repos[REPO].tags, hub.repos[REPO].private) == ({}, True)


def test_a_hub_that_does_not_gate(hub: FakeHub, shelf: Shelf) -> None:
    hub.fault(match="PUT .*/settings", status=200, body={})
    assert refused(publish(shelf.model, *OPTIONS), 8) == (
        f"{REPO}: access was to be gated (auto), and is not (open); look at its settings, "
        "and run again"
    )
    assert (hub.repos[REPO].tags, hub.repos[REPO].private) == ({}, True)
    good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)


def test_a_hub_that_tells_no_digests(hub: FakeHub, shelf: Shelf) -> None:
    def hide(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            entry.pop("lfs", None)
            entry.pop("blobId", None)

    hub.listing(hide)
    assert "not as it was sent" in refused(publish(shelf.model, *OPTIONS), 5)
    assert (hub.repos[REPO].tags, hub.repos[REPO].private) == ({}, True)


# Uploads.


def test_an_expired_address_is_renewed(hub: FakeHub, shelf: Shelf) -> None:
    hub.expire_uploads(2)
    good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)
    assert len(hub.asked("^POST .*/objects/batch")) == 4
    hub.expire_uploads()
    error = refused(publish(shelf.full(shelf.root / "other", second=9), "--force"), 8)
    assert "could not be uploaded (" in error
    assert error.endswith("; try again later")


def test_a_large_file_goes_up_in_parts(hub: FakeHub, shelf: Shelf) -> None:
    hub.multipart_over, hub.chunk_size = 1_000_000, 500_000
    hub.fault(match="PUT /lfs/.*/3[?]", status=503)
    good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)
    assert len(hub.asked("^PUT /lfs/")) == 7
    assert len(hub.asked("complete_multipart")) == 2


def test_a_content_that_breaks_off_is_sent_again(hub: FakeHub, shelf: Shelf) -> None:
    hub.fault(match="PUT /lfs/", cut=400_000, reset=True)
    good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)


@pytest.mark.parametrize(
    ("match", "what"),
    [
        ("PUT /lfs/", "could not be uploaded ("),
        ("/commit/", "the commit was not made ("),
        ("GET .*/revision/main", "could not be reached ("),
        ("validate-yaml", "the card could not be checked ("),
    ],
)
def test_silence_is_given_up(
    hub: FakeHub,
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    match: str,
    what: str,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("releasekit.hub.answers.SILENCE", 0.1)
    monkeypatch.setattr("releasekit.hub.answers.ATTEMPTS", 1)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    hub.fault(match=match, stall=60, times=1 if "lfs" in match else 9)
    began = time.monotonic()
    done = publish(shelf.plain, "--public")
    assert time.monotonic() - began < 30  # older clients try again by themselves
    if "lfs" in match:  # the client sends it again
        assert done.code == 0, done.stderr
        return
    assert what in refused(done, 8)
    assert REPO not in hub.repos or hub.repos[REPO].private


# Stopped.


def child(*arguments: str | Path, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_upload_goes_on_with_the_next_shard(
    hub: FakeHub, shelf: Shelf, how: signal.Signals
) -> None:
    hub.fault(match="PUT /lfs/", skip=1, stall=60)
    process = child("publish", shelf.model, REPO, *OPTIONS)
    until(lambda: len(hub.asked("^PUT /lfs/")) == 2)
    process.send_signal(how)
    _, said = process.communicate(timeout=30)
    if how is signal.SIGINT:
        message = "interrupted; run the same command to go on; what was uploaded is kept"
        assert (process.returncode, said) == (130, f"\nerror: {message}\n")
    assert commits(hub) == []
    assert hub.repos[REPO].private
    hub.requests.clear()
    good("publish", shelf.model, REPO, *OPTIONS)
    settled(hub, shelf.model)
    assert sent(hub) == {digests(shelf.model)[SHARD]: 1}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_release(
    hub: FakeHub, shelf: Shelf, tmp_path: Path
) -> None:
    folder = copy(shelf.model, tmp_path / "large")
    for number in range(3):
        with (folder / f"data-{number}.bin").open("wb") as file:
            for _ in range(100):
                file.write(os.urandom(1 << 20))
    lines = [f"{d}  {n}\n" for n, d in digests(folder).items() if n != "SHA256SUMS"]
    (folder / "SHA256SUMS").write_text("".join(lines))
    assert peak_nbytes("publish", folder, REPO, *OPTIONS, "-q") < 300e6
    settled(hub, folder)
