"""Make the target's weight files: on disk, or in memory to prove that they come out right.

The manifest is the journal. What an interrupted run left is hashed, and believed as far as
its digests are right: whole files, and in an unfinished one the tensors up to the first
that is missing or wrong. Hashing that part is needed in any case, since the file's digest
is a chain from its first byte.
"""

from __future__ import annotations

from io import BufferedRandom

import numpy as np
from numpy.typing import NDArray

from releasekit.checkpoint import Checkpoint
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.release import Release
from releasekit.digest import Hash, blake3, pieces, sha256
from releasekit.errors import IntegrityError
from releasekit.hashing import hash_files
from releasekit.manifest import Manifest, WeightEntry
from releasekit.output import OutputFolder
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.writing import Flusher, pwrite, sync


def finished_files(
    folder: OutputFolder,
    manifest: Manifest,
    workers: Workers,
    progress: ProgressCallback | None,
) -> tuple[str, ...]:
    """Weight files that an earlier run completed, by path."""
    if not folder.reused:
        return ()
    entries = {entry.file.path: entry.file for entry in manifest.weights}
    whole = [
        name
        for name, entry in entries.items()
        if (path := folder.path(name)).is_file()
        and not path.is_symlink()
        and path.stat().st_size == entry.size
    ]
    if not whole:
        return ()
    stage = Stage(progress, "check kept", sum(entries[name].size for name in whole))
    hashed = hash_files(folder.path(""), whole, workers, stage)
    return tuple(name for name, digest in hashed if digest == entries[name].sha256)


def prove(
    release: Release,
    base: Checkpoint,
    workers: Workers,
    progress: ProgressCallback | None,
) -> None:
    """Rebuild every weight file in memory and compare its digest; writes nothing.

    Raises:
        ReleaseKitError: if the release does not rebuild what it says.
    """
    rebuild = Rebuild(release, base)
    total = sum(entry.file.size for entry in release.manifest.weights)
    stage = Stage(progress, "prove", total)
    for entry in release.manifest.weights:
        stage.advance(entry.layout.data_start)
        _make_weights(entry, rebuild, workers, stage, None, sha256(entry.layout.prefix))


def write_weights(
    folder: OutputFolder,
    entry: WeightEntry,
    rebuild: Rebuild,
    workers: Workers,
    stage: Stage,
) -> None:
    """Write one weight file, going on with what an earlier run left of it.

    Raises as `Rebuild.tensors` does, and IntegrityError if the file's digest is wrong.
    """
    name = folder.unfinished(entry.file.path)
    left = folder.reopen(name)
    with left or folder.create(name) as file:
        hasher: Hash = sha256(entry.layout.prefix)
        complete = 0
        if left:
            hasher, complete = _resume(file, entry, rebuild, stage)
        pwrite(file, 0, memoryview(entry.layout.prefix))
        stage.advance(entry.layout.data_start)
        with Flusher(file) as flusher:
            _make_weights(entry, rebuild, workers, stage, flusher, hasher, complete)
        file.truncate(entry.file.size)
        sync(file)
    folder.finish(name, entry.file.path)


def _resume(
    file: BufferedRandom, entry: WeightEntry, rebuild: Rebuild, stage: Stage
) -> tuple[Hash, int]:
    """The digest of what an interrupted run completed, and its number of tensors.

    The manifest is the journal: a tensor on disk is believed if its digest is right.
    """
    prefix = entry.layout.prefix
    hasher, complete = sha256(prefix), 0
    if file.read(len(prefix)) != prefix:
        return hasher, complete
    for placed in entry.layout.tensors:
        so_far, tensor = hasher.copy(), blake3()
        for piece in pieces(file, placed.spec.nbytes):
            so_far.update(piece)
            tensor.update(piece)
        if tensor.hexdigest() != rebuild.manifest.operations[placed.spec.name].digest:
            break
        hasher, complete = so_far, complete + 1
        stage.advance(placed.spec.nbytes)
    return hasher, complete


def _make_weights(
    entry: WeightEntry,
    rebuild: Rebuild,
    workers: Workers,
    stage: Stage,
    output: Flusher | None,
    hasher: Hash,
    complete: int = 0,
) -> None:
    """Make the tensors of a weight file in order, and check the file's digest.

    Args:
        entry: the file.
        rebuild: makes its tensors.
        workers: where they are made.
        stage: told of the bytes made.
        output: where the tensors go; None proves them only.
        hasher: SHA-256 of the file up to the first tensor to make.
        complete: number of tensors that need not be made.
    """
    places = {p.spec.name: p for p in entry.layout.tensors[complete:]}

    def place(name: str, start: int, data: NDArray[np.uint8]) -> None:
        if output is not None:
            output.write(entry.layout.data_start + places[name].begin + start, data.data)

    def consume(name: str, start: int, data: NDArray[np.uint8]) -> None:
        hasher.update(data.data)
        stage.advance(data.size)

    for _ in rebuild.tensors(places, workers, consume, place):
        pass
    if hasher.hexdigest() != entry.file.sha256:
        raise IntegrityError(
            f"{entry.file.path}: expected sha256 {entry.file.sha256}, found "
            f"{hasher.hexdigest()}, though every tensor is right: the manifest contradicts "
            "itself; ask the publisher for a sound release"
        )
