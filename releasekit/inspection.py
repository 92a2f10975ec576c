"""What a release or a checkpoint holds, read from headers alone.

Instant on any size, since no tensor is read; so it says what the files claim, and
`verify` says whether they keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from releasekit.checkpoint import open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import locate
from releasekit.delta.release import Release
from releasekit.folding import fold
from releasekit.license_files import read_chain
from releasekit.licenses.chain import Chain
from releasekit.manifest import MANIFEST, SIGNATURE, Manifest
from releasekit.operations import count_operations
from releasekit.tensors import DType, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor of the model.

    Attributes:
        spec: name, dtype and shape.
        file: the weight file that holds it, or will.
        op: in a release, the operation that makes it.
        published_nbytes: in a release, the size of its payload.
    """

    spec: TensorSpec
    file: str
    op: str | None = None
    published_nbytes: int | None = None

    @property
    def ratio(self) -> float | None:
        """Published size divided by full size; None outside a release."""
        return _ratio(self.published_nbytes, self.spec.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorGroup:
    """Tensors that are alike but for numbers in their names, as those of layers are.

    Attributes:
        name: stands for their names: `layers.{0…79}.up.weight`.
        count: how many they are; 1 for a tensor that is like no other.
        spec: that of the first, whose dtype and shape all have.
        nbytes: size of all together.
        op: in a release, the operation that makes each of them.
        published_nbytes: in a release, the size of their payloads together.
    """

    name: str
    count: int
    spec: TensorSpec
    nbytes: int
    op: str | None = None
    published_nbytes: int | None = None

    @property
    def ratio(self) -> float | None:
        """Published size divided by full size; None outside a release."""
        return _ratio(self.published_nbytes, self.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class DTypeTotal:
    """Tensors of one dtype.

    Attributes:
        dtype: theirs.
        tensors: how many they are.
        elements: how many numbers they have.
        nbytes: their size.
    """

    dtype: DType
    tensors: int
    elements: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found at a path.

    Attributes:
        path: where.
        kind: "delta" or "checkpoint".
        container: how a checkpoint is stored: "safetensors", "PyTorch" or "Meta".
        tensors: the model's tensors; for a delta, those that it rebuilds.
        files: sizes of the files at `path` by name; for a delta, of the release's.
        rebuilt: for a delta, sizes of the files that it rebuilds.
        manifest: for a delta, its manifest.
        signed: for a delta, whether it has a signature, good or not.
        licenses: what is said of its licences, unchecked; None if nothing is.
    """

    path: Path
    kind: str
    tensors: tuple[TensorInfo, ...]
    files: dict[str, int]
    rebuilt: dict[str, int]
    container: str | None = None
    manifest: Manifest | None = None
    signed: bool = False
    licenses: Chain | None = None

    @property
    def tensor_nbytes(self) -> int:
        """Size of all tensors, uncompressed."""
        return sum(info.spec.nbytes for info in self.tensors)

    @property
    def parameters(self) -> int:
        """Elements of all tensors, as the Hub counts parameters."""
        return sum(info.spec.numel for info in self.tensors)

    @property
    def groups(self) -> tuple[TensorGroup, ...]:
        """The tensors, those together that differ in nothing but numbers in their names."""
        alike = [
            (info.spec.name, (info.spec.dtype, info.spec.shape, info.op))
            for info in self.tensors
        ]
        return tuple(
            _group(folded.name, [self.tensors[place] for place in folded.members])
            for folded in fold(alike)
        )

    @property
    def dtypes(self) -> tuple[DTypeTotal, ...]:
        """Totals of each dtype, the largest first."""
        by_dtype: dict[DType, list[TensorSpec]] = {}
        for info in self.tensors:
            by_dtype.setdefault(info.spec.dtype, []).append(info.spec)
        found = (
            DTypeTotal(
                dtype=dtype,
                tensors=len(specs),
                elements=sum(spec.numel for spec in specs),
                nbytes=sum(spec.nbytes for spec in specs),
            )
            for dtype, specs in by_dtype.items()
        )
        return tuple(sorted(found, key=lambda total: -total.nbytes))

    @property
    def operations(self) -> dict[str, int]:
        """For a delta, number of tensors by operation, 0 included."""
        if self.manifest is None:
            return {}
        made = [info.op for info in self.tensors if info.op is not None]
        return count_operations([*made, *("dropped" for _ in self.manifest.dropped)])


def inspect(path: str | Path) -> Inspection:
    """Read the headers at `path`.

    Args:
        path: a release folder, or a checkpoint: folder, index, single file, or a model on
            the Hub.

    Raises:
        UsageError: if there is neither.
        FormatError: with the field that is wrong.
        IntegrityError: if a file of a release is missing or has another size.
    """
    path = locate(path)
    if (path / MANIFEST).is_file():
        return _inspect_release(path)
    found = find(path)
    with open_found(found) as checkpoint:
        return Inspection(
            path=path,
            kind="checkpoint",
            tensors=tuple(
                TensorInfo(spec=spec, file=checkpoint.home(name))
                for name, spec in checkpoint.specs.items()
            ),
            files=dict(checkpoint.file_sizes),
            rebuilt={},
            container=found.kind.label,
            licenses=read_chain(found.root) if path.is_dir() else None,
        )


def _ratio(published: int | None, nbytes: int) -> float | None:
    if published is None:
        return None
    return published / nbytes if nbytes else 0.0


def _group(name: str, infos: list[TensorInfo]) -> TensorGroup:
    published = [n for info in infos if (n := info.published_nbytes) is not None]
    return TensorGroup(
        name=name,
        count=len(infos),
        spec=infos[0].spec,
        nbytes=sum(info.spec.nbytes for info in infos),
        op=infos[0].op,
        published_nbytes=sum(published) if published else None,
    )


def _inspect_release(path: Path) -> Inspection:
    with Release.open(path) as release:
        manifest = release.manifest
        tensors = tuple(
            TensorInfo(
                spec=placed.spec,
                file=entry.file.path,
                op=manifest.operations[placed.spec.name].op.value,
                published_nbytes=release.published_nbytes(placed.spec.name),
            )
            for entry in manifest.weights
            for placed in entry.layout.tensors
        )
        return Inspection(
            path=path,
            kind="delta",
            tensors=tensors,
            files={
                file.relative_to(path).as_posix(): file.stat().st_size
                for file in sorted(path.rglob("*"))
                if file.is_file()
            },
            rebuilt={name: entry.size for name, entry in manifest.rebuilt.items()},
            manifest=manifest,
            signed=(path / SIGNATURE).is_file(),
            licenses=read_chain(path),
        )
