"""Names that differ in numbers alone are one line, which hides nothing."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.folding import Folded, fold, numbers_shown


def folded(*names: str) -> list[str]:
    return [found.name for found in fold([(name, None) for name in names])]


def test_layers_are_one_line() -> None:
    names = [f"model.layers.{i}.{part}.weight" for i in range(80) for part in "qk"]
    assert fold([(name, None) for name in ["head", *names]]) == (
        Folded(name="head", members=(0,)),
        Folded(name="model.layers.{0…79}.q.weight", members=tuple(range(1, 161, 2))),
        Folded(name="model.layers.{0…79}.k.weight", members=tuple(range(2, 161, 2))),
    )


def test_the_order_of_names_does_not_matter() -> None:
    assert folded("h.10.w", "h.9.w", "h.11.w") == ["h.{9…11}.w"]


def test_what_differs_in_more_than_its_name_stays_apart() -> None:
    items = [("h.0.w", "F32"), ("h.1.w", "BF16"), ("h.2.w", "F32")]
    assert [(one.name, one.members) for one in fold(items)] == [
        ("h.{0, 2}.w", (0, 2)),
        ("h.1.w", (1,)),
    ]


def test_experts_in_layers_are_folded_in_both() -> None:
    names = [f"layers.{i}.experts.{j}.w1" for i in range(3, 61) for j in range(256)]
    assert folded(*names) == ["layers.{3…60}.experts.{0…255}.w1"]


def test_a_gap_is_not_hidden() -> None:
    names = [f"l.{i}.e.{j}" for i in range(6) for j in range(4) if (i, j) != (3, 2)]
    assert folded(*names) == ["l.{0…2, 4, 5}.e.{0…3}", "l.3.e.{0, 1, 3}"]


def test_numbers_within_words_are_part_of_them() -> None:
    names = ["fc1.w", "fc2.w", "a.w1", "a.w2", "größe1", "größe2"]
    assert folded(*names) == names


def test_numbers_stand_alone_between_other_signs_too() -> None:
    assert folded("layer_0/k", "layer_1/k") == ["layer_{0, 1}/k"]
    assert folded("7", "8") == ["{7, 8}"]


def test_numbers_with_leading_zeros_are_others() -> None:
    assert folded("x.007", "x.7", "x.8") == ["x.007", "x.{7, 8}"]


def test_nothing_is_folded_of_nothing() -> None:
    assert fold([]) == ()


def test_a_name_of_a_thousand_numbers_does_no_harm() -> None:
    long = ".".join("1" * 20_000)
    assert folded(long, f"{long[:-1]}2") == [long, f"{long[:-1]}2"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([4], "4"),
        ([4, 5], "4, 5"),
        ([3, 7], "3, 7"),
        ([2, 1, 3], "1…3"),
        ([0, 2, 4], "0…4 by 2"),
        ([*range(5, 80, 6)], "5…77 by 6"),
        ([0, 1, 2, 3, 5, 8], "0…3, 5, 8"),
        ([1, 3, 7, 9, 14, 15, 16], "1, 3, 7, …, 14…16"),
    ],
)
def test_numbers_are_shown_as_runs(numbers: list[int], text: str) -> None:
    assert numbers_shown(numbers) == text


def unfolded(name: str) -> set[str]:
    """All names that a folded one stands for, as a reader takes it."""
    parts = re.split(r"\{([^{}]*)\}", name)
    choices: list[list[str]] = []
    for at, part in enumerate(parts):
        if at % 2 == 0:
            choices.append([part])
            continue
        numbers: list[int] = []
        for run in part.split(", "):
            first, _, last = run.partition("…")
            last, _, step = last.partition(" by ")
            numbers += range(int(first), int(last or first) + 1, int(step or 1))
        choices.append([str(number) for number in numbers])
    return {"".join(parts) for parts in product(*choices)}


@given(
    st.sets(
        st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.integers(0, 3)), max_size=60
    )
)
def test_a_folded_name_stands_for_its_members_and_no_other(
    found: set[tuple[str, int, int]],
) -> None:
    names = [f"{letter}.{i}.x.{j}" for letter, i, j in sorted(found)]
    groups = fold([(name, None) for name in names])
    for group in groups:
        assert unfolded(group.name) == {names[place] for place in group.members}
    assert sorted(place for group in groups for place in group.members) == [
        *range(len(names))
    ]


@given(st.lists(st.text(alphabet="a.0127_é", max_size=8), unique=True, max_size=20))
def test_every_name_is_in_one_group(names: list[str]) -> None:
    groups = fold([(name, None) for name in names])
    assert sorted(place for group in groups for place in group.members) == [
        *range(len(names))
    ]
    for group in groups:
        if len(group.members) == 1:
            assert group.name == names[group.members[0]]
