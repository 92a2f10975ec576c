"""What stages took, though nobody says when one begins or ends."""

from __future__ import annotations

from releasekit.progress import Progress, Stage
from releasekit.stages import Stages, StageTime


class Watched:
    """Stages by a clock that the test sets, and all that was told of them."""

    def __init__(self, every: float = 10.0) -> None:
        self.now = 0.0
        self.told: list[tuple[str, str, float, int]] = []
        self.stages = Stages(
            lambda: self.now,
            lambda moment, time: self.told.append(
                (moment.value, time.name, time.seconds, time.nbytes)
            ),
            every,
        )

    def take(self, now: float, stage: str, done: int, total: int) -> None:
        self.now = now
        self.stages.take(Progress(stage=stage, done=done, total=total))


def test_a_stage_ends_when_all_of_it_is_done() -> None:
    watched = Watched()
    watched.take(1.0, "encode", 0, 100)
    watched.take(3.0, "encode", 60, 100)
    watched.take(5.0, "encode", 100, 100)
    watched.now = 9.0
    watched.stages.close()
    assert watched.told == [("begin", "encode", 0.0, 0), ("end", "encode", 4.0, 100)]
    assert watched.stages.times == (
        StageTime(
            name="encode",
            step=None,
            release=None,
            begun=1.0,
            seconds=4.0,
            nbytes=100,
            total=100,
        ),
    )
    assert watched.stages.times[0].rate == 25


def test_progress_is_told_now_and_then() -> None:
    watched = Watched(every=10.0)
    for now in range(0, 30, 3):
        watched.take(float(now), "encode", now, 100)
    assert watched.told == [
        ("begin", "encode", 0.0, 0),
        ("progress", "encode", 12.0, 12),
        ("progress", "encode", 24.0, 24),
    ]


def test_what_was_not_completed_took_until_all_was_over() -> None:
    watched = Watched()
    watched.take(0.0, "download", 0, 100)
    watched.take(2.0, "download", 50, 100)
    watched.now = 7.0
    watched.stages.close()
    watched.stages.close()
    assert watched.told == [("begin", "download", 0.0, 0), ("end", "download", 7.0, 50)]
    (time,) = watched.stages.times
    assert (time.complete, time.seconds) == (False, 7.0)


def test_stages_may_go_on_side_by_side() -> None:
    watched = Watched()
    watched.take(0.0, "download", 0, 10)
    watched.take(1.0, "rebuild", 0, 10)
    watched.take(2.0, "download", 10, 10)
    watched.take(5.0, "rebuild", 10, 10)
    assert [(time.name, time.seconds) for time in watched.stages.times] == [
        ("download", 2.0),
        ("rebuild", 4.0),
    ]


def test_what_begins_again_is_another_stage() -> None:
    watched = Watched()
    for now, done, total in ((0, 0, 10), (1, 10, 10), (4, 0, 10), (6, 5, 10), (7, 0, 20)):
        watched.take(float(now), "verify", done, total)
    assert [(time.seconds, time.nbytes, time.total) for time in watched.stages.times] == [
        (1.0, 10, 10),
        (3.0, 5, 10),
        (0.0, 0, 20),
    ]
    assert [told[0] for told in watched.told] == ["begin", "end", "begin", "end", "begin"]


def test_a_stage_of_nothing_begins_and_ends_at_once() -> None:
    watched = Watched()
    Stage(watched.stages.take, "check kept", 0).advance(0)
    assert watched.told == [("begin", "check kept", 0.0, 0), ("end", "check kept", 0.0, 0)]
    assert watched.stages.times[0].rate is None


def test_stages_know_their_step() -> None:
    watched = Watched()
    watched.stages.step("make", "acme 1")
    watched.take(0.0, "hash", 0, 10)
    watched.now = 1.0
    watched.stages.step("verify", "acme 2")
    watched.take(2.0, "hash", 0, 10)
    watched.take(3.0, "hash", 10, 10)
    watched.stages.step(None)
    watched.take(4.0, "hash", 10, 10)
    assert [(time.release, time.step, time.seconds) for time in watched.stages.times] == [
        ("acme 1", "make", 1.0),
        ("acme 2", "verify", 1.0),
        (None, None, 0.0),
    ]
