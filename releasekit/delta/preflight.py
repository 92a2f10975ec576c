"""Will this base and this delta make the model, here? Answered in seconds, writing nothing.

All that is wrong is gathered, not only the first of it: what `apply_delta` would raise
becomes a finding. Of models on the Hub, headers and samples are read there, and only small
files are downloaded. The delta's files are compared by size; digests are for `verify`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.checkpoint import Checkpoint, StoredCheckpoint, open_checkpoint
from releasekit.checkpoint.locate import approach
from releasekit.delta.apply import allot
from releasekit.delta.base import examine
from releasekit.delta.consent import where
from releasekit.delta.diagnosis import Finding
from releasekit.delta.lineage import Deltas, Lineage, named, open_lineage
from releasekit.delta.release import Release
from releasekit.device.choose import AUTO, engines
from releasekit.errors import (
    BaseMismatchError,
    FormatError,
    HubError,
    IntegrityError,
    ReleaseKitError,
    SignatureError,
)
from releasekit.licenses.chain import Grant
from releasekit.manifest import Manifest
from releasekit.output import PARTIAL_SUFFIX, check_output, free_nbytes, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """Whether a rebuild would succeed, and what it takes.

    Attributes:
        base: the base, as it was named.
        delta: the release, as it was named; several are joined.
        name: the release's name; None if it cannot be opened.
        findings: faults, the most telling first, and notes.
        memory_nbytes: host memory that the rebuild uses at most; None if that is not
            known, or none would suffice.
        write_nbytes: disk space that it needs; None if that is not known.
        free_nbytes: disk space that is free where the output would lie; None if no output
            was named.
        download_nbytes: bytes of base and delta that a rebuild would download; None if
            that is not known.
        seconds: time that the check took.
        authenticity: whose the release is; None if it cannot be opened, or is another
            tool's delta.
    """

    base: str
    delta: str
    name: str | None
    findings: tuple[Finding, ...]
    memory_nbytes: int | None
    write_nbytes: int | None
    free_nbytes: int | None
    download_nbytes: int | None
    seconds: float
    authenticity: Authenticity | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against a rebuild."""
        return not any(finding.fatal for finding in self.findings)


def preflight(
    base: str | Path,
    delta: Deltas,
    *,
    out: str | Path | None = None,
    policy: Policy = DEFAULT_POLICY,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> Preflight:
    """Check that `apply_delta` would succeed with these arguments.

    Args:
        base: file or folder of the base checkpoint, or a model on the Hub.
        delta: folder of the release, or its name on the Hub; or several, as in
            `apply_delta`.
        out: folder that is to be made; if it is given, the disk space is checked too.
        policy: what is asked of the release's signature.
        device: what adds the residuals, as in `apply_delta`.
        threads: worker threads.
        max_memory: bytes of host memory to use at most.
        progress: called with the bytes downloaded, if there are any.

    Raises:
        UsageError: if `delta` is not a release.
        OSError: if the system fails.
    """
    started = time.monotonic()
    findings: list[Finding] = []
    deltas = named(delta)
    lineage: Lineage | None = None
    checkpoint: StoredCheckpoint | None = None
    memory = free = download = None
    with ExitStack() as kept:
        with Noting(
            findings, errors=(FormatError, HubError, IntegrityError, SignatureError)
        ):
            at = [kept.enter_context(approach(one, progress)) for one in deltas]
            lineage = kept.enter_context(open_lineage(deltas, at, policy))
            lineage.check_files()
            for release, grants in lineage.terms():
                findings += _to_accept(release, grants)
        manifest = None if lineage is None else lineage.last.manifest
        with Noting(findings), Noting(findings, "release", (BaseMismatchError,)):
            found = kept.enter_context(approach(base, progress))
            source = (
                lineage.open_base(found)
                if lineage is not None
                else open_checkpoint(found.path, found.coming)
            )
            checkpoint = kept.enter_context(source)
        if lineage is not None and checkpoint is not None:
            with Noting(findings):
                first = lineage.releases[0]
                findings += examine(first.manifest, checkpoint, first.folder)
                memory = _memory(findings, lineage, checkpoint, device, threads, max_memory)
                if not any(finding.fatal for finding in findings):
                    weights = lineage.last.manifest.weights
                    download = lineage.supply(checkpoint, found, weights).nbytes
        if out is not None:
            inputs = tuple(Path(one) for one in (base, *deltas))
            _check_out(findings, Path(out), inputs, manifest)
            free = free_nbytes(Path(out))
    return Preflight(
        base=str(base),
        delta=", ".join(map(str, deltas)),
        name=manifest.name if manifest else None,
        findings=tuple(findings),
        memory_nbytes=memory,
        write_nbytes=manifest.rebuilt_nbytes if manifest else None,
        free_nbytes=free,
        download_nbytes=download,
        seconds=time.monotonic() - started,
        authenticity=None if lineage is None else lineage.authenticity,
    )


class Noting:
    """A context that turns the errors raised in it into findings, and goes on after it."""

    def __init__(
        self,
        findings: list[Finding],
        kind: str | None = None,
        errors: tuple[type[ReleaseKitError], ...] = (ReleaseKitError,),
    ) -> None:
        """Prepare.

        Args:
            findings: takes them.
            kind: theirs; by default the class of the error.
            errors: what is to be noted; others pass.
        """
        self._findings = findings
        self._kind = kind
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, self._errors):
            return False
        name = self._kind or type(error).__name__
        self._findings.append(Finding(kind=name, message=str(error)))
        return True


def _memory(
    findings: list[Finding],
    lineage: Lineage,
    base: Checkpoint,
    device: str,
    threads: int | None,
    max_memory: int,
) -> int | None:
    """Host memory that a rebuild takes at most; None if none would do."""
    chosen = engines(device)
    rebuild = lineage.rebuild(base, chosen[0].combine)
    with Noting(findings, kind="memory"):
        return allot(rebuild, chosen, threads, max_memory).memory_nbytes
    return None


def _to_accept(release: Release, grants: Iterable[Grant]) -> list[Finding]:
    """Licences that every user must accept, each once, which is no fault."""
    strict = {grant.id: grant for grant in grants if grant.acceptance}
    return [
        Finding(
            kind="license",
            message=f"{grant.name} ({grant.use}) must be accepted: read "
            f"{where(release, grant)}, then give apply-delta --accept-license",
            fatal=False,
        )
        for grant in strict.values()
    ]


def _check_out(
    findings: list[Finding], out: Path, inputs: tuple[Path, ...], manifest: Manifest | None
) -> None:
    """Whether an output may be made, and has room."""
    with Noting(findings):
        check_output(out, force=False, inputs=inputs)
        if manifest is None:
            return
        # What an interrupted run of this work has written need not be written again; what
        # another left goes before.
        partial = out.with_name(f"{out.name}{PARTIAL_SUFFIX}")
        files = [path for path in partial.rglob("*") if path.is_file()]
        there = sum(path.lstat().st_blocks * 512 for path in files)
        with Noting(findings, kind="disk"):
            require_space(partial, manifest.rebuilt_sizes, there)
