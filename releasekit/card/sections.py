"""A card's generated sections, and the maintainer's own text, kept apart.

    <!-- releasekit:begin NAME DIGEST -->
    …
    <!-- releasekit:end NAME -->

What stands outside such marks is the maintainer's, and stays where it is. So does a section
that was edited: the digest in its mark tells, being of the text as it was generated. Only
sections that nobody touched are made anew. Marks are comments, which no reader of Markdown
shows; ones that do not pair up are refused, since text could get lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from releasekit.digest import sha256_hex
from releasekit.errors import FormatError

_DIGITS: Final = 16
_MARK: Final = re.compile(
    r"^<!-- releasekit:(?P<kind>begin|end) (?P<name>[a-z][a-z0-9-]*)"
    r"(?: (?P<digest>[0-9a-f]{16}))? -->[ \t]*\r?$\n?",
    re.MULTILINE,
)
_ANY_MARK: Final = re.compile(r"<!--\s*releasekit:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a card's body.

    Attributes:
        name: of the section; None for the maintainer's own text.
        text: what is in it, without marks.
        edited: whether a section is not as it was generated.
        digest: in a section's mark; empty if it has none.
    """

    name: str | None
    text: str
    edited: bool = False
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A card's body, made anew.

    Attributes:
        text: the body.
        kept: sections that were edited by hand, and stay as they are.
    """

    text: str
    kept: tuple[str, ...]


def parse(body: str, subject: str) -> list[Piece]:
    """The parts of a body, in order.

    Raises:
        FormatError: if marks do not pair up, or a section stands twice.
    """
    pieces: list[Piece] = []
    seen: set[str] = set()
    start, begun = 0, None
    for mark in _MARK.finditer(body):
        line = body.count("\n", 0, mark.start()) + 1
        name = mark["name"]
        if mark["kind"] == "begin":
            if begun is not None:
                raise _fault(subject, line, f"section {name} begins inside {begun['name']}")
            if name in seen:
                raise _fault(subject, line, f"section {name} stands twice")
            seen.add(name)
            before = body.count("\n", 0, start) + 1
            _keep(pieces, body[start : mark.start()], subject, before)
            begun = mark
        else:
            if begun is None or begun["name"] != name:
                raise _fault(subject, line, f"section {name} ends, and did not begin")
            text = body[start : mark.start()]
            digest = begun["digest"] or ""
            edited = digest != _digest(text)
            pieces.append(Piece(name=name, text=text, edited=edited, digest=digest))
            begun = None
        start = mark.end()
    if begun is not None:
        line = body.count("\n", 0, begun.start()) + 1
        raise _fault(subject, line, f"section {begun['name']} has no end")
    _keep(pieces, body[start:], subject, body.count("\n", 0, start) + 1)
    return pieces


def count(body: str) -> int:
    """How many marks there are."""
    return len(_MARK.findall(body))


def merge(
    old: Sequence[Piece], sections: Mapping[str, str], *, force: bool = False
) -> Merged:
    """A body with new sections, and all that is the maintainer's.

    A section that is new comes after the one that goes before it in `sections`. One that is
    no longer generated goes, unless it was edited.

    Args:
        old: the body as it was.
        sections: the text of each by its name, in order; empty ones are left out.
        force: make sections anew even if they were edited.
    """
    wanted = {name: text for name, text in sections.items() if text.strip()}
    kept = [piece.name for piece in old if piece.edited and piece.name and not force]
    present = {piece.name for piece in old if piece.name in wanted or piece.name in kept}
    parts: list[tuple[str | None, str]] = []
    for piece in old:
        if piece.name is None:
            parts.append((None, piece.text))
        elif piece.name in kept:
            # With the digest that it had: if the edit is undone, it is none any more.
            digest = piece.digest or "0" * _DIGITS
            parts.append((piece.name, _wrap(piece.name, piece.text, digest)))
        elif piece.name in wanted:
            parts.append((piece.name, _wrap(piece.name, wanted[piece.name])))
    order = list(wanted)
    for index, name in enumerate(order):
        if name in present:
            continue
        before = set(order[:index])
        places = [i for i, (other, _) in enumerate(parts) if other in before]
        # Before all others if none goes before; own text that opens a card stays on top.
        first = next((i for i, (other, _) in enumerate(parts) if other), len(parts))
        place = places[-1] + 1 if places else first
        parts.insert(place, (name, _wrap(name, wanted[name])))
    texts = (text.strip("\n") for _, text in parts)
    return Merged(text="\n\n".join(filter(None, texts)) + "\n", kept=tuple(kept))


def _wrap(name: str, text: str, digest: str | None = None) -> str:
    inner = text if digest else text.strip("\n") + "\n"
    begin = f"<!-- releasekit:begin {name} {digest or _digest(inner)} -->"
    return f"{begin}\n{inner}<!-- releasekit:end {name} -->"


def _digest(text: str) -> str:
    # However an editor ends lines, and what it leaves at their ends, is no edit.
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return sha256_hex("\n".join(lines).strip("\n").encode())[:_DIGITS]


def _keep(pieces: list[Piece], text: str, subject: str, line: int) -> None:
    """Keep own text, in which no mark may hide, from `line` on."""
    if (found := _ANY_MARK.search(text)) is not None:
        line += text.count("\n", 0, found.start())
        raise _fault(
            subject, line, "expected marks such as <!-- releasekit:begin NAME DIGEST -->"
        )
    if text.strip():
        pieces.append(Piece(name=None, text=text))


def _fault(subject: str, line: int, what: str) -> FormatError:
    return FormatError(
        f"{subject}: near line {line} of the body: {what}; mend the marks, or remove them "
        "to make the section your own"
    )
