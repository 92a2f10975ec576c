"""Cards: what is merged is parsed again, what is joined is split again, facts are kept."""

from __future__ import annotations

import json
from typing import Any

from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from releasekit.card.facts import Facts, parse
from releasekit.card.metadata import blend
from releasekit.card.pages import cell, fenced, table
from releasekit.card.sections import Piece, merge
from releasekit.card.sections import parse as parse_sections
from releasekit.hub.cards import dump_yaml, join, load_yaml, split

names = st.sampled_from(["title", "model", "limits", "a-b", "z9"])
# What own text is made of: lines, with what looks like marks or metadata among them.
lines = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        *(
            "",
            " ",
            "---",
            "```",
            "# H",
            "<!-- x -->",
            "releasekit:begin a",
            "a\r",
            "    b",
            "\x0c",
        )
    ]
)
texts = st.lists(lines, max_size=5).map("\n".join)
sections = st.dictionaries(names, texts, max_size=5)
words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | words | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
#: What huggingface_hub takes for its own, and gives back in another form.
OWN = {
    *("base_model", "datasets", "eval_results", "language", "library_name", "license"),
    *("license_name", "license_link", "metrics", "model_name", "model-index", "tags"),
    *("pipeline_tag", "ignore_metadata_errors", "self"),
}
metadata = st.dictionaries(
    words.filter(lambda key: key not in OWN),
    values.filter(lambda v: v is not None),
    max_size=4,
)


def markless(text: str) -> bool:
    return "<!-- releasekit:" not in text


@given(old=st.lists(st.tuples(names, texts, st.booleans()), max_size=4), new=sections)
def test_what_is_merged_is_parsed_again(
    old: list[tuple[str, str, bool]], new: dict[str, str]
) -> None:
    # Own text between generated sections, some of them edited.
    unique = {name: (text, edited) for name, text, edited in old}
    first = merge([], {name: text for name, (text, _) in unique.items()}).text
    body = ""
    for number, piece in enumerate(parse_sections(first, "x")):
        body += f"own {number}\n\n{merge([piece], {str(piece.name): piece.text}).text}\n"
        if piece.name is not None and unique[piece.name][1]:
            body = body.replace(
                f"<!-- releasekit:end {piece.name} -->",
                f"edited\n<!-- releasekit:end {piece.name} -->",
            )
    pieces = parse_sections(body, "x")
    own = "\n\n".join(p.text.strip("\n") for p in pieces if p.name is None)
    edited = {piece.name: piece.text for piece in pieces if piece.edited}
    merged = merge(pieces, new)
    assert merged.kept == tuple(edited)
    again = parse_sections(merged.text, "x")
    # Where a section goes, the texts around it become one.
    assert "\n\n".join(p.text.strip("\n") for p in again if p.name is None) == own
    found = {piece.name: piece for piece in again if piece.name is not None}
    wanted = {name for name, text in new.items() if text.strip()}
    assert found.keys() == wanted | edited.keys()
    for name, piece in found.items():
        if name in edited:
            assert (piece.text, piece.edited) == (edited[name], True)
        else:
            assert (piece.text, piece.edited) == (new[name].strip("\n") + "\n", False)
    # And it is settled.
    assert merge(again, new) == merged


@given(body=texts.filter(markless), new=sections)
def test_own_text_of_any_kind_is_kept(body: str, new: dict[str, str]) -> None:
    pieces = parse_sections(body, "x")
    assert pieces == ([Piece(name=None, text=body)] if body.strip() else [])
    merged = merge(pieces, new).text
    kept = [piece.text for piece in parse_sections(merged, "x") if piece.name is None]
    assert [text.strip("\n") for text in kept] == [body.strip("\n")] * bool(body.strip())
    assert merge(parse_sections(merged, "x"), new).text == merged


@given(data=metadata, body=texts)
def test_what_is_joined_is_split_again(data: dict[str, Any], body: str) -> None:
    document = join(data, [], "M", body, "README.md")
    found, text = split(document, "README.md")
    assert found == data
    assert text.strip() == body.strip()
    assert ModelCard(document.decode()).data.to_dict() == data
    assert join(found, [], "M", text, "README.md") == document


@given(value=values)
def test_what_is_dumped_is_loaded_again(value: object) -> None:
    assert load_yaml(dump_yaml(value).decode(), "x") == value


@given(old=metadata, new=metadata, tags=st.lists(words), more=st.lists(words, min_size=1))
def test_metadata_blend_into_what_was_there(
    old: dict[str, Any], new: dict[str, Any], tags: list[str], more: list[str]
) -> None:
    first, second = {**old, "tags": tags}, {**new, "tags": more}
    found = blend(first, second)
    assert found.keys() == first.keys() | second.keys()
    assert found == {**old, **new, "tags": list(dict.fromkeys([*tags, *more]))}
    assert blend(found, second) == found


markdown = MarkdownIt("commonmark").enable("table")


@given(
    rows=st.lists(
        st.fixed_dictionaries({"A": texts, "B": words, "C": texts}), min_size=1, max_size=3
    )
)
def test_tables_keep_their_shape(rows: list[dict[str, str]]) -> None:
    tokens = markdown.parse(table(rows))
    counts = {kind: sum(t.type == kind for t in tokens) for kind in ("th_open", "td_open")}
    assert counts == {"th_open": 3, "td_open": 3 * len(rows)}
    assert tokens[-1].type == "table_close"


@given(text=texts)
def test_a_cell_is_one_line_and_says_the_same(text: str) -> None:
    found = cell(text)
    assert len(found.splitlines()) <= 1
    assert found.replace("\\|", "|").replace("\\\\", "\\") == " ".join(text.split())


@given(
    text=st.lists(
        st.sampled_from(["`", "```", "~~~", "a", "\n", "    ", "# b", "<!--"]), max_size=8
    ).map("".join)
)
def test_a_block_of_code_holds_any_code(text: str) -> None:
    first, *rest = markdown.parse(f"{fenced(text)}\n\nafter")
    assert first.type == "fence"
    assert first.content == f"{text}\n"
    assert [token.type for token in rest] == [
        *("paragraph_open", "inline", "paragraph_close")
    ]


@given(
    title=words,
    developers=st.lists(words, max_size=3),
    limits=st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20).filter(
        lambda text: bool(text.strip())
    ),
    columns=st.lists(words, min_size=1, max_size=3, unique=True),
    count=st.integers(0, 3),
)
def test_facts_are_what_was_written(
    title: str, developers: list[str], limits: str, columns: list[str], count: int
) -> None:
    # JSON's strings are TOML's, too.
    def quoted(text: object) -> str:
        return json.dumps(text, ensure_ascii=False)

    rows = [{name: f"{name}{row}" for name in columns} for row in range(count)]
    tables = [
        ", ".join(f"{quoted(name)} = {quoted(cell)}" for name, cell in row.items())
        for row in rows
    ]
    document = (
        f"card.title = {quoted(title)}\ncard.developers = {quoted(developers)}\n"
        f"limits.text = {quoted(limits)}\n"
        f"training.phases = [{', '.join(f'{{ {row} }}' for row in tables)}]\n"
    )
    assert parse(document.encode(), "x") == Facts(
        title=title,
        developers=tuple(developers),
        limits=limits.strip("\n"),
        phases=tuple(rows),
    )
