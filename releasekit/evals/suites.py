"""Sets of tasks that are averaged together, as those who made them defined it.

Sources of n-shots and metrics:

    Open LLM Leaderboard  its archived documentation, "Reproducibility":
                          https://huggingface.co/docs/leaderboards/open_llm_leaderboard/archive
                          Winogrande and GSM8K came in November 2023, and DROP, which left
                          on 1 December:
                          discussion 356 of its space, and
                          https://huggingface.co/blog/open-llm-leaderboard-drop
    AGIEval               the eight tasks of the harness' group `agieval_nous`; cards
                          average `acc_norm`, unweighted
    GPT4All               the seven tasks of GPT4All's report, averaged likewise; boolq and
                          winogrande have no `acc_norm`

Data sets, configurations and splits are those that lm-evaluation-harness 0.4.13 loads. A
data set that the Hub has registered as a benchmark takes results in `.eval_results/`; of
those here that is GSM8K alone: https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

#: The metric of a suite's average, as a figure that a leaderboard states.
AVERAGE: Final = "average"

_CHOICE: Final = "multiple-choice"
_GENERATION: Final = "text-generation"
_MEAN: Final = "Unweighted mean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A data set that the Hub has registered as a benchmark.

    Attributes:
        dataset: its id there.
        task: which of the tasks in its `eval.yaml` is meant.
    """

    dataset: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of a suite.

    Attributes:
        name: what `tasks.canonical` calls it.
        title: what people call it.
        metrics: the metrics that count, the first that is there; a filter follows a comma,
            as in the harness' own files.
        shots: examples before each question.
        dataset: the data set's id on the Hub.
        config: its configuration, if it has several.
        split: the split that the questions are from.
        task_type: what the Hub's `model-index` calls this kind of task.
        benchmark: the benchmark on the Hub, if it has registered one.
        known_as: what tables call the metric, where that is another name.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    shots: int
    dataset: str
    split: str
    config: str | None = None
    task_type: str = _CHOICE
    benchmark: Benchmark | None = None
    known_as: str | None = None

    @property
    def measures(self) -> tuple[tuple[str, str | None], ...]:
        """The metrics that count, the first that is there, each with its filter."""
        parts = (name.partition(",") for name in self.metrics)
        return tuple((metric, filters or None) for metric, _, filters in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Tasks that are averaged together.

    Attributes:
        id: its name in documents.
        title: its name for people.
        tasks: the tasks, in the order in which tables show them.
        rule: how they are averaged, in one sentence.
        source: where that is defined.
        group: the harness' own group of the same tasks, which averages otherwise.
    """

    id: str
    title: str
    tasks: tuple[Task, ...]
    rule: str
    source: str
    group: str | None = None


def _arc(kind: str, shots: int) -> Task:
    return Task(
        name=f"arc_{kind.lower()}",
        title=f"ARC-{kind}",
        metrics=("acc_norm",),
        shots=shots,
        dataset="allenai/ai2_arc",
        config=f"ARC-{kind}",
        split="test",
    )


def _hellaswag(shots: int) -> Task:
    return Task(
        name="hellaswag",
        title="HellaSwag",
        metrics=("acc_norm",),
        shots=shots,
        dataset="Rowan/hellaswag",
        split="validation",
    )


def _winogrande(shots: int) -> Task:
    return Task(
        name="winogrande",
        title="Winogrande",
        metrics=("acc",),
        shots=shots,
        dataset="allenai/winogrande",
        config="winogrande_xl",
        split="validation",
    )


_FOUR: Final = (
    _arc("Challenge", 25),
    _hellaswag(10),
    Task(
        name="mmlu",
        title="MMLU",
        metrics=("acc",),
        shots=5,
        dataset="cais/mmlu",
        config="all",
        split="test",
    ),
    Task(
        name="truthfulqa_mc2",
        title="TruthfulQA",
        metrics=("acc",),
        shots=0,
        dataset="truthfulqa/truthful_qa",
        config="multiple_choice",
        split="validation",
        known_as="mc2",
    ),
)

_GSM8K: Final = Task(
    name="gsm8k",
    title="GSM8K",
    metrics=("acc", "exact_match,strict-match", "exact_match,get-answer"),
    shots=5,
    dataset="openai/gsm8k",
    config="main",
    split="test",
    task_type=_GENERATION,
    benchmark=Benchmark(dataset="openai/gsm8k", task="gsm8k"),
)


def _agieval(name: str, title: str) -> Task:
    return Task(
        name=f"agieval_{name}",
        title=title,
        metrics=("acc_norm",),
        shots=0,
        dataset=f"hails/agieval-{name.replace('_', '-')}",
        split="test",
    )


def _question(name: str, title: str, dataset: str, config: str | None, split: str) -> Task:
    return Task(
        name=name,
        title=title,
        metrics=("acc_norm", "acc"),
        shots=0,
        dataset=dataset,
        config=config,
        split=split,
    )


_BOARD: Final = "https://huggingface.co/docs/leaderboards/open_llm_leaderboard/archive"
#: The Open LLM Leaderboard as it was at first and at last, the smaller before the larger.
LEADERBOARD_SUITES: Final = (
    Suite(
        id="open-llm-leaderboard",
        title="Open LLM Leaderboard",
        tasks=_FOUR,
        rule=f"{_MEAN} of ARC-Challenge, HellaSwag, MMLU and TruthfulQA, in percent.",
        source=_BOARD,
    ),
    Suite(
        id="open-llm-leaderboard-2023-11",
        title="Open LLM Leaderboard (from November 2023)",
        tasks=(*_FOUR, _winogrande(5), _GSM8K),
        rule=f"{_MEAN} of the six tasks, in percent.",
        source=_BOARD,
    ),
)

_ALL: Final = (
    *LEADERBOARD_SUITES,
    Suite(
        id="agieval",
        title="AGIEval",
        tasks=(
            _agieval("aqua_rat", "AQuA-RAT"),
            _agieval("logiqa_en", "LogiQA"),
            _agieval("lsat_ar", "LSAT-AR"),
            _agieval("lsat_lr", "LSAT-LR"),
            _agieval("lsat_rc", "LSAT-RC"),
            _agieval("sat_en", "SAT-English"),
            _agieval("sat_en_without_passage", "SAT-English, no passage"),
            _agieval("sat_math", "SAT-Math"),
        ),
        rule=f"{_MEAN} of the eight tasks' acc_norm, in percent.",
        source="https://arxiv.org/abs/2304.06364",
        group="agieval_nous",
    ),
    Suite(
        id="gpt4all",
        title="GPT4All",
        tasks=(
            _question("openbookqa", "OpenBookQA", "allenai/openbookqa", "main", "test"),
            _arc("Easy", 0),
            _winogrande(0),
            _hellaswag(0),
            _arc("Challenge", 0),
            _question("piqa", "PIQA", "baber/piqa", None, "validation"),
            _question("boolq", "BoolQ", "aps/super_glue", "boolq", "validation"),
        ),
        rule=(
            f"{_MEAN} of the seven tasks, in percent: acc_norm where the task has it, else "
            "acc."
        ),
        source="https://arxiv.org/abs/2311.04931",
    ),
)
#: Every suite, by its id.
SUITES: Final[Mapping[str, Suite]] = MappingProxyType({suite.id: suite for suite in _ALL})
