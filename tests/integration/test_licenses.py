"""Licences on their way: from a base into a release, the rebuilt model, and its heirs.

Releases are made, checked and applied with the command line, most of it in this process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import select
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from releasekit import (
    LicenseError,
    Licensing,
    UsageError,
    apply_delta,
    check_licenses,
    import_delta,
    load_into,
    make_delta,
    open_delta,
    plan_apply,
    preflight,
    verify,
)
from releasekit.license_files import hub_ids, load_catalogue, read_chain
from releasekit.licenses.chain import CHAIN, Chain
from releasekit.licenses.rules import RULES
from releasekit.signing.keys import PrivateKey, write_pair
from tests import foreign
from tests.builders import model_folder
from tests.fakehub import FakeHub
from tests.integration.tools import (
    COMMAND,
    TRACEBACK,
    Done,
    digests,
    good,
    here,
    releasekit,
)

BASE = {"w": ("BF16", [4], b"abcdefgh")}
TARGET = {"w": ("BF16", [4], b"abceefgh")}
SECOND = {"w": ("BF16", [4], b"abceefgi")}
#: As people write them: with the line ends of Windows, in an encoding of theirs.
LICENSE = b"AGREEMENT\r\n\xa9 Meta\r\n"
POLICY = "Kein Unfug.\n".encode("utf-16")
NOTICE = b"\xa9 Meta, without an end"
META = {"LICENSE": LICENSE, "USE_POLICY.md": POLICY}
FREEWILLY_1 = ("--license", "cc-by-nc-4.0", "--base-license", "llama-1")
OWN = """\
id = "own"
name = "Our Licence"
hub = "other"
hub_name = "our-licence"
url = "https://licences.example/own"
commercial = false
research_only = false
acceptance = true
summary = "Ask us first."
[travels]
text = true
"""


# What the tests here are made of.


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@dataclass(frozen=True)
class World:
    """A base and a fine-tune of it, and what is made of them."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "llama-65b"

    @property
    def target(self) -> Path:
        return self.root / "target"

    @property
    def release(self) -> Path:
        return self.root / "release"

    @property
    def model(self) -> Path:
        return self.root / "model"

    def texts(self, files: Mapping[str, bytes]) -> World:
        """Puts texts beside the base's weights."""
        put(self.base, files)
        return self

    def make(self, *options: str | Path, name: str = "Tune") -> Any:
        """Makes a release; returns what the command said of it."""
        paths = ("--base", self.base, "--target", self.target, "--out", self.release)
        done = good("make-delta", *paths, "--name", name, "--json", *options)
        return done.json

    def apply(self, *options: str | Path) -> Done:
        """Rebuilds the model."""
        paths = ("--base", self.base, "--delta", self.release, "--out", self.model)
        return here("apply-delta", *paths, *options)

    def rebuilt(self) -> Path:
        done = self.apply("--accept-license")
        assert done.code == 0, done.stderr
        return self.model


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    model_folder(made.base, BASE)
    model_folder(made.target, TARGET)
    return made


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a record of the user's own."""
    return put(tmp_path / "records", {"own.toml": OWN.encode()})


@pytest.fixture
def freewilly(world: World) -> World:
    """A release as FreeWilly1 was: a base for research only, a delta not for sale."""
    world.texts({"LICENSE": LICENSE})
    world.make(*FREEWILLY_1, name="FreeWilly1")
    return world


# Each rule, through the command.


BODY = "A fine-tune. Built with Meta Llama 3. Under the LLaMA License Agreement."


def write_card(folder: Path, body: str = BODY, **changes: str | None) -> None:
    data = {
        "license": "cc-by-nc-4.0",
        "base_model": "huggyllama/llama-65b",
        "extra_gated_prompt": "Research only.",
        **changes,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in data.items() if value]
    (folder / "README.md").write_text("\n".join(["---", *lines, "---", "", body, ""]))


def licenses(own_license: str, *bases: str) -> tuple[str, ...]:
    named = [part for base in bases for part in ("--base-license", base)]
    return ("--license", own_license, *named)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A release and what is done to it.

    Attributes:
        rule: which are put to the test.
        finds: all that is found.
        options: of make-delta; `RECORDS`, `POLICY` and `TERMS` are paths.
        texts: beside the base's weights.
        hub: the card's `license`; None for no card.
        card: the rest of its metadata, as far as it is not as usual.
        gone: files of the release that are removed.
        swaps: in files of the release, what is replaced, and by what.
        check: options of `licenses check`.
        model: whether the rebuilt model is checked.
    """

    rule: str = ""
    finds: Sequence[str] = ()
    options: Sequence[str] = FREEWILLY_1
    name: str = "FreeWilly1"
    texts: Mapping[str, bytes] = field(default_factory=lambda: {"LICENSE": LICENSE})
    hub: str | None = "cc-by-nc-4.0"
    card: Mapping[str, str | None] = field(default_factory=dict)
    body: str = BODY
    gone: Sequence[str] = ()
    swaps: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)
    check: Sequence[str] = ()
    model: bool = False

    def spoil(self, folder: Path) -> None:
        if self.hub is not None:
            write_card(folder, self.body, license=self.hub, **self.card)
        for name in self.gone:
            (folder / name).unlink()
        for name, (old, new) in self.swaps.items():
            content = (folder / name).read_bytes()
            assert content.count(old) == 1
            (folder / name).write_bytes(content.replace(old, new))


LLAMA_1 = licenses("llama-1", "llama-1")
LLAMA_2 = licenses("llama-2", "llama-2")
LLAMA_3 = licenses("llama-3", "llama-3")
LLAMA_3_1 = licenses("llama-3.1", "llama-3.1")
OWN_LICENSE = (*licenses("own", "mit"), "--license-dir", "RECORDS")
OWN_CARD = {"license_name": "our-licence", "license_link": "https://licences.example/"}
LLAMA_CARD = {"license_name": "llama-1", "license_link": "LICENSE"}
TEXT = "licenses/llama-1/LICENSE"
#: What a release as FreeWilly1 was keeps to, besides what others are needed for.
FREEWILLY_KEEPS = (
    "license-missing base-license-missing noncommercial-base weights-upload "
    "text-missing text-changed notice-missing card-license milder-terms card-missing "
    "added-use-policy restrictions-dropped not-gated"
)

CASES = [
    Case(rule=FREEWILLY_KEEPS),
    Case(
        rule="license-missing",
        options=("--base-license", "llama-1"),
        finds=["license-missing"],
    ),
    Case(
        rule="license-unknown",
        options=(*OWN_LICENSE, "--license-file", "own=TERMS"),
        hub="other",
        card=OWN_CARD,
        check=["--license-dir", "RECORDS"],
    ),
    Case(
        rule="license-unknown",
        options=(*OWN_LICENSE, "--license-file", "own=TERMS"),
        hub="other",
        card=OWN_CARD,
        finds=["license-unknown"],
    ),
    Case(
        rule="base-license-missing",
        options=("--license", "cc-by-nc-4.0"),
        finds=["base-license-missing"],
    ),
    Case(
        rule="noncommercial-base",
        options=licenses("apache-2.0", "llama-1"),
        hub="apache-2.0",
        finds=["noncommercial-base"],
    ),
    Case(
        rule="same-license",
        options=licenses("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
        hub="cc-by-nc-sa-4.0",
    ),
    Case(
        rule="same-license",
        options=licenses("cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
        finds=["same-license"],
    ),
    Case(rule="weights-upload", model=True, check=["--private"]),
    Case(rule="weights-upload", model=True, finds=["weights-upload"]),
    Case(rule="text-missing", texts={}, finds=["text-missing"]),
    Case(rule="text-missing", gone=[TEXT], finds=["text-missing"]),
    Case(
        rule="text-changed", swaps={TEXT: (b"\r\n\xa9", b"\n\xa9")}, finds=["text-changed"]
    ),
    Case(rule="notice-missing", gone=["NOTICE"], finds=["notice-missing"]),
    Case(rule="use-policy-missing", options=LLAMA_2, texts=META, hub="llama2"),
    Case(
        rule="use-policy-missing",
        options=LLAMA_2,
        hub="llama2",
        finds=["use-policy-missing"],
    ),
    Case(rule="changes-missing", options=licenses("cc-by-nc-4.0", "apache-2.0"), texts={}),
    Case(
        rule="changes-missing",
        options=licenses("cc-by-nc-4.0", "apache-2.0"),
        texts={},
        body="A model.",
        gone=["NOTICE"],
        finds=["changes-missing"],
    ),
    Case(
        rule="name-prefix",
        options=LLAMA_3,
        texts=META,
        hub="llama3",
        check=["--name", "org/Llama-3-Tune"],
    ),
    Case(
        rule="name-prefix",
        options=LLAMA_3,
        texts=META,
        hub="llama3",
        finds=["name-prefix"],
    ),
    Case(
        rule="built-with",
        name="Llama-3-Tune",
        options=LLAMA_3,
        texts=META,
        hub="llama3",
    ),
    Case(
        rule="built-with",
        name="Llama-3-Tune",
        options=LLAMA_3,
        texts=META,
        hub="llama3",
        body="A fine-tune.",
        finds=["built-with"],
    ),
    Case(rule="other-incomplete", options=LLAMA_1, hub="other", card=LLAMA_CARD),
    Case(
        rule="other-incomplete",
        options=LLAMA_1,
        hub="other",
        card=LLAMA_CARD | {"license_link": "LICENSE.txt"},
        finds=["other-incomplete"],
    ),
    Case(rule="card-license", hub="mit", finds=["card-license"]),
    Case(
        rule="milder-terms",
        swaps={CHAIN: (b'"research_only": true', b'"research_only": false')},
        finds=["milder-terms"],
    ),
    Case(
        rule="card-missing",
        options=licenses("apache-2.0", "apache-2.0"),
        hub=None,
        finds=["card-missing"],
    ),
    Case(
        rule="added-use-policy",
        options=(*FREEWILLY_1, "--license-file", "POLICY"),
        finds=["added-use-policy"],
    ),
    Case(
        rule="teacher-terms",
        options=(*LLAMA_2, "--teacher", "LLaMA2"),
        texts=META,
        hub="llama2",
    ),
    Case(
        rule="teacher-terms",
        options=(*FREEWILLY_1, "--teacher", "gpt-4", "--teacher", "llama2"),
        finds=["teacher-terms", "teacher-terms"],
    ),
    Case(rule="restrictions-dropped", body="A tune.", finds=["restrictions-dropped"]),
    Case(rule="not-gated", card={"extra_gated_prompt": None}, finds=["not-gated"]),
    # The families that people build on.
    Case(
        name="Llama-Tune",
        options=LLAMA_3_1,
        texts=META,
        hub="llama3.1",
        body="Built with Llama",
    ),
    Case(
        options=LLAMA_3_1,
        texts=META,
        hub="llama3.1",
        body="A fine-tune.",
        finds=["name-prefix", "built-with"],
    ),
    Case(
        name="Llama-Tune",
        options=(*licenses("apache-2.0", "apache-2.0"), "--teacher", "llama-3.1"),
        hub="apache-2.0",
        finds=["built-with"],
    ),
    Case(name="Gemma", options=licenses("gemma", "gemma"), texts=META, hub="gemma"),
    Case(
        name="OpenRAIL",
        options=licenses("openrail", "creativeml-openrail-m"),
        hub="openrail",
        finds=["text-missing"],
    ),
    Case(
        name="OpenRAIL",
        options=licenses("apache-2.0", "creativeml-openrail-m"),
        hub="apache-2.0",
        finds=["restrictions-dropped"],
    ),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule[:30] or case.name)
def test_what_the_check_finds_of_a_release(world: World, own: Path, case: Case) -> None:
    put(world.root, {"USE_POLICY.md": POLICY, "terms.txt": b"ours"})
    paths = {
        "POLICY": str(world.root / "USE_POLICY.md"),
        "own=TERMS": f"own={world.root / 'terms.txt'}",
        "RECORDS": str(own),
    }
    options = [paths.get(option, option) for option in case.options]
    world.texts(case.texts).make(*options, name=case.name)
    folder = world.rebuilt() if case.model else world.release
    case.spoil(folder)
    options = [paths.get(option, option) for option in case.check]
    done = here("licenses", "check", folder, "--json", *options)
    assert done.rules == [*case.finds]
    errors = {rule.id for rule in RULES if rule.severity.value == "error"}
    assert done.code == (7 if errors & {*case.finds} else 0)
    assert done.json["ok"] is (done.code == 0)
    for finding in done.json["findings"]:
        assert finding["severity"] == ("error" if finding["rule"] in errors else "warning")
        assert finding["why"]
        assert finding["todo"]


def test_every_rule_is_broken_and_kept_through_the_command() -> None:
    # What a base's own card says is known when a release is made, and not later.
    rules = {rule.id for rule in RULES} - {"base-card"}
    tested = [(rule, case.finds) for case in CASES for rule in case.rule.split()]
    assert {rule for rule, finds in tested if rule in finds} == rules
    assert {rule for rule, finds in tested if rule not in finds} == rules


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("license: llama2", ["base-card"]),
        ("license: other\nlicense_name: gpl", ["base-card"]),
        ("license: apache-2.0", []),
        ("tags: [x]", []),
        ("license: [", []),  # nobody's concern here
    ],
)
def test_what_the_bases_own_card_says_is_told(
    world: World, card: str, found: list[str]
) -> None:
    world.texts({"README.md": f"---\n{card}\n---\n".encode()})
    made = world.make(*licenses("apache-2.0", "apache-2.0"))
    assert [finding["rule"] for finding in made["findings"]] == found


def test_freewilly_2_is_a_model_under_two_licences(tmp_path: Path) -> None:
    """Full weights: of Llama 2 those may be published."""
    from releasekit.licensing.drawing import draw_up

    base = put(tmp_path / "llama", META)
    beluga = put(tmp_path / "beluga", {"LICENSE.txt": b"BELUGA\r\n"}) / "LICENSE.txt"
    papers = draw_up(
        Licensing(license="stable-beluga-nc", bases=("llama-2",), files=(str(beluga),)),
        "FreeWilly2",
        base,
        "meta-llama/Llama-2-70b-hf",
        delta=False,
    )
    folder = put(model_folder(tmp_path / "FreeWilly2", TARGET), papers.published())
    assert (folder / "LICENSE").read_bytes() == b"BELUGA\r\n"
    write_card(
        folder, license="other", license_name="stable-beluga-nc", license_link="LICENSE"
    )
    done = good("licenses", "check", folder, "--json")
    assert done.json == {
        "path": str(folder),
        "name": "FreeWilly2",
        "kind": "model",
        "ok": True,
        "licenses": [
            {
                "id": "stable-beluga-nc",
                "name": "Stable Beluga Non-Commercial Community License Agreement",
                "of": "FreeWilly2",
                "commercial": False,
                "research_only": True,
                "acceptance": True,
                "url": "https://huggingface.co/stabilityai/StableBeluga2/blob/main/"
                "LICENSE.txt",
                "texts": ["licenses/stable-beluga-nc/LICENSE.txt"],
            },
            {
                "id": "llama-2",
                "name": "Llama 2 Community License Agreement",
                "of": "meta-llama/Llama-2-70b-hf",
                "commercial": True,
                "research_only": False,
                "acceptance": False,
                "url": "https://github.com/meta-llama/llama-models/blob/main/models/llama2/"
                "LICENSE",
                "texts": ["licenses/llama-2/LICENSE", "licenses/llama-2/USE_POLICY.md"],
            },
        ],
        "findings": [],
    }
    (folder / "NOTICE").unlink()
    (folder / "licenses/llama-2/USE_POLICY.md").unlink()
    done = here("licenses", "check", folder, "--json")
    assert (done.code, done.rules) == (7, ["notice-missing", "use-policy-missing"])


def test_the_check_tells_people_what_is_wrong_and_what_to_do(world: World) -> None:
    world.make("--license", "mit", "--base-license", "llama-1")
    done = releasekit("licenses", "check", world.release)
    assert done.returncode == 7
    assert done.stderr == ""
    assert done.stdout.splitlines()[:6] == [
        "error noncommercial-base",
        "  mit allows commercial use of Tune, and its base's licence, llama-1, forbids it",
        "  choose a non-commercial licence, such as cc-by-nc-4.0",
        "error text-missing",
        "  the text of mit is not there, and must go with every copy",
        "  give the text with --license-file mit=FILE; it is published at",
    ]
    assert done.stdout.splitlines()[-3:] == [
        "delta     Tune",
        "licences  mit, llama-1",
        "found     3 errors, 2 warnings",
    ]


@pytest.mark.parametrize("what", ["gone", "file"])
def test_only_a_folder_is_checked(tmp_path: Path, what: str) -> None:
    put(tmp_path, {"file": b"x"})
    done = here("licenses", "check", tmp_path / what)
    assert done.code == 2
    assert done.stderr == (
        f"error: {tmp_path / what}: expected the folder of a release, or of a model\n"
    )


# The chain travels.


def test_texts_reach_the_rebuilt_model_byte_for_byte(world: World) -> None:
    texts = {"LICENSE.txt": LICENSE, "USE_POLICY.md": POLICY, "Notice": NOTICE}
    made = world.texts(texts).make(*licenses("llama-2", "llama-2"), name="FreeWilly2")
    assert made["licenses"] == ["llama-2"]
    assert made["findings"] == []
    model = world.rebuilt()
    for folder in (world.release, model):
        for name, data in texts.items():
            assert (folder / "licenses/llama-2" / name).read_bytes() == data
        assert (folder / "LICENSE").read_bytes() == LICENSE
        assert NOTICE in (folder / "NOTICE").read_bytes()
        assert here("licenses", "check", folder, "--json").rules == ["card-missing"]
    assert verify(world.release).ok
    assert verify(model, against=world.release).ok
    assert read_chain(world.release) == read_chain(model)
    (model / "NOTICE").write_bytes(b"")
    assert not verify(model, against=world.release).ok


def test_what_the_target_has_of_its_own_stays_as_it_is(world: World) -> None:
    own = {"LICENSE.md": b"own\r\n\xff", "Notice.txt": b"own", "docs/LICENSE": b"other"}
    put(world.target, own)
    world.texts({"LICENSE": LICENSE}).make(*FREEWILLY_1)
    model = world.rebuilt()
    assert {name: (model / name).read_bytes() for name in own} == own
    assert not (model / "LICENSE").exists()
    assert not (model / "NOTICE").exists()
    assert b"LLaMA is licensed under" in (model / "licenses/NOTICE").read_bytes()
    assert b"NonCommercial" in (world.release / "LICENSE").read_bytes()
    assert here("licenses", "check", model, "--private", "--json").rules == [
        "card-missing",
        "restrictions-dropped",
    ]
    assert verify(model, against=world.release).ok


def test_a_target_with_another_text_in_a_texts_place_is_refused(world: World) -> None:
    put(world.target, {"licenses/llama-1/LICENSE": b"another"})
    world.texts({"LICENSE": LICENSE})
    paths = ("--base", world.base, "--target", world.target, "--out", world.release)
    done = here("make-delta", *paths, *FREEWILLY_1)
    assert done.code == 2
    assert done.stderr == (
        "error: licenses/llama-1/LICENSE: lies where the release puts a licence's text, "
        "and is another one; leave it out with --exclude 'licenses/llama-1/LICENSE'\n"
    )
    assert not world.release.exists()
    good("make-delta", *paths, *FREEWILLY_1, "--exclude", "licenses/llama-1/LICENSE")
    assert (world.rebuilt() / "licenses/llama-1/LICENSE").read_bytes() == LICENSE


def test_a_delta_on_a_rebuilt_model_inherits_its_chain(freewilly: World) -> None:
    first = freewilly.rebuilt()
    heir = World(freewilly.root / "heir")
    model_folder(heir.target, SECOND)
    good(
        *("make-delta", "--base", first, "--target", heir.target, "--out", heir.release),
        *("--name", "Second", "--license", "cc-by-nc-4.0"),
    )
    chain = read_chain(heir.release)
    assert chain is not None
    assert [(grant.of, grant.id) for grant in chain.grants] == [
        ("Second", "cc-by-nc-4.0"),
        ("Second", "cc-by-nc-4.0"),
        ("FreeWilly1", "cc-by-nc-4.0"),
        ("llama-65b", "llama-1"),
    ]
    done = here(
        *("apply-delta", "--base", first, "--delta", heir.release, "--out", heir.model)
    )
    assert done.code == 7
    apply_delta(first, heir.release, heir.model, accept_license=True)
    for folder in (heir.release, heir.model):
        assert (folder / "licenses/llama-1/LICENSE").read_bytes() == LICENSE
        assert b"LLaMA is licensed under the LLaMA License" in (
            (folder / "NOTICE").read_bytes()
        )
    # Nobody need say anything for the terms to go on; only its own are missing then.
    silent = make_delta(heir.model, freewilly.target, freewilly.root / "third")
    assert silent.licenses == ("cc-by-nc-4.0", "llama-1")
    assert [finding.rule.id for finding in silent.findings] == ["license-missing"]


def test_a_copy_of_the_base_as_target_must_leave_its_chain(freewilly: World) -> None:
    first = freewilly.rebuilt()
    target = freewilly.root / "copy"
    put(target, {name: (first / name).read_bytes() for name in digests(first)})
    model_folder(target, SECOND)
    out = freewilly.root / "second"
    licensing = Licensing(license="cc-by-nc-4.0")
    with pytest.raises(UsageError) as error:
        make_delta(first, target, out, licensing=licensing)
    assert str(error.value) == (
        "licenses/chain.json: lies where the release puts a licence's text, and is another "
        "one; leave it out with --exclude 'licenses/chain.json'"
    )
    made = make_delta(first, target, out, licensing=licensing, exclude=["licenses/chain*"])
    assert made.licenses == ("cc-by-nc-4.0", "llama-1")


def test_without_licences_a_delta_is_made_as_before(world: World) -> None:
    paths = ("--base", world.base, "--target", world.target, "--out", world.release)
    done = good("make-delta", *paths)
    assert "warning" not in done.stderr
    assert "licences   none: not fit to publish; see --license" in done.stdout
    assert not (world.release / "licenses").exists()
    done = world.apply("--json")
    assert (done.code, done.json["licenses"]) == (0, [])


def test_findings_are_warnings_of_make_delta(world: World) -> None:
    paths = ("--base", world.base, "--target", world.target, "--out", world.release)
    done = good(
        *("make-delta", *paths, "-q", "--license", "mit", "--base-license", "llama-1"),
        *("--name", "Tune"),
    )
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "warning: noncommercial-base: mit allows commercial use of Tune, and its base's "
        "licence, llama-1, forbids it; choose a non-commercial licence, such as "
        "cc-by-nc-4.0",
        "warning: text-missing: the text of mit is not there, and must go with every copy; "
        "give the text with --license-file mit=FILE; it is published at "
        "https://opensource.org/license/mit",
        "warning: text-missing: the text of llama-1 is not there, and must go with every "
        "copy; give the text with --license-file llama-1=FILE; it is published at "
        "https://docs.google.com/forms/d/e/1FAIpQLSfqNECQnMkycAp2jP4Z9TFX0cGR4uf7b_fBxjY_"
        "OjhJILlKGA/viewform",
    ]


def test_an_unknown_licence_is_refused_before_work(world: World) -> None:
    paths = ("--base", world.base, "--target", world.target, "--out", world.release)
    done = here("make-delta", *paths, "--license", "lama-2", "--json")
    assert (done.code, done.json["error"]["type"]) == (2, "UsageError")
    assert done.json["error"]["message"] == (
        'licence "lama-2": is not known; did you mean "llama-2", "llama-3.2", "llama-4"? '
        "`releasekit licenses list` names all, and --license-dir adds records of your own"
    )
    assert not world.release.exists()


def test_two_makes_are_the_same(world: World) -> None:
    world.texts({"LICENSE": LICENSE, "NOTICE": NOTICE}).make(*FREEWILLY_1)
    first = digests(world.release)
    world.make(*FREEWILLY_1, "--force")
    assert digests(world.release) == first


def test_other_licences_are_another_release(freewilly: World) -> None:
    """An interrupted run is not continued with the texts of another."""
    before = digests(freewilly.release)
    freewilly.texts({"LICENSE": b"newer"}).make(*FREEWILLY_1, "--force", name="FreeWilly1")
    after = digests(freewilly.release)
    assert before.keys() == after.keys()
    text = "licenses/llama-1/LICENSE"
    assert (freewilly.release / text).read_bytes() == b"newer"
    assert (freewilly.release / "target" / text).read_bytes() == b"newer"


def test_what_was_said_of_licences_is_in_the_provenance(freewilly: World) -> None:
    statement = json.loads((freewilly.release / "provenance.json").read_bytes())
    said = json.dumps(statement)
    assert '"license": "cc-by-nc-4.0"' in said
    assert '"base_licenses": ["llama-1"]' in said


def test_a_release_that_is_added_up_has_its_licences_where_loaders_look(
    world: World,
) -> None:
    put(world.target, {"config.json": b"{}", "LICENSE": b"own"})
    world.texts({"LICENSE": LICENSE}).make(*FREEWILLY_1, "--codec", "add")
    assert b"NonCommercial" in (world.release / "LICENSE").read_bytes()
    assert (world.release / "config.json").read_bytes() == b"{}"
    assert (world.rebuilt() / "LICENSE").read_bytes() == b"own"
    assert verify(world.release).ok
    assert verify(world.model, against=world.release).ok
    assert here("licenses", "check", world.release, "--json").rules == [
        "card-missing",
        "restrictions-dropped",
    ]


def test_an_imported_delta_has_licences(tmp_path: Path) -> None:
    base = put(foreign.save(foreign.model(1), tmp_path / "base"), {"LICENSE": LICENSE})
    target = foreign.tuned(foreign.model(1))
    delta = foreign.save(foreign.subtract(target, foreign.model(1)), tmp_path / "delta")
    out = tmp_path / "release"
    done = good(
        *("import-delta", "--base", base, "--delta", delta, "--out", out, *FREEWILLY_1),
        *("--json", "--name", "Vicuna"),
    )
    assert done.json["licenses"] == ["cc-by-nc-4.0", "llama-1"]
    assert read_chain(out) == read_chain(out / "target")
    with pytest.raises(LicenseError):
        apply_delta(base, out, tmp_path / "model")
    apply_delta(base, out, tmp_path / "model", accept_license=True)
    assert (tmp_path / "model/licenses/llama-1/LICENSE").read_bytes() == LICENSE
    assert verify(tmp_path / "model", against=out).ok
    made = import_delta(base, delta, tmp_path / "without").made
    assert made.licenses == ()


# Where the base's texts are.


@pytest.mark.parametrize(
    "name", ["LICENSE", "LICENSE.txt", "License.md", "LICENCE", "LLAMA_LICENSE.pdf"]
)
def test_a_bases_licence_is_found_by_names_in_the_wild(world: World, name: str) -> None:
    world.texts({name: LICENSE, "USE_POLICY.md": POLICY, "Notice": NOTICE})
    assert world.make(*licenses("llama-2", "llama-2"))["findings"] == []
    assert (world.release / "licenses/llama-2" / name).read_bytes() == LICENSE


def test_a_base_in_a_cache_has_links_for_files(world: World) -> None:
    put(world.root, {"blobs/1": LICENSE})
    (world.base / "LICENSE").symlink_to(world.root / "blobs/1")
    (world.base / "NOTICE").symlink_to(world.root / "blobs/gone")
    world.make(*FREEWILLY_1)
    text = world.release / "licenses/llama-1/LICENSE"
    assert text.read_bytes() == LICENSE
    assert not text.is_symlink()
    assert sorted(path.name for path in text.parent.iterdir()) == ["LICENSE"]


def test_what_is_no_text_beside_the_weights_is_passed_over(world: World) -> None:
    (world.base / "LICENSE").mkdir()
    world.texts({"LICENSE/part": b"x", "NOTICE": b"", "license.json": b"{}"})
    assert [f["rule"] for f in world.make(*FREEWILLY_1)["findings"]] == ["text-missing"]
    assert not (world.release / "licenses/llama-1").exists()


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (
            b"-----BEGIN EC PRIVATE KEY-----\nMHc\n",
            2,
            "holds a private key, and would be published: move it away; if others may have "
            "read it, whatever it is for needs a new one",
        ),
    ],
)
def test_a_file_that_is_no_licence_for_all_its_name_is_refused(
    world: World, content: bytes, code: int, message: str
) -> None:
    world.texts({"LICENSE.txt": content})
    paths = ("--base", world.base, "--target", world.target, "--out", world.release)
    done = here("make-delta", *paths, *FREEWILLY_1)
    assert done.code == code
    assert done.stderr == f"error: {world.base / 'LICENSE.txt'}: {message}\n"
    assert not world.release.exists()


def test_beside_a_base_that_is_a_file_nothing_is_looked_for(world: World) -> None:
    world.texts({"LICENSE": LICENSE})
    file = world.base / "model.safetensors"
    licensing = Licensing(license="cc-by-nc-4.0", bases=("llama-1",))
    made = make_delta(file, world.target, world.release, licensing=licensing)
    assert [finding.rule.id for finding in made.findings] == ["text-missing"]
    chain = read_chain(world.release)
    assert chain is not None
    assert chain.bases[0].of == "model.safetensors"


def test_a_base_on_the_hub_has_its_texts_there(hub: FakeHub, world: World) -> None:
    world.texts({**META, "Notice": NOTICE})
    hub.put("org/llama", {path.name: path for path in world.base.iterdir()})
    licensing = Licensing(license="llama-2", bases=("llama-2",))
    made = make_delta("org/llama@main", world.target, world.release, licensing=licensing)
    assert made.findings == ()
    chain = read_chain(world.release)
    assert chain is not None
    assert chain.bases[0].of == "org/llama"
    for name, data in {**META, "Notice": NOTICE}.items():
        assert (world.release / "licenses/llama-2" / name).read_bytes() == data


# Before a model is rebuilt.


MUST = (
    "LLaMA License Agreement must be accepted before the model is used: read {release}/"
    "target/licenses/llama-1/LICENSE, then give --accept-license (in Python: "
    "accept_license=True)"
)
TERMS = """\
The use of this model is restricted by its licences:
  Creative Commons Attribution-NonCommercial 4.0 International Public License (non-commercial)
    You may use, change and share the work for purposes that are not
    commercial. Name its creators, keep its copyright and warranty notices,
    name the licence with a link to it or its text, and say whether you
    changed the work. Do not stop others from doing what the licence lets them
    do.
    https://creativecommons.org/licenses/by-nc/4.0/
  LLaMA License Agreement (research only, non-commercial)
    You may use, change and share LLaMA for research that is not commercial,
    and for nothing else; this holds for what it writes, too. Meta gave the
    weights only to people who applied, and each of them holds the licence in
    person: you cannot pass it on. Put a copy of the licence and the
    attribution line with every copy and every derivative, and add no terms
    that differ from it. Military, nuclear, surveillance and biometric uses
    are ruled out.
    https://docs.google.com/forms/d/e/1FAIpQLSfqNECQnMkycAp2jP4Z9TFX0cGR4uf7b_fBxjY_OjhJILlKGA/viewform
"""  # noqa: E501


def test_terms_to_accept_stop_a_script(freewilly: World) -> None:
    options = ("--base", freewilly.base, "--delta", freewilly.release)
    done = releasekit("apply-delta", *options, "--out", freewilly.model)
    assert done.returncode == 7
    message = MUST.format(release=freewilly.release)
    assert done.stderr == f"{TERMS}error: {freewilly.release}: {message}\n"
    assert done.stdout == ""
    assert not freewilly.model.exists()
    assert not Path(f"{freewilly.model}.partial").exists()


def test_accepted_terms_are_shown_once_and_stop_nobody(freewilly: World) -> None:
    done = freewilly.apply("--accept-license")
    assert done.code == 0
    assert done.stderr.count(TERMS) == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("licence")]
    assert lines == [
        "licence    cc-by-nc-4.0: non-commercial",
        "licence    llama-1: research only, non-commercial",
    ]


def test_quiet_keeps_the_terms_back_and_not_the_refusal(freewilly: World) -> None:
    done = freewilly.apply("-q")
    assert done.code == 7
    assert "restricted by its licences" not in done.stderr
    assert MUST.format(release=freewilly.release) in done.stderr
    done = freewilly.apply("-q", "--accept-license")
    assert (done.code, done.stdout) == (0, "")
    assert "restricted by its licences" not in done.stderr


def test_one_json_document_says_that_terms_must_be_accepted(freewilly: World) -> None:
    done = freewilly.apply("--json")
    assert done.code == 7
    assert done.json == {
        "error": {
            "type": "LicenseError",
            "message": f"{freewilly.release}: {MUST.format(release=freewilly.release)}",
            "exit_code": 7,
        }
    }
    assert TERMS in done.stderr
    done = freewilly.apply("--json", "--accept-license")
    assert [grant["id"] for grant in done.json["licenses"]] == ["cc-by-nc-4.0", "llama-1"]


def test_terms_that_need_no_answer_are_shown_and_stop_nobody(world: World) -> None:
    world.make(*licenses("cc-by-nc-4.0", "apache-2.0"))
    done = world.apply()
    assert done.code == 0
    assert done.stderr.count("The use of this model is restricted by its licences:") == 1
    assert (
        "  Apache License (commercial use allowed)\n    https://www.apache" in done.stderr
    )


def test_free_terms_are_not_shown(world: World) -> None:
    world.texts({"LICENSE": LICENSE}).make(*licenses("mit", "mit"))
    done = world.apply()
    assert done.code == 0
    assert "restricted" not in done.stderr
    assert "licence    mit: commercial use allowed" in done.stdout


def test_a_record_of_ones_own_may_demand_acceptance(world: World, own: Path) -> None:
    world.make("--license", "own", "--base-license", "mit", "--license-dir", own)
    done = world.apply()  # the record is in the release
    assert done.code == 7
    assert done.stderr.endswith(
        f"error: {world.release}: Our Licence must be accepted before the model is used: "
        "read https://licences.example/own, then give --accept-license (in Python: "
        "accept_license=True)\n"
    )
    assert "  Our Licence (non-commercial)\n    Ask us first.\n" in done.stderr


def test_a_dry_run_and_a_preflight_tell_and_do_not_refuse(freewilly: World) -> None:
    done = freewilly.apply("--dry-run", "--json")
    assert done.code == 0
    assert [grant["acceptance"] for grant in done.json["licenses"]] == [False, True]
    plan = plan_apply(freewilly.base, freewilly.release, freewilly.model)
    assert isinstance(plan.licenses, Chain)
    paths = ("--base", freewilly.base, "--delta", freewilly.release)
    done = here("preflight", *paths, "--out", freewilly.model, "--json")
    assert done.code == 0
    found = preflight(freewilly.base, freewilly.release)
    assert found.ok
    assert [(f.kind, f.message, f.fatal) for f in found.findings] == [
        (
            "license",
            "LLaMA License Agreement (research only, non-commercial) must be accepted: "
            f"read {freewilly.release}/target/licenses/llama-1/LICENSE, then give "
            "apply-delta --accept-license",
            False,
        )
    ]


def test_in_python_terms_are_accepted_by_an_argument_or_a_function(
    freewilly: World,
) -> None:
    base, release, out = freewilly.base, freewilly.release, freewilly.model
    told: list[Chain] = []

    def refuse(chain: Chain) -> bool:
        told.append(chain)
        return False

    for consent in (False, refuse):
        with pytest.raises(LicenseError) as error:
            apply_delta(base, release, out, accept_license=consent)
        assert str(error.value) == f"{release}: {MUST.format(release=release)}"
        with pytest.raises(LicenseError):
            open_delta(release, base, accept_license=consent)
        state = {"w": torch.zeros(4, dtype=torch.bfloat16)}
        with pytest.raises(LicenseError):
            load_into(state, base, release, accept_license=consent)
        assert not state["w"].any()
    assert told == [read_chain(release)] * 3
    assert not out.exists()
    done = apply_delta(base, release, out, accept_license=lambda chain: bool(chain.bases))
    assert done.licenses == read_chain(release)
    with open_delta(release, base, accept_license=True) as opened:
        assert set(opened.state_dict()) == {"w"}
    load_into(state, base, release, accept_license=True)
    assert state["w"].any()


def test_a_function_is_told_terms_that_need_no_answer_and_not_asked(world: World) -> None:
    world.make(*licenses("cc-by-nc-4.0", "apache-2.0"))
    told: list[Chain] = []

    def tell(chain: Chain) -> bool:
        told.append(chain)
        return False

    apply_delta(world.base, world.release, world.model, accept_license=tell)
    assert [chain.model.id for chain in told if chain.model] == ["cc-by-nc-4.0"]


def test_nobody_is_asked_of_terms_that_are_free(world: World) -> None:
    world.texts({"LICENSE": LICENSE}).make(*licenses("mit", "mit"))

    def fail(chain: Chain) -> bool:
        raise AssertionError(chain)

    apply_delta(world.base, world.release, world.model, accept_license=fail)


@pytest.mark.parametrize("signed", [False, True])
def test_a_chain_that_was_changed_is_refused(world: World, signed: bool) -> None:
    key: tuple[str | Path, ...] = ()
    if signed:
        write_pair(PrivateKey.generate(), world.root / "acme.pem", None)
        key = ("--sign-key", world.root / "acme.pem", "--publisher", "acme")
    world.texts({"LICENSE": LICENSE}).make(*FREEWILLY_1, *key)
    trusted = ("--public-key", world.root / "acme.pub.pem") if signed else ()
    done = world.apply("--accept-license", *trusted)
    assert done.code == 0, done.stderr
    path = world.release / "target" / CHAIN
    document = path.read_bytes()
    path.write_bytes(document.replace(b'"acceptance": true', b'"acceptance":false'))
    again = world.root / "again"
    paths = ("--base", world.base, "--delta", world.release, "--out", again)
    done = here("apply-delta", *paths, *trusted, "-q")
    assert done.code == 5
    assert str(path) in done.stderr
    assert not again.exists()
    for call in (plan_apply, apply_delta):
        with pytest.raises(Exception, match="is not the file that the release lists"):
            call(world.base, world.release, again)


def test_a_signed_releases_licences_are_signed(world: World) -> None:
    write_pair(PrivateKey.generate(), world.root / "acme.pem", None)
    key = ("--sign-key", world.root / "acme.pem", "--publisher", "acme")
    world.texts({"LICENSE": LICENSE}).make(*FREEWILLY_1, *key)
    trusted = ("--public-key", world.root / "acme.pub.pem")
    good("verify", world.release, *trusted)
    assert world.apply(*trusted).code == 7
    assert world.apply(*trusted, "--accept-license").code == 0
    good("verify", world.model, "--against", world.release, *trusted)
    text = world.release / "licenses/llama-1/LICENSE"
    text.write_bytes(b"Do as you like.")
    done = world.apply(*trusted, "--accept-license", "--force")
    assert done.code == 5
    assert str(text) in done.stderr


# On a terminal.


def at_a_terminal(*arguments: str | Path, answer: bytes) -> Done:
    """Runs the command line on a terminal of its own, where stdout and stderr are one."""
    terminal, line = pty.openpty()
    command = [*COMMAND, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=line, stdout=line, stderr=line, start_new_session=True
    ) as process:
        os.close(line)
        shown, waiting = b"", True
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.05)[0]:
                try:
                    data = os.read(terminal, 4096)
                except OSError:  # the other side is closed
                    break
                shown += data
            if waiting and b"[y/N]:" in shown:
                waiting = False
                os.write(terminal, answer)
        else:
            process.kill()
    os.close(terminal)
    text = shown.decode().replace("\r\n", "\n")
    assert TRACEBACK not in text, text
    return Done(process.returncode, text, "")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("answer", "code"), [(b"y\n", 0), (b"n\n", 7), (b"\n", 7), (b"\x04", 130)]
)
def test_on_a_terminal_one_is_asked(freewilly: World, answer: bytes, code: int) -> None:
    options = ("--base", freewilly.base, "--delta", freewilly.release)
    done = at_a_terminal("apply-delta", *options, "--out", freewilly.model, answer=answer)
    assert done.code == code, done.stdout
    assert done.stdout.count(TERMS) == 1
    assert done.stdout.count("Do you accept LLaMA License Agreement? [y/N]:") == 1
    assert freewilly.model.exists() is (code == 0)
    assert ("must be accepted before the model is used" in done.stdout) is (code == 7)


@pytest.mark.parametrize("option", ["-q", "--accept-license"])
def test_what_options_leave_of_the_question(freewilly: World, option: str) -> None:
    """Quiet or not, nobody accepts what they were not shown."""
    options = ("--base", freewilly.base, "--delta", freewilly.release, option)
    done = at_a_terminal("apply-delta", *options, "--out", freewilly.model, answer=b"y\n")
    assert done.code == 0, done.stdout
    assert done.stdout.count(TERMS) == 1
    assert ("Do you accept" in done.stdout) is (option == "-q")


# What is known of licences.


def test_all_licences_are_listed() -> None:
    done = releasekit("licenses", "list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["id", "on", "the", "Hub", "use", "name"]
    assert len(lines) == len(list(load_catalogue())) + 1
    rows = {line.split()[0]: " ".join(line.split()) for line in lines}
    assert rows["llama-1"] == "llama-1 llama-1 research only LLaMA License Agreement"
    assert rows["cc0-1.0"] == "cc0-1.0 cc0-1.0 commercial CC0 1.0 Universal"
    document = good("licenses", "list", "--json").json
    assert [record["id"] for record in document["licenses"]] == [
        record.id for record in load_catalogue()
    ]


def test_a_licence_is_shown_by_any_of_its_names(own: Path) -> None:
    for name in ("llama-2", "LLaMA2", "LicenseRef-scancode-llama-2-license-2023"):
        assert good("licenses", "show", name, "--json").json["id"] == "llama-2"
    done = good("licenses", "show", "llama-3.1")
    lines = done.stdout.splitlines()
    assert lines[-9:] == [
        "on the Hub    llama3.1",
        "use           commercial",
        "with copies   the licence's text, a prescribed line, the use policy",
        "line          Llama 3.1 is licensed under the Llama 3.1 Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved.",
        "name begins   Llama",
        "display       Built with Llama",
        "restrictions  bind users of derivatives too",
        "users         at most 700,000,000 a month",
        "published at  https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/"
        "LICENSE",
    ]
    assert good("licenses", "show", "own", "--license-dir", own, "--json").json == {
        "id": "own",
        "name": "Our Licence",
        "aliases": [],
        "hub": "other",
        "hub_name": "our-licence",
        "spdx": None,
        "version": None,
        "date": None,
        "url": "https://licences.example/own",
        "commercial": False,
        "research_only": False,
        "acceptance": True,
        "summary": "Ask us first.",
        "travels": {"text": True, "notice": None, "use_policy": False, "changes": False},
        "naming": {"prefix": None, "built_with": None, "outputs": False},
        "same_license": False,
        "restrictions": False,
        "sublicense": True,
        "uploads_weights": True,
        "train_others": True,
        "monthly_users": None,
    }


def test_every_licence_can_be_shown() -> None:
    for record in load_catalogue():
        done = good("licenses", "show", record.id)
        assert f"published at  {record.url}" in done.stdout
        assert record.id in done.stdout


def test_an_unknown_licence_is_answered_with_the_closest(own: Path) -> None:
    done = here("licenses", "show", "llama-5", "--json")
    assert done.code == 2
    assert done.json["error"]["message"] == (
        'licence "llama-5": is not known; did you mean "llama-4", "llama-3", "llama-2" '
        "and 1 more? `releasekit licenses list` names all, and --license-dir adds records "
        "of your own"
    )
    done = here("licenses", "show", "oown", "--license-dir", own)
    assert done.stderr.startswith('error: licence "oown": is not known; did you mean "own"')


@pytest.mark.parametrize("command", [("list",), ("show", "mit"), ("check", ".")])
def test_a_bad_record_stops_every_command(own: Path, command: tuple[str, ...]) -> None:
    put(own, {"own.toml": b"id = 1"})
    done = here("licenses", *command, "--license-dir", own)
    assert done.code == 3
    assert done.stderr == f"error: {own / 'own.toml'}: id: expected a string, found 1\n"


# The package.


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="the builder is not installed"
)
def test_a_wheel_carries_the_records(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    build = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir"]
    command = [sys.executable, "-m", "pip", "wheel", *build, str(tmp_path), str(root)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import json, releasekit.license_files as found\n"
        "ids = [record.id for record in found.load_catalogue()]\n"
        "print(json.dumps([found.__file__, ids, sorted(found.hub_ids())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )
    assert json.loads(done.stdout) == [
        str(tmp_path / "site/releasekit/license_files.py"),
        [record.id for record in load_catalogue()],
        sorted(hub_ids()),
    ]


def test_check_licenses_is_the_commands_work(freewilly: World) -> None:
    found = check_licenses(freewilly.release)
    assert (found.kind, found.name, found.ok) == ("delta", "FreeWilly1", True)
    assert [str(finding) for finding in found.findings] == [
        "card-missing: there is no model card; write one with `releasekit card`",
        "restrictions-dropped: llama-1 restricts what may be done with derivatives, and "
        "cc-by-nc-4.0 of FreeWilly1 does not say so; point to the base's restrictions in "
        "the card, which `releasekit card` does, or use --license llama-1",
    ]
