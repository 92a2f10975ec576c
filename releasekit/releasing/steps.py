"""The steps of a release, in order, each of which may be done again.

    make         the delta, proved; or full weights, sharded and hashed
    licenses     what the licences ask, as far as it can be known without a card
    evaluations  result files are read, and held against each other
    report       pictures of it, if they are wanted; the card takes over their summary
    card         README.md, with licences, evaluations and charts
    sign         the release, if there is a key
    verify       every file against its digest, and the signature
    publish      on the Hub, if it has a name there

A step says what it follows from, and what it made; see `record`. So a run goes on with the
first step that is not done, and one that has nothing to do takes a second.

A card that nobody has edited is written as if there were none before, so that what was
taken out of the file goes; one that somebody has edited is kept, also where the release is
made anew. It is signed by the step after it alone: until then, the release is unsigned.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from releasekit.amending import amend
from releasekit.authenticity import Policy
from releasekit.conversion import SMALLEST, ConvertResult, convert
from releasekit.delta.making.make import make_delta
from releasekit.delta.making.seats import Seat
from releasekit.errors import IntegrityError, LicenseError
from releasekit.licensing.clearance import CARD, check_licenses
from releasekit.licensing.terms import Licensing
from releasekit.manifest import REBUILT_SIGNATURE, SUCCESSION
from releasekit.names import listed
from releasekit.presentation.writing import ASKED_OF_CARDS, write_card
from releasekit.progress import ProgressCallback
from releasekit.publication import publish
from releasekit.received import files_in
from releasekit.releasing.file import DELTA, ReleaseFile
from releasekit.releasing.published import Published
from releasekit.releasing.work import Work
from releasekit.reporting import report
from releasekit.sealing import sign
from releasekit.sizes import shown as size
from releasekit.verification import Status, verify
from releasekit.writing import replace

ORDER: Final = (
    *("make", "licenses", "evaluations", "report"),
    *("card", "sign", "verify", "publish"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of one release.

    Attributes:
        name: one of `ORDER`.
        follows: all that its outcome follows from, as JSON values.
        made: digest of what it made, as it is now; None if that is not there.
        run: does it; returns a line about it.
        after: steps whose outcome it follows from.
        idle: why there is nothing to do; None if there is.
        doubt: what speaks against that it is done still; "" if nothing does.
    """

    name: str
    follows: Callable[[], object]
    made: Callable[[], str | None]
    run: Callable[[ProgressCallback | None], str]
    after: tuple[str, ...] = ()
    idle: str | None = None
    doubt: Callable[[], str] = lambda: ""


def steps(work: Work) -> Iterator[Step]:
    """All steps of a release, in order."""
    file = work.file
    is_delta = file.kind == DELTA
    yield Step(
        name="make",
        follows=work.sources,
        made=work.weights,
        run=partial(make_on_base if is_delta else _make_full, work),
    )
    yield Step(
        name="licenses",
        follows=lambda: [work.weights(), work.said_of_licenses()],
        made=work.weights,
        run=partial(_check_licenses, work),
        after=("make",),
        idle=None if is_delta else "those of a full model are drawn up with the card",
    )
    yield Step(
        name="evaluations",
        follows=lambda: [work.results(), work.said_in_card()],
        made=lambda: "",
        run=partial(_read_evaluations, work),
        idle=None if work.result_files else "none are given",
    )
    yield Step(
        name="report",
        follows=lambda: [
            *(work.weights(), file.report, work.results(), work.said_of_results()),
            work.base(),
        ],
        made=work.reported,
        run=partial(_report, work),
        after=("make",),
        idle=None if file.report is not None else "no report is named",
    )
    yield Step(
        name="card",
        follows=lambda: [
            *(work.weights(), work.said_in_card(), work.results()),
            *(work.fingerprint, file.name, work.reported()),
            None if is_delta else [work.said_of_licenses(), work.texts_of_base()],
        ],
        made=work.card,
        run=partial(_write_card, work),
        after=("make", "report"),
    )
    yield Step(
        name="sign",
        follows=lambda: [work.content(), work.fingerprint, work.links()],
        made=work.signature,
        run=partial(_sign, work),
        after=("make", "card"),
        idle=None if work.key is not None else "no sign_key is named",
    )
    yield Step(
        name="verify",
        follows=lambda: [work.everything(), work.fingerprint],
        made=lambda: "",
        run=partial(_verify, work),
        after=("make", "card", "sign"),
    )
    yield Step(
        name="publish",
        follows=lambda: [work.everything(), work.wished(), file.repo],
        made=work.on_hub,
        doubt=work.doubt,
        run=partial(_publish, work),
        after=("make", "card", "sign"),
        idle=None if file.repo is not None else "no [hub] repo is named",
    )


@contextmanager
def _card_kept(work: Work) -> Iterator[None]:
    """Keep a card that somebody has edited while the folder that it is in is replaced."""
    work.record.edited = work.is_edited()
    if work.record.edited and (work.out / CARD).is_file():
        replace(work.aside, (work.out / CARD).read_bytes())
    yield
    work.record.forget("card")


def make_on_base(
    work: Work, progress: ProgressCallback | None, seat: Seat | None = None
) -> str:
    """Make a delta; at a seat, beside others on its base. Returns a line about it."""
    file, means = work.file, work.means
    given: dict[str, Any] = {}
    if file.shard_nbytes is not None:
        given["shard_nbytes"] = file.shard_nbytes
    with _card_kept(work):
        made = make_delta(
            work.model(str(file.base)),
            work.here(file.target),
            work.out,
            name=file.name,
            version=file.version,
            publisher=file.publisher,
            licensing=work.licensing,
            exclude=file.exclude,
            accept=[work.model(text) for text in file.accept_base],
            base_release=work.model(file.base_release) if file.base_release else None,
            codec=work.codec,
            force=work.forced,
            device=means.device,
            threads=means.threads if seat is None else seat.threads,
            max_memory=means.max_memory if seat is None else seat.max_memory,
            progress=progress,
            seat=seat,
            **given,
        )
    return (
        f"{size(made.published_nbytes)} for {size(made.full_nbytes)}, "
        f"{100 * made.ratio:.3g} %"
    )


def _make_full(work: Work, progress: ProgressCallback | None) -> str:
    file, means = work.file, work.means
    given: dict[str, Any] = {}
    if file.shard_nbytes is not None:
        given["shard_nbytes"] = file.shard_nbytes
    with _card_kept(work):
        made = convert(
            work.model(file.target),
            work.out,
            dtype=file.dtype,
            force=work.forced,
            threads=means.threads,
            max_memory=means.max_memory,
            progress=progress,
            **given,
        )
    return "; ".join(
        [f"{len(made.files)} files, {size(made.nbytes)}", *_floats(file, made)]
    )


def _floats(file: ReleaseFile, made: ConvertResult) -> Iterator[str]:
    """What became of a full model's floats, and what might have."""
    if file.dtype == SMALLEST:
        same = "the same values, bit for bit"
        yield f"{made.dtype}: {same}" if made.dtype else "no smaller dtype holds its values"
    elif file.dtype is not None:
        kept = ", but for kept files" if made.kept else ""
        yield f"{file.dtype}: {made.rounded:,} values rounded{kept}"
    for narrowing in made.narrower:
        found = narrowing.describe().rstrip(".")
        yield f'{found[0].lower()}{found[1:]}: release.dtype = "{SMALLEST}" does that'


def _check_licenses(work: Work, progress: ProgressCallback | None) -> str:
    found = check_licenses(
        work.out, public=work.file.public or False, folders=work.licensing.folders
    )
    wrong = [
        str(f) for f in found.findings if f.is_error and f.rule.id not in ASKED_OF_CARDS
    ]
    if wrong:
        raise LicenseError(f"{work.out}: breaks rules of its licences: {'; '.join(wrong)}")
    names = [grant.name for grant in found.chain.grants] if found.chain else []
    return listed(list(dict.fromkeys(names)), 5) if names else "none are named"


def _read_evaluations(work: Work, progress: ProgressCallback | None) -> str:
    suites = work.evaluated().averages
    files = len({Path(file).resolve() for file in work.result_files})
    return f"{_counted(files, 'file')}, {_counted(len(suites), 'suite')}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _write_card(work: Work, progress: ProgressCallback | None) -> str:
    file = work.file
    is_delta = file.kind == DELTA
    if "card" in work.record.steps:
        work.aside.unlink(missing_ok=True)  # of a run that was stopped before it made anew
    work.record.edited = work.is_edited()
    work.record.forget("card")
    _clear_card(work)
    done = write_card(
        work.out,
        facts=work.facts,
        name=None if is_delta else file.name,
        licensing=Licensing(folders=work.licensing.folders) if is_delta else work.licensing,
        base=work.model(file.base) if file.base and not is_delta else None,
        report=work.report,
        public_key=work.key.public if work.key is not None else None,
        unsign=True,
        threads=work.means.threads,
        progress=progress,
    )
    work.aside.unlink(missing_ok=True)
    lacks = f"; not stated: {listed(list(done.missing), 3)}" if done.missing else ""
    return f"{len(done.files)} files{lacks}"


def _clear_card(work: Work) -> None:
    """Take out what an earlier card wrote, and put back what it is to begin with."""
    target = work.model(work.file.target)
    names = [REBUILT_SIGNATURE, SUCCESSION] if work.key is None else []
    begin: dict[str, bytes] = {}
    if isinstance(target, Path):  # else what was its own is not known
        own = set(files_in(target)) if work.file.kind != DELTA else set()
        names += [n for n in files_in(work.out) if work.is_of_card(n) and n not in own]
        if CARD in own:
            begin[CARD] = (target / CARD).read_bytes()
    if work.record.edited:
        begin = {CARD: work.aside.read_bytes()} if work.aside.is_file() else {}
        names = [name for name in names if name != CARD]
    there = [name for name in names if (work.out / name).is_file()]
    amend(work.out, begin, there, unsign=True)


def _sign(work: Work, progress: ProgressCallback | None) -> str:
    assert work.key is not None
    links = work.file.succession
    if links is None:
        (work.out / SUCCESSION).unlink(missing_ok=True)  # else it would go on to be used
    done = sign(
        work.out,
        work.key,
        succession=work.here(links) if links is not None else None,
        force=True,
        threads=work.means.threads,
        progress=progress,
    )
    return f"{len(done.files)} files, key {done.key}"


def _report(work: Work, progress: ProgressCallback | None) -> str:
    """Draw the release in a folder of its own; one that this made before goes."""
    file, out = work.file, work.report
    assert out is not None
    work.check_report()
    if out.exists():
        shutil.rmtree(out)
    base = work.model(file.base) if file.base is not None else None
    against = base if file.kind == DELTA or isinstance(base, Path) else None
    done = report(
        against if against is not None else work.out,
        work.out if against is not None else None,
        out=out,
        name=file.name,
        evaluations=work.shown(),
        skip=work.is_added,
        policy=Policy(warn=lambda warning: None),
        accept_license=True,  # its maintainer looks at it
        threads=work.means.threads,
        max_memory=work.means.max_memory,
        progress=progress,
    )
    return f"{len(done.files)} files in {out.name}"


def _verify(work: Work, progress: ProgressCallback | None) -> str:
    with work.policy() as policy:
        found = verify(
            work.out, policy=policy, threads=work.means.threads, progress=progress
        )
    if not found.ok:
        wrong = [f.path for f in found.files if f.status is not Status.GOOD]
        raise IntegrityError(
            f"{work.out}: {listed(wrong)}: not as made: something has changed the "
            "folder since; restore it, or remove it and run again"
        )
    whose = found.authenticity.text if work.key is not None else "not signed"
    return f"{len(found.files)} files, {whose}"


def _publish(work: Work, progress: ProgressCallback | None) -> str:
    with work.policy() as policy:
        done = publish(
            work.out,
            str(work.file.repo),
            work.wishes(),
            policy=policy,
            license_folders=work.licensing.folders,
            threads=work.means.threads,
            progress=progress,
        )
    work.published = Published(commit=done.commit)
    tag = f", tag {done.plan.tag}" if done.plan.tag else ""
    return f"{done.plan.url}, commit {done.commit}{tag}"
