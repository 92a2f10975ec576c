"""Templates: ours, a maintainer's own, and the filters that keep text in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from releasekit.card.facts import NO_FACTS, Facts
from releasekit.card.pages import (
    SECTIONS,
    SUFFIX,
    TEMPLATES,
    attribute,
    cell,
    count,
    fenced,
    render,
    size,
    table,
)
from releasekit.card.view import NOT_STATED, ModelView, Subject, view
from releasekit.errors import FormatError, UsageError
from releasekit.licenses.records import Catalogue
from releasekit.tensors import DType, TensorSpec

MODEL = ModelView(nbytes=1_310_000_000, parameters=65_300_000_000, dtypes="BF16")
SUBJECT = Subject(
    name="My model",
    weights=MODEL,
    chain=None,
    comparison=None,
    chart=None,
    sources=(),
    fingerprint=None,
    sums=False,
)


def pages(facts: Facts = NO_FACTS, folder: Path | None = None) -> dict[str, str]:
    return render(view(SUBJECT, facts, Catalogue(())), folder)


def templates(tmp_path: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (tmp_path / f"{name}{SUFFIX}").write_text(text)
    return tmp_path


def kinds(markdown: str) -> list[str]:
    parser = MarkdownIt("commonmark").enable("table")
    return [token.type for token in parser.parse(markdown)]


def test_each_section_has_a_template() -> None:
    found = {path.name.removesuffix(SUFFIX) for path in TEMPLATES.iterdir()}
    assert found == set(SECTIONS)


def test_what_nobody_stated_is_said_not_to_be() -> None:
    found = pages()
    assert list(found) == list(SECTIONS)
    assert found["title"] == f"# My model\n\n{NOT_STATED}"
    for name in ("model", "prompt", "training", "evaluations", "limits", "license"):
        assert NOT_STATED in found[name]
    assert found["base"] == found["citation"] == ""
    assert "1.31 GB" in found["model"]
    assert "65.3 billion, BF16" in found["model"]


def test_the_maintainers_words_stand_in_the_sections() -> None:
    found = pages(
        Facts(
            title="T | t",
            developers=("A|B", "C"),
            contact="mail\n| me",
            prompt_format="```\nhi\n```",
            prompt_tokenizer="Its own.",
            bibtex="@misc{x,\n}",
            phases=({"L|R": "1|2"}, {"L|R": "b\nc"}),
            datasets=("org/data",),
        )
    )
    assert found["title"].startswith("# T | t\n")
    assert "| Developed by | A\\|B, C |" in found["model"]
    assert "| Contact | mail \\| me |" in found["model"]
    assert found["prompt"] == (
        "## Prompt format\n\n````text\n```\nhi\n```\n````\n\n**Tokenizer.** Its own."
    )
    assert "| L\\|R |\n| --- |\n| 1\\|2 |\n| b c |" in found["training"]
    assert "- [org/data](https://huggingface.co/datasets/org/data)" in found["training"]
    assert found["citation"] == "## Citation\n\n```bibtex\n@misc{x,\n}\n```"


def test_an_own_template_stands_in_for_ours(tmp_path: Path) -> None:
    found = pages(folder=templates(tmp_path, limits="Ask {{ name }}.\n"))
    assert found["limits"] == "Ask My model."
    assert {**found, "limits": ""} == {**pages(), "limits": ""}
    assert list(found) == list(SECTIONS)


def test_an_empty_template_leaves_its_section_out(tmp_path: Path) -> None:
    assert pages(folder=templates(tmp_path, limits=""))["limits"] == ""


def test_further_templates_come_after_ours_by_name(tmp_path: Path) -> None:
    folder = templates(tmp_path, zoo="Z", **{"a-b": "A"}, model="M")
    found = pages(folder=folder)
    assert list(found) == [*SECTIONS, "a-b", "zoo"]
    assert (found["a-b"], found["zoo"], found["model"]) == ("A", "Z", "M")


def test_a_template_may_include_one_of_ours(tmp_path: Path) -> None:
    folder = templates(tmp_path, extra="{% include 'limits.md.j2' %}\n\nMore.")
    found = pages(folder=folder)
    assert found["extra"] == f"{found['limits']}\nMore."


def test_values_are_data_not_templates() -> None:
    assert pages(Facts(limits="{{ 7 * 7 }} {% if %}"))["limits"] == (
        "## Limits\n\n{{ 7 * 7 }} {% if %}"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ facts.nothing }}", "'releasekit.card.facts.Facts object' has no attribute"),
        ("a\n{% if %}", "line 2: Expected an expression, got 'end of statement block'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ facts | no }}", "line 1: No filter named 'no'."),
        ("{% include 'gone' %}", "gone"),
        ("{% include '../../pyproject.toml' %}", "../../pyproject.toml"),
        (
            "{{ ''.__class__ }}",
            "access to attribute '__class__' of 'str' object is unsafe.",
        ),
        ("{{ facts.developers + 1 }}", 'can only concatenate tuple (not "int") to tuple'),
        ("{{ range(10 ** 9) }}", "Range too big. The sandbox blocks ranges larger than"),
    ],
)
def test_a_template_that_fails_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        pages(folder=templates(tmp_path, extra=text))
    found = str(caught.value)
    assert found.replace(", line", ": line").startswith(f"template extra.md.j2: {words}")


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"extra{SUFFIX}").write_bytes(b"ab\xff")
    with pytest.raises(FormatError, match=r"^template extra\.md\.j2: not UTF-8 at byte 2$"):
        pages(folder=tmp_path)


def test_a_template_cannot_change_what_others_see(tmp_path: Path) -> None:
    folder = templates(tmp_path, extra="{{ sources.append(1) }}")
    with pytest.raises(FormatError, match=r"^template extra\.md\.j2: access to attribute"):
        pages(folder=folder)


@pytest.mark.parametrize("name", ["My-Part", "a_b", "1st", "a.b", ""])
def test_a_section_has_a_plain_name(tmp_path: Path, name: str) -> None:
    folder = templates(tmp_path, **{name: "x"})
    with pytest.raises(UsageError) as caught:
        pages(folder=folder)
    assert str(caught.value) == (
        f"{folder / (name + SUFFIX)}: expected a name of lower-case letters, digits and "
        "hyphens"
    )


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_templates_is_refused(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "templates"
    if made:
        folder.mkdir()
        (folder / "title.md").write_text("x")
    with pytest.raises(UsageError) as caught:
        pages(folder=folder)
    assert str(caught.value).startswith(
        f"{folder}: holds no templates; expected some of title.md.j2, model.md.j2, "
    )


def test_a_cell_stays_on_its_line_and_in_its_place() -> None:
    assert cell(" a\n b\t|c\\d ") == "a b \\|c\\\\d"
    rows = [{"a|b": "1\n2", "c": "\\|"}, {"a|b": "", "c": "<b>"}]
    assert table(rows) == ("| a\\|b | c |\n| --- | --- |\n| 1 2 | \\\\\\| |\n|  | <b> |")
    assert kinds(table(rows)).count("td_open") == 4


def test_an_attribute_ends_where_it_should() -> None:
    assert attribute("\"a\" <b> & 'c'") == "&quot;a&quot; &lt;b&gt; &amp; 'c'"


@pytest.mark.parametrize("text", ["", "a", "```", "````\na\n```", "~~~\n", "`a`", "``"])
def test_a_block_of_code_ends_where_it_should(text: str) -> None:
    assert kinds(f"{fenced(text)}\n\nafter") == [
        *("fence", "paragraph_open", "inline", "paragraph_close")
    ]


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (137_957_400_000, "138 GB"),
        (10**15, "1e+03 TB"),
    ],
)
def test_sizes_are_in_powers_of_1000(nbytes: int, words: str) -> None:
    assert size(nbytes) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (14_400, "14.4 thousand"), (65_285_660_672, "65.3 billion")],
)
def test_numbers_of_parameters_are_in_words(number: int, words: str) -> None:
    assert count(number) == words


def test_weights_tell_their_size_and_dtypes() -> None:
    specs = [
        TensorSpec(name="a", dtype=DType.F32, shape=(2, 3)),
        TensorSpec(name="b", dtype=DType.BF16, shape=(10,)),
        TensorSpec(name="c", dtype=DType.F32, shape=()),
    ]
    assert ModelView.of(specs) == ModelView(nbytes=48, parameters=17, dtypes="BF16 and F32")
    assert ModelView.of([]) == ModelView(nbytes=0, parameters=0, dtypes="none")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("FreeWilly1", "FreeWilly1"),
        ("my model (v2)", "my-model-v2"),
        ("a; rm -rf ~", "a-rm--rf"),
        ("--out", "out"),
        ("重み", "model"),
    ],
)
def test_a_name_is_safe_in_a_command(name: str, argument: str) -> None:
    subject = Subject(
        name=name,
        weights=MODEL,
        chain=None,
        comparison=None,
        chart=None,
        sources=(),
        fingerprint=None,
        sums=False,
    )
    assert view(subject, NO_FACTS, Catalogue(()))["out_argument"] == argument
