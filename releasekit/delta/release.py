"""An open release: its manifest and its payloads, consistent with each other.

Opening reads the manifest and the shards' headers, no payloads. It proves that the shards
hold exactly the payloads that the manifest's operations call for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from releasekit import manifest as manifests
from releasekit import sums
from releasekit.checkpoint.files import Incoming
from releasekit.checkpoint.hashing import hash_tensor
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec.addition import plain_dtype
from releasekit.codec.chunks import Chunking, parse_table, table_nbytes
from releasekit.digest import hash_file, sha256_hex
from releasekit.errors import FormatError, IntegrityError, UsageError
from releasekit.manifest import MANIFEST, SIGNATURE, SUMS, FileEntry, Manifest
from releasekit.manifest_parser import parse
from releasekit.names import shown
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.received import read_small
from releasekit.tensors import DType


class Release:
    """A delta release in a folder, open for reading.

    Attributes:
        folder: where it is.
        manifest: what it says.
        key: SHA-256 of the manifest, which names the release.
        plain: its plain differences; None if its codec has none.
        coming: files of it that are on their way; None if all are there.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        key: str,
        payloads: SafetensorsCheckpoint,
        plain: SafetensorsCheckpoint | None,
        coming: Incoming | None = None,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.key = key
        self.plain = plain
        self.coming = coming
        self._payloads = payloads

    @classmethod
    def open(
        cls,
        folder: Path,
        signed: Mapping[str, str] | None = None,
        coming: Incoming | None = None,
    ) -> Self:
        """Open the release in `folder`.

        Args:
            folder: where it is.
            signed: SHA-256 of each of its files, by a signature that was found good. The
                manifest is held against it before it is parsed.
            coming: files of it that are on their way. The manifest says what they must be.

        Raises:
            UsageError: if there is none.
            FormatError: if it is malformed.
            IntegrityError: if a file is missing or has another size.
        """
        manifest, key = read_manifest(folder, signed)
        if coming is not None:
            for path in coming.names & manifest.stored.keys():
                entry = manifest.stored[path]
                coming.expect(path, entry.size, entry.sha256)
        try:
            return cls._open(folder, manifest, key, coming)
        except FormatError:
            # Of files that are not the publisher's, not their format is the matter.
            for path, entry in manifest.stored.items():
                if coming is None or path not in coming.names:
                    _require_size(folder / path, entry.size)
                    _require_digest(folder / path, entry)
            raise

    @classmethod
    def _open(
        cls, folder: Path, manifest: Manifest, key: str, coming: Incoming | None
    ) -> Self:
        with ExitStack() as stack:
            payloads = stack.enter_context(_open_files(folder, manifest.shards, coming))
            plain = None
            if manifest.codec.plain:
                plain = stack.enter_context(_open_files(folder, manifest.plain, coming))
            release = cls(folder, manifest, key, payloads, plain, coming)
            release._check_payloads()
            release._check_plain()
            stack.pop_all()
        return release

    def _check_payloads(self) -> None:
        wanted = {n for n, o in self.manifest.operations.items() if o.op.has_payload}
        for name, spec in self._payloads.specs.items():
            if name not in wanted:
                raise FormatError(
                    f"{self.folder}: payload {shown(name)} belongs to no operation"
                )
            if spec.dtype is not DType.U8 or len(spec.shape) != 1:
                raise FormatError(
                    f"{self.folder}: payload {shown(name)}: expected U8 of one dimension, "
                    f"found {spec.describe()}"
                )
        for name in sorted(wanted - self._payloads.specs.keys()):
            raise FormatError(f"{self.folder}: payload {shown(name)} is missing")

    def _check_plain(self) -> None:
        if self.plain is None:
            return
        wanted = {
            name: replace(spec, dtype=plain_dtype(spec.dtype))
            for name, spec in self.manifest.target.items()
        }
        for name in sorted(wanted.keys() | self.plain.specs.keys()):
            expected, found = wanted.get(name), self.plain.specs.get(name)
            if expected != found:
                raise FormatError(
                    f"{self.folder}: plain difference {shown(name)}: expected "
                    f"{expected.describe() if expected else 'none'}, found "
                    f"{found.describe() if found else 'none'}"
                )

    def published_nbytes(self, name: str) -> int:
        """Size of what the release holds for a target tensor."""
        held = (self._payloads, self.plain) if self.plain else (self._payloads,)
        found = (checkpoint.specs.get(name) for checkpoint in held)
        return sum(spec.nbytes for spec in found if spec is not None)

    def _payload_nbytes(self, name: str) -> int:
        """Size of a target tensor's payload; 0 if its operation has none."""
        spec = self._payloads.specs.get(name)
        return spec.nbytes if spec else 0

    def check_files(self) -> None:
        """Check that every file that a rebuild reads is there, whole by its size.

        Raises:
            IntegrityError: naming the first file that is not.
        """
        for path, entry in self.manifest.stored.items():
            if self.coming is None or path not in self.coming.names:
                _require_size(self.folder / path, entry.size)

    def files_of(self, name: str) -> list[str]:
        """The files that hold what the release has for a target tensor."""
        held = (self._payloads, self.plain) if self.plain else (self._payloads,)
        return [
            checkpoint.file_of(name).name for checkpoint in held if name in checkpoint.specs
        ]

    def hash_payloads(
        self, names: Iterable[str], workers: Workers, progress: ProgressCallback | None
    ) -> Iterator[tuple[str, str]]:
        """Read payloads; yields each name with the BLAKE3 of its payload."""
        wanted = list(names)
        total = sum(self._payload_nbytes(name) for name in wanted)
        stage = Stage(progress, "read back", total)
        hashed = workers.in_order(lambda name, _: hash_tensor(self._payloads, name), wanted)
        for name, digest in hashed:
            stage.advance(self._payload_nbytes(name))
            yield name, digest

    def check_payload(self, name: str) -> None:
        """Hash the files that hold a tensor's payload and plain difference, if it has any.

        Raises:
            IntegrityError: if one is damaged.
        """
        if name not in self._payloads.specs:
            return
        held = (self._payloads, self.plain) if self.plain else (self._payloads,)
        for checkpoint in held:
            path = checkpoint.file_of(name).path
            self._check(self.manifest.stored[path.relative_to(self.folder).as_posix()])

    def check_payloads(self) -> None:
        """Hash all files that hold payloads or plain differences; raises IntegrityError."""
        for entry in (*self.manifest.shards, *self.manifest.plain):
            self._check(entry)

    def _check(self, entry: FileEntry) -> None:
        """Hold a file against its digest; one that has yet to come will be, when it has."""
        path = self.folder / entry.path
        if self.coming is None or entry.path not in self.coming.names or path.is_file():
            _require_digest(path, entry)

    def chunking(self, name: str) -> Chunking:
        """How a target tensor is cut."""
        return Chunking.of(self.manifest.target[name], self.manifest.codec.chunk)

    def frame_offsets(self, name: str) -> list[int]:
        """Where the frames of a payload begin, and, last, where it ends."""
        where = f"{self.folder}: payload {shown(name)}"
        total = self._payload_nbytes(name)
        nbytes = table_nbytes(self.chunking(name).count)
        if total < nbytes:
            raise FormatError(
                f"{where}: expected a table of {nbytes} bytes, found {total} bytes in all"
            )
        return parse_table(self.payload(name, total - nbytes, total), total, where)

    def payload(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of a payload."""
        data = np.empty(stop - start, np.uint8)
        self._payloads.read(name, start, data)
        return data.tobytes()

    def close(self) -> None:
        """Close its files."""
        self._payloads.close()
        if self.plain is not None:
            self.plain.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def _require_digest(path: Path, entry: FileEntry) -> None:
    found = hash_file(path)
    if found != entry.sha256:
        raise IntegrityError(
            f"{path}: expected sha256 {entry.sha256}, found {found}: the file is damaged; "
            "download it again"
        )


def _open_files(
    folder: Path, entries: Iterable[FileEntry], coming: Incoming | None
) -> SafetensorsCheckpoint:
    """Open files of the release, which are there whole or on their way."""
    paths = []
    for entry in entries:
        if coming is None or entry.path not in coming.names:
            _require_size(folder / entry.path, entry.size)
        paths.append(entry.path)
    return SafetensorsCheckpoint.open_files(str(folder), folder, paths, coming)


def read_manifest(folder: Path, signed: Mapping[str, str] | None) -> tuple[Manifest, str]:
    """Read the manifest of the release in `folder`, and its SHA-256, once checked.

    Args:
        folder: where it is.
        signed: as for `Release.open`.

    Raises:
        UsageError: if there is no release.
        FormatError: if the manifest or SHA256SUMS is malformed.
        IntegrityError: if the manifest is not the one that SHA256SUMS lists.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            f"{folder}: is not a release: it has no {MANIFEST}; another tool's delta is "
            "for `releasekit apply-delta`, or apply_foreign"
        )
    document = read_small(path, manifests.MAX_MANIFEST)
    found = sha256_hex(document)
    if signed is not None:
        require_signed(path, found, signed.get(MANIFEST))
    listed = read_sums(folder / SUMS, signed).get(MANIFEST)
    if listed != found:
        raise IntegrityError(
            f"{path}: expected sha256 {listed} as in {SUMS}, found {found}: the release "
            "is damaged or was changed; download it again"
        )
    manifest = parse(document)
    if signed is not None:
        for name, entry in manifest.stored.items():
            if signed.get(name) != entry.sha256:
                raise IntegrityError(
                    f"{folder}: {SIGNATURE} and {MANIFEST} disagree over {name}"
                )
    return manifest, found


def read_sums(path: Path, signed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read a list of digests.

    Args:
        path: where it is, in the release's folder.
        signed: SHA-256 of the release's files, against one of which it is held.

    Raises:
        FormatError: if it is malformed.
        IntegrityError: if it is missing.
    """
    if not path.is_file():
        raise IntegrityError(
            f"{path}: is missing: the release is incomplete; download it again"
        )
    data = read_small(path, manifests.MAX_MANIFEST)
    if signed is not None:
        require_signed(path, sha256_hex(data), signed.get(path.name))
    return sums.parse_sums(data, str(path))


def require_signed(path: Path, found: str, expected: str | None) -> None:
    """Refuse a file whose SHA-256 is not the signed one, as IntegrityError."""
    if expected is None:
        raise IntegrityError(
            f"{path}: is not signed: the release is damaged or was changed; download it "
            "again"
        )
    if found != expected:
        raise IntegrityError(
            f"{path}: expected sha256 {expected}, which is signed, found {found}: the "
            "release is damaged or was changed; download it again"
        )


def _require_size(path: Path, size: int) -> None:
    if not path.is_file():
        raise IntegrityError(f"{path}: is missing; download the release again")
    found = path.stat().st_size
    if found != size:
        raise IntegrityError(
            f"{path}: expected {size} bytes, found {found}: the download is incomplete; "
            "download the file again"
        )
