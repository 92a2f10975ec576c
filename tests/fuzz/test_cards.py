"""Every reader of cards and facts, on any text: values, or an error of ours in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from releasekit.card import facts, sections
from releasekit.card.checks import check
from releasekit.card.pages import SECTIONS, render
from releasekit.card.view import ModelView, Subject, view
from releasekit.errors import ReleaseKitError
from releasekit.hub.cards import split
from releasekit.licenses.records import Catalogue
from tests.fuzz import mutation

T = TypeVar("T")
CARDS = Path(__file__).parent.parent / "cards"
FACTS = (CARDS / "freewilly1.toml").read_bytes()
CARD = (
    b"---\nlanguage:\n- en\nlicense: other\nlicense_name: x\nlicense_link: LICENSE\n"
    b"base_model: org/b\nbase_model_relation: finetune\ntags: [a, b]\ndatasets: org/d\n"
    b"extra_gated_fields: {Why: {type: select}, I agree: checkbox}\n"
    b"model-index:\n- name: m\n  results:\n  - task: {type: t}\n"
    b"    dataset: {type: d, name: D}\n    metrics: [{type: acc, value: 1.5}]\n"
    b"    source: {url: https://example.org}\n---\n\nown\n\n"
    + sections.merge([], {"title": "# T", "model": "[a](LICENSE)"}).text.encode()
    + b'\n| a |\n|---|\n| ![b](c.png "d") |\n<img srcset="a 1x, b 2x" src=\'c\'>\n'
)
TOKENS = [
    *(b"---\n", b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\0", b"\xff", b"\xed\xa0\x80"),
    *(b"<!-- releasekit:begin title 0123456789abcdef -->\n", b"<!-- releasekit:", b"-->"),
    *(b"<!-- releasekit:end title -->\n", b"<!-- releasekit:begin b -->\n", b"```\n", b"|"),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"#",
    ),
    *(b"no", b"null", b"~", b"1e999", b".nan", b"2023-99-99", b"9" * 5000, b"!x ", b"%"),
    *(b"[" * 3000, b"](", b"<a href='", b"http://[", b"../", b"%2e%2e/", b"\xe2\x80\xae"),
    *(b"[card]\n", b'"""', b"title = ", b"= [", b"true", b"inf", b"\\u0000", b"\\ud800"),
]


mutated = partial(mutation.mutated, tokens=TOKENS)


def refused(call: Callable[[], T]) -> T | None:
    """What a call returns; None if an error of ours, in one printable line, refuses it."""
    try:
        return call()
    except ReleaseKitError as error:
        message = str(error)
    assert message.isprintable()
    return None


SUBJECT = Subject(
    name="m",
    weights=ModelView(nbytes=1, parameters=1, dtypes="F32"),
    chain=None,
    comparison=None,
    chart=None,
    sources=(),
    fingerprint="0a" * 32,
    sums=True,
)


@given(document=mutated(FACTS) | st.binary(max_size=40))
def test_facts_of_any_bytes(document: bytes) -> None:
    found = refused(lambda: facts.parse(document, "x"))
    if found is None:
        return
    pages = render(view(SUBJECT, found, Catalogue(())))
    assert list(pages) == list(SECTIONS)
    merged = sections.merge([], pages)
    refused(lambda: sections.parse(merged.text, "x"))


@given(document=mutated(CARD) | st.binary(max_size=40))
def test_cards_of_any_bytes(document: bytes) -> None:
    found = refused(lambda: split(document, "x"))
    ids = [finding.rule.id for finding in check(document, "x", {"LICENSE"}, {"mit"})]
    if found is None:
        assert ids == ["card-yaml"]
        return
    data, body = found
    assert all(isinstance(key, str) for key in data)
    pieces = refused(lambda: sections.parse(body, "x"))
    # It also tells of marks that stand within code, or a comment.
    assert "card-marks" in ids or pieces is not None


@given(
    parts=st.lists(
        st.sampled_from(
            [
                *("<!-- releasekit:begin a 0123456789abcdef -->\n", "text\n", "\n", "\r"),
                *("<!-- releasekit:end a -->\n", "<!-- releasekit:begin b -->\r\n", "x"),
                *("<!-- releasekit:end b -->\r\n", "<!--releasekit:", " ", "-->"),
            ]
        ),
        max_size=12,
    )
)
def test_marks_in_any_order(parts: list[str]) -> None:
    body = "".join(parts)
    pieces = refused(lambda: sections.parse(body, "x"))
    if pieces is None:
        return
    once = sections.merge(pieces, {"b": "new", "c": "more"})
    again = sections.parse(once.text, "x")
    assert sections.merge(again, {"b": "new", "c": "more"}).text == once.text
    own = "".join(piece.text for piece in pieces if piece.name is None)
    kept = "".join(piece.text for piece in again if piece.name is None)
    assert own.split() == kept.split()
