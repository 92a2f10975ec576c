"""Codes a release's tensors, and puts its manifest together, in this process alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from releasekit.checkpoint import Checkpoint, LaidOut
from releasekit.checkpoint.hashing import hash_tensors
from releasekit.codec import Ulp
from releasekit.delta.making.content import Content
from releasekit.delta.making.encode import Encoder
from releasekit.delta.making.journal import Journal
from releasekit.delta.making.plan import find_aliases
from releasekit.delta.making.shards import ShardWriter, not_read_back
from releasekit.delta.notary import Label, Notary
from releasekit.delta.plain import PlainFile, plain_layout
from releasekit.delta.release import Release
from releasekit.device.choose import Engine
from releasekit.digest import sha256, sha256_hex
from releasekit.hashing import hash_files
from releasekit.manifest import TARGET_FOLDER, FileEntry, Manifest
from releasekit.names import shown
from releasekit.output import OutputFolder
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.resources import Resources


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

    def encode(self, folder: OutputFolder) -> Content:
        """Write the shards, and take digests of all tensors.

        Raises:
            StaleJournalError: if an earlier run had coded what has changed since.
        """
        with (
            closing(Journal(folder)) as journal,
            ShardWriter(folder, self.shard_nbytes, journal) as shards,
            Workers(self.resources.threads) as workers,
        ):
            content = Content(base=self.base, aliases=self.find_aliases(workers))
            encoder = Encoder(
                *(self.base, self.target, content.aliases, self.codec),
                *(shards, journal.tensors, self.engine.combine),
            )
            buffers = self.resources.buffers(self.engine.allocate)
            total = sum(spec.nbytes for spec in self.target.specs.values())
            stage = Stage(self.progress, "encode", total)
            for file in self.target.files:
                hasher = sha256(file.layout.prefix)
                with ExitStack() as stack:
                    plain = None
                    if self.codec.plain:
                        plain = stack.enter_context(PlainFile(folder, file))
                    specs = [placed.spec for placed in file.layout.tensors]
                    made = encoder.tensors(specs, hasher, workers, buffers, stage, plain)
                    for coded in stack.enter_context(closing(made)):
                        kept = coded.name in journal.tensors
                        if not kept:
                            journal.add_tensor(coded)
                        if coded.payload is not None:
                            shards.put(coded)
                        content.take(coded, kept=kept)
                    if plain is not None:
                        content.plain.append(plain.finish())
                content.close(file, hasher.hexdigest())
            content.shards = shards.close()
            content.digests |= self._hash_base(content.unread, workers)
        return content

    def find_aliases(self, workers: Workers) -> dict[str, str]:
        """Target tensors whose bytes another one has: alias to source."""
        # A plain difference stands for each tensor, so none may lean on another.
        return {} if self.codec.plain else find_aliases(self.base, self.target, workers)

    def _hash_base(self, names: list[str], workers: Workers) -> dict[str, str]:
        """Digests of base tensors that no operation reads, for the base's identity."""
        if not names:
            return {}
        total = sum(self.base.specs[name].nbytes for name in names)
        stage = Stage(self.progress, "hash base", total)
        return dict(hash_tensors(self.base, names, workers, stage))

    def manifest(self, folder: OutputFolder, content: Content) -> Manifest:
        """What the release says; keeps the target's other files in it, verbatim."""
        return Manifest(
            name=self.label.name,
            version=self.label.version,
            publisher=self.label.publisher,
            made_with=_made_with(),
            codec=self.codec,
            base=content.base_tensors(),
            weights=tuple(content.weights),
            files=tuple(_keep(folder, *other) for other in self.others.items()),
            operations=content.operations,
            shards=content.shards,
            plain=tuple(content.plain),
        )

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
                    raise not_read_back(folder, f"payload {shown(name)}")
            if plain:
                stage = Stage(self.progress, "read back differences", sizes)
                for name, found in hash_files(folder.path(""), plain, workers, stage):
                    if found != plain[name]:
                        raise not_read_back(folder, shown(name))


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
