"""Make a release from a base and a target, and prove that it rebuilds.

Order of work: list the target's files and plan each tensor's operation; encode in one
streaming pass, which decodes each chunk again; hash what of the base was not read; write
the manifest and the small files; open the result as a user would, and check that its
payloads, read back, are those that were proved. Only then does the release get its name.
What an interrupted run had coded is kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from releasekit import sums
from releasekit.checkpoint import Checkpoint, open_checkpoint
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.encode import Encoder, StaleJournalError, hash_base, need
from releasekit.delta.journal import Journal
from releasekit.delta.plan import find_aliases
from releasekit.delta.release import Release
from releasekit.delta.shards import ShardWriter
from releasekit.delta.source import TargetFiles, list_target
from releasekit.device.choose import AUTO, Engine, engines, explain
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError, UsageError
from releasekit.manifest import (
    LOADER_STOP,
    MANIFEST,
    REBUILT_SUMS,
    SUMS,
    TARGET_FOLDER,
    FileEntry,
    Manifest,
)
from releasekit.names import shown
from releasekit.operations import count_operations
from releasekit.output import OutputFolder, require_space
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import DEFAULT_MAX_MEMORY, Resources, share_out

#: Size at which a payload shard is closed, in bytes: what one failed upload may cost.
DEFAULT_SHARD_NBYTES: Final = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeResult:
    """What was released.

    Attributes:
        out: the release folder.
        name: the release's name.
        base_identity: identity of the base.
        target_identity: identity of the target.
        tensors: operation of each tensor by name; `dropped` for the base's that the
            target lacks.
        full_nbytes: size of the target's files.
        published_nbytes: size of the release's files.
        unchanged: share of elements with a base that equal it, 0 to 1; None if there
            are none.
        kept: number of tensors that an earlier, interrupted run had coded.
        excluded: files of the target that were left out.
        device: what proved the chunks, and why.
        seconds: time it took.
    """

    out: Path
    name: str
    base_identity: str
    target_identity: str
    tensors: dict[str, str]
    full_nbytes: int
    published_nbytes: int
    unchanged: float | None
    kept: int
    excluded: tuple[str, ...]
    device: str
    seconds: float

    @property
    def operations(self) -> dict[str, int]:
        """Number of tensors by operation, 0 included."""
        return count_operations(self.tensors.values())

    @property
    def ratio(self) -> float:
        """Published size divided by full size."""
        return self.published_nbytes / self.full_nbytes if self.full_nbytes else 1.0


def make_delta(
    base: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    exclude: Sequence[str] = (),
    codec: Ulp | None = None,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> MakeResult:
    """Release `target` as a delta on `base`, in a new folder `out`.

    Args:
        base: file or folder of the base checkpoint.
        target: file or folder of the checkpoint to release; the other files of a folder
            are released with it, verbatim.
        out: folder to make; appears complete and proved, or not at all.
        name: the release's name; by default the target's.
        shard_nbytes: size at which a payload shard is closed.
        exclude: patterns of files in the target folder to leave out.
        codec: parameters of the codec.
        force: replace `out` if it exists.
        device: what proves the chunks, as in `apply_delta`; coding is the processor's work.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most; fewer threads are used if need be.
        progress: called with the state of each stage.

    Raises:
        UsageError: if a path is wrong, `out` exists, the target holds weights that belong
            to no checkpoint, there is no such device, or `max_memory` is too little.
        FormatError: if an input is malformed.
        IntegrityError: if the result does not rebuild the target.
        OSError: if the system fails.
    """
    started = time.monotonic()
    base, target, out = Path(base), Path(target), Path(out)
    if shard_nbytes < 1:
        raise UsageError(f"shard size: expected at least 1 byte, found {shard_nbytes}")
    listed = list_target(target, exclude)
    with (
        SafetensorsCheckpoint.open(listed.found) as target_checkpoint,
        open_checkpoint(base) as base_checkpoint,
    ):
        if not target_checkpoint.specs:
            raise UsageError(f"{target}: holds no tensors; there is nothing to release")
        codec = codec or Ulp()
        engine = engines(device)[0]
        resources = share_out(
            need(base_checkpoint, target_checkpoint, codec),
            threads=threads,
            max_memory=max_memory,
            extra=engine.host_nbytes,
        )
        maker = _Maker(
            base=base_checkpoint,
            target=target_checkpoint,
            listed=listed,
            name=name or _default_name(target),
            codec=codec,
            shard_nbytes=shard_nbytes,
            engine=engine,
            resources=resources,
            progress=progress,
        )
        key = maker.key()
        with OutputFolder(out, key=key, force=force, inputs=(base, target)) as folder:
            require_space(folder.partial, [maker.space_nbytes(folder)])
            try:
                manifest, encoder = maker.encode(folder)
            except StaleJournalError:
                folder.restart()
                manifest, encoder = maker.encode(folder)
            published = _write_small_files(folder, manifest)
            maker.read_back(folder, encoder.payloads)
            folder.commit()
    operations = {name: made.op.value for name, made in manifest.operations.items()}
    return MakeResult(
        out=out,
        name=manifest.name,
        base_identity=manifest.base_identity,
        target_identity=manifest.target_identity,
        tensors=operations | dict.fromkeys(manifest.dropped, "dropped"),
        full_nbytes=manifest.rebuilt_nbytes,
        published_nbytes=published,
        unchanged=encoder.unchanged / encoder.words if encoder.words else None,
        kept=encoder.kept,
        excluded=listed.excluded,
        device=explain(device),
        seconds=time.monotonic() - started,
    )


def _default_name(target: Path) -> str:
    resolved = target.resolve()
    return resolved.name if resolved.is_dir() else resolved.name.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """What is to be made, from open inputs."""

    base: Checkpoint
    target: SafetensorsCheckpoint
    listed: TargetFiles
    name: str
    codec: Ulp
    shard_nbytes: int
    engine: Engine
    resources: Resources
    progress: ProgressCallback | None

    def key(self) -> str:
        """Names the work by all that shapes the release, but for the tensors' values."""
        shaping = [
            _made_with(),
            self.codec.to_json(),
            self.shard_nbytes,
            self.name,
            [[n, s.describe()] for n, s in self.base.specs.items()],
            [[f.name, sha256_hex(f.layout.prefix)] for f in self.target.files],
            self.listed.others,
        ]
        return f"make {sha256_hex(json.dumps(shaping).encode())}"

    def space_nbytes(self, folder: OutputFolder) -> int:
        """Disk space to begin with: an eighth of the target, if nothing is there yet.

        How far a delta shrinks is known only once it is made; less than this is rare.
        """
        if folder.reused:
            return 0
        return sum(file.layout.file_size for file in self.target.files) // 8

    def encode(self, folder: OutputFolder) -> tuple[Manifest, Encoder]:
        """Write shards and verbatim files."""
        with (
            closing(Journal(folder)) as journal,
            ShardWriter(folder, self.shard_nbytes, journal) as shards,
        ):
            aliases = find_aliases(self.base, self.target)
            encoder = Encoder(
                self.base,
                self.target,
                aliases,
                self.codec,
                shards,
                journal,
                self.engine.combine,
            )
            buffers = self.resources.buffers(self.engine.allocate)
            total = sum(spec.nbytes for spec in self.target.specs.values())
            stage = Stage(self.progress, "encode", total)
            with Workers(self.resources.threads) as workers:
                weights = tuple(
                    encoder.file(file, workers, buffers, stage)
                    for file in self.target.files
                )
                entries = shards.close()
                unread = [name for name in self.base.specs if name not in encoder.base]
                base = encoder.base | hash_base(self.base, unread, workers, self.progress)
        root = self.listed.found.root
        manifest = Manifest(
            name=self.name,
            made_with=_made_with(),
            codec=self.codec,
            base={tensor: base[tensor] for tensor in sorted(base)},
            weights=weights,
            files=tuple(_keep(folder, root, path) for path in self.listed.others),
            operations=encoder.operations,
            shards=entries,
        )
        return manifest, encoder

    def read_back(self, folder: OutputFolder, payloads: Mapping[str, str]) -> None:
        """Open the release as a user would; its payloads must be those that were proved.

        Raises:
            IntegrityError: if the disk gave back something else.
        """
        with (
            Release.open(folder.path("")) as release,
            Workers(self.resources.threads) as workers,
        ):
            for name, found in release.hash_payloads(payloads, workers, self.progress):
                if found != payloads[name]:
                    raise IntegrityError(
                        f"{folder.partial}: payload {shown(name)}: reads back as something "
                        "else than was written: the disk fails; choose an --out on another"
                    )


def _made_with() -> str:
    return f"releasekit {version('releasekit')}"


def _keep(folder: OutputFolder, root: Path, path: str) -> FileEntry:
    """Keep a file of the target verbatim."""
    size, digest = folder.copy(root / path, f"{TARGET_FOLDER}/{path}")
    return FileEntry(path=path, size=size, sha256=digest)


def _write_small_files(folder: OutputFolder, manifest: Manifest) -> int:
    """Write all but shards and verbatim files; returns the size of the whole release."""
    rebuilt = {path: entry.sha256 for path, entry in manifest.rebuilt.items()}
    small = {
        MANIFEST: manifest.pack(),
        LOADER_STOP: _loader_stop(manifest),
        REBUILT_SUMS: sums.format_sums(rebuilt),
    }
    digests = {path: entry.sha256 for path, entry in manifest.stored.items()}
    digests |= {name: sha256_hex(data) for name, data in small.items()}
    small[SUMS] = sums.format_sums(digests)
    for name, data in small.items():
        folder.write(name, data)
    folder.keep_only([*digests, SUMS])
    return sum(folder.path(name).stat().st_size for name in (*digests, SUMS))


def _loader_stop(manifest: Manifest) -> bytes:
    """A config that stops model libraries, and tells whoever opens it what to do."""
    stop = {
        "model_type": "releasekit_delta",
        "releasekit": (
            f"This folder is a delta, not a model: it holds the difference between "
            f"{manifest.name} and its base. Rebuild the model with: releasekit apply-delta "
            "--base BASE --delta THIS_FOLDER --out MODEL"
        ),
        "base_identity": manifest.base_identity,
    }
    return (json.dumps(stop, indent=2, ensure_ascii=False) + "\n").encode()
