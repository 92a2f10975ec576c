"""Result files of lm-evaluation-harness: true ones of several versions, and bad ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tests.evals
from releasekit.errors import FormatError
from releasekit.evals.harness import parse
from releasekit.evals.scores import HARNESS, Origin, Results, Score, Unit
from releasekit.evals.tasks import MMLU

SHA = "0a" * 32
TRUE = Path(str(tests.evals.__file__)).parent
BROKEN = "broken"
FRACTIONS = {"acc", "acc_norm", "exact_match", "mc1", "mc2"}
FILES = sorted(TRUE.glob("v*/*/*/results*.json"))

Document = dict[str, Any]


def named(path: Path) -> str:
    return "/".join(path.parts[-4:-1])


def true(version: str, run: str, model: str = "tiny-chat") -> Results:
    (path,) = TRUE.glob(f"v{version}/{run}/example-org__{model}/results*.json")
    return parse(path.read_bytes(), path.name, SHA)


def one(results: Results, task: str, metric: str) -> Score:
    (found,) = [s for s in results.scores if (s.task, s.metric) == (task, metric)]
    return found


def test_true_files_of_each_layout_are_there() -> None:
    versions = {path.parts[-4] for path in FILES}
    assert {"v0.3.0", "v0.4.0", "v0.4.3", "v0.4.9", "v0.4.13"} <= versions


@pytest.mark.parametrize("path", [p for p in FILES if BROKEN not in p.parts], ids=named)
def test_true_files_are_read_whole(path: Path) -> None:
    document = json.loads(path.read_bytes())
    results = parse(path.read_bytes(), path.name, SHA)
    figures = [
        value
        for entry in document["results"].values()
        for key, value in entry.items()
        if isinstance(value, float) and "_stderr" not in key
    ]
    assert [score.value for score in results.scores] == figures
    assert all(
        (score.unit is Unit.FRACTION) == (score.metric in FRACTIONS)
        for score in results.scores
    )
    (origin,) = {score.origin for score in results.scores}
    assert origin.file == path.name
    assert origin.kind == HARNESS
    assert origin.model == path.parts[-2].replace("__", "/")
    assert origin.harness is not None
    assert path.parts[-4].removeprefix("v").startswith(origin.harness)


@pytest.mark.parametrize("path", [p for p in FILES if BROKEN in p.parts], ids=named)
def test_a_true_figure_that_is_not_a_number_is_refused(path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        parse(path.read_bytes(), "r.json", SHA)
    field = "qa_mc.mc2" if "v0.3.0" in path.parts else 'qa_mc2["acc,none"]'
    assert str(caught.value) == (
        f'r.json: results.truthful{field}: expected a number, found "NaN"'
    )


def test_the_old_layout_gives_old_tasks_their_new_names() -> None:
    results = true("0.3.0", "arc")
    assert one(results, "arc_challenge", "acc_norm") == Score(
        task="arc_challenge",
        metric="acc_norm",
        value=0.4,
        unit=Unit.FRACTION,
        origin=Origin(
            file="results.json",
            sha256=SHA,
            kind=HARNESS,
            model="example-org/tiny-chat",
            harness="0.3",
        ),
        stderr=0.24494897427831783,
        shots=25,
        higher_is_better=True,
        version="0",
    )


def test_the_newest_layout_tells_more() -> None:
    score = one(true("0.4.13", "arc"), "arc_challenge", "acc_norm")
    assert (score.value, score.shots, score.samples) == (0.4, 25, 5)
    assert (score.version, score.filter, score.partial) == ("1", None, False)
    assert score.origin.harness == "0.4.13"
    assert score.origin.date is not None
    assert score.origin.date.startswith("2026-")


def test_a_prompt_is_named_by_its_hashes() -> None:
    (origin,) = {score.origin for score in true("0.4.13", "templated").scores}
    assert origin.prompt == (
        "chat template 940ccc7e7e7cec71, system instruction 8d09ce4803be0df9, examples as "
        "turns"
    )


@pytest.mark.parametrize("version", ["0.4.0", "0.4.3", "0.4.13"])
def test_groups_are_told_from_their_tasks(version: str) -> None:
    results = true(version, "mmlu")
    groups = {score.task for score in results.scores if score.aggregate}
    assert groups == {
        *("mmlu", "mmlu_stem", "mmlu_other", "mmlu_humanities", "mmlu_social_sciences")
    }
    assert {score.task for score in results.scores} == groups | set(MMLU)
    # The newest states none for groups of groups; its tasks share one.
    assert one(results, "mmlu", "acc").shots == 5


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "0.4.3", "0.4.9", "0.4.13"])
def test_a_run_on_a_part_of_the_questions_says_so(version: str) -> None:
    assert {score.partial for score in true(version, "limited").scores} == {True}
    assert {score.partial for score in true(version, "gpt4all").scores} == {False}


@pytest.mark.parametrize("version", ["0.3.0", "0.4.0", "0.4.3", "0.4.9", "0.4.13"])
def test_metrics_of_another_scale_are_raw(version: str) -> None:
    score = one(true(version, "wikitext"), "wikitext", "bits_per_byte")
    assert score.unit is Unit.RAW
    assert score.value > 1
    assert score.stderr is None
    assert score.higher_is_better is (None if version in ("0.3.0", "0.4.0") else False)


def current() -> Document:
    return {
        "results": {
            "t": {
                "alias": "t",
                "acc,none": 0.25,
                "acc_stderr,none": 0.125,
                "exact_match,strict-match": 0.5,
                "exact_match_stderr,strict-match": "N/A",
            },
            "g": {" ": " ", "alias": "g"},
        },
        "configs": {},
        "versions": {"t": 1.5, "g": "N/A"},
        "n-shot": {"t": 5},
        "n-samples": {"t": {"original": 4, "effective": 4}},
        "higher_is_better": {"t": {"acc": True, "exact_match": None}},
        "config": {"model": "hf", "model_args": "pretrained=/home/me/org/m,dtype=float16"},
        "git_hash": "v0.4.3-1-gabc",
        "date": 1689935400.5,
        "upper_git_hash": None,
    }


def read(document: Document) -> Results:
    return parse(json.dumps(document).encode(), "r.json", SHA)


def test_a_model_on_somebodys_disk_goes_by_its_folder() -> None:
    acc, match = read(current()).scores
    assert acc.origin == Origin(
        file="r.json",
        sha256=SHA,
        kind=HARNESS,
        model="m",
        harness="0.4",
        commit="v0.4.3-1-gabc",
        date="2023-07-21T10:30:00Z",
    )
    assert (acc.stderr, acc.version, acc.filter) == (0.125, "1.5", None)
    assert (match.stderr, match.filter) == (None, "strict-match")


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ({"model": "hf", "model_args": {"pretrained": "org/m"}}, "org/m"),
        ({"model": "hf", "model_args": "pretrained=org/b,peft=org/p"}, "org/p"),
        ({"model": "hf", "model_args": r"pretrained=C:\me\m"}, "m"),
        ({"model": "gpt2", "model_args": None}, "gpt2"),
        ({}, None),
    ],
)
def test_the_model_is_found_among_the_arguments(
    config: Document, model: str | None
) -> None:
    assert read(current() | {"config": config}).scores[0].origin.model == model


def test_numbers_that_were_written_as_text_are_numbers() -> None:
    document = current()
    document["results"]["t"] |= {"acc,none": "0.5", "acc_stderr,none": "1e-2"}
    score = read(document).scores[0]
    assert (score.value, score.stderr) == (0.5, 0.01)


@pytest.mark.parametrize("stderr", [None, "N/A", float("nan")])
def test_a_standard_error_that_is_no_number_is_left_out(stderr: object) -> None:
    document = current()
    document["results"]["t"]["acc_stderr,none"] = stderr
    assert read(document).scores[0].stderr is None


def test_a_placeholder_is_no_figure() -> None:
    document = current()
    document["results"] = {"t": {"bypass,none": 999, "bypass_stderr,none": "N/A"}}
    assert read(document).scores == ()


def change(*path: str, to: object) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        at = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("apply", "words"),
    [
        (
            change("results", "t", "acc,none", to=float("nan")),
            'results.t["acc,none"]: expected a number, found "NaN"',
        ),
        (
            change("results", "t", "acc,none", to=None),
            'results.t["acc,none"]: expected a number, found null',
        ),
        (
            change("results", "t", "acc,none", to=41.2),
            'results.t["acc,none"]: expected a fraction from 0 to 1, found 41.2',
        ),
        (
            change("results", "t", "acc_stderr,none", to=-1),
            'results.t["acc_stderr,none"]: expected a standard error of at least 0, found '
            "-1",
        ),
        (
            change("results", "t", "acc_stderr,none", to=[1]),
            'results.t["acc_stderr,none"]: expected a number, found an array of 1',
        ),
        (
            change("results", "t", to=0.5),
            "results.t: expected an object, found 0.5",
        ),
        (
            change("n-shot", "t", to="five"),
            'n-shot.t: expected an integer of at least 0, found "five"',
        ),
        (change("date", to="today"), 'date: expected a number, found "today"'),
        (change("date", to=-1), "date: expected seconds since 1970, found -1"),
        (
            change("config_general", to={}),
            "expected a result file of lm-evaluation-harness, found a file of lighteval; "
            "figures of other programs can be given as a table, .toml or .csv",
        ),
    ],
)
def test_what_is_read_is_read_strictly(
    apply: Callable[[Document], None], words: str
) -> None:
    document = current()
    apply(document)
    with pytest.raises(FormatError) as caught:
        read(document)
    assert str(caught.value) == f"r.json: {words}"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            b"[]",
            "found no object; samples_*.jsonl hold answers: take results_*.json beside "
            "them; a table's name ends in .toml or .csv",
        ),
        (
            b'{"doc_id": 0}\n{"doc_id": 1}\n',
            "found an object a line, as samples_*.jsonl have; take results_*.json beside "
            "them",
        ),
        (b"{}", 'found an object without "results"'),
        (b'{"results": {}}', 'found an object without "versions"'),
    ],
)
def test_what_is_no_result_file_is_refused(document: bytes, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(document, "r.json", SHA)
    assert str(caught.value) == (
        f"r.json: expected a result file of lm-evaluation-harness, {words}"
    )
