"""Licence records, the catalogue of them, the chain of a release, and its NOTICE file."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from releasekit.errors import FormatError, UsageError
from releasekit.license_files import hub_ids, load_catalogue, spdx_text
from releasekit.licenses.chain import Chain, Grant, Kind, Text
from releasekit.licenses.chain import parse as parse_chain
from releasekit.licenses.notice import assemble
from releasekit.licenses.records import (
    OTHER,
    Catalogue,
    LicenseRecord,
    Naming,
    Travels,
    parse,
)

Document = dict[str, Any]

CATALOGUE = load_catalogue()
#: What an id is made of.
IDS = "lower-case letters, digits and . + -"
LEAST = """\
id = "own"
name = "Our Licence"
hub = "other"
hub_name = "our-licence"
url = "https://licences.example/own"
commercial = true
research_only = false
acceptance = false
summary = "Do as you like."
"""
MOST = """\
id = "own+2.0"
name = "Our Licence"
hub = "llama2"
aliases = ["OURS", "llama2"]
spdx = "LicenseRef-ours-2.0"
version = "2.0"
date = 2023-07-18
url = "http://licences.example/own"
commercial = false
research_only = true
acceptance = true
summary = '''
Do as
   we like.
'''

[travels]
text = true
notice = "Ours © us."
use_policy = true
changes = true

[naming]
prefix = "Our"
built_with = "Built with ours"
outputs = true

[derivatives]
same_license = true
restrictions = true
sublicense = false

[uploads]
weights = false
why = "they are ours"

[outputs]
train_others = false

[limits]
monthly_users = 1
"""


def record(**changes: str) -> LicenseRecord:
    """A record of the fewest fields, some of which have other values, in TOML."""
    lines = dict(line.split(" = ", 1) for line in LEAST.splitlines()) | changes
    document = "\n".join(f"{key} = {value}" for key, value in lines.items())
    return parse(document.encode(), "own.toml")


# Records.


def test_a_record_of_the_fewest_fields() -> None:
    assert parse(LEAST.encode(), "own.toml") == LicenseRecord(
        id="own",
        name="Our Licence",
        hub="other",
        hub_name="our-licence",
        url="https://licences.example/own",
        commercial=True,
        research_only=False,
        acceptance=False,
        summary="Do as you like.",
    )


def test_a_record_of_all_fields() -> None:
    found = parse(MOST.encode(), "own.toml")
    assert found == LicenseRecord(
        id="own+2.0",
        name="Our Licence",
        hub="llama2",
        aliases=("OURS", "llama2"),
        spdx="LicenseRef-ours-2.0",
        version="2.0",
        date="2023-07-18",
        url="http://licences.example/own",
        commercial=False,
        research_only=True,
        acceptance=True,
        summary="Do as we like.",
        travels=Travels(text=True, notice="Ours © us.", use_policy=True, changes=True),
        naming=Naming(prefix="Our", built_with="Built with ours", outputs=True),
        same_license=True,
        restrictions=True,
        sublicense=False,
        uploads_weights=False,
        uploads_why="they are ours",
        train_others=False,
        monthly_users=1,
    )
    assert found.names == ("own+2.0", "ours", "llama2", "licenseref-ours-2.0")
    assert found.edition == "Our Licence, version 2.0, 2023-07-18"


def test_no_field_goes_unread() -> None:
    """Each differs from its default, so that one that is not read would show."""
    least, most = parse(LEAST.encode(), "x"), parse(MOST.encode(), "x")
    for field in fields(LicenseRecord):
        if field.name != "name":
            assert getattr(least, field.name) != getattr(most, field.name), field.name


@pytest.mark.parametrize(
    ("document", "message"),
    [
        *(
            (LEAST.replace('"own"', f'"{id}"', 1), f'id: expected {IDS}, found "{id}"')
            for id in ("Own", "own.", "../own", "")
        ),
        (
            LEAST.replace('"own"', f'"{65 * "o"}"', 1),
            f'id: expected {IDS}, found "{59 * "o"}…"',
        ),
        (LEAST.replace("id =", "ID ="), 'missing field "id"'),
        (LEAST.replace('"Our Licence"', '" "'), 'name: expected a line of text, found " "'),
        (
            LEAST.replace('"Our Licence"', '"a\\nb"'),
            'name: expected a line of text, found "a\\nb"',
        ),
        (
            LEAST.replace('"other"', '"Other"'),
            'hub: expected an id of the Hub\'s, or other, found "Other"',
        ),
        (
            LEAST.replace('hub = "other"', 'hub = "mit"'),
            'hub_name: expected one with hub = "other", and only then',
        ),
        (
            LEAST.replace('hub_name = "our-licence"\n', ""),
            'hub_name: expected one with hub = "other", and only then',
        ),
        (
            LEAST.replace("commercial = true", 'commercial = "yes"'),
            'commercial: expected true or false, found "yes"',
        ),
        (LEAST.replace("commercial = true\n", ""), 'missing field "commercial"'),
        (
            LEAST.replace("research_only = false", "research_only = true"),
            "commercial: expected false with research_only = true",
        ),
        (
            LEAST.replace("https:", "ftp:"),
            'url: expected https://…, found "ftp://licences.example/own"',
        ),
        (
            LEAST.replace('"Do as you like."', '" \\n "'),
            "summary: expected 1 to 2000 printable characters",
        ),
        (
            LEAST.replace('"Do as you like."', f'"{2001 * "x"}"'),
            "summary: expected 1 to 2000 printable characters",
        ),
        (
            LEAST.replace('"Do as you like."', '"\\u001b[2J"'),
            "summary: expected 1 to 2000 printable characters",
        ),
        (LEAST + 'aliases = "mine"', 'aliases: expected an array, found "mine"'),
        (LEAST + "aliases = [1]", "aliases[0]: expected a string, found 1"),
        (
            LEAST + 'spdx = "MIT OR ISC"',
            'spdx: expected one SPDX identifier, or a LicenseRef, found "MIT OR ISC"',
        ),
        (LEAST + "version = 2.0", "version: expected a string, found 2.0"),
        (
            LEAST + 'date = "18 July"',
            'date: expected a day such as 2023-07-18, found "18 July"',
        ),
        (
            LEAST + "date = 2023-07-18T00:00:00",
            'date: expected a day such as 2023-07-18, found "2023-07-18T00:00:00"',
        ),
        (LEAST + "travels = true", "travels: expected an object, found true"),
        (LEAST + "[travels]\ntext = 1", "travels.text: expected true or false, found 1"),
        (
            LEAST + '[travels]\nnotice = ""',
            'travels.notice: expected a line of text, found ""',
        ),
        (LEAST + "[travels]\npolicy = true", 'travels: unknown field "policy"'),
        (LEAST + "[naming]\noutput = true", 'naming: unknown field "output"'),
        (LEAST + "[derivatives]\nx = true", 'derivatives: unknown field "x"'),
        (LEAST + "[uploads]\nx = true", 'uploads: unknown field "x"'),
        (LEAST + "[outputs]\nx = true", 'outputs: unknown field "x"'),
        (
            LEAST + "[limits]\nmonthly_users = 0",
            "limits.monthly_users: expected an integer of at least 1, found 0",
        ),
        (LEAST + "[limits]\nx = 1", 'limits: unknown field "x"'),
        (LEAST + "text = 1", 'unknown field "text"'),
        ("id = ", "not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_a_record_that_is_not_one_is_refused(document: str, message: str) -> None:
    with pytest.raises(FormatError) as error:
        parse(document.encode(), "own.toml")
    assert str(error.value) == f"own.toml: {message}"


# The catalogue.


def test_the_records_that_come_with_the_package() -> None:
    records = list(CATALOGUE)
    assert [known.id for known in records] == sorted(known.id for known in records)
    wanted = (
        "llama-1 llama-2 llama-3 llama-3.1 llama-3.2 llama-3.3 llama-4 stable-beluga-nc"
    )
    wanted += " cc-by-nc-4.0 gemma tongyi-qianwen openrail bigscience-openrail-m mit"
    wanted += " creativeml-openrail-m apache-2.0"
    assert set(wanted.split()) <= {known.id for known in records}
    for known in records:
        assert known.hub in hub_ids(), known.id
        assert known.url.startswith("https://"), known.id
        assert known.uploads_weights or known.uploads_why, known.id


@pytest.mark.parametrize(
    ("names", "id"),
    [
        ("llama-2 llama2 LLAMA2 licenseref-scancode-llama-2-license-2023", "llama-2"),
        ("Apache-2.0 apache-2.0", "apache-2.0"),
        ("llama-1 LicenseRef-scancode-llama-license-2023", "llama-1"),
        ("stable-beluga-nc", "stable-beluga-nc"),
        ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ("llama3.1 llama-3.1", "llama-3.1"),
    ],
)
def test_a_licence_has_several_names(names: str, id: str) -> None:
    for name in names.split():
        assert CATALOGUE.get(name).id == id
        found = CATALOGUE.find(f" {name.upper()}\n")
        assert found is CATALOGUE.get(id)


@pytest.mark.parametrize("name", ["other", "", " ", "unknown", "Licence"])
def test_what_is_no_name_of_a_licence(name: str) -> None:
    assert CATALOGUE.find(name) is None


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UsageError) as error:
        CATALOGUE.get("apache")
    assert str(error.value) == (
        'licence "apache": is not known; did you mean "apache-2.0"? `releasekit licenses '
        "list` names all, and --license-dir adds records of your own"
    )
    with pytest.raises(UsageError) as error:
        CATALOGUE.get("\x1b[2J")
    assert str(error.value) == (
        'licence "\\u001b[2J": is not known; `releasekit licenses list` names all, and '
        "--license-dir adds records of your own"
    )


def test_a_record_of_the_same_id_stands_in_for_another() -> None:
    first, second = record(), record(name='"Newer"', aliases='["mine"]')
    catalogue = Catalogue([first, second])
    assert list(catalogue) == [second]
    assert catalogue.get("mine") is second


def test_two_licences_of_one_name_are_refused() -> None:
    other = record(id='"theirs"', hub_name='"theirs"', aliases='["OWN"]')
    with pytest.raises(FormatError) as error:
        Catalogue([record(), other])
    assert str(error.value) == 'licences own and theirs: both are known as "own"'


def test_a_users_own_records_join_the_others(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(LEAST)
    (tmp_path / "mit.toml").write_text(
        LEAST.replace('"own"', '"mit"').replace("our-licence", "our-mit")
    )
    (tmp_path / "README.md").write_text("no record")
    catalogue = load_catalogue([tmp_path])
    assert catalogue.get("our-licence").name == "Our Licence"
    assert catalogue.get("mit").hub == OTHER
    assert len(list(catalogue)) == len(list(CATALOGUE)) + 1


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UsageError) as error:
            load_catalogue([folder])
        assert str(error.value) == (
            f"{folder}: holds no licence records; expected files like mit.toml"
        )


def test_a_bad_record_of_a_users_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(LEAST.replace("true", "1"))
    with pytest.raises(FormatError) as error:
        load_catalogue([tmp_path])
    assert str(error.value) == (
        f"{tmp_path / 'own.toml'}: commercial: expected true or false, found 1"
    )
    (tmp_path / "own.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(FormatError) as error:
        load_catalogue([tmp_path])
    assert str(error.value) == (
        f"{tmp_path / 'own.toml'}: expected at most 1048576 bytes, found 1048577"
    )


@pytest.mark.parametrize("id", ["cc-by-nc-4.0", "apache-2.0", "cc0-1.0"])
def test_the_text_of_a_licence_that_spdx_lists(id: str) -> None:
    text = spdx_text(CATALOGUE.get(id))
    assert text is not None
    assert b"<<" not in text
    start = {
        "cc-by-nc-4.0": b"Creative Commons Attribution-NonCommercial 4.0 International"
    }
    assert text.startswith(start.get(id, b""))
    assert len(text) > 5000


@pytest.mark.parametrize(
    "id",
    [
        "mit",  # has blanks for a year and a holder
        "bsd-3-clause",
        "llama-2",  # a LicenseRef, which is not on the list
        "gemma",  # has no id there
    ],
)
def test_no_text_is_made_up(id: str) -> None:
    assert spdx_text(CATALOGUE.get(id)) is None


# The chain.


def text(path: str = "licenses/mit/LICENSE", kind: str = "license") -> Document:
    return {"path": path, "kind": kind, "sha256": "0" * 64}


def grant_document() -> Document:
    return {
        "of": "org/base",
        "id": "llama-1",
        "name": "LLaMA License Agreement",
        "hub": "other",
        "hub_name": "llama-1",
        "spdx": "LicenseRef-x",
        "version": "1",
        "date": "2023-01-01",
        "url": "https://x.example/",
        "commercial": False,
        "research_only": True,
        "acceptance": True,
        "notice": "LLaMA is licensed.",
        "summary": "For research.",
        "texts": [text(), text("licenses/mit/NOTICE", "notice")],
    }


def least() -> Document:
    """A grant of the fewest fields."""
    optional = ("hub_name", "spdx", "version", "date", "notice")
    rest = {key: value for key, value in grant_document().items() if key not in optional}
    return rest | {"of": "", "id": "mit", "hub": "mit", "texts": []}


def chain_document() -> Document:
    return {
        "format": "releasekit-licenses/1",
        "bases": [grant_document(), least()],
        "release": grant_document() | {"of": "Tune"},
        "rebuilt": least(),
        "teachers": ["gpt-4", "llama-2"],
    }


def packed(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def test_a_chain_is_read_and_written() -> None:
    document = packed(chain_document())
    chain = parse_chain(document, "chain.json")
    assert chain.pack() == document
    assert chain.bases[0] == Grant(
        of="org/base",
        id="llama-1",
        name="LLaMA License Agreement",
        hub="other",
        hub_name="llama-1",
        spdx="LicenseRef-x",
        version="1",
        date="2023-01-01",
        url="https://x.example/",
        commercial=False,
        research_only=True,
        acceptance=True,
        notice="LLaMA is licensed.",
        summary="For research.",
        texts=(
            Text(path="licenses/mit/LICENSE", kind=Kind.LICENSE, sha256="0" * 64),
            Text(path="licenses/mit/NOTICE", kind=Kind.NOTICE, sha256="0" * 64),
        ),
    )
    assert chain.release is not None
    assert chain.release.of == "Tune"
    assert chain.rebuilt == chain.bases[1]
    assert chain.model is chain.rebuilt
    assert chain.teachers == ("gpt-4", "llama-2")
    assert [grant.of for grant in chain.grants] == ["Tune", "", "org/base", ""]


def test_an_empty_chain_is_one() -> None:
    document = Chain().pack()
    assert json.loads(document) == {
        "format": "releasekit-licenses/1",
        "bases": [],
        "teachers": [],
    }
    assert parse_chain(document, "chain.json") == Chain()
    assert Chain().model is None
    assert Chain().grants == Chain().distinct == ()


def test_what_a_grant_takes_from_its_record() -> None:
    for known in CATALOGUE:
        grant = Grant.under(known, "x", ())
        assert (grant.id, grant.notice) == (known.id, known.travels.notice)
        chain = Chain(bases=(grant,))
        assert parse_chain(chain.pack(), "chain.json") == chain


@pytest.mark.parametrize(
    ("id", "use", "free"),
    [
        ("mit", "commercial use allowed", True),
        ("cc-by-nc-4.0", "non-commercial", False),
        ("llama-1", "research only, non-commercial", False),
    ],
)
def test_what_a_grant_lets_people_do(id: str, use: str, free: bool) -> None:
    grant = Grant.under(CATALOGUE.get(id), "x", ())
    assert (grant.use, grant.free) == (use, free)
    assert not replace(grant, acceptance=True).free


def test_each_licence_once_the_most_specific_first() -> None:
    tune, base, older = (
        Grant.under(CATALOGUE.get(id), of, ())
        for id, of in (("cc-by-nc-4.0", "Tune"), ("llama-2", "Base"), ("llama-1", "Older"))
    )
    chain = Chain(bases=(base, older), release=tune, rebuilt=replace(tune, of="Model"))
    assert chain.distinct == (tune, base, older)


Path_ = tuple[str | int, ...]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("format",),
            "releasekit-licenses/2",
            'format: expected "releasekit-licenses/1", '
            'found "releasekit-licenses/2": a newer releasekit may know it; update with '
            "`pip install -U releasekit`",
        ),
        (("format",), 1, "format: expected a string, found 1"),
        (("bases",), None, "bases: expected an array, found null"),
        (("bases", 0), [], "bases[0]: expected an object, found an array of 0"),
        (("release",), None, "release: expected an object, found null"),
        (("more",), 1, 'unknown field "more"'),
        (("release", "more"), 1, 'release: unknown field "more"'),
        (
            ("bases", 0, "of"),
            "a\nb",
            'bases[0].of: expected a line of text, or nothing, found "a\\nb"',
        ),
        (
            ("bases", 0, "id"),
            "../x",
            "bases[0].id: expected an id of lower-case letters, "
            'digits and . + -, found "../x"',
        ),
        (
            ("bases", 0, "hub"),
            "x/y",
            "bases[0].hub: expected an id of lower-case letters, "
            'digits and . + -, found "x/y"',
        ),
        (
            ("bases", 0, "hub"),
            "mit",
            'bases[0].hub: expected other with a hub_name, and only then, found "mit"',
        ),
        (
            ("rebuilt", "hub"),
            "other",
            'rebuilt.hub: expected other with a hub_name, and only then, found "other"',
        ),
        (
            ("bases", 0, "name"),
            "",
            'bases[0].name: expected a line of 1 to 1000 printable characters, found ""',
        ),
        (
            ("bases", 0, "url"),
            "\u202e",
            "bases[0].url: expected a line of 1 to 1000 printable "
            'characters, found "\\u202e"',
        ),
        (
            ("bases", 0, "version"),
            "\x1b[2J",
            "bases[0].version: expected a line of 1 to 1000 "
            'printable characters, found "\\u001b[2J"',
        ),
        (("bases", 0, "spdx"), None, "bases[0].spdx: expected a string, found null"),
        (
            ("bases", 0, "summary"),
            "x" * 2001,
            "bases[0].summary: expected a line of 1 to 2000 "
            f'printable characters, found "{59 * "x"}…"',
        ),
        (
            ("bases", 0, "commercial"),
            0,
            "bases[0].commercial: expected true or false, found 0",
        ),
        (
            ("bases", 0, "acceptance"),
            "true",
            'bases[0].acceptance: expected true or false, found "true"',
        ),
        (
            ("bases", 0, "texts", 0, "kind"),
            "licence",
            "bases[0].texts[0].kind: expected one "
            'of "license", "use-policy", "notice", found "licence"',
        ),
        (
            ("bases", 0, "texts", 0, "kind"),
            ["license"],
            "bases[0].texts[0].kind: expected one "
            'of "license", "use-policy", "notice", found an array of 1',
        ),
        (
            ("bases", 0, "texts", 0, "sha256"),
            "A" * 64,
            "bases[0].texts[0].sha256: expected 64 "
            f'lowercase hexadecimal digits, found "{59 * "A"}…"',
        ),
        (
            ("bases", 0, "texts", 0, "path"),
            "LICENSE",
            'bases[0].texts[0].path: expected one below licenses/, found "LICENSE"',
        ),
        (
            ("bases", 0, "texts", 0, "path"),
            "licenses/chain.json",
            "bases[0].texts[0].path: "
            'expected one below licenses/, found "licenses/chain.json"',
        ),
        (("bases", 0, "texts", 0, "more"), 1, 'bases[0].texts[0]: unknown field "more"'),
        (
            ("bases", 0, "texts"),
            [text()] * 1001,
            "bases[0].texts: expected at most 1000, found an array of 1001",
        ),
        (
            ("release", "texts", 0, "sha256"),
            "1" * 64,
            '"licenses/mit/LICENSE" has two digests',
        ),
        (
            ("teachers",),
            ["x", ""],
            "teachers: expected at most 1000 lines of text, found an array of 2",
        ),
        (("teachers",), ["x", 1], "teachers[1]: expected a string, found 1"),
    ],
)
def test_a_chain_that_is_not_one_is_refused(path: Path_, value: Any, message: str) -> None:
    document = deepcopy(chain_document())
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(FormatError) as error:
        parse_chain(packed(document), "chain.json")
    assert str(error.value) == f"chain.json: {message}"


@pytest.mark.parametrize("key", ["format", "bases", "teachers"])
def test_what_a_chain_must_have(key: str) -> None:
    document = {name: value for name, value in chain_document().items() if name != key}
    with pytest.raises(FormatError) as error:
        parse_chain(packed(document), "chain.json")
    assert str(error.value) == f'chain.json: missing field "{key}"'


@pytest.mark.parametrize("key", list(least()))
def test_what_a_grant_must_have(key: str) -> None:
    document = chain_document()
    del document["rebuilt"][key]
    with pytest.raises(FormatError) as error:
        parse_chain(packed(document), "chain.json")
    assert str(error.value) == f'chain.json: rebuilt: missing field "{key}"'


# The NOTICE file.


def test_a_notice_says_what_was_changed_and_what_must_be_said() -> None:
    chain = Chain(
        bases=(
            Grant.under(CATALOGUE.get("llama-1"), "huggyllama/llama-65b", ()),
            Grant.under(CATALOGUE.get("apache-2.0"), "", ()),
        ),
        release=Grant.under(CATALOGUE.get("cc-by-nc-4.0"), "FreeWilly1", ()),
        rebuilt=Grant.under(CATALOGUE.get("cc-by-nc-4.0"), "FreeWilly1", ()),
    )
    notices = [("licenses/apache-2.0/NOTICE", b"Gr\xf6\xdfe\r\n"), ("licenses/x/N", b"end")]
    assert assemble(chain, "FreeWilly1", notices) == (
        b"FreeWilly1\n\n"
        b"FreeWilly1 is a modified version of huggyllama/llama-65b, which is under the "
        b"LLaMA License Agreement; and of a model, which is under the Apache License: the "
        b"weights were changed by further training.\n\n"
        b"LLaMA is licensed under the LLaMA License, Copyright (c) Meta Platforms, Inc. "
        b"All Rights Reserved.\n\n"
        b"huggyllama/llama-65b: LLaMA License Agreement (https://docs.google.com/forms/d/e/"
        b"1FAIpQLSfqNECQnMkycAp2jP4Z9TFX0cGR4uf7b_fBxjY_OjhJILlKGA/viewform)\n"
        b"a base: Apache License (https://www.apache.org/licenses/LICENSE-2.0)\n"
        b"FreeWilly1: Creative Commons Attribution-NonCommercial 4.0 International Public "
        b"License (https://creativecommons.org/licenses/by-nc/4.0/)\n"
        b"\n---- licenses/apache-2.0/NOTICE ----\n\nGr\xf6\xdfe\r\n"
        b"\n---- licenses/x/N ----\n\nend\n"
    )


def test_a_notice_without_a_base_claims_no_change() -> None:
    grant = Grant.under(CATALOGUE.get("mit"), "Tune", ())
    assert assemble(Chain(release=grant), "Tune", ()) == (
        b"Tune\n\nTune: MIT License (https://opensource.org/license/mit)\n"
    )
    assert assemble(Chain(), "Tune", ()) == b"Tune\n\n"


def test_a_line_that_two_licences_prescribe_stands_once() -> None:
    one = Grant.under(CATALOGUE.get("llama-2"), "A", ())
    notice = assemble(Chain(bases=(one,), release=replace(one, of="B")), "B", ())
    assert notice.count(b"Llama 2 is licensed under the LLAMA 2 Community License") == 1
