"""`releasekit publish` as publishers run it, with huggingface_hub as it is."""

from __future__ import annotations

import json
import logging
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from releasekit import Policy, UsageError
from releasekit.progress import Progress
from releasekit.publication import Wishes, plan_publish
from releasekit.publication import publish as publish_release
from tests.fakehub import OTHER_TOKEN, READ_TOKEN, TOKEN, FakeHub
from tests.integration.publishing import (
    OWN,
    REPO,
    Shelf,
    asked,
    commits,
    copy,
    has,
    publish,
    refused,
    sent,
    writes,
)
from tests.integration.tools import COMMAND, digests, good


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(autouse=True)
def login(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def append(path: Path, data: bytes = b" ") -> None:
    path.write_bytes(path.read_bytes() + data)


def listed_anew(folder: Path) -> None:
    """Makes SHA256SUMS true again, as whoever spoils a release on purpose would."""
    lines = [
        f"{digest}  {name}\n"
        for name, digest in digests(folder).items()
        if name not in ("SHA256SUMS", "model.sig")
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


# What lands on the Hub.


@pytest.mark.parametrize("kind", ["plain", "signed", "llama", "model", "weights"])
def test_the_hub_has_the_folder_as_it_is(hub: FakeHub, shelf: Shelf, kind: str) -> None:
    folder: Path = getattr(shelf, kind)
    version = ("--version", "1.0") if kind in ("model", "weights") else ()
    trust = ("--public-key", shelf.public) if kind == "signed" else ()
    done = publish(folder, "--json", *version, *trust)
    assert (done.code, done.stderr) == (0, "")
    assert has(hub, folder)
    name = "tune" if version else "Tune"
    assert commits(hub) == [f"Release {name} 1.0"]
    assert hub.repos[REPO].tags == {"v1.0": hub.head(REPO)}
    assert hub.repos[REPO].private
    assert done.json["commit"] == hub.head(REPO)
    assert done.json["kind"] == ("model" if version else "delta")
    assert done.json["gated"] == ("auto" if kind in ("llama", "weights") else None)
    assert set(sent(hub).values()) == {1}
    assert hub.leaked() == []


def test_a_repository_is_closed_until_all_is_done(hub: FakeHub, shelf: Shelf) -> None:
    states: list[tuple[bool | None, object]] = []

    def look(_: object) -> None:
        repo = hub.repos.get(REPO)
        states.append((repo.private, repo.gated) if repo else (None, None))

    hub.fault(call=look, times=math.inf)
    good("publish", shelf.llama, REPO, "--public")
    assert not hub.repos[REPO].private
    assert hub.repos[REPO].gated == "auto"
    assert asked(hub) == [
        "GET revision",
        "POST validate-yaml",
        "POST create",
        "GET revision",
        "PUT settings",
        "POST preupload",
        "POST batch",
        "PUT lfs",
        "POST verify",
        "POST validate-yaml",
        "POST commit",
        "GET revision",
        "POST tag",
        "PUT settings",
    ]
    # What was so when each of them came.
    assert states[-1] == (True, "auto")
    assert states[asked(hub).index("POST preupload")] == (True, "auto")
    assert {private for private, _ in states} == {None, True}


def test_what_is_said_of_it(hub: FakeHub, shelf: Shelf) -> None:
    done = good("publish", shelf.plain, REPO, "--gated", "manual", "--public")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    count = len(digests(shelf.plain))
    assert lines == [
        ["published", f"Tune as {hub.url}/{REPO}"],
        ["commit", hub.head(REPO)],
        ["repository", "made"],
        ["files", lines[3][1]],
        ["tag", "v1.0"],
        ["seen", "by     everybody"],
        ["access", "after being let in"],
        ["signature", "none"],
        ["note", "not signed: users cannot tell whose it is; see `releasekit sign`"],
    ]
    assert re.fullmatch(rf"{count} files, .* kB; 0 were there already", lines[3][1])
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("before", "options", "after"),
    [
        (False, (), "auto"),
        ("auto", (), "auto"),
        ("manual", (), "manual"),
        (False, ("--gated", "manual"), "manual"),
        ("auto", ("--gated", "manual"), "manual"),
    ],
)
def test_gating_is_never_loosened(
    hub: FakeHub, shelf: Shelf, before: Any, options: tuple[str, ...], after: str
) -> None:
    hub.put(REPO, {OWN: b""})
    hub.repos[REPO].gated = before
    good("publish", shelf.llama, REPO, *options)
    assert hub.repos[REPO].gated == after
    changed = [each for each in asked(hub) if each in ("PUT settings", "POST commit")]
    assert changed == ["PUT settings"] * (before != after) + ["POST commit"]


def test_a_dry_run_changes_nothing_and_tells_the_truth(hub: FakeHub, shelf: Shelf) -> None:
    options = ("--public", "--gated", "manual", "--json")
    for folder in (shelf.plain, shelf.newer, shelf.newer):
        hub.requests.clear()
        before = (dict(hub.repos), [*hub.repos.values()][:1])
        planned = publish(folder, "--dry-run", *options)
        assert (planned.code, planned.stderr) == (0, "")
        assert writes(hub) == []
        assert "POST batch" not in asked(hub)
        assert (dict(hub.repos), [*hub.repos.values()][:1]) == before
        hub.requests.clear()
        done = publish(folder, *options)
        told = done.json
        assert told.pop("commit") == hub.head(REPO)
        assert told.pop("proposed") is None
        plan = planned.json
        verified, *_ = (stage["name"] for stage in told.pop("stages"))
        assert [stage["name"] for stage in plan.pop("stages")] == [verified] == ["verify"]
        assert plan == told
        posts = [r.content for r in hub.requests if "/commit/" in r.path]
        lines = [json.loads(line) for post in posts for line in post.splitlines()]
        added = {x["value"]["path"] for x in lines if x["key"] in ("file", "lfsFile")}
        gone = {x["value"]["path"] for x in lines if x["key"] == "deletedFile"}
        if told["published"]:
            assert (added, gone, plan["upload"]) == (set(), set(), {})
        assert (added, gone) == (set(plan["upload"]), set(plan["remove"]))
        assert ("POST tag" in asked(hub)) == (not told["published"])


def test_a_dry_run_in_words(hub: FakeHub, shelf: Shelf) -> None:
    hub.put(REPO, {OWN: b"", "release.json": b"", "old.txt": b"1"})
    done = good("publish", shelf.plain, REPO, "--dry-run", "--private")
    lines = done.stdout.splitlines()
    assert lines[0].split(maxsplit=2) == ["would", "publish", f"Tune as {hub.url}/{REPO}"]
    assert "removing       1 files of the commit before" in lines
    assert "seen by        its owner alone (before: everybody)" in lines
    assert "  -            old.txt" in lines
    assert sum(line.startswith("  + ") for line in lines) == len(digests(shelf.plain))


def test_a_branch_is_made_and_gets_the_files(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO, "--revision", "drafts/1")
    assert list(hub.files(REPO)) == [OWN]
    assert has(hub, shelf.plain, "drafts/1")
    assert hub.repos[REPO].tags == {"v1.0": hub.head(REPO, "drafts/1")}
    good("publish", shelf.newer, REPO, "--revision", "drafts/1")
    assert has(hub, shelf.newer, "drafts/1")
    # There already, by its tag: another branch of it is not made.
    good("publish", shelf.newer, REPO, "--revision", "drafts/2")
    assert sorted(hub.repos[REPO].branches) == ["drafts/1", "main"]


def test_a_new_branch_begins_at_main(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.model, REPO)
    main = hub.head(REPO)
    assert "none of this release" in refused(publish(shelf.plain, "--revision", "next"), 2)
    options = ("--revision", "next", "--force")
    planned = publish(shelf.plain, *options, "--dry-run", "--json").json
    assert (planned["head"], planned["new_branch"]) == (main, True)
    assert set(planned["remove"]) == {*digests(shelf.model)} - {*digests(shelf.plain)}
    done = publish(shelf.plain, *options)
    assert done.code == 0, done.stderr
    assert has(hub, shelf.plain, "next")
    assert has(hub, shelf.model)
    assert hub.repos[REPO].commits[hub.head(REPO, "next")].parent == main


def test_a_pull_request_is_made_once(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO)
    before = hub.head(REPO)
    done = publish(shelf.newer, "--create-pr", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert done.json["pull_request"] is True
    assert done.json["proposed"] == "refs/pr/1"
    assert done.json["tag"] is None
    assert has(hub, shelf.newer, "refs/pr/1")
    assert hub.head(REPO) == before
    (asked_for,) = hub.repos[REPO].discussions
    assert asked_for.title == "Release Tune 1.1"
    hub.requests.clear()
    again = publish(shelf.newer, "--create-pr")
    first, _, third, *_ = [line.split(maxsplit=1) for line in again.stdout.splitlines()]
    assert first == ["proposed", f"Tune as {hub.url}/{REPO}"]
    assert third == ["pull", "request  refs/pr/1"]
    assert len(hub.repos[REPO].discussions) == 1
    assert sent(hub) == {}
    assert list(hub.repos[REPO].tags) == ["v1.0"]


def test_anybody_may_propose(
    hub: FakeHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    good("publish", shelf.plain, REPO, "--public")
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    done = publish(shelf.model, "--create-pr", "--force", "--json")
    assert done.code == 0, done.stderr
    assert has(hub, shelf.model, "refs/pr/1")
    (asked_for,) = hub.repos[REPO].discussions
    assert asked_for.author == "other"


def test_a_proposal_of_what_is_there_says_so(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO)
    done = good("publish", shelf.plain, REPO, "--create-pr", "--json")
    assert "main has the same files already: nothing to propose" in done.json["notes"]
    assert done.json["proposed"] is None
    assert hub.repos[REPO].discussions == []


def test_a_proposal_is_on_top_of_what_was_looked_at(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO)

    def commit(_: object) -> None:
        files = hub.files(REPO)
        hub.put(REPO, {**files, "more.txt": b"by somebody else"})

    hub.fault(match="POST .*/commit/", call=commit)
    done = publish(shelf.newer, "--create-pr", "--json")
    assert done.code == 0, done.stderr
    assert has(hub, shelf.newer, "refs/pr/1")
    assert "more.txt" in hub.files(REPO)


@pytest.mark.parametrize("xet", [True, False])
def test_by_xet_and_without(
    xet_hub: FakeHub, shelf: Shelf, tmp_path: Path, xet: bool
) -> None:
    options = () if xet else ("--no-xet",)
    done = publish(shelf.model, "--version", "1.0", "--public", *options)
    assert (done.code, done.stderr) == (0, "")
    assert has(xet_hub, shelf.model)
    small = 0 if xet else 2
    assert len(xet_hub.asked("^PUT /lfs/")) == small
    assert bool(xet_hub.asked("xet-write-token")) == xet
    good("fetch", f"{REPO}@v1.0", "--out", tmp_path / "got")
    got = digests(tmp_path / "got")
    assert {name: got.get(name) for name in digests(shelf.model)} == digests(shelf.model)
    assert xet_hub.leaked() == []


def test_a_full_model_has_the_version_that_is_given(hub: FakeHub, shelf: Shelf) -> None:
    done = good("publish", shelf.model, REPO, "--json")
    assert (done.json["version"], done.json["tag"]) == (None, None)
    assert "no version: nothing is tagged; give one with --version" in done.json["notes"]
    assert hub.repos[REPO].tags == {}
    hub.requests.clear()
    good("publish", shelf.model, REPO, "--version", "2.0")
    assert writes(hub) == ["POST tag"]
    assert hub.repos[REPO].tags == {"v2.0": hub.head(REPO)}
    error = refused(publish(shelf.model, "--version", "two"), 2)
    assert error.startswith("--version two: expected ")
    error = refused(publish(shelf.plain, "--version", "2.0"), 2)
    assert error == (
        f"{shelf.plain}: is version 1.0, as it was made; leave --version out, or make it "
        "anew"
    )


def test_files_of_all_kinds(hub: FakeHub, shelf: Shelf, tmp_path: Path) -> None:
    folder = copy(shelf.model, tmp_path / "model")
    more = {
        "leer.bin": b"",
        "leer.txt": b"",
        "a/b/c/größe ü.txt": b"1",
        "a/b/日本.bin": b"\0\1",
        "sp ace/100%#?&+.json": b"{}",
        "tokenizer.json": b'{"a": "%s"}' % (b"1" * 3_000_000),
        **{f"many/{n:03}.txt": b"%d" % n for n in range(300)},
        **{f"many/{n:03}.bin": b"%d" % (n % 7) for n in range(20)},
    }
    for name, data in more.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    listed_anew(folder)
    # What the Hub's settings say of its own pages is nothing to us.
    hub.put(REPO, {OWN: b"*.bin filter=lfs\n", ".gitignore": b"*\n!*.md\n"})
    done = publish(folder, "--json")
    assert (done.code, done.stderr) == (0, "")
    files = hub.files(REPO)
    assert {name: files[name] for name in more} == more
    assert set(files) == {OWN, ".gitignore", *digests(folder)}
    assert done.json["remove"] == []
    good("publish", folder, REPO)
    assert len(commits(hub)) == 1


# Signatures.


def test_whose_it_is(hub: FakeHub, shelf: Shelf) -> None:
    done = good("publish", shelf.signed, REPO, "--dry-run", "--json")
    assert done.json["notes"] == [
        "signed, but by a key that is not trusted here: check it with --public-key"
    ]
    options = ("--public-key", shelf.public, "--require-signature")
    done = good("publish", shelf.signed, REPO, *options, "--json")
    assert done.json["signature"]["status"] == "signed"
    assert done.json["notes"] == []
    assert has(hub, shelf.signed)


def test_a_signature_that_is_wanted_and_not_there(hub: FakeHub, shelf: Shelf) -> None:
    other = shelf.pair("other").with_name("other.pub.pem")
    for folder, options in (
        (shelf.plain, ("--require-signature",)),
        (shelf.plain, ("--public-key", shelf.public)),
        (shelf.signed, ("--public-key", other)),
        (shelf.signed, ("--require-signature",)),
    ):
        assert publish(folder, *options).code == 6
    good("trust", "add", "acme", shelf.public, "--require-signature")
    assert publish(shelf.plain).code == 6
    assert writes(hub) == []
    assert publish(shelf.plain, repo="others/tune").code == 0
    assert publish(shelf.signed, "--json").json["signature"]["publisher"] == "acme"


# What is refused before anything is sent.


def spoil(folder: Path, how: str) -> None:
    match how:
        case "damaged":
            append(next(folder.glob("*.safetensors")))
        case "unexpected":
            (folder / "notes.txt").write_text("mine")
        case "missing":
            (folder / "config.json").unlink()
        case "no card":
            (folder / "README.md").unlink()
            listed_anew(folder)
        case "card":
            append(folder / "README.md", b"\n[a link](nowhere.md)\n")
            listed_anew(folder)
        case "key":
            key = b"-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"
            (folder / "notes.txt").write_bytes(key)
            listed_anew(folder)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        (
            "damaged",
            5,
            '.safetensors": make the release anew, or remove what is unexpected',
        ),
        (
            "unexpected",
            5,
            'unexpected "notes.txt": make the release anew, or remove what is ',
        ),
        ("missing", 5, 'missing "config.json": make the release anew, or remove what is '),
        ("no card", 2, "has no README.md; write one with `releasekit card "),
        ("card", 3, "README.md: breaks rules: card-"),
        ("key", 2, "notes.txt: holds a private key, and would be published: move it away"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "model"])
def test_a_spoiled_folder_is_refused(
    hub: FakeHub, shelf: Shelf, tmp_path: Path, kind: str, how: str, code: int, message: str
) -> None:
    folder = copy(getattr(shelf, kind), tmp_path / "spoiled")
    spoil(folder, how)
    done = publish(folder, "--json")
    error = refused(done, code)
    assert error.startswith(str(folder))
    assert message in error
    assert done.json["error"]["message"] == error
    assert writes(hub) == []
    assert hub.repos == {}


def test_licences_are_kept(hub: FakeHub, shelf: Shelf, tmp_path: Path) -> None:
    error = refused(publish(shelf.weights, "--public"), 7)
    assert error.startswith(
        f"{shelf.weights}: breaks rules of its licences: weights-upload"
    )
    assert hub.repos == {}
    good("publish", shelf.weights, REPO)
    assert hub.repos[REPO].private
    # Nor later, when all is there and only to be shown.
    assert publish(shelf.weights, "--public").code == 7
    assert hub.repos[REPO].private
    folder = copy(shelf.llama, tmp_path / "llama")
    (folder / "NOTICE").write_text("nothing of note\n")
    listed_anew(folder)
    assert publish(folder, repo="acme/other").code == 7
    assert "acme/other" not in hub.repos


def test_weights_are_not_added_to_what_everybody_sees(hub: FakeHub, shelf: Shelf) -> None:
    hub.put(REPO, {OWN: b""})
    assert publish(shelf.weights).code == 7
    assert list(hub.files(REPO)) == [OWN]
    good("publish", shelf.weights, REPO, "--private")
    assert hub.repos[REPO].private
    changed = [each for each in asked(hub) if each in ("PUT settings", "POST commit")]
    assert changed == ["PUT settings", "PUT settings", "POST commit"]


def test_a_card_that_the_hub_refuses(hub: FakeHub, shelf: Shelf) -> None:
    wrong = {"errors": [{"message": '"base_model" is\nno model'}], "warnings": []}
    hub.fault(match="validate-yaml", status=400, body=wrong)
    error = refused(publish(shelf.plain), 3)
    assert error == f'README.md: {hub.url} refuses it: "\\"base_model\\" is\\nno model"'
    assert writes(hub) == []


def test_no_login(hub: FakeHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    error = refused(publish(shelf.plain), 8)
    assert error == (
        f"{REPO}: publishing takes a token that may write, and none is known: log in: "
        "hf auth login (or set HF_TOKEN)"
    )
    assert hub.requests == []


def test_who_may_not(hub: FakeHub, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "log in with a token that may do this in acme: hf auth login"

    def error(token: str) -> str:
        monkeypatch.setenv("HF_TOKEN", token)
        return refused(publish(shelf.plain, "--public"), 8)

    message = error(READ_TOKEN)
    assert message.endswith(f"; {step}")
    assert "could not be made (" in message
    message = error("hf_unknown")
    assert message.endswith("; log in: hf auth login")
    assert "hf_unknown" not in message
    assert hub.repos == {}
    hub.orgs = {"others"}
    assert error(TOKEN).endswith(f"; {step}")
    assert hub.repos == {}
    # It is somebody else's.
    hub.put(REPO, {OWN: b""})
    before = hub.head(REPO)
    assert error(TOKEN).endswith(f"; {step}")
    assert error(OTHER_TOKEN).endswith(f"; {step}")
    assert hub.head(REPO) == before
    assert sent(hub) == {}


def test_storage_that_is_full(hub: FakeHub, shelf: Shelf) -> None:
    hub.quota = 1000
    error = refused(publish(shelf.model), 8)
    assert error.endswith(
        f"; free some storage of acme, or get more: see {hub.url}/settings/billing"
    )
    assert sent(hub) == {}
    assert commits(hub) == []
    hub.quota = None
    good("publish", shelf.model, REPO)
    assert has(hub, shelf.model)


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        (
            f"{REPO}@main",
            f"{REPO}@main: expected org/name; name the branch with --revision",
        ),
        ("tune", '"tune": expected org/name or org/name@revision'),
        ("a/b/c", '"a/b/c": expected org/name or org/name@revision'),
        ("a--b/c", '"a--b/c": expected org/name or org/name@revision'),
        ("../tune", '"../tune": expected org/name or org/name@revision'),
    ],
)
def test_names_that_cannot_be(hub: FakeHub, shelf: Shelf, repo: str, message: str) -> None:
    assert refused(publish(shelf.plain, repo=repo), 2) == message
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["../x", "a b", ""])
def test_branches_that_cannot_be(hub: FakeHub, shelf: Shelf, revision: str) -> None:
    assert refused(publish(shelf.plain, "--revision", revision), 2)
    assert hub.requests == []


@pytest.mark.parametrize("option", ["--public", "--private", "--gated=auto"])
def test_a_pull_request_changes_files_only(hub: FakeHub, shelf: Shelf, option: str) -> None:
    assert refused(publish(shelf.plain, "--create-pr", option), 2) == (
        "a pull request changes files only: leave --public, --private and --gated out, or "
        "--create-pr"
    )
    assert refused(publish(shelf.plain, "--create-pr"), 2) == (
        f"{REPO}: is not there, and a pull request is made to something: leave "
        "--create-pr out, or correct the name"
    )
    assert writes(hub) == []


def test_what_is_no_release(hub: FakeHub, shelf: Shelf, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert refused(publish(gone), 2) == (
        f"{gone}: expected the folder of a release, or a model"
    )
    assert refused(publish(shelf.base), 2) == (
        f"{shelf.base}: has no release.json, SHA256SUMS or model.sig, so nobody could "
        "check it: make a release of it, or sign it with `releasekit sign`"
    )
    assert hub.requests == []


def test_another_model_is_not_replaced(hub: FakeHub, shelf: Shelf) -> None:
    theirs = {OWN: b"", "README.md": b"# Theirs\n", "model.safetensors": b"1"}
    before = hub.put(REPO, theirs)
    error = refused(publish(shelf.plain), 2)
    assert error == (
        f'{REPO}: holds files that are none of this release: "model.safetensors": '
        "choose another name, or give --force to remove them from its newest commit (its "
        "history keeps them)"
    )
    assert writes(hub) == []
    good("publish", shelf.plain, REPO, "--force")
    assert has(hub, shelf.plain)
    assert hub.repos[REPO].commits[before].files.keys() == theirs.keys()


def test_a_release_of_another_name_is_not_replaced(
    hub: FakeHub, shelf: Shelf, tmp_path: Path
) -> None:
    good("publish", shelf.plain, REPO)
    other = shelf.delta(tmp_path / "other", version="1.1", name="Other")
    hub.requests.clear()
    assert refused(publish(other), 2) == (
        f'{REPO}: holds the release "Tune", and this one is "Other": choose another name '
        "on the Hub, or give --force to put it in that one's place (its history keeps it)"
    )
    assert writes(hub) == []
    assert has(hub, shelf.plain)
    good("publish", other, REPO, "--force")
    assert has(hub, other)


def test_weights_are_not_replaced_by_a_delta_nor_it_by_them(
    hub: FakeHub, shelf: Shelf
) -> None:
    good("publish", shelf.model, REPO)
    assert "none of this release" in refused(publish(shelf.plain), 2)
    assert has(hub, shelf.model)
    good("publish", shelf.plain, REPO, "--force")
    assert "none of this release" in refused(publish(shelf.model), 2)
    assert has(hub, shelf.plain)


@pytest.mark.parametrize("name", ["config.json", "model-00002-of-00002.safetensors"])
def test_a_folder_that_changes_meanwhile(
    hub: FakeHub, shelf: Shelf, tmp_path: Path, name: str
) -> None:
    folder = copy(shelf.model, tmp_path / "model")
    hub.fault(match="PUT /lfs/", call=lambda _: append(folder / name))
    error = refused(publish(folder, "--public", "--version", "1.0"), 5)
    assert error.startswith(f"{folder / name}: expected sha256 ")
    assert error.endswith("it changed meanwhile; run again once nothing writes to it")
    assert commits(hub) == []
    assert hub.repos[REPO].private


# Again, and with what came after.


def test_a_second_run_changes_nothing(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO, "--public")
    head = hub.head(REPO)
    hub.requests.clear()
    done = good("publish", shelf.plain, REPO, "--public", "--json")
    assert (done.json["published"], done.json["commit"]) == (True, head)
    assert writes(hub) == []


def test_an_older_version_is_there_and_stays(hub: FakeHub, shelf: Shelf) -> None:
    good("publish", shelf.plain, REPO)
    first = hub.head(REPO)
    good("publish", shelf.newer, REPO)
    hub.requests.clear()
    done = good("publish", shelf.plain, REPO, "--json")
    assert (done.json["commit"], done.json["published"]) == (first, True)
    assert writes(hub) == []
    assert has(hub, shelf.newer)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_version_that_is_published_does_not_change(
    hub: FakeHub, shelf: Shelf, tmp_path: Path, force: tuple[str, ...]
) -> None:
    good("publish", shelf.plain, REPO)
    head = hub.head(REPO)
    other = copy(shelf.plain, tmp_path / "other")
    append(other / "README.md", b"\nMore words.\n")
    listed_anew(other)
    hub.requests.clear()
    assert refused(publish(other, *force), 2) == (
        f"{REPO}: version 1.0 is published as v1.0, with other files "
        '("README.md", "SHA256SUMS"), and does not change: make the release anew with a '
        "higher --version"
    )
    assert writes(hub) == []
    assert hub.head(REPO) == head


def test_a_new_version_takes_the_place_of_the_old(
    hub: FakeHub, shelf: Shelf, tmp_path: Path
) -> None:
    old = copy(shelf.model, tmp_path / "old")
    (old / "notes.txt").write_text("old")
    listed_anew(old)
    good("publish", old, REPO, "--version", "1.0")
    new = shelf.full(tmp_path / "new", second=3)
    hub.requests.clear()
    done = good("publish", new, REPO, "--version", "1.1", "--json")
    assert done.json["remove"] == ["notes.txt"]
    assert "model-00001-of-00002.safetensors" in done.json["same"]
    assert sent(hub) == {digests(new)["model-00002-of-00002.safetensors"]: 1}
    assert has(hub, new)
    assert has(hub, old, "v1.0")
    assert commits(hub) == ["Release tune 1.1", "Release tune 1.0"]


# The token, the terminal, and whoever reads along.


def test_the_token_is_told_to_nobody(
    hub: FakeHub, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = digests(shelf.model)
    said = ""
    hub.fault(match="PUT /lfs/", status=403)
    hub.fault(match="POST .*/commit/", status=500)
    hub.fault(match="PUT .*/settings", status=403, body={"error": f"no {TOKEN} here"})
    codes = []
    for options in ((), ("--json",), ("--verbose",)):
        done = publish(shelf.model, "--version", "1.0", "--public", *options)
        codes.append(done.code)
        said += done.stdout + done.stderr
    assert codes == [8, 0, 0]
    said += caplog.text
    assert TOKEN not in said
    assert hub.leaked() == []
    assert all(TOKEN not in path.read_text(errors="replace") for path in files(tmp_path))
    assert digests(shelf.model) == before


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_errors_carry_no_signed_addresses(hub: FakeHub, shelf: Shelf) -> None:
    hub.fault(match="PUT /lfs/", status=400, times=9)
    done = publish(shelf.model, "--json")
    assert done.code == 8
    assert "could not be uploaded" in done.error
    assert "Signature" not in done.stdout + done.stderr
    assert "Expires=" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["plain", "model"])
def test_nothing_but_the_result_is_said(
    hub: FakeHub, shelf: Shelf, kind: str, tmp_path: Path
) -> None:
    """In a process of its own, where warnings and loggers are as users have them."""
    arguments = ("publish", getattr(shelf, kind), REPO, "--json")
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["repo"] == REPO


def test_progress_never_goes_back(hub: FakeHub, shelf: Shelf) -> None:
    hub.fault(match="PUT /lfs/", skip=1, cut=500_000, reset=True)
    seen: dict[str, list[Progress]] = {}
    publish_release(
        shelf.model, REPO, progress=lambda p: seen.setdefault(p.stage, []).append(p)
    )
    assert list(seen) == ["verify", "upload"]
    total = sum(path.stat().st_size for path in files(shelf.model))
    for stage, steps in seen.items():
        done = [step.done for step in steps]
        assert done == sorted(done), stage
        assert (done[0], done[-1]) == (0, steps[0].total), stage
        assert {step.total for step in steps} == {steps[0].total}
    assert seen["upload"][0].total == total
    assert len(seen["upload"]) > 6


def test_from_python(hub: FakeHub, shelf: Shelf) -> None:
    plan = plan_publish(shelf.signed, REPO, policy=Policy(public_key=shelf.public))
    assert (plan.tag, plan.exists, plan.published) == ("v1.0", False, False)
    assert plan.upload_nbytes == sum(path.stat().st_size for path in files(shelf.signed))
    done = publish_release(shelf.signed, REPO, Wishes(public=True))
    assert (done.commit, done.proposed) == (hub.head(REPO), None)
    assert not hub.repos[REPO].private
    with pytest.raises(UsageError, match=r"is version 1\.0, as it was made"):
        plan_publish(shelf.signed, REPO, Wishes(version="2"))
