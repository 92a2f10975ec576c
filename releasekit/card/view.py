"""What templates see: one flat set of names, made of facts and of the release itself.

Commands in a card are meant to be copied, so names in them are quoted as a shell needs it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from releasekit.card.facts import Facts
from releasekit.evals.compare import Comparison
from releasekit.licenses.chain import Chain
from releasekit.licenses.records import Catalogue
from releasekit.tensors import TensorSpec

#: How a card says so.
UNSIGNED: Final = "This release is not signed"
NOT_STATED: Final = "*Not stated by the publisher.*"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """The weights that a card is of: those that are here, or that a delta rebuilds.

    Attributes:
        nbytes: size of all tensors.
        parameters: number of their elements; those that share another's bytes count once.
        dtypes: `BF16`, or `BF16 and F32`, the most common first.
    """

    nbytes: int
    parameters: int
    dtypes: str

    @classmethod
    def of(cls, specs: Iterable[TensorSpec]) -> ModelView:
        """What the tensors say."""
        counts: Counter[str] = Counter()
        nbytes = 0
        for spec in specs:
            counts[spec.dtype.label] += math.prod(spec.shape)
            nbytes += spec.nbytes
        names = [name for name, _ in counts.most_common()]
        return cls(
            nbytes=nbytes, parameters=counts.total(), dtypes=" and ".join(names) or "none"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaView:
    """A delta that a card is of.

    Attributes:
        version: of the release.
        base_identity, accepted, target_identity: as the manifest has them.
        manifest_sha256: of `release.json`.
        published_nbytes: size of what is downloaded for a rebuild.
        rebuilt_nbytes: size of what is rebuilt.
        parameters, dtypes: of the rebuilt model.
        base_dtypes: of the base's tensors.
        predecessor: name and version of the release that rebuilds the base, if one is said
            to; None if none is.
        predecessor_hub: its name on the Hub, if that is said.
    """

    version: str
    base_identity: str
    accepted: tuple[str, ...]
    target_identity: str
    manifest_sha256: str
    published_nbytes: int
    rebuilt_nbytes: int
    parameters: int
    dtypes: str
    base_dtypes: str
    predecessor: str | None = None
    predecessor_hub: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is of.

    Attributes:
        name: what the release is called.
        weights: a delta, or full weights.
        chain: its licences, if it has any.
        comparison: its evaluations, if it has any.
        chart: the folder of the charts, relative to the card; None if there are none.
        sources: where each number is from, as Markdown.
        fingerprint: of the key that signs it; None if none does.
        sums: whether there is a `SHA256SUMS`.
        figures: what its weights are like, and how they differ from the base's, as
            Markdown; None if no report says so.
    """

    name: str
    weights: DeltaView | ModelView
    chain: Chain | None
    comparison: Comparison | None
    chart: str | None
    sources: tuple[str, ...]
    fingerprint: str | None
    sums: bool
    figures: str | None = None


def view(subject: Subject, facts: Facts, catalogue: Catalogue) -> Mapping[str, Any]:
    """All names that a template may use."""
    weights, chain = subject.weights, subject.chain
    delta = weights if isinstance(weights, DeltaView) else None
    grants = _grants(subject, facts)
    out = _UNSAFE.sub("-", subject.name).strip("-") or "model"
    key = " --public-key publisher.pub.pem" if subject.fingerprint else ""
    accept = chain is not None and any(grant.acceptance for grant in chain.grants)
    return {
        "name": subject.name,
        "title": facts.title or subject.name,
        "facts": facts,
        "not_stated": NOT_STATED,
        "unsigned": UNSIGNED,
        "delta": delta,
        "model": weights if isinstance(weights, ModelView) else None,
        "chain": chain,
        "grants": grants,
        "license_line": "; ".join(
            dict.fromkeys(f"{grant.name} ({grant.use})" for _, grant in grants)
        )
        or NOT_STATED,
        "notices": list(dict.fromkeys(g.notice for _, g in grants if g.notice)),
        "built_with": _built_with(chain, catalogue),
        "teachers": list(chain.teachers if chain else facts.teachers),
        "base_link": _base_link(facts),
        "comparison": subject.comparison,
        "chart": subject.chart,
        "sources": list(subject.sources),
        "fingerprint": subject.fingerprint,
        "sums": subject.sums,
        "figures": subject.figures,
        "before_argument": _before(weights),
        "base_argument": shlex.quote(facts.base_id or "BASE"),
        "here_argument": shlex.quote(facts.repo or "DELTA"),
        "out_argument": out,
        "folder_argument": "DELTA" if delta else out,
        "key_argument": key,
        "accept": accept,
    }


def _before(weights: object) -> str:
    """The release to be applied before, as a command names it."""
    if not isinstance(weights, DeltaView) or weights.predecessor is None:
        return ""
    return f" --delta {shlex.quote(weights.predecessor_hub or 'EARLIER_DELTA')}"


def _grants(subject: Subject, facts: Facts) -> list[tuple[str, Any]]:
    """What is licensed, and how, in plain words."""
    chain = subject.chain
    if chain is None:
        return []
    found: list[tuple[str, Any]] = []
    if chain.release is not None:
        is_delta = isinstance(subject.weights, DeltaView)
        what = "this delta" if is_delta else "these weights"
        found.append((what, chain.release))
    if chain.rebuilt is not None:
        found.append(("the rebuilt model", chain.rebuilt))
    nearest = facts.base_name or facts.base_id
    for index, grant in enumerate(chain.bases):
        found.append(((nearest if index == 0 else None) or grant.of or "a base", grant))
    return found


def _built_with(chain: Chain | None, catalogue: Catalogue) -> list[str]:
    """Lines that licences ask to display."""
    if chain is None:
        return []
    names = (*(grant.id for grant in chain.bases), *chain.teachers)
    records = [record for record in map(catalogue.find, names) if record is not None]
    bases = {grant.id for grant in chain.bases}
    lines = (
        record.naming.built_with
        for record in records
        if record.id in bases or record.naming.outputs
    )
    return list(dict.fromkeys(line for line in lines if line))


def _base_link(facts: Facts) -> str:
    name = (facts.base_name or facts.base_id or "a base that is not named").replace("|", "")
    if facts.base_id is None:
        return name
    return f"[{name}](https://huggingface.co/{facts.base_id})"
