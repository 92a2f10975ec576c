"""The summary that a report keeps, and a card takes over: plain words and a table."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from releasekit.errors import FormatError
from releasekit.statistics.summary import parse, summary
from tests.unit.test_pictures import llama, portrait, tensor

REFUSAL = (
    "summary.md: expected sentences and a table without markup, as `releasekit report` "
    "writes them; draw the report again, and write into the card what is your own"
)
#: What a page may become of: nothing that links, runs, or shows a picture.
PLAIN = {"paragraph", "inline", "table", "thead", "tbody", "tr", "th", "td", "text"}
PLAIN |= {"softbreak"}
#: What readers of Markdown on the Web make a link of, though no mark says so.
HOSTS = re.compile(r"www\.[a-z]|://|@")


def kinds(text: str) -> set[str]:
    """What a reader of Markdown makes of a text."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    found = [*tokens, *(child for token in tokens for child in token.children or ())]
    return {re.sub("_(open|close)$", "", token.type) for token in found}


def test_what_is_written_is_read() -> None:
    for text in (
        summary(portrait([tensor("w")], base=None)),
        summary(portrait([tensor("w|[x](y)<b>", moved=0.1, published=50)])),
        summary(portrait(llama(2, published=50))),
        "All 291 tensors of F8_E4M3 hold values of F16 or BF16, bit for bit.\n",
    ):
        assert parse(text.encode(), "summary.md") == text
        assert kinds(text) <= PLAIN


@pytest.mark.parametrize(
    "text",
    [
        *("", "The model", "# The model\n", "- a\n", "1. a\n", "    code\n", "a\n---\n"),
        *("a\n===\n", "*a*\n", "_a_\n", "a __b__\n", "`a`\n", "~~a~~\n", "> a\n", "a\\\n"),
        *("[a](b)\n", "![a](b)\n", "[a]: b\n", "<b>a</b>\n", "<!-- a -->\n", "&lt;\n"),
        *("http://a.b\n", "www.a.b\n", "a www.a.b\n", "a@b.c\n", "a\r\n", "a\tb\n"),
        *("a\x00\n", "a\u202eb\n", "a\u2028b\n", "\ufeffa\n"),
    ],
)
def test_markup_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text.encode(), "summary.md")
    assert str(caught.value) == REFUSAL


def test_what_is_no_utf8_is_refused() -> None:
    with pytest.raises(FormatError) as caught:
        parse(b"a\xff\n", "summary.md")
    assert str(caught.value) == REFUSAL


def read(document: bytes) -> str:
    """What a card would take over, or why it does not."""
    try:
        return parse(document, "summary.md")
    except FormatError as error:
        return str(error)


@given(st.text("aA1 .,:;%'()|–-_wW*`[]<>!#&\\\"/@~=+\n", max_size=40))
def test_what_is_read_has_no_markup(text: str) -> None:
    found = read(text.encode())
    assert found in (text, REFUSAL)
    if found == text:
        assert kinds(text) <= PLAIN
        assert not HOSTS.search(text.lower())


@given(st.binary(max_size=40))
def test_anything_is_read_or_refused(document: bytes) -> None:
    assert read(document).encode() in (document, REFUSAL.encode())
