"""Suites: their definitions, and averages with what there is to know about them."""

from collections.abc import Iterable, Mapping

import pytest

from releasekit.evals.averages import SuiteResult, average
from releasekit.evals.compare import mean
from releasekit.evals.reading import read
from releasekit.evals.scores import HARNESS, Origin, Score, Unit
from releasekit.evals.suites import SUITES
from releasekit.evals.tasks import MMLU

BOARD = """Model,Average ⬆️,ARC,HellaSwag,MMLU,TruthfulQA
stabilityai/FreeWilly1-Delta-SafeTensor,68.67,68.2,85.9,64.8,55.8
stabilityai/FreeWilly2,71.42,71.1,86.4,68.8,59.4
huggyllama/llama-65b,64.23,63.5,86.1,63.9,43.4
meta-llama/Llama-2-70b-chat-hf,66.8,64.6,85.9,63.9,52.8
"""
#: A published table of both suites, with its averages: gemma-2b-orpo of anakin87.
AGIEVAL = {
    "agieval_aqua_rat": (15.35, 17.32),
    "agieval_logiqa_en": (25.96, 29.34),
    "agieval_lsat_ar": (19.57, 20.00),
    "agieval_lsat_lr": (23.14, 21.96),
    "agieval_lsat_rc": (24.16, 24.54),
    "agieval_sat_en": (29.61, 27.18),
    "agieval_sat_en_without_passage": (30.58, 24.76),
    "agieval_sat_math": (23.64, 25.00),
}
GPT4ALL = {
    "arc_challenge": (37.97, 40.61),
    "arc_easy": (67.63, 65.82),
    "boolq": (69.85, None),
    "hellaswag": (52.39, 67.70),
    "openbookqa": (25.40, 37.40),
    "piqa": (71.71, 72.74),
    "winogrande": (53.59, None),
}


def score(
    task: str,
    value: float,
    *,
    metric: str = "acc",
    shots: int | None = 0,
    stderr: float | None = None,
    harness: str = "0.4.3",
    prompt: str | None = None,
    filters: str | None = None,
    partial: bool = False,
) -> Score:
    return Score(
        task=task,
        metric=metric,
        value=value,
        unit=Unit.PERCENT,
        origin=Origin(
            file="r.json", sha256="0a" * 32, kind=HARNESS, harness=harness, prompt=prompt
        ),
        stderr=stderr,
        shots=shots,
        filter=filters,
        partial=partial,
    )


def published(table: Mapping[str, tuple[float, float | None]]) -> list[Score]:
    scores = []
    for task, (acc, acc_norm) in table.items():
        scores.append(score(task, acc))
        if acc_norm is not None:
            scores.append(score(task, acc_norm, metric="acc_norm"))
    return scores


def of_board(model: str) -> SuiteResult:
    scores = read(BOARD.encode(), "board.csv", model=model).scores
    return average(SUITES["open-llm-leaderboard"], scores)


def four(*values: float) -> list[Score]:
    tasks = SUITES["open-llm-leaderboard"].tasks
    return [
        score(task.name, value, metric=task.metrics[0], shots=task.shots)
        for task, value in zip(tasks, values, strict=True)
    ]


def mmlu(value: float = 60, names: Iterable[str] = MMLU) -> list[Score]:
    return [score(name, value, shots=5, stderr=2.0) for name in names]


@pytest.mark.parametrize(
    ("model", "stated"),
    [
        ("stabilityai/FreeWilly1-Delta-SafeTensor", "68.67"),  # the mean is 68.675
        ("stabilityai/FreeWilly2", "71.42"),  # 71.425
        ("huggyllama/llama-65b", "64.23"),  # 64.225
        ("meta-llama/Llama-2-70b-chat-hf", "66.8"),
    ],
)
def test_an_average_that_the_leaderboard_rounded_later_is_its_own(
    model: str, stated: str
) -> None:
    result = of_board(model)
    assert mean(result) == stated
    assert (result.missing, result.notes, result.stderr) == ((), (), None)


def test_an_average_that_the_figures_do_not_bear_out_is_reported() -> None:
    scores = [*four(68.2, 85.9, 64.8, 55.8), score("open-llm-leaderboard", 68.74)]
    stated = [*scores[:-1], score("open-llm-leaderboard", 68.74, metric="average")]
    result = average(SUITES["open-llm-leaderboard"], stated)
    assert result.average == pytest.approx(68.675)
    assert result.stated is None
    assert result.notes == (
        "r.json states an average of 68.74, but the mean of the figures is 68.67, which is "
        "taken.",
    )


def test_published_averages_come_out() -> None:
    agieval = average(SUITES["agieval"], published(AGIEVAL))
    gpt4all = average(SUITES["gpt4all"], published(GPT4ALL))
    assert agieval.average == pytest.approx(23.76, abs=0.005)
    # The table says 58.25, from figures before they were rounded.
    assert gpt4all.average == pytest.approx(58.25, abs=0.01)
    assert [figure.metric for figure in gpt4all.figures] == [
        *("acc_norm", "acc_norm", "acc", "acc_norm", "acc_norm", "acc_norm", "acc")
    ]


def test_without_a_task_there_is_no_average() -> None:
    scores = [
        *four(68.2, 85.9, 64.8, 55.8)[:3],
        score("open-llm-leaderboard", 68.67, metric="average"),
    ]
    result = average(SUITES["open-llm-leaderboard"], scores)
    assert (result.average, result.stated, result.missing) == (
        *(None, None, ("truthfulqa_mc2",)),
    )
    assert [figure.value for figure in result.figures] == [68.2, 85.9, 64.8]
    assert result.notes == (
        "The average that r.json states, 68.67, is left out: without truthfulqa_mc2 it "
        "cannot be checked.",
    )


def test_the_error_of_an_average_is_that_of_independent_tasks() -> None:
    scores = [
        score(task.name, 50, metric="acc_norm", stderr=2.0)
        for task in SUITES["agieval"].tasks
    ]
    result = average(SUITES["agieval"], scores)
    assert result.stderr == pytest.approx(2 / 8**0.5)
    without = average(SUITES["agieval"], [*scores[1:], score("agieval_aqua_rat", 50)])
    assert without.missing == ("agieval_aqua_rat",)  # acc is not what this suite counts


def test_mmlu_is_the_mean_of_all_its_subjects() -> None:
    parts = [score(name, place, shots=5) for place, name in enumerate(MMLU)]
    result = average(SUITES["open-llm-leaderboard"], parts)
    figure = result.figure("mmlu")
    assert figure is not None
    assert (figure.value, figure.shots, figure.stderr) == (28.0, 5, None)
    assert len(figure.scores) == 57
    assert result.notes == (
        "MMLU is the unweighted mean of its 57 subjects, as on the leaderboard.",
    )


def test_mmlu_is_never_made_of_a_part_of_its_subjects() -> None:
    result = average(SUITES["open-llm-leaderboard"], mmlu(names=MMLU[1:]))
    assert result.figure("mmlu") is None
    assert result.notes == ("MMLU is left out: 56 of its 57 subjects have a figure.",)


def test_mmlu_of_subjects_asked_differently_is_left_out() -> None:
    parts = [*mmlu(names=MMLU[1:]), score(MMLU[0], 50, shots=0)]
    result = average(SUITES["open-llm-leaderboard"], parts)
    assert result.figure("mmlu") is None
    assert result.notes == ("MMLU is left out: its subjects differ in n-shot or prompt.",)


def test_the_harness_own_mmlu_stands_beside_the_leaderboards() -> None:
    result = average(SUITES["open-llm-leaderboard"], [*four(60, 60, 62.5, 60), *mmlu(60)])
    assert result.average == pytest.approx(60)
    assert result.notes == (
        "MMLU is the unweighted mean of its 57 subjects, as on the leaderboard; the "
        "harness' own figure, 62.5, weights them by size.",
    )
    alone = average(SUITES["open-llm-leaderboard"], four(60, 60, 62.5, 60))
    assert alone.average == pytest.approx(60.625)


def test_the_harness_own_group_stands_beside_the_average() -> None:
    scores = [*published(AGIEVAL), score("agieval_nous", 24.5, metric="acc_norm")]
    assert average(SUITES["agieval"], scores).notes == (
        "The harness' own group agieval_nous gives 24.5, as it weights the tasks by size.",
    )


def test_the_suites_own_n_shot_is_preferred() -> None:
    scores = [
        *(score("hellaswag", 50 + n, metric="acc_norm", shots=n) for n in (0, 5, 10)),
        score("hellaswag", 49, metric="acc_norm", shots=None),
    ]
    board = average(SUITES["open-llm-leaderboard"], scores).figure("hellaswag")
    gpt4all = average(SUITES["gpt4all"], scores).figure("hellaswag")
    assert board is not None
    assert gpt4all is not None
    assert (board.value, gpt4all.value) == (60, 50)


def test_figures_of_another_n_shot_are_left_out() -> None:
    result = average(
        SUITES["gpt4all"], [score("hellaswag", 50, metric="acc_norm", shots=10)]
    )
    assert result.figures == ()
    assert result.notes == (
        "HellaSwag is left out: it is 10-shot here, and 0-shot in the suite.",
    )


def test_of_several_figures_none_is_chosen() -> None:
    scores = [
        score("boolq", 50, prompt="alpaca"),
        score("boolq", 60, prompt=None),
    ]
    result = average(SUITES["gpt4all"], scores)
    assert result.figure("boolq") is None
    assert result.notes == (
        "BoolQ is left out, as it has several figures: 50 (r.json, harness 0.4.3) and 60 "
        "(r.json, harness 0.4.3); give only the one that counts.",
    )


def test_mixed_runs_are_said() -> None:
    scores = [
        score("boolq", 50, harness="0.3", prompt="alpaca"),
        score("winogrande", 50, harness="0.4.3", partial=True),
    ]
    assert average(SUITES["gpt4all"], scores).notes == (
        "The harness' versions differ: 0.3, 0.4.3.",
        "The prompts differ: alpaca; none.",
        "Only a part of the questions was asked of Winogrande.",
    )


def test_gsm8k_counts_the_strict_answers() -> None:
    found = average(
        SUITES["open-llm-leaderboard-2023-11"],
        [
            score("gsm8k", 30, metric="exact_match", shots=5, filters="flexible-extract"),
            score("gsm8k", 20, metric="exact_match", shots=5, filters="strict-match"),
        ],
    ).figure("gsm8k")
    assert found is not None
    assert (found.value, found.filter) == (20, "strict-match")


def test_suites_are_what_they_were_published_as() -> None:
    shots = {
        suite.id: [(task.name, task.shots) for task in suite.tasks]
        for suite in SUITES.values()
    }
    assert shots["open-llm-leaderboard"] == [
        *(("arc_challenge", 25), ("hellaswag", 10), ("mmlu", 5), ("truthfulqa_mc2", 0)),
    ]
    assert shots["open-llm-leaderboard-2023-11"][4:] == [("winogrande", 5), ("gsm8k", 5)]
    assert [name for name, _ in shots["agieval"]] == list(AGIEVAL)
    assert {name for name, _ in shots["gpt4all"]} == set(GPT4ALL)
    registered = {
        task.name: (task.benchmark.dataset, task.benchmark.task)
        for suite in SUITES.values()
        for task in suite.tasks
        if task.benchmark is not None
    }
    assert registered == {"gsm8k": ("openai/gsm8k", "gsm8k")}
