"""What an interrupted make had finished: a line a tensor, a line a shard.

Coding takes most of the time, so a payload once coded is kept with its digests. Nothing is
taken on trust: a line is believed only if the payload, or the shard that it went into,
still has its digest; and the tensors of base and target are hashed again on the way, so
that inputs that changed in between are noticed. Lines after a torn one are ignored.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from releasekit import strictjson
from releasekit.digest import blake3, hash_file, sha256_hex
from releasekit.errors import FormatError
from releasekit.manifest import FileEntry
from releasekit.names import safe_path
from releasekit.operations import Op
from releasekit.output import OutputFolder
from releasekit.strictjson import Record
from releasekit.writing import flush, write

_NAME: Final = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A finished tensor.

    Attributes:
        name: of the target tensor.
        op: its operation.
        digest: BLAKE3 of the target tensor.
        base: BLAKE3 of the base's tensor, if the operation read it.
        nbytes: size of the payload; 0 if it has none.
        payload: BLAKE3 of the payload, if it has one.
        unchanged: number of words that equal the prediction.
        words: number of words that have a base.
    """

    name: str
    op: Op
    digest: str
    base: str | None
    nbytes: int
    payload: str | None
    unchanged: int
    words: int

    def to_json(self) -> dict[str, object]:
        """As a line has it."""
        fields = asdict(self) | {"op": self.op.value}
        return {key: value for key, value in fields.items() if value is not None}


def read_coded(record: Record) -> Coded:
    """The inverse of `Coded.to_json`; FormatError if it is none."""
    return Coded(
        name=record.text("name"),
        op=Op(record.choice("op", [op.value for op in Op])),
        digest=record.hex_digest("digest"),
        base=record.hex_digest("base") if record.has("base") else None,
        nbytes=record.integer("nbytes"),
        payload=record.hex_digest("payload") if record.has("payload") else None,
        unchanged=record.integer("unchanged"),
        words=record.integer("words"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A finished shard: its file, under its name until all are known, and its tensors."""

    file: FileEntry
    tensors: tuple[str, ...]


class Journal:
    """The lines of this work, read from an earlier run and written by this one.

    Attributes:
        tensors: finished tensors by name, whose payloads are there.
        shards: finished shards by their file's name.
    """

    def __init__(self, folder: OutputFolder) -> None:
        self.tensors: dict[str, Coded] = {}
        self.shards: dict[str, Shard] = {}
        self._folder = folder
        path = folder.kept(_NAME)
        if folder.reused and path.is_file() and not path.is_symlink():
            self._unname_shards()
            self._read(path.read_bytes())
            self._believe()
        # What is believed is written anew, so that no torn line stays in the middle.
        self._file = folder.scratch(_NAME)
        for tensor in self.tensors.values():
            self.add_tensor(tensor)
        for shard in self.shards.values():
            self.add_shard(shard)

    def add_tensor(self, tensor: Coded) -> None:
        """Note that a tensor is finished; its payload must be on file by now."""
        self._write(_line("tensor", tensor.to_json()))

    def add_shard(self, shard: Shard) -> None:
        """Note that a shard is finished and on disk."""
        self._write(_line("shard", asdict(shard)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        write(self._file, line)
        flush(self._file)

    def _read(self, lines: bytes) -> None:
        for number, line in enumerate(lines.splitlines(), 1):
            try:
                record = Record(strictjson.loads(line, f"{_NAME}: {number}"), _NAME)
                if record.has("tensor"):
                    tensor = read_coded(record.record("tensor"))
                    self.tensors[tensor.name] = tensor
                else:
                    shard = _shard(record.record("shard"))
                    self.shards[shard.file.path] = shard
            except FormatError:
                return  # torn by the interruption, like all that follows

    def _unname_shards(self) -> None:
        """Undo the last naming of shards, if the interruption came after it."""
        for path in self._folder.path("").glob("delta-*-of-*.safetensors"):
            number = path.name.split("-")[1]
            self._folder.finish(path.name, shard_name(number))

    def _believe(self) -> None:
        """Keep the lines whose bytes are still there."""
        self.shards = {
            name: shard
            for name, shard in self.shards.items()
            if _is(self._folder.path(name), shard.file)
        }
        stored = {name for shard in self.shards.values() for name in shard.tensors}
        self.tensors = {
            name: tensor
            for name, tensor in self.tensors.items()
            if tensor.payload is None or name in stored or self._has_payload(tensor)
        }

    def _has_payload(self, tensor: Coded) -> bool:
        path = self._folder.kept(payload_name(tensor.name))
        return (
            path.is_file()
            and path.stat().st_size == tensor.nbytes
            and hash_file(path, blake3) == tensor.payload
        )


def shard_name(number: str) -> str:
    """The name of a shard until it is known how many there are."""
    return f"delta-{number}.part"


def payload_name(name: str) -> str:
    """A file name for a tensor's payload; the tensor's own name is no safe path."""
    return f"{sha256_hex(name.encode())}.payload"


def _is(path: Path, entry: FileEntry) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == entry.size
        and hash_file(path) == entry.sha256
    )


def _line(kind: str, fields: dict[str, object]) -> bytes:
    return json.dumps({kind: fields}).encode() + b"\n"


def _shard(record: Record) -> Shard:
    file = record.record("file")
    return Shard(
        file=FileEntry(
            path=safe_path(file.text("path"), _NAME),
            size=file.integer("size"),
            sha256=file.hex_digest("sha256"),
        ),
        tensors=record.texts("tensors"),
    )
