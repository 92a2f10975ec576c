"""What has to be done, phase by phase, and what it is about in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from releasekit.planning.model import Part, Phase
from releasekit.planning.rates import Rates

REBUILD: Final = "rebuild"
MAKE: Final = "make"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A rebuild, or the making of a release.

    Attributes:
        kind: `REBUILD` or `MAKE`.
        name: of the release, or of the model.
        tensors: how many the model has.
        files: weight files of the model.
        shards: weight files that come out: the model's, or the release's.
        largest: bytes of the model's largest weight file.
        phases: what is done.
        entries: how often headers name a tensor, those of all inputs together.
        chunk_memory: bytes of memory of one part, but for headers.
        header_memory: bytes of memory that headers take in each process.
        base: bytes read of the base, once.
        target: bytes read of the target, once.
        delta: bytes of the releases that are read, or of the one that is made.
        output: bytes that are there in the end.
        disk: bytes that are there at most, while it goes on.
        arithmetic: how bytes and processor time were found; a pair a line.
    """

    kind: str
    name: str
    tensors: int
    files: int
    shards: int
    largest: int
    phases: tuple[Phase, ...]
    entries: int
    chunk_memory: int
    header_memory: int
    base: int
    target: int
    delta: int
    output: int
    disk: int
    arithmetic: tuple[tuple[str, str], ...]

    @property
    def parts(self) -> int:
        """Parts of the first phase, which is most of the work."""
        return len(self.phases[0].parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some bytes cost a processor.

    Attributes:
        rebuilt: bytes that are decoded and added.
        encoded: bytes that are coded, and decoded for proof.
        sha256: bytes that go through SHA-256.
        blake3: bytes that go through BLAKE3.
    """

    rebuilt: int = 0
    encoded: int = 0
    sha256: int = 0
    blake3: int = 0

    def digest_seconds(self, rates: Rates) -> float:
        """What one thread must do alone: digests are chains."""
        return self.sha256 / rates.sha256 + self.blake3 / rates.blake3

    def core_seconds(self, rates: Rates) -> float:
        """Processor time in all."""
        coded = self.rebuilt / rates.rebuild + self.encoded / rates.encode
        return coded + self.digest_seconds(rates)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            rebuilt=self.rebuilt + other.rebuilt,
            encoded=self.encoded + other.encoded,
            sha256=self.sha256 + other.sha256,
            blake3=self.blake3 + other.blake3,
        )


def part(
    name: str,
    cost: Cost,
    rates: Rates,
    *,
    base: int = 0,
    target: int = 0,
    delta: int = 0,
    again: int = 0,
    written: int = 0,
) -> Part:
    """A part of some cost."""
    return Part(
        name=name,
        base=base,
        target=target,
        delta=delta,
        again=again,
        written=written,
        core_seconds=cost.core_seconds(rates),
        digest_seconds=cost.digest_seconds(rates),
    )
