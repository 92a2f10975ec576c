"""What a maintainer says of the licences of a release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from releasekit.license_files import load_catalogue
from releasekit.licenses.records import Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Licensing:
    """Under which licences a release is made; all by id, or another name of theirs.

    Attributes:
        license: of what is published; None for none.
        bases: of the models that it derives from, nearest first.
        rebuilt: of the model that a delta rebuilds; None for the delta's own.
        files: texts, each `FILE` of `license`, or `ID=FILE`.
        folders: of licence records, besides those that come with the package.
        teachers: models whose outputs it was trained on: licences, or names.
    """

    license: str | None = None
    bases: tuple[str, ...] = ()
    rebuilt: str | None = None
    files: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    teachers: tuple[str, ...] = ()

    @property
    def says_nothing(self) -> bool:
        """Whether nothing is said of licences."""
        return self == Licensing(folders=self.folders)

    @property
    def parameters(self) -> dict[str, object]:
        """What was said, for the provenance."""
        said: dict[str, object] = {
            "license": self.license,
            "base_licenses": list(self.bases),
            "rebuilt_license": self.rebuilt,
            "teachers": list(self.teachers),
        }
        return {name: value for name, value in said.items() if value}

    def catalogue(self) -> Catalogue:
        """The records that it may name; raises as `load_catalogue`."""
        return load_catalogue(self.folders)


#: Nothing is said.
NO_LICENSE: Final = Licensing()
