"""Check that a release, or a model, keeps to its licences, as far as that can be told.

Gathers what the rules look at: the chain of licences, the files and the digests of the
licence texts among them, the notices, the model card. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.delta.diagnosis import is_release
from releasekit.delta.release import read_manifest
from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.findings import RuleFinding
from releasekit.license_files import MAX_TEXT, kind_of, load_catalogue, read_chain
from releasekit.licenses.chain import FOLDER, Chain, Kind
from releasekit.licenses.evidence import CardEvidence, Evidence
from releasekit.licenses.rules import check
from releasekit.received import files_in, read_small

CARD: Final = "README.md"
#: One is assembled of those of all bases.
_MAX_NOTICE: Final = 1 << 24
#: Bytes that a model card may have.
MAX_CARD: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """What was found.

    Attributes:
        path: the folder.
        name: what it is called.
        kind: "delta", or "model" for full weights.
        chain: its licences; None if it names none.
        findings: what speaks against publishing it; errors first.
    """

    path: Path
    name: str
    kind: str
    chain: Chain | None
    findings: tuple[RuleFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether it may be published, as far as that can be told."""
        return not any(finding.is_error for finding in self.findings)


def check_licenses(
    path: str | Path,
    *,
    name: str | None = None,
    public: bool = True,
    folders: Iterable[str | Path] = (),
) -> Clearance:
    """Check a release, or a folder with a model, against all rules.

    Args:
        path: the folder.
        name: what it is called; by default what its manifest says, or the folder's name.
        public: whether it is for everybody; weights that may not be published may lie in a
            private place.
        folders: of licence records, besides those that come with the package.

    Raises:
        UsageError: if there is no such folder.
        FormatError: if a chain, a record, a manifest or a card is malformed.
        IntegrityError: if the manifest is not the one that SHA256SUMS lists.
    """
    path = Path(path)
    if not path.is_dir():
        raise UsageError(f"{path}: expected the folder of a release, or of a model")
    catalogue = load_catalogue(folders)
    if name is None:
        own = is_release(path)
        name = read_manifest(path, None)[0].name if own else path.resolve().name
    evidence = gather(path, name, public=public)
    return Clearance(
        path=path,
        name=name,
        kind="delta" if evidence.delta else "model",
        chain=evidence.chain,
        findings=check(evidence, catalogue),
    )


def gather(path: Path, name: str, *, public: bool = True) -> Evidence:
    """What there is to check a folder by; raises as `check_licenses` does."""
    chain = read_chain(path)
    return Evidence(
        name=name,
        delta=is_release(path),
        chain=chain,
        files=frozenset(n for n in files_in(path) if (path / n).is_file()),
        changed=_changed(path, chain) if chain else frozenset(),
        notices=_notices(path),
        card=read_card(path),
        public=public,
    )


def read_card(folder: Path) -> CardEvidence | None:
    """The model card of a folder; None if there is none.

    Raises:
        FormatError: if it is no text, or its metadata are malformed.
    """
    from releasekit.hub.cards import split

    path = folder / CARD
    if not path.is_file():
        return None
    data, text = split(read_small(path, MAX_CARD), str(path))
    return CardEvidence(data=data, text=text)


def _changed(folder: Path, chain: Chain) -> frozenset[str]:
    """Texts that are there, and not what the chain says."""
    return frozenset(
        text.path
        for grant in chain.grants
        for text in grant.texts
        if (folder / text.path).is_file()
        and sha256_hex(read_small(folder / text.path, MAX_TEXT)) != text.sha256
    )


def _notices(folder: Path) -> bytes:
    """All notices at the root, and those of the chain's folder."""
    found = [
        path
        for place in (folder, folder / FOLDER)
        if place.is_dir()
        for path in sorted(place.iterdir())
        if path.is_file() and kind_of(path.name) is Kind.NOTICE
    ]
    return b"\n".join(read_small(path, _MAX_NOTICE) for path in found)
