"""Every rule for cards, broken and kept, in the words that a maintainer reads."""

from __future__ import annotations

import pytest

from releasekit.card.checks import RULES, check, refused

HUB = frozenset({"mit", "apache-2.0", "llama2", "other"})
FILES = ("README.md", "LICENSE", "model.sig", "evaluations/a b.png", "größe.txt")
GOOD = "license: mit\nlibrary_name: transformers\n"
INDEX = """\
model-index:
- name: m
  results:
  - task: {type: multiple-choice}
    dataset: {type: hellaswag, name: HellaSwag}
    metrics: [{type: acc, value: 1.5}]
"""
BEGIN = "<!-- releasekit:begin a 0123456789abcdef -->"


def card(data: str = "", body: str = "# Hi\n") -> bytes:
    return f"---\n{GOOD}{data}---\n\n{body}".encode()


def found(document: bytes) -> list[str]:
    return [str(finding) for finding in check(document, "README.md", FILES, HUB)]


# What breaks each rule, and what it says.
BROKEN: dict[str, list[tuple[bytes, str]]] = {
    "card-yaml": [
        (b"---\na: [\n---\n", "README.md: not valid YAML: while parsing a flow node"),
        (
            b"---\na: 1\na: 2\n---\n",
            'README.md: not valid YAML: key "a" appears twice in "<unicode string>", '
            "line 2, column 1: a: 2 ^; mend README.md",
        ),
        (
            b"---\n- a\n---\n",
            "README.md: metadata: expected a YAML mapping of names; mend README.md",
        ),
        (
            b"---\n1: a\n---\n",
            "README.md: metadata: expected a YAML mapping of names; mend README.md",
        ),
        (b"# \xff\n", "README.md: not UTF-8 at byte 2; mend README.md"),
        (b"# Hi\n", "there are no metadata; write the card with `releasekit card`"),
        (b"", "there are no metadata; write the card with `releasekit card`"),
    ],
    "card-license-id": [
        (
            b"---\nlibrary_name: x\n---\n",
            "license: is missing; name it; make-delta --license does",
        ),
        (
            b"---\nlibrary_name: x\nlicense: Apache-2.0\n---\n",
            'license: "Apache-2.0" is none of the Hub\'s ids; did you mean "apache-2.0"? '
            "use other with license_name and license_link for others",
        ),
        (
            b"---\nlibrary_name: x\nlicense: zzz\n---\n",
            'license: "zzz" is none of the Hub\'s ids; use other with license_name and '
            "license_link for others",
        ),
        (
            b"---\nlibrary_name: x\nlicense: [mit]\n---\n",
            'license: "[\'mit\']" is none of the Hub\'s ids; did you mean "mit"? use other '
            "with license_name and license_link for others",
        ),
    ],
    "card-license-other": [
        (
            b"---\nlibrary_name: x\nlicense: other\nlicense_link: LICENSE\n---\n",
            "license: other without license_name; add license_name",
        ),
        (
            b"---\nlibrary_name: x\nlicense: other\nlicense_name: ' '\n"
            b"license_link: LICENSE\n---\n",
            "license: other without license_name; add license_name",
        ),
        (
            b"---\nlibrary_name: x\nlicense: other\nlicense_name: a\n---\n",
            "license: other without license_link; add license_link",
        ),
        (
            b"---\nlibrary_name: x\nlicense: other\nlicense_name: a\n"
            b"license_link: TERMS\n---\n",
            'license_link: "TERMS" is not there; add the file, or correct it',
        ),
    ],
    "card-relation": [
        (
            card("base_model: org/b\nbase_model_relation: delta\n"),
            'base_model_relation: "delta" is none of the Hub\'s; use one of adapter, '
            "finetune, merge, quantized; a delta is a finetune",
        ),
        (
            card("base_model_relation: finetune\n"),
            "base_model_relation without base_model; name the base",
        ),
        (
            card("base_model: a b\n"),
            'base_model: "a b" is no id on the Hub; use org/name, as the base\'s page is '
            "called",
        ),
        (
            card("base_model: [org/b, 3]\n"),
            'base_model: "3" is no id on the Hub; use org/name, as the base\'s page is '
            "called",
        ),
    ],
    "card-index": [
        (
            card("model-index: []\n"),
            "model-index: huggingface_hub cannot read it: ValueError: `model_index` must "
            "be a non-empty list.; write the card again with `releasekit card`",
        ),
        (
            card("model-index: [{name: x}]\n"),
            "model-index: huggingface_hub cannot read it: KeyError: 'results'; write the "
            "card again with `releasekit card`",
        ),
        (
            card("model-index: 3\n"),
            "model-index: huggingface_hub cannot read it: TypeError: 'int' object is not "
            "iterable; write the card again with `releasekit card`",
        ),
    ],
    "card-ids": [
        (card("language: no\n"), 'language: "False"; expected codes such as en, in quotes'),
        (
            card("language: [en, English]\n"),
            'language: "English"; expected codes such as en, in quotes',
        ),
        (
            card("datasets: [a/b/c]\n"),
            'datasets: "a/b/c"; expected ids such as org/name, in quotes',
        ),
    ],
    "card-gate": [
        (
            card("extra_gated_fields: [a]\n"),
            "extra_gated_fields: is no mapping; give a type to each field's name",
        ),
        (
            card("extra_gated_fields: {Age: number}\n"),
            'extra_gated_fields: "Age" has the type "number"; use one of text, checkbox, '
            "date_picker, country, select",
        ),
        (
            card("extra_gated_fields: {Why: {options: [a]}}\n"),
            'extra_gated_fields: "Why" has the type "None"; use one of text, checkbox, '
            "date_picker, country, select",
        ),
    ],
    "card-links": [
        (
            card(body=text),
            f'the link "{link}" leads to no file; correct it, or add the file',
        )
        for text, link in (
            ("[a](gone.md)", "gone.md"),
            ("![a](gone.png)", "gone.png"),
            ("[a]\n\n[a]: sub/gone.md\n", "sub/gone.md"),
            ("| [a](gone.md) |\n|---|\n", "gone.md"),
            ("> - [a](gone.md#top)\n", "gone.md#top"),
            ("[![a](LICENSE)](gone)", "gone"),
            ("[a](../LICENSE)", "../LICENSE"),
            ('<a href="gone">x</a>', "gone"),
            ("text <img src='gone.png'> text", "gone.png"),
            ('<source srcset="LICENSE 1x, gone.png 2x">', "gone.png"),
        )
    ],
    "card-marks": [
        (
            card(body=f"{BEGIN}\n"),
            "README.md: near line 2 of the body: section a has no end; mend the marks, or "
            "remove them to make the section your own; then `releasekit card` can renew "
            "what it wrote",
        ),
    ],
    "card-signed": [
        (
            card(body="This release is not signed: see below."),
            "the card says that the release is not signed, and there is a model.sig; write "
            "it again with `releasekit card --sign-key`",
        ),
    ],
    "card-placeholders": [
        (
            card(body="[More Information Needed]"),
            '"[More Information Needed]" stands in the text; write what is missing',
        ),
        (card(body="TODO: x"), '"TODO" stands in the text; write what is missing'),
    ],
    "card-library": [
        (
            b"---\nlicense: mit\n---\n",
            "library_name: is missing, so the Hub guesses what loads the model; name it, "
            "e.g. transformers",
        ),
    ],
}
# What keeps each, though it looks like breaking it.
KEPT: dict[str, list[bytes]] = {
    "card-yaml": [card(), card().replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + card()],
    "card-license-id": [card(), b"---\nlicense: apache-2.0\nlibrary_name: x\n---\n"],
    "card-license-other": [
        b"---\nlibrary_name: x\nlicense: other\nlicense_name: a\nlicense_link: %s\n---\n"
        % link
        for link in (b"LICENSE", b"./LICENSE", b"https://example.org/terms")
    ],
    "card-relation": [
        card("base_model: org/b\nbase_model_relation: finetune\n"),
        card("base_model: [gpt2, org/b.c_d-1]\nbase_model_relation: merge\n"),
        card("base_model: org/b\n"),
    ],
    "card-index": [card(INDEX)],
    "card-ids": [
        card("language: en\ndatasets: squad\n"),
        card("language: [en, 'no', zh-Hant, code, multilingual]\ndatasets: [org/d]\n"),
    ],
    "card-gate": [
        card("extra_gated_fields: {I agree: checkbox, Where: country}\n"),
        card("extra_gated_fields: {Why: {type: select, options: [a, b]}}\n"),
    ],
    "card-links": [
        card(body=text)
        for text in (
            "[a](LICENSE) [b](./LICENSE?raw=1#x) [c](#hi) [d](mailto:a@b.c) [e](//x.org/y)",
            "[a](evaluations) [b](evaluations/) [c](<evaluations/a b.png>) [d](.)",
            "[a](evaluations/a%20b.png) [b](größe.txt) [c](gr%C3%B6%C3%9Fe.txt)",
            "`[a](gone)`\n\n```\n[a](gone)\n```\n\n    [a](gone)\n",
            "<https://example.org> [a] [b](data:text/plain,x)",
            "[a](evaluations/../LICENSE)",
            '<source srcset="LICENSE 1x,\n README.md 2x"><img src="LICENSE">',
        )
    ],
    "card-marks": [card(body=f"{BEGIN}\nx\n<!-- releasekit:end a -->\n")],
    "card-signed": [card(body="This release is signed.")],
    "card-placeholders": [card(body="TODOs, mastodon")],
    "card-library": [card()],
}


def test_every_rule_is_broken_and_kept_here() -> None:
    assert list(BROKEN) == list(KEPT) == [rule.id for rule in RULES]


def test_the_ids_of_rules_are_unique() -> None:
    ids = [*(rule.id for rule in RULES), refused("x").rule.id]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("rule", "case"), [(rule, case) for rule, items in BROKEN.items() for case in items]
)
def test_a_broken_rule_is_found_in_words(rule: str, case: tuple[bytes, str]) -> None:
    document, words = case
    assert any(line.startswith(f"{rule}: {words}") for line in found(document)), found(
        document
    )


@pytest.mark.parametrize(
    ("rule", "document"), [(rule, case) for rule, items in KEPT.items() for case in items]
)
def test_a_kept_rule_is_not_found(rule: str, document: bytes) -> None:
    ids = [finding.rule.id for finding in check(document, "README.md", FILES, HUB)]
    assert rule not in ids


@pytest.mark.parametrize("documents", KEPT.values(), ids=KEPT)
def test_a_card_that_keeps_one_rule_keeps_all(documents: list[bytes]) -> None:
    for document in documents:
        assert found(document) == []


def test_errors_come_first_and_each_fault_is_told_once() -> None:
    document = b"---\nx: 1\n---\n\nTODO TODO [a](gone) [b](gone)"
    assert found(document) == [
        "card-license-id: license: is missing; name it; make-delta --license does",
        'card-links: the link "gone" leads to no file; correct it, or add the file',
        'card-placeholders: "TODO" stands in the text; write what is missing',
        "card-library: library_name: is missing, so the Hub guesses what loads the model; "
        "name it, e.g. transformers",
    ]


def test_what_the_hub_says_is_an_error() -> None:
    finding = refused("bad language")
    assert finding.is_error
    assert str(finding) == "card-refused: bad language; mend README.md"
