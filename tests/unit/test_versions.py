"""Versions of releases: what is one, and which comes after which."""

import random
from itertools import pairwise

import pytest

from releasekit.versions import EXPECTED, FIRST, is_version, order

ASCENDING = [
    *("0", "0.0.0.1", "0.0.1", "0.1", "0.9", "0.10", "1", "1.0.0.1", "1.0.1", "1.1"),
    *("1.2", "1.9", "1.9.9.9", "1.10", "1.10.1", "2", "9.9", "10", "10.0.1", "2024.12.31"),
    *("999999998.999999999", "999999999", "999999999.999999999.999999999.999999999"),
]


@pytest.mark.parametrize("text", [*ASCENDING, FIRST, "1.0", "0.0.0.0", "3.0.0"])
def test_versions(text: str) -> None:
    assert is_version(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "1.", ".1", "1..2", "1.2.3.4.5", "01", "1.01", "00", "1.00"),
        *("v1", "1.0-rc1", "1.0rc1", "1.0+1", "1.0.post1", "1!1.0", "1.x", "1,0", "1_0"),
        *("-1", "+1", "1.-0", " 1", "1 ", "1\n", "\n1", "1. 0", "1e3", "0x1", "latest"),
        *("1234567890", "1.1234567890", "1" * 5000, "١", "1.٢", "²", "１"),  # noqa: RUF001
    ],
)
def test_what_is_no_version(text: str) -> None:
    assert not is_version(text)


def test_the_first_version_is_what_messages_say_it_may_be() -> None:
    assert (FIRST, is_version(FIRST)) == ("1", True)
    assert EXPECTED == "one to four numbers with dots between them, such as 1.0"


@pytest.mark.parametrize(("earlier", "later"), [*pairwise(ASCENDING)])
def test_numbers_are_compared_as_numbers(earlier: str, later: str) -> None:
    assert order(earlier) < order(later)
    assert not order(later) <= order(earlier)


def test_the_order_is_that_of_the_whole_list() -> None:
    mixed = random.Random(1).sample(ASCENDING, len(ASCENDING))
    assert sorted(mixed, key=order) == ASCENDING


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("1", "1.0"), ("1", "1.0.0.0"), ("1.2", "1.2.0"), ("0", "0.0.0.0")),
        *(("10.0.1", "10.0.1.0"), ("1.0.1", "1.0.1")),
    ],
)
def test_zeros_at_the_end_make_no_difference(one: str, other: str) -> None:
    assert order(one) == order(other)


def test_zeros_elsewhere_do() -> None:
    assert order("1.0.1") != order("1.1")
    assert order("0.1") != order("1")
