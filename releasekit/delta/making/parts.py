"""Parts of a release in the making that read its inputs, as whoever has one does it.

    encode   some tensors of a target's file: coded, proved, their payloads put into one
             scratch file, one behind another
    hash     what nobody reads for that: the digest of a file that is coded in several
             parts, tensors that only the base has, the base's files

What a part finds out goes into its record, and all that the manifest says of the tensors
follows from the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from releasekit.checkpoint.hashing import hash_tensors
from releasekit.delta.making.encode import Encoder, need
from releasekit.delta.making.journal import Coded, read_coded
from releasekit.delta.making.payloads import Pack
from releasekit.delta.making.told import Inputs, Making
from releasekit.delta.plain import PlainFile
from releasekit.device.choose import engines
from releasekit.digest import blake3, sha256, sha256_hex
from releasekit.errors import FormatError
from releasekit.hashing import hash_one
from releasekit.manifest import FileEntry
from releasekit.parts.tasks import Advance, Task, as_progress
from releasekit.pipeline import Workers
from releasekit.progress import Stage
from releasekit.resources import share_out
from releasekit.strictjson import Record
from releasekit.writing import sync

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


class InputPart(Protocol):
    """A part that reads the inputs."""

    def do(self, spec: Making, inputs: Inputs, advance: Advance) -> Mapping[str, object]:
        """Do it; returns what was found out."""

    def read(self, facts: Record) -> object:
        """What a record says was found out; FormatError if it does not say that."""


def input_part(spec: Making, task: Task, advance: Advance) -> Mapping[str, object]:
    """Do a part that reads the inputs, in whatever process."""
    part: InputPart = task.detail
    return part.do(spec, spec.inputs(), advance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What coding some tensors came to.

    Attributes:
        coded: the tensors, in their order; so lie their payloads in the scratch file.
        sha256: of their file; empty if they are not all of it.
        plain: the file of plain differences, if the codec has them.
    """

    coded: tuple[Coded, ...]
    sha256: str
    plain: FileEntry | None

    @property
    def nbytes(self) -> int:
        """Size of the scratch file."""
        return sum(one.nbytes for one in self.coded)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodePart:
    """Tensors to code.

    Attributes:
        file: their file in the target.
        first: index of the first.
        tensors: their names.
        whole: whether they are all of the file.
        aliases: those of them whose bytes another tensor has, each with that one's name.
    """

    file: str
    first: int
    tensors: tuple[str, ...]
    whole: bool
    aliases: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What tells it from other parts."""
        if self.whole:
            return f"encode {self.file}"
        last = self.first + len(self.tensors) - 1
        return f"encode {self.file}, tensors {self.first} to {last}"

    @property
    def place(self) -> str:
        """The scratch file of its payloads."""
        return f"{sha256_hex(self.name.encode())[:32]}.payloads"

    def do(self, spec: Making, inputs: Inputs, advance: Advance) -> Mapping[str, object]:
        """See `InputPart.do`."""
        file = inputs.file(self.file)
        specs = [inputs.target.specs[name] for name in self.tensors]
        engine = engines(spec.device)[0]
        resources = share_out(
            need(inputs.base, specs, spec.codec),
            threads=spec.threads,
            max_memory=spec.max_memory,
            extra=engine.host_nbytes,
        )
        buffers = resources.buffers(engine.allocate)
        stage = Stage(as_progress(advance), "encode", sum(one.nbytes for one in specs))
        hasher, entry, plain = sha256(file.layout.prefix), None, None
        with spec.folder as folder:
            place = folder.unfinished(self.place)
            with ExitStack() as stack:
                scratch = stack.enter_context(folder.scratch(place))
                pack = Pack(scratch)
                if spec.codec.plain:
                    plain = stack.enter_context(PlainFile(folder, file))
                encoder = Encoder(
                    *(inputs.base, inputs.target, dict(self.aliases), spec.codec),
                    *(pack, {}, engine.combine),
                )
                workers = stack.enter_context(Workers(resources.threads))
                made = encoder.tensors(specs, hasher, workers, buffers, stage, plain)
                facts: dict[str, object] = {"tensors": [one.to_json() for one in made]}
                if plain is not None:
                    entry = plain.finish()
                sync(scratch)
            folder.keep_scratch(place, self.place)
        if self.whole:
            facts["sha256"] = hasher.hexdigest()
        if entry is not None:
            facts["plain"] = {"size": entry.size, "sha256": entry.sha256}
        return facts

    def read(self, facts: Record) -> Encoded:
        """See `InputPart.read`."""
        plain = None
        if facts.has("plain"):
            told = facts.record("plain")
            plain = FileEntry(
                path=self.file,
                size=told.integer("size"),
                sha256=told.hex_digest("sha256"),
            )
        coded = tuple(read_coded(one) for one in facts.records("tensors"))
        if tuple(one.name for one in coded) != self.tensors:
            raise FormatError(f"{self.name}: its record tells of other tensors")
        digest = facts.hex_digest("sha256") if self.whole else ""
        return Encoded(coded=coded, sha256=digest, plain=plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashFilePart:
    """A file of the target to hash, whose tensors are coded in several parts.

    Its tensors are hashed as well: that all parts read the same file is not taken on trust.
    """

    file: str

    def do(self, spec: Making, inputs: Inputs, advance: Advance) -> Mapping[str, object]:
        """See `InputPart.do`."""
        layout = inputs.file(self.file).layout
        hasher, digests = sha256(layout.prefix), []
        advance(len(layout.prefix))
        buffer = np.empty(_READ, np.uint8)
        for placed in layout.tensors:
            tensor, nbytes = blake3(), placed.spec.nbytes
            for at in range(0, nbytes, _READ):
                piece = buffer[: nbytes - at]
                inputs.target.read(placed.spec.name, at, piece)
                hasher.update(piece.data)
                tensor.update(piece.data)
                advance(piece.size)
            digests.append(tensor.hexdigest())
        return {"sha256": hasher.hexdigest(), "tensors": combined(digests)}

    def read(self, facts: Record) -> tuple[str, str]:
        """See `InputPart.read`: digests of the file, and of its tensors' digests."""
        return facts.hex_digest("sha256"), facts.hex_digest("tensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class HashBasePart:
    """Tensors of the base to hash, which no operation reads."""

    tensors: tuple[str, ...]

    def do(self, spec: Making, inputs: Inputs, advance: Advance) -> Mapping[str, object]:
        """See `InputPart.do`."""
        total = sum(inputs.base.specs[name].nbytes for name in self.tensors)
        stage = Stage(as_progress(advance), "hash", total)
        with Workers(1) as workers:
            found = list(hash_tensors(inputs.base, self.tensors, workers, stage))
        return {"tensors": [{"name": name, "digest": digest} for name, digest in found]}

    def read(self, facts: Record) -> dict[str, str]:
        """See `InputPart.read`: the digests, by the tensors' names."""
        tensors = facts.records("tensors")
        found = {one.text("name"): one.hex_digest("digest") for one in tensors}
        if tuple(found) != self.tensors:
            raise FormatError("hash base tensors: its record tells of other tensors")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HashFoundPart:
    """A file of the base to hash, for the provenance."""

    file: str

    def do(self, spec: Making, inputs: Inputs, advance: Advance) -> Mapping[str, object]:
        """See `InputPart.do`."""
        found = inputs.found
        path = found.root / self.file
        return {"sha256": hash_one(path, lambda: None, advance, found.coming)}

    def read(self, facts: Record) -> str:
        """See `InputPart.read`: the digest."""
        return facts.hex_digest("sha256")


def combined(texts: Iterable[str]) -> str:
    """One digest for several texts, in their order."""
    hasher = blake3()
    for text in texts:
        hasher.update(text.encode() + b"\n")
    digest: str = hasher.hexdigest()
    return digest
