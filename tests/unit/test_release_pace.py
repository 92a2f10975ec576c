"""How long a release will still take: told by rates that were seen, or not at all."""

from __future__ import annotations

import pytest

from releasekit.progress import Progress
from releasekit.releasing.pace import UPLOAD, Left, Pace

GB = 10**9


def going(pace: Pace, stage: str, *done: tuple[float, int], total: int) -> None:
    """What a stage tells: so many bytes at that second."""
    for now, nbytes in done:
        pace.take(Progress(stage=stage, done=nbytes, total=total), now)


def begun(**steps: dict[str, int] | None) -> Pace:
    """A release whose first step has begun."""
    pace = Pace()
    pace.expect(steps)
    pace.begin(next(iter(steps)))
    return pace


def test_nothing_is_said_before_a_rate_is_known() -> None:
    pace = begun(make={"encode": 100 * GB})
    assert pace.left() is None
    going(pace, "encode", (0, 0), (1.9, 2 * GB), total=100 * GB)
    assert pace.left() is None
    going(pace, "encode", (2.0, 2 * GB), total=100 * GB)
    assert pace.left() == Left(seconds=98.0)


def test_work_that_begins_late_is_timed_from_there() -> None:
    pace = begun(make={"encode": 4 * GB})
    going(pace, "encode", (500, 0), (502, GB), total=4 * GB)
    assert pace.left() == Left(seconds=6.0)


def test_steps_to_come_take_as_long_as_what_was_read_so_far() -> None:
    pace = begun(make={"encode": 10 * GB}, report={"compare": 20 * GB}, card={})
    going(pace, "encode", (0, 0), (5, 5 * GB), total=10 * GB)
    assert pace.left() == Left(seconds=5 + 20)
    # Once their own rate is known, that counts.
    going(pace, "encode", (10, 10 * GB), total=10 * GB)
    pace.begin("report")
    going(pace, "compare", (20, 0), (25, 10 * GB), total=20 * GB)
    assert pace.left() == Left(seconds=5.0)


def test_a_stage_knows_better_than_what_was_expected_of_it() -> None:
    pace = begun(make={"encode": 10 * GB})
    going(pace, "encode", (0, 0), (2, 2 * GB), total=4 * GB)
    assert pace.left() == Left(seconds=2.0)
    going(pace, "read back", (2, 0), total=6 * GB)  # which nothing was known of
    assert pace.left() == Left(seconds=2 + 6)


def test_steps_before_the_one_that_begins_are_over() -> None:
    pace = begun(make={"encode": 4 * GB}, sign={"hash": 8 * GB}, verify={"verify": 4 * GB})
    going(pace, "encode", (0, 0), (2, 2 * GB), total=4 * GB)
    pace.begin("verify")
    assert pace.left() == Left(seconds=4.0)
    pace.begin("another")
    assert pace.left() is None


def test_a_stage_of_the_same_name_begins_anew() -> None:
    pace = begun(make={"hash": 2 * GB}, sign={"hash": 6 * GB})
    going(pace, "hash", (0, 0), (2, 2 * GB), total=2 * GB)
    pace.begin("sign")
    going(pace, "hash", (10, 0), (12, 2 * GB), total=6 * GB)
    assert pace.left() == Left(seconds=4.0)


def test_a_step_of_which_nothing_is_known_leaves_the_rest_unknown() -> None:
    pace = begun(make={"encode": 4 * GB}, report=None)
    going(pace, "encode", (0, 0), (2, 2 * GB), total=4 * GB)
    assert pace.left() is None
    pace.begin("report")
    assert pace.left() is None
    pace.begin("card")
    assert pace.left() is None


def test_an_upload_is_timed_by_itself() -> None:
    pace = begun(make={"encode": 4 * GB}, publish={"verify": GB, UPLOAD: 2 * GB})
    going(pace, "encode", (0, 0), (2, 2 * GB), total=4 * GB)
    assert pace.left() == Left(seconds=3.0, upload=True)
    pace.begin("publish")
    going(pace, "verify", (5, 0), (6, GB), total=GB)
    assert pace.left() is None  # nothing is left but what nothing is known of
    going(pace, UPLOAD, (10, 0), (12, 10**6), total=2 * 10**6)
    assert pace.left() == Left(seconds=2.0)
    going(pace, UPLOAD, (14, 2 * 10**6), total=2 * 10**6)
    assert pace.left() is None


def test_what_goes_back_is_no_progress() -> None:
    pace = begun(make={"download": 4 * GB})
    going(pace, "download", (0, 0), (2, 2 * GB), (3, GB), (4, 2 * GB), total=4 * GB)
    assert pace.left() == Left(seconds=4.0)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (Left(seconds=0.2), "a few seconds left"),
        (Left(seconds=9.9), "a few seconds left"),
        (Left(seconds=10), "about 10 s left"),
        (Left(seconds=34.9), "about 30 s left"),
        (Left(seconds=54.9), "about 50 s left"),
        (Left(seconds=55), "about 1 min left"),
        (Left(seconds=700), "about 12 min left"),
        (Left(seconds=5399), "about 90 min left"),
        (Left(seconds=5400), "about 1.5 h left"),
        (Left(seconds=100, upload=True), "about 2 min left, and the upload"),
    ],
)
def test_times_are_told_as_people_round_them(left: Left, words: str) -> None:
    assert str(left) == words
