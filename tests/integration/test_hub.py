"""Models by their name on the Hub: what is downloaded, what is kept, what goes wrong."""

import errno
import math
import os
import re
import shutil
import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from releasekit.cli.exits import exit_code
from releasekit.digest import sha256_hex
from releasekit.errors import (
    FormatError,
    HubError,
    IntegrityError,
    ReleaseKitError,
    UsageError,
)
from releasekit.hub.answers import redacted
from releasekit.hub.snapshots import is_reference, resolve
from releasekit.progress import Progress
from tests.fakehub import TOKEN, FakeHub

NAME = "org/model"
WEIGHTS = "model.safetensors"
FILES = {
    "README.md": b"# A model\n",
    "config.json": b'{"model_type": "llama"}',
    WEIGHTS: bytes(range(256)) * 1000,
    "original/consolidated.bin": b"the same once more",
}


def everything(names: list[str]) -> list[str]:
    return names


def only(*kept: str) -> Callable[[list[str]], list[str]]:
    return lambda names: [name for name in names if name in kept]


def files_in(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def ranges(hub: FakeHub) -> list[str | None]:
    """What was asked for of contents."""
    return [r.headers.get("range") for r in hub.requests if "GET /cdn/" in str(r)]


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than most tests here, none of which needs any."""
    context = partial(ssl.SSLContext, ssl.PROTOCOL_TLS_CLIENT)
    monkeypatch.setattr("ssl.create_default_context", lambda *args, **kwargs: context())


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where huggingface_hub keeps the model."""
    return tmp_path / "hf" / "hub" / "models--org--model"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    "text",
    [
        "org/name",
        "0rg-1/na.me_2-B",
        "_o/n_",
        "org/name@main",
        "org/name@v1.0",
        "org/name@refs/pr/1",
        "org/name@feature/@x~",
        "org/name@" + "0" * 40,
        f"{'o' * 96}/{'n' * 96}",
    ],
)
def test_references(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "gpt2", "/", "org/", "/name", "org/name/x", "./name", "../name", "org/.name"),
        *("-org/name", "org/-name", "org/name-", "org/name.", "org/na--me", "org/na..me"),
        *("org/name.git", "org/name.git@main", "org/näme", "org/na me", f"o/{'n' * 97}"),
        *("org/name@", "org/name@a b", "org/name@a\nb", "org/name@a\x7f", "gpt2@main"),
        *("org/name@../x", "org/name@a/../../x", "org/name@/x", "org/name@\ud800"),
        *("~/name", "org\\name", "org/name\n", "https://huggingface.co/org/name"),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    assert not is_reference(text)


def test_only_references_are_resolved() -> None:
    with pytest.raises(
        UsageError, match=r'^"gpt2": expected org/name or org/name@revision$'
    ):
        resolve("gpt2", wanted=everything)


@pytest.mark.parametrize("revision", ["", "@main", "@v1", "@refs/pr/1", "@COMMIT"])
def test_a_revision_is_downloaded(hub: FakeHub, cache: Path, revision: str) -> None:
    commit = hub.put(NAME, FILES)
    hub.tag(NAME, "v1")
    hub.tag(NAME, "refs/pr/1")
    if revision[1:] in ("v1", "refs/pr/1", "COMMIT"):
        hub.put(NAME, {"other.txt": b""})
    folder = resolve(NAME + revision.replace("COMMIT", commit), wanted=everything)
    assert folder == cache / "snapshots" / commit
    assert files_in(folder) == FILES


def test_only_what_is_wanted_is_downloaded(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    seen: list[str] = []

    def wanted(names: list[str]) -> list[str]:
        seen.extend(names)
        return ["config.json", "original/consolidated.bin"]

    folder = resolve(NAME, wanted=wanted)
    assert seen == list(FILES)
    assert sorted(files_in(folder)) == ["config.json", "original/consolidated.bin"]
    assert len(hub.asked("GET /cdn/")) == 1


def test_files_in_the_cache_are_not_asked_for(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    resolve(NAME, wanted=only(WEIGHTS))
    hub.requests.clear()
    resolve(NAME, wanted=only(WEIGHTS))
    assert hub.asked("") == [f"GET /api/models/{NAME}/revision/main?blobs=true"]
    resolve(NAME, wanted=everything)
    assert hub.asked(f"resolve/.*{WEIGHTS}") == []


def test_a_new_commit_takes_the_weights_from_the_one_before(hub: FakeHub) -> None:
    old = resolve(NAME + "@" + hub.put(NAME, FILES), wanted=everything)
    hub.put(NAME, FILES | {"README.md": b"# Better words\n"})
    hub.requests.clear()
    new = resolve(NAME, wanted=everything)
    assert new != old
    assert files_in(old) == FILES
    assert files_in(new) == FILES | {"README.md": b"# Better words\n"}
    assert hub.asked("/cdn/") == []


def test_other_tools_share_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    (tmp_path / WEIGHTS).write_bytes(FILES[WEIGHTS])
    hub.put(NAME, FILES | {WEIGHTS: tmp_path / WEIGHTS})
    theirs = snapshot_download(NAME, endpoint=hub.url, allow_patterns="*.json")
    ours = resolve(NAME, wanted=everything)
    assert str(ours) == theirs
    assert len(hub.asked("GET .*/resolve-cache/.*config.json")) == 1
    hub.stop()
    assert snapshot_download(NAME, endpoint=hub.url, local_files_only=True) == theirs


@pytest.mark.parametrize("revision", ["", "@main", "@v/1", "@COMMIT"])
@pytest.mark.parametrize("how", ["variable", "no answer", "status"])
def test_without_the_hub_the_cache_serves(
    hub: FakeHub, offline: Callable[[], None], revision: str, how: str
) -> None:
    commit = hub.put(NAME, FILES)
    hub.tag(NAME, "v/1")
    reference = NAME + revision.replace("COMMIT", commit)
    folder = resolve(reference, wanted=only(WEIGHTS))
    hub.requests.clear()
    if how == "variable":
        offline()
    elif how == "no answer":
        hub.stop()
    else:
        hub.fault(status=503)
    assert resolve(reference, wanted=everything) == folder
    assert files_in(folder) == {WEIGHTS: FILES[WEIGHTS]}
    assert len(hub.requests) == (how == "status")


def test_the_complete_snapshot_serves_until_its_successor_is(
    hub: FakeHub, offline: Callable[[], None]
) -> None:
    hub.put(NAME, FILES)
    old = resolve(NAME, wanted=everything)
    hub.put(NAME, {name: data + b"!" for name, data in FILES.items()})
    hub.fault(match="GET /cdn/", status=403, times=math.inf)
    with pytest.raises(HubError):
        resolve(NAME, wanted=everything)
    offline()
    assert resolve(NAME, wanted=everything) == old
    assert files_in(old) == FILES


def test_a_cache_without_what_is_wanted_does_not_serve(
    hub: FakeHub, offline: Callable[[], None]
) -> None:
    hub.put(NAME, FILES)
    resolve(NAME, wanted=only("config.json"))
    offline()
    with pytest.raises(HubError, match="does not hold what is needed"):
        resolve(NAME, wanted=only(WEIGHTS))


def test_a_read_only_cache_will_do(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, FILES)
    folder = resolve(NAME, wanted=everything)
    hub.tag(NAME, "v1")

    def refuse(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert resolve(f"{NAME}@v1", wanted=everything) == folder
    assert [path.name for path in (folder.parents[1] / "refs").iterdir()] == ["main"]


# What goes wrong.


def failure(reference: str, wanted: Callable[[list[str]], list[str]] = everything) -> str:
    """What `resolve` says when it fails with a `HubError`."""
    with pytest.raises(HubError) as raised:
        resolve(reference, wanted=wanted)
    assert type(raised.value) is HubError
    assert exit_code(raised.value) == 8
    return str(raised.value)


@pytest.mark.parametrize("private", [False, True])
def test_no_such_model(hub: FakeHub, private: bool) -> None:
    if private:
        hub.put(NAME, FILES)
        hub.repos[NAME].private = True
    assert failure(NAME) == (
        f"org/model: expected a local folder or a model on {hub.url}, found neither; "
        "correct the name or, if the model is private, log in: hf auth login"
    )


def test_no_such_revision(hub: FakeHub, cache: Path) -> None:
    hub.put(NAME, FILES)
    assert failure(f"{NAME}@v9") == (
        f'org/model@v9: {hub.url}/org/model has no branch, tag or commit "v9"; name '
        "another after the @"
    )
    assert not cache.exists()


def test_a_gated_model(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.repos[NAME].gated = True
    assert failure(NAME) == (
        "org/model: the model is gated; ask for access and accept its licence on "
        f"{hub.url}/org/model, then log in: hf auth login"
    )


def test_who_is_logged_in_sees_more(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, FILES)
    hub.repos[NAME].private = hub.repos[NAME].gated = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert files_in(resolve(NAME, wanted=everything)) == FILES
    tokens = {"/cdn/" in r.path: r.headers.get("authorization") for r in hub.requests}
    assert tokens == {False: f"Bearer {TOKEN}", True: None}  # it is for the Hub alone


def test_a_token_that_is_not_known(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert failure(NAME) == (
        f"org/model: {hub.url} answered 401 Unauthorized "
        '("Invalid credentials in Authorization header"); log in: hf auth login'
    )


def test_offline_and_not_cached(
    hub: FakeHub, cache: Path, offline: Callable[[], None]
) -> None:
    hub.put(NAME, FILES)
    offline()
    for reference in (NAME, f"{NAME}@{'0' * 40}"):
        assert failure(reference) == (
            f"{reference}: is no path here; HF_HUB_OFFLINE is set, and {cache} does not "
            "hold what is needed; unset it, or give a local folder"
        )


def test_no_connection_and_not_cached(hub: FakeHub, cache: Path) -> None:
    hub.stop()
    refused = f"[Errno {errno.ECONNREFUSED}] {os.strerror(errno.ECONNREFUSED)}"
    assert failure(NAME) == (
        "org/model: is no path here; "
        f"{hub.url} could not be reached (ConnectError: {refused}), and {cache} "
        "does not hold what is needed; connect to the network, or give a local folder"
    )


def test_no_answer_in_time(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.01)
    monkeypatch.setattr(hub, "struck", lambda request: time.sleep(0.5))
    assert failure(NAME) == (
        "org/model: is no path here; "
        f"{hub.url} could not be reached (ReadTimeout: timed out), and {cache} "
        "does not hold what is needed; connect to the network, or give a local folder"
    )


def test_a_hub_that_is_down(hub: FakeHub, cache: Path) -> None:
    hub.fault(status=503, body={"error": "back \x1b soon"}, times=math.inf)
    assert failure(NAME) == (
        f"org/model: is no path here; {hub.url} answered 503 Service Unavailable "
        f'("back \\u001b soon"), and {cache} does not hold what is needed; try again '
        "later, or give a local folder"
    )


@pytest.mark.parametrize(
    ("status", "answer", "step"),
    [
        (429, "429 Too Many Requests", "try again later"),
        (
            403,
            "403 Forbidden",
            "log in with a token that may do this in org: hf auth login",
        ),
        (409, "409 Conflict", "try again later"),
    ],
)
def test_a_refusal_of_another_kind(
    hub: FakeHub, status: int, answer: str, step: str
) -> None:
    hub.put(NAME, FILES)
    hub.fault(status=status, times=math.inf)
    assert failure(NAME) == f"org/model: {hub.url} answered {answer}; {step}"
    assert len(hub.requests) == (5 if status == 429 else 1)


def test_a_refusal_during_the_download(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="GET /cdn/", status=409, body={"error": "busy"})
    assert failure(NAME, only(WEIGHTS)) == (
        f'org/model: "{WEIGHTS}" did not arrive ({hub.url} answered 409 Conflict '
        '("busy")); try again later'
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            b"<html>Log in to the hotel's network",
            "JSONDecodeError: Expecting value: line 1",
        ),
        ([], "TypeError: "),
        ({}, "KeyError: 'id'"),
        ({"id": NAME, "siblings": [{"blobId": "0" * 40}]}, "KeyError: 'rfilename'"),
        ({"id": NAME, "siblings": [{"rfilename": "x", "blobId": 1}]}, "TypeError: "),
    ],
)
def test_an_answer_that_is_no_hubs(hub: FakeHub, body: object, error: str) -> None:
    hub.fault(status=200, body=body)
    assert re.fullmatch(
        f"org/model: expected {hub.url} to answer as a Hub does, found an answer that it "
        rf"does not give \({error}.*\); check HF_ENDPOINT, and whether a proxy or a login "
        "page stands between",
        failure(NAME),
    )


@pytest.mark.parametrize(
    ("info", "fault"),
    [
        ({"sha": "main"}, 'expected a commit, found "main"'),
        ({}, 'expected a commit, found "None"'),
        ({"siblings": [{"rfilename": "x", "blobId": "../y"}]}, '"x": "../y" is no digest'),
    ],
)
def test_a_listing_that_cannot_be(
    hub: FakeHub, cache: Path, info: dict[str, Any], fault: str
) -> None:
    hub.fault(status=200, body={"id": NAME, **info})
    with pytest.raises(FormatError) as raised:
        resolve(NAME, wanted=everything)
    assert str(raised.value) == f"{hub.url}/org/model: {fault}"
    assert not cache.exists()


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["../x"], 'path "../x" has a ".." segment'),
        (["/etc/x"], 'path "/etc/x" is absolute; expected one relative to the release'),
        (
            ["C:\\x"],
            'path "C:\\\\x" holds a backslash, which separates folders on Windows',
        ),
        (
            ["a", "A"],
            'paths "a" and "A" are one file where case or Unicode form is not kept apart',
        ),
    ],
)
def test_hostile_names_are_refused_before_anything_is_written(
    hub: FakeHub, cache: Path, names: Sequence[str], fault: str
) -> None:
    hub.put(NAME, FILES | dict.fromkeys(names, b"x"))
    with pytest.raises(FormatError) as raised:
        resolve(NAME, wanted=everything)
    assert str(raised.value) == f"{hub.url}/org/model: {fault}"
    assert len(hub.requests) == 1
    assert not cache.exists()
    assert resolve(NAME, wanted=only(WEIGHTS)).is_dir()  # who does not want them may go on


def test_nothing_wanted(hub: FakeHub, cache: Path) -> None:
    hub.put(NAME, FILES | {"more.txt": b""})
    with pytest.raises(UsageError) as raised:
        resolve(NAME, wanted=only("x"))
    assert str(raised.value) == (
        'org/model: none of its files is of use here ("README.md", "config.json", '
        '"model.safetensors", "original/consolidated.bin", …); name another model, or '
        "another revision after an @"
    )
    hub.put(NAME, {})
    with pytest.raises(UsageError, match=r"of use here \(it has none\); name"):
        resolve(NAME, wanted=only("x"))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "match", "digest"),
    [
        (WEIGHTS, "GET /cdn/", sha256_hex(FILES[WEIGHTS])),
        (
            "config.json",
            "resolve-cache.*config.json",
            "230d5f4da0da586aad26ead694ea67cd15bd6df1",
        ),
    ],
)
def test_a_flipped_byte_is_found(
    hub: FakeHub, cache: Path, name: str, match: str, digest: str
) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=match, flip=20)
    with pytest.raises(IntegrityError) as raised:
        resolve(NAME, wanted=only(name))
    blob = cache / "blobs" / digest
    assert re.fullmatch(
        f'{blob}: expected {digest}, the digest of "{name}" in {hub.url}/org/model, found '
        "[0-9a-f]+; it was removed: run again",
        str(raised.value),
    )
    assert not blob.exists()
    folder = resolve(NAME, wanted=only(name))
    assert files_in(folder) == {name: FILES[name]}


def test_without_links_a_flipped_byte_is_found_too(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    hub.put(NAME, FILES)
    hub.fault(match="GET /cdn/", flip=20)
    with pytest.raises(IntegrityError, match="it was removed: run again"):
        resolve(NAME, wanted=only(WEIGHTS))
    folder = resolve(NAME, wanted=only(WEIGHTS))
    assert not (folder / WEIGHTS).is_symlink()
    assert files_in(folder) == {WEIGHTS: FILES[WEIGHTS]}


def test_what_was_there_before_is_never_removed(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    old = resolve(NAME, wanted=everything)
    blob = (old / WEIGHTS).resolve()
    blob.write_bytes(b"damaged later, and not ours to judge")
    assert resolve(NAME, wanted=everything) == old
    hub.put(NAME, FILES | {"README.md": b"# New\n"})
    with pytest.raises(IntegrityError) as raised:
        resolve(NAME, wanted=everything)
    assert str(raised.value).startswith(f"{blob}: expected {blob.name}, the digest of ")
    assert str(raised.value).endswith("; delete it and run again")
    blob.unlink()
    assert files_in(resolve(NAME, wanted=everything))[WEIGHTS] == FILES[WEIGHTS]


def test_an_interrupted_download_goes_on_inside_the_file(hub: FakeHub) -> None:
    hub.put(NAME, FILES)

    def interrupt(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(NAME, wanted=only(WEIGHTS), progress=interrupt)
    folder = resolve(NAME, wanted=only(WEIGHTS))
    assert files_in(folder) == {WEIGHTS: FILES[WEIGHTS]}
    first, second = ranges(hub)
    assert first is None
    assert second is not None
    assert re.fullmatch("bytes=[1-9][0-9]*-", second)


def test_a_mirror_that_lists_no_digests_will_do(hub: FakeHub) -> None:
    commit = hub.put(NAME, FILES)
    names = [{"rfilename": name} for name in FILES]
    hub.fault(status=200, body={"id": NAME, "sha": commit, "siblings": names})
    seen: list[Progress] = []
    folder = resolve(NAME, wanted=everything, progress=seen.append)
    assert files_in(folder) == FILES
    assert {(step.done, step.total) for step in seen} == {(0, 0)}


@pytest.mark.parametrize("reset", [False, True])
def test_a_line_that_ends_is_taken_up_again(hub: FakeHub, reset: bool) -> None:
    hub.put(NAME, FILES)
    for cut in (100_000, 50_000, 0):
        hub.fault(match="GET /cdn/", cut=cut, reset=reset)
    seen: list[Progress] = []
    folder = resolve(NAME, wanted=only(WEIGHTS), progress=seen.append)
    assert files_in(folder) == {WEIGHTS: FILES[WEIGHTS]}
    if not reset:  # what was sent before a reset need not have come
        third = "bytes=150000-"
        assert ranges(hub) == [None, "bytes=100000-", third, third]
    assert seen[-1].done == seen[-1].total == len(FILES[WEIGHTS])


@pytest.mark.parametrize("match", ["GET .*/resolve/", "GET /cdn/"])
def test_a_server_that_stays_down_once_the_download_began(hub: FakeHub, match: str) -> None:
    hub.put(NAME, FILES)
    hub.fault(match=match, status=500, times=math.inf)
    assert failure(NAME, only(WEIGHTS)) == (
        f'org/model: "{WEIGHTS}" did not arrive ({hub.url} answered 500 Internal Server '
        "Error); run again: what has arrived is kept"
    )
    assert len(hub.asked(match)) == 5


def test_a_full_disk_says_so_itself(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, FILES)

    def fill(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("releasekit.hub.transfer.write", fill)
    with pytest.raises(OSError, match="No space left on device") as raised:
        resolve(NAME, wanted=everything)
    assert raised.value.errno == errno.ENOSPC


def test_a_disk_that_cannot_hold_it_is_known_before(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = resolve(f"{NAME}@{hub.put(NAME, FILES)}", wanted=only(WEIGHTS))
    hub.put(NAME, FILES | {"README.md": b"# New\n", "more.bin": bytes(9000)})
    monkeypatch.setattr("releasekit.output.free_nbytes", lambda path: 12_287)
    with pytest.raises(ReleaseKitError) as raised:
        resolve(NAME, wanted=only(WEIGHTS, "more.bin"))
    assert str(raised.value) == (
        f"{cache}: expected 12,288 bytes free, found 12,287: free some "
        "space, or set HF_HOME to a folder on another disk"
    )
    # What the cache has of the commit before, and what has come, takes no more space.
    (old.parents[1] / "blobs" / f"{sha256_hex(bytes(9000))}.releasekit").write_bytes(b"\0")
    monkeypatch.setattr("releasekit.output.free_nbytes", lambda path: 12_288)
    files = files_in(resolve(NAME, wanted=only(WEIGHTS, "more.bin")))
    assert files == {WEIGHTS: FILES[WEIGHTS], "more.bin": bytes(9000)}


def test_progress_counts_what_was_missing(
    hub: FakeHub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.put(NAME, FILES)
    resolve(NAME, wanted=only("README.md"))
    seen: list[Progress] = []
    resolve(NAME, wanted=everything, progress=seen.append)
    total = sum(map(len, FILES.values())) - len(FILES["README.md"])
    assert {(step.stage, step.total) for step in seen} == {("download", total)}
    done = [step.done for step in seen]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert len(set(done)) > len(FILES) + 2  # within a file as well
    assert capfd.readouterr() == ("", "")  # huggingface_hub draws nothing

    seen.clear()
    resolve(NAME, wanted=everything, progress=seen.append)
    assert seen == []


def test_a_file_that_the_cache_had_counts_as_downloaded(hub: FakeHub, cache: Path) -> None:
    old = resolve(f"{NAME}@{hub.put(NAME, FILES)}", wanted=only(WEIGHTS))
    shutil.rmtree(old)
    seen: list[Progress] = []
    resolve(NAME, wanted=only(WEIGHTS), progress=seen.append)
    assert hub.asked("GET /cdn/") == hub.asked("GET /cdn/")[:1]
    assert [step.done for step in seen] == [0, len(FILES[WEIGHTS])]


def test_a_password_in_the_address_of_a_mirror_is_not_told(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("://", "://me:secret@"))
    assert failure(NAME).startswith(f"{NAME}: {hub.url} answered 401 ")
    hub.stop()
    told = failure(NAME)
    assert f"{hub.url} could not be reached" in told
    assert "secret" not in told
    assert redacted("at http://me:secret@host/x?Signature=1") == "at http://host/x?…"
