"""The small files of a release, written once its payloads and its manifest are known."""

from __future__ import annotations

import json
from collections.abc import Mapping

from releasekit import sums
from releasekit.delta.notary import Notary, seal
from releasekit.digest import sha256_hex
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
from releasekit.names import folded
from releasekit.output import OutputFolder
from releasekit.provenance import Material
from releasekit.signing.statement import GIT


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
    entries = dict(manifest.stored)
    if manifest.codec.plain:
        entries |= _stand_in(folder, manifest, papers)
    digests = {path: entry.sha256 for path, entry in entries.items()}
    if LOADER_STOP not in digests:
        small[LOADER_STOP] = _loader_stop(manifest)
    digests |= {name: sha256_hex(data) for name, data in small.items()}
    small[PROVENANCE] = notary.provenance(manifest, materials, digests)
    digests[PROVENANCE] = sha256_hex(small[PROVENANCE])
    small |= seal(manifest, digests, notary.key, notary.succession)
    for name, data in small.items():
        folder.write(name, data)
    folder.keep_only({*entries, *small})
    sizes = {path: entry.size for path, entry in entries.items()}
    return sum((sizes | {name: len(data) for name, data in small.items()}).values())


def _stand_in(
    folder: OutputFolder, manifest: Manifest, papers: Mapping[str, bytes]
) -> dict[str, FileEntry]:
    """Put the target's config and tokenizer beside plain differences.

    Tools that add them load the folder as if it were a model. Its licences are in `papers`.

    Returns:
        Each file by its path.
    """
    own = {*RESERVED, *manifest.stored} - {LOADER_STOP}
    # Git's own files are for the repository that the target was in.
    taken = {folded(name) for name in (*own, *papers, *GIT)}
    placed = {}
    for entry in manifest.files:
        first = entry.path.partition("/")[0]
        if not {folded(entry.path), folded(first)} & taken:
            source = folder.path(f"{TARGET_FOLDER}/{entry.path}")
            size, digest = folder.copy(source, entry.path)
            placed[entry.path] = FileEntry(path=entry.path, size=size, sha256=digest)
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
