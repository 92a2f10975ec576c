"""`releasekit evals`: tables, JSON, charts, and refusals with their exit codes."""

import json
from pathlib import Path

import pytest

from releasekit.cli.evals import command
from releasekit.cli.shell import run

BOARD = """Model,Average ⬆️,ARC,HellaSwag,MMLU,TruthfulQA
org/m,68.67,68.2,85.9,64.8,55.8
org/b,64.23,63.5,86.1,63.9,43.4
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.csv"
    path.write_text(BOARD)
    return path


def called(*arguments: str | Path) -> int:
    return run(command, [str(argument) for argument in arguments])


def compared(board: Path, *more: str | Path) -> int:
    return called(
        *(board, "--model", "org/m", "--base", board, "--base-model", "org/b", *more)
    )


def test_a_table_a_suite_with_its_rule_and_its_files(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(board) == 0
    assert capsys.readouterr().out == (
        """Open LLM Leaderboard
task           n-shot  metric    model   base  difference
ARC-Challenge      25  acc_norm   68.2   63.5        +4.7
HellaSwag          10  acc_norm   85.9   86.1        −0.2
MMLU                5  acc        64.8   63.9        +0.9
TruthfulQA          0  mc2        55.8   43.4       +12.4
average                          68.67  64.23        +4.4
Average: Unweighted mean of ARC-Challenge, HellaSwag, MMLU and TruthfulQA, in percent.

From
board.csv  leaderboard, org/m
board.csv  leaderboard, org/b
"""
    )


def test_what_is_to_be_known_stands_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, base = tmp_path / "mine.toml", tmp_path / "base.toml"
    entry = '[[evaluations]]\ntask = "{}"\nmetric = "acc"\nvalue = {}\nunit = "percent"\n'
    mine.write_text(entry.format("boolq", 80) + "shots = 0\n" + entry.format("mine", 12.5))
    base.write_text(entry.format("boolq", 70) + "shots = 5\n")
    assert called(mine, "--model", "m", "--base", base, "--base-model", "b", "-v") == 0
    out = capsys.readouterr().out
    for line in (
        "BoolQ               0  acc      80.0     –           –",
        "Note on b: BoolQ is left out: it is 5-shot here, and 0-shot in the suite.",
        "Other figures",
        "mine       –  acc      12.5     –           –",
        "mine.toml  table",
    ):
        assert line in out.splitlines()
    assert out.count("SHA-256 ") == 2


def test_one_document_with_what_each_figure_is_from(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(board, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["base"]) == ("org/m", "org/b")
    (suite,) = document["suites"]
    assert suite["model"]["average"] == 68.67
    assert suite["difference"] == pytest.approx(4.44)
    first = suite["tasks"][0]
    assert first["model"]["value"] == 68.2
    assert document["origins"][first["model"]["origins"][0]]["model"] == "org/m"
    assert document["origins"][first["base"]["origins"][0]]["model"] == "org/b"
    assert document["charts"] == []


def test_charts_are_drawn_into_a_folder(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "charts"
    assert compared(board, "--chart", folder) == 0
    names = ["evaluations.png", "evaluations.svg"]
    names += ["evaluations-dark.png", "evaluations-dark.svg"]
    assert capsys.readouterr().out.splitlines()[-4:] == [
        f"drawn  {folder / name}" for name in names
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_findings_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "drop.csv"
    path.write_text("Model,Average,ARC,DROP\norg/m,45,50,40\n")
    assert called(path) == 0
    assert capsys.readouterr().err == (
        "warning: drop.csv: line 2: the average 45 is left out: it is over "
        '"ARC", "DROP", which no suite is.\n'
    )


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        (
            "x.txt",
            "",
            2,
            '"x.txt": expected a name that ends in .json (lm-evaluation-harness), .toml or '
            ".csv (a table)",
        ),
        ("x.toml", "[", 3, "x.toml: not valid TOML: "),
    ],
)
def test_refusals_have_their_exit_codes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    text: str,
    code: int,
    words: str,
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert called(path) == code
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    assert called(path) == 1
    assert capsys.readouterr().err == f"error: {path}: No such file or directory\n"
