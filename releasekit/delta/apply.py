"""Rebuild the publisher's files from a base and a delta, byte for byte.

Order of work: check the base against the manifest, and that every file of the delta is
there, or on its way; make the weight files, several at once where there are threads for
it, hashing while writing; copy the other files; commit. The small files come last, so that
a partial folder never has a config to load it by.

What an interrupted run of the same work left is kept as far as its digests are right.

Releases that build on each other are rebuilt at once: see `lineage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Self

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.checkpoint import StoredCheckpoint
from releasekit.checkpoint.locate import Located, approach
from releasekit.delta.consent import Consent, read_terms
from releasekit.delta.lineage import Deltas, Lineage, named, open_lineage
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.supply import Supply
from releasekit.delta.weights import finished_files, write_weights
from releasekit.device.choose import AUTO, Engine, engines, explain
from releasekit.errors import IntegrityError
from releasekit.licenses.chain import Chain
from releasekit.manifest import TARGET_FOLDER, FileEntry, WeightEntry
from releasekit.output import OutputFolder, check_output, free_nbytes, require_space
from releasekit.parts.tasks import WorkerReport
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage, in_turn
from releasekit.resources import DEFAULT_MAX_MEMORY, WRITING, Resources, share_out


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPlan:
    """What a rebuild reads, writes and needs.

    Attributes:
        files: paths and sizes of the files to write.
        base_nbytes: bytes read from the base.
        delta_nbytes: bytes read from the releases.
        write_nbytes: bytes written, which is the disk space needed.
        memory_nbytes: host memory used at most while running, all in all.
        threads: threads that do the work.
        device: what adds the residuals, and why.
        free_nbytes: disk space that is free where the output would lie.
        download_nbytes: bytes of base and delta to be downloaded from the Hub first.
        notes: what there is to know of the base, though it is no fault.
        authenticity: whose the release is.
        licenses: under what the model is to be used; None if the release does not say.
        releases: name and version of each release, in the order in which they are applied.
    """

    files: dict[str, int]
    base_nbytes: int
    delta_nbytes: int
    write_nbytes: int
    memory_nbytes: int
    threads: int
    device: str
    free_nbytes: int
    download_nbytes: int
    notes: tuple[str, ...]
    authenticity: Authenticity
    licenses: Chain | None
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What a rebuild made.

    Attributes:
        out: the folder.
        name: the release's name.
        identity: identity of the rebuilt checkpoint.
        files: SHA-256 of each file by path.
        nbytes: total size.
        kept: files that an earlier, interrupted run had finished.
        device: what added the residuals, and why.
        notes: what there is to know of the base, though it is no fault.
        authenticity: whose the release is; of several, the last.
        licenses: under what the model is to be used; None if the release does not say.
        releases: name and version of each release, in the order in which they were applied.
        workers: what each other process did, if any did.
    """

    out: Path
    name: str
    identity: str
    files: dict[str, str]
    nbytes: int
    kept: tuple[str, ...]
    device: str
    notes: tuple[str, ...]
    authenticity: Authenticity
    licenses: Chain | None
    releases: tuple[str, ...]
    workers: tuple[WorkerReport, ...] = ()


def plan_apply(
    base: str | Path,
    delta: Deltas,
    out: str | Path,
    *,
    policy: Policy = DEFAULT_POLICY,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
) -> ApplyPlan:
    """Check that `apply_delta` would start with these arguments, and say what it takes.

    Reads headers and a few small tensors, writes nothing. Raises as `apply_delta` does, but
    for licences to be accepted, which it tells.
    """
    with ExitStack() as opened:
        inputs = Inputs.find(opened, base, delta, None)
        check_output(Path(out), force=force, inputs=inputs.paths)
        work = prepared_for(inputs, policy, device, threads, max_memory)
        prepared = opened.enter_context(work)
        lineage, resources = prepared.lineage, prepared.resources
        manifest = lineage.last.manifest
        return ApplyPlan(
            files={path: entry.size for path, entry in manifest.rebuilt.items()},
            base_nbytes=lineage.base_nbytes,
            delta_nbytes=lineage.delta_nbytes,
            write_nbytes=manifest.rebuilt_nbytes,
            memory_nbytes=resources.memory_nbytes,
            threads=resources.threads,
            device=explain(device),
            free_nbytes=free_nbytes(Path(out)),
            download_nbytes=prepared.supply(manifest.weights).nbytes,
            notes=prepared.notes,
            authenticity=lineage.authenticity,
            licenses=read_terms(lineage.last),
            releases=lineage.titles,
        )


def apply_delta(
    base: str | Path,
    delta: Deltas,
    out: str | Path,
    *,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> ApplyResult:
    """Rebuild the release in `delta` on top of `base`, as a new folder `out`.

    Args:
        base: the base checkpoint: a path, or a model on the Hub.
        delta: the release, likewise; or several that build on each other, such as v1.0 and
            v1.1, in any order: the model of the last is rebuilt.
        out: folder to make; appears complete and verified, or not at all.
        policy: what is asked of each release's signature.
        accept_license: whether terms that every user must accept are accepted; or a
            function that is told the licences, if they restrict use, and answers.
        force: replace `out` if it exists.
        device: what adds the residuals: `auto`, `cpu`, `cuda`, `cuda:N`, `cuda:all` (file
            by file in turn) or `mps`. The result is the same.
        threads: worker threads; by default two a processor, as they wait for the disk.
        max_memory: bytes of host memory to use at most; fewer threads are used if need be.
        progress: called with the state of each stage.

    Raises:
        UsageError: if a path is wrong, `out` exists, there is no such device, or
            `max_memory` is too little.
        FormatError: if an input is malformed.
        BaseMismatchError: if `base` is not the base of this delta.
        IntegrityError: if the release is damaged.
        SignatureError: if `policy` refuses the release.
        LicenseError: if terms must be accepted, and were not.
        OSError: if the system fails; the work can be continued by the same call.
    """
    out, progress = Path(out), in_turn(progress)
    with ExitStack() as opened:
        inputs = Inputs.find(opened, base, delta, progress)
        check_output(out, force=force, inputs=inputs.paths)
        work = prepared_for(inputs, policy, device, threads, max_memory)
        prepared = opened.enter_context(work)
        lineage, resources = prepared.lineage, prepared.resources
        release = lineage.last
        manifest = release.manifest
        licenses = lineage.agree(accept_license)
        with (
            OutputFolder(
                out, key=f"apply {release.key}", force=force, inputs=inputs.paths
            ) as folder,
            Workers(resources.threads) as workers,
        ):
            sizes, there = manifest.rebuilt_sizes, folder.used_nbytes()
            require_space(folder.partial, sizes, there)
            kept = finished_files(folder, manifest, workers, progress)
            todo = [entry for entry in manifest.weights if entry.file.path not in kept]
            supply = prepared.supply(todo)
            supply.require_space(folder.partial, sum(sizes) - there)
            supply.begin(progress, workers.check)
            stage = Stage(progress, "rebuild", manifest.rebuilt_nbytes)
            stage.advance(sum(manifest.rebuilt[path].size for path in kept))
            buffers = resources.buffers(prepared.engines[0].allocate)
            jobs = [
                partial(write_weights, folder, entry, rebuild, workers, buffers, stage)
                for entry, rebuild in zip(todo, cycle(prepared.rebuilds), strict=False)
            ]
            workers.in_lanes(jobs, resources.lanes)
            supply.finish()
            complete(folder, lineage, stage)
        return prepared.result(out, device, licenses, kept)


def allot(
    rebuild: Rebuild, chosen: list[Engine], threads: int | None, max_memory: int
) -> Resources:
    """What a rebuild to files may use, with these engines; raises as `share_out` does."""
    return share_out(
        rebuild.need(rebuild.manifest.target),
        files=len(rebuild.manifest.weights),
        threads=threads,
        each=WRITING,
        max_memory=max_memory,
        extra=max(engine.host_nbytes for engine in chosen),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Where base and releases are, and how the caller named these."""

    base: Located
    deltas: tuple[str | Path, ...]
    found: tuple[Located, ...]

    @classmethod
    def find(
        cls,
        opened: ExitStack,
        base: str | Path,
        delta: Deltas,
        progress: ProgressCallback | None,
    ) -> Self:
        """Find them; `opened` closes what must be."""
        deltas = named(delta)
        where, *found = (
            opened.enter_context(approach(model, progress)) for model in (base, *deltas)
        )
        return cls(base=where, deltas=deltas, found=tuple(found))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they are; an output may be in none of them."""
        return tuple(at.path for at in (self.base, *self.found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Open inputs that fit each other, and what the work may use; an engine a rebuild."""

    lineage: Lineage
    base: StoredCheckpoint
    located: Located
    engines: list[Engine]
    rebuilds: list[Rebuild]
    resources: Resources
    notes: tuple[str, ...]

    def supply(self, entries: Iterable[WeightEntry]) -> Supply:
        """What making these files takes from the Hub."""
        return self.lineage.supply(self.base, self.located, entries)

    def result(
        self,
        out: Path,
        device: str,
        licenses: Chain | None,
        kept: Iterable[str],
        workers: tuple[WorkerReport, ...] = (),
    ) -> ApplyResult:
        """What was made, once it is."""
        manifest = self.lineage.last.manifest
        return ApplyResult(
            out=out,
            name=manifest.name,
            identity=manifest.target_identity,
            files={path: entry.sha256 for path, entry in manifest.rebuilt.items()},
            nbytes=manifest.rebuilt_nbytes,
            kept=tuple(kept),
            device=explain(device),
            notes=self.notes,
            authenticity=self.lineage.authenticity,
            licenses=licenses,
            releases=self.lineage.titles,
            workers=workers,
        )


@contextmanager
def prepared_for(
    inputs: Inputs,
    policy: Policy,
    device: str,
    threads: int | None,
    max_memory: int,
) -> Iterator[Prepared]:
    """Open the inputs, and check all that can be checked before anything is written."""
    with (
        open_lineage(inputs.deltas, inputs.found, policy) as lineage,
        lineage.open_base(inputs.base) as checkpoint,
    ):
        notes = lineage.check_base(checkpoint)
        lineage.check_files()
        chosen = engines(device)
        rebuilds = [lineage.rebuild(checkpoint, engine.combine) for engine in chosen]
        yield Prepared(
            lineage=lineage,
            base=checkpoint,
            located=inputs.base,
            engines=chosen,
            rebuilds=rebuilds,
            resources=allot(rebuilds[0], chosen, threads, max_memory),
            notes=notes,
        )


def complete(folder: OutputFolder, lineage: Lineage, stage: Stage) -> None:
    """Add the files beside the weights, which are there, and make the folder appear."""
    release = lineage.last
    for file in release.manifest.files:
        _copy(folder, release.folder / TARGET_FOLDER / file.path, file, stage)
    folder.keep_only(release.manifest.rebuilt)
    folder.commit()
    lineage.remember()


def _copy(folder: OutputFolder, source: Path, entry: FileEntry, stage: Stage) -> None:
    _, digest = folder.copy(source, entry.path, stage.advance)
    if digest != entry.sha256:
        raise IntegrityError(
            f"{source}: expected sha256 {entry.sha256}, found {digest}; download the "
            "release again"
        )
