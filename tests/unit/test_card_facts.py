"""Facts from TOML: what is kept, what is refused and in which words, what is missing."""

from pathlib import Path

import pytest

from releasekit.card.facts import NO_FACTS, Facts, Link, parse
from releasekit.errors import FormatError

CARDS = Path(__file__).parent.parent / "cards"


def facts(text: str) -> Facts:
    return parse(text.encode(), "card.toml")


def refusal(text: str) -> str:
    with pytest.raises(FormatError) as caught:
        facts(text)
    return str(caught.value)


def test_nothing_said_is_nothing_known() -> None:
    assert facts("") == facts("[card]\n[base]\n") == NO_FACTS == Facts()


def test_every_field_has_its_place() -> None:
    found = facts(
        """
        [card]
        title = "Größe |"
        summary = '''

        two
        lines
        '''
        developers = ["A", "B"]
        languages = ["en", "zh-Hant", "code"]
        tags = ["orca"]
        datasets = ["squad", "org/data"]
        pipeline_tag = "text-generation"
        library_name = "transformers"
        repo = "org/name"
        usage = "Load it."
        contact = "<mail@example.org>"
        new_version = "org/next"
        links = [{ title = "Paper", url = "https://example.org/a?b" }, { url = "http://x" }]

        [base]
        id = "org/base"
        name = "Base"
        relation = "merge"
        where = "There."

        [prompt]
        format = "{x}"
        system = "You are."
        tokenizer = "Its own."
        notes = "None."

        [training]
        data = "Data."
        decontamination = "Done."
        procedure = "SFT."
        hardware = "8 of them."
        sources = [{ Name = "a", Rows = 1 }, { Name = "b", Rows = 2.5 }]
        phases = [{ LR = "1e-5" }]

        [limits]
        text = "Some."

        [signing]
        published_at = "https://example.org/key"

        [citation]
        bibtex = "@misc{x}"
        text = "Cite."

        [licenses]
        license = "mit"
        bases = ["llama-2"]
        rebuilt = "llama-2"
        files = ["mit=LICENSE"]
        folders = ["records"]
        teachers = ["gpt-4"]

        [evaluations]
        model = ["a.json"]
        base = ["b.json"]
        model_name = "org/m"
        base_name = "org/b"
        """.replace("\n        ", "\n")
    )
    assert found == Facts(
        title="Größe |",
        summary="two\nlines",
        developers=("A", "B"),
        languages=("en", "zh-Hant", "code"),
        tags=("orca",),
        datasets=("squad", "org/data"),
        pipeline_tag="text-generation",
        library_name="transformers",
        repo="org/name",
        usage="Load it.",
        contact="<mail@example.org>",
        new_version="org/next",
        links=(
            Link(title="Paper", url="https://example.org/a?b"),
            Link(title="http://x", url="http://x"),
        ),
        base_id="org/base",
        base_name="Base",
        base_relation="merge",
        base_where="There.",
        prompt_format="{x}",
        prompt_system="You are.",
        prompt_tokenizer="Its own.",
        prompt_notes="None.",
        data="Data.",
        decontamination="Done.",
        procedure="SFT.",
        hardware="8 of them.",
        sources=({"Name": "a", "Rows": "1"}, {"Name": "b", "Rows": "2.5"}),
        phases=({"LR": "1e-5"},),
        limits="Some.",
        key_published_at="https://example.org/key",
        citation="Cite.",
        bibtex="@misc{x}",
        license="mit",
        license_bases=("llama-2",),
        license_rebuilt="llama-2",
        license_files=("mit=LICENSE",),
        license_folders=("records",),
        teachers=("gpt-4",),
        results=("a.json",),
        base_results=("b.json",),
        results_name="org/m",
        base_results_name="org/b",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[card", "not valid TOML: Expected ']' at the end of a table declaration"),
        ("card = 1", "card: expected an object, found 1"),
        ("[cards]", 'unknown field "cards"'),
        ("[card]\nx = 1", 'card: unknown field "x"'),
        ("[card]\ntitle = 1", "card.title: expected a string, found 1"),
        ('[card]\ntitle = ""', 'card.title: expected a line of text, found ""'),
        (
            '[card]\ntitle = "a\\nb"',
            'card.title: expected a line of text, found "a\\nb"',
        ),
        (
            '[card]\nsummary = " \\n"',
            'card.summary: expected some text; leave it out if there is none, found " \\n"',
        ),
        (
            '[card]\ndevelopers = "A"',
            'card.developers: expected an array, found "A"',
        ),
        (
            '[card]\ndevelopers = ["A", 2]',
            "card.developers[1]: expected a string, found 2",
        ),
        (
            '[card]\ntags = ["a\\tb"]',
            "card.tags: expected lines of text, found an array of 1",
        ),
        (
            '[card]\nlanguages = ["English"]',
            "card.languages: expected an array of codes such as en or de, found an array "
            "of 1",
        ),
        (
            '[card]\ndatasets = ["a/b/c"]',
            "card.datasets: expected an array of ids such as org/name, found an array of 1",
        ),
        (
            '[card]\nrepo = "a b"',
            'card.repo: expected the release\'s id on the Hub, org/name, found "a b"',
        ),
        (
            '[card]\nnew_version = "--help"',
            'card.new_version: expected an id such as org/name, found "--help"',
        ),
        (
            '[card]\nlinks = [{ url = "javascript:x" }]',
            'card.links[0].url: expected https://…, found "javascript:x"',
        ),
        ("[card]\nlinks = [{}]", 'card.links[0]: missing field "url"'),
        (
            '[card]\nlinks = [{ url = "http://x", to = 1 }]',
            'card.links[0]: unknown field "to"',
        ),
        (
            '[base]\nid = "../up"',
            'base.id: expected the base\'s id on the Hub, org/name, found "../up"',
        ),
        (
            '[base]\nrelation = "delta"',
            'base.relation: expected one of "adapter", "finetune", "merge", "quantized", '
            'found "delta"',
        ),
        (
            '[signing]\npublished_at = "here"',
            'signing.published_at: expected https://…, found "here"',
        ),
        (
            '[training]\nphases = [{ A = "1" }, { B = "2" }]',
            "training.phases: expected the columns A in each, found an array of 2",
        ),
        (
            "[training]\nphases = [{ A = true }]",
            "training.phases[0].A: expected a string or a number, found true",
        ),
        (
            '[training]\nsources = [{ "a b" = [] }]',
            'training.sources[0]["a b"]: expected a string or a number, found an array of '
            "0",
        ),
        ("[limits]\ntext = nan", "limits.text: expected a finite number, found nan"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(text: str, words: str) -> None:
    message = refusal(text)
    if "not valid TOML" in words:
        assert message.startswith(f"card.toml: {words}")
    else:
        assert message == f"card.toml: {words}"


def test_facts_that_a_card_must_state_are_listed_by_their_paths() -> None:
    assert NO_FACTS.missing(derived=True, delta=False) == (
        "card.summary",
        "card.description",
        "card.developers",
        "card.languages",
        "card.usage",
        "base.id",
        "prompt.format",
        "training.data",
        "training.decontamination",
        "training.procedure",
        "limits.text",
    )
    assert "base.id" not in NO_FACTS.missing(derived=False, delta=False)
    assert "card.usage" not in NO_FACTS.missing(derived=True, delta=True)


def test_phases_tell_the_procedure_as_well() -> None:
    found = facts('[training]\nphases = [{ LR = "1e-5" }]')
    assert "training.procedure" not in found.missing(derived=False, delta=True)


@pytest.mark.parametrize(("name", "delta"), [("freewilly1", True), ("freewilly2", False)])
def test_the_facts_of_freewilly_lack_nothing(name: str, delta: bool) -> None:
    document = (CARDS / f"{name}.toml").read_bytes()
    assert parse(document, name).missing(derived=True, delta=delta) == ()


def test_windows_writes_the_same_facts() -> None:
    document = (CARDS / "freewilly1.toml").read_bytes()
    windows = b"\xef\xbb\xbf" + document.replace(b"\n", b"\r\n")
    assert parse(windows, "x") == parse(document, "x")
