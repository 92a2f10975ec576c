"""Draw up the licences of a release: who grants what, and the texts that go with it.

The bases' licences are those that the maintainer names, and those that the base's own chain
names, if it has one. Their texts are looked for, in this order: among the files that the
maintainer gives, beside the base's weights, in the base's chain, in SPDX's list. Every text
is copied as it is, to `licenses/ID/`. What is not found is no error here: a local delta can
be made without, and `licenses check` tells what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from releasekit.checkpoint.locate import hub_owner
from releasekit.digest import sha256_hex
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.license_files import (
    kind_of,
    names_holder,
    read_chain,
    read_text,
    spdx_text,
    texts_in,
)
from releasekit.licenses.chain import CHAIN, FOLDER, Chain, Grant, Kind, Text
from releasekit.licenses.notice import assemble
from releasekit.licenses.records import OTHER, Catalogue, LicenseRecord
from releasekit.licensing.clearance import CARD, read_card
from releasekit.licensing.papers import Papers
from releasekit.licensing.terms import Licensing
from releasekit.names import is_title, safe_path, shown
from releasekit.received import refuse_private_key

_SPDX_NAME: Final = "LICENSE.txt"
NO_FILES: Final[Mapping[str, Path]] = MappingProxyType({})


@dataclass(slots=True)
class _Desk:
    """Texts that were found so far, by their paths in the release."""

    given: dict[str, list[Path]]
    texts: dict[str, bytes] = field(default_factory=dict)

    def keep(self, license_id: str, name: str, kind: Kind, data: bytes) -> Text:
        path = safe_path(f"{FOLDER}/{license_id}/{name}", FOLDER)
        if self.texts.setdefault(path, data) != data:
            raise UsageError(
                f"{path}: there are two texts of this name; rename one of the files given "
                "with --license-file"
            )
        return Text(path=path, kind=kind, sha256=sha256_hex(data))

    def load(self, folder: Path, chain: Chain | None) -> tuple[Grant, ...]:
        """The grants of the chain in a folder, the nearest first, with their texts."""
        for grant in chain.grants if chain else ():
            for text in grant.texts:
                data = read_text(folder / text.path)
                if sha256_hex(data) != text.sha256:
                    raise IntegrityError(
                        f"{folder / text.path}: is not the text that {CHAIN} lists: it was "
                        "changed; restore it, or get the model again"
                    )
                self.texts.setdefault(text.path, data)
        if chain is None:
            return ()
        own = (chain.model,) if chain.model is not None else ()
        return (*own, *chain.bases)

    def grant(
        self,
        record: LicenseRecord,
        of: str,
        beside: Mapping[str, Path],
        known: Grant | None,
    ) -> Grant:
        """A grant with the texts that are to be had; `known` is one that has some."""
        found = [
            (path.name, kind_of(path.name) or Kind.LICENSE, read_text(path))
            for path in self.given.get(record.id, [])
        ]
        kinds = {kind for _, kind, _ in found}
        for name, path in beside.items():
            kind = kind_of(name)
            if kind is not None and kind not in kinds:
                refuse_private_key(path)
                found.append((name, kind, read_text(path)))
        texts = [self.keep(record.id, *text) for text in found]
        kinds = {text.kind for text in texts}
        if known is not None:
            texts += [text for text in known.texts if text.kind not in kinds]
        if Kind.LICENSE not in {text.kind for text in texts}:
            data = spdx_text(record)
            if data is not None:
                texts.append(self.keep(record.id, _SPDX_NAME, Kind.LICENSE, data))
        return Grant.under(record, of, tuple(dict.fromkeys(texts)))


def draw_up(
    licensing: Licensing,
    name: str,
    base: Path | None,
    base_name: str,
    *,
    delta: bool,
    beside: Mapping[str, Path] = NO_FILES,
    before: Path | None = None,
) -> Papers:
    """Find the texts of all licences, and write down who grants what.

    Args:
        licensing: what the maintainer says.
        name: what the release is called.
        base: folder of the base, where its licences lie; None to look nowhere.
        base_name: what the base is called; may be empty.
        delta: whether it is a delta, and so rebuilds a model.
        beside: files among which the release's own licence may be, by name.
        before: folder with a chain that this one takes the place of, whose texts serve.

    Raises:
        UsageError: if a licence is not known, or a text cannot be read.
        FormatError: if the base's chain, or a record, is malformed.
        IntegrityError: if a text of the base's is not the one that its chain lists.
    """
    catalogue = licensing.catalogue()
    desk = _Desk(given=_given(licensing, catalogue))
    inherited = read_chain(base) if base is not None else None
    held = desk.load(before, read_chain(before)) if before is not None else ()
    known = {grant.id: grant for grant in reversed(held)}
    bases = _bases(licensing, catalogue, desk, base, base_name, inherited, known)
    # A text that names its holder is of what it came with alone.
    own = {grant.id: grant for grant in held if grant.of == name}
    known = {grant.id: grant for grant in (*bases, *held)} | known
    release = rebuilt = None
    if licensing.license is not None:
        record = catalogue.get(licensing.license)
        serves = own if names_holder(record) else known
        release = rebuilt = desk.grant(record, name, beside, serves.get(record.id))
    if licensing.rebuilt is not None:
        record = catalogue.get(licensing.rebuilt)
        serves = own if names_holder(record) else known
        rebuilt = desk.grant(record, name, NO_FILES, serves.get(record.id))
    named = {grant.id for grant in (*bases, release, rebuilt) if grant is not None}
    for unused in desk.given.keys() - named:
        raise UsageError(
            f"--license-file {unused}={desk.given[unused][0]}: {unused} is none of this "
            f"release's licences; name it with --license or --base-license"
        )
    for teacher in licensing.teachers:
        if not is_title(teacher):
            raise UsageError(f"--teacher {shown(teacher)}: expected a line of text")
    teachers = (*licensing.teachers, *(inherited.teachers if inherited else ()))
    chain = Chain(
        bases=bases,
        release=release,
        rebuilt=rebuilt if delta else None,
        teachers=tuple(dict.fromkeys(teachers)),
    )
    texts = {text.path: desk.texts[text.path] for g in chain.grants for text in g.texts}
    of_bases = [text for grant in bases for text in grant.texts]
    notices = [(t.path, texts[t.path]) for t in of_bases if t.kind is Kind.NOTICE]
    return Papers(
        catalogue=catalogue,
        chain=chain,
        texts={**texts, CHAIN: chain.pack()},
        license=_license_text(release, desk.texts),
        rebuilt_license=_license_text(rebuilt, desk.texts),
        notice=assemble(chain, name, dict(notices).items()),
        base_license=_said(base) if licensing.bases and base is not None else None,
    )


def papers_of(
    licensing: Licensing, name: str, given: str | Path, base: Path
) -> Papers | None:
    """The licences of a delta on the base that was `given`, and found at `base`.

    None if neither the maintainer nor the base says anything. Raises as `draw_up`.
    """
    folder = base if base.is_dir() else None
    inherited = read_chain(folder or base.parent)
    if licensing.says_nothing and inherited is None:
        if licensing.folders:
            licensing.catalogue()  # a folder of records that is not there is a slip
        return None
    if folder is None and inherited is not None:
        folder = base.parent  # one of its weight files was named
    return draw_up(licensing, name, folder, name_of(given), delta=True)


def name_of(model: str | Path) -> str:
    """What a model is called that was so given: its id, or its folder; may be empty."""
    if hub_owner(model):
        return str(model).partition("@")[0]
    name = Path(model).resolve().name
    return name if is_title(name) else ""  # a folder may be called anything


def _said(base: Path) -> str | None:
    """The licence that a base's own card names, if it has one that can be read."""
    if not (base / CARD).is_file():
        return None
    try:
        card = read_card(base)
    except FormatError:
        return None  # somebody else's card, which nothing here depends on
    data = card.data if card is not None else {}
    said = data.get("license")
    if said == OTHER:
        said = data.get("license_name")
    return said if isinstance(said, str) else None


def _given(licensing: Licensing, catalogue: Catalogue) -> dict[str, list[Path]]:
    """Files of the maintainer's by the licence that they belong to."""
    given: dict[str, list[Path]] = {}
    for text in licensing.files:
        name, equals, path = text.partition("=")
        record = catalogue.find(name) if equals else None
        if record is None and equals and not Path(text).exists() and Path(path).exists():
            raise UsageError(
                f"--license-file {text}: {shown(name)} is not known; {catalogue.hint(name)}"
            )
        if record is None:  # a path may have the sign in it, too
            if licensing.license is None:
                raise UsageError(
                    f"--license-file {text}: of which licence? name it with --license, or "
                    "as --license-file ID=FILE"
                )
            record, path = catalogue.get(licensing.license), text
        given.setdefault(record.id, []).append(Path(path))
    for paths in given.values():
        for found in paths:
            if found.is_file():
                refuse_private_key(found)
    return given


def _bases(
    licensing: Licensing,
    catalogue: Catalogue,
    desk: _Desk,
    folder: Path | None,
    name: str,
    inherited: Chain | None,
    held: Mapping[str, Grant],
) -> tuple[Grant, ...]:
    """Grants of the bases: those that are named, then those that the base itself names."""
    ancestors = desk.load(folder, inherited) if folder is not None else ()
    inherits = {grant.id for grant in ancestors}
    known = {**held, **{grant.id: grant for grant in ancestors}}
    grants: list[Grant] = []
    for index, license_name in enumerate(licensing.bases):
        record = catalogue.get(license_name)
        if record.id in inherits:
            continue  # the base says so itself, and of what
        # What lies beside the base's weights is the base's own.
        own = index == 0 and inherited is None and folder is not None
        beside = {n: folder / n for n in texts_in(folder)} if own and folder else NO_FILES
        of = name if index == 0 else ""
        grant = desk.grant(record, of, beside, known.get(record.id))
        known.setdefault(record.id, grant)
        grants.append(grant)
    return (*grants, *ancestors)


def _license_text(grant: Grant | None, texts: Mapping[str, bytes]) -> bytes | None:
    if grant is None:
        return None
    found = [text.path for text in grant.texts if text.kind is Kind.LICENSE]
    found.sort(key=lambda path: path.lower().endswith(".pdf"))  # people open text first
    return next((texts[path] for path in found), None)
