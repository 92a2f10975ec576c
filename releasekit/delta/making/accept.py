"""Other checkpoints that serve as the base.

A base may exist in several forms that differ in what is of no account: with buffers that
the delta ignores, or with tensors that the target dropped. Their identities differ, so a
maintainer lists those that users have; each is checked here, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from releasekit import digest
from releasekit.checkpoint import Checkpoint, open_checkpoint
from releasekit.checkpoint.hashing import hash_tensors
from releasekit.delta.making.plan import choose_op
from releasekit.errors import BaseMismatchError
from releasekit.manifest import Manifest
from releasekit.names import shown
from releasekit.operations import Op
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage
from releasekit.tensors import TensorSpec


def accept_bases(
    manifest: Manifest,
    bases: Sequence[Path],
    threads: int | None,
    progress: ProgressCallback | None,
) -> Manifest:
    """The manifest, with the identities of other bases that serve as well.

    Raises:
        BaseMismatchError: if one of them does not.
    """
    accepted = set(manifest.accepted)
    for base in bases:
        found = _identity(manifest, base, threads, progress)
        if found != manifest.base_identity:
            accepted.add(found)
    return replace(manifest, accepted=tuple(sorted(accepted)))


def check_accepted(base: Checkpoint, target: Checkpoint, bases: Sequence[Path]) -> None:
    """Refuse, before any work, another base whose headers show that it does not serve.

    Raises:
        BaseMismatchError: with the first tensor that it lacks, or has otherwise.
    """
    for path in bases:
        with open_checkpoint(path) as checkpoint:
            for name, spec in target.specs.items():
                source = base.specs.get(name)
                if choose_op(source, spec) is not Op.NEW and source is not None:
                    _check_spec(path, source, checkpoint.specs.get(name))


def _check_spec(path: Path, expected: TensorSpec, found: TensorSpec | None) -> None:
    if found != expected:
        raise BaseMismatchError(
            f"{path}: does not serve as the base: tensor {shown(expected.name)}: expected "
            f"{expected.describe()}, found {found.describe() if found else 'none'}"
        )


def _identity(
    manifest: Manifest,
    path: Path,
    threads: int | None,
    progress: ProgressCallback | None,
) -> str:
    with open_checkpoint(path) as checkpoint, Workers(threads) as workers:
        specs, needed = checkpoint.specs, manifest.predictors
        for name, spec in needed.items():
            _check_spec(path, spec, specs.get(name))
        total = sum(spec.nbytes for spec in specs.values())
        stage = Stage(progress, "check accepted", total)
        digests = {}
        for name, found in hash_tensors(checkpoint, specs, workers, stage):
            if name in needed and found != manifest.base[name].digest:
                raise BaseMismatchError(
                    f"{path}: does not serve as the base: tensor {shown(name)} has other "
                    "values, so nobody could rebuild the model from it"
                )
            digests[name] = found
        return digest.identity((specs[name], value) for name, value in digests.items())
