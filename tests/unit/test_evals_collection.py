"""Merging files: what agrees is kept once, what does not is refused with both."""

import json
from typing import Any

import pytest

from releasekit.errors import FormatError, UsageError
from releasekit.evals.collection import Collection
from releasekit.evals.document import Evaluations, pack, parse
from releasekit.evals.reading import read
from releasekit.evals.scores import HARNESS, TABLE, Origin, Results, Score, Unit
from releasekit.evals.suites import SUITES

BOARD = b"""Model,Average,ARC,HellaSwag,MMLU,TruthfulQA
org/m,68.67,68.2,85.9,64.8,55.8
org/b,64.23,63.5,86.1,63.9,43.4
"""
Document = dict[str, Any]


def origin(**fields: Any) -> Origin:
    return Origin(**({"file": "r.json", "sha256": "0a" * 32, "kind": HARNESS} | fields))


def score(value: float = 0.5, **fields: Any) -> Score:
    defaults: dict[str, Any] = {
        "task": "hellaswag",
        "metric": "acc_norm",
        "unit": Unit.FRACTION,
        "origin": origin(),
        "shots": 10,
    }
    return Score(value=value, **(defaults | fields))


def merged(*scores: Score) -> Collection:
    return Collection.of(*(Results(scores=(item,)) for item in scores))


def board(model: str) -> Collection:
    return Collection.of(read(BOARD, "board.csv", model=model))


def test_equal_figures_are_kept_once_with_the_better_origin() -> None:
    typed = score(
        41.2, unit=Unit.PERCENT, origin=origin(file="t.toml", kind=TABLE, model="m")
    )
    run = score(0.412, stderr=0.01)
    assert merged(typed, run).scores == merged(run, typed).scores == (run,)


@pytest.mark.parametrize(
    "other",
    [
        score(0.6, shots=0),
        score(0.6, metric="acc"),
        score(0.6, filter="strict"),
        score(0.6, origin=origin(prompt="alpaca")),
    ],
)
def test_figures_of_other_things_are_kept_both(other: Score) -> None:
    assert len(merged(score(), other).scores) == 2


def test_figures_that_differ_are_refused_with_what_dates_them() -> None:
    first = score(0.635, origin=origin(file="a.json", date="2023-07-01", harness="0.3"))
    other = score(57.6, unit=Unit.PERCENT, origin=origin(file="b.csv", commit="b281b09"))
    with pytest.raises(UsageError) as caught:
        merged(first, other)
    assert str(caught.value) == (
        '"hellaswag", acc_norm, 10-shot: found two figures that differ, 63.5 % (a.json, '
        "harness 0.3, 2023-07-01) and 57.6 % (b.csv, commit b281b09); leave out the file, "
        "or the row, that does not count"
    )


def test_raw_figures_that_differ_are_refused_as_they_are() -> None:
    one, other = (
        score(value, unit=Unit.RAW, metric="perplexity", shots=None) for value in (8.5, 9)
    )
    with pytest.raises(UsageError, match=r"^\"hellaswag\", perplexity: found two figures "):
        merged(one, other)


def test_files_without_figures_are_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Collection.of(Results(scores=()))
    assert str(caught.value) == "expected figures of a model, found files without any"


def test_files_of_several_models_are_noticed() -> None:
    found = merged(
        score(origin=origin(model="org/a")),
        score(origin=origin(model="org/b"), metric="acc"),
    )
    assert found.name == "model"
    assert found.findings == ('The files name several models: "org/a", "org/b".',)
    assert Collection.of(Results(scores=found.scores), name="org/m").name == "org/m"


def shown(*scores: Score) -> list[str]:
    return [result.suite.id for result in merged(*scores).suites()]


def suite(name: str) -> list[Score]:
    return [
        score(task=task.name, metric=task.metrics[0].partition(",")[0], shots=task.shots)
        for task in SUITES[name].tasks
    ]


def test_a_suite_is_shown_once_it_has_a_figure_of_its_own() -> None:
    first, later = "open-llm-leaderboard", "open-llm-leaderboard-2023-11"
    assert shown(*suite(first)) == [first]
    assert shown(*suite(first)[:2]) == [first]
    assert shown(*suite(later)) == [later]
    assert shown(*suite("gpt4all")) == ["gpt4all"]
    assert shown(*suite(first), *suite("gpt4all")) == [first, "gpt4all"]
    assert shown(score(task="piqa_of_mine")) == []
    assert [result.suite.id for result in board("org/m").suites()] == [first]


def test_the_document_reads_as_it_was_written() -> None:
    evaluations = Evaluations.of(board("org/m"), board("org/b"))
    document = pack(evaluations)
    assert parse(document) == evaluations
    read_back: Document = json.loads(document)
    assert read_back["format"] == "releasekit-evaluations/1"
    assert [item["model"] for item in read_back["origins"]] == ["org/m", "org/b"]
    assert read_back["suites"] == [
        {
            "id": "open-llm-leaderboard",
            "title": "Open LLM Leaderboard",
            "rule": "Unweighted mean of ARC-Challenge, HellaSwag, MMLU and TruthfulQA, in "
            "percent.",
            "source": "https://huggingface.co/docs/leaderboards/open_llm_leaderboard/"
            "archive",
            "model": {"average": 68.67, "missing": [], "notes": []},
            "base": {"average": 64.23, "missing": [], "notes": []},
        }
    ]


def test_the_document_may_have_no_base() -> None:
    evaluations = Evaluations.of(board("org/m"))
    assert parse(pack(evaluations)) == evaluations
    assert "base" not in json.loads(pack(evaluations))


def damaged(*path: str | int, to: object) -> bytes:
    document = json.loads(pack(Evaluations.of(board("org/m"), board("org/b"))))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            damaged("format", to="releasekit-evaluations/2"),
            'format: expected "releasekit-evaluations/1", found '
            '"releasekit-evaluations/2": a newer releasekit may know it; update with `pip '
            "install -U releasekit`",
        ),
        (damaged("extra", to=1), 'unknown field "extra"'),
        (damaged("origins", to=[]), "origins: expected an origin, found none"),
        (
            damaged("model", "scores", 0, "origin", to=2),
            "model.scores[0].origin: expected an integer of at most 1, found 2",
        ),
        (
            damaged("model", "scores", 0, "unit", to="%"),
            'model.scores[0].unit: expected one of "fraction", "percent", "raw", found "%"',
        ),
        (
            damaged("model", "scores", 0, "colour", to="red"),
            'model.scores[0]: unknown field "colour"',
        ),
        (
            damaged("suites", 0, "model", "average", to="high"),
            'suites[0].model.average: expected a number, found "high"',
        ),
        (damaged("model", "name", to=""), "model.name: expected a name, found none"),
        (
            damaged("model", "scores", to=[]),
            "expected figures of a model, found files without any",
        ),
    ],
)
def test_a_document_that_is_wrong_is_refused_with_its_path(
    document: bytes, words: str
) -> None:
    with pytest.raises(FormatError) as caught:
        parse(document)
    assert str(caught.value) == f"evaluations.json: {words}"


def test_a_figure_that_stands_twice_in_the_document_is_refused() -> None:
    scores = json.loads(pack(Evaluations.of(board("org/m"))))["model"]["scores"]
    with pytest.raises(FormatError) as caught:
        parse(damaged("model", "scores", to=[scores[0], scores[0]]))
    assert str(caught.value) == "evaluations.json: model.scores: a figure stands twice"
