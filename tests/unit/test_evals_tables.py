"""Tables of figures, in TOML and CSV: what is read, and each refusal in its words."""

import pytest

from releasekit.errors import FormatError, UsageError
from releasekit.evals.reading import read
from releasekit.evals.scores import LEADERBOARD, TABLE, Score, Unit

ARROW = "Average ⬆️"
BOARD = f"""Model,{ARROW},ARC,HellaSwag,MMLU,TruthfulQA,Precision
stabilityai/FreeWilly1-Delta-SafeTensor,68.67,68.2,85.9,64.8,55.8,8bit
stabilityai/FreeWilly2,71.42,71.1,86.4,68.8,59.4,float16
huggyllama/llama-65b,64.23,63.5,86.1,63.9,43.4,float16
huggyllama/llama-65b,62.1,57.6,84.3,63.4,43.0,float16
"""
ENTRY = """[[evaluations]]
task = "hellaswag"
metric = "acc_norm"
value = 85.9
unit = "percent"
"""


def csv(text: str, model: str | None = None) -> tuple[Score, ...]:
    return read(text.encode(), "t.csv", model=model).scores


def toml(text: str, model: str | None = None) -> tuple[Score, ...]:
    return read(text.encode(), "t.toml", model=model).scores


def brief(scores: tuple[Score, ...]) -> list[tuple[str, str, float, int | None]]:
    return [(s.task, s.metric, s.value, s.shots) for s in scores]


def test_a_row_of_the_leaderboard_has_its_metrics_and_n_shots() -> None:
    scores = csv(BOARD, "stabilityai/FreeWilly1-Delta-SafeTensor")
    assert brief(scores) == [
        ("arc_challenge", "acc_norm", 68.2, 25),
        ("hellaswag", "acc_norm", 85.9, 10),
        ("mmlu", "acc", 64.8, 5),
        ("truthfulqa_mc2", "acc", 55.8, 0),
        ("open-llm-leaderboard", "average", 68.67, None),
    ]
    assert {score.unit for score in scores} == {Unit.PERCENT}
    assert {score.origin.kind for score in scores} == {LEADERBOARD}


def test_a_model_that_stands_twice_with_other_figures_is_refused_with_both() -> None:
    with pytest.raises(FormatError) as caught:
        csv(BOARD, "huggyllama/llama-65b")
    assert str(caught.value) == (
        't.csv: model "huggyllama/llama-65b" stands twice, with figures that differ: '
        f"line 4 has {ARROW} 64.23, "
        "ARC 63.5, HellaSwag 86.1, MMLU 63.9, TruthfulQA 43.4; "
        f"line 5 has {ARROW} 62.1, ARC 57.6, HellaSwag 84.3, MMLU 63.4, TruthfulQA 43; "
        "keep the row whose date and harness commit are known"
    )


def test_a_model_that_stands_twice_with_the_same_figures_is_taken_once() -> None:
    lines = BOARD.splitlines()
    assert len(csv("\n".join([lines[0], lines[1], lines[1]]))) == 5


def test_names_inside_links_are_found() -> None:
    row = 'Model,ARC\n"<a target=""_blank"" href=""x"">org/m</a>",68.2\n'
    (score,) = csv(row, "org/m")
    assert score.origin.model == "org/m"


def test_six_columns_are_the_later_leaderboard() -> None:
    scores = csv(
        "Model,Average,ARC,HellaSwag,MMLU,TruthfulQA,Winogrande,GSM8K\n"
        "org/m,50.0,50,50,50,50,50,50\n"
    )
    assert brief(scores)[4:] == [
        ("winogrande", "acc", 50.0, 5),
        ("gsm8k", "acc", 50.0, 5),
        ("open-llm-leaderboard-2023-11", "average", 50.0, None),
    ]


def test_an_average_over_other_columns_is_left_out_and_said() -> None:
    results = read(
        b"Model,Average,ARC,HellaSwag,MMLU,TruthfulQA,Winogrande,GSM8K,DROP\n"
        b"org/m,45,50,50,50,50,50,50,15\n",
        "t.csv",
    )
    assert {score.metric for score in results.scores} == {"acc", "acc_norm"}
    assert results.findings == (
        't.csv: line 2: the average 45 is left out: it is over "ARC", "HellaSwag", "MMLU", '
        '"TruthfulQA", "Winogrande", "GSM8K", "DROP", which no suite is.',
    )


def test_a_plain_table_states_its_units() -> None:
    first, second = csv(
        "\ufefftask,metric,value,unit,shots,stderr,date,higher_is_better,url\r\n"
        "hellaswag,acc_norm,0.859,fraction,10,0.003,2023-07-21,,\r\n"
        "\r\n"
        '"wikitext",word_perplexity,8.5,raw,,,,false,https://example.org/x\r\n'
    )
    assert (first.value, first.unit, first.shots, first.stderr) == (
        *(0.859, Unit.FRACTION, 10, 0.003),
    )
    assert (first.origin.kind, first.origin.date) == (TABLE, "2023-07-21")
    assert (second.unit, second.higher_is_better) == (Unit.RAW, False)
    assert second.origin.url == "https://example.org/x"


def test_of_a_table_of_several_models_one_is_taken() -> None:
    text = (
        "task,metric,value,unit,model\n"
        "piqa,acc,0.5,fraction,org/a\n"
        "piqa,acc,0.25,fraction,org/b\n"
    )
    assert brief(csv(text, "org/b")) == [("piqa", "acc", 0.25, None)]
    with pytest.raises(UsageError) as caught:
        csv(text)
    assert str(caught.value) == (
        't.csv: expected one model, found "org/a", "org/b"; name the one to take'
    )
    with pytest.raises(UsageError) as caught:
        csv(text, "org/c")
    assert str(caught.value) == (
        't.csv: expected a row of model "org/c", found "org/a", "org/b"'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Name,Score\nx,1\n",
            "line 1: expected the columns task, metric, value and unit, or those of the "
            'Open LLM Leaderboard, found "Name", "Score"',
        ),
        (
            "",
            "line 1: expected the columns task, metric, value and unit, or those of the "
            "Open LLM Leaderboard, found none",
        ),
        ("task,metric,value,unit,sigma\n", 'line 1: unknown column "sigma"'),
        ("task,task\n", "line 1: a column stands twice"),
        ("task,metric,value,unit\na,b,1\n", "line 2: expected 4 cells, found 3"),
        (
            "task,metric,value,unit\na,b,68.2,\n",
            'line 2: missing field "unit"',
        ),
        (
            "task,metric,value,unit\na,b,68.2,%\n",
            'line 2: unit: expected one of "fraction", "percent", "raw", found "%"',
        ),
        (
            'task,metric,value,unit\na,b,"68,2",percent\n',
            'line 2: value: expected a number such as 68.2, found "68,2"',
        ),
        (
            "task,metric,value,unit\na,b,nan,raw\n",
            'line 2: value: expected a number such as 68.2, found "nan"',
        ),
        (
            "task,metric,value,unit,shots\na,b,1,raw,few\n",
            'line 2: shots: expected an integer of at least 0, found "few"',
        ),
        (
            "task,metric,value,unit,higher_is_better\na,b,1,raw,yes\n",
            'line 2: higher_is_better: expected true or false, found "yes"',
        ),
        (
            "Model,ARC\norg/m,0.682%\n",
            'line 2: ARC: expected a number such as 68.2, found "0.682%"',
        ),
        ("Model,ARC\norg/m,\n", "line 2: expected figures, found none"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        csv(text)
    assert str(caught.value) == f"t.csv: {words}"


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(FormatError, match=r"^t\.csv: line 2: unexpected end of data$"):
        csv('task,metric,value,unit\n"a,b,1,raw\n')


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        csv("task,metric,value,unit\n")
    assert str(caught.value) == "t.csv: expected a row, found none"


def test_toml_takes_all_that_is_known() -> None:
    (score,) = toml(
        ENTRY
        + """shots = 10
stderr = 0.3
samples = 10042
higher_is_better = true
filter = "strict"
version = "1"
model = "org/m"
harness = "0.3"
commit = "b281b09"
date = 2023-07-21
url = "https://example.org/x"
prompt = "alpaca"
notes = "run by us"
"""
    )
    assert brief((score,)) == [("hellaswag", "acc_norm", 85.9, 10)]
    assert (score.stderr, score.samples, score.higher_is_better) == (0.3, 10042, True)
    assert (score.filter, score.version) == ("strict", "1")
    origin = score.origin
    assert (origin.model, origin.harness, origin.commit) == ("org/m", "0.3", "b281b09")
    assert (origin.date, origin.url) == ("2023-07-21", "https://example.org/x")
    assert (origin.prompt, origin.notes) == ("alpaca", "run by us")


def test_toml_takes_a_row_of_a_leaderboard() -> None:
    scores = toml(
        """[[suites]]
suite = "open-llm-leaderboard"
unit = "fraction"
average = 0.6867
date = 2023-07-21
scores = { mmlu = 0.648, arc_challenge = 0.682 }
"""
    )
    assert brief(scores) == [
        ("arc_challenge", "acc_norm", 0.682, 25),
        ("mmlu", "acc", 0.648, 5),
        ("open-llm-leaderboard", "average", 0.6867, None),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected tables [[evaluations]] or [[suites]], found neither"),
        (ENTRY + "sigma = 1\n", 'evaluations[0]: unknown field "sigma"'),
        (
            ENTRY.replace('unit = "percent"\n', ""),
            'evaluations[0]: missing field "unit"',
        ),
        (
            ENTRY.replace("85.9", '"85.9"'),
            'evaluations[0].value: expected a number, found "85.9"',
        ),
        (
            '[[suites]]\nsuite = "openllm"\n',
            'suites[0].suite: expected one of "open-llm-leaderboard", '
            '"open-llm-leaderboard-2023-11", "agieval", "gpt4all", found "openllm"',
        ),
        (
            '[[suites]]\nsuite = "gpt4all"\nunit = "percent"\nscores = { arc = 1 }\n',
            'suites[0].scores: unknown field "arc"',
        ),
    ],
)
def test_toml_that_is_wrong_is_refused_with_its_path(text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        toml(text)
    assert str(caught.value) == f"t.toml: {words}"


def test_a_figure_outside_its_unit_is_refused() -> None:
    with pytest.raises(FormatError) as caught:
        toml(ENTRY.replace("percent", "fraction"))
    assert str(caught.value) == (
        't.toml: "hellaswag": acc_norm: expected a fraction from 0 to 1, found 85.9'
    )


def test_files_are_told_by_their_names() -> None:
    with pytest.raises(UsageError) as caught:
        read(b"", "results.txt")
    assert str(caught.value) == (
        '"results.txt": expected a name that ends in .json (lm-evaluation-harness), .toml '
        "or .csv (a table)"
    )
