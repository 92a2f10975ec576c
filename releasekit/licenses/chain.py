"""`licenses/chain.json`: the licences of a release, and the texts that go with them.

    format    "releasekit-licenses/1"
    bases     [grant]: of the models that it derives from, nearest first
    release   grant: of what is published; may be left out
    rebuilt   grant: of the model that a delta rebuilds; in deltas only
    teachers  [string]: models whose outputs it was trained on

    grant     {of, id, name, hub, hub_name, spdx, version, date, url, commercial,
               research_only, acceptance, notice, summary, texts: [{path, kind, sha256}]}

It lies in the release and, the same bytes, in the model that the release rebuilds, so that
a model which was rebuilt still says what it may be used for. A grant repeats what its
record says, so that whoever has the release needs no record to read it; rules are checked
by the records.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from releasekit import strictjson
from releasekit.errors import FormatError
from releasekit.licenses.records import (
    ID,
    MAX_LINE,
    MAX_SUMMARY,
    OTHER,
    LicenseRecord,
)
from releasekit.names import safe_path, shown
from releasekit.strictjson import Record

FORMAT: Final = "releasekit-licenses/1"
FOLDER: Final = "licenses"
CHAIN: Final = f"{FOLDER}/chain.json"
#: The release's own licence and its notices, where people look for them.
LICENSE: Final = "LICENSE"
NOTICE: Final = "NOTICE"
#: A chain may be no larger, in bytes; and of no more grants and texts than this.
MAX_NBYTES: Final = 1 << 20
_MAX_ITEMS: Final = 1000
_HUB: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


class Kind(Enum):
    """What a text is."""

    LICENSE = "license"
    USE_POLICY = "use-policy"
    NOTICE = "notice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text that goes with a licence.

    Attributes:
        path: relative to the folder that the chain is of.
        kind: what it is.
        sha256: of its bytes.
    """

    path: str
    kind: Kind
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A licence, of something, with its texts.

    Attributes:
        of: the model or release that is licensed; empty if it has no name.
        texts: what goes with it.
        id, name, hub, hub_name, spdx, version, date, url, commercial, research_only,
            acceptance, notice, summary: as in the licence's record.
    """

    of: str
    id: str
    name: str
    hub: str
    url: str
    commercial: bool
    research_only: bool
    acceptance: bool
    summary: str
    hub_name: str | None = None
    spdx: str | None = None
    version: str | None = None
    date: str | None = None
    notice: str | None = None
    texts: tuple[Text, ...] = ()

    @classmethod
    def under(cls, record: LicenseRecord, of: str, texts: tuple[Text, ...]) -> Grant:
        """What `record` grants, of something."""
        return cls(
            of=of,
            id=record.id,
            name=record.name,
            hub=record.hub,
            hub_name=record.hub_name,
            spdx=record.spdx,
            version=record.version,
            date=record.date,
            url=record.url,
            commercial=record.commercial,
            research_only=record.research_only,
            acceptance=record.acceptance,
            notice=record.travels.notice,
            summary=record.summary,
            texts=texts,
        )

    @property
    def free(self) -> bool:
        """Whether there is nothing to tell a user before work."""
        return self.commercial and not self.research_only and not self.acceptance

    @property
    def use(self) -> str:
        """What it may be used for, in two or three words."""
        if self.research_only:
            return "research only, non-commercial"
        return "commercial use allowed" if self.commercial else "non-commercial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The licences of a release.

    Attributes:
        bases: of the models that it derives from, nearest first.
        release: of what is published; None if it has none.
        rebuilt: of the model that a delta rebuilds; None if it has none, or is no delta.
        teachers: models whose outputs it was trained on: ids of licences, or names.
    """

    bases: tuple[Grant, ...] = ()
    release: Grant | None = None
    rebuilt: Grant | None = None
    teachers: tuple[str, ...] = ()

    @property
    def grants(self) -> tuple[Grant, ...]:
        """All of them: the release's, the rebuilt model's, the bases'."""
        own = (self.release, self.rebuilt)
        return (*(grant for grant in own if grant is not None), *self.bases)

    @property
    def model(self) -> Grant | None:
        """The licence of the weights themselves: of a delta, those that it rebuilds."""
        return self.rebuilt or self.release

    @property
    def distinct(self) -> tuple[Grant, ...]:
        """One grant for each licence, the most specific first."""
        found: dict[str, Grant] = {}
        for grant in self.grants:
            found.setdefault(grant.id, grant)
        return tuple(found.values())

    def pack(self) -> bytes:
        """The document; the inverse of `parse`."""
        return strictjson.dumps(
            {"format": FORMAT, "bases": [_grant_json(grant) for grant in self.bases]}
            | ({"release": _grant_json(self.release)} if self.release else {})
            | ({"rebuilt": _grant_json(self.rebuilt)} if self.rebuilt else {})
            | {"teachers": list(self.teachers)}
        )


def parse(document: bytes, subject: str) -> Chain:
    """Read a chain.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(strictjson.loads(document, subject), subject)
    found = root.text("format")
    if found != FORMAT:
        raise FormatError(
            f"{subject}: format: expected {shown(FORMAT)}, found {shown(found)}: a newer "
            "releasekit may know it; update with `pip install -U releasekit`"
        )
    if root.count("bases") > _MAX_ITEMS:
        raise root.fault("bases", f"at most {_MAX_ITEMS} grants")
    release, rebuilt = root.optional_record("release"), root.optional_record("rebuilt")
    chain = Chain(
        bases=tuple(_grant(record) for record in root.records("bases")),
        release=_grant(release) if release else None,
        rebuilt=_grant(rebuilt) if rebuilt else None,
        teachers=_teachers(root),
    )
    root.close()
    digests: dict[str, str] = {}
    for text in (text for grant in chain.grants for text in grant.texts):
        if digests.setdefault(text.path, text.sha256) != text.sha256:
            raise FormatError(f"{subject}: {shown(text.path)} has two digests")
    return chain


def _teachers(root: Record) -> tuple[str, ...]:
    found = root.texts("teachers")
    if len(found) > _MAX_ITEMS or not all(_is_line(text) for text in found):
        raise root.fault("teachers", f"at most {_MAX_ITEMS} lines of text")
    return found


def _grant(record: Record) -> Grant:
    of = record.text("of")
    if of and not _is_line(of):
        raise record.fault("of", "a line of text, or nothing")
    grant = Grant(
        of=of,
        id=_matching(record, "id", ID),
        name=_line(record, "name"),
        hub=_matching(record, "hub", _HUB),
        hub_name=_optional_line(record, "hub_name"),
        spdx=_optional_line(record, "spdx"),
        version=_optional_line(record, "version"),
        date=_optional_line(record, "date"),
        url=_line(record, "url"),
        commercial=record.boolean("commercial"),
        research_only=record.boolean("research_only"),
        acceptance=record.boolean("acceptance"),
        notice=_optional_line(record, "notice"),
        summary=_line(record, "summary", limit=MAX_SUMMARY),
        texts=_texts(record),
    )
    record.close()
    if (grant.hub == OTHER) != (grant.hub_name is not None):
        raise record.fault("hub", f"{OTHER} with a hub_name, and only then")
    return grant


def _texts(record: Record) -> tuple[Text, ...]:
    if record.count("texts") > _MAX_ITEMS:
        raise record.fault("texts", f"at most {_MAX_ITEMS}")
    kinds = {kind.value: kind for kind in Kind}
    texts = []
    for item in record.records("texts"):
        path = safe_path(item.text("path"), item.place("path"))
        if not path.startswith(f"{FOLDER}/") or path == CHAIN:
            raise item.fault("path", f"one below {FOLDER}/")
        kind, sha256 = kinds[item.choice("kind", kinds)], item.hex_digest("sha256")
        texts.append(Text(path=path, kind=kind, sha256=sha256))
        item.close()
    return tuple(texts)


def _matching(record: Record, key: str, pattern: re.Pattern[str]) -> str:
    text = record.text(key)
    if not pattern.fullmatch(text):
        raise record.fault(key, "an id of lower-case letters, digits and . + -")
    return text


def _is_line(text: str, limit: int = MAX_LINE) -> bool:
    return 0 < len(text) <= limit and text.isprintable()


def _line(record: Record, key: str, limit: int = MAX_LINE) -> str:
    text = record.text(key)
    if not _is_line(text, limit):
        raise record.fault(key, f"a line of 1 to {limit} printable characters")
    return text


def _optional_line(record: Record, key: str) -> str | None:
    return _line(record, key) if record.has(key) else None


def _grant_json(grant: Grant) -> dict[str, object]:
    fields: dict[str, object] = {
        "of": grant.of,
        "id": grant.id,
        "name": grant.name,
        "hub": grant.hub,
        "hub_name": grant.hub_name,
        "spdx": grant.spdx,
        "version": grant.version,
        "date": grant.date,
        "url": grant.url,
        "commercial": grant.commercial,
        "research_only": grant.research_only,
        "acceptance": grant.acceptance,
        "notice": grant.notice,
        "summary": grant.summary,
        "texts": [
            {"path": text.path, "kind": text.kind.value, "sha256": text.sha256}
            for text in grant.texts
        ],
    }
    return {key: value for key, value in fields.items() if value is not None}
