"""Preflight for any delta: one of ours, or another tool's.

Of ours it asks far more (`delta.preflight`), since a release says what its base is. Of an
additive delta it asks whether the two fit at all, and of XOR files only whether the base
has files of those names.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from releasekit.authenticity import DEFAULT_POLICY, Policy, refuse_unsigned
from releasekit.checkpoint.locate import locate, look
from releasekit.delta import preflight as of_releases
from releasekit.delta.diagnosis import Finding
from releasekit.delta.lineage import Deltas, named, one_alone
from releasekit.delta.preflight import Noting, Preflight
from releasekit.device.choose import AUTO as AUTO_DEVICE
from releasekit.foreign.recipes import AUTO
from releasekit.foreign.recognise import Origin, recognise
from releasekit.output import check_output, free_nbytes, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY


def preflight(
    base: str | Path,
    delta: Deltas,
    *,
    out: str | Path | None = None,
    policy: Policy = DEFAULT_POLICY,
    recipe: str = AUTO,
    device: str = AUTO_DEVICE,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> Preflight:
    """Check that applying `delta` to `base` would succeed with these arguments.

    Args:
        base: the base checkpoint: a path, or a model on the Hub.
        delta: a release of ours, or another tool's delta, likewise; or several releases
            of ours that build on each other.
        out: folder that is to be made; if it is given, the disk space is checked too.
        policy: what is asked of a release's signature.
        recipe: whose script to follow with another tool's delta.
        device: what adds the residuals, as in `apply_delta`.
        threads: worker threads.
        max_memory: bytes of host memory to use at most.
        progress: called with the bytes downloaded, if something is on the Hub.

    Raises:
        UsageError: if there is no delta.
        HubError: if the delta is on the Hub, and cannot be had.
        SignatureError: if `policy` wants a signature, which another tool's delta has not.
        OSError: if the system fails.
    """
    started = time.monotonic()
    deltas = named(delta)
    origins = [recognise(look(one, progress), recipe) for one in deltas]
    if all(origin is Origin.RELEASE for origin in origins):
        return of_releases.preflight(
            base,
            delta,
            out=out,
            policy=policy,
            device=device,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    delta, origin = one_alone(deltas), origins[0]
    refuse_unsigned(delta, policy.of(delta))
    path = locate(delta, progress)
    # Not for releases, which are asked about most often: it costs a tenth of a second.
    from releasekit.foreign.apply import open_sum
    from releasekit.foreign.payloads import missing_files, payload_names
    from releasekit.model_writer import resources_for

    findings: list[Finding] = []
    memory = write = free = None
    inputs: list[Path] = [path]
    with Noting(findings), ExitStack() as kept:
        inputs.append(locate(base, progress))
        if origin is Origin.ADDITIVE:
            total = kept.enter_context(open_sum(inputs[1], path, recipe=recipe))
            write = sum(shard.layout.file_size for shard in total.shards)
            memory = resources_for(total.shards, threads, max_memory).memory_nbytes
            findings += [
                Finding(kind="note", message=note, fatal=False) for note in total.pair.notes
            ]
        else:
            write = sum((path / name).stat().st_size for name in payload_names(path))
            missing_files(inputs[1], path)
    if out is not None:
        free = free_nbytes(Path(out))
        with Noting(findings):
            check_output(Path(out), force=False, inputs=inputs)
            with Noting(findings, kind="disk"):
                require_space(Path(out), [write or 0])
    return Preflight(
        base=str(base),
        delta=str(delta),
        name=path.resolve().name,
        findings=tuple(findings),
        memory_nbytes=memory,
        write_nbytes=write,
        free_nbytes=free,
        download_nbytes=None,
        seconds=time.monotonic() - started,
    )
