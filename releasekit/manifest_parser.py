"""Reads `release.json`, strictly.

What later steps rely on is proved here: every target tensor has exactly one operation,
every operation fits its base tensor, both identities are the digests of what is listed, no
path leaves its folder or clashes with another.
"""

from __future__ import annotations

from collections.abc import Mapping

from releasekit import layout, strictjson
from releasekit.codec import read_codec
from releasekit.codec.formats import CAST_ID
from releasekit.errors import FormatError
from releasekit.manifest import (
    FORMAT,
    MANIFEST,
    RESERVED,
    FileEntry,
    Manifest,
    Predecessor,
    WeightEntry,
)
from releasekit.names import (
    describe,
    is_publisher,
    is_title,
    refuse_clashes,
    safe_path,
    shown,
)
from releasekit.operations import BaseTensor, Op, Operation, fits
from releasekit.strictjson import Record, is_hex_digest
from releasekit.tensors import DTYPES, DType, TensorSpec
from releasekit.versions import EXPECTED, is_version


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
    name, version, publisher = _release(root)
    made_with = root.text("made_with")
    codec = read_codec(root.record("codec"), MANIFEST)
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
        plain=_plain(root, weights) if codec.plain else (),
        accepted=_accepted(base_record),
        version=version,
        publisher=publisher,
        predecessor=_predecessor(base_record),
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
            *(entry.path for entry in (*manifest.shards, *manifest.plain)),
            *RESERVED,
        ],
        f"{MANIFEST}: shards",
    )
    return manifest


def _release(root: Record) -> tuple[str, str, str | None]:
    """What the release is called, which of that name it is, and whose."""
    name, version = _label(root)
    publisher = root.optional_text("publisher")
    if publisher is not None and not is_publisher(publisher):
        raise FormatError(
            f"{MANIFEST}: publisher: expected letters, digits and . _ -, found "
            f"{shown(publisher)}"
        )
    return name, version, publisher


def _label(record: Record) -> tuple[str, str]:
    """What a release is called, and which of that name it is."""
    name, version = record.text("name"), record.text("version")
    if not is_title(name):
        raise FormatError(
            f"{record.place('name')}: expected a line of 1 to 200 characters, found "
            f"{shown(name)}"
        )
    if not is_version(version):
        raise FormatError(
            f"{record.place('version')}: expected {EXPECTED}, found {shown(version)}"
        )
    return name, version


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


def _accepted(base: Record) -> tuple[str, ...]:
    found = base.texts("accepted")
    for index, text in enumerate(found):
        if not is_hex_digest(text):
            raise FormatError(
                f"{MANIFEST}: base.accepted[{index}]: expected 64 lowercase hexadecimal "
                f"digits, found {shown(text)}"
            )
    if len(set(found)) < len(found):
        raise FormatError(f"{MANIFEST}: base.accepted: an identity stands twice")
    return found


def _predecessor(base: Record) -> Predecessor | None:
    """The release that rebuilds the base, if one is named."""
    record = base.optional_record("release")
    if record is None:
        return None
    name, version = _label(record)
    hub = record.optional_text("hub")
    if hub is not None and not is_title(hub):
        raise FormatError(
            f"{record.place('hub')}: expected a line of 1 to 200 characters, found "
            f"{shown(hub)}"
        )
    found = Predecessor(
        name=name, version=version, manifest=record.hex_digest("manifest"), hub=hub
    )
    record.close()
    return found


def _plain(root: Record, weights: tuple[WeightEntry, ...]) -> tuple[FileEntry, ...]:
    entries = tuple(_file(item) for item in root.records("plain"))
    if [entry.path for entry in entries] != [entry.file.path for entry in weights]:
        raise FormatError(f"{MANIFEST}: plain: expected files of target.weights' names")
    return entries


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
