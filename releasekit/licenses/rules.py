"""What speaks against publishing a release under its licences: one rule, one function.

Each function yields what is wrong, and what to do; `RULES` names them. Errors are what
terms forbid, or prescribe and is not there; warnings are for people to judge. Whether a
release keeps to every term, no program can tell; that it breaks one, often can be told.

Terms are those of the records, not those that the release repeats: a release cannot make
its licences milder. Only of a licence that has no record here its own word is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from releasekit.findings import Rule, RuleFinding, Severity
from releasekit.licenses.chain import CHAIN, LICENSE, NOTICE, Chain, Grant, Kind
from releasekit.licenses.evidence import Evidence
from releasekit.licenses.records import OTHER, Catalogue, LicenseRecord
from releasekit.names import shown

_CHANGED: Final = re.compile(r"\b(modif|chang|fine-?tun|deriv)", re.IGNORECASE)
_URL: Final = re.compile(r"[a-z]+://", re.IGNORECASE)
_LICENSE_FILE: Final = re.compile(r"licen[cs]e(?:[._-][^/]*)?", re.IGNORECASE)
_POLICY: Final = re.compile(r"(?:acceptable[_-])?use[_-]policy\b[^/]*$", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[\s_-]+")
_FILE_HINT: Final = "give the text with --license-file"

_Found = Iterator[tuple[str, str]]
_Check = Callable[[Evidence, Chain, Catalogue], _Found]


def check(evidence: Evidence, catalogue: Catalogue) -> tuple[RuleFinding, ...]:
    """All that speaks against publishing; errors first."""
    chain = evidence.chain or Chain()
    findings = [
        RuleFinding(rule=rule, why=why, todo=todo)
        for rule, find in RULES.items()
        for why, todo in dict.fromkeys(find(evidence, chain, catalogue))
    ]
    return tuple(sorted(findings, key=lambda found: not found.is_error))


def _missing(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if chain.release is None:
        yield (
            f"{evidence.name} has no licence, so nobody may use it",
            "name one with --license; `releasekit licenses list` has them",
        )


def _unknown(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant in chain.distinct:
        if catalogue.find(grant.id) is None:
            yield f"licence {shown(grant.id)} is not known", catalogue.hint(grant.id)


def _no_base(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    named = evidence.card is not None and evidence.card.data.get("base_model")
    if not chain.bases and (evidence.delta or named):
        yield (
            f"{evidence.name} derives from another model, whose licence is not named",
            "name it with --base-license",
        )


def _commercial(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant in _own(chain):
        if not _terms(grant, catalogue).commercial:
            continue
        for base in chain.bases:
            if not _terms(base, catalogue).commercial:
                yield (
                    f"{grant.id} allows commercial use of {grant.of or evidence.name}, and "
                    f"its base's licence, {base.id}, forbids it",
                    "choose a non-commercial licence, such as cc-by-nc-4.0",
                )


def _same_license(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for base, record in _recorded(chain.bases, catalogue):
        for grant in _own(chain):
            if record.same_license and catalogue.find(grant.id) is not record:
                yield (
                    f"{base.id} asks that derivatives be under {base.id} too, and "
                    f"{grant.of or evidence.name} is under {grant.id}",
                    f"use --license {base.id}",
                )


def _weights(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if evidence.delta or not evidence.public:
        return
    for grant, record in _recorded(chain.grants, catalogue):
        if not record.uploads_weights:
            why = f": {record.uploads_why}" if record.uploads_why else ""
            yield (
                f"{evidence.name} holds full weights, and {grant.id} does not allow "
                f"publishing those{why}",
                "publish the delta that make-delta makes",
            )


def _text(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant, record in _recorded(chain.grants, catalogue):
        if record.travels.text and not _has(evidence, grant, Kind.LICENSE):
            yield (
                f"the text of {grant.id} is not there, and must go with every copy",
                f"{_FILE_HINT} {grant.id}=FILE; it is published at {record.url}",
            )
        asked = {
            Kind.LICENSE: record.travels.text,
            Kind.USE_POLICY: record.travels.use_policy,
        }
        for text in grant.texts:
            if text.path not in evidence.files and not asked.get(text.kind):
                yield f"{CHAIN} lists {text.path}, which is not there", "restore the file"


def _text_changed(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for path in sorted(evidence.changed):
        yield f"{path} is not the text that {CHAIN} lists", "restore the file"


def _notice(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    notices = _as_typed(evidence.notices.decode(errors="replace"))
    for grant, record in _recorded(chain.grants, catalogue):
        line = record.travels.notice
        if line is not None and _as_typed(line) not in notices:
            yield (
                f"{grant.id} prescribes a line that no {NOTICE} file has: {shown(line)}",
                f"add it to {NOTICE}; make-delta and card write it",
            )


def _use_policy(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant, record in _recorded(chain.grants, catalogue):
        if record.travels.use_policy and not _has(evidence, grant, Kind.USE_POLICY):
            yield (
                f"the use policy of {grant.id} is not there, and must go with every copy",
                f"{_FILE_HINT} {grant.id}=USE_POLICY.md, from the base's repository or "
                "where its licensor publishes it",
            )


def _changes(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    card = evidence.card.text if evidence.card else ""
    told = _CHANGED.search(evidence.notices.decode(errors="replace") + card)
    for grant, record in _recorded(chain.bases, catalogue):
        if record.travels.changes and not told:
            yield (
                f"{grant.id} asks to state that the work was changed, and nothing does",
                f"say so in {NOTICE}; make-delta and card write it",
            )


def _prefix(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    name = evidence.name.rstrip("/").rpartition("/")[2]
    for record in _naming(chain, catalogue):
        prefix = record.naming.prefix
        if prefix is not None and not _begins(name, prefix):
            yield (
                f"{record.id} asks that derivatives' names begin with {shown(prefix)}, and "
                f"this one is called {shown(evidence.name)}",
                f"call it {shown(f'{prefix} {name}'.replace(' ', '-'))}, or so",
            )


def _built_with(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if not evidence.card_expected:
        return
    text = _as_typed(evidence.card.text) if evidence.card else ""
    # A summary that tells what to display does not display it.
    told = [grant.summary for grant in chain.grants]
    for summary in (*told, *(record.summary for record in _naming(chain, catalogue))):
        text = text.replace(_as_typed(summary), "")
    for record in _naming(chain, catalogue):
        line = record.naming.built_with
        any_of = (line or "", *record.naming.built_with_or)
        if line is not None and not any(_as_typed(other) in text for other in any_of):
            yield (
                f"{record.id} asks to display {shown(line)}, and the model card does not",
                "write the card with `releasekit card`, or add the line to README.md",
            )


def _other(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if evidence.card is None or evidence.card.data.get("license") != OTHER:
        return
    data = evidence.card.data
    for key in ("license_name", "license_link"):
        if not isinstance(data.get(key), str) or not data[key]:
            yield (
                f"README.md says license: {OTHER}, without a {key}",
                f"add {key}; `releasekit card` writes it",
            )
    link = data.get("license_link")
    is_file = isinstance(link, str) and link and not _URL.match(link)
    if is_file and str(link).removeprefix("./") not in evidence.files:
        yield (
            f"README.md links to the licence in {shown(str(link))}, which is not there",
            (f"add the file; {_FILE_HINT}"),
        )
    if not any(_LICENSE_FILE.fullmatch(path) for path in evidence.files):
        yield (
            f"README.md says license: {OTHER}, and there is no {LICENSE} file",
            f"add one; {_FILE_HINT}",
        )


def _card(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    grant = chain.release if evidence.delta else chain.model
    if evidence.card is None or grant is None:
        return
    wanted = {"license": grant.hub}
    if grant.hub == OTHER and grant.hub_name:
        wanted["license_name"] = grant.hub_name
    for key, value in wanted.items():
        found = evidence.card.data.get(key)
        if found != value:
            yield (
                f"README.md says {key}: {_said(found)}, and "
                f"the release is under {grant.id}, which the Hub calls {shown(value)}",
                "write the card again with `releasekit card`",
            )


def _base_card(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    said = evidence.base_license
    if said is None or not chain.bases:
        return
    record = catalogue.find(said)
    ids = {catalogue.find(grant.id) for grant in chain.bases}
    if record is None or record not in ids:
        yield (
            f"the base's own card says license: {shown(said)}, and the release says "
            f"{chain.bases[0].id}",
            "name the base's licence with --base-license, as its publisher does",
        )


def _milder(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant, record in _recorded(chain.grants, catalogue):
        for term, milder in (
            ("commercial", grant.commercial and not record.commercial),
            ("research_only", record.research_only and not grant.research_only),
            ("acceptance", record.acceptance and not grant.acceptance),
        ):
            if milder:
                yield (
                    f"{CHAIN} says {term}: {str(getattr(grant, term)).lower()} of "
                    f"{grant.id}, whose record says {str(getattr(record, term)).lower()}",
                    "make the release again, or give the record it was made with by "
                    "--license-dir",
                )


def _no_card(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if evidence.card_expected and evidence.card is None:
        yield "there is no model card", "write one with `releasekit card`"


def _added_policy(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    for grant in _own(chain):
        policies = [text.path for text in grant.texts if text.kind is Kind.USE_POLICY]
        brought = any(t.kind is Kind.USE_POLICY for base in chain.bases for t in base.texts)
        if not brought:  # else one beside the weights may be the base's
            policies += [path for path in sorted(evidence.files) if _POLICY.match(path)]
        if grant.id.startswith("cc-") and policies:
            yield (
                f"{grant.id} allows no further restrictions, and a use policy goes with "
                f"it: {policies[0]}",
                "leave the policy out, or choose a licence that has one",
            )


def _teachers(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    bases = {catalogue.find(grant.id) for grant in chain.bases}
    for name in chain.teachers:
        record = catalogue.find(name)
        if record is None:
            yield (
                f"it was trained on outputs of {shown(name)}, whose terms may forbid that",
                "check the terms of that service or model, and say so in the card",
            )
        elif not record.commercial and any(
            _terms(g, catalogue).commercial for g in _own(chain)
        ):
            yield (
                f"it was trained on outputs of a model under {record.id}, which may not be "
                "used commercially",
                "check whether that holds for its outputs, and say so in the card",
            )
        elif not record.train_others and record not in bases:
            yield (
                f"it was trained on outputs of a model under {record.id}, which may not be "
                "used to improve other models",
                "check with whoever holds the rights, and say so in the card",
            )


def _restrictions(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if not evidence.card_expected:
        return
    card = " ".join(evidence.card.text.split()) if evidence.card else ""
    for base, record in _recorded(chain.bases, catalogue):
        if not record.restrictions or record.name in card:
            continue
        for grant, own in _recorded(_own(chain), catalogue):
            if not own.restrictions and not own.research_only:
                yield (
                    f"{base.id} restricts what may be done with derivatives, and "
                    f"{grant.id} of {grant.of or evidence.name} does not say so",
                    "point to the base's restrictions in the card, which `releasekit "
                    f"card` does, or use --license {base.id}",
                )


def _not_gated(evidence: Evidence, chain: Chain, catalogue: Catalogue) -> _Found:
    if evidence.card is None or not evidence.public:
        return
    for grant in chain.distinct:
        asks = _terms(grant, catalogue).research_only
        if asks and not evidence.card.data.get("extra_gated_prompt"):
            yield (
                f"{grant.id} is for research only, and README.md asks nobody to agree",
                "write the card with `releasekit card`, which adds extra_gated_prompt",
            )


def _error(rule_id: str, title: str) -> Rule:
    return Rule(id=rule_id, severity=Severity.ERROR, title=title)


def _warning(rule_id: str, title: str) -> Rule:
    return Rule(id=rule_id, severity=Severity.WARNING, title=title)


#: Every rule, in the order in which they are checked.
RULES: Final[dict[Rule, _Check]] = {
    _error("license-missing", "the release has no licence"): _missing,
    _error("license-unknown", "a licence has no record"): _unknown,
    _error("base-license-missing", "the base's licence is not named"): _no_base,
    _error(
        "noncommercial-base", "a derivative of a non-commercial base declared commercial"
    ): _commercial,
    _error("same-license", "a base that passes its own licence on"): _same_license,
    _error("weights-upload", "full weights that may not be published"): _weights,
    _error("text-missing", "a licence's text is not in the release"): _text,
    _error("text-changed", "a licence's text was changed"): _text_changed,
    _error("notice-missing", "a prescribed line is in no NOTICE file"): _notice,
    _error("use-policy-missing", "a use policy is not in the release"): _use_policy,
    _error("changes-missing", "nothing says that the work was changed"): _changes,
    _error("name-prefix", "the name lacks a prescribed beginning"): _prefix,
    _error("built-with", "the card lacks a prescribed line"): _built_with,
    _error(
        "other-incomplete", "license: other without its name, link or LICENSE file"
    ): _other,
    _error("card-license", "the card names another licence"): _card,
    _error("milder-terms", "the release repeats a licence's terms milder"): _milder,
    _warning("base-card", "the base's own card names another licence"): _base_card,
    _warning("card-missing", "there is no model card"): _no_card,
    _warning("added-use-policy", "a Creative Commons licence with a use policy"): (
        _added_policy
    ),
    _warning("teacher-terms", "trained on outputs of a model with terms"): _teachers,
    _warning(
        "restrictions-dropped", "a base's restrictions that the licence lacks"
    ): _restrictions,
    _warning("not-gated", "research only, and nobody is asked to agree"): _not_gated,
}


def _own(chain: Chain) -> tuple[Grant, ...]:
    """What the publisher grants."""
    return tuple(grant for grant in (chain.release, chain.rebuilt) if grant is not None)


def _terms(grant: Grant, catalogue: Catalogue) -> Grant | LicenseRecord:
    """The record's word on a licence, or the release's own if there is none."""
    return catalogue.find(grant.id) or grant


def _recorded(
    grants: tuple[Grant, ...], catalogue: Catalogue
) -> Iterator[tuple[Grant, LicenseRecord]]:
    """Grants whose licence has a record."""
    for grant in grants:
        record = catalogue.find(grant.id)
        if record is not None:
            yield grant, record


def _naming(chain: Chain, catalogue: Catalogue) -> list[LicenseRecord]:
    """Records whose rules of naming bind: of bases, and of some teachers."""
    found = [record for _, record in _recorded(chain.bases, catalogue)]
    for name in chain.teachers:
        record = catalogue.find(name)
        if record is not None and record.naming.outputs:
            found.append(record)
    return list({record.id: record for record in found}.values())


def _said(value: object) -> str:
    """What a card holds; aliases of YAML may stand for more than memory holds."""
    if not value:
        return "nothing"
    return shown(value) if isinstance(value, str) else "what is no text"


def _has(evidence: Evidence, grant: Grant, kind: Kind) -> bool:
    return any(t.kind is kind and t.path in evidence.files for t in grant.texts)


def _begins(name: str, prefix: str) -> bool:
    """Whether a name does, however its parts are kept apart; 30B does not begin with 3."""
    parts = r"[\s_-]*".join(re.escape(c) for c in _plain(prefix))
    end = r"(?!\d)" if prefix[-1].isdigit() else ""
    return re.match(rf"[\s_-]*{parts}{end}", name, re.IGNORECASE) is not None


def _as_typed(text: str) -> str:
    """Text without what differs when people type it: spaces, case, the copyright sign."""
    return " ".join(text.split()).lower().replace("©", "(c)")


def _plain(name: str) -> str:
    """A name without what its parts are kept apart by."""
    return _SEPARATORS.sub("", name).lower()
