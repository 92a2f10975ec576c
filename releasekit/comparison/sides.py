"""The models that are compared: opened, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint import Checkpoint, open_found
from releasekit.checkpoint.beside import beside
from releasekit.checkpoint.discover import Kind, find
from releasekit.checkpoint.locate import Located, locate
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.delta.consent import Consent
from releasekit.delta.diagnosis import is_release
from releasekit.delta.lineage import open_lineage, path_to
from releasekit.delta.release import Release
from releasekit.delta.virtual import VirtualCheckpoint
from releasekit.digest import hash_file
from releasekit.errors import UsageError
from releasekit.layout import Layout
from releasekit.manifest import MANIFEST
from releasekit.progress import ProgressCallback

#: A checkpoint, or one and the releases that may lead from it to a release's base.
Bases = str | Path | Sequence[str | Path] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A model that is compared.

    Attributes:
        label: what people call it: the path, or the name on the Hub.
        checkpoint: its tensors.
        metadata: entries of its safetensors headers' metadata; several values of one key in
            different files are joined.
        files: SHA-256 of the files beside its weights, by path.
        folder: where it is.
        virtual: its tensors once more, if it is a release.
        release: that release.
    """

    label: str
    checkpoint: Checkpoint
    metadata: Mapping[str, str]
    files: Mapping[str, str]
    folder: Path
    virtual: VirtualCheckpoint | None = None
    release: Release | None = None

    def published(self, name: str) -> int | None:
        """Bytes that a release has for a tensor; None outside a release."""
        return None if self.release is None else self.release.published_nbytes(name)


def each(bases: Bases) -> tuple[str | Path, ...]:
    """The bases one by one; none if there is none."""
    if bases is None or isinstance(bases, (str, Path)):
        return () if bases is None else (bases,)
    return tuple(bases)


def open_side(
    stack: ExitStack,
    model: str | Path,
    base: Bases = None,
    *,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    progress: ProgressCallback | None = None,
    files: bool = True,
) -> Side:
    """Open a model that is to be compared.

    Args:
        stack: closes it.
        model: a checkpoint, a release, or a model on the Hub.
        base: what a release is rebuilt on: a checkpoint, and any releases that may lead
            from it to what this one was made on.
        policy: what is asked of a release's signature.
        accept_license: as in `apply_delta`, for a release.
        progress: called with the bytes downloaded.
        files: whether to hash the files beside the weights.

    Raises:
        UsageError: if a path is wrong, or a release is given without its base.
        FormatError, BaseMismatchError, IntegrityError, SignatureError, LicenseError: as
            `open_delta`.
    """
    path = locate(model, progress)
    if (path / MANIFEST).is_file():
        return _open_release(
            stack, model, path, each(base), policy, accept_license, progress
        )
    found = find(path)
    checkpoint = stack.enter_context(open_found(found))
    layouts: list[Layout] = []
    if isinstance(checkpoint, SafetensorsCheckpoint):
        layouts = [file.layout for file in checkpoint.files]
    names = beside(found)[0] if files else []
    return Side(
        label=str(model),
        checkpoint=checkpoint,
        metadata=_metadata(layouts),
        files={name: hash_file(found.root / name) for name in names},
        folder=found.root,
    )


def _open_release(
    stack: ExitStack,
    model: str | Path,
    path: Path,
    bases: Sequence[str | Path],
    policy: Policy,
    accept_license: Consent,
    progress: ProgressCallback | None,
) -> Side:
    found = [(base, locate(base, progress)) for base in bases]
    roots = [at for _, at in found if not is_release(at)]
    if len(roots) > 1:
        raise UsageError(
            f"{model}: has one base, and {roots[0]} and {roots[1]} are two models: name "
            "one, and releases that lead from it to what this one was made on"
        )
    if not roots:
        raise UsageError(
            f"{model}: is a delta release, which holds no weights: name its base with "
            "--base, or rebuild it first with `releasekit apply-delta`"
        )
    earlier = [(base, at) for base, at in found if is_release(at) and at != path]
    steps = path_to(model, path, earlier)
    places = [Located(path=at) for _, at in steps]
    lineage = stack.enter_context(open_lineage([name for name, _ in steps], places, policy))
    release = lineage.last
    manifest = release.manifest
    checkpoint = stack.enter_context(lineage.open_base(Located(path=roots[0])))
    lineage.check_base(checkpoint)
    lineage.check_files()
    lineage.agree(accept_license)
    virtual = lineage.virtual(checkpoint)
    return Side(
        label=str(model),
        checkpoint=virtual,
        metadata=_metadata([entry.layout for entry in manifest.weights]),
        files={
            entry.path: entry.sha256
            for entry in manifest.files
            if not entry.path.endswith(Kind.SAFETENSORS.indices)  # as `beside` has it
        },
        folder=path,
        virtual=virtual,
        release=release,
    )


def _metadata(layouts: Sequence[Layout]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for layout in layouts:
        for key, text in (layout.metadata or {}).items():
            values = found.setdefault(key, [])
            if text not in values:
                values.append(text)
    return {key: " | ".join(sorted(values)) for key, values in found.items()}
