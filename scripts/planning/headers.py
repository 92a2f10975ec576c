"""Models and releases of any size, of which there are only headers: the rest is holes.

A plan reads headers alone, so these do in the place of terabytes: a file has its true size,
and takes of the disk what its header takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from releasekit import layout, sharding, sums
from releasekit.codec import Ulp
from releasekit.digest import sha256_hex
from releasekit.layout import Layout
from releasekit.manifest import MANIFEST, SUMS, FileEntry, Manifest, WeightEntry
from releasekit.operations import BaseTensor, Op, Operation
from releasekit.sharding import Shard
from releasekit.tensors import DType, TensorSpec

_NO_DIGEST = "0" * 64
#: Bytes of payloads in a file of a release, as `make-delta` writes them.
_SHARD = 2_000_000_000


def write_model(
    folder: Path, specs: Sequence[TensorSpec], shard_nbytes: int
) -> tuple[Shard, ...]:
    """Write a checkpoint's headers in a new folder; returns its files."""
    folder.mkdir(parents=True)
    shards = sharding.lay_out(specs, shard_nbytes)
    for name, data in sharding.index_of(shards).items():
        (folder / name).write_bytes(data)
    for shard in shards:
        _write(folder / shard.name, shard.layout)
    return shards


def write_release(
    folder: Path,
    specs: Sequence[TensorSpec],
    files: Sequence[Shard],
    ratio: float,
    *,
    name: str = "headers",
    changed: Callable[[str], bool] = lambda name: True,
) -> None:
    """Write the headers of a release in a new folder.

    Args:
        folder: where to.
        specs: the base's tensors; the target's are the same.
        files: the target's.
        ratio: bytes of a payload by those of its tensor.
        name: the release's.
        changed: whether a tensor has a payload, by its name.
    """
    folder.mkdir(parents=True)
    operations = {
        placed.spec.name: Operation(
            op=Op.DELTA if changed(placed.spec.name) else Op.SAME, digest=_NO_DIGEST
        )
        for file in files
        for placed in file.layout.tensors
    }
    base = {spec.name: BaseTensor(spec=spec, digest=_NO_DIGEST) for spec in specs}
    payloads = [
        TensorSpec(name=s.name, dtype=DType.U8, shape=(max(1, round(ratio * s.nbytes)),))
        for s in specs
        if operations[s.name].op is Op.DELTA
    ]
    shards = sharding.lay_out(payloads, _SHARD, "delta")
    for shard in shards:
        _write(folder / shard.name, shard.layout)
    manifest = Manifest(
        name=name,
        made_with="scripts/planning",
        codec=Ulp(),
        base={name: base[name] for name in sorted(base)},
        weights=tuple(
            WeightEntry(file=_entry(f.name, f.layout), layout=f.layout) for f in files
        ),
        files=(),
        operations=operations,
        shards=tuple(_entry(shard.name, shard.layout) for shard in shards),
    )
    document = manifest.pack()
    (folder / MANIFEST).write_bytes(document)
    (folder / SUMS).write_bytes(sums.format_sums({MANIFEST: sha256_hex(document)}))


def _write(path: Path, what: layout.Layout) -> None:
    with path.open("wb") as file:
        file.write(what.prefix)
        file.truncate(what.file_size)


def _entry(path: str, what: Layout) -> FileEntry:
    return FileEntry(path=path, size=what.file_size, sha256=_NO_DIGEST)
