"""What making a release came to, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from releasekit.findings import RuleFinding
from releasekit.operations import count_operations
from releasekit.parts.tasks import WorkerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeResult:
    """What was released.

    Attributes:
        out: the release folder.
        name: the release's name.
        version: its version.
        publisher: whose it says to be; None if it does not.
        key: fingerprint of the key that signed it; None if none did.
        licenses: ids of its licences: its own, the rebuilt model's, the bases'.
        findings: what speaks against publishing it under them.
        codec: the codec's identifier.
        base_identity: identity of the base.
        target_identity: identity of the target.
        accepted: identities of other bases that serve as well.
        tensors: operation of each tensor by name; `dropped` for the base's that the
            target lacks.
        full_nbytes: size of the target's files.
        published_nbytes: size of the release's files.
        unchanged: share of elements with a base that equal their prediction, 0 to 1: the
            base, or its sum with the plain difference; None if there are none.
        kept: number of tensors that an earlier, interrupted run had coded.
        excluded: files of the target that were left out.
        device: what proved the chunks, and why.
        seconds: time it took.
        workers: what each other process did, if any did.
    """

    out: Path
    name: str
    version: str
    publisher: str | None
    key: str | None
    licenses: tuple[str, ...]
    findings: tuple[RuleFinding, ...]
    codec: str
    base_identity: str
    target_identity: str
    accepted: tuple[str, ...]
    tensors: dict[str, str]
    full_nbytes: int
    published_nbytes: int
    unchanged: float | None
    kept: int
    excluded: tuple[str, ...]
    device: str
    seconds: float
    workers: tuple[WorkerReport, ...] = ()

    @property
    def operations(self) -> dict[str, int]:
        """Number of tensors by operation, 0 included."""
        return count_operations(self.tensors.values())

    @property
    def ratio(self) -> float:
        """Published size divided by full size."""
        return self.published_nbytes / self.full_nbytes if self.full_nbytes else 1.0
