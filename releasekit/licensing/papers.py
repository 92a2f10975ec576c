"""The files that lie in a release, and in the model that it rebuilds, for its licences.

What a target has of its own stays as it is; what is missing beside it is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from releasekit.errors import UsageError
from releasekit.findings import RuleFinding
from releasekit.license_files import kind_of
from releasekit.licenses import chain as chains
from releasekit.licenses.chain import CHAIN, FOLDER, LICENSE, NOTICE, Chain, Kind
from releasekit.licenses.evidence import Evidence
from releasekit.licenses.records import Catalogue
from releasekit.licenses.rules import check
from releasekit.names import folded
from releasekit.received import read_small


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """What lies in a release for its licences.

    Attributes:
        chain: who grants what.
        texts: files of the release, and of the model that it rebuilds: the bytes of each by
            its path.
        license: the text of what is published; None if it was not found.
        rebuilt_license: the text of the rebuilt model's licence.
        notice: the assembled notices.
        base_license: the licence that the base's own card names; None if it is not known.
        catalogue: what is known of licences.
    """

    catalogue: Catalogue
    chain: Chain
    texts: Mapping[str, bytes]
    license: bytes | None
    rebuilt_license: bytes | None
    notice: bytes
    base_license: str | None = None

    def published(self) -> dict[str, bytes]:
        """Files at the root of the release, and below it."""
        return self._with(self.license)

    def rebuilt(self, own: Mapping[str, Path | bytes]) -> dict[str, bytes]:
        """Files to go with the rebuilt model, whose `own` files stay as they are.

        Raises:
            UsageError: if one has the place of a text, and is another.
        """
        files = self._with(self.rebuilt_license)
        kinds = {kind_of(path) for path in own if "/" not in path}
        if Kind.LICENSE in kinds:  # it may be its base's; which one applies, the chain says
            files.pop(LICENSE, None)
        if Kind.NOTICE in kinds:
            files[f"{FOLDER}/{NOTICE}"] = files.pop(NOTICE)
        held = {folded(path): path for path in own}
        for path, data in list(files.items()):
            if (other := held.get(folded(path))) is None:
                continue
            content = own[other]
            if other != path or (
                data != (content if isinstance(content, bytes) else content.read_bytes())
            ):
                raise UsageError(
                    f"{other}: lies where the release puts a licence's text, and is "
                    f"another one; leave it out with --exclude '{other}'"
                )
            del files[path]
        return files

    def _with(self, license_text: bytes | None) -> dict[str, bytes]:
        files = {**self.texts, NOTICE: self.notice}
        if license_text is not None:
            files[LICENSE] = license_text
        return files


def findings_of(papers: Papers | None, name: str) -> tuple[RuleFinding, ...]:
    """What speaks against publishing a delta with these papers; its card is yet to come.

    Args:
        papers: its licences; None if it has none.
        name: what it is called.
    """
    evidence = Evidence(
        name=name,
        delta=True,
        chain=papers.chain if papers else None,
        files=frozenset(papers.published() if papers else ()),
        notices=papers.notice if papers else b"",
        card_expected=False,
        base_license=papers.base_license if papers else None,
    )
    return check(evidence, papers.catalogue if papers else Catalogue(()))


def check_own_chain(others: Mapping[str, Path | bytes], subject: str) -> None:
    """Refuse a target with licences of its own that nobody could read, as FormatError."""
    own = others.get(CHAIN)
    if own is not None:
        data = own if isinstance(own, bytes) else read_small(own, chains.MAX_NBYTES)
        chains.parse(data, f"{subject}: {CHAIN}")
