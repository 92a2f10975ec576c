"""Compare two checkpoints, or describe one: a single pass, in bounded memory.

    sides      the models, opened
    examining  the pass over them

A model may be a delta release: then its tensors are rebuilt in memory as they are read.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint.locate import locate
from releasekit.comparison.examining import examine
from releasekit.comparison.sides import Bases, each, open_side
from releasekit.delta.consent import Consent
from releasekit.delta.diagnosis import is_release
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.statistics.diff import Diff, Narrowing, narrowings, side_tensors


def compare(
    first: str | Path,
    second: str | Path,
    *,
    base: Bases = None,
    values: bool = False,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> Diff:
    """Compare two checkpoints of any kind, tensor by tensor, word by word.

    Args:
        first: A: a checkpoint, a release, or a model on the Hub.
        second: B, likewise.
        base: what releases among them are rebuilt on, in memory: a checkpoint; or one, and
            earlier releases that lead from it to what these were made on. A and B are taken
            for such, too.
        values: also say what the values of B are like.
        policy: what is asked of a release's signature.
        accept_license: as in `apply_delta`, for releases.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most, beside the figures themselves.
        progress: called with the bytes read so far.

    Raises:
        UsageError: if a path is wrong, or a release is given without its base.
        FormatError: if a file is malformed.
        BaseMismatchError: if `base` is not the base of a release.
        IntegrityError: if a file is cut short, or what a release rebuilds is wrong.
        SignatureError, LicenseError: as `open_delta`.
    """
    given = each(base)
    with ExitStack() as stack:
        # v1.1 may be on v1.0, which it is compared with.
        leads = [one for one in (first, second) if is_release(locate(one, progress))]
        sides = [
            open_side(
                stack,
                model,
                (*given, *leads) if given else (),
                policy=policy,
                accept_license=accept_license,
                progress=progress,
            )
            for model in (first, second)
        ]
        return examine(
            sides[0],
            sides[1],
            values=values,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )


def narrowest(
    model: str | Path,
    *,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> tuple[Narrowing, ...]:
    """Which floats of a checkpoint a smaller dtype would hold, bit for bit.

    A dtype is named if smaller ones hold every value of every tensor of it, so that
    `convert` to one of them loses nothing. All of the checkpoint is read.

    Args:
        model: a checkpoint of any kind that can be read, or a model on the Hub.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most.
        progress: called with the bytes read so far.

    Raises:
        UsageError, FormatError, IntegrityError: as `compare`.
    """
    with ExitStack() as stack:
        side = open_side(stack, model, progress=progress, files=False)
        found = examine(
            None, side, threads=threads, max_memory=max_memory, progress=progress
        )
    return narrowings(side_tensors(found, first=False))
