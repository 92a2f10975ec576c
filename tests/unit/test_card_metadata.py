"""A card's metadata: what is generated, what is kept, and what huggingface_hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from releasekit.card.facts import Facts, parse
from releasekit.card.metadata import blend, indexed, metadata, registered
from releasekit.errors import FormatError
from releasekit.evals.collection import Collection
from releasekit.evals.compare import Comparison, compare
from releasekit.evals.scores import TABLE, Origin, Results, Score, Unit
from releasekit.evals.tables import parse_csv
from releasekit.hub.cards import (
    IndexedScore,
    check_index,
    dump_yaml,
    join,
    load_yaml,
    split,
)
from releasekit.license_files import load_catalogue
from releasekit.licenses.chain import Chain, Grant

CARDS = Path(__file__).parent.parent / "cards"
FREEWILLY1 = parse((CARDS / "freewilly1.toml").read_bytes(), "freewilly1.toml")
SHA = "0a" * 32


def chain(release: str, *bases: str, rebuilt: str | None = None) -> Chain:
    catalogue = load_catalogue()

    def grant(name: str) -> Grant:
        return Grant.under(catalogue.get(name), "it", ())

    return Chain(
        release=grant(release),
        bases=tuple(map(grant, bases)),
        rebuilt=grant(rebuilt) if rebuilt else None,
    )


def generated(facts: Facts, chain: Chain | None, *, delta: bool = False) -> dict[str, Any]:
    return metadata(facts, chain, delta=delta, name="N", library=None)


def freewilly1() -> Comparison:
    table = (CARDS / "leaderboard.csv").read_bytes()
    mine = parse_csv(table, "leaderboard.csv", SHA, model=FREEWILLY1.results_name)
    theirs = parse_csv(table, "leaderboard.csv", SHA, model="huggyllama/llama-65b")
    return compare(Collection.of(mine, name="FreeWilly1"), Collection.of(theirs, name="B"))


def test_a_delta_is_a_finetune_with_a_tag() -> None:
    found = generated(
        FREEWILLY1, chain("cc-by-nc-4.0", "llama-1", rebuilt="llama-1"), delta=True
    )
    gate = {key: found.pop(key) for key in list(found) if key.startswith("extra_gated_")}
    assert found == {
        "language": ["en"],
        "license": "cc-by-nc-4.0",
        "library_name": "releasekit",
        "pipeline_tag": "text-generation",
        "base_model": "huggyllama/llama-65b",
        "base_model_relation": "finetune",
        "tags": ["llama", "orca", "releasekit", "delta"],
    }
    assert gate["extra_gated_heading"] == "Access to N"
    assert gate["extra_gated_prompt"].startswith(
        "N may be used for research only, under the terms of LLaMA License Agreement ("
    )
    assert gate["extra_gated_fields"] == {
        "I accept the terms of LLaMA License Agreement": "checkbox",
        "I use the model for non-commercial research only": "checkbox",
    }
    assert gate["extra_gated_button_content"] == "Agree, and ask for access"


def test_nothing_known_gives_a_tag_alone() -> None:
    assert generated(Facts(), None) == {"tags": ["releasekit"]}


def test_a_licence_that_the_hub_has_no_name_for_has_one_and_a_link() -> None:
    found = generated(Facts(), chain("stable-beluga-nc", "llama-2"))
    assert {key: found[key] for key in ("license", "license_name", "license_link")} == {
        "license": "other",
        "license_name": "stable-beluga-nc",
        "license_link": "LICENSE",
    }


def test_a_delta_has_the_licence_of_what_is_published() -> None:
    both = chain("mit", "llama-1", rebuilt="llama-1")
    assert generated(Facts(), both, delta=True)["license"] == "mit"
    assert generated(Facts(), both)["license"] == "other"


def test_nobody_is_asked_where_use_is_free() -> None:
    found = generated(Facts(), chain("mit", "llama-2"))
    assert not [key for key in found if key.startswith("extra_gated_")]


def test_what_is_generated_replaces_what_was_there() -> None:
    old = {
        "license": "other",
        "license_name": "x",
        "license_link": "y",
        "tags": "mine",
        "language": ["de", "en"],
        "widget": [{"text": "Hi"}],
        "base_model": ["a/b", "c/d"],
    }
    new = {
        "license": "mit",
        "tags": ["releasekit"],
        "language": ["en"],
        "base_model": "e/f",
    }
    assert blend(old, new) == {
        "license": "mit",
        "tags": ["mine", "releasekit"],
        "language": ["de", "en"],
        "widget": [{"text": "Hi"}],
        "base_model": "e/f",
    }
    assert blend(blend(old, new), new) == blend(old, new)


def test_without_licences_those_of_before_stay() -> None:
    old = {"license": "other", "license_name": "x", "license_link": "y"}
    assert blend(old, {"tags": ["a"]}) == {**old, "tags": ["a"]}


def test_figures_are_indexed_with_their_data_sets_and_shots() -> None:
    found = [
        (s.dataset, s.dataset_config, s.metric, s.value, s.metric_args)
        for s in indexed(freewilly1())
    ]
    assert found == [
        ("allenai/ai2_arc", "ARC-Challenge", "acc_norm", 68.2, {"num_few_shot": 25}),
        ("Rowan/hellaswag", None, "acc_norm", 85.9, {"num_few_shot": 10}),
        ("cais/mmlu", "all", "acc", 64.8, {"num_few_shot": 5}),
        (
            "truthfulqa/truthful_qa",
            "multiple_choice",
            "mc2",
            55.8,
            {"num_few_shot": 0},
        ),
    ]
    assert indexed(None) == []


def test_only_registered_benchmarks_have_a_file() -> None:
    assert registered(freewilly1()) == {}
    assert registered(None) == {}
    score = Score(
        task="gsm8k",
        metric="exact_match",
        value=0.5412345678,
        unit=Unit.FRACTION,
        shots=5,
        filter="strict-match",
        origin=Origin(
            file="a.json",
            sha256=SHA,
            kind=TABLE,
            harness="0.4.3",
            date="2024-01-02",
            url="https://example.org/a",
        ),
    )
    found = registered(compare(Collection.of(Results(scores=(score,)))))
    assert found == {
        ".eval_results/gsm8k.yaml": [
            {
                "dataset": {"id": "openai/gsm8k", "task_id": "gsm8k"},
                "value": 54.123457,
                "date": "2024-01-02",
                "source": {"url": "https://example.org/a", "name": "a.json"},
                "notes": "exact_match, in percent, 5-shot, lm-evaluation-harness 0.4.3",
            }
        ]
    }


# The document.

SCORE = IndexedScore(
    task_type="multiple-choice",
    task_name="Multiple Choice",
    dataset="Rowan/hellaswag",
    dataset_name="HellaSwag",
    metric="acc_norm",
    metric_name="acc_norm, percent (10-shot)",
    metric_args={"num_few_shot": 10},
    value=85.9,
    source_name="a.json",
    source_url="https://example.org/a",
)


def test_huggingface_hub_reads_what_is_joined() -> None:
    document = join(
        {"license": "mit", "x": [1]}, [SCORE], "M", "\n# Hi\n\nÄ\n", "README.md"
    )
    card = ModelCard(document.decode())
    data: Any = card.data
    assert card.text.strip() == "# Hi\n\nÄ"
    assert data.to_dict()["license"] == "mit"
    (result,) = data.eval_results
    assert (result.metric_value, result.metric_args) == (85.9, {"num_few_shot": 10})
    assert result.source_url == "https://example.org/a"
    assert data.model_name == "M"
    assert split(document, "README.md")[1].strip() == "# Hi\n\nÄ"


def test_two_n_shots_of_one_data_set_stay_apart() -> None:
    zero = IndexedScore(
        task_type="multiple-choice",
        task_name="Multiple Choice",
        dataset="Rowan/hellaswag",
        dataset_name="HellaSwag",
        metric="acc_norm",
        metric_name="acc_norm, percent (0-shot)",
        metric_args={"num_few_shot": 0},
        value=80.0,
    )
    document = join({}, [SCORE, zero], "M", "x", "README.md")
    data: Any = ModelCard(document.decode()).data
    assert [(result.metric_value, result.metric_args) for result in data.eval_results] == [
        (85.9, {"num_few_shot": 10}),
        (80.0, {"num_few_shot": 0}),
    ]


def test_a_source_without_an_address_is_left_out() -> None:
    score = IndexedScore(
        task_type="a",
        task_name="b",
        dataset="c",
        dataset_name="d",
        metric="e",
        metric_name="f",
        value=1.0,
        source_name="a.json",
    )
    assert b"source" not in join({}, [score], "M", "x", "README.md")


def test_metadata_that_huggingface_hub_refuses_are_refused_here() -> None:
    with pytest.raises(FormatError) as caught:
        join({"model-index": [{"name": "x"}]}, [], "M", "x", "README.md")
    assert str(caught.value).startswith(
        "README.md: metadata: Invalid `model_index` in metadata cannot be parsed: "
    )


@pytest.mark.parametrize(
    ("document", "data", "body"),
    [
        (b"", {}, ""),
        (b"# Hi\n", {}, "# Hi\n"),
        (b"---\na: 1\n---\n# Hi\n", {"a": 1}, "# Hi\n"),
        (b"---\r\na: 1\r\n---\r\n# Hi\r\n", {"a": 1}, "# Hi\r\n"),
        (b"\xef\xbb\xbf---\na: 1\n---\n# Hi\n", {"a": 1}, "# Hi\n"),
        (b"\n\n---\n# no data\n\n---\nx", {}, "x"),
        (b"---\na: 1\n---", {"a": 1}, ""),
        (b"a\n\n---\na: 1\n---\n", {}, "a\n\n---\na: 1\n---\n"),
    ],
)
def test_metadata_are_what_opens_a_card(
    document: bytes, data: dict[str, Any], body: str
) -> None:
    assert split(document, "x") == (data, body)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML: while parsing a flow node"),
        ("a: 1\na: 2", 'not valid YAML: key "a" appears twice'),
        ("a: {b: 1, b: 2}", 'not valid YAML: key "b" appears twice'),
        ("a: 2023-99-99", "not valid YAML: month must be in 1..12"),
        ("[" * 5000, "not valid YAML: nested too deeply"),
        ("a: !!python/name:os.system x", "not valid YAML: could not determine a constr"),
        ("{a: 1}: 2", "not valid YAML: while constructing a mapping"),
    ],
)
def test_yaml_that_means_two_things_is_refused(text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        load_yaml(text, "x")
    assert str(caught.value).startswith(f"x: {words}")


def test_yaml_is_dumped_in_order_and_read_again() -> None:
    value = [{"z": 1, "a": "é", "date": "2023-07-27", "no": "no"}]
    assert load_yaml(dump_yaml(value).decode(), "x") == value
    assert dump_yaml(value).startswith(b"- z: 1\n  a: \xc3\xa9\n")


def test_an_index_that_can_be_read_has_no_fault() -> None:
    document = join({}, [SCORE], "M", "x", "README.md")
    assert check_index(split(document, "x")[0]) is None
