"""Figures and origins: what is refused where it enters, in its words."""

import math

import pytest

from releasekit.errors import FormatError
from releasekit.evals.scores import HARNESS, TABLE, Origin, Score, Unit, is_date
from releasekit.evals.tasks import MMLU, canonical

SHA = "0a" * 32
ORIGIN = Origin(file="r.json", sha256=SHA, kind=TABLE)


def score(
    value: float, unit: Unit = Unit.FRACTION, *, stderr: float | None = None
) -> Score:
    return Score(
        task="t", metric="acc", value=value, unit=unit, origin=ORIGIN, stderr=stderr
    )


@pytest.mark.parametrize(
    ("value", "unit", "percent"),
    [
        (0.412, Unit.FRACTION, 41.2),
        (0.57, Unit.FRACTION, 57.0),  # 100 * 0.57 is 56.99999999999999
        (41.2, Unit.PERCENT, 41.2),
        (1.0, Unit.FRACTION, 100.0),
        (0.0, Unit.PERCENT, 0.0),
        (-3.5, Unit.RAW, None),
    ],
)
def test_figures_in_percent(value: float, unit: Unit, percent: float | None) -> None:
    assert score(value, unit).percent() == percent


def test_a_standard_error_has_the_unit_of_its_figure() -> None:
    assert score(0.4, stderr=0.015).stderr_percent() == 1.5
    assert score(40, Unit.PERCENT, stderr=1.5).stderr_percent() == 1.5
    assert score(40, Unit.RAW, stderr=1.5).stderr_percent() is None
    assert score(0.4).stderr_percent() is None


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (41.2, Unit.FRACTION, "a fraction from 0 to 1, found 41.2"),
        (-0.1, Unit.FRACTION, "a fraction from 0 to 1, found -0.1"),
        (100.5, Unit.PERCENT, "a percentage from 0 to 100, found 100.5"),
        (math.nan, Unit.RAW, "a finite number, found nan"),
        (math.inf, Unit.PERCENT, "a finite number, found inf"),
    ],
)
def test_a_figure_that_is_not_of_its_unit_is_refused(
    value: float, unit: Unit, words: str
) -> None:
    with pytest.raises(FormatError) as caught:
        score(value, unit)
    assert str(caught.value) == f'r.json: "t": acc: expected {words}'


@pytest.mark.parametrize("stderr", [-0.01, math.nan, math.inf])
def test_a_standard_error_that_is_none_is_refused(stderr: float) -> None:
    with pytest.raises(FormatError) as caught:
        score(0.5, stderr=stderr)
    assert str(caught.value) == (
        'r.json: "t": acc: standard error: expected a finite number of at least 0, found '
        f"{stderr!r}"
    )


def test_negative_counts_are_refused() -> None:
    with pytest.raises(FormatError) as caught:
        Score(task="t", metric="m", value=1, unit=Unit.RAW, origin=ORIGIN, shots=-1)
    assert str(caught.value) == (
        'r.json: "t": m: shots: expected an integer of at least 0, found -1'
    )


def test_a_task_that_would_break_a_line_is_refused() -> None:
    with pytest.raises(FormatError) as caught:
        Score(task="a\nb", metric="m", value=1, unit=Unit.RAW, origin=ORIGIN)
    assert str(caught.value) == (
        r'r.json: "a\nb": task: expected a line of 1 to 200 characters, found "a\nb"'
    )


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sha256", "0A" * 32, f'64 lowercase hexadecimal digits, found "{"0A" * 32}"'),
        (
            "kind",
            "blog",
            'one of lm-evaluation-harness, leaderboard, table, found "blog"',
        ),
        (
            "date",
            "21.07.2023",
            'a day or an instant with its offset, in ISO 8601, found "21.07.2023"',
        ),
        (
            "url",
            "javascript:alert(1)",
            'an address with http:// or https://, found "javascript:alert(1)"',
        ),
    ],
)
def test_an_origin_states_what_is_wrong_with_it(field: str, value: str, words: str) -> None:
    fields = {"file": "r.json", "sha256": SHA, "kind": TABLE} | {field: value}
    with pytest.raises(FormatError) as caught:
        Origin(**fields)
    assert str(caught.value) == f"r.json: {field}: expected {words}"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("2023-07-21", True),
        ("2023-07-21T10:00:00Z", True),
        ("2023-07-21T10:00:00.25+02:00", True),
        ("2023-02-30", False),
        ("2023-07-21T10:00:00", False),  # of which place?
        ("20230721", False),
        ("2023-07-21T25:00:00Z", False),
        ("", False),
    ],
)
def test_dates_are_days_or_instants(text: str, known: bool) -> None:
    assert is_date(text) is known


def test_an_origin_is_cited_by_what_tells_it_from_others() -> None:
    assert ORIGIN.cited() == "r.json"
    full = Origin(
        file="r.json",
        sha256=SHA,
        kind=HARNESS,
        model="org/m",
        harness="0.4.3",
        commit="b281b0921b636bc36ad05c0b0b0763bd6dd43463",
        date="2023-07-21",
    )
    assert full.cited() == "r.json, org/m, harness 0.4.3, 2023-07-21, commit b281b0921b63"


def test_tasks_that_were_renamed_go_by_their_new_names() -> None:
    assert len(set(MMLU)) == 57
    assert canonical("hendrycksTest-anatomy", "acc") == ("mmlu_anatomy", "acc")
    assert canonical("truthfulqa_mc", "mc1") == ("truthfulqa_mc1", "acc")
    assert canonical("truthfulqa_mc", "mc2") == ("truthfulqa_mc2", "acc")
    assert canonical("truthfulqa_mc2", "mc2") == ("truthfulqa_mc2", "acc")
    assert canonical("hellaswag", "acc_norm") == ("hellaswag", "acc_norm")
