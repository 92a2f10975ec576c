"""`release.json`: what a delta release is, and what it rebuilds.

    format       "releasekit-delta/1"
    name         the release's name
    made_with    the program that wrote it
    codec        {id, params}
    base         {identity, tensors: [{name, dtype, shape, digest}]}
    target       {identity, weights: [{path, size, sha256, header}], files: [{path, size,
                 sha256}]}
    tensors      [{name, op, ...}], in the order of the target's files
    shards       [{path, size, sha256}]

Each fact stands once. The target's dtypes, shapes and offsets follow from its files'
headers, which are kept verbatim; a payload's place from the headers of the release's
shards; dropped tensors are those of the base that no operation uses.

Parsing is strict, and proves what later steps rely on: every target tensor has exactly
one operation, every operation fits its base tensor, both identities are the digests of
what is listed, no path leaves its folder or clashes with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from releasekit import digest, layout, strictjson
from releasekit.codec import Ulp
from releasekit.codec.formats import CAST_ID
from releasekit.errors import FormatError
from releasekit.layout import Layout
from releasekit.names import describe, refuse_clashes, safe_path, shown
from releasekit.operations import BaseTensor, Op, Operation, fits
from releasekit.strictjson import Record
from releasekit.tensors import DTYPES, DType, TensorSpec

FORMAT: Final = "releasekit-delta/1"
MANIFEST: Final = "release.json"
SUMS: Final = "SHA256SUMS"
REBUILT_SUMS: Final = "rebuilt.SHA256SUMS"
LOADER_STOP: Final = "config.json"
TARGET_FOLDER: Final = "target"
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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A release's manifest, consistent in itself.

    Attributes:
        name: what the release is called.
        made_with: the program that wrote it, for people.
        codec: how payloads are coded.
        base: the base's tensors by name.
        weights: the target's safetensors files, in the order of their paths.
        files: the target's other files, kept verbatim in the release.
        operations: one for each target tensor, in the order of the target's files.
        shards: the release's payload files.
    """

    name: str
    made_with: str
    codec: Ulp
    base: Mapping[str, BaseTensor]
    weights: tuple[WeightEntry, ...]
    files: tuple[FileEntry, ...]
    operations: Mapping[str, Operation]
    shards: tuple[FileEntry, ...]

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
    def rebuilt_nbytes(self) -> int:
        """Size of all that a rebuild writes."""
        return sum(entry.size for entry in self.rebuilt.values())

    @cached_property
    def stored(self) -> dict[str, FileEntry]:
        """Every file of the release that a rebuild reads, by its path in the release."""
        targets = {f"{TARGET_FOLDER}/{entry.path}": entry for entry in self.files}
        return {entry.path: entry for entry in self.shards} | targets

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
                },
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


def parse(document: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        FormatError: with the path of the field that is wrong.
    """
    root = Record(strictjson.loads(document, MANIFEST), MANIFEST)
    found = root.text("format")
    if found != FORMAT:
        raise FormatError(
            f"{MANIFEST}: format: expected {shown(FORMAT)}, found {shown(found)}: a newer "
            "releasekit may know it; update with `pip install -U releasekit`"
        )
    name, made_with = root.text("name"), root.text("made_with")
    codec = Ulp.from_record(root.record("codec"), MANIFEST)
    base_record = root.record("base")
    base = _base_tensors(base_record)
    target_record = root.record("target")
    weights = _weights(target_record)
    manifest = Manifest(
        name=name,
        made_with=made_with,
        codec=codec,
        base=base,
        weights=weights,
        files=tuple(_file(item) for item in target_record.records("files")),
        operations=_operations(root, base, weights),
        shards=tuple(_file(item) for item in root.records("shards")),
    )
    _check_identity("base.identity", base_record, manifest.base_identity)
    _check_identity("target.identity", target_record, manifest.target_identity)
    for record in (base_record, target_record, root):
        record.close()
    refuse_clashes(
        [
            *(entry.file.path for entry in manifest.weights),
            *(entry.path for entry in manifest.files),
        ],
        f"{MANIFEST}: target",
    )
    refuse_clashes(
        [
            *(entry.path for entry in manifest.shards),
            *(MANIFEST, SUMS, REBUILT_SUMS, LOADER_STOP, TARGET_FOLDER),
        ],
        f"{MANIFEST}: shards",
    )
    return manifest


def _file_json(entry: FileEntry) -> dict[str, object]:
    return {"path": entry.path, "size": entry.size, "sha256": entry.sha256}


def _file(record: Record, *, close: bool = True) -> FileEntry:
    entry = FileEntry(
        path=safe_path(record.text("path"), MANIFEST),
        size=record.integer("size"),
        sha256=record.hex_digest("sha256"),
    )
    if close:
        record.close()
    return entry


def _dtype(record: Record) -> DType:
    return DTYPES[record.choice("dtype", DTYPES)]


def _base_tensors(base: Record) -> dict[str, BaseTensor]:
    tensors: dict[str, BaseTensor] = {}
    for record in base.records("tensors"):
        spec = TensorSpec(
            name=record.text("name"), dtype=_dtype(record), shape=record.integers("shape")
        )
        if spec.name in tensors:
            raise FormatError(f"{MANIFEST}: base.tensors: {shown(spec.name)} stands twice")
        tensors[spec.name] = BaseTensor(spec=spec, digest=record.hex_digest("digest"))
        record.close()
    return tensors


def _weights(target: Record) -> tuple[WeightEntry, ...]:
    entries = []
    seen: set[str] = set()
    for record in target.records("weights"):
        file = _file(record, close=False)
        header = record.text("header").encode()
        record.close()
        parsed = layout.parse(header, file.size, f"{MANIFEST}: target: {file.path}")
        for placed in parsed.tensors:
            if placed.spec.name in seen:
                raise FormatError(
                    f"{MANIFEST}: target.weights: tensor {shown(placed.spec.name)} stands "
                    "in two files"
                )
            seen.add(placed.spec.name)
        entries.append(WeightEntry(file=file, layout=parsed))
    return tuple(entries)


def _operations(
    root: Record, base: Mapping[str, BaseTensor], weights: tuple[WeightEntry, ...]
) -> dict[str, Operation]:
    target = {p.spec.name: p.spec for entry in weights for p in entry.layout.tensors}
    kinds = {op.value: op for op in Op}
    operations: dict[str, Operation] = {}
    aliases: dict[str, str] = {}
    for record in root.records("tensors"):
        name, op = record.text("name"), kinds[record.choice("op", kinds)]
        where = f"{MANIFEST}: tensors: {shown(name)}"
        if name in operations or name in aliases:
            raise FormatError(f"{where}: stands twice")
        if name not in target:
            raise FormatError(f"{where}: is in none of the target's files")
        source = base.get(name)
        misfit = fits(op, source.spec if source else None, target[name])
        if misfit:
            raise FormatError(f"{where}: op {op.value}: {misfit}")
        if op is not Op.ALIAS:
            value = record.hex_digest("digest") if op.has_payload else base[name].digest
            operations[name] = Operation(op=op, digest=value)
            _check_cast(record, where, op, source, target[name])
        else:
            aliases[name] = record.text("of")
        record.close()
    for name, of in aliases.items():
        where = f"{MANIFEST}: tensors: {shown(name)}: of"
        if of not in operations:
            raise FormatError(f"{where}: {shown(of)} is no tensor with bytes of its own")
        if (target[of].dtype, target[of].shape) != (target[name].dtype, target[name].shape):
            raise FormatError(
                f"{where}: expected {target[name].describe()}, found {shown(of)} of "
                f"{target[of].describe()}"
            )
        operations[name] = Operation(op=Op.ALIAS, digest=operations[of].digest, of=of)
    for name in target:
        if name not in operations:
            raise FormatError(f"{MANIFEST}: tensors: {shown(name)} has no operation")
    return {name: operations[name] for name in target}


def _check_cast(
    record: Record, where: str, op: Op, source: BaseTensor | None, target: TensorSpec
) -> None:
    needed = (
        op in (Op.DELTA, Op.RESIZE)
        and source is not None
        and source.spec.dtype is not target.dtype
    )
    found = record.optional_text("cast")
    expected = CAST_ID if needed else None
    if found != expected:
        raise FormatError(
            f"{where}: cast: expected {describe(expected)}, found {describe(found)}"
        )


def _check_identity(field: str, record: Record, computed: str) -> None:
    stated = record.hex_digest("identity")
    if stated != computed:
        raise FormatError(
            f"{MANIFEST}: {field}: expected {computed}, the digest of the tensors listed, "
            f"found {stated}"
        )
