"""The release that rebuilds the base of another: v1.0, of which v1.1 is an upgrade.

A maintainer who says so saves users a search: whoever has only the base of the first
release is told which one to apply before, and where it is. It is checked that the release
rebuilds that base, by headers and a few tensors before work starts, and by the identity of
all of the base once that is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from releasekit.checkpoint import Checkpoint
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.checkpoint.locate import is_on_hub, look
from releasekit.delta.release import read_manifest
from releasekit.delta.samples import choose
from releasekit.errors import BaseMismatchError
from releasekit.manifest import TARGET_FOLDER, Manifest, Predecessor
from releasekit.names import shown
from releasekit.progress import ProgressCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRelease:
    """A release that is to rebuild the base.

    Attributes:
        said: what the manifest says of it.
        folder: where it is.
        manifest: its own.
    """

    said: Predecessor
    folder: Path
    manifest: Manifest

    @classmethod
    def find(cls, given: str | Path, progress: ProgressCallback | None) -> BaseRelease:
        """Find a release by its path, or on the Hub.

        Raises:
            UsageError: if it is none.
            FormatError, IntegrityError, HubError: if it cannot be read.
        """
        folder = look(given, progress)
        manifest, key = read_manifest(folder, None)
        said = Predecessor(
            name=manifest.name,
            version=manifest.version,
            manifest=key,
            hub=str(given) if is_on_hub(given) else None,
        )
        return cls(said=said, folder=folder, manifest=manifest)

    @property
    def rebuilt(self) -> Path:
        """Folder of what it rebuilds beside the weights: the licences, too."""
        return self.folder / TARGET_FOLDER

    def check(self, base: Checkpoint) -> None:
        """See by headers and a few tensors that it rebuilds `base`.

        Raises:
            BaseMismatchError: if it does not.
        """
        specs = self.manifest.target
        for name in sorted(specs.keys() | base.specs.keys()):
            expected, found = specs.get(name), base.specs.get(name)
            if expected != found:
                raise self._fault(
                    base.subject,
                    f"tensor {shown(name)}: expected "
                    f"{expected.describe() if expected else 'none'}, found "
                    f"{found.describe() if found else 'none'}",
                )
        for name in choose(self.manifest, specs):
            if hash_tensor(base, name) != self.manifest.operations[name].digest:
                raise self._fault(base.subject, f"tensor {shown(name)} has other values")

    def record(self, manifest: Manifest, subject: str) -> Manifest:
        """The manifest of a release on this one, which says so.

        Raises:
            BaseMismatchError: if the base is not what this one rebuilds.
        """
        if manifest.base_identity != self.manifest.target_identity:
            raise self._fault(
                subject,
                f"expected identity {self.manifest.target_identity}, found "
                f"{manifest.base_identity}",
            )
        return replace(manifest, predecessor=self.said)

    def _fault(self, subject: str, why: str) -> BaseMismatchError:
        return BaseMismatchError(
            f"{subject}: is not what {self.said.title} in {self.folder} rebuilds: {why}: "
            "name the release that rebuilds the base with --base-release, or none"
        )
