"""Write the model card of a release, or of a model, and what it shows.

Facts, licences and evaluations are read and checked first; then README.md is put together
from what was there and what is generated; then all of it is written at once:

    README.md                    the card; what the maintainer wrote in it stays
    evaluations/                 evaluations.json, charts, and the result files themselves
    .eval_results/               figures of benchmarks that the Hub has registered
    licenses/, LICENSE, NOTICE   of a full model; a delta has them from make-delta

The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from releasekit.amending import amend, require_key
from releasekit.card import checks, metadata, pages, sections
from releasekit.card.facts import HUB_ID, NO_FACTS, Facts
from releasekit.card.facts import parse as parse_facts
from releasekit.card.view import Subject, view
from releasekit.delta.diagnosis import is_release
from releasekit.errors import FormatError, UsageError
from releasekit.findings import RuleFinding
from releasekit.hub import cards
from releasekit.license_files import hub_ids
from releasekit.licenses.rules import check
from releasekit.licensing.clearance import CARD, MAX_CARD, check_licenses, gather
from releasekit.licensing.terms import NO_LICENSE, Licensing
from releasekit.names import shown as shown_name
from releasekit.presentation.evaluation import evaluate
from releasekit.presentation.portrait import Portrait, portray
from releasekit.progress import ProgressCallback
from releasekit.received import files_in, read_small
from releasekit.signing.keys import PrivateKey, PublicKey
from releasekit.statistics.summary import MAX_SUMMARY, SUMMARY
from releasekit.statistics.summary import parse as parse_summary
from releasekit.stricttoml import MAX_NBYTES

ASKED_OF_CARDS: Final = ("card-license", "built-with", "not-gated")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardResult:
    """What was written.

    Attributes:
        path: the card.
        name: what the release is called.
        kind: "delta" or "model".
        files: paths of all files that were written.
        kept: sections of the card that were edited by hand, and stay as they are.
        missing: facts that a card must state and nobody gave, by their paths in TOML.
        findings: what speaks against publishing, of card and licences; errors first.
        averages: the model's average and the base's by suite, in percent.
        key: fingerprint of the key that signed the folder; None if none did.
    """

    path: Path
    name: str
    kind: str
    files: tuple[str, ...]
    kept: tuple[str, ...]
    missing: tuple[str, ...]
    findings: tuple[RuleFinding, ...]
    averages: dict[str, tuple[float | None, float | None]]
    key: str | None


def write_card(
    path: str | Path,
    *,
    facts: str | Path | Facts | None = None,
    name: str | None = None,
    repo: str | None = None,
    results: Sequence[str | Path] = (),
    base_results: Sequence[str | Path] = (),
    licensing: Licensing = NO_LICENSE,
    base: str | Path | None = None,
    report: str | Path | None = None,
    templates: str | Path | None = None,
    chart: bool = True,
    sign_key: PrivateKey | None = None,
    public_key: PublicKey | None = None,
    succession: str | Path | None = None,
    unsign: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> CardResult:
    """Write README.md into the folder of a release, or of a model, with what it shows.

    Args:
        path: the folder.
        facts: what only the maintainer knows: a TOML file, see `card.facts`, to which the
            files that it names are relative; or what `read_facts` made of one. Without it,
            sections that an earlier card made of facts stay.
        name: what a model is called; by default its folder's name. A delta has a name.
        repo: the release's id on the Hub.
        results: files with evaluations of the model, besides those that `facts` names;
            without any, those of an earlier card are kept.
        base_results: likewise, of its base.
        licensing: the licences of a full model. Those of a delta are set by `make_delta`.
        base: folder of a full model's base, where its licences lie.
        report: a folder that `releasekit.report` wrote, whose summary the card takes over.
            Without it the card has none: an earlier one's may be of other weights.
        templates: folder of templates that stand in for ours, or add to them.
        chart: draw charts of the evaluations.
        sign_key: signs the folder.
        public_key: the key that will sign it, for its fingerprint.
        succession: as in `sign`.
        unsign: remove a signature that there is, rather than fail without a key.
        force: write sections anew even if they were edited by hand.
        threads: files hashed at once, for the signature.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if a path or a name is wrong, two figures contradict each other, a
            licence is not known, or a signature would be broken.
        FormatError: if a file is malformed.
        IntegrityError: if the manifest is not the one that SHA256SUMS lists.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: expected the folder of a release, or of a model")
    require_key(path, sign_key, unsign=unsign)
    known = NO_FACTS
    if isinstance(facts, Facts):
        known = facts
    elif facts is not None:
        known, licensing = read_facts(facts, licensing)
    if repo is not None:
        if not HUB_ID.fullmatch(repo):
            raise UsageError(
                f"repo {shown_name(repo)}: expected an id on the Hub, org/name"
            )
        known = replace(known, repo=repo)
    if is_release(path) and not licensing.says_nothing:
        raise UsageError(
            f"{path}: the licences of a delta go into the model that it rebuilds, and are "
            "set when it is made; give --license and --base-license to make-delta"
        )
    found = portray(path, known, name, licensing, base)
    shown = evaluate(path, known, found.name, results, base_results, chart=chart)
    fingerprint = public_key.fingerprint if public_key else None
    if sign_key is not None:
        fingerprint = sign_key.public.fingerprint
    subject = Subject(
        name=found.name,
        weights=found.weights,
        chain=found.chain,
        comparison=shown.comparison,
        chart=shown.chart,
        sources=shown.sources,
        fingerprint=fingerprint,
        sums=found.sums,
        figures=_figures(Path(report)) if report is not None else None,
    )
    document, kept, reused = _card(path, known, found, subject, templates, force)
    files = {**found.papers, **shown.files, CARD: document}
    signed = amend(
        path,
        files,
        (*found.removed, *shown.removed),
        key=sign_key,
        succession=succession,
        unsign=unsign,
        threads=threads,
        progress=progress,
    )
    names = dict.fromkeys([found.name, known.repo or found.name])
    evidence = gather(path, found.name)
    findings = dict.fromkeys(
        [
            *_of_card(path),
            *(f for n in names for f in check(replace(evidence, name=n), found.catalogue)),
            *map(checks.odd, shown.findings),
        ]
    )
    return CardResult(
        path=path / CARD,
        name=found.name,
        kind="delta" if found.delta else "model",
        files=tuple(sorted(files)),
        kept=kept,
        missing=() if reused else known.missing(derived=found.derived, delta=found.delta),
        findings=tuple(sorted(findings, key=lambda finding: not finding.is_error)),
        averages=shown.averages,
        key=signed.key if signed else None,
    )


def check_card(path: str | Path, *, online: bool = False) -> tuple[RuleFinding, ...]:
    """What is wrong with the card of a folder; errors first.

    Args:
        path: the folder.
        online: ask the Hub as well.

    Raises:
        UsageError: if there is no card.
        HubError: if the Hub is to be asked, and cannot be.
    """
    folder = Path(path)
    if not (folder / CARD).is_file():
        raise UsageError(
            f"{folder}: has no {CARD}; write one with `releasekit card {folder}`"
        )
    findings = _of_card(folder)
    if not any(finding.rule.id == "card-yaml" for finding in findings):
        # What its licences ask of a card.
        cleared = check_licenses(folder)
        asked = [f for f in cleared.findings if f.rule.id in ASKED_OF_CARDS]
        findings = tuple(sorted([*findings, *asked], key=lambda found: not found.is_error))
    if online:
        document = read_small(folder / CARD, MAX_CARD)
        if wrong := cards.validate_online(document, str(folder / CARD)):
            findings = (checks.refused(wrong), *findings)
    return findings


def _of_card(folder: Path) -> tuple[RuleFinding, ...]:
    """What is wrong with a card, whatever it is of."""
    document = read_small(folder / CARD, MAX_CARD)
    subject = str(folder / CARD)
    return checks.check(document, subject, frozenset(files_in(folder)), hub_ids())


def read_facts(
    path: str | Path, licensing: Licensing = NO_LICENSE
) -> tuple[Facts, Licensing]:
    """What a TOML file says, with its paths made whole.

    Args:
        path: the file.
        licensing: licences that go before those of the file.

    Raises:
        UsageError: if there is no such file.
        FormatError: if it is malformed.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{file}: no such file; expected facts in TOML")
    return placed(parse_facts(read_small(file, MAX_NBYTES), str(file)), file, licensing)


def placed(
    facts: Facts, file: Path, licensing: Licensing = NO_LICENSE
) -> tuple[Facts, Licensing]:
    """Facts that a file says, with whole paths; and licences, as `read_facts`."""
    folder = file.parent
    facts = replace(
        facts,
        results=tuple(str(folder / name) for name in facts.results),
        base_results=tuple(str(folder / name) for name in facts.base_results),
    )
    files = []
    for text in facts.license_files:
        license_id, equals, name = text.rpartition("=")
        files.append(f"{license_id}{equals}{folder / name}")
    merged = Licensing(
        license=licensing.license or facts.license,
        bases=licensing.bases or facts.license_bases,
        rebuilt=licensing.rebuilt or facts.license_rebuilt,
        files=(*licensing.files, *files),
        folders=(*licensing.folders, *(folder / name for name in facts.license_folders)),
        teachers=licensing.teachers or facts.teachers,
    )
    return facts, merged


def _figures(report: Path) -> str:
    """What a report says of the weights, in words."""
    file = report / SUMMARY
    if not file.is_file():
        raise UsageError(
            f"{report}: has no {SUMMARY}; expected a folder that `releasekit report` wrote"
        )
    return parse_summary(read_small(file, MAX_SUMMARY), str(file))


def _card(
    path: Path,
    facts: Facts,
    found: Portrait,
    of: Subject,
    templates: str | Path | None,
    force: bool,
) -> tuple[bytes, tuple[str, ...], bool]:
    """The card's document, the sections that were kept, and whether facts were."""
    subject = str(path / CARD)
    data: dict[str, Any] = {}
    body = ""
    if (path / CARD).is_file():
        data, body = cards.split(read_small(path / CARD, MAX_CARD), subject)
    names = view(of, facts, found.catalogue)
    folder = Path(templates) if templates is not None else None
    pieces = pages.render(names, folder)
    old = sections.parse(body, subject)
    reused = False
    if facts == replace(NO_FACTS, repo=facts.repo):
        # Nothing is said this time: what was said before stands.
        before = {piece.name: piece.text for piece in old}
        said = pages.OF_FACTS & before.keys()
        pieces |= {name: before[name] for name in said}
        reused = bool(said)
    merged = sections.merge(old, pieces, force=force)
    try:
        sections.parse(merged.text, subject)
    except FormatError:
        raise FormatError(
            f"{subject}: a fact or a template holds a mark such as <!-- releasekit:begin, "
            "which are for sections alone; take it out"
        ) from None
    new = metadata.metadata(
        facts,
        found.chain,
        delta=found.delta,
        name=found.name,
        library=found.library,
        papers={*found.papers, *files_in(path)} - set(found.removed),
    )
    blended = metadata.blend(data, new)
    scores = metadata.indexed(of.comparison)
    if scores:
        blended.pop("model-index", None)
    title = facts.title or found.name
    document = cards.join(blended, scores, title, merged.text, subject)
    return document, merged.kept, reused
