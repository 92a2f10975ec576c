"""What can be known of a release in a second, before the step that may take hours.

A file that is not there, results that contradict each other, a licence that nobody knows,
one that forbids what is asked for, a name on the Hub without a login to it, a version that
is published already: each is told before anything is made. Only steps that there is
something to do for are looked at, and nothing is written. What is found here is not relied
on later: each step checks for itself.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import look
from releasekit.delta.making.source import list_target
from releasekit.delta.notary import read_succession
from releasekit.delta.predecessor import BaseRelease
from releasekit.errors import LicenseError, UsageError
from releasekit.findings import RuleFinding
from releasekit.license_files import kind_of, read_chain
from releasekit.licenses.chain import FOLDER as LICENSES
from releasekit.licenses.chain import Kind
from releasekit.licenses.evidence import Evidence
from releasekit.licenses.rules import check
from releasekit.licensing.drawing import draw_up, name_of, papers_of
from releasekit.licensing.papers import Papers
from releasekit.output import check_output
from releasekit.presentation.writing import ASKED_OF_CARDS
from releasekit.received import files_in
from releasekit.releasing.file import DELTA
from releasekit.releasing.work import Work

#: Rules that a full model's own files may keep, whatever they are.
_OF_NOTICES: Final = ("notice-missing", "changes-missing", "other-incomplete")


def look_over(work: Work, todo: Collection[str]) -> None:
    """Refuse a release that a later step would refuse.

    Args:
        work: the release.
        todo: the steps that there is something to do for.

    Raises:
        UsageError: if a file is missing, a licence is not known, figures contradict each
            other, the folder is somebody else's, or the version is published already.
        FormatError: if a file is malformed.
        LicenseError: if a rule of a licence is broken.
        HubError: if it is to be published, and nobody is logged in, or the Hub cannot be
            asked.
    """
    if "make" in todo:
        _inputs(work)
        _place(work)
    if "report" in todo:
        _report(work)
    if not {"make", "licenses", "card"}.isdisjoint(todo):
        _licenses(work)
    if not {"evaluations", "card"}.isdisjoint(todo):
        work.evaluated()
    if "sign" in todo and work.file.succession is not None:
        read_succession(work.here(work.file.succession), work.key)
    if "publish" in todo:
        _hub(work, made="make" in todo)


def _inputs(work: Work) -> None:
    """The models are there, as far as they are not on the Hub."""
    file = work.file
    target = work.model(file.target)
    if file.kind == DELTA:
        list_target(work.here(file.target), file.exclude)
    elif isinstance(target, Path):
        find(target)
    for text in (*([file.base] if file.base else []), *file.accept_base):
        model = work.model(text)
        if isinstance(model, Path):
            find(model)
    if file.base_release is not None:
        BaseRelease.find(work.model(file.base_release), None)


def _place(work: Work) -> None:
    """The folder is to be made, or ours to make anew."""
    out, record = work.out, work.record
    if out.exists() and not work.forced:
        if record.other is not None:
            whose = f"was made from {record.other}"
        else:
            whose = (
                f"is there already, and {record.path} does not say that it is this one's"
            )
        raise UsageError(
            f"{out}: {whose}: name another folder in release.out, or replace it with "
            "--force"
        )
    check_output(out, force=work.forced, inputs=work.inputs)


def _report(work: Work) -> None:
    """The report's folder is to be made, or ours to make anew, and apart from all else."""
    out = work.report
    if out is None:
        return
    work.check_report()
    if out.exists():
        return  # this was asked before it was made
    try:
        check_output(out, force=False, inputs=[*work.inputs, work.out])
    except UsageError as error:
        raise UsageError(str(error).replace("--out", "release.report")) from None


def _licenses(work: Work) -> None:
    """Licences are known, their texts are there, and no rule is broken."""
    broken = [found for found in _findings(work) if found.is_error]
    if broken:
        raise LicenseError(
            f"{work.path}: breaks rules of its licences: {'; '.join(map(str, broken))}"
        )


def _findings(work: Work) -> list[RuleFinding]:
    file, licensing = work.file, work.licensing
    given = work.model(file.base) if file.base else None
    # Of one on the Hub, the small files: texts that are missing there are told now, and not
    # after its weights have come and the delta is made.
    base = look(given) if given is not None else None
    delta = file.kind == DELTA
    target = work.model(file.target)
    own = _own_files(target) if not delta and isinstance(target, Path) else {}
    papers: Papers | None = None
    chain = read_chain(target) if own and isinstance(target, Path) else None
    if delta and given is not None and base is not None:
        papers = papers_of(licensing, file.name, given, base)
    elif not licensing.says_nothing or (base is not None and not delta):
        folder = None
        if base is not None:
            folder = base if base.is_dir() else base.parent
        of_base = work.facts.base_id or (name_of(given) if given else "")
        kinds = (Kind.LICENSE, Kind.USE_POLICY)
        papers = draw_up(
            licensing,
            file.name,
            folder,
            of_base,
            delta=delta,
            beside={n: path for n, path in own.items() if kind_of(n) in kinds},
            before=target if chain is not None and isinstance(target, Path) else None,
        )
    files = frozenset(files_in(target)) if own and isinstance(target, Path) else frozenset()
    if papers is not None:
        chain = papers.chain
        files |= papers.published().keys() if delta else papers.rebuilt(own).keys()
    found = check(
        Evidence(
            name=file.name,
            delta=delta,
            chain=chain,
            files=files,
            notices=papers.notice if papers is not None else b"",
            card_expected=False,
            public=file.public or False,
        ),
        papers.catalogue if papers is not None else licensing.catalogue(),
    )
    passed = ASKED_OF_CARDS if delta else (*ASKED_OF_CARDS, *_OF_NOTICES)
    return [f for f in found if f.rule.id not in passed]


def _own_files(target: Path) -> dict[str, Path]:
    """Files of a full model that its licences may be among."""
    if not target.is_dir():
        return {}
    names = [name for name in files_in(target) if not name.startswith(f"{LICENSES}/")]
    return {name: target / name for name in names}


def _hub(work: Work, *, made: bool) -> None:
    """Somebody is logged in, and the version is not published yet, if it is to be made."""
    from releasekit.hub.address import Address
    from releasekit.hub.answers import bounded
    from releasekit.hub.publishing import Repository

    address = Address.of(str(work.file.repo))
    repository = Repository(address)
    repository.require_login()
    if not made:
        return  # what there is is soon held against what the Hub has
    version = work.file.version
    with bounded():
        published = repository.listing(f"v{version}")
    if published is not None:
        raise UsageError(
            f"{address.name}: version {version} is published, and does not change; what it "
            "is made from was changed since, or was never made here: choose a higher "
            "--version; or see with `--until verify` whether it comes out the same, and "
            "publish it then"
        )
