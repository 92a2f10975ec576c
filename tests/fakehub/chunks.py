"""Xet: contents as chunks, which clients store and fetch by themselves.

The Hub only tells clients where, and hands them a token. Here each of them is told a
folder of its own, as hf_xet locks the one that it works in for as long as its process
lives, and then no other process gets in:

- who writes gets an empty one; the index of what was written there (a "shard") names
  each file's sha256, by which a commit finds it;
- who reads gets one that holds what the commit holds.

To compare with the Hub, chunks are thus not shared between one upload and the next. A
content is put together again, as a plain file, when that is first needed.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakehub.state import Content, Objects
from tests.fakehub.wire import RefusedError

_HEADER: Final = 48
_ENTRY: Final = 48
_END: Final = b"\xff" * 32
_VERIFIED: Final = 1 << 31
_DESCRIBED: Final = 1 << 30


@dataclass(frozen=True)
class Chunked:
    """A file in chunks: its hash and size, and the folder where it was written."""

    xet: str
    nbytes: int
    folder: Path


class Chunks:
    """The folders of all clients."""

    def __init__(self, root: Path, objects: Objects) -> None:
        self.root, self._objects = root, objects
        self._lock = threading.Lock()

    def writer(self) -> Path:
        """A new folder for who uploads."""
        return self._new("w")

    def reader(self, commit: str, contents: Iterable[Content]) -> Path:
        """A new folder for who downloads a commit."""
        with self._lock:
            made = self.root / f"c-{commit}"
            if not made.exists():
                unfinished = self.root / f"c-{commit}.new"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                held = [c for c in contents if c.xet is not None and c.sha256 is not None]
                for content in held:
                    self._rebuild(content.sha256 or "")
                _store(unfinished, [self._objects.path(c.etag) for c in held])
                unfinished.rename(made)
            return _copy(made, self._new("r"))

    def find(self, sha256: str) -> Chunked | None:
        """A file that somebody wrote."""
        for shard in self.root.glob("w*/xet/xorbs/shards/*.mdb"):
            folder = shard.parents[3]
            for digest, xet, nbytes in _listed(shard.read_bytes()):
                if digest == sha256:
                    return Chunked(xet, nbytes, folder)
        return None

    def rebuild(self, sha256: str) -> None:
        """Puts a content together, unless it is there; none if nobody wrote it."""
        with self._lock:
            self._rebuild(sha256)

    def hash(self, content: Content) -> str | None:
        """What a content's hash would be here, as the Hub moves to chunks what it has."""
        import hf_xet

        (info,) = hf_xet.hash_files([str(self._objects.path(content.etag))])
        return str(info.hash)

    def _rebuild(self, sha256: str) -> None:
        if self._objects.path(sha256).exists() or (found := self.find(sha256)) is None:
            return
        import hf_xet

        # In a copy: the writer's process, if it still runs, has locked its own.
        copy = _copy(found.folder, self._new("b"))
        new = self._objects.incoming(f"{sha256}-xet")
        session = hf_xet.XetSession()
        with session.new_file_download_group(endpoint=f"local://{copy}") as group:
            group.start_download_file(hf_xet.XetFileInfo(found.xet, found.nbytes), str(new))
        with new.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise RefusedError(500, "the chunks do not have the announced digest")
        new.replace(self._objects.path(sha256))
        shutil.rmtree(copy, ignore_errors=True)

    def _new(self, kind: str) -> Path:
        count = 0
        while True:
            try:
                (folder := self.root / f"{kind}{count}").mkdir(parents=True)
            except FileExistsError:
                count += 1
            else:
                return folder


def _store(folder: Path, files: Iterable[Path]) -> None:
    import hf_xet

    with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{folder}") as upload:
        for file in files:
            upload.start_upload_file(str(file), sha256=hf_xet.COMPUTE_SHA256)


def _copy(source: Path, target: Path) -> Path:
    """Another folder with the same chunks; only what may change takes up space again."""

    def link(old: str, new: str) -> None:
        if old.endswith((".redb", ".tagset")):
            shutil.copyfile(old, new)
        else:
            Path(new).hardlink_to(old)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)
    return target


def _listed(shard: bytes) -> Iterator[tuple[str, str, int]]:
    """The files of a shard: sha256, hash and size.

    A header of 48 bytes comes first. Then each file has a head (its hash, flags, and how
    many segments follow) and 48 bytes a segment (of which the size is wanted here), as
    many again if they are verified, and 48 bytes more for its sha256. Hashes are four
    little-endian words, each of which the text turns around.
    """
    at = _HEADER
    while shard[at : at + 32] != _END:
        if at + _HEADER > len(shard):
            return  # still being written
        flags, count = struct.unpack_from("<II", shard, at + 32)
        xet = _text(shard[at : at + 32])
        entries = range(at + _HEADER, at + _HEADER + count * _ENTRY, _ENTRY)
        if at + _HEADER + count * _ENTRY > len(shard):
            return
        nbytes = sum(struct.unpack_from("<I", shard, entry + 36)[0] for entry in entries)
        at += _HEADER + count * _ENTRY * (2 if flags & _VERIFIED else 1)
        if flags & _DESCRIBED:
            yield _text(shard[at : at + 32]), xet, nbytes
            at += _ENTRY


def _text(digest: bytes) -> str:
    return b"".join(digest[i : i + 8][::-1] for i in range(0, 32, 8)).hex()
