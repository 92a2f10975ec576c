"""What vouches for a release: where it comes from, and by whom it is signed.

Three files of its folder, each over those before it:

    provenance.json     the inputs, the command and the programs; over what was made
    rebuilt.model.sig   a signature over the model that the release rebuilds
    model.sig           a signature over the folder, all of the above included

Both signatures are bundles that the stock tool of OpenSSF Model Signing verifies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from releasekit import provenance, sums
from releasekit.checkpoint.discover import PARAMS, Found, Kind
from releasekit.checkpoint.files import Coming
from releasekit.checkpoint.locate import package_url
from releasekit.digest import sha256_hex
from releasekit.errors import UsageError
from releasekit.hashing import hash_files
from releasekit.manifest import (
    REBUILT_SIGNATURE,
    SIGNATURE,
    SUCCESSION,
    SUMS,
    Manifest,
)
from releasekit.names import is_publisher, is_title, shown
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.provenance import Material
from releasekit.signing import bundle
from releasekit.signing.keys import PrivateKey
from releasekit.signing.statement import GIT, Statement
from releasekit.signing.succession import last_key, read_links
from releasekit.versions import EXPECTED, is_version

#: Hashes files below a folder, as `hash_files` does.
Hashing = Callable[[Path, Iterable[str], Workers, Stage], Iterable[tuple[str, str]]]

#: The role of the checkpoint that is released.
TARGET: Final = "target"
#: What the stock tool is to pass over: this is not of the publisher's making.
_NOT_OURS: Final = (*GIT, ".cache/huggingface")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a release is called.

    Attributes:
        name: its name.
        version: which of that name.
        publisher: whose it is; None to leave that open.
    """

    name: str
    version: str
    publisher: str | None

    def check(self) -> None:
        """Refuse what no manifest may say, as UsageError."""
        if not is_title(self.name):
            raise UsageError(
                f"name {shown(self.name)}: expected a line of 1 to 200 characters; choose "
                "another with --name"
            )
        if not is_version(self.version):
            raise UsageError(f"version {shown(self.version)}: expected {EXPECTED}")
        if self.publisher is not None and not is_publisher(self.publisher):
            raise UsageError(
                f"publisher {shown(self.publisher)}: expected letters, digits and . _ -, "
                "as names of organisations on the Hub have"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files that went in.

    Attributes:
        role: what they were.
        root: the folder that their names are relative to.
        files: their names.
        uri: where others find them; None if they are here only.
        coming: those of them that are elsewhere; None if all are here.
    """

    role: str
    root: Path
    files: tuple[str, ...]
    uri: str | None = None
    coming: Coming | None = None

    @classmethod
    def of(cls, role: str, given: str | Path, found: Found) -> Source:
        """A checkpoint: as it was named, and what was found there."""
        # Meta's tensors are what they are by their parameters, too.
        more = (PARAMS,) if found.kind is Kind.META else ()
        uri = package_url(given, found.root)
        files = (*found.files, *more)
        return cls(role=role, root=found.root, files=files, uri=uri, coming=found.coming)

    def size(self, name: str) -> int:
        """Size of a file in bytes."""
        path = self.root / name
        file = self.coming.open(path) if self.coming is not None else None
        return file.size if file is not None else path.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Notary:
    """Who makes a release, of what, and how.

    Attributes:
        sources: what went in.
        parameters: the command, and its arguments that shape the result.
        key: signs the release; None to leave it unsigned.
        succession: links that lead to `key` from those before it; None if there are none.
        epoch: stands for the time; None to leave that out.
        hashing: takes the digests of what went in.
    """

    sources: tuple[Source, ...]
    parameters: Mapping[str, Any]
    key: PrivateKey | None
    succession: bytes | None
    epoch: int | None
    hashing: Hashing = hash_files

    @classmethod
    def of(
        cls,
        sources: tuple[Source, ...],
        parameters: Mapping[str, Any],
        key: PrivateKey | None,
        succession: str | Path | None,
        hashing: Hashing = hash_files,
    ) -> Notary:
        """Read the links from a file, and the time from the environment.

        Raises as `read_succession` and `read_epoch` do.
        """
        return cls(
            sources=sources,
            parameters=parameters,
            key=key,
            succession=read_succession(succession, key),
            epoch=provenance.read_epoch(os.environ.get(provenance.EPOCH_VARIABLE)),
            hashing=hashing,
        )

    def materials(
        self, manifest: Manifest, threads: int | None, progress: ProgressCallback | None
    ) -> list[Material]:
        """Hash what went in, but for what the manifest tells of the target."""
        unread = [source for source in self.sources if source.role != TARGET]
        sizes = [source.size(name) for source in unread for name in source.files]
        stage = Stage(progress, "hash inputs", sum(sizes))
        found = []
        with Workers(threads) as workers:
            for source in self.sources:
                hashed: Iterable[tuple[str, str]]
                if source.role == TARGET:
                    hashed = [(n, manifest.rebuilt[n].sha256) for n in source.files]
                else:
                    hashed = self.hashing(source.root, source.files, workers, stage)
                found += [
                    Material(name=f"{source.role}/{name}", sha256=digest, uri=source.uri)
                    for name, digest in hashed
                ]
        return found

    def provenance(
        self, manifest: Manifest, materials: list[Material], made: Mapping[str, str]
    ) -> bytes:
        """`provenance.json`, given the SHA-256 of each file that was made."""
        return provenance.pack(
            made,
            materials,
            parameters={
                **self.parameters,
                "name": manifest.name,
                "version": manifest.version,
                "publisher": manifest.publisher or "",
                "accepted": list(manifest.accepted),
            },
            identities={"base": manifest.base_identity, TARGET: manifest.target_identity},
            builder={name: version(name) for name in ("releasekit", "pcodec")},
            epoch=self.epoch,
        )


def read_succession(path: str | Path | None, key: PrivateKey | None) -> bytes | None:
    """Read the links by which former keys vouch for `key`; None if no file is given.

    Raises:
        UsageError: if there is no such file, nothing is signed, or the last link does not
            name this key.
        FormatError: if it is malformed.
    """
    if path is None:
        return None
    if key is None:
        raise UsageError(f"{path}: leads to a key, but nothing is signed; give the key too")
    data = read_links(Path(path))
    last = last_key(data, str(path))
    if last != key.public:
        raise UsageError(
            f"{path}: leads to key {last.fingerprint}, not to the one that signs, "
            f"{key.public.fingerprint}"
        )
    return data


def seal(
    manifest: Manifest,
    digests: Mapping[str, str],
    key: PrivateKey | None,
    succession: bytes | None,
) -> dict[str, bytes]:
    """The list of a release's files, and its signatures, in the order to write them.

    Args:
        manifest: what the release says.
        digests: SHA-256 of each of its other files, by its path.
        key: signs it; None for the list alone.
        succession: links that lead to `key`, which go with it.
    """
    files: dict[str, bytes] = {}
    if key is not None:
        files[REBUILT_SIGNATURE] = sign_rebuilt(manifest, key)
        if succession is not None:
            files[SUCCESSION] = succession
    listed = {**digests, **{name: sha256_hex(data) for name, data in files.items()}}
    files[SUMS] = sums.format_sums(listed)
    if key is not None:
        listed[SUMS] = sha256_hex(files[SUMS])
        files[SIGNATURE] = sign_files(manifest.name, listed, key)
    return files


def sign_rebuilt(manifest: Manifest, key: PrivateKey) -> bytes:
    """`rebuilt.model.sig`: over each file that the release rebuilds.

    But for git's own, which the stock tool looks past: the release's own signature covers
    those as well.
    """
    files = {
        path: entry.sha256
        for path, entry in manifest.rebuilt.items()
        if path.partition("/")[0] not in GIT
    }
    return bundle.sign(Statement(name=manifest.name, files=files).pack(_NOT_OURS), key)


def sign_files(name: str, files: Mapping[str, str], key: PrivateKey) -> bytes:
    """`model.sig`: over the files of a folder, given their SHA-256 by their paths."""
    return bundle.sign(Statement(name=name, files=files).pack([SIGNATURE, *_NOT_OURS]), key)
