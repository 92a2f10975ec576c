"""Every reader of evaluations, on any bytes: figures, or an error of ours in words."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.evals
from releasekit.errors import ReleaseKitError
from releasekit.evals import harness, tables
from releasekit.evals.collection import Collection
from releasekit.evals.compare import compare
from releasekit.evals.document import Evaluations, pack, parse
from releasekit.evals.scores import Results
from tests.fuzz import mutation

T = TypeVar("T")
SHA = "0a" * 32
CSV = (
    b"Model,Average,ARC,HellaSwag,MMLU,TruthfulQA\n"
    b'org/m,68.67,68.2,85.9,64.8,55.8\n"<a href=x>org/b</a>",64.23,63.5,86.1,63.9,43.4\n'
)
PLAIN = (
    b"task,metric,value,unit,shots,stderr,date,higher_is_better,model\n"
    b"hellaswag,acc_norm,0.859,fraction,10,0.003,2023-07-21,true,org/m\n"
)
TOML = b"""[[evaluations]]
task = "hellaswag"
metric = "acc_norm"
value = 85.9
unit = "percent"
date = 2023-07-21
[[suites]]
suite = "open-llm-leaderboard"
unit = "percent"
average = 68.67
scores = { arc_challenge = 68.2, hellaswag = 85.9 }
"""
TRUE = sorted(Path(str(tests.evals.__file__)).parent.glob("v*/arc/*chat/results*.json"))
# Of the files' size mostly settings are; changes are to hit what is read.
HARNESS = [
    json.dumps(
        {
            key: value
            for key, value in json.loads(path.read_bytes()).items()
            if key not in ("configs", "pretty_env_info", "task_hashes")
        }
    ).encode()
    for path in TRUE
]
DOCUMENT = pack(
    Evaluations.of(
        Collection.of(tables.parse_csv(CSV, "x", SHA, model="org/m")),
        Collection.of(tables.parse_csv(CSV, "x", SHA, model="org/b")),
    )
)
TOKENS = [
    *(b'"', b",", b"\n", b"\r", b"{", b"}", b"[", b"]", b"=", b":", b"\0", b"\\", b"-"),
    *(b"NaN", b"Infinity", b'"N/A"', b"null", b"1e999", b"9" * 30, b"-1", b"101", b"[[1]]"),
    *(b"acc,none", b"acc_stderr,none", b"versions", b"org/m", b"percent", b"\xff", b"\xed"),
    *("\u202e".encode(), "é".encode(), b"true", b"0.5", b'"0.5"', b"{}", b"\xef\xbb\xbf"),
]


mutated = partial(mutation.mutated, tokens=TOKENS)


def attempt(call: Callable[[], T]) -> T | None:
    """What `call` returns, or None if it refuses in words."""
    try:
        return call()
    except ReleaseKitError as error:
        message = str(error)
    assert message.isprintable()
    return None


def check(results: Results | None) -> None:
    """Whatever is read can be merged, compared and kept, or is refused."""
    if results is None:
        return
    found = attempt(lambda: Collection.of(results))
    if found is not None:
        evaluations = Evaluations.of(found, found)
        assert parse(pack(evaluations)) == evaluations
        assert compare(found, found).model == found.name


def test_there_are_true_files() -> None:
    assert len(HARNESS) >= 3


@pytest.mark.parametrize("valid", HARNESS)
def test_result_files(valid: bytes) -> None:
    @given(mutated(valid))
    def holds(document: bytes) -> None:
        check(attempt(lambda: harness.parse(document, "x", SHA)))

    holds()


@pytest.mark.parametrize("valid", [CSV, PLAIN])
def test_csv(valid: bytes) -> None:
    @given(mutated(valid), st.sampled_from([None, "org/m"]))
    def holds(document: bytes, model: str | None) -> None:
        check(attempt(lambda: tables.parse_csv(document, "x", SHA, model=model)))

    holds()


@given(mutated(TOML))
def test_toml(document: bytes) -> None:
    check(attempt(lambda: tables.parse_toml(document, "x", SHA)))


@given(mutated(DOCUMENT))
def test_the_document(document: bytes) -> None:
    found = attempt(lambda: parse(document))
    if found is not None:
        assert parse(pack(found)) == found


@given(st.binary(max_size=64))
def test_any_bytes(document: bytes) -> None:
    check(attempt(lambda: harness.parse(document, "x", SHA)))
    check(attempt(lambda: tables.parse_csv(document, "x", SHA)))
    check(attempt(lambda: tables.parse_toml(document, "x", SHA)))
