"""The identity of a checkpoint: what it holds, whatever it is stored in.

The same tensors have the same identity in one file or in hundred, as safetensors, as
PyTorch's or as Meta's files, since names, dtypes, shapes and bytes enter it and nothing
else (`digest.identity`). Releases name the base that they were made with by it, the model
that they rebuild, and other checkpoints that serve as well as that base.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from releasekit import digest
from releasekit.checkpoint import open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.hashing import hash_tensors
from releasekit.checkpoint.locate import locate
from releasekit.delta.release import Release
from releasekit.manifest import Manifest
from releasekit.operations import is_buffer
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A release that knows a checkpoint.

    Attributes:
        release: its name.
        role: "base", "accepted base", "target", or "base, but for inv_freq buffers",
            which serves as well, since releases ignore these.
        delta: where it is.
    """

    release: str
    role: str
    delta: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What a checkpoint is.

    Attributes:
        path: where it is.
        container: how it is stored: "safetensors", "PyTorch" or "Meta".
        identity: its identity.
        without_buffers: the identity without buffers that are of no account
            (`rotary_emb.inv_freq`); None if it has none.
        tensors: number of tensors.
        nbytes: their size.
        matches: the releases that know it, of those that were asked.
        asked: the releases that were asked.
        seconds: time it took.
    """

    path: Path
    container: str
    identity: str
    without_buffers: str | None
    tensors: int
    nbytes: int
    matches: tuple[Match, ...]
    asked: tuple[str, ...]
    seconds: float


def identify(
    path: str | Path,
    *,
    deltas: Sequence[str | Path] = (),
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Identification:
    """Compute the identity of the checkpoint at `path`, which reads all of it.

    Args:
        path: a checkpoint of any kind that can be read, or a model on the Hub.
        deltas: releases to ask whether they know it.
        threads: tensors hashed at once; by default one a processor.
        progress: called with the bytes hashed so far.

    Raises:
        UsageError: if a path is wrong.
        FormatError: if a file is malformed.
        IntegrityError: if a file is cut short.
    """
    started = time.monotonic()
    path = locate(path, progress)
    manifests: list[tuple[Path, Manifest]] = []
    for delta in deltas:
        with Release.open(locate(delta, progress)) as release:
            manifests.append((Path(delta), release.manifest))
    source = find(path)
    with open_found(source) as checkpoint, Workers(threads) as workers:
        specs = checkpoint.specs
        stage = Stage(progress, "identify", sum(spec.nbytes for spec in specs.values()))
        digests = dict(hash_tensors(checkpoint, specs, workers, stage))
    identity = digest.identity((specs[name], found) for name, found in digests.items())
    plain = [name for name in digests if not is_buffer(name)]
    bare = digest.identity((specs[n], digests[n]) for n in plain)
    matches = [
        Match(release=manifest.name, role=role, delta=where)
        for where, manifest in manifests
        if (role := _role(manifest, identity, bare)) is not None
    ]
    return Identification(
        path=path,
        container=source.kind.label,
        identity=identity,
        without_buffers=bare if len(plain) < len(digests) else None,
        tensors=len(specs),
        nbytes=sum(spec.nbytes for spec in specs.values()),
        matches=tuple(matches),
        asked=tuple(manifest.name for _, manifest in manifests),
        seconds=time.monotonic() - started,
    )


def _role(manifest: Manifest, identity: str, bare: str) -> str | None:
    """What a release knows a checkpoint as, by its identity with and without buffers."""
    if identity == manifest.base_identity:
        return "base"
    if identity in manifest.accepted:
        return "accepted base"
    if identity == manifest.target_identity:
        return "target"
    known = (t for name, t in manifest.base.items() if not is_buffer(name))
    if bare == digest.identity((tensor.spec, tensor.digest) for tensor in known):
        return "base, but for inv_freq buffers"
    return None
