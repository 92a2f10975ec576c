"""Make the deltas of several releases side by side, over one base that is read once.

Each is made in a thread of its own, as `make_delta` makes it; see `delta.seats` for what it
may use, and `delta.common` for how it reads. What stops one of them stops it alone, but for
what nobody can explain, and for somebody who wants to stop: that ends all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from releasekit.checkpoint import Checkpoint, open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import locate
from releasekit.delta.making.common import CommonBase
from releasekit.delta.making.once import FileDigests
from releasekit.delta.making.seats import Seat, Wish, rounds
from releasekit.device.choose import engines
from releasekit.errors import ReleaseKitError
from releasekit.progress import Progress, ProgressCallback
from releasekit.releasing.course import Course
from releasekit.releasing.steps import make_on_base
from releasekit.releasing.watching import StepResult
from releasekit.releasing.wording import telling_fields
from releasekit.releasing.work import Means

#: Errors that people are told, and that concern one release.
Told = ReleaseKitError | OSError
#: Is told what became of a release: what was done, or why it was not.
Tell = Callable[[Course, StepResult | Told], None]


def make_together(
    courses: Sequence[Course], means: Means, show: ProgressCallback, tell: Tell
) -> None:
    """Make the deltas of several releases on one base.

    A release of which nothing is told is best made on its own: the memory does not do for
    more.

    Args:
        courses: the releases; there is something to make of each, and all name one base.
        means: what all of them together may use.
        show: told of how far all of them are.
        tell: called in this thread, as soon as a release is made, or cannot be.
    """
    work = courses[0].work
    with ExitStack() as stack:
        try:
            with telling_fields():
                path = locate(work.model(str(work.file.base)), show)
                found = find(path)
                base = stack.enter_context(open_found(found))
        except (ReleaseKitError, OSError) as error:
            for course in courses:
                tell(course, error)
            return
        digests = FileDigests(found.root / name for name in found.files)
        with telling_fields():
            _make(_wishes(courses, base, tell), path, base, digests, means, show, tell)


def _wishes(courses: Sequence[Course], base: Checkpoint, tell: Tell) -> dict[Course, Wish]:
    """What each of them asks of the base."""
    wishes = {}
    for course in courses:
        work = course.work
        target, exclude = work.here(work.file.target), work.file.exclude
        try:
            with telling_fields():
                wishes[course] = Wish.of(base, target, exclude, work.codec)
        except (ReleaseKitError, OSError) as error:
            tell(course, error)
    return wishes


def _make(
    wishes: Mapping[Course, Wish],
    path: Path,
    base: Checkpoint,
    digests: FileDigests,
    means: Means,
    show: ProgressCallback,
    tell: Tell,
) -> None:
    """Make them, in as few rounds as the memory allows."""
    planned = rounds(
        list(wishes.values()),
        threads=means.threads,
        max_memory=means.max_memory,
        extra=engines(means.device)[0].host_nbytes,
    )
    if not planned:
        return
    common = CommonBase(base, min(one.kept for one in planned))
    stages, waiting = _Stages(show), iter(wishes)
    for one in planned:
        seats = one.seats(path, common, digests)
        with ThreadPoolExecutor(len(seats), thread_name_prefix="releasekit-make") as pool:
            going = {}
            try:
                for seat in seats:
                    course = next(waiting)
                    going[pool.submit(_made, course, seat, stages.one())] = course
                for done in as_completed(going):
                    tell(going[done], done.result())
            except BaseException:
                stages.stop()
                common.stop()
                raise


def _made(course: Course, seat: Seat, progress: ProgressCallback) -> StepResult | Told:
    """Make one of them."""
    with seat.base:
        try:
            with telling_fields():
                return course.make(lambda: make_on_base(course.work, progress, seat))
        except (ReleaseKitError, OSError) as error:
            return error


class _Stages:
    """Tells how far several works are that have the same stages; and ends them."""

    def __init__(self, show: ProgressCallback) -> None:
        self._show = show
        self._now: dict[str, dict[int, Progress]] = {}
        self._count = 0
        self._stopped = False
        self._lock = threading.Lock()

    def one(self) -> ProgressCallback:
        """Takes in how far one of them is."""
        number = self._count
        self._count += 1

        def take(progress: Progress) -> None:
            with self._lock:
                if self._stopped:
                    raise CancelledError
                stages = self._now.setdefault(progress.stage, {})
                stages[number] = progress
                done = sum(stage.done for stage in stages.values())
                total = sum(stage.total for stage in stages.values())
                self._show(Progress(stage=progress.stage, done=done, total=total))

        return take

    def stop(self) -> None:
        """Have each of them end where it tells the next time how far it is."""
        with self._lock:
            self._stopped = True
