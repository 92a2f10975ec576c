"""Puts a release together: payloads, manifest, and the small files around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from releasekit import sums
from releasekit.checkpoint import Checkpoint, LaidOut
from releasekit.codec import Ulp
from releasekit.delta.encode import Encoder, hash_base
from releasekit.delta.journal import Journal
from releasekit.delta.notary import Label, Notary, seal
from releasekit.delta.plain import plain_layout
from releasekit.delta.plan import find_aliases
from releasekit.delta.release import Release
from releasekit.delta.shards import ShardWriter
from releasekit.device.choose import Engine
from releasekit.digest import sha256_hex
from releasekit.errors import IntegrityError
from releasekit.hashing import hash_files
from releasekit.manifest import (
    LOADER_STOP,
    MANIFEST,
    PROVENANCE,
    REBUILT_SUMS,
    RESERVED,
    TARGET_FOLDER,
    FileEntry,
    Manifest,
)
from releasekit.names import folded, shown
from releasekit.output import OutputFolder
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.provenance import Material
from releasekit.resources import Resources
from releasekit.signing.statement import GIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What is to be made, from open inputs.

    Attributes:
        base: the base.
        target: what is to be released.
        others: the target's other files by their paths: where they are, or what they hold.
        label: what the release is called.
        notary: vouches for it.
        codec: how to code.
        shard_nbytes: size at which a payload shard is closed.
        engine: proves the chunks.
        resources: what may be used.
        progress: is told of it.
    """

    base: Checkpoint
    target: LaidOut
    others: Mapping[str, Path | bytes]
    label: Label
    notary: Notary
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
            self.label.name,
            [[n, s.describe()] for n, s in self.base.specs.items()],
            [[f.name, sha256_hex(f.layout.prefix)] for f in self.target.files],
            list(self.others),
        ]
        return f"make {sha256_hex(json.dumps(shaping).encode())}"

    def space(self, folder: OutputFolder) -> list[int]:
        """Sizes to find room for: an eighth of the target, and all plain differences.

        How far a delta shrinks is known only once it is made; less than this is rare.
        """
        sizes = [0 if folder.reused else self._target_nbytes // 8]
        if self.codec.plain:
            sizes += [plain_layout(file).file_size for file in self.target.files]
        return sizes

    @property
    def _target_nbytes(self) -> int:
        return sum(file.layout.file_size for file in self.target.files)

    def encode(self, folder: OutputFolder) -> tuple[Manifest, Encoder]:
        """Write shards and verbatim files."""
        with (
            closing(Journal(folder)) as journal,
            ShardWriter(folder, self.shard_nbytes, journal) as shards,
        ):
            # A plain difference stands for each tensor, so none may lean on another.
            aliases = {} if self.codec.plain else find_aliases(self.base, self.target)
            encoder = Encoder(
                self.base,
                self.target,
                aliases,
                self.codec,
                shards,
                journal,
                folder,
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
        manifest = Manifest(
            name=self.label.name,
            version=self.label.version,
            publisher=self.label.publisher,
            made_with=_made_with(),
            codec=self.codec,
            base={tensor: base[tensor] for tensor in sorted(base)},
            weights=weights,
            files=tuple(_keep(folder, *other) for other in self.others.items()),
            operations=encoder.operations,
            shards=entries,
            plain=tuple(encoder.plain),
        )
        return manifest, encoder

    def read_back(
        self, folder: OutputFolder, manifest: Manifest, payloads: Mapping[str, str]
    ) -> None:
        """Open the release as a user would; it must hold what was proved.

        Raises:
            IntegrityError: if the disk gave back something else.
        """
        plain = {entry.path: entry.sha256 for entry in manifest.plain}
        sizes = sum(entry.size for entry in manifest.plain)
        with (
            Release.open(folder.path("")) as release,
            Workers(self.resources.threads) as workers,
        ):
            for name, found in release.hash_payloads(payloads, workers, self.progress):
                if found != payloads[name]:
                    raise _not_read_back(folder, f"payload {shown(name)}")
            if plain:
                stage = Stage(self.progress, "read back differences", sizes)
                for name, found in hash_files(folder.path(""), plain, workers, stage):
                    if found != plain[name]:
                        raise _not_read_back(folder, shown(name))


def _not_read_back(folder: OutputFolder, what: str) -> IntegrityError:
    return IntegrityError(
        f"{folder.partial}: {what}: reads back as something else than was written: the "
        "disk fails; choose an --out on another"
    )


def _made_with() -> str:
    return f"releasekit {version('releasekit')}"


def _keep(folder: OutputFolder, path: str, content: Path | bytes) -> FileEntry:
    """Keep a file of the target verbatim."""
    name = f"{TARGET_FOLDER}/{path}"
    if isinstance(content, bytes):
        folder.write(name, content)
        return FileEntry(path=path, size=len(content), sha256=sha256_hex(content))
    size, digest = folder.copy(content, name)
    return FileEntry(path=path, size=size, sha256=digest)


def write_small_files(
    folder: OutputFolder,
    manifest: Manifest,
    notary: Notary,
    materials: list[Material],
    papers: Mapping[str, bytes],
) -> int:
    """Write all but shards and verbatim files; returns the size of the whole release.

    `papers` are files for its licences, the bytes of each by its path.
    """
    rebuilt = {path: entry.sha256 for path, entry in manifest.rebuilt.items()}
    small = {MANIFEST: manifest.pack(), REBUILT_SUMS: sums.format_sums(rebuilt), **papers}
    digests = {path: entry.sha256 for path, entry in manifest.stored.items()}
    if manifest.codec.plain:
        digests |= _stand_in(folder, manifest, papers)
    if LOADER_STOP not in digests:
        small[LOADER_STOP] = _loader_stop(manifest)
    digests |= {name: sha256_hex(data) for name, data in small.items()}
    small[PROVENANCE] = notary.provenance(manifest, materials, digests)
    digests[PROVENANCE] = sha256_hex(small[PROVENANCE])
    small |= seal(manifest, digests, notary.key, notary.succession)
    for name, data in small.items():
        folder.write(name, data)
    names = {*digests, *small}
    folder.keep_only(names)
    return sum(folder.path(name).stat().st_size for name in names)


def _stand_in(
    folder: OutputFolder, manifest: Manifest, papers: Mapping[str, bytes]
) -> dict[str, str]:
    """Put the target's config and tokenizer beside plain differences.

    Tools that add them load the folder as if it were a model. Its licences are in `papers`.

    Returns:
        The SHA-256 of each file by its path.
    """
    own = {*RESERVED, *manifest.stored} - {LOADER_STOP}
    # Git's own files are for the repository that the target was in.
    taken = {folded(name) for name in (*own, *papers, *GIT)}
    placed = {}
    for entry in manifest.files:
        first = entry.path.partition("/")[0]
        if not {folded(entry.path), folded(first)} & taken:
            source = folder.path(f"{TARGET_FOLDER}/{entry.path}")
            placed[entry.path] = folder.copy(source, entry.path)[1]
    return placed


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
