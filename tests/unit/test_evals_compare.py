"""A model against its base: differences, their errors, and where there is none."""

from typing import Any

import pytest

from releasekit.evals import compare as comparing
from releasekit.evals.collection import Collection
from releasekit.evals.compare import compare, difference, mean, number, signed
from releasekit.evals.figures import Figure
from releasekit.evals.reading import read
from releasekit.evals.scores import HARNESS, Origin, Results, Score, Unit

BOARD = b"""Model,Average,ARC,HellaSwag,MMLU,TruthfulQA
org/m,68.67,68.2,85.9,64.8,55.8
org/b,64.23,63.5,86.1,63.9,43.4
"""


def score(value: float = 0.5, **fields: Any) -> Score:
    named = {"file": "r.json", "sha256": "0a" * 32, "kind": HARNESS}
    prompt = fields.pop("prompt", None)
    defaults: dict[str, Any] = {
        "task": "piqa",
        "metric": "acc",
        "unit": Unit.FRACTION,
        "origin": Origin(**named, prompt=prompt),
        "shots": 0,
        "version": "1",
    }
    return Score(value=value, **(defaults | fields))


def of(*scores: Score, name: str = "org/m") -> Collection:
    return Collection.of(Results(scores=scores), name=name)


def row(model: Score, base: Score) -> comparing.Row:
    return comparing.row("PIQA", Figure.of(model), Figure.of(base))


def test_a_leaderboards_rows_are_compared() -> None:
    model, base = (
        Collection.of(read(BOARD, "board.csv", model=name)) for name in ("org/m", "org/b")
    )
    comparison = compare(model, base)
    (suite,) = comparison.suites
    assert (comparison.model, comparison.base) == ("org/m", "org/b")
    assert comparison.others == ()
    assert [
        (
            row.title,
            comparing.figure(row.model),
            comparing.figure(row.base),
            difference(row),
        )
        for row in suite.rows
    ] == [
        ("ARC-Challenge", "68.2", "63.5", "+4.7"),
        ("HellaSwag", "85.9", "86.1", "−0.2"),
        ("MMLU", "64.8", "63.9", "+0.9"),
        ("TruthfulQA", "55.8", "43.4", "+12.4"),
    ]
    assert (mean(suite.model), mean(suite.base)) == ("68.67", "64.23")
    assert difference(suite) == "+4.4"


def test_the_error_of_a_difference_takes_both_as_independent() -> None:
    found = row(score(0.5, stderr=0.03), score(0.4, stderr=0.04))
    assert found.difference == pytest.approx(10)
    assert found.stderr == pytest.approx(5)
    assert difference(found) == "+10.0 ± 5.0"
    assert row(score(0.5, stderr=0.03), score(0.4)).stderr is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"shots": 5}, "n-shot 0 against 5"),
        ({"metric": "acc_norm"}, "metric acc against acc_norm"),
        ({"filter": "strict"}, "filter none against strict"),
        ({"prompt": "alpaca"}, "prompt none against alpaca"),
        ({"version": "2"}, "version of the task 1 against 2"),
        ({"partial": True}, "only a part of the questions was asked"),
        ({"unit": Unit.RAW}, "unit percent against raw"),
    ],
)
def test_what_cannot_be_compared_has_a_reason_instead_of_a_difference(
    fields: dict[str, Any], reason: str
) -> None:
    found = row(score(), score(0.4, stderr=0.1, **fields))
    assert (found.comparable, found.reasons) == (False, (reason,))
    assert (found.difference, found.stderr) == (None, None)
    assert difference(found) == "–"


def test_what_is_not_known_is_a_remark() -> None:
    found = row(score(), score(0.4, shots=None, version=None))
    assert (found.comparable, found.remarks) == (
        *(True, ("the base's n-shot is not known",)),
    )
    assert row(score(shots=None), score()).remarks == ("the model's n-shot is not known",)
    assert row(score(shots=None), score(shots=None)).remarks == ()


def test_averages_of_rows_that_cannot_be_compared_have_no_difference() -> None:
    tasks = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa")
    model = [score(task=task) for task in (*tasks, "winogrande")]
    base = [*model[:-1], score(task="winogrande", prompt="alpaca")]
    model = [*model[:3], *(score(task=s.task, metric="acc_norm") for s in model)]
    with_metrics = [score(task=s.task, metric="acc_norm") for s in base[:-1]]
    (suite,) = compare(
        of(*model, score(task="winogrande")), of(*with_metrics, *base)
    ).suites
    assert suite.model.average is not None
    assert suite.base is not None
    assert suite.base.average is not None
    assert suite.difference is None


def test_figures_of_no_suite_stand_by_themselves() -> None:
    model = of(score(task="mine"), score(8.5, task="wiki", metric="ppl", unit=Unit.RAW))
    base = of(score(0.25, task="mine"), score(0.5, task="mine", shots=5), name="org/b")
    comparison = compare(model, base)
    assert comparison.suites == ()
    assert [
        (
            row.title,
            comparing.figure(row.model),
            comparing.figure(row.base),
            difference(row),
        )
        for row in comparison.others
    ] == [("mine", "50.0", "25.0", "+25.0"), ("wiki", "8.5", "–", "–")]


def test_without_a_base_there_are_no_differences() -> None:
    comparison = compare(Collection.of(read(BOARD, "board.csv", model="org/m")))
    (suite,) = comparison.suites
    assert (comparison.base, suite.base, suite.difference) == (None, None, None)
    assert [difference(row) for row in suite.rows] == ["–"] * 4
    assert mean(suite.base) == "–"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (68.675, 2, "68.68"),  # the float lies below
        (0.05, 1, "0.1"),
        (85.0, 1, "85.0"),
        (100.0, 0, "100"),
        (None, 1, "–"),
    ],
)
def test_numbers_are_rounded_as_they_read(
    value: float | None, digits: int, text: str
) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.14, "+3.1"), (-0.44, "−0.4"), (-0.04, "0.0"), (0.0, "0.0"), (None, "–")],
)
def test_differences_have_a_sign(value: float | None, text: str) -> None:
    assert signed(value) == text
