"""Whether a card is what the Hub takes and its readers can use, without asking the Hub.

The Hub's own check, which `hub.cards.validate_online` asks for, knows more, but nothing of
the files beside the card. Both are worth having.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from releasekit.card import sections
from releasekit.card.facts import HUB_ID, LANGUAGE, RELATIONS
from releasekit.card.view import UNSIGNED
from releasekit.errors import FormatError
from releasekit.findings import Rule, RuleFinding, Severity
from releasekit.hub.cards import check_index, split
from releasekit.licenses.records import OTHER
from releasekit.manifest import SIGNATURE
from releasekit.names import listed, shown

_FIELD_TYPES: Final = ("text", "checkbox", "date_picker", "country", "select")
_HTML_LINK: Final = re.compile(
    r"""\b(src|srcset|href)\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE
)
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_PLACEHOLDER: Final = re.compile(
    r"(?i:\[more information needed\])|\bTODO\b|\bFIXME\b"  # "todo" is Spanish
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A card to check.

    Attributes:
        subject: its path, for messages.
        data: its metadata.
        body: its text.
        tokens: the same, parsed.
        files: paths of the files beside it.
        hub_licenses: the ids that the Hub's `license` field takes.
    """

    subject: str
    data: Mapping[str, Any]
    body: str
    tokens: Sequence[Token]
    files: Collection[str]
    hub_licenses: Collection[str]


_Found = Iterator[tuple[str, str]]  # why, and what to do


def check(
    document: bytes, subject: str, files: Collection[str], hub_licenses: Collection[str]
) -> tuple[RuleFinding, ...]:
    """All that is wrong with a card; errors first.

    Args:
        document: the card.
        subject: its path, for messages.
        files: paths of the files beside it, itself included.
        hub_licenses: the ids that the Hub's `license` field takes.
    """
    try:
        data, body = split(document, subject)
    except FormatError as error:
        rule = next(rule for rule in RULES if rule.id == "card-yaml")
        return (RuleFinding(rule=rule, why=str(error), todo="mend README.md"),)
    page = Page(
        subject=subject,
        data=data,
        body=body,
        tokens=MarkdownIt("commonmark").enable("table").parse(body),
        files=files,
        hub_licenses=hub_licenses,
    )
    findings = [
        RuleFinding(rule=rule, why=why, todo=todo)
        for rule, find in RULES.items()
        for why, todo in dict.fromkeys(find(page))
    ]
    return tuple(sorted(findings, key=lambda found: not found.is_error))


def _yaml(page: Page) -> _Found:
    if not page.data:
        yield "there are no metadata", "write the card with `releasekit card`"


def _license(page: Page) -> _Found:
    found = page.data.get("license")
    if found is None:
        yield "license: is missing", "name it; make-delta --license does"
    elif not isinstance(found, str) or found not in page.hub_licenses:
        close = difflib.get_close_matches(str(found).lower(), page.hub_licenses, 3)
        hint = f"did you mean {listed(close)}? " if close else ""
        yield (
            f"license: {shown(str(found))} is none of the Hub's ids",
            f"{hint}use {OTHER} with license_name and license_link for others",
        )


def _other(page: Page) -> _Found:
    if page.data.get("license") != OTHER:
        return
    for key in ("license_name", "license_link"):
        if not isinstance(page.data.get(key), str) or not page.data[key].strip():
            yield f"license: {OTHER} without {key}", f"add {key}"
    link = page.data.get("license_link")
    if isinstance(link, str) and _is_missing(link, page.files):
        yield f"license_link: {shown(link)} is not there", "add the file, or correct it"


def _relation(page: Page) -> _Found:
    relation, base = page.data.get("base_model_relation"), page.data.get("base_model")
    if relation is not None and relation not in RELATIONS:
        yield (
            f"base_model_relation: {shown(str(relation))} is none of the Hub's",
            f"use one of {', '.join(RELATIONS)}; a delta is a finetune",
        )
    if relation is not None and not base:
        yield "base_model_relation without base_model", "name the base"
    for name in base if isinstance(base, list) else [base] * (base is not None):
        if not isinstance(name, str) or not HUB_ID.fullmatch(name):
            yield (
                f"base_model: {shown(str(name))} is no id on the Hub",
                "use org/name, as the base's page is called",
            )


def _index(page: Page) -> _Found:
    if "model-index" in page.data and (wrong := check_index(page.data)):
        yield (
            f"model-index: huggingface_hub cannot read it: {wrong}",
            "write the card again with `releasekit card`",
        )


def _ids(page: Page) -> _Found:
    for key, pattern, expected in (
        ("language", LANGUAGE, "codes such as en"),
        ("datasets", HUB_ID, "ids such as org/name"),
    ):
        value = page.data.get(key)
        for name in value if isinstance(value, list) else [value] * (value is not None):
            if not isinstance(name, str) or not pattern.fullmatch(name):
                # In YAML, an unquoted "no" is false, and so Norwegian is.
                yield f"{key}: {shown(str(name))}", f"expected {expected}, in quotes"


def _gate(page: Page) -> _Found:
    fields = page.data.get("extra_gated_fields")
    if fields is None:
        return
    if not isinstance(fields, dict):
        yield "extra_gated_fields: is no mapping", "give a type to each field's name"
        return
    for name, kind in fields.items():
        found = kind.get("type") if isinstance(kind, dict) else kind
        if found not in _FIELD_TYPES:
            yield (
                f"extra_gated_fields: {shown(str(name))} has the type {shown(str(found))}",
                f"use one of {', '.join(_FIELD_TYPES)}",
            )


def _links(page: Page) -> _Found:
    for link in dict.fromkeys(_all_links(page.tokens)):
        if _is_missing(link, page.files):
            yield f"the link {shown(link)} leads to no file", "correct it, or add the file"


def _marks(page: Page) -> _Found:
    try:
        sections.parse(page.body, page.subject)
    except FormatError as error:
        yield str(error), "then `releasekit card` can renew what it wrote"
        return
    blocks = "".join(
        token.content
        for token in page.tokens
        if token.type == "html_block" and token.content.startswith("<!-- releasekit:")
    )
    if sections.count(blocks) < sections.count(page.body):
        yield (
            "a block of code, or of HTML, does not end before the section that it is in",
            "end it, in the facts or templates that it is from",
        )


def _signed(page: Page) -> _Found:
    if SIGNATURE in page.files and UNSIGNED in page.body:
        yield (
            f"the card says that the release is not signed, and there is a {SIGNATURE}",
            "write it again with `releasekit card --sign-key`",
        )


def _placeholders(page: Page) -> _Found:
    for found in dict.fromkeys(match[0] for match in _PLACEHOLDER.finditer(page.body)):
        yield f"{shown(found)} stands in the text", "write what is missing"


def _library(page: Page) -> _Found:
    if not page.data.get("library_name"):
        yield (
            "library_name: is missing, so the Hub guesses what loads the model",
            "name it, e.g. transformers",
        )


def refused(why: str) -> RuleFinding:
    """What the Hub itself says is wrong."""
    return RuleFinding(rule=_REFUSED, why=why, todo="mend README.md")


def odd(why: str) -> RuleFinding:
    """What is odd about the figures that a card shows."""
    return RuleFinding(rule=_ODD, why=why.rstrip("."), todo="look at the result files")


def _rule(rule_id: str, severity: Severity, title: str) -> Rule:
    return Rule(id=rule_id, severity=severity, title=title)


_REFUSED: Final = _rule("card-refused", Severity.ERROR, "the Hub refuses the card")
_ODD: Final = _rule("card-figures", Severity.WARNING, "figures that are odd")
#: Every rule for cards, in the order in which they are checked.
RULES: Final[Mapping[Rule, Callable[[Page], _Found]]] = {
    _rule("card-yaml", Severity.ERROR, "metadata that cannot be read"): _yaml,
    _rule("card-license-id", Severity.ERROR, "a licence that the Hub has no id of"): (
        _license
    ),
    _rule("card-license-other", Severity.ERROR, "another licence without name or link"): (
        _other
    ),
    _rule("card-relation", Severity.ERROR, "a base, or relation, that is none"): _relation,
    _rule("card-index", Severity.ERROR, "a model-index that cannot be read"): _index,
    _rule("card-ids", Severity.ERROR, "languages or data sets that are none"): _ids,
    _rule("card-gate", Severity.ERROR, "fields to ask for that the Hub has not"): _gate,
    _rule("card-links", Severity.ERROR, "links to files that are not there"): _links,
    _rule("card-marks", Severity.ERROR, "marks of sections that do not pair up"): _marks,
    _rule("card-signed", Severity.ERROR, "the card denies the signature"): _signed,
    _rule("card-placeholders", Severity.WARNING, "text that was to be replaced"): (
        _placeholders
    ),
    _rule("card-library", Severity.WARNING, "no library_name"): _library,
}


def _all_links(tokens: Sequence[Token]) -> Iterator[str]:
    """What a body links to, or shows: in Markdown, and in HTML within it."""
    for token in tokens:
        for part in (token, *(token.children or ())):
            if part.type in ("html_block", "html_inline"):
                shown_html = _COMMENT.sub("", part.content)
                for name, double, single in _HTML_LINK.findall(shown_html):
                    value = unescape(double or single)
                    if name.lower() != "srcset":
                        yield value
                        continue
                    # It lists several, each with a size after it.
                    items = (item.split() for item in value.split(", "))
                    yield from (words[0] for words in items if words)
            for key in ("href", "src"):
                if isinstance(link := part.attrs.get(key), str):
                    yield link


def _is_missing(link: str, files: Collection[str]) -> bool:
    """Whether a link leads to a file beside the card that is not there."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return True
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return False  # elsewhere, on the Hub, or within the card
    path = posixpath.normpath(unquote(parts.path).lstrip("/"))
    return (
        path != "."
        and path not in files
        and not any(name.startswith(f"{path}/") for name in files)
    )
