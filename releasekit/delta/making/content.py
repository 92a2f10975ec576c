"""What the tensors of a target came to: all that the manifest says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from releasekit.checkpoint import Checkpoint, LaidOutFile
from releasekit.delta.making.journal import Coded
from releasekit.manifest import FileEntry, WeightEntry
from releasekit.operations import BaseTensor, Operation


@dataclass(slots=True, kw_only=True)
class Content:
    """What is known of a release's tensors; fills up as they are coded.

    Attributes:
        base: the base.
        aliases: target tensors whose bytes another one has.
        weights: the target's files.
        operations: each finished target tensor's operation.
        digests: BLAKE3 of the base's tensors that were read.
        payloads: BLAKE3 of each payload.
        shards: the files of payloads.
        plain: the files of plain differences, if the codec has them.
        kept: number of tensors that an earlier run had coded.
        unchanged: number of words that equal the base's prediction.
        words: number of words that have a base.
    """

    base: Checkpoint
    aliases: Mapping[str, str]
    weights: list[WeightEntry] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    payloads: dict[str, str] = field(default_factory=dict)
    shards: tuple[FileEntry, ...] = ()
    plain: list[FileEntry] = field(default_factory=list)
    kept: int = 0
    unchanged: int = 0
    words: int = 0

    def take(self, coded: Coded, *, kept: bool) -> None:
        """Take in the next tensor; `kept` says whether an earlier run had coded it."""
        self.operations[coded.name] = Operation(
            op=coded.op, digest=coded.digest, of=self.aliases.get(coded.name)
        )
        if coded.base is not None:
            self.digests[coded.name] = coded.base
        if coded.payload is not None:
            self.payloads[coded.name] = coded.payload
        self.kept += kept
        self.unchanged += coded.unchanged
        self.words += coded.words

    def close(self, file: LaidOutFile, sha256: str) -> None:
        """Take in a weight file's digest."""
        entry = FileEntry(path=file.name, size=file.layout.file_size, sha256=sha256)
        self.weights.append(WeightEntry(file=entry, layout=file.layout))

    @property
    def unread(self) -> list[str]:
        """The base's tensors whose digests are not known."""
        return [name for name in self.base.specs if name not in self.digests]

    def base_tensors(self) -> dict[str, BaseTensor]:
        """The base's tensors, by their names in order; all digests are known by now."""
        specs = self.base.specs
        return {
            name: BaseTensor(spec=specs[name], digest=self.digests[name])
            for name in sorted(specs)
        }

    @property
    def share_unchanged(self) -> float | None:
        """Share of elements with a base that equal their prediction; None without any."""
        return self.unchanged / self.words if self.words else None
