"""Evaluations: what is packed is read again, and the order of files changes nothing."""

import math
from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from releasekit.errors import UsageError
from releasekit.evals.averages import average
from releasekit.evals.collection import Collection
from releasekit.evals.compare import compare, number
from releasekit.evals.document import Evaluations, pack, parse
from releasekit.evals.scores import HARNESS, KINDS, Origin, Results, Score, Unit
from releasekit.evals.suites import SUITES

#: Each is many suites.
FEWER = settings(max_examples=settings().max_examples // 3)
TASKS = sorted({task.name for suite in SUITES.values() for task in suite.tasks})

lines = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
origins = st.builds(
    Origin,
    file=st.sampled_from(["a.json", "b.json", "größe.csv"]),
    sha256=st.sampled_from(["0a" * 32, "1b" * 32]),
    kind=st.sampled_from(KINDS),
    model=st.none() | st.sampled_from(["org/m", "org/n"]),
    harness=st.none() | st.sampled_from(["0.3", "0.4.3"]),
    commit=st.none() | lines,
    date=st.sampled_from([None, "2023-07-21", "2023-07-21T10:00:00Z"]),
    url=st.sampled_from([None, "https://example.org/a?b=c#d"]),
    prompt=st.none() | lines,
    notes=st.none() | lines,
)
figures = st.sampled_from([0.0, 0.25, 0.412, 1.0, 0.682593856655290]) | st.floats(0, 1)


@st.composite
def scores(draw: st.DrawFn) -> Score:
    unit = draw(st.sampled_from(Unit))
    value = draw(figures)
    return Score(
        task=draw(st.sampled_from([*TASKS, "mine"])),
        metric=draw(st.sampled_from(["acc", "acc_norm"])),
        value=value if unit is Unit.FRACTION else 100 * value,
        unit=unit,
        origin=draw(origins),
        stderr=draw(st.none() | st.floats(0, 0.1)),
        shots=draw(st.sampled_from([None, 0, 5, 10, 25])),
        samples=draw(st.none() | st.integers(0, 10**6)),
        partial=draw(st.booleans()),
        higher_is_better=draw(st.none() | st.booleans()),
        filter=draw(st.none() | lines),
        version=draw(st.none() | lines),
        aggregate=draw(st.booleans()),
    )


def merged(found: Sequence[Score]) -> Collection | str:
    """The collection, or the words that refuse it."""
    try:
        return Collection.of(*(Results(scores=(item,)) for item in found))
    except UsageError as error:
        return str(error)


def collection(found: Sequence[Score]) -> Collection:
    """Of those that contradict each other, the first are kept."""
    kept: list[Score] = []
    for item in found:
        if isinstance(merged([*kept, item]), Collection):
            kept.append(item)
    result = merged(kept)
    assert isinstance(result, Collection)
    return result


collections = st.lists(scores(), min_size=1, max_size=12).map(collection)


@FEWER
@given(st.lists(scores(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_files_changes_nothing(found: list[Score], random: Random) -> None:
    shuffled = found.copy()
    random.shuffle(shuffled)
    one, other = merged(found), merged(shuffled)
    if isinstance(one, Collection):
        assert other == one
        assert merged([*one.scores, *found]) == one
    else:
        assert isinstance(other, str)


@FEWER
@given(collections, st.none() | collections)
def test_what_is_packed_is_read_again(model: Collection, base: Collection | None) -> None:
    evaluations = Evaluations.of(model, base)
    document = pack(evaluations)
    assert parse(document) == evaluations
    assert pack(parse(document)) == document


@given(st.sampled_from(sorted(SUITES)), st.lists(figures, min_size=8, max_size=8))
def test_an_average_is_the_mean_of_all_tasks(name: str, values: list[float]) -> None:
    suite = SUITES[name]
    origin = Origin(file="r.json", sha256="0a" * 32, kind=HARNESS)
    given_scores = [
        Score(
            task=task.name,
            metric=task.metrics[0].partition(",")[0],
            value=value,
            unit=Unit.FRACTION,
            origin=origin,
            shots=task.shots,
            stderr=0.01,
        )
        for task, value in zip(suite.tasks, values, strict=False)
    ]
    result = average(suite, given_scores)
    assert result.average is not None
    count = len(suite.tasks)
    assert math.isclose(result.average, 100 * sum(values[:count]) / count, abs_tol=1e-9)
    assert result.stderr is not None
    assert math.isclose(result.stderr, 1 / math.sqrt(count))
    for missing in range(count):
        without = given_scores[:missing] + given_scores[missing + 1 :]
        assert average(suite, without).average is None


@FEWER
@given(collections, collections)
def test_differences_turn_round_with_the_models(one: Collection, other: Collection) -> None:
    there = {
        (suite.suite.id, row.title): row.difference
        for suite in compare(one, other).suites
        for row in suite.rows
    }
    back = {
        (suite.suite.id, row.title): row.difference
        for suite in compare(other, one).suites
        for row in suite.rows
    }
    for key in there.keys() & back.keys():
        first, second = there[key], back[key]
        assert (first is None) == (second is None)
        assert first is None or second is None or math.isclose(first, -second)


@given(st.floats(-1e6, 1e6), st.integers(0, 3))
def test_numbers_are_rounded_to_the_nearest(value: float, digits: int) -> None:
    assert abs(float(number(value, digits)) - value) <= 0.5 * 10**-digits + 1e-6
