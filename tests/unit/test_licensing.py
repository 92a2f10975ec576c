"""Who grants what, and the texts that go with it: found as they are, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from releasekit.digest import sha256_hex
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.license_files import kind_of, read_chain, read_text, texts_in
from releasekit.licenses.chain import CHAIN, Chain, Grant, Kind
from releasekit.licensing.drawing import draw_up, papers_of
from releasekit.licensing.papers import Papers, findings_of
from releasekit.licensing.terms import NO_LICENSE, Licensing

#: As people write them: with the line ends of Windows, in an encoding of theirs.
LICENSE = b"LLAMA\r\n\xa9 Meta\r\n"
POLICY = "Kein Unfug.\n".encode("utf-16")
NOTICE = b"\xa9 Meta, without an end"
ALL = "`releasekit licenses list` names all, and --license-dir adds records of your own"
OWN = b"""\
id = "own"
name = "Our Licence"
hub = "other"
hub_name = "own"
url = "https://licences.example/own"
commercial = true
research_only = false
acceptance = false
summary = "Do as you like."
"""
KEY = b"-----BEGIN PRIVATE KEY-----\nMIG\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return folder(tmp_path / "base", {"LICENSE": LICENSE})


def folder(path: Path, files: Mapping[str, bytes]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def draw(base: Path | None, *, delta: bool = True, **said: Any) -> Papers:
    licensing = Licensing(**said)
    return draw_up(licensing, "Tune", base, "org/base", delta=delta)


def found(grant: Grant | None) -> list[tuple[str, Kind]]:
    assert grant is not None
    return [(text.path, text.kind) for text in grant.texts]


# Names of files.


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("LICENSE LICENSE.txt License.md LICENCE licence.TXT COPYING", Kind.LICENSE),
        ("LICENSE-MODEL MODEL_LICENSE.md LICENSE-CC-BY-4.0 COPYING.LESSER", Kind.LICENSE),
        ("LLAMA_LICENSE.txt license.pdf terms_of_use.html", Kind.LICENSE),
        ("USE_POLICY.md use-policy.txt ACCEPTABLE_USE_POLICY", Kind.USE_POLICY),
        ("USE_RESTRICTIONS.md Llama-2-Use-Policy.pdf", Kind.USE_POLICY),
        ("NOTICE Notice NOTICE.txt notices.md NOTICE_Llama.txt", Kind.NOTICE),
        ("README.md config.json license.json notice.py LICENSES use_policy.py", None),
        ("licensed.md unlicensed.txt noticed policy.md .license", None),
    ],
)
def test_texts_are_known_by_their_names(names: str, kind: Kind | None) -> None:
    assert {name: kind_of(name) for name in names.split()} == dict.fromkeys(
        names.split(), kind
    )
    assert kind_of("Tongyi Qianwen LICENSE AGREEMENT") is Kind.LICENSE


def test_only_files_with_something_in_them_are_texts(tmp_path: Path) -> None:
    folder(
        tmp_path,
        {
            "License.md": b"x",
            "LICENCE": b"",
            "LICENSE/inside": b"x",
            "Notice": b"x",
            "config.json": b"{}",
            "elsewhere": b"x",
        },
    )
    (tmp_path / "NOTICE.txt").symlink_to("elsewhere")
    (tmp_path / "USE_POLICY.md").symlink_to("gone")
    os.mkfifo(tmp_path / "COPYING")
    assert texts_in(tmp_path) == {
        "License.md": Kind.LICENSE,
        "NOTICE.txt": Kind.NOTICE,
        "Notice": Kind.NOTICE,
    }
    assert texts_in(tmp_path / "gone") == texts_in(tmp_path / "License.md") == {}


def test_a_text_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "LICENSE"
    path.write_bytes(LICENSE)
    assert read_text(path) == LICENSE
    for content, message in (
        (b" \r\n", "is empty; expected a licence's text"),
        (b"x" * 2**20 + b"y", "expected at most 1048576 bytes, found 1048577"),
    ):
        path.write_bytes(content)
        with pytest.raises((UsageError, FormatError)) as error:
            read_text(path)
        assert str(error.value) == f"{path}: {message}"
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UsageError) as missing:
            read_text(path)
        assert str(missing.value) == f"{path}: no such file; expected a licence's text"


# Who grants what.


def test_the_chain_of_freewilly_1(base: Path) -> None:
    papers = draw(base, license="CC-BY-NC-4.0", bases=("llama-1",))
    llama, cc = papers.chain.bases[0], papers.chain.release
    assert (llama.of, llama.id, llama.research_only) == ("org/base", "llama-1", True)
    assert found(llama) == [("licenses/llama-1/LICENSE", Kind.LICENSE)]
    assert cc is not None
    assert (cc.of, cc.id, cc.commercial) == ("Tune", "cc-by-nc-4.0", False)
    assert found(cc) == [("licenses/cc-by-nc-4.0/LICENSE.txt", Kind.LICENSE)]
    assert papers.chain.rebuilt == cc
    files = papers.published()
    assert sorted(files) == ["LICENSE", "NOTICE", *sorted(papers.texts)]
    assert files["licenses/llama-1/LICENSE"] == LICENSE
    assert files["LICENSE"] == files["licenses/cc-by-nc-4.0/LICENSE.txt"]
    assert files[CHAIN] == papers.chain.pack()
    assert papers.rebuilt({}) == files
    for grant in papers.chain.grants:
        for text in grant.texts:
            assert sha256_hex(files[text.path]) == text.sha256


def test_all_texts_beside_a_base_are_carried_over_as_they_are(tmp_path: Path) -> None:
    texts = {"LICENSE.txt": LICENSE, "USE_POLICY.md": POLICY, "Notice": NOTICE}
    base = folder(tmp_path / "base", texts | {"README.md": b"x", "config.json": b"{}"})
    papers = draw(base, license="llama-2", bases=("llama-2",))
    assert {
        path.removeprefix("licenses/llama-2/"): data
        for path, data in papers.texts.items()
        if path != CHAIN
    } == texts
    assert papers.published()["LICENSE"] == LICENSE
    assert NOTICE in papers.notice
    assert papers.notice.count(b"Llama 2 is licensed under the LLAMA 2 Community") == 1
    assert findings_of(papers, "Tune") == ()
    assert found(papers.chain.release) == found(papers.chain.bases[0])


def test_a_maintainers_text_goes_before_that_beside_the_base(
    base: Path, tmp_path: Path
) -> None:
    own = folder(tmp_path / "own", {"LICENSE": b"the newer one", "policy.txt": POLICY})
    (base / "USE_POLICY.md").write_bytes(POLICY)
    papers = draw(
        base,
        license="mit",
        bases=("llama-2",),
        files=(f"llama2={own / 'LICENSE'}", str(own / "policy.txt")),
    )
    assert papers.texts["licenses/llama-2/LICENSE"] == b"the newer one"
    assert papers.texts["licenses/llama-2/USE_POLICY.md"] == POLICY
    # What it is called says nothing; then it is the licence.
    assert found(papers.chain.release) == [("licenses/mit/policy.txt", Kind.LICENSE)]
    assert papers.published()["LICENSE"] == POLICY


def test_a_path_may_have_the_sign_of_an_id_in_it(base: Path, tmp_path: Path) -> None:
    own = folder(tmp_path / "a=b", {"LICENSE": b"ours"})
    papers = draw(base, license="mit", bases=("llama-1",), files=(f"{own}/LICENSE",))
    assert papers.texts["licenses/mit/LICENSE"] == b"ours"


def test_a_text_that_is_nowhere_is_none(tmp_path: Path) -> None:
    papers = draw(folder(tmp_path / "base", {}), license="mit", bases=("llama-2",))
    assert found(papers.chain.release) == found(papers.chain.bases[0]) == []
    assert papers.license is papers.rebuilt_license is None
    assert sorted(papers.published()) == ["NOTICE", CHAIN]
    assert [finding.rule.id for finding in findings_of(papers, "Tune")] == [
        "text-missing",
        "text-missing",
        "use-policy-missing",
    ]


def test_the_model_may_be_under_another_licence_than_the_delta(base: Path) -> None:
    papers = draw(base, license="apache-2.0", rebuilt="cc-by-nc-4.0", bases=("llama-1",))
    assert papers.chain.model is papers.chain.rebuilt
    assert b"Apache License" in papers.published()["LICENSE"]
    assert b"NonCommercial" in papers.rebuilt({})["LICENSE"]


def test_a_model_that_is_no_delta_rebuilds_nothing(base: Path) -> None:
    chain = draw(base, license="mit", bases=("llama-1",), delta=False).chain
    assert chain.rebuilt is None
    assert chain.model is chain.release


def test_a_base_that_is_no_folder_has_no_texts(base: Path) -> None:
    papers = draw(None, license="mit", bases=("llama-1",))
    assert found(papers.chain.bases[0]) == []
    assert papers_of(NO_LICENSE, "Tune", base / "LICENSE", base / "LICENSE") is None


def test_only_the_first_base_is_beside_its_texts(base: Path) -> None:
    chain = draw(base, license="mit", bases=("llama-1", "llama-2")).chain
    assert [(grant.of, grant.id, len(grant.texts)) for grant in chain.bases] == [
        ("org/base", "llama-1", 1),
        ("", "llama-2", 0),
    ]


def test_a_base_is_named_as_it_was_given(base: Path, tmp_path: Path) -> None:
    licensing = Licensing(license="mit", bases=("llama-1",))
    for given, name in (
        (base, "base"),
        (str(base), "base"),
        ("org/model", "org/model"),
        ("org/model@v1.0", "org/model"),
    ):
        papers = papers_of(licensing, "Tune", given, base)
        assert papers is not None
        assert papers.chain.bases[0].of == name
    (tmp_path / "link").symlink_to(base)
    papers = papers_of(licensing, "Tune", tmp_path / "link", tmp_path / "link")
    assert papers is not None
    assert papers.chain.bases[0].of == "base"


def test_where_nothing_is_said_there_are_no_papers(base: Path, tmp_path: Path) -> None:
    assert papers_of(NO_LICENSE, "Tune", base, base) is None
    own = folder(tmp_path / "records", {"own.toml": OWN})
    assert papers_of(Licensing(folders=(own,)), "Tune", base, base) is None
    assert [found.rule.id for found in findings_of(None, "Tune")] == [
        "license-missing",
        "base-license-missing",
    ]


def test_what_was_said_is_kept_for_the_provenance() -> None:
    assert NO_LICENSE.parameters == {}
    assert Licensing(
        license="mit", bases=("a",), rebuilt="b", files=("c",), teachers=("d",)
    ).parameters == {
        "license": "mit",
        "base_licenses": ["a"],
        "rebuilt_license": "b",
        "teachers": ["d"],
    }


def test_the_same_is_drawn_up_twice(base: Path) -> None:
    one, two = (
        draw(base, license="cc-by-nc-4.0", bases=("llama-1",), teachers=("b", "a", "b"))
        for _ in range(2)
    )
    assert one.published() == two.published()
    assert one.chain.teachers == ("b", "a")


# A base that has a chain itself.


@pytest.fixture
def heir(base: Path, tmp_path: Path) -> Path:
    """A model as it was rebuilt from a delta on `base`."""
    (base / "NOTICE").write_bytes(NOTICE)
    papers = draw(base, license="cc-by-nc-4.0", bases=("llama-1",), teachers=("gpt-4",))
    return folder(tmp_path / "heir", papers.rebuilt({}))


@pytest.mark.parametrize("license_id", [None, "cc-by-nc-4.0"])
def test_the_chain_of_a_base_is_inherited(heir: Path, license_id: str | None) -> None:
    before = read_chain(heir)
    assert before is not None
    papers = papers_of(Licensing(license=license_id), "Second", heir, heir)
    assert papers is not None
    assert papers.chain.bases == (before.rebuilt, *before.bases)
    assert papers.chain.teachers == ("gpt-4",)
    for grant in papers.chain.bases:
        for text in grant.texts:
            assert papers.texts[text.path] == (heir / text.path).read_bytes()
    assert NOTICE in papers.notice
    assert ("Second" in [grant.of for grant in papers.chain.grants]) is bool(license_id)


def test_what_lies_beside_an_heir_is_its_own(heir: Path) -> None:
    """Its LICENSE is that of the model, not that of what is named for its base."""
    papers = draw(heir, license="mit", bases=("llama-1",))
    (llama,) = [grant for grant in papers.chain.bases if grant.id == "llama-1"]
    assert papers.texts["licenses/llama-1/LICENSE"] == LICENSE
    assert [path for path, _ in found(llama)] == [
        "licenses/llama-1/LICENSE",
        "licenses/llama-1/NOTICE",
    ]


@pytest.mark.parametrize("what", ["changed", "gone", "empty", "chain"])
def test_an_heir_whose_texts_are_not_those_of_its_chain_is_refused(
    heir: Path, what: str
) -> None:
    path = heir / "licenses/llama-1/LICENSE"
    expected: tuple[type[Exception], str] = {
        "changed": (
            IntegrityError,
            f"{path}: is not the text that licenses/chain.json lists: it was changed; "
            "restore it, or get the model again",
        ),
        "gone": (UsageError, f"{path}: no such file; expected a licence's text"),
        "empty": (UsageError, f"{path}: is empty; expected a licence's text"),
        "chain": (FormatError, f'{heir / CHAIN}: missing field "format"'),
    }[what]
    match what:
        case "changed":
            path.write_bytes(LICENSE + b"\n")
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"\n")
        case _:
            (heir / CHAIN).write_bytes(b"{}")
    with pytest.raises(expected[0]) as error:
        papers_of(NO_LICENSE, "Second", heir, heir)
    assert str(error.value) == expected[1]


# What is refused.


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"license": "lama-2"},
            'licence "lama-2": is not known; did you mean "llama-2", "llama-3.2", '
            f'"llama-4"? {ALL}',
        ),
        (
            {"bases": ("no such thing",)},
            f'licence "no such thing": is not known; {ALL}',
        ),
        (
            {"rebuilt": "xxxxxxxxxx"},
            f'licence "xxxxxxxxxx": is not known; {ALL}',
        ),
        (
            {"files": ("FILE",)},
            "--license-file FILE: of which licence? name it with --license, or as "
            "--license-file ID=FILE",
        ),
        (
            {"license": "mit", "files": ("gone",)},
            "gone: no such file; expected a licence's text",
        ),
        (
            {"license": "mit", "files": ("gemma=FILE",)},
            "--license-file gemma=FILE: gemma is none of this release's licences; name it "
            "with --license or --base-license",
        ),
    ],
)
def test_what_cannot_be_drawn_up_is_refused(
    base: Path, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        draw(base, **said)
    assert str(error.value) == message


@pytest.mark.parametrize("where", ["beside", "given"])
def test_a_private_key_is_no_licence(tmp_path: Path, where: str) -> None:
    base = folder(tmp_path / "base", {})
    path = (base if where == "beside" else tmp_path) / "LICENSE.txt"
    path.write_bytes(KEY)
    files = (f"llama-1={path}",) if where == "given" else ()
    with pytest.raises(UsageError) as error:
        draw(base, bases=("llama-1",), files=files)
    assert str(error.value) == (
        f"{path}: holds a private key, and would be published: move it away; if others may "
        "have read it, whatever it is for needs a new one"
    )


def test_two_texts_of_one_name_are_refused(base: Path, tmp_path: Path) -> None:
    one = folder(tmp_path / "1", {"LICENSE": b"one"}) / "LICENSE"
    two = folder(tmp_path / "2", {"LICENSE": b"two"}) / "LICENSE"
    with pytest.raises(UsageError) as error:
        draw(base, license="mit", files=(str(one), str(two)))
    assert str(error.value) == (
        "licenses/mit/LICENSE: there are two texts of this name; rename one of the files "
        "given with --license-file"
    )
    two.write_bytes(b"one")
    papers = draw(base, license="mit", files=(str(one), str(two)))
    assert found(papers.chain.release) == [("licenses/mit/LICENSE", Kind.LICENSE)]


# What the rebuilt model has of its own.


def test_a_models_own_licence_and_notice_stay(base: Path) -> None:
    papers = draw(base, license="cc-by-nc-4.0", bases=("llama-1",))
    all_of_it = papers.rebuilt({})
    own: dict[str, Path | bytes] = {"License.md": b"own", "notice.txt": b"own"}
    files = papers.rebuilt(own)
    assert files == {
        **{path: data for path, data in all_of_it.items() if "/" in path},
        "licenses/NOTICE": papers.notice,
    }
    below: dict[str, Path | bytes] = {"docs/LICENSE": b"own", "docs/NOTICE": b"own"}
    assert papers.rebuilt(below) == all_of_it


def test_a_text_that_the_model_has_already_is_not_written_twice(base: Path) -> None:
    papers = draw(base, license="cc-by-nc-4.0", bases=("llama-1",))
    own: dict[str, Path | bytes] = {
        "licenses/llama-1/LICENSE": base / "LICENSE",
        "licenses/cc-by-nc-4.0/LICENSE.txt": papers.published()["LICENSE"],
    }
    assert papers.rebuilt(own).keys() == papers.rebuilt({}).keys() - own.keys()


@pytest.mark.parametrize(
    "name", ["licenses/llama-1/LICENSE", "Licenses/LLAMA-1/license", "licenses/chain.json"]
)
def test_another_file_in_the_place_of_a_text_is_refused(base: Path, name: str) -> None:
    papers = draw(base, license="cc-by-nc-4.0", bases=("llama-1",))
    with pytest.raises(UsageError) as error:
        papers.rebuilt({name: b"another"})
    assert str(error.value) == (
        f"{name}: lies where the release puts a licence's text, and is another one; leave "
        f"it out with --exclude '{name}'"
    )


def test_a_chain_is_what_others_can_read(base: Path) -> None:
    document = json.loads(draw(base, license="mit", bases=("llama-1",)).texts[CHAIN])
    assert [grant["id"] for grant in document["bases"]] == ["llama-1"]
    assert document["release"] == document["rebuilt"]
    assert document["bases"][0]["texts"] == [
        {
            "path": "licenses/llama-1/LICENSE",
            "kind": "license",
            "sha256": sha256_hex(LICENSE),
        }
    ]


def test_a_folder_without_a_chain_says_nothing(base: Path) -> None:
    assert read_chain(base) is None
    (base / "licenses").mkdir()
    assert read_chain(base) is None
    (base / CHAIN).write_bytes(Chain().pack())
    assert read_chain(base) == Chain()
