"""Where licences' records and texts come from: the package, and folders of models.

Records are TOML files in `licenses/` of the source tree, which a wheel carries as
`releasekit/licenses/data/`; users add folders of their own. Texts are found, never
written: beside a base's weights, in a file that the maintainer names, or in a package that
carries those of SPDX. A text of that package with blanks for a holder's name to be filled
in is no licence yet, and is not taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from releasekit import stricttoml
from releasekit.errors import UsageError
from releasekit.licenses import chain as chains
from releasekit.licenses.chain import CHAIN, Chain, Kind
from releasekit.licenses.records import Catalogue, LicenseRecord, parse
from releasekit.names import safe_path
from releasekit.received import read_small

#: Bytes that a licence's text may have.
MAX_TEXT: Final = 1 << 20
_PACKAGE: Final = Path(__file__).parent
_RECORDS: Final = (_PACKAGE / "licenses" / "data", _PACKAGE.parent / "licenses")

_SUFFIX: Final = r"(?:[._-].*)?$"
_KINDS: Final[Mapping[Kind, re.Pattern[str]]] = {
    Kind.USE_POLICY: re.compile(rf"(?:.*_)?use_?(?:policy|restrictions){_SUFFIX}"),
    Kind.NOTICE: re.compile(rf"(?:.*_)?notices?{_SUFFIX}"),
    Kind.LICENSE: re.compile(rf"(?:.*_)?(?:licen[cs]e|copying|terms_of_use){_SUFFIX}"),
}
_TEXT_SUFFIXES: Final = ("", ".txt", ".md", ".rst", ".pdf", ".html")
# SPDX's marks of text that may be left out: https://spdx.github.io/spdx-spec, annex B.
_OPTIONAL: Final = re.compile(r"<<(?:beginOptional|endOptional)[^>]*>>[ \t]?")
_BLANK: Final = re.compile(r"<<var|<(?:year|owner|copyright holders?)>", re.IGNORECASE)


def load_catalogue(folders: Iterable[str | Path] = ()) -> Catalogue:
    """All licence records: those that come with the package, and a user's own.

    Args:
        folders: of further records, `*.toml`; they stand in for others of the same id.

    Raises:
        UsageError: if a folder has none.
        FormatError: if one is malformed, or two go by one name.
    """
    further = (record for folder in folders for record in _records(Path(folder)))
    return Catalogue([*_own_records(), *further])


@cache  # they come with the package, and a run may ask several times
def _own_records() -> tuple[LicenseRecord, ...]:
    folder = next((folder for folder in _RECORDS if folder.is_dir()), _RECORDS[0])
    return tuple(_records(folder))


def _records(folder: Path) -> list[LicenseRecord]:
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise UsageError(
            f"{folder}: holds no licence records; expected files like mit.toml"
        )
    return [parse(read_small(path, stricttoml.MAX_NBYTES), str(path)) for path in paths]


def hub_ids() -> frozenset[str]:
    """The ids that the Hub's `license` field may have."""
    lines = (_PACKAGE / "licenses" / "hub_ids.txt").read_text().splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


def kind_of(name: str) -> Kind | None:
    """What a file is by its name, such as `USE_POLICY.md`; None if it is something else."""
    path = Path(name)
    # What follows a dot need not be a suffix: LICENSE-CC-BY-4.0.
    numbered = path.suffix[1:].isdigit() or path.suffix == ".LESSER"
    if path.suffix.lower() not in _TEXT_SUFFIXES and not numbered:
        return None
    plain = name.lower().replace("-", "_").replace(" ", "_")
    return next((kind for kind, known in _KINDS.items() if known.match(plain)), None)


def texts_in(folder: Path) -> dict[str, Kind]:
    """The licence texts that lie in a model's folder, by name; links are followed."""
    if not folder.is_dir():
        return {}
    found: dict[str, Kind] = {}
    for path in sorted(folder.iterdir()):
        kind = kind_of(path.name)
        # A blank one is no text, and a huge one something else.
        if kind is not None and path.is_file() and 0 < path.stat().st_size <= MAX_TEXT:
            found[safe_path(path.name, str(folder))] = kind
    return found


def read_text(path: Path) -> bytes:
    """A licence's text, as it is.

    Raises:
        UsageError: if there is no such file, or it is empty.
        FormatError: if it is too large for one.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected a licence's text")
    data = read_small(path, MAX_TEXT)
    if not data.strip():
        raise UsageError(f"{path}: is empty; expected a licence's text")
    return data


def spdx_text(record: LicenseRecord) -> bytes | None:
    """A licence's text as SPDX has it; None if it has none, or one with blanks to fill."""
    text = _spdx_template(record)
    return None if text is None or _BLANK.search(text) else text.encode()


def names_holder(record: LicenseRecord) -> bool:
    """Whether a licence's text has a holder's name in it, so that each work has its own."""
    text = _spdx_template(record)
    return text is not None and _BLANK.search(text) is not None


def _spdx_template(record: LicenseRecord) -> str | None:
    """A licence's text as SPDX has it, with blanks that there may be."""
    if record.spdx is None:
        return None
    import spdx

    found = next((known for known in spdx.licenses() if known["id"] == record.spdx), None)
    return _OPTIONAL.sub("", spdx.License(found).template) if found else None


def read_chain(folder: Path) -> Chain | None:
    """The licences of the release or model in a folder; None if it says nothing of them.

    Raises:
        FormatError: if what it says is malformed.
    """
    path = folder / CHAIN
    if not path.is_file():
        return None
    return chains.parse(read_small(path, chains.MAX_NBYTES), str(path))
