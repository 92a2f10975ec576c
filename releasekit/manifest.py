"""`release.json`: what a delta release is, and what it rebuilds.

    format       "releasekit-delta/1"
    name         the release's name
    version      its version, which orders the releases of that name
    publisher    whose it is; may be left out
    made_with    the program that wrote it
    codec        {id, params}
    base         {identity, tensors: [{name, dtype, shape, digest}], accepted: [identity],
                 release: {name, version, manifest, hub}}; the last if a release rebuilds it
    target       {identity, weights: [{path, size, sha256, header}], files: [{path, size,
                 sha256}]}
    tensors      [{name, op, ...}], in the order of the target's files
    shards       [{path, size, sha256}]
    plain        [{path, size, sha256}], with the codec `add-v1` only

Each fact stands once. The target's dtypes, shapes and offsets follow from its files'
headers, which are kept verbatim; a payload's place from the headers of the release's
shards; dropped tensors are those of the base that no operation uses. Plain differences are
in files of the same names as the target's tensors.

Documents are read in `manifest_parser`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from releasekit import digest, strictjson
from releasekit.codec import Ulp
from releasekit.codec.formats import CAST_ID
from releasekit.layout import Layout
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.tensors import TensorSpec
from releasekit.versions import FIRST

FORMAT: Final = "releasekit-delta/1"
MANIFEST: Final = "release.json"
SUMS: Final = "SHA256SUMS"
REBUILT_SUMS: Final = "rebuilt.SHA256SUMS"
PROVENANCE: Final = "provenance.json"
SIGNATURE: Final = "model.sig"
REBUILT_SIGNATURE: Final = "rebuilt.model.sig"
SUCCESSION: Final = "key-succession.jsonl"
LOADER_STOP: Final = "config.json"
TARGET_FOLDER: Final = "target"
#: Names that payloads and plain differences may not have.
RESERVED: Final = (
    *(MANIFEST, SUMS, REBUILT_SUMS, PROVENANCE, LOADER_STOP, TARGET_FOLDER),
    *(SIGNATURE, REBUILT_SIGNATURE, SUCCESSION),
)
#: A manifest may be no larger than this, in bytes; 100,000 tensors need a fifth of it.
MAX_MANIFEST: Final = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file with its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEntry:
    """A safetensors file of the target, with its layout."""

    file: FileEntry
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The release that rebuilds the base of another.

    Attributes:
        name: what it is called.
        version: its version.
        manifest: SHA-256 of its manifest.
        hub: its name on the Hub; None if it was not taken from there.
    """

    name: str
    version: str
    manifest: str
    hub: str | None = None

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A release's manifest, consistent in itself.

    Attributes:
        name: what the release is called.
        version: which of that name it is, see `versions`.
        publisher: who says to have made it; None if nobody does.
        made_with: the program that wrote it, for people.
        codec: how payloads are coded.
        base: the base's tensors by name.
        weights: the target's safetensors files, in the order of their paths.
        files: the target's other files, kept verbatim in the release.
        operations: one for each target tensor, in the order of the target's files.
        shards: the release's payload files.
        plain: the release's files of plain differences.
        accepted: identities of other checkpoints that do as well as the base: they hold
            all that the operations read of it.
        predecessor: the release that rebuilds the base; None if none is known.
    """

    name: str
    made_with: str
    codec: Ulp
    base: Mapping[str, BaseTensor]
    weights: tuple[WeightEntry, ...]
    files: tuple[FileEntry, ...]
    operations: Mapping[str, Operation]
    shards: tuple[FileEntry, ...]
    plain: tuple[FileEntry, ...] = ()
    accepted: tuple[str, ...] = ()
    version: str = FIRST
    publisher: str | None = None
    predecessor: Predecessor | None = None

    @cached_property
    def target(self) -> dict[str, TensorSpec]:
        """The target's tensors by name, in the order of its files."""
        return {
            placed.spec.name: placed.spec
            for entry in self.weights
            for placed in entry.layout.tensors
        }

    @cached_property
    def base_identity(self) -> str:
        """The base's identity, see `digest.identity`."""
        return digest.identity((t.spec, t.digest) for t in self.base.values())

    @cached_property
    def target_identity(self) -> str:
        """The rebuilt checkpoint's identity."""
        return digest.identity(
            (spec, self.operations[name].digest) for name, spec in self.target.items()
        )

    @cached_property
    def dropped(self) -> tuple[str, ...]:
        """Base tensors that the target lacks."""
        return tuple(name for name in self.base if name not in self.target)

    @cached_property
    def rebuilt(self) -> dict[str, FileEntry]:
        """Every file that a rebuild writes, by path."""
        entries = (*(entry.file for entry in self.weights), *self.files)
        return {entry.path: entry for entry in entries}

    @property
    def rebuilt_sizes(self) -> list[int]:
        """Size of each file that a rebuild writes."""
        return [entry.size for entry in self.rebuilt.values()]

    @property
    def rebuilt_nbytes(self) -> int:
        """Size of all that a rebuild writes."""
        return sum(self.rebuilt_sizes)

    @cached_property
    def stored(self) -> dict[str, FileEntry]:
        """Every file of the release that a rebuild reads, by its path in the release."""
        targets = {f"{TARGET_FOLDER}/{entry.path}": entry for entry in self.files}
        return {entry.path: entry for entry in (*self.shards, *self.plain)} | targets

    def predictor(self, name: str) -> TensorSpec | None:
        """The base tensor that predicts target tensor `name`, if its operation has one."""
        if self.operations[name].op in (Op.SAME, Op.DELTA, Op.RESIZE):
            return self.base[name].spec
        return None

    @property
    def predictors(self) -> dict[str, TensorSpec]:
        """The base's tensors that predict, by the names of the target's."""
        found = ((name, self.predictor(name)) for name in self.target)
        return {name: spec for name, spec in found if spec is not None}

    def pack(self) -> bytes:
        """The document; the inverse of `parse`."""
        return strictjson.dumps(
            {
                "format": FORMAT,
                "name": self.name,
                "version": self.version,
            }
            | ({"publisher": self.publisher} if self.publisher else {})
            | {
                "made_with": self.made_with,
                "codec": self.codec.to_json(),
                "base": {
                    "identity": self.base_identity,
                    "tensors": [
                        {
                            "name": t.spec.name,
                            "dtype": t.spec.dtype.label,
                            "shape": list(t.spec.shape),
                            "digest": t.digest,
                        }
                        for t in self.base.values()
                    ],
                    "accepted": list(self.accepted),
                }
                | _predecessor_json(self.predecessor),
                "target": {
                    "identity": self.target_identity,
                    "weights": [
                        _file_json(entry.file) | {"header": entry.layout.header.decode()}
                        for entry in self.weights
                    ],
                    "files": [_file_json(entry) for entry in self.files],
                },
                "tensors": [self._operation_json(name) for name in self.target],
                "shards": [_file_json(entry) for entry in self.shards],
            }
            | ({"plain": [_file_json(e) for e in self.plain]} if self.codec.plain else {})
        )

    def _operation_json(self, name: str) -> dict[str, object]:
        operation = self.operations[name]
        fields: dict[str, object] = {"name": name, "op": operation.op.value}
        if operation.op.has_payload:
            fields["digest"] = operation.digest
        if operation.op is Op.ALIAS:
            fields["of"] = operation.of
        predictor = self.predictor(name)
        if predictor is not None and predictor.dtype is not self.target[name].dtype:
            fields["cast"] = CAST_ID
        return fields


def _predecessor_json(before: Predecessor | None) -> dict[str, object]:
    if before is None:
        return {}
    fields = {"name": before.name, "version": before.version, "manifest": before.manifest}
    return {"release": fields | ({"hub": before.hub} if before.hub else {})}


def _file_json(entry: FileEntry) -> dict[str, object]:
    return {"path": entry.path, "size": entry.size, "sha256": entry.sha256}
