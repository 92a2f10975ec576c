"""What is known of a licence: one TOML file each, made for machines and for people.

A record says what the terms ask of those who pass a model on, as facts that rules can be
checked by, and sums the terms up in plain words. It holds no licence text: a text is only
ever taken, verbatim, from where the licensor put it.

Records come with the package; users add their own. One record has one id, and aliases
under which people know it. An id that no record has is answered with the closest ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from releasekit import stricttoml
from releasekit.errors import FormatError, UsageError
from releasekit.names import listed, shown
from releasekit.strictjson import Record

#: What the Hub's `license` field holds for a licence that has no id there.
OTHER: Final = "other"
#: Ids of licences; a folder is called so as well.
ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9.+-]{0,62}[a-z0-9+])?")
_SPDX: Final = re.compile(r"[A-Za-z0-9.+-]{1,200}")
#: Characters of a line, and of a summary, in a record and in a chain.
MAX_LINE: Final = 1000
MAX_SUMMARY: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Travels:
    """What must be with every copy and every derivative.

    Attributes:
        text: a copy of the licence.
        notice: a line that is prescribed, for a NOTICE file; None if there is none.
        use_policy: the restrictions of use, in a file of their own.
        changes: a statement that, and what, was changed.
    """

    text: bool = False
    notice: str | None = None
    use_policy: bool = False
    changes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How derivatives must be called.

    Attributes:
        prefix: what their name must begin with; None for anything.
        built_with: a line that must be displayed with them; None if there is none.
        built_with_or: others that may stand in its place.
        outputs: whether models trained on outputs are bound as well.
    """

    prefix: str | None = None
    built_with: str | None = None
    built_with_or: tuple[str, ...] = ()
    outputs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LicenseRecord:
    """A licence, as far as those who pass a model on must know it.

    Attributes:
        id: how it is called here.
        name: its title.
        hub: the Hub's `license` field for it; `OTHER` if it has no id there.
        hub_name: with `OTHER`, the Hub's `license_name`.
        aliases: what else people call it.
        spdx: an SPDX identifier, or a `LicenseRef`; None if there is none.
        version: as the licence calls itself; None if it does not.
        date: the day of this version, as ISO 8601; None if that is not known.
        url: where the terms are published.
        commercial: whether the work may be used commercially.
        research_only: whether it may be used for research alone.
        acceptance: whether each user must agree before using the work.
        summary: the terms in plain words.
        travels: what must go with copies.
        naming: how derivatives must be called.
        same_license: whether derivatives must be under this licence.
        restrictions: whether its restrictions of use bind all further users.
        sublicense: whether it may be sublicensed.
        uploads_weights: whether derivatives' full weights may be published.
        uploads_why: why not, in plain words; None if they may.
        train_others: whether outputs may be used to train other models.
        monthly_users: above so many, a licence of the owner's is needed; None for any.
    """

    id: str
    name: str
    hub: str
    url: str
    commercial: bool
    research_only: bool
    acceptance: bool
    summary: str
    hub_name: str | None = None
    aliases: tuple[str, ...] = ()
    spdx: str | None = None
    version: str | None = None
    date: str | None = None
    travels: Travels = field(default_factory=Travels)
    naming: Naming = field(default_factory=Naming)
    same_license: bool = False
    restrictions: bool = False
    sublicense: bool = True
    uploads_weights: bool = True
    uploads_why: str | None = None
    train_others: bool = True
    monthly_users: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that it is known by, in lower case: id, aliases, the Hub's, and SPDX's."""
        own_hub = self.hub_name if self.hub == OTHER else self.hub
        known = (self.id, *self.aliases, own_hub, self.spdx)
        return tuple(dict.fromkeys(name.lower() for name in known if name))

    @property
    def edition(self) -> str:
        """Its title, with version and date as far as they are known."""
        version = f", version {self.version}" if self.version else ""
        day = f", {self.date}" if self.date else ""
        return f"{self.name}{version}{day}"


def parse(document: bytes, subject: str) -> LicenseRecord:
    """Read a record from its TOML document.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(stricttoml.loads(document, subject), subject)
    travels, naming = _table(root, "travels"), _table(root, "naming")
    derivatives, uploads = _table(root, "derivatives"), _table(root, "uploads")
    outputs, limits = _table(root, "outputs"), _table(root, "limits")
    record = LicenseRecord(
        id=_matching(root, "id", ID, "lower-case letters, digits and . + -"),
        name=_line(root, "name"),
        hub=_matching(root, "hub", ID, "an id of the Hub's, or other"),
        hub_name=_optional_line(root, "hub_name"),
        aliases=root.optional_texts("aliases"),
        spdx=_spdx(root),
        version=_optional_line(root, "version"),
        date=_date(root),
        url=_url(root),
        commercial=root.boolean("commercial"),
        research_only=root.boolean("research_only"),
        acceptance=root.boolean("acceptance"),
        summary=_summary(root, subject),
        travels=Travels(
            text=travels.flag("text", default=False),
            notice=_optional_line(travels, "notice"),
            use_policy=travels.flag("use_policy", default=False),
            changes=travels.flag("changes", default=False),
        ),
        naming=Naming(
            prefix=_optional_line(naming, "prefix"),
            built_with=_optional_line(naming, "built_with"),
            built_with_or=naming.optional_texts("built_with_or"),
            outputs=naming.flag("outputs", default=False),
        ),
        same_license=derivatives.flag("same_license", default=False),
        restrictions=derivatives.flag("restrictions", default=False),
        sublicense=derivatives.flag("sublicense", default=True),
        uploads_weights=uploads.flag("weights", default=True),
        uploads_why=_optional_line(uploads, "why"),
        train_others=outputs.flag("train_others", default=True),
        monthly_users=limits.optional_integer("monthly_users", minimum=1),
    )
    for table in (travels, naming, derivatives, uploads, outputs, limits, root):
        table.close()
    if (record.hub == OTHER) != (record.hub_name is not None):
        raise FormatError(
            f"{subject}: hub_name: expected one with hub = {shown(OTHER)}, and only then"
        )
    if record.research_only and record.commercial:
        raise FormatError(
            f"{subject}: commercial: expected false with research_only = true"
        )
    return record


class Catalogue:
    """Licence records by all the names that they are known by.

    Attributes:
        records: by id, in order.
    """

    def __init__(self, records: Iterable[LicenseRecord]) -> None:
        """Keep records, of which later ones stand in for earlier ones of the same id.

        Raises:
            FormatError: if two licences are known by one name.
        """
        self.records: dict[str, LicenseRecord] = {}
        for record in records:
            self.records[record.id] = record
        self._names: dict[str, LicenseRecord] = {}
        for record in self.records.values():
            for name in record.names:
                other = self._names.setdefault(name, record)
                if other is not record:
                    raise FormatError(
                        f"licences {other.id} and {record.id}: both are known as "
                        f"{shown(name)}"
                    )

    def __iter__(self) -> Iterator[LicenseRecord]:
        """All records, in the order of their ids."""
        return iter(sorted(self.records.values(), key=lambda record: record.id))

    def find(self, name: str) -> LicenseRecord | None:
        """The licence that is known by `name`; None if there is none."""
        return self._names.get(name.strip().lower())

    def get(self, name: str) -> LicenseRecord:
        """The licence that is known by `name`.

        Raises:
            UsageError: if there is none, with the closest names.
        """
        found = self.find(name)
        if found is None:
            raise UsageError(f"licence {shown(name)}: is not known; {self.hint(name)}")
        return found

    def hint(self, name: str) -> str:
        """What to do about a name that no licence has."""
        import difflib

        close = list(
            dict.fromkeys(
                self._names[match].id
                for match in difflib.get_close_matches(name.lower(), self._names, 5, 0.5)
            )
        )
        hint = f"did you mean {listed(close)}? " if close else ""
        return (
            f"{hint}`releasekit licenses list` names all, and --license-dir adds records "
            "of your own"
        )


def _table(root: Record, key: str) -> Record:
    return root.optional_record(key) or Record({}, key)  # of defaults alone


def _matching(root: Record, key: str, pattern: re.Pattern[str], expected: str) -> str:
    text = root.text(key)
    if not pattern.fullmatch(text):
        raise root.fault(key, expected)
    return text


def _line(root: Record, key: str) -> str:
    text = root.text(key)
    if not text.strip() or not text.isprintable() or len(text) > MAX_LINE:
        raise root.fault(key, "a line of text")
    return text


def _optional_line(root: Record, key: str) -> str | None:
    return _line(root, key) if root.has(key) else None


def _spdx(root: Record) -> str | None:
    if not root.has("spdx"):
        return None
    return _matching(root, "spdx", _SPDX, "one SPDX identifier, or a LicenseRef")


def _date(root: Record) -> str | None:
    text = root.optional_text("date")
    if text is None:
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise root.fault("date", "a day such as 2023-07-18") from None


def _url(root: Record) -> str:
    text = _line(root, "url")
    if not text.startswith(("https://", "http://")):
        raise root.fault("url", "https://…")
    return text


def _summary(root: Record, subject: str) -> str:
    text = " ".join(root.text("summary").split())
    if not 0 < len(text) <= MAX_SUMMARY or not text.isprintable():
        raise FormatError(
            f"{subject}: summary: expected 1 to {MAX_SUMMARY} printable characters"
        )
    return text
