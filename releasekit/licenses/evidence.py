"""What is known of a release when its licences are checked.

Evidence is gathered beforehand, so that rules read no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from releasekit.licenses.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class CardEvidence:
    """A model card, as far as licences are concerned.

    Attributes:
        data: its metadata.
        text: its body.
    """

    data: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a release.

    Attributes:
        name: what it is, or will be, called.
        delta: whether it is a delta; otherwise, full weights.
        chain: its licences; None if it has none.
        files: paths of its files.
        changed: those of the chain's texts that have not the digest that it gives.
        notices: the bytes of all of its NOTICE files.
        card: its model card; None if it has none.
        card_expected: whether it should have one by now.
        base_license: the licence that the base's own card names; None if it is not known.
        public: whether it is for everybody.
    """

    name: str
    delta: bool
    chain: Chain | None
    files: frozenset[str]
    changed: frozenset[str] = frozenset()
    notices: bytes = b""
    card: CardEvidence | None = None
    card_expected: bool = True
    base_license: str | None = None
    public: bool = True
