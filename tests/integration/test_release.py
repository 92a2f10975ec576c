"""`releasekit release` and `releasekit init`, as maintainers run them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import ExitStack, chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from releasekit.card.sections import parse as parse_card
from releasekit.cli.release import command
from releasekit.cli.shell import Shell
from releasekit.cli.watching import watcher_of
from releasekit.progress import Progress
from releasekit.releasing.pace import Expected
from releasekit.releasing.run import plan_release
from releasekit.releasing.run import release as run_release
from releasekit.releasing.steps import ORDER
from releasekit.releasing.watching import State, Watcher
from releasekit.signing.keys import PrivateKey
from tests.builders import model_folder, stock_tensors
from tests.fakehub import READ_TOKEN, TOKEN, FakeHub
from tests.integration.publishing import REPO, commits, has, writes
from tests.integration.tools import (
    COMMAND,
    Done,
    as_raw,
    digests,
    good,
    here,
    numbers,
    small_pair,
    weights,
)

KINDS = ["delta", pytest.param("full", marks=pytest.mark.slow)]
STEPS = list(ORDER)
RESULTS = "task,metric,value,unit,shots\nown_task,acc_norm,0.682,fraction,25\n"


@dataclass
class Desk:
    """A maintainer's folder: models, a licence, results, a key, and a release.toml."""

    root: Path
    kind: str
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.root / "release.toml"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def record(self) -> Path:
        return self.root / "out.steps.json"

    def set(self, path: str, value: object) -> None:
        """Says something else in the file; None leaves it out."""
        table, _, key = path.partition(".")
        if value is None:
            del self.tables[table][key]
        else:
            self.tables.setdefault(table, {})[key] = value
        self.save()

    def save(self) -> None:
        lines = []
        for name, table in self.tables.items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self.file.write_text("\n".join(lines))

    def release(self, *options: str | Path) -> Done:
        return here("release", self.file, *options)

    def states(self, *options: str | Path) -> dict[str, str]:
        """What became of each step."""
        done = good("release", self.file, "--json", *options)
        assert done.stderr == ""
        return {step["step"]: step["state"] for step in done.json["steps"]}

    def done(self, *options: str | Path) -> list[str]:
        """The steps that were done, or would be, which a plan has told before."""
        planned = self.states("--dry-run", *options)
        states = self.states(*options)
        done = [step for step, state in states.items() if state == "done"]
        # A plan cannot tell what will come out the same; else it says what is so.
        for step, state in states.items():
            assert planned[step] == ("to do" if state == "done" else planned[step])
            assert (planned[step] == "idle") == (state == "idle")
            assert state == "kept" or planned[step] != "kept"
        return done

    def refused(self, code: int, *options: str | Path) -> str:
        """The message of a run that failed so, and that a dry run has told as well."""
        planned = self.release("--dry-run", *options)
        done = self.release(*options)
        assert (planned.code, done.code) == (code, code), done.stdout + done.stderr
        assert planned.error == done.error
        return done.error.replace(f"{self.root}/", "")

    def copy(self, place: Path) -> Desk:
        """The same elsewhere."""
        root = Path(shutil.copytree(self.root, place))
        tables = {name: dict(table) for name, table in self.tables.items()}
        return Desk(root, self.kind, tables)


def desk_in(root: Path, kind: str, key: Path) -> Desk:
    root.mkdir()
    base, tuned = small_pair()
    model_folder(root / "base", base)
    (root / "base" / "LICENSE").write_text("MIT\n")
    model_folder(root / "tuned", tuned)
    (root / "tuned" / "config.json").write_text("{}")
    (root / "mit.txt").write_text("MIT\n")
    (root / "results.csv").write_text(RESULTS)
    for name in ("acme.pem", "acme.pub.pem"):
        shutil.copy(key.with_name(name), root / name)
    desk = Desk(root, kind)
    desk.tables = {
        "release": {
            "name": "Tune",
            "version": "1.0",
            "kind": kind,
            "target": "tuned",
            "base": "base",
            "out": "out",
            "sign_key": "acme.pem",
        },
        "licenses": {"license": "mit", "bases": ["mit"], "files": ["mit=mit.txt"]},
        "card": {"summary": "It follows instructions."},
        "base": {"id": "org/base"},
    }
    desk.save()
    return desk


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what several tests begin with; `acme.pem` lies there."""
    root = tmp_path_factory.mktemp("shelf")
    good("keygen", root / "acme.pem", "--no-passphrase")
    return root


@pytest.fixture(scope="module")
def ready(shelf: Path) -> dict[str, Desk]:
    """Releases that are made, but for publishing."""
    desks = {}
    for kind in ("delta", "full"):
        desks[kind] = desk_in(shelf / kind, kind, shelf / "acme.pem")
        assert desks[kind].states()["verify"] == "done"
    return desks


@pytest.fixture(params=KINDS)
def made(request: pytest.FixtureRequest, ready: dict[str, Desk], tmp_path: Path) -> Desk:
    """A release that is made, of either kind, to be changed."""
    return ready[request.param].copy(tmp_path / "desk")


@pytest.fixture
def delta(ready: dict[str, Desk], tmp_path: Path) -> Desk:
    return ready["delta"].copy(tmp_path / "desk")


@pytest.fixture
def full(ready: dict[str, Desk], tmp_path: Path) -> Desk:
    return ready["full"].copy(tmp_path / "desk")


@pytest.fixture
def fresh(shelf: Path, tmp_path: Path) -> Desk:
    """One of which nothing is made."""
    return desk_in(tmp_path / "fresh", "delta", shelf / "acme.pem")


@pytest.fixture
def login(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


# The whole way.


def test_a_release_is_made_and_published(made: Desk, login: FakeHub) -> None:
    made.set("hub.repo", REPO)
    assert made.done() == ["card", "sign", "verify", "publish"]  # the card names the repo
    assert has(login, made.out)
    assert login.repos[REPO].tags == {"v1.0": login.head(REPO)}
    assert commits(login) == [f"Release {'Tune' if made.kind == 'delta' else 'tune'} 1.0"]
    assert login.leaked() == []
    login.requests.clear()
    assert made.states()["publish"] == "kept"
    (asked,) = login.requests  # whether it is there still
    assert (asked.method, asked.path.partition("?")[0]) == (
        *("GET", f"/api/models/{REPO}/revision/v1.0"),
    )
    login.requests.clear()
    made.set("hub.visibility", "public")
    assert made.done() == ["publish"]
    assert writes(login) == ["PUT settings"]
    assert not login.repos[REPO].private
    made.set("hub.gated", "manual")
    assert made.done() == ["publish"]
    assert login.repos[REPO].gated == "manual"


def test_the_same_inputs_give_the_same_bytes(
    ready: dict[str, Desk], shelf: Path, tmp_path: Path
) -> None:
    for kind, first in ready.items():
        second = desk_in(tmp_path / kind, kind, shelf / "acme.pem")
        assert second.done() == [
            *(["make", "licenses", "card"] if kind == "delta" else ["make", "card"]),
            *("sign", "verify"),
        ]
        assert digests(second.out) == digests(first.out)
        assert {"model.sig", "SHA256SUMS", "README.md"} <= digests(first.out).keys()


def test_what_is_told(delta: Desk) -> None:
    done = good("release", delta.file)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["release", *f"Tune 1.0, delta, in {delta.out}".split()]
    assert [line[:2] for line in lines[2:]] == [
        *(["make", "kept"], ["licenses", "kept"], ["evaluations", "idle"]),
        *(
            ["report", "idle"],
            ["card", "kept"],
            ["sign", "kept"],
            ["verify", "kept"],
            ["publish", "idle"],
        ),
    ]
    assert lines[4][2:] == ["none", "are", "given"]
    assert lines[9][2:] == ["no", "[hub]", "repo", "is", "named"]
    assert done.stderr == ""
    document = good("release", delta.file, "--json").json
    (idle,) = [step for step in document.pop("steps") if step["step"] == "evaluations"]
    assert idle == {
        "step": "evaluations",
        "state": "idle",
        "said": "none are given",
        "seconds": 0.0,
    }
    assert document == {
        "file": str(delta.file),
        "name": "Tune",
        "version": "1.0",
        "kind": "delta",
        "out": str(delta.out),
        "repo": None,
    }
    assert good("release", delta.file, "--quiet").stdout == ""


def test_a_plan_says_why(delta: Desk) -> None:
    (delta.root / "tuned" / "config.json").write_text("{ }")
    (delta.out / "README.md").unlink()
    steps = good("release", delta.file, "--dry-run", "--json").json["steps"]
    assert {step["step"]: step["said"] for step in steps if step["state"] == "to do"} == {
        "make": "what it follows from has changed",
        "licenses": "unless the same comes out of: make",
        "card": "what it made is gone, or was changed",
        "sign": "what it follows from has changed",
        "verify": "what it follows from has changed",
    }
    delta.set("release.out", "new")
    steps = good("release", delta.file, "--dry-run", "--json").json["steps"]
    assert {step["said"] for step in steps if step["state"] == "to do"} == {"not done yet"}


def test_each_step_may_be_the_last(fresh: Desk, login: FakeHub) -> None:
    fresh.tables["evaluations"] = {"model": ["results.csv"], "model_name": "Tune"}
    fresh.set("hub.repo", REPO)
    for step in ORDER:
        done = fresh.done("--until", step)
        assert done == ([step] if step != "report" else [])  # none is named
        assert (login.requests == []) == (step != "publish")
    states = fresh.states("--until", "card")
    assert states == dict.fromkeys(STEPS[:5], "kept") | {"report": "idle"}
    assert (fresh.out / "evaluations" / "evaluations.json").is_file()
    assert has(login, fresh.out)


def test_pictures_are_drawn_where_they_are_wanted(fresh: Desk) -> None:
    fresh.set("release.report", "pictures")
    fresh.set("evaluations.model", ["results.csv"])
    fresh.set("evaluations.model_name", "Tune")
    assert fresh.done() == STEPS[:7]
    pictures = fresh.root / "pictures"
    before = digests(pictures)
    assert {"report.html", "evaluations.png"} <= before.keys()
    assert fresh.done() == []
    (pictures / "report.json").unlink()
    assert fresh.refused(2) == (
        "pictures: exists already; name another folder in release.report, or remove it"
    )
    shutil.rmtree(pictures)
    assert fresh.done() == ["report"]
    assert digests(pictures) == before
    (fresh.root / "results.csv").write_text(RESULTS.replace("0.682", "0.683"))
    assert fresh.done() == ["evaluations", "report", "card", "sign", "verify"]
    (fresh.root / "results.csv").write_text(RESULTS)
    fresh.states()
    assert digests(pictures) == before
    fresh.tables.pop("evaluations")
    fresh.save()
    assert fresh.done() == ["report", "card", "sign", "verify"]
    assert "evaluations.png" not in digests(pictures)
    assert "<h2>Evaluations</h2>" not in (pictures / "report.html").read_text()


def section(desk: Desk, name: str) -> str:
    """The text of a section of the card; empty if it has none."""
    pieces = parse_card((desk.out / "README.md").read_text(), "README.md")
    return "".join(piece.text for piece in pieces if piece.name == name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_takes_over_what_the_report_says(
    ready: dict[str, Desk], tmp_path: Path, kind: str
) -> None:
    desk = ready[kind].copy(tmp_path / "desk")
    before = digests(desk.out)
    desk.set("release.report", "pictures")
    assert desk.done() == ["report", *AFTER_CARD]
    said = (desk.root / "pictures" / "summary.md").read_text()
    assert section(desk, "weights") == f"## The weights\n\n{said}"
    assert "Compared with its base, " in said
    assert "\n| All | " in said
    assert "pictures" not in (desk.out / "README.md").read_text()
    assert "<h1>Tune</h1>" in (desk.root / "pictures" / "report.html").read_text()
    with_report, pictures = digests(desk.out), digests(desk.root / "pictures")
    # A report that is kept says the same to a card that is not.
    (desk.out / "README.md").unlink()
    assert desk.done() == ["card", "sign"]
    assert digests(desk.out) == with_report
    # So does one that is drawn once more, also while the card is somebody's own.
    card = desk.out / "README.md"
    card.write_text(f"{card.read_text()}\nBy hand.\n")
    shutil.rmtree(desk.root / "pictures")
    assert desk.done() == ["report", *AFTER_CARD]
    assert section(desk, "weights") == f"## The weights\n\n{said}"
    assert digests(desk.root / "pictures") == pictures
    card.unlink()
    desk.set("release.report", None)
    assert desk.done() == AFTER_CARD
    assert digests(desk.out) == before


def test_another_base_is_compared_with_anew(full: Desk) -> None:
    full.set("release.report", "pictures")
    full.states()
    said = section(full, "weights")
    other_weights("base")(full)
    assert full.done() == ["report", *AFTER_CARD]
    assert section(full, "weights") != said


def test_evaluations_that_a_model_brings_are_in_its_report(
    delta: Desk, tmp_path: Path
) -> None:
    delta.set("evaluations.model", ["results.csv"])
    delta.set("evaluations.model_name", "Tune")
    delta.states()
    full = desk_in(tmp_path / "full", "full", delta.root / "acme.pem")
    shutil.copytree(delta.out / "evaluations", full.root / "tuned" / "evaluations")
    full.set("release.report", "pictures")
    full.states()
    assert (full.root / "pictures" / "evaluations.png").is_file()
    assert "Other tasks" in section(full, "evaluations")


def test_a_report_takes_nobodys_place(fresh: Desk) -> None:
    fresh.set("release.report", "pictures")
    pictures = fresh.root / "pictures"
    pictures.mkdir()
    assert fresh.refused(2) == (
        "pictures: exists already; name another folder in release.report, or remove it"
    )
    assert not fresh.out.exists()
    fresh.set("release.report", "tuned/pictures")
    assert fresh.refused(2) == (
        "tuned/pictures: lies in the input tuned; choose another release.report"
    )
    fresh.set("release.report", "out/pictures")
    assert fresh.refused(2).startswith("out/pictures: lies in the input out; choose ")
    pictures.rmdir()
    fresh.set("release.report", "pictures")
    fresh.states()
    (fresh.root / "tuned").rename(pictures / "tuned")
    (pictures / "thesis.txt").write_text("years of work")
    fresh.set("release.target", "pictures/tuned")
    assert fresh.refused(2) == (
        'pictures: holds what belongs to no report: "thesis.txt", "tuned"; move it away, '
        "or name another folder in release.report"
    )
    assert (pictures / "thesis.txt").read_text() == "years of work"


def test_a_wrong_last_step_is_refused(delta: Desk) -> None:
    done = delta.release("--until", "end")
    assert done.code == 2
    assert "Invalid value for '--until'" in done.stderr
    with pytest.raises(Exception, match=r"^--until end: expected one of make, licenses, "):
        run_release(delta.file, until="end")
    with pytest.raises(Exception, match=r"release.sign_key: names a key, which was not gi"):
        plan_release(delta.file)


# What changes, and what is done then.

AFTER_MAKE = {"delta": ["make", "licenses", "card", "sign", "verify"]}
AFTER_MAKE["full"] = ["make", "card", "sign", "verify"]
AFTER_CARD = ["card", "sign", "verify"]


def rewrite(name: str, text: str) -> Callable[[Desk], None]:
    def change(desk: Desk) -> None:
        (desk.root / name).write_text(text)

    return change


def say(path: str, value: object) -> Callable[[Desk], None]:
    return lambda desk: desk.set(path, value)


def other_weights(name: str) -> Callable[[Desk], None]:
    def change(desk: Desk) -> None:
        model_folder(desk.root / name, small_pair(2)[name == "tuned"])

    return change


SAME = ["make", "card", "sign"]  # the bytes of before, so that nothing follows


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("kind", "change", "done"),
    [
        ("delta", rewrite("tuned/config.json", "{ }"), AFTER_MAKE["delta"]),
        ("full", rewrite("tuned/config.json", "{ }"), AFTER_MAKE["full"]),
        ("delta", other_weights("tuned"), AFTER_MAKE["delta"]),
        pytest.param(
            *("delta", other_weights("base"), AFTER_MAKE["delta"]), marks=pytest.mark.slow
        ),
        ("full", other_weights("base"), []),
        ("full", rewrite("tuned/.cache/x", ""), []),
        ("delta", rewrite("mit.txt", "MIT license\n"), AFTER_MAKE["delta"]),
        ("full", rewrite("mit.txt", "MIT license\n"), AFTER_CARD),
        # Another text was given for it.
        ("delta", rewrite("base/LICENSE", "The MIT\n"), SAME),
        ("full", rewrite("base/LICENSE", "The MIT\n"), ["card", "sign"]),
        ("delta", say("release.version", "1.1"), AFTER_MAKE["delta"]),
        ("full", say("release.version", "1.1"), []),
        ("full", say("release.name", "Other"), AFTER_CARD),
        ("full", say("release.shard_size", "3kB"), AFTER_MAKE["full"]),
        pytest.param(
            *("full", say("release.dtype", "float16"), AFTER_MAKE["full"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("delta", say("release.codec", "add"), AFTER_MAKE["delta"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("delta", say("release.publisher", "acme"), AFTER_MAKE["delta"]),
            marks=pytest.mark.slow,
        ),
        ("delta", say("release.accept_base", ["base"]), SAME),
        pytest.param(
            *("delta", say("release.exclude", ["config.json"]), AFTER_MAKE["delta"]),
            marks=pytest.mark.slow,
        ),
        ("full", say("licenses.teachers", ["gpt-4"]), AFTER_CARD),
        ("delta", say("card.summary", "It does not."), AFTER_CARD),
        pytest.param(
            *("full", say("card.description", "At all."), AFTER_CARD),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_follows_from_a_change_is_done_again(
    ready: dict[str, Desk],
    tmp_path: Path,
    kind: str,
    change: Callable[[Desk], None],
    done: list[str],
) -> None:
    desk = ready[kind].copy(tmp_path / "desk")
    (desk.root / "tuned" / ".cache").mkdir()
    change(desk)
    assert desk.done() == done
    assert set(desk.states().values()) == {"kept", "idle"}


@pytest.fixture
def wide(full: Desk) -> Desk:
    """One whose model has floats of 32 bits that hold values of bfloat16."""
    source = np.random.default_rng(3)
    narrow = numbers(weights(source, "BF16", 64, 64))
    model_folder(full.root / "tuned", {"w": as_raw(narrow, "F32")})
    return full


def made_of(desk: Desk) -> str:
    """What the first step says."""
    steps = good("release", desk.file, "--json").json["steps"]
    return str(steps[0]["said"])


def test_a_dtype_that_is_wider_than_its_values_is_told(wide: Desk) -> None:
    assert made_of(wide) == (
        "2 files, 16.5 kB; the tensor of F32 holds values of BF16, bit for bit: as BF16 "
        'that takes 8.19 kB less, with no loss: release.dtype = "smallest" does that'
    )
    wide.set("release.dtype", "smallest")
    # Half of all that is to be made, and no need to say so again.
    assert made_of(wide) == "2 files, 8.3 kB; bfloat16: the same values, bit for bit"
    small, whole = (
        stock_tensors((folder / "model.safetensors").read_bytes())["w"]
        for folder in (wide.out, wide.root / "tuned")
    )
    assert (small[0], whole[0]) == ("BF16", "F32")
    assert numbers(small).tobytes() == whole[2]
    assert wide.done() == []


def test_what_becomes_of_floats_is_told(full: Desk) -> None:
    full.set("release.dtype", "smallest")
    assert made_of(full).partition("; ")[2] == "no smaller dtype holds its values"
    full.set("release.dtype", "float16")
    assert re.fullmatch(
        r"float16: [0-9,]+ values rounded", made_of(full).partition("; ")[2]
    )


def test_a_comment_in_the_file_changes_nothing(made: Desk) -> None:
    made.file.write_text(f"# Mine.\n{made.file.read_text()}\n")
    assert made.done() == []


def test_another_date_makes_another_delta(
    delta: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert delta.done() == ["make", "card", "sign", "verify"]


def test_models_may_be_on_the_hub(made: Desk, login: FakeHub) -> None:
    base, tuned = made.root / "base", made.root / "tuned"
    login.put("org/base", {path.name: path for path in base.iterdir()})
    login.put("org/tuned", {path.name: path for path in tuned.iterdir()})
    made.set("release.base", "org/base")
    if made.kind == "full":
        made.set("release.target", "org/tuned")
        shutil.rmtree(tuned)
    made.set("licenses.bases", ["llama-1"])
    assert "noncommercial-base: mit allows" in made.refused(7)
    made.set("licenses.bases", ["mit"])
    shutil.rmtree(base)
    login.requests.clear()
    planned = made.states("--dry-run")
    assert planned["make"] == "to do"
    # Whether the base is there, and has the texts that licences ask for, is asked at once.
    assert {request.method for request in login.requests} <= {"GET"}
    assert not login.asked("safetensors")
    # The same weights: only a delta says what its base is called.
    same = ["make", "card", "sign"]
    assert made.done() == (AFTER_MAKE["delta"] if made.kind == "delta" else same)
    assert made.done() == []
    made.set("card.summary", "It does not.")
    assert made.done() == AFTER_CARD


def test_what_was_taken_back_is_gone(made: Desk, ready: dict[str, Desk]) -> None:
    """A release that was changed, and changed back, is the one of before."""
    made.tables["evaluations"] = {"model": ["results.csv"]}
    made.tables["evaluations"]["model_name"] = "Tune"
    made.tables["card"] |= {"languages": ["en"], "description": "Once."}
    made.set("licenses.teachers", ["gpt-4"])
    assert "evaluations" in made.done()
    assert (made.out / "evaluations" / "evaluations.json").is_file()
    (made.root / "results.csv").write_text(RESULTS.replace("0.682", "0.683"))
    assert made.done() == ["evaluations", *AFTER_CARD]
    del made.tables["evaluations"]
    made.set("licenses.teachers", None)
    made.set("card.languages", None)
    made.set("card.description", None)
    made.states()
    assert digests(made.out) == digests(ready[made.kind].out)


def test_another_key_signs_all_and_stands_in_the_card(made: Desk) -> None:
    good("keygen", made.root / "new.pem", "--no-passphrase")
    made.set("release.sign_key", "new.pem")
    assert made.done() == AFTER_CARD
    new = PrivateKey.load(made.root / "new.pem").public.fingerprint
    old = PrivateKey.load(made.root / "acme.pem").public.fingerprint
    card = (made.out / "README.md").read_text()
    if made.kind == "delta":
        assert new in card
    assert old not in card
    good("verify", made.out, "--public-key", made.root / "new.pub.pem")
    assert made.done() == []


def test_without_its_key_a_release_is_one_that_was_never_signed(
    made: Desk, shelf: Path, tmp_path: Path
) -> None:
    never = desk_in(tmp_path / "never", made.kind, shelf / "acme.pem")
    for desk in (never, made):
        desk.set("release.sign_key", None)
    assert made.done() == ["card", "verify"]
    count = len(digests(made.out))
    assert f"{count - 1} files, not signed" in good("release", made.file).stdout
    never.states()
    assert digests(made.out) == digests(never.out)


def test_links_from_a_former_key_go_into_the_release(delta: Desk) -> None:
    good("keygen", delta.root / "new.pem", "--no-passphrase")
    paths = ("--old", delta.root / "acme.pem", "--new", delta.root / "new.pub.pem")
    good("rotate-key", *paths, "--out", delta.root / "links.json")
    delta.set("release.sign_key", "new.pem")
    delta.set("release.succession", "links.json")
    assert delta.done() == AFTER_CARD
    assert (delta.out / "key-succession.jsonl").is_file()
    assert delta.done() == []
    delta.set("release.succession", None)
    assert delta.done() == ["sign", "verify"]
    assert not (delta.out / "key-succession.jsonl").exists()


def test_links_to_another_key_are_refused_before_anything_is_made(fresh: Desk) -> None:
    good("keygen", fresh.root / "new.pem", "--no-passphrase")
    paths = ("--old", fresh.root / "acme.pem", "--new", fresh.root / "new.pub.pem")
    good("rotate-key", *paths, "--out", fresh.root / "links.json")
    fresh.set("release.succession", "links.json")
    assert fresh.refused(2).startswith("links.json: leads to key ")
    assert not fresh.out.exists()


# What somebody changes in the release.


def test_a_card_that_was_edited_is_kept(made: Desk) -> None:
    card = made.out / "README.md"
    text = card.read_text()
    card.write_text(f"{text}\n## My words\n\nBy hand.\n")
    assert made.done() == AFTER_CARD
    assert "By hand." in card.read_text()
    made.set("card.summary", "It does not.")
    assert made.done() == AFTER_CARD
    assert "By hand." in card.read_text()
    assert "It does not." in card.read_text()
    made.set("release.shard_size", "3kB")
    assert made.done() == AFTER_MAKE[made.kind]
    assert "By hand." in card.read_text()
    good("verify", made.out, "--public-key", made.root / "acme.pub.pem")
    assert sorted(path.name for path in made.root.glob("out*")) == ["out", "out.steps.json"]
    card.unlink()
    assert made.done() == AFTER_CARD
    assert "By hand." not in card.read_text()


def test_a_card_that_was_edited_outlasts_a_stop_while_it_is_made_anew(delta: Desk) -> None:
    card = delta.out / "README.md"
    card.write_text(f"{card.read_text()}\nBy hand.\n")
    delta.set("release.version", "1.1")
    for step in ("licenses", "card", "sign"):
        interrupt(delta, step)
    delta.states()
    assert "By hand." in card.read_text()
    # Stopped before anything was replaced, and then not wanted any more.
    card.write_text(f"{card.read_text()}\nMore.\n")
    (delta.root / "tuned").rename(delta.root / "away")
    delta.set("release.version", "1.2")
    assert delta.release().code == 2
    (delta.root / "away").rename(delta.root / "tuned")
    delta.set("release.version", "1.1")
    delta.states()
    assert "More." in card.read_text()


def test_the_models_own_card_is_what_ours_is_put_into(full: Desk) -> None:
    own = full.root / "tuned" / "README.md"
    own.write_text("---\ntags:\n- mine\n---\n\n# Mine\n\nMy words.\n")
    assert full.done() == AFTER_MAKE["full"]
    card = full.out / "README.md"
    assert "My words." in card.read_text()
    own.write_text("# Mine\n\nOther words.\n")
    assert full.done() == AFTER_MAKE["full"]
    assert "Other words." in card.read_text()
    full.set("card.summary", "It does not.")
    assert full.done() == AFTER_CARD
    assert "Other words." in card.read_text()


@pytest.mark.parametrize(
    ("kind", "name", "done"),
    [
        ("delta", "README.md", ["card", "sign"]),
        ("delta", "model.sig", ["sign"]),
        ("delta", "rebuilt.model.sig", ["sign"]),
        ("delta", "delta-*.safetensors", ["make", "card", "sign"]),
        ("delta", "licenses/mit/mit.txt", ["make", "card", "sign"]),
        ("full", "config.json", ["make", "card", "sign"]),
        ("full", "SHA256SUMS", ["make", "card", "sign"]),
        ("full", "LICENSE", ["card", "sign"]),
        ("full", "licenses/mit/mit.txt", ["card", "sign"]),
    ],
)
def test_a_file_that_is_gone_is_made_again(
    ready: dict[str, Desk], tmp_path: Path, kind: str, name: str, done: list[str]
) -> None:
    desk = ready[kind].copy(tmp_path / "desk")
    before = digests(desk.out)
    (path,) = desk.out.glob(name)
    path.unlink()
    assert desk.done() == done
    assert digests(desk.out) == before


@pytest.mark.parametrize(
    ("kind", "name", "signed"),
    [
        ("delta", "delta-*.safetensors", False),
        ("delta", "licenses/mit/mit.txt", True),
        ("full", "config.json", False),
    ],
)
def test_a_file_that_was_changed_is_told(
    ready: dict[str, Desk], tmp_path: Path, kind: str, name: str, signed: bool
) -> None:
    desk = ready[kind].copy(tmp_path / "desk")
    if not signed:
        desk.set("release.sign_key", None)
        desk.states()
    (path,) = desk.out.glob(name)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = desk.release()
    assert done.code == 5
    assert path.relative_to(desk.out).as_posix() in done.error
    assert ("make it again" if signed else "remove it and run again") in done.error
    if signed:
        shutil.rmtree(desk.out)
        assert desk.states("--dry-run")["make"] == "to do"


def test_weights_that_were_changed_are_made_again(full: Desk) -> None:
    before = digests(full.out)
    (full.out / "model.safetensors").write_bytes(b"")
    assert full.done() == ["make", "card", "sign"]
    assert digests(full.out) == before
    (full.out / "model.safetensors").unlink()
    assert full.refused(2) == (
        "out: holds neither a release nor a model; --force does not remove such a folder: "
        "remove it yourself, or choose another release.out"
    )


def test_evaluations_that_were_changed_are_written_again(delta: Desk) -> None:
    delta.tables["evaluations"] = {"model": ["results.csv"], "model_name": "Tune"}
    delta.save()
    delta.states()
    before = digests(delta.out)
    for name in ("evaluations.json", "model/results.csv"):
        (delta.out / "evaluations" / name).write_text("[]")
        assert delta.done() == ["card", "sign"]
        assert digests(delta.out) == before


def test_a_model_that_brings_its_licences_needs_none_named(
    delta: Desk, tmp_path: Path
) -> None:
    rebuilt = tmp_path / "rebuilt"
    paths = ("--base", delta.root / "base", "--delta", delta.out, "--out", rebuilt)
    good("apply-delta", *paths)
    del delta.tables["licenses"]
    delta.tables["release"] |= {"kind": "full", "target": "../rebuilt", "out": "all"}
    del delta.tables["release"]["base"]
    delta.save()
    delta.kind = "full"
    assert delta.done() == AFTER_MAKE["full"]
    assert (delta.root / "all" / "licenses" / "mit" / "mit.txt").is_file()
    assert delta.done() == []
    delta.set("card.summary", "It does not.")
    assert delta.done() == AFTER_CARD
    assert (delta.root / "all" / "licenses" / "mit" / "mit.txt").is_file()
    good("verify", delta.root / "all", "--public-key", delta.root / "acme.pub.pem")


def test_a_file_that_does_not_belong_there_is_told(delta: Desk) -> None:
    delta.set("release.sign_key", None)
    delta.states()
    (delta.out / "junk.txt").write_text("x")
    done = delta.release()
    assert done.code == 5
    assert done.error == (
        f'{delta.out}: "junk.txt": not as made: something has changed the folder since; '
        "restore it, or remove it and run again"
    )


# Stopped, and gone on with.


class StoppedError(Exception):
    """Somebody pressed ^C."""


def interrupt(desk: Desk, step: str) -> None:
    """Stops a run when a step begins."""

    with pytest.raises(StoppedError):
        api(desk, Stopper(step=step))


class Stopper(Watcher):
    """Stops a run when a step begins, or a stage."""

    def __init__(self, *, step: str = "", stage: str = "") -> None:
        self.step = step
        self.stage = stage
        self.stages: list[str] = []

    def begin(self, name: str, number: int, count: int) -> None:
        if name == self.step:
            raise StoppedError

    def show(self, progress: Progress) -> None:
        self.stages.append(progress.stage)
        if progress.stage == self.stage:
            raise StoppedError


def api(desk: Desk, watcher: Watcher) -> None:
    key = PrivateKey.load(desk.root / "acme.pem")
    run_release(desk.file, key=key, watcher=watcher)


def stages_of(desk: Desk) -> list[str]:
    """What is told while a release is made."""
    watcher = Stopper()
    api(desk, watcher)
    return list(dict.fromkeys(watcher.stages))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_anywhere_is_gone_on_with(
    ready: dict[str, Desk], shelf: Path, tmp_path: Path, kind: str
) -> None:
    stages = stages_of(desk_in(tmp_path / "all", kind, shelf / "acme.pem"))
    assert {"hash", "verify"} < set(stages)
    desk = desk_in(tmp_path / "desk", kind, shelf / "acme.pem")
    for stage in stages:
        with pytest.raises(StoppedError):
            api(desk, Stopper(stage=stage))
    for step in ("card", "sign", "verify"):
        (desk.out / "README.md").unlink(missing_ok=True)
        interrupt(desk, step)
    desk.states()
    assert digests(desk.out) == digests(ready[kind].out)
    assert sorted(p.name for p in desk.root.glob("out*")) == ["out", "out.steps.json"]


def test_an_interrupted_command_says_how_to_go_on(
    fresh: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("releasekit.releasing.steps.make_delta", stop)
    done = fresh.release()
    assert (done.code, done.error) == (
        *(130, "interrupted; run the same command to go on; steps that are done are kept"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("match", ["POST .*/preupload/", "POST .*/commit/", "POST .*/tag/"])
def test_a_run_that_was_killed_while_it_published_is_gone_on_with(
    delta: Desk, login: FakeHub, match: str
) -> None:
    delta.set("hub.repo", REPO)
    running: list[subprocess.Popen[str]] = []

    def kill(_: object) -> None:
        running[0].kill()
        running[0].wait()

    login.fault(match=match, call=kill)
    command = [*COMMAND, "release", str(delta.file)]
    running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    running[0].communicate()
    assert running[0].returncode == -signal.SIGKILL
    assert delta.done() == ["publish"]
    assert has(login, delta.out)
    assert login.repos[REPO].tags == {"v1.0": login.head(REPO)}
    assert commits(login) == ["Release Tune 1.0"]


# A folder in the way.


def test_a_folder_that_is_not_ours_is_left_alone(fresh: Desk) -> None:
    model_folder(fresh.out, small_pair()[0])
    before = digests(fresh.out)
    assert fresh.refused(2) == (
        "out: is there already, and out.steps.json does not say that it is this one's: "
        "name another folder in release.out, or replace it with --force"
    )
    assert digests(fresh.out) == before
    assert fresh.states("--force")["make"] == "done"
    shutil.rmtree(fresh.out)
    fresh.record.unlink()
    fresh.out.mkdir()
    (fresh.out / "thesis.txt").write_text("years of work")
    assert fresh.refused(2, "--force") == (
        "out: holds neither a release nor a model; --force does not remove such a folder: "
        "remove it yourself, or choose another release.out"
    )
    assert (fresh.out / "thesis.txt").read_text() == "years of work"


def test_two_files_do_not_take_each_others_folder(delta: Desk) -> None:
    before = digests(delta.out)
    other = delta.root / "other.toml"
    other.write_text(delta.file.read_text().replace("Tune", "Other"))
    done = here("release", other)
    assert (done.code, done.error) == (
        2,
        f"{delta.out}: was made from release.toml: name another folder in release.out, "
        "or replace it with --force",
    )
    assert digests(delta.out) == before
    assert good("release", other, "--force", "--json").json["name"] == "Other"
    assert delta.refused(2).startswith("out: was made from other.toml: ")


def test_a_folder_that_holds_its_input_is_refused(fresh: Desk) -> None:
    fresh.set("release.out", "tuned/out")
    assert fresh.refused(2) == (
        "tuned/out: lies in the input tuned; choose another release.out"
    )


def test_a_record_that_is_damaged_is_none(delta: Desk) -> None:
    before = digests(delta.out)
    delta.record.write_bytes(b"{}")
    assert delta.refused(2).startswith("out: is there already, and out.steps.json does not")
    assert delta.done("--force") == AFTER_MAKE["delta"]
    assert digests(delta.out) == before


def test_a_folder_may_be_moved_with_all_that_belongs_to_it(
    made: Desk, tmp_path: Path
) -> None:
    moved = Desk(made.root.rename(tmp_path / "elsewhere"), made.kind, made.tables)
    assert moved.done() == []
    with chdir(moved.root):
        told = good("release", "--json").json
    assert {step["state"] for step in told["steps"]} == {"kept", "idle"}
    assert told["out"] == "out"
    with chdir(tmp_path):
        told = good("release", "elsewhere/release.toml", "--json").json
    assert {step["state"] for step in told["steps"]} == {"kept", "idle"}


# What can be known beforehand.


def test_a_plan_says_what_it_takes(fresh: Desk) -> None:
    tuned = sum(t.stat().st_size for t in (fresh.root / "tuned").glob("*"))
    done = good("release", fresh.file, "--dry-run", "--json")
    found = done.json
    assert found["download"] == {"nbytes": 0, "free": 0}
    # Licences and card, and then no more than the target, and as much again in the making.
    disk = found["disk"]
    assert tuned - 1000 < disk["most"] - 10**7 <= tuned
    assert disk["while_made"] - disk["most"] == disk["most"] - 10**7
    assert disk["free"] > 10**8
    last = good("release", fresh.file, "--dry-run").stdout.splitlines()[-1]
    assert re.fullmatch(r"disk  at most 10 MB, 10 MB while it is made; .* are free", last)
    fresh.set("release.codec", "add")
    more = good("release", fresh.file, "--dry-run", "--json").json["disk"]
    assert more["most"] - disk["most"] == disk["most"] - 10**7
    fresh.states()
    assert "disk" not in good("release", fresh.file, "--dry-run", "--json").json
    assert "disk" not in good("release", fresh.file, "--json", "--force").json


def test_full_weights_take_what_their_dtype_takes(full: Desk) -> None:
    full.set("release.out", "new")
    disk = good("release", full.file, "--dry-run", "--json").json["disk"]
    assert disk["while_made"] == disk["most"]
    full.set("release.dtype", "float32")
    wide = good("release", full.file, "--dry-run", "--json").json["disk"]
    weights = sum(t.stat().st_size for t in (full.root / "tuned").glob("*.safetensors"))
    assert 0.9 * weights < wide["most"] - disk["most"] < weights


def free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """A disk on which so much is free."""
    usage = shutil.disk_usage(Path.cwd())._replace(free=nbytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_a_disk_that_may_be_too_small_is_told(
    fresh: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10**7)
    done = good("release", fresh.file, "--dry-run")
    assert re.fullmatch(
        rf"warning: {fresh.root}: up to 10,[0-9]+,[0-9]+ bytes are taken while the release "
        r"is made, and 10,000,000 are free; free some space, or name a folder on another "
        r"disk in release.out\n",
        done.stderr,
    )
    assert fresh.states()["verify"] == "done"


def test_a_disk_that_is_too_small_is_told_before_anything_is_made(
    full: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    full.set("release.out", "new")
    free(monkeypatch, 10_000)
    assert re.fullmatch(
        r".*: expected [0-9]+,[0-9]+ bytes free, found 10,000: free some space, or name a "
        r"folder on another disk in release.out",
        full.release().error,
    )
    assert not (full.root / "new").exists()
    done = good("release", full.file, "--dry-run")
    assert ": up to " in done.stderr
    assert done.stdout.splitlines()[-1].endswith("; 10 kB are free")


def test_a_plan_says_what_is_downloaded(
    fresh: Desk, login: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = fresh.root / "base"
    login.put("org/base", {path.name: path for path in base.iterdir()})
    fresh.set("release.base", "org/base")
    weights = (base / "model.safetensors").stat().st_size
    done = good("release", fresh.file, "--dry-run", "--json")
    assert weights <= done.json["download"]["nbytes"] <= weights + 1000
    lines = good("release", fresh.file, "--dry-run").stdout.splitlines()
    assert lines[-2].startswith("disk      at most 10 MB, ")
    assert re.fullmatch(r"download  [0-9.]+ kB into .*models--org--base", lines[-1])
    free(monkeypatch, 10_000)
    done = fresh.release()
    assert (done.code, ": expected " in done.error) == (1, True)
    assert not login.asked("safetensors")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = here("release", tmp_path / "release.toml")
    assert (done.code, done.error) == (
        2,
        f"{tmp_path}/release.toml: no such file; `releasekit init` writes one, with what "
        "it may say",
    )


@pytest.mark.parametrize(
    ("path", "value", "code", "message"),
    [
        ("release.target", "gone", 2, "gone: no such file or folder"),
        ("release.base", "gone", 2, "gone: no such file or folder"),
        ("release.accept_base", ["gone"], 2, "gone: no such file or folder"),
        ("release.sign_key", "gone.pem", 2,
         "gone.pem: no such file; expected a private key in PEM"),
        ("release.sign_key", "mit.txt", 3,
         "mit.txt: expected a private key in PEM, which begins with -----BEGIN PRIVATE "
         "KEY----- or -----BEGIN ENCRYPTED PRIVATE KEY-----"),
        ("release.kind", "both", 3,
         'release.toml: release.kind: expected one of "delta", "full", found "both"'),
        ("licenses.license", "apache", 2,
         'licence "apache": is not known; did you mean "apache-2.0"? `releasekit licenses '
         "list` names all, and licenses.folders adds records of your own"),
        ("licenses.files", ["mit=gone.txt"], 2,
         "gone.txt: no such file; expected a licence's text"),
        ("licenses.files", ["apache-2.0=mit.txt"], 2,
         "licenses.files apache-2.0=mit.txt: apache-2.0 is none of this release's "
         "licences; name it with licenses.license or licenses.bases"),
        ("licenses.bases", ["llama-1"], 7,
         "release.toml: breaks rules of its licences: noncommercial-base: mit allows "
         "commercial use of Tune, and its base's licence, llama-1, forbids it; choose a "
         "non-commercial licence, such as cc-by-nc-4.0"),
        ("licenses.license", None, 7,
         "release.toml: breaks rules of its licences: license-missing: Tune has no "
         "licence, so nobody may use it; name one with licenses.license"),
        ("evaluations.model", ["gone.json"], 2,
         "gone.json: no such file; expected results of evaluations"),
        ("evaluations.model", ["mit.txt"], 2,
         '"mit.txt": expected a name that ends in .json (lm-evaluation-harness), .toml or '
         ".csv (a table)"),
        ("evaluations.model", ["results.csv", "worse.csv"], 2,
         '"own_task", acc_norm, 25-shot: found two figures that differ, 60 % (worse.csv) '
         "and 68.2 % (results.csv); leave out the file, or the row, that does not count"),
        ("evaluations.base", ["results.csv"], 2,
         "there are evaluations of the base, and none of the model"),
        ("card.languages", ["english"], 3,
         "release.toml: card.languages: expected an array of codes such as en or de, "
         "found an array of 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_made(
    fresh: Desk, path: str, value: object, code: int, message: str
) -> None:
    worse = RESULTS.replace("0.682", "0.6")
    (fresh.root / "worse.csv").write_text(worse)
    fresh.set(path, value)
    assert fresh.refused(code).startswith(message)
    assert not list(fresh.root.glob("out*"))


def test_weights_that_may_not_be_published_are_told_before_they_are_made(
    shelf: Path, tmp_path: Path, login: FakeHub
) -> None:
    desk = desk_in(tmp_path / "desk", "full", shelf / "acme.pem")
    desk.tables["licenses"] = {"license": "llama-1", "files": ["llama-1=mit.txt"]}
    desk.tables["hub"] = {"repo": REPO, "visibility": "public"}
    desk.save()
    assert desk.refused(7).startswith(
        "release.toml: breaks rules of its licences: weights-upload: Tune holds full "
        "weights, and llama-1 does not allow publishing those"
    )
    assert not desk.out.exists()
    assert login.requests == []


def test_nobody_is_logged_in(fresh: Desk, hub: FakeHub) -> None:
    fresh.set("hub.repo", REPO)
    assert fresh.refused(8) == (
        f"{REPO}: publishing takes a token that may write, and none is known: log in: hf "
        "auth login (or set HF_TOKEN)"
    )
    assert not fresh.out.exists()
    assert fresh.states("--until", "verify")["verify"] == "done"


@pytest.fixture
def published(delta: Desk, login: FakeHub) -> Desk:
    """A release that is on the Hub."""
    delta.set("hub.repo", REPO)
    delta.states()
    return delta


def test_a_tag_that_was_removed_is_set_again(published: Desk, login: FakeHub) -> None:
    login.repos[REPO].tags.clear()
    assert published.done() == ["publish"]
    assert login.repos[REPO].tags == {"v1.0": login.head(REPO)}
    assert len(commits(login)) == 1
    assert published.done() == []


def test_a_repository_that_was_removed_is_made_again(
    published: Desk, login: FakeHub
) -> None:
    del login.repos[REPO]
    assert published.done() == ["publish"]
    assert has(login, published.out)
    assert login.repos[REPO].tags == {"v1.0": login.head(REPO)}


def test_a_tag_that_was_moved_is_told(published: Desk, login: FakeHub) -> None:
    login.put(REPO, {"README.md": b"Another."})
    login.tag(REPO, "v1.0")
    done = published.release()
    assert done.code == 2
    assert done.error.startswith(f"{REPO}: version 1.0 is published as v1.0, with other ")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way", ["offline", "trouble", "nonsense", "logged out"])
def test_without_the_hub_a_release_is_published_as_it_was_noted(
    published: Desk, login: FakeHub, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        why = "HF_HUB_OFFLINE is set"
    elif way == "logged out":
        monkeypatch.delenv("HF_TOKEN")
        why = "nobody is logged in"
    else:
        status = 503 if way == "trouble" else 200
        login.fault(match="GET .*/revision/v1.0", times=9, status=status, body=b"<html>")
        why = "expected .* answer" if way == "nonsense" else ".* answered 503 .*"
    for options in ((), ("--dry-run",)):
        (*_, step) = good("release", published.file, "--json", *options).json["steps"]
        assert (step["step"], step["state"]) == ("publish", "kept")
        assert re.search(
            r", tag v1.0; the Hub could not be asked whether it still has that "
            rf"\({why}",
            step["said"],
        )
    assert len(login.asked("revision/v1.0")) <= 3 + 2  # once a run


def test_a_token_that_may_only_read_publishes_nothing(
    delta: Desk, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    delta.set("hub.repo", REPO)
    done = delta.release()
    assert done.code == 8
    assert hub.repos == {}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert delta.done() == ["publish"]


def test_a_version_that_is_published_is_not_made_anew(delta: Desk, login: FakeHub) -> None:
    delta.set("hub.repo", REPO)
    delta.states()
    before = digests(delta.out)
    (delta.root / "tuned" / "config.json").write_text("{ }")
    assert delta.refused(2) == (
        f"{REPO}: version 1.0 is published, and does not change; what it is made from was "
        "changed since, or was never made here: choose a higher release.version; or see "
        "with `--until verify` whether it comes out the same, and publish it then"
    )
    assert digests(delta.out) == before
    delta.set("release.version", "1.1")
    assert "publish" in delta.done()
    assert login.repos[REPO].tags.keys() == {"v1.0", "v1.1"}
    # It came out the same after all.
    os.utime(delta.root / "tuned" / "config.json")
    shutil.rmtree(delta.out)
    assert delta.refused(2).startswith(f"{REPO}: version 1.1 is published")
    delta.done("--until", "verify")
    assert delta.done() == []


def test_a_card_that_changes_after_its_version_was_published_is_refused(
    delta: Desk, login: FakeHub
) -> None:
    delta.set("hub.repo", REPO)
    delta.states()
    delta.set("card.summary", "It does not.")
    done = delta.release()
    assert (done.code, done.error) == (
        2,
        f"{REPO}: version 1.0 is published as v1.0, with other files "
        '("README.md", "SHA256SUMS", "model.sig"), and does not change: make the release '
        "anew with a higher release.version",
    )


def test_the_passphrase_comes_from_a_file(fresh: Desk) -> None:
    word = fresh.root / "word.txt"
    word.write_text("a secret of mine\n")
    good("keygen", fresh.root / "locked.pem", "--passphrase-file", word)
    fresh.set("release.sign_key", "locked.pem")
    assert fresh.refused(2) == (
        "locked.pem: the key has a passphrase; give it with release.passphrase_file, or "
        "type it at a terminal"
    )
    fresh.set("release.passphrase_file", "word.txt")
    assert fresh.states("--dry-run")["sign"] == "to do"
    word.write_text("another\n")
    assert fresh.refused(2) == (
        "locked.pem: cannot be decrypted: the passphrase is wrong, or the file is damaged"
    )


def test_a_key_in_the_model_is_refused(fresh: Desk) -> None:
    shutil.copy(fresh.root / "acme.pem", fresh.root / "tuned" / "acme.pem")
    fresh.set("release.sign_key", "tuned/acme.pem")
    done = fresh.release()
    assert done.code == 2
    assert "lies in" in done.stderr
    assert "would be published with it; move it away" in done.stderr


# On a terminal.


class Terminal(io.StringIO):
    """What somebody types at, or reads from."""

    def isatty(self) -> bool:
        return True


def at_terminal(typed: list[str], *arguments: str | Path) -> Done:
    """The command line with somebody at it, who answers what is asked."""
    from releasekit.cli import cli
    from releasekit.cli.shell import run

    streams = sys.stdin, sys.stdout, sys.stderr
    out, err = io.StringIO(), Terminal()
    sys.stdin = Terminal("".join(f"{line}\n" for line in typed))
    sys.stdout, sys.stderr = out, err
    try:
        code = run(cli, [str(argument) for argument in arguments])
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
    return Done(code, out.getvalue(), err.getvalue())


def test_each_step_is_told_as_it_begins(fresh: Desk) -> None:
    done = at_terminal([], "release", fresh.file)
    assert done.code == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert told == [
        *("step 1 of 8: make", "step 2 of 8: licenses", "step 5 of 8: card"),
        *("step 6 of 8: sign", "step 7 of 8: verify"),
    ]
    assert "verify: 100%" in done.stderr
    assert at_terminal([], "release", fresh.file).stderr == ""


def test_a_terminal_shows_how_long_the_release_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, now = Terminal(), 0.0
    monkeypatch.setattr("sys.stderr", terminal)
    with ExitStack() as stack:
        watcher = watcher_of(Shell(), stack, lambda: now)
        watcher.plan({"make": {"encode": 600}, "report": {"compare": 1200}})
        watcher.begin("make", 1, 8)
        watcher.show(Progress(stage="encode", done=0, total=600))
        now = 60.0
        watcher.show(Progress(stage="encode", done=300, total=600))
        now = 120.0
        watcher.show(Progress(stage="encode", done=600, total=600))
        watcher.begin("report", 4, 8)
    told = re.split("[\r\n]", terminal.getvalue())
    assert told[0] == "step 1 of 8: make"
    assert told[-2] == "step 4 of 8: report; about 4 min left"
    assert any(
        re.fullmatch(r"encode: 100%.*, release: about 4 min left\] *", t) for t in told
    )


def test_a_log_says_when_steps_begin_and_end(fresh: Desk) -> None:
    done = good("release", fresh.file)
    lines = re.sub(r"[0-9.]+ s:", "N s:", done.stderr).splitlines()
    assert lines[0] == "step 1 of 8: make begins"
    assert re.fullmatch(r"step 1 of 8: make done in N s: .* for .* %", lines[1])
    assert lines[2:4] == [
        "step 2 of 8: licenses begins",
        'step 2 of 8: licenses done in N s: "MIT License"',
    ]
    assert [line.rpartition(": ")[2] for line in lines[4::2]] == [
        *("card begins", "sign begins", "verify begins"),
    ]
    assert good("release", fresh.file).stderr == ""
    fresh.set("card.summary", "It does not.")
    assert good("release", fresh.file, "--quiet").stderr == ""


def test_a_step_tells_what_the_rest_will_take(fresh: Desk) -> None:
    class Listener(Watcher):
        def __init__(self) -> None:
            self.told: dict[str, Expected] = {}

        def plan(self, expected: Expected) -> None:
            self.told[next(iter(expected))] = expected

    fresh.set("release.report", "pictures")
    weights = {
        name: sum(f.stat().st_size for f in (fresh.root / name).glob("*.safetensors"))
        for name in ("base", "tuned")
    }
    listener = Listener()
    api(fresh, listener)
    first = listener.told["make"]
    assert list(first) == ["make", "licenses", "report", "card", "sign", "verify"]
    assert first["make"] == {
        "encode": weights["tuned"],
        "hash inputs": weights["base"],
    }
    assert first["report"] == {"compare": sum(weights.values())}
    assert first["sign"] == {"hash": 0}  # of a delta, that is not known before it is made
    hashed = listener.told["verify"]["verify"]
    assert hashed is not None
    assert hashed["verify"] >= sum(f.stat().st_size for f in fresh.out.glob("*"))


# The first draft.


def questions(done: Done) -> list[str]:
    """What was asked, in short."""
    asked = done.stderr.replace("Error:", "\nError:").split(": ")
    words = {"Publish": "kind", "Name": "name", "Folder": "target", "Its base": "base"}
    words |= {"Its licence": "license", "The licence": "base_license", "Its name": "repo"}
    words |= {"Private": "sign_key"}
    return [w for text in asked for begin, w in words.items() if text.startswith(begin)]


def test_a_draft_is_asked_for_and_released(fresh: Desk) -> None:
    fresh.file.unlink()
    answers = ["delta", "Tune", "tuned", "base", "mit", "mit", "", "acme.pem"]
    with chdir(fresh.root):
        done = at_terminal(answers, "init")
        assert done.code == 0, done.stderr
        assert questions(done) == [
            *("kind", "name", "target", "base", "license", "base_license", "repo"),
            "sign_key",
        ]
        assert done.stdout == (
            "release.toml: edit it, then run `releasekit release release.toml --dry-run`\n"
        )
        (fresh.root / "LICENSE").write_text("MIT\n")
        text = fresh.file.read_text()
        mended = text.replace('# files = ["apache-2.0=LICENSE.txt"]', 'files = ["mit.txt"]')
        fresh.file.write_text(mended)
        assert good("release", "--json").json["out"] == "Tune-delta"


def test_only_what_matters_is_asked(fresh: Desk) -> None:
    def asked(typed: list[str], *options: str | Path) -> list[str]:
        with chdir(fresh.root):
            done = at_terminal(typed, "init", "--force", *options)
        assert done.code == 0, done.stderr
        return questions(done)

    full = ["full", "Tune", "tuned", "mit", "", ""]
    assert asked(full) == ["kind", "name", "target", "license", "repo", "sign_key"]
    given = ("--kind", "full", "--name", "Tune", "--base", "base")
    assert asked(["tuned", "mit", "mit", "", ""], *given) == [
        *("target", "license", "base_license", "repo", "sign_key"),
    ]
    (fresh.root / "base" / "licenses").mkdir()
    (fresh.root / "base" / "licenses" / "licenses.json").write_text("{}")
    chain = next(iter((fresh.root / "base" / "licenses").iterdir()))
    from releasekit.licenses.chain import CHAIN

    chain.rename(fresh.root / "base" / CHAIN)
    assert asked(["tuned", "mit", "", ""], *given) == [
        *("target", "license", "repo", "sign_key"),
    ]
    assert asked([""] * 8) == [
        *("kind", "name", "target", "base", "license", "repo", "sign_key"),
    ]


def test_a_wrong_answer_is_asked_for_again(fresh: Desk) -> None:
    fresh.file.unlink()
    answers = ["both", "delta", "Tune", "gone", "tuned", "org/base", "apache", "mit"]
    answers += ["mit", "tune", "acme/tune", "gone.pem", "acme.pem"]
    with chdir(fresh.root):
        done = at_terminal(answers, "init")
    assert done.code == 0, done.stderr
    faults = [line for line in done.stderr.splitlines() if "Error: " in line]
    assert [line.partition("Error: ")[2].partition(": ")[0] for line in faults] == [
        *('"both"', '"gone"', '"apache"', '"tune"', '"gone.pem"'),
    ]
    document = tomllib.loads(fresh.file.read_text())
    assert document["release"]["base"] == "org/base"
    assert document["hub"] == {"repo": "acme/tune"}


def test_a_draft_is_made_of_options(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    done = good("init", file, "--kind", "delta", "--name", 'My "tune" 🎵', "--json")
    assert done.json == {
        "file": str(file),
        "missing": [
            *("release.target", "release.base", "licenses.license", "licenses.bases"),
        ],
    }
    assert done.stderr == ""
    document = tomllib.loads(file.read_text())
    assert document["release"]["name"] == 'My "tune" 🎵'
    done = good("init", file, "--force")
    assert done.stdout.splitlines() == [
        f"{file}: edit it, then run `releasekit release {file} --dry-run`",
        "to fill in: release.name, release.kind, release.target, release.base, "
        "licenses.license, licenses.bases",
    ]


def test_a_draft_replaces_nothing_unasked(tmp_path: Path) -> None:
    file = tmp_path / "release.toml"
    file.write_text("mine")
    done = here("init", file)
    assert (done.code, done.error) == (
        *(2, f"{file}: exists already; edit it, or replace it with --force"),
    )
    assert file.read_text() == "mine"
    for force in ((), ("--force",)):
        done = here("init", tmp_path, *force)
        assert (done.code, done.error) == (2, f"{tmp_path}: exists already; move it away")
    done = here("init", tmp_path / "gone" / "release.toml")
    assert (done.code, done.error) == (2, f"{tmp_path}/gone: no such folder; make it first")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", ""), 'name "": expected a line of 1 to 200 characters'),
        (
            ("--repo", "tune"),
            'repo "tune": expected the release\'s id on the Hub, org/name',
        ),
        (("--target", "a\nb"), r'target "a\nb": expected a path: some text, without'),
        (("--base-license", "x"), 'base_license "x": is not known; `releasekit licenses'),
    ],
)
def test_a_wrong_option_is_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = here("init", tmp_path / "release.toml", *options)
    assert done.code == 2
    assert done.error.startswith(message)
    assert not (tmp_path / "release.toml").exists()


def test_paths_in_a_draft_are_those_that_its_reader_takes(fresh: Desk) -> None:
    place = fresh.root / "files"
    place.mkdir()
    options = ("--kind", "delta", "--target", "tuned", "--sign-key", "acme.pem")
    with chdir(fresh.root):
        good("init", "files/a.toml", *options, "--base", "base")
        good("init", "files/b.toml", *options, "--base", "org/base")
    release = tomllib.loads((place / "a.toml").read_text())["release"]
    assert (release["target"], release["base"]) == ("../tuned", "../base")
    assert release["sign_key"] == "../acme.pem"
    assert tomllib.loads((place / "b.toml").read_text())["release"]["base"] == "org/base"


def test_states_are_told_apart() -> None:
    states = {state.value for state in State}
    assert states == {"done", "kept", "idle", "to do", "failed"}


def test_the_command_knows_the_steps() -> None:
    (until,) = [option for option in command.params if option.name == "until"]
    assert isinstance(until.type, click.Choice)
    assert (tuple(until.type.choices), until.default) == (ORDER, ORDER[-1])
    told = str(command.help).partition("in order: ")[2].partition(".")[0]
    assert re.sub(r"\(.*?\)", "", told, flags=re.DOTALL).replace(",", "").split() == STEPS
