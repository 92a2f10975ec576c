"""Several releases in one run, from one file or from many.

All that can be known beforehand is told of all of them before anything is made. Then those
on the same base are made side by side; all else is done release by release, in the order in
which they were named. One that fails does not stop the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import look
from releasekit.errors import ReleaseKitError, UsageError
from releasekit.releasing.course import MAKE, Course, ReleaseResult
from releasekit.releasing.file import DELTA
from releasekit.releasing.sweep import Entry, read_entries
from releasekit.releasing.together import Told, make_together
from releasekit.releasing.volume import Needs, combined, expected
from releasekit.releasing.watching import State, StepResult, Watcher
from releasekit.releasing.wording import telling_fields
from releasekit.releasing.work import Means
from releasekit.signing.keys import PrivateKey

#: Finds the key that a release names.
Keys = Callable[[Entry], PrivateKey | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a release.

    Attributes:
        path: its `release.toml`.
        told: what messages call it.
        result: the release as far as it has come; None if the file cannot be read.
        error: why it came no further; None if it is done, or something speaks beforehand
            against another one.
    """

    path: Path
    told: str
    result: ReleaseResult | None
    error: Told | None

    @property
    def failed(self) -> str | None:
        """The step that failed; None if none did, since none was begun, or all are done."""
        steps = self.result.steps if self.result is not None else ()
        return next((step.name for step in steps if step.state is State.FAILED), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """What became of several releases.

    Attributes:
        outcomes: of each, in order.
        groups: those that are made side by side on one base, by their places in `outcomes`.
        needs: what making them takes, a disk each; of a plan.
    """

    outcomes: tuple[Outcome, ...]
    groups: tuple[tuple[int, ...], ...]
    needs: tuple[Needs, ...] = ()


def release_all(
    paths: Sequence[Path], *, keys: Keys, until: str, means: Means, watcher: Watcher
) -> Several:
    """Make releases from their files, as far as they are not made yet.

    Args:
        paths: files, each of one release or of several.
        keys: finds the private key that a release names; raises what speaks against it.
        until: the last step to do.
        means: what all of them together may use.
        watcher: told of each release, step and stage.

    Raises:
        ReleaseKitError: if the disk surely has too little room for all; nothing is made.
            Whatever else there is to tell is in the outcomes.
    """
    releases = _Releases(paths, keys, until, means)
    if not releases.faulty:
        for one in combined(releases.needs()):
            one.require()
        releases.run(watcher)
    return releases.result()


def plan_all(paths: Sequence[Path], *, keys: Keys, until: str, means: Means) -> Several:
    """What `release_all` would do; changes nothing.

    That the disk is too small is no error here: `Several.needs` says so.
    """
    releases = _Releases(paths, keys, until, means)
    return releases.result(combined(releases.needs()))


class _One:
    """A release, or a file that cannot be read."""

    def __init__(self, path: Path, entry: Entry | None = None) -> None:
        self.path = path
        self.told = str(path) if entry is None else entry.told
        self.course: Course | None = None
        self.needs: Needs | None = None
        self.base: Hashable = None
        self.error: Told | None = None


class _Releases:
    """All of them, and what is known of each."""

    def __init__(self, paths: Sequence[Path], keys: Keys, until: str, means: Means) -> None:
        self._means = means
        self._all: list[_One] = []
        for path in paths:
            self._read(path, keys, until)
        self._refuse_clashes()

    @property
    def faulty(self) -> bool:
        """Whether something speaks against one of them."""
        return any(one.error is not None for one in self._all)

    def needs(self) -> list[Needs]:
        """What making each takes, of which there is something to make."""
        return [one.needs for one in self._all if one.needs is not None]

    def run(self, watcher: Watcher) -> None:
        """Do what is not done."""
        for group in self._groups():
            self._make(group, watcher)
        for one in self._all:
            if one.error is None and one.course is not None:
                watcher.turn(one.told)
                try:
                    with telling_fields():
                        one.course.run(watcher)
                except (ReleaseKitError, OSError) as error:
                    self._fail(one, error, watcher)

    def result(self, takes: Sequence[Needs] | None = None) -> Several:
        """What has become of them; of a plan, with what it takes."""
        planned = takes is not None
        places = {id(one): number for number, one in enumerate(self._all)}
        return Several(
            outcomes=tuple(
                Outcome(
                    path=one.path,
                    told=one.told,
                    result=_result_of(one, planned=planned),
                    error=one.error,
                )
                for one in self._all
            ),
            groups=tuple(tuple(places[id(one)] for one in g) for g in self._groups()),
            needs=tuple(takes or ()),
        )

    def _read(self, path: Path, keys: Keys, until: str) -> None:
        """Look at the releases of a file, and at all that can be known of them."""
        try:
            entries = read_entries(path)
        except (ReleaseKitError, OSError) as error:
            self._all.append(one := _One(path))
            one.error = error
            return
        for entry in entries:
            self._all.append(one := _One(path, entry))
            try:
                with telling_fields():
                    one.course = Course.begin(entry, keys(entry), until, self._means)
                    one.course.look_over()
                    one.needs, one.base = one.course.needs(), _base_of(one.course)
            except (ReleaseKitError, OSError) as error:
                one.error = error

    def _refuse_clashes(self) -> None:
        """Refuse releases that would be in each other's way."""
        found = [(one, one.course) for one in self._all if one.course is not None]
        for number, (one, course) in enumerate(found):
            for _, other in found[:number]:
                try:
                    with telling_fields():
                        _refuse_clash(course, other)
                except UsageError as error:
                    one.error = one.error or error

    def _groups(self) -> list[list[_One]]:
        """Those that are made side by side: two or more on the same base."""
        found: dict[Hashable, list[_One]] = defaultdict(list)
        for one in self._all:
            if one.base is not None:
                found[one.base].append(one)
        return [group for group in found.values() if len(group) > 1]

    def _make(self, group: list[_One], watcher: Watcher) -> None:
        """Make releases on the same base."""
        courses = {one.course: one for one in group if one.course is not None}
        stages: dict[str, int] | None = {}
        for course in courses:
            course.now = MAKE
            makes = expected(course.work, [MAKE])[MAKE]
            if makes is None or stages is None:
                stages = None
            else:
                stages |= {name: stages.get(name, 0) + n for name, n in makes.items()}
        first = next(iter(courses))
        watcher.turn(f"{len(courses)} releases on {first.work.file.base}")
        watcher.plan({MAKE: stages})
        watcher.begin(MAKE, 1, len(first.steps))

        def tell(course: Course, outcome: StepResult | Told) -> None:
            if isinstance(outcome, StepResult):
                watcher.turn(courses[course].told)
                watcher.end(outcome)
            else:
                self._fail(courses[course], outcome, watcher)

        make_together(list(courses), self._means, watcher.show, tell)

    def _fail(self, one: _One, error: Told, watcher: Watcher) -> None:
        """Note that a release comes no further."""
        one.error = error
        watcher.turn(one.told)
        watcher.fail(str(error))


def _result_of(one: _One, *, planned: bool) -> ReleaseResult | None:
    if one.course is None:
        return None
    return one.course.result(one.needs if planned else None, one.error)


def _base_of(course: Course) -> Hashable:
    """Tells bases apart of deltas that are to be made; None if there is none to make."""
    work = course.work
    if not course.makes or work.file.kind != DELTA:
        return None
    model = work.model(str(work.file.base))
    if isinstance(model, Path):
        found = find(model)
        return found.root.resolve(), found.files
    return look(model).resolve()  # of one on the Hub, a folder for each commit


def _refuse_clash(one: Course, other: Course) -> None:
    """Refuse two releases that make, or publish, the same; or one what the other reads."""
    work, before = one.work, other.work
    whose = before.entry.told
    for place in work.places:
        for taken in before.places:
            if _overlap(place, taken):
                raise UsageError(
                    f"{place}: {whose} makes {taken}: name folders in release.out, and in "
                    "release.report, of which none lies in another"
                )
    for makes, reads in ((work, before), (before, work)):
        for place in makes.places:
            for model in reads.inputs:
                if _overlap(place, model):
                    raise UsageError(
                        f"{place}: {reads.entry.told} reads {model}: name a folder that "
                        "lies apart from it; or make one release after the other"
                    )
    published = (work.file.repo, work.file.version)
    if work.file.repo is not None and published == (before.file.repo, before.file.version):
        raise UsageError(
            f"{work.path}: hub.repo: {whose} publishes version {work.file.version} in "
            f"{work.file.repo}: name another repository, or another version"
        )


def _overlap(one: Path, other: Path) -> bool:
    one, other = one.resolve(), other.resolve()
    return one == other or one in other.parents or other in one.parents
