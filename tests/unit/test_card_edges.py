"""Cards at their edges: what others wrote, what was stopped, what does not end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from releasekit import Licensing, PrivateKey, ReleaseKitError, UsageError, make_delta, sign
from releasekit.card import sections
from releasekit.card.checks import check
from releasekit.card.pages import fenced
from releasekit.hub import cards
from releasekit.presentation.writing import check_card, write_card
from tests.builders import model_folder

ROOT = Path(__file__).parent.parent
EVALS = ROOT / "evals" / "v0.4.13"
LEADERBOARD = ROOT / "cards" / "leaderboard.csv"
WEIGHTS = {"w": ("F32", [2, 3], bytes(24))}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = model_folder(tmp_path / "model", WEIGHTS)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def results(suite: str, name: str = "example-org__tiny-chat") -> Path:
    (found,) = (EVALS / suite / name).rglob("results*.json")
    return found


def write(folder: Path, facts: str | None = None, **options: Any) -> Any:
    if facts is not None:
        options["facts"] = folder.parent / "facts.toml"
        options["facts"].write_text(facts)
    return write_card(folder, **{"chart": False, **options})


def section(folder: Path, name: str) -> str:
    body = cards.split((folder / "README.md").read_bytes(), "x")[1]
    return next(p.text for p in sections.parse(body, "x") if p.name == name)


def refused_or_done(call: Callable[[], object]) -> None:
    with suppress(ReleaseKitError):
        call()


def test_a_base_without_licences_has_a_card(model: Path) -> None:
    write(model, '[base]\nid = "org/base"\n')
    assert "[org/base](https://huggingface.co/org/base)" in section(model, "base")


def test_a_delta_without_licences_has_a_card(model: Path, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", {"w": ("F32", [2, 3], bytes(range(24)))})
    make_delta(base, model, tmp_path / "delta", name="d")
    write(tmp_path / "delta")


def test_another_key_does_not_take_the_signers_place(model: Path) -> None:
    sign(model, PrivateKey.generate())
    before = (model / "model.sig").read_bytes()
    with pytest.raises(UsageError, match="is a signature by another key"):
        write(model, sign_key=PrivateKey.generate())
    assert (model / "model.sig").read_bytes() == before


def test_a_stopped_run_is_completed_by_the_same_command(
    tmp_path: Path, model: Path
) -> None:
    key = PrivateKey.generate()
    base = model_folder(tmp_path / "base", {"w": ("F32", [2, 3], bytes(range(24)))})
    folder = tmp_path / "delta"
    make_delta(base, model, folder, name="d", licensing=Licensing(license="mit"))
    arc: dict[str, Any] = {"results": [results("arc")], "facts": None}
    write(folder, base_results=[results("arc", "example-org__tiny-base")], **arc)
    (folder / ".README.md.new").mkdir()
    with pytest.raises(OSError, match=r"\.README\.md\.new"):
        write(folder, sign_key=key, repo="a/b", **arc)
    (folder / ".README.md.new").rmdir()
    write(folder, sign_key=key, repo="a/b", **arc)


def test_an_own_notice_survives_a_second_run(model: Path) -> None:
    (model / "NOTICE").write_text("my own notice\n")
    for _ in range(2):
        write(model, licensing=Licensing(license="apache-2.0"))
        assert (model / "NOTICE").read_text() == "my own notice\n"


def test_own_files_beside_evaluations_survive(model: Path) -> None:
    write(model, results=[results("arc")])
    (model / "evaluations" / "samples.jsonl").write_text("mine")
    write(model, results=[results("arc")])
    assert (model / "evaluations" / "samples.jsonl").read_text() == "mine"


def test_stale_results_for_the_hub_go(model: Path) -> None:
    write(model, results=[results("gsm8k")])
    write(model, results=[results("arc")])
    assert not (model / ".eval_results" / "gsm8k.yaml").exists()


@pytest.mark.parametrize("change", [lambda path: path.write_text("x"), Path.unlink])
def test_numbers_whose_file_was_changed_are_refused(
    model: Path, change: Callable[[Path], object]
) -> None:
    write(model, results=[results("arc")])
    change(model / "evaluations" / "model" / results("arc").name)
    with pytest.raises(ReleaseKitError):
        write(model)


def test_rows_keep_their_columns(model: Path) -> None:
    write(
        model,
        '[training]\nphases = [{ Data = "a", LR = "1" }, { LR = "2", Data = "b" }]\n',
    )
    assert "| Data | LR |\n| --- | --- |\n| a | 1 |\n| b | 2 |" in section(
        model, "training"
    )


def test_a_row_without_columns_is_refused(model: Path) -> None:
    with pytest.raises(ReleaseKitError):
        write(model, "[training]\nphases = [{}]\n")


def test_another_licence_takes_the_gate_away(model: Path) -> None:
    terms = model.parent / "terms.txt"
    terms.write_text("Terms.\n")
    given = Licensing(license="stable-beluga-nc", files=(str(terms),))
    write(model, licensing=given)
    write(model, licensing=Licensing(license="apache-2.0"))
    data = ModelCard.load(model / "README.md").data.to_dict()
    assert not [key for key in data if key.startswith("extra_gated_")]


def test_the_text_of_another_licence_does_not_stay(model: Path) -> None:
    terms = model.parent / "terms.txt"
    terms.write_text("Terms.\n")
    given = Licensing(license="stable-beluga-nc", files=(str(terms),))
    write(model, licensing=given)
    write(model, licensing=Licensing(license="mit"))  # of which there is no text
    assert not (model / "LICENSE").exists()


def test_the_link_leads_to_the_licence(model: Path) -> None:
    (model / "LICENSE.txt").write_text("Terms.\n")
    done = write(model, licensing=Licensing(license="stable-beluga-nc"))
    assert not [str(found) for found in done.findings if "is not there" in found.why]


def test_texts_of_any_name_are_linked(model: Path) -> None:
    terms = model.parent / "my terms (v2).txt"
    terms.write_text("Terms.\n")
    given = Licensing(license="stable-beluga-nc", files=(str(terms),))
    write(model, licensing=given)
    html = MarkdownIt("commonmark").render(section(model, "license"))
    assert 'href="licenses/stable-beluga-nc/my%20terms%20' in html


def test_a_prompt_is_shown_exactly(model: Path) -> None:
    write(model, '[prompt]\nformat = "User: {x}\\n\\n\\n\\nAssistant: \\nx"\n')
    assert "```text\nUser: {x}\n\n\n\nAssistant: \nx\n```" in section(model, "prompt")


@pytest.mark.parametrize("text", ["   ```\n# x", "a\r```\r# x"])
def test_a_block_of_code_ends_where_it_should(text: str) -> None:
    first, *rest = MarkdownIt("commonmark").parse(f"{fenced(text)}\n\nafter")
    assert first.type == "fence"
    assert len(rest) == 3


@pytest.mark.parametrize("text", ["```\\ncode", "<!-- b", "<script>", "~~~"])
def test_a_fact_that_does_not_end_is_told(model: Path, text: str) -> None:
    try:
        done = write(model, f'[card]\ndescription = "{text}"\n')
    except ReleaseKitError:
        return
    assert "card-marks" in [found.rule.id for found in done.findings]


def test_the_id_of_a_release_is_checked(model: Path) -> None:
    with pytest.raises(UsageError):
        write(model, repo="a b; rm -rf ~\nx")


def test_a_deleted_title_comes_back_on_top(model: Path) -> None:
    write(model)
    whole = (model / "README.md").read_text()
    begin = whole.index("<!-- releasekit:begin title")
    end = whole.index("<!-- releasekit:begin model")
    (model / "README.md").write_text(whole[:begin] + whole[end:])
    write(model)
    assert (model / "README.md").read_text() == whole


@pytest.mark.parametrize("key", ["model_name", "eval_results", "self"])
def test_metadata_of_any_name_are_kept(model: Path, key: str) -> None:
    # `model_name` is what trl writes into its cards.
    (model / "README.md").write_text(f"---\n{key}: mine\n---\n# Hi\n")
    write(model)
    assert cards.split((model / "README.md").read_bytes(), "x")[0][key] == "mine"


def test_an_index_of_two_models_stays_what_it_is(model: Path) -> None:
    one = (
        "- name: {}\n  results:\n  - task: {{type: t}}\n    dataset: {{type: d, name: D}}\n"
        "    metrics: [{{type: acc, value: 1.5}}]\n"
    )
    (model / "README.md").write_text(
        f"---\nmodel-index:\n{one.format('a')}{one.format('b')}---\n# Hi\n"
    )
    before = cards.split((model / "README.md").read_bytes(), "x")[0]["model-index"]
    write(model)
    after = cards.split((model / "README.md").read_bytes(), "x")[0]["model-index"]
    assert [item["name"] for item in after] == [item["name"] for item in before]


@pytest.mark.parametrize(
    "data",
    [
        "a: !!timestamp x",
        "a: !!bool x",
        'a: !!int ""',
        "a: &a [*a]",
        "tags: {a: b}",
        "tags: [[a]]",
        "model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: D}, "
        "metrics: [], source: x}]}]",
    ],
)
def test_any_metadata_are_written_or_refused(model: Path, data: str) -> None:
    (model / "README.md").write_text(f"---\n{data}\n---\n# Hi\n")
    refused_or_done(lambda: check_card(model))
    refused_or_done(lambda: write(model))


@pytest.mark.parametrize(
    "text",
    [
        "{% include 'extra.md.j2' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 10 ** 15 }}",
    ],
)
def test_a_template_without_end_is_refused(model: Path, text: str) -> None:
    folder = model.parent / "templates"
    folder.mkdir()
    (folder / "extra.md.j2").write_text(text)
    refused_or_done(lambda: write(model, templates=folder))


@pytest.mark.parametrize(
    "document",
    [
        b"---\na: [\n---\n",
        b"---\nignore_metadata_errors: 1\n---\n",
        b"---\nmodel-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name:"
        b" D}, metrics: [], source: x}]}]\n---\n",
    ],
)
def test_a_card_that_cannot_be_read_is_told_online(
    document: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    refused_or_done(lambda: cards.validate_online(document, "x"))


FILES = ("README.md", "figure 1.png")
GOOD = b"---\nlicense: mit\nlibrary_name: x\n---\n"


@pytest.mark.parametrize(
    "body",
    [
        b'<img src="https://img.shields.io/badge/a,b-c">',
        b'<img src="figure 1.png">',
        b"<!-- <a href='gone'> -->",
        b"Todo el texto en espa\xc3\xb1ol",
    ],
)
def test_what_is_right_is_not_found_wrong(body: bytes) -> None:
    assert [str(found) for found in check(GOOD + body, "x", FILES, {"mit"})] == []


def test_commands_of_a_model_without_digests_are_not_promised(model: Path) -> None:
    write(model)
    assert "releasekit verify" not in section(model, "rebuild")
    assert "its digests show" not in section(model, "verification")


def test_sentences_do_not_run_together(model: Path, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", {"w": ("F32", [2, 3], bytes(range(24)))})
    make_delta(base, model, tmp_path / "d", name="d", licensing=Licensing(license="mit"))
    write(tmp_path / "d", '[licenses]\n[signing]\npublished_at = "https://x.org"\n')
    assert ".`" not in section(tmp_path / "d", "rebuild")


def test_figures_stand_under_the_name_of_their_model(model: Path) -> None:
    facts = (
        '[base]\nid = "meta-llama/Llama-2-70b-hf"\nname = "Llama 2 70B"\n'
        '[evaluations]\nmodel_name = "stabilityai/FreeWilly2"\n'
        'base_name = "meta-llama/Llama-2-70b-chat-hf"\n'
    )
    given = Licensing(license="mit", bases=("llama-2",))
    table = [LEADERBOARD]
    write(model, facts, licensing=given, results=table, base_results=table)
    assert "| Llama 2 70B |" not in section(model, "evaluations")


def test_a_bad_mark_is_told_with_its_line() -> None:
    with pytest.raises(ReleaseKitError, match="near line 2 of the body"):
        sections.parse("a\n<!-- releasekit:x -->\n" + "b\n" * 50, "x")


def test_files_of_several_models_are_told(model: Path) -> None:
    other = results("hellaswag", "example-org__tiny-base")
    done = write(model, results=[results("arc"), other])
    assert "several models" in " ".join(map(str, done.findings)) + section(
        model, "evaluations"
    )


def test_own_code_that_opens_a_card_stays_code(model: Path) -> None:
    (model / "README.md").write_text("    code\n\ntext\n")
    write(model)
    assert "\n    code\n" in (model / "README.md").read_text()
