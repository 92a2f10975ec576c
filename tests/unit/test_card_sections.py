"""Sections of a card: told apart from own text, made anew, kept when edited."""

import pytest

from releasekit.card.sections import Merged, Piece, merge, parse
from releasekit.errors import FormatError

NEW = {"title": "# T", "model": "## M", "limits": "## L"}


def written(sections: dict[str, str], old: str = "") -> str:
    return merge(parse(old, "README.md"), sections).text


def names(body: str) -> list[str | None]:
    return [piece.name for piece in parse(body, "README.md")]


def section(body: str, name: str) -> str:
    return next(p.text for p in parse(body, "README.md") if p.name == name)


CARD = written(NEW)


def test_a_body_is_marked_sections_in_order() -> None:
    assert CARD == (
        "<!-- releasekit:begin title 4321893dc18b145a -->\n"
        "# T\n"
        "<!-- releasekit:end title -->\n"
        "\n"
        "<!-- releasekit:begin model 9e38a5ec5b396170 -->\n"
        "## M\n"
        "<!-- releasekit:end model -->\n"
        "\n"
        "<!-- releasekit:begin limits 57daf267ea1294c2 -->\n"
        "## L\n"
        "<!-- releasekit:end limits -->\n"
    )
    assert parse(CARD, "README.md") == [
        Piece(name="title", text="# T\n", digest="4321893dc18b145a"),
        Piece(name="model", text="## M\n", digest="9e38a5ec5b396170"),
        Piece(name="limits", text="## L\n", digest="57daf267ea1294c2"),
    ]


def test_empty_sections_are_left_out() -> None:
    assert names(written({"title": "# T", "model": " \n", "limits": ""})) == ["title"]


def test_the_same_sections_give_the_same_text() -> None:
    assert written(NEW, CARD) == CARD


def test_sections_change_where_they_stand() -> None:
    found = written({**NEW, "model": "## N"}, CARD)
    assert names(found) == ["title", "model", "limits"]
    assert section(found, "model") == "## N\n"


def test_own_text_stays_where_it_is() -> None:
    first, second, third = CARD.split("\n\n")
    own = "\n\n".join(["top", first, "mine\n\n\nand mine", second, third, "end"])
    for _ in range(2):
        own = written({**NEW, "limits": "## N"}, own)
        assert names(own) == [None, "title", None, "model", "limits", None]
    texts = [piece.text.strip("\n") for piece in parse(own, "x") if piece.name is None]
    assert texts == ["top", "mine\n\n\nand mine", "end"]


def test_own_text_of_a_card_without_sections_opens_it() -> None:
    assert names(written(NEW, "# Mine\n")) == [None, "title", "model", "limits"]


def test_a_new_section_comes_after_the_one_before_it() -> None:
    shown = {"title": "# T", "limits": "## L"}
    old = written(shown).replace("<!-- releasekit:begin limits", "own\n\n\\g")
    old = old.replace("\\g", "<!-- releasekit:begin limits")
    assert names(old) == ["title", None, "limits"]
    assert names(written(NEW, old)) == ["title", "model", None, "limits"]


def test_a_section_in_another_place_stays_there() -> None:
    first, second, third = CARD.rstrip("\n").split("\n\n")
    assert names(written(NEW, "\n\n".join([third, first, second]))) == [
        *("limits", "title", "model")
    ]


def test_a_section_that_is_generated_no_more_goes() -> None:
    assert names(written({"title": "# T"}, CARD)) == ["title"]


def test_an_edited_section_is_kept() -> None:
    old = CARD.replace("## M", "## My own")
    assert [piece.edited for piece in parse(old, "x")] == [False, True, False]
    for _ in range(2):
        merged = merge(parse(old, "x"), {**NEW, "model": "## N", "title": "# U"})
        assert merged.kept == ("model",)
        assert section(merged.text, "model") == "## My own\n"
        assert section(merged.text, "title") == "# U\n"
        old = merged.text
    # Once the edit is undone, the section is nobody's again.
    undone = parse(old.replace("## My own", "## M"), "x")
    assert [piece.edited for piece in undone] == [False, False, False]


def test_an_edited_section_is_kept_though_it_is_generated_no_more() -> None:
    merged = merge(parse(CARD.replace("## M", "## Mine"), "x"), {"title": "# T"})
    assert names(merged.text) == ["title", "model"]
    assert merged.kept == ("model",)


def test_force_makes_edited_sections_anew() -> None:
    old = parse(CARD.replace("## M", "## Mine"), "x")
    assert merge(old, NEW, force=True) == Merged(text=CARD, kept=())
    assert names(merge(old, {"title": "# T"}, force=True).text) == ["title"]


def test_a_section_without_a_digest_counts_as_edited() -> None:
    body = "<!-- releasekit:begin title -->\n# T\n<!-- releasekit:end title -->\n"
    assert parse(body, "x") == [Piece(name="title", text="# T\n", edited=True)]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("# T", "# T  \t"),
        lambda text: text.replace(" -->\n", " -->  \n"),
        lambda text: text.replace("# T\n", "\n# T\n\n\n"),
    ],
    ids=["line ends", "spaces", "spaces after marks", "blank lines"],
)
def test_what_editors_do_to_lines_is_no_edit(change: object) -> None:
    assert callable(change)
    pieces = parse(change(CARD), "x")
    assert [piece.name for piece in pieces] == ["title", "model", "limits"]
    assert not any(piece.edited for piece in pieces)
    assert written(NEW, change(CARD)) == CARD


def test_windows_own_text_is_settled_after_one_run() -> None:
    old = f"Mine\n\n{CARD}\nmine, too\n".replace("\n", "\r\n")
    once = written(NEW, old)
    assert written(NEW, once) == once
    assert [p.text.strip() for p in parse(once, "x") if p.name is None] == [
        *("Mine", "mine, too")
    ]


BEGIN, END = "<!-- releasekit:begin a 0123456789abcdef -->", "<!-- releasekit:end a -->"


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        (f"x\n{BEGIN}\n", 2, "section a has no end"),
        (f"{END}\n", 1, "section a ends, and did not begin"),
        (f"{BEGIN}\n{END}\n{END}\n", 3, "section a ends, and did not begin"),
        (f"{BEGIN}\n{END}\n\n{BEGIN}\n{END}\n", 4, "section a stands twice"),
        (f"{BEGIN}\n{BEGIN}\n{END}\n", 2, "section a begins inside a"),
        (
            f"{BEGIN}\n<!-- releasekit:end b -->\n",
            2,
            "section b ends, and did not begin",
        ),
    ],
)
def test_marks_that_do_not_pair_up_are_refused(body: str, line: int, what: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(body, "README.md")
    assert str(caught.value) == (
        f"README.md: near line {line} of the body: {what}; mend the marks, or remove them "
        "to make the section your own"
    )


@pytest.mark.parametrize(
    "body",
    [
        "a\n <!-- releasekit:begin a -->\n",
        "<!-- releasekit:begin A 0123456789abcdef -->\n",
        "<!--releasekit:end a-->\n",
        f"{BEGIN} more\n",
        f"{BEGIN}\n{END}\n`{BEGIN}`\n",
        "<!-- releasekit:begin a 0123 -->\n",
        "<!-- releasekit:begin a 0123456789ABCDEF -->\n",
    ],
)
def test_what_looks_like_a_mark_is_one_or_is_refused(body: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(body, "README.md")
    assert str(caught.value).startswith("README.md: near line ")
    assert str(caught.value).endswith(
        " of the body: expected marks such as <!-- releasekit:begin NAME DIGEST -->; mend "
        "the marks, or remove them to make the section your own"
    )


def test_a_section_becomes_own_text_without_its_marks() -> None:
    lines = [line for line in CARD.split("\n") if " model" not in line]
    found = written(NEW, "\n".join(lines))
    assert names(found) == ["title", "model", None, "limits"]
