"""Rebuild a model in parts, by other processes: on this machine, or on many.

A part is a weight file, or some tensors of a large one. Every part is made from base and
releases by whoever has it, in the way that `weights` has for all; its result takes its
place in the partial folder by one rename, and is noted beside it (`parts.records`). A large
file's pieces wait beside the output until all are there, and are then put together.

Whoever hands out the parts checks signatures and licences, once. Each part checks that it
has the same releases, by their manifests' digests, and the right base, by headers and a few
tensors; the digests of what it makes say the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from releasekit.authenticity import DEFAULT_POLICY, Policy
from releasekit.checkpoint import StoredCheckpoint
from releasekit.checkpoint.locate import approach, refuse_hub
from releasekit.delta.apply import (
    ApplyResult,
    Inputs,
    Prepared,
    complete,
    prepared_for,
)
from releasekit.delta.consent import Consent
from releasekit.delta.lineage import Deltas, Line, Lineage, named
from releasekit.delta.release import Release
from releasekit.delta.weights import Piece, cut, join_pieces, write_piece, write_weights
from releasekit.device.choose import AUTO, CPU, check_device, engines
from releasekit.errors import IntegrityError
from releasekit.licenses.chain import Chain
from releasekit.manifest import Manifest, WeightEntry
from releasekit.output import OutputFolder, Sharing
from releasekit.parts.keeping import keeper
from releasekit.parts.outputs import Output, needs_of
from releasekit.parts.records import Done, Records
from releasekit.parts.shares import (
    PartResult,
    require_begun,
    require_done,
    run_parts,
)
from releasekit.parts.split import Share
from releasekit.parts.tasks import (
    Advance,
    Batch,
    Here,
    Pool,
    Task,
    Work,
    as_progress,
    reports,
)
from releasekit.pipeline import Workers
from releasekit.progress import ProgressCallback, Stage, in_turn
from releasekit.resources import DEFAULT_MAX_MEMORY, WRITING, memory_of_headers, share_out
from releasekit.storage.address import absolute
from releasekit.storage.blocks import BLOCK, KEPT
from releasekit.storage.output import check_output, output_folder

#: Bytes of a weight file that one part makes: files more than twice as large are cut.
PIECE_NBYTES: Final = 4_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding(Output):
    """What every part of a rebuild is told.

    Attributes:
        base: where the base is.
        releases: where each release is, and the SHA-256 of its manifest.
        device: what adds the residuals.
        threads: as in `apply_delta`, for each part.
        max_memory: likewise.
    """

    base: Path
    releases: tuple[tuple[Path, str], ...]
    device: str
    threads: int | None
    max_memory: int

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        inputs: Inputs,
        out: Path,
        device: str,
        threads: int | None,
        max_memory: int,
    ) -> Rebuilding:
        """What is told of a rebuild that was looked over."""
        releases = prepared.lineage.releases
        places = {at.path: at.shared for at in inputs.found}
        return cls(
            base=prepared.located.shared,
            releases=tuple((places[r.folder], r.key) for r in releases),
            out=absolute(out),
            key=f"apply {releases[-1].key}",
            device=device,
            threads=threads,
            max_memory=max_memory,
        )

    @contextmanager
    def opened(self) -> Iterator[tuple[Line, StoredCheckpoint]]:
        """The releases and the base, as this process finds them, which fit each other.

        Raises:
            IntegrityError: if a release is not the one that was looked over.
            BaseMismatchError: if the base is not theirs.
        """
        with ExitStack() as stack:
            releases = []
            for path, key in self.releases:
                at = stack.enter_context(approach(path))
                release = stack.enter_context(Release.open(at.path, coming=at.coming))
                if release.key != key:
                    raise IntegrityError(
                        f"{path}: expected the release whose manifest has sha256 {key}, "
                        f"found {release.key}: every machine must find the same release "
                        "under this path"
                    )
                releases.append(release)
            line = Line(releases=tuple(releases))
            located = stack.enter_context(approach(self.base))
            base = stack.enter_context(line.open_base(located))
            line.check_base(base)
            yield line, base


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A weight file and its pieces: one that is the file, or several to be joined."""

    pieces: list[Piece]

    @classmethod
    def of(cls, entry: WeightEntry, piece_nbytes: int) -> _File:
        large = entry.file.size > 2 * piece_nbytes
        return cls(pieces=cut(entry, piece_nbytes if large else entry.file.size))

    @property
    def entry(self) -> WeightEntry:
        return self.pieces[0].entry

    @property
    def tasks(self) -> list[Task]:
        """A part for each piece."""
        path, single = self.entry.file.path, len(self.pieces) == 1
        return [
            Task(
                name=path if single else f"{path}: tensors {p.first} to {p.last}",
                nbytes=p.nbytes,
                detail=p,
            )
            for p in self.pieces
        ]

    @property
    def join(self) -> Task | None:
        """The part that joins the pieces; None if there is one that is the file."""
        if len(self.pieces) == 1:
            return None
        file = self.entry.file
        return Task(name=f"{file.path}: joined", nbytes=file.size, detail=self)


def rebuild_part(spec: Rebuilding, task: Task, advance: Advance) -> Mapping[str, object]:
    """Make one piece, or a file that is one."""
    piece: Piece = task.detail
    with spec.folder as folder:
        line, base = keeper().get(spec, Rebuilding.opened)
        engine = engines(spec.device)[0]
        rebuild = line.rebuild(base, engine.combine)
        tensors = piece.entry.layout.tensors[piece.first : piece.last + 1]
        resources = share_out(
            rebuild.need([placed.spec.name for placed in tensors]),
            threads=spec.threads,
            each=WRITING,
            max_memory=spec.max_memory,
            extra=engine.host_nbytes,
        )
        stage = Stage(as_progress(advance), "rebuild", piece.nbytes)
        buffers = resources.buffers(engine.allocate)
        with Workers(resources.threads) as workers:
            if piece.is_whole:
                write_weights(folder, piece.entry, rebuild, workers, buffers, stage)
            else:
                write_piece(folder, piece, rebuild, workers, buffers, stage)
    return {}


def join_part(spec: Rebuilding, task: Task, advance: Advance) -> Mapping[str, object]:
    """Put a weight file together from its pieces."""
    file: _File = task.detail
    with spec.folder as folder:
        stage = Stage(as_progress(advance), "join", file.entry.file.size)
        try:
            join_pieces(folder, file.pieces, stage)
        except IntegrityError:
            for part in file.tasks:  # else the next run would come to the same end
                Records(spec.partial).forget(part.name)
            raise
        for piece in file.pieces:
            folder.drop(piece.place)
    return {}


class _Plan:
    """The parts of a rebuild, and which are done."""

    def __init__(
        self, manifest: Manifest, spec: Rebuilding, folder: OutputFolder, piece_nbytes: int
    ) -> None:
        self._files = [_File.of(entry, piece_nbytes) for entry in manifest.weights]
        self._folder = folder
        self._done = Records(spec.partial).read()

    @property
    def parts(self) -> list[Task]:
        """All parts but those that join pieces."""
        return [task for file in self._files for task in file.tasks]

    @property
    def todo(self) -> list[Task]:
        """Those of them that have yet to be done."""
        return [t for file in self._files for t in file.tasks if not self._is_done(file, t)]

    @property
    def joins(self) -> list[Task]:
        """Parts that join pieces, and have yet to be done."""
        found = ((file, file.join) for file in self._files)
        return [j for file, j in found if j is not None and not self._is_there(file, j)]

    @property
    def kept(self) -> list[str]:
        """Weight files that are there."""
        return [
            file.entry.file.path
            for file in self._files
            if self._is_there(file, file.join or file.tasks[0])
        ]

    def _is_done(self, file: _File, task: Task) -> bool:
        if file.join is None:
            return self._is_there(file, task)
        if self._is_there(file, file.join):
            return True
        piece: Piece = task.detail
        return task.name in self._done and self._folder.holds_kept(
            piece.place, piece.nbytes
        )

    def _is_there(self, file: _File, last: Task) -> bool:
        """Whether a weight file was made, `last` being its last part, and is there."""
        entry = file.entry.file
        return last.name in self._done and self._folder.holds(entry.path, entry.size)

    @property
    def disk_nbytes(self) -> list[int]:
        """Sizes of the files that have yet to be written; pieces lie beside the whole."""
        files = [f.entry.file.size for f in self._files]
        wholes = {f.entry.file.path for f in self._files}
        return [*files, *(t.nbytes for t in self.todo if t.name not in wholes)]


def apply_spread(
    base: str | Path,
    delta: Deltas,
    out: str | Path,
    *,
    pool: Pool,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    piece_nbytes: int = PIECE_NBYTES,
    progress: ProgressCallback | None = None,
) -> ApplyResult:
    """Rebuild as `apply_delta` does, in parts that a pool of processes does.

    Args:
        base: as in `apply_delta`; a path that all of the pool's machines have.
        delta: likewise.
        out: likewise.
        pool: does the parts.
        policy: as in `apply_delta`.
        accept_license: likewise.
        force: likewise.
        device: what adds the residuals, on the machine that does a part.
        threads: of one part; by default as many as the pool says.
        max_memory: of one part.
        piece_nbytes: bytes of a weight file that one part makes, at least; files more than
            twice as large are cut.
        progress: called with the state of each stage.

    Raises:
        ReleaseKitError: as `apply_delta`; and if parts were lost too often.
    """
    out, progress, threads = Path(out), in_turn(progress), threads or pool.threads
    with _looked_over(
        base, delta, out, policy, accept_license, force, device, threads, max_memory
    ) as (prepared, inputs, licenses):
        lineage = prepared.lineage
        spec = Rebuilding.of(prepared, inputs, out, device, threads, max_memory)
        with output_folder(out, key=spec.key, force=force, inputs=inputs.paths) as folder:
            plan = _Plan(lineage.last.manifest, spec, folder, piece_nbytes)
            folder.require_space(plan.disk_nbytes)
            kept = plan.kept
            done = _do(plan, spec, prepared, pool, progress)
            complete(folder, lineage, _copying(lineage, progress))
        return prepared.result(out, device, licenses, kept, reports(done))


def apply_share(
    base: str | Path,
    delta: Deltas,
    out: str | Path,
    *,
    share: Share,
    policy: Policy = DEFAULT_POLICY,
    accept_license: Consent = False,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    piece_nbytes: int = PIECE_NBYTES,
    progress: ProgressCallback | None = None,
) -> PartResult:
    """Do one of several shares of a rebuild; `finish_apply` does what remains then.

    Shares may be done at the same time, on machines that find inputs and output under the
    same paths, and again if one was stopped. Arguments are those of `apply_spread`, and
    must be the same for all; and `share`, which is done here.

    Raises:
        ReleaseKitError: as `apply_delta`.
    """
    started = time.monotonic()
    out, progress = Path(out), in_turn(progress)
    with _looked_over(
        base, delta, out, policy, accept_license, force, device, threads, max_memory
    ) as (prepared, inputs, _):
        spec = Rebuilding.of(prepared, inputs, out, device, threads, max_memory)
        manifest = prepared.lineage.last.manifest
        with output_folder(
            out, key=spec.key, force=force, inputs=inputs.paths, sharing=Sharing.PARTS
        ) as folder:
            plan = _Plan(manifest, spec, folder, piece_nbytes)
            mine = share.of(plan.parts)
            todo = {task.name for task in plan.todo}
            batch = _batch(
                rebuild_part, spec, [t for t in mine if t.name in todo], prepared
            )
            folder.require_space(plan.disk_nbytes)
            done = run_parts(Here(), batch, progress)
    return PartResult.of(out, manifest.name, share, mine, done, time.monotonic() - started)


def finish_apply(
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
    piece_nbytes: int = PIECE_NBYTES,
    progress: ProgressCallback | None = None,
) -> ApplyResult:
    """Make the output appear, once all shares are done; arguments as in `apply_share`.

    Raises:
        ReleaseKitError: if some parts are not done, which it names; or as `apply_delta`.
    """
    out, progress = Path(out), in_turn(progress)
    with _looked_over(
        base, delta, out, policy, accept_license, force, device, threads, max_memory
    ) as (prepared, inputs, licenses):
        lineage = prepared.lineage
        manifest = lineage.last.manifest
        spec = Rebuilding.of(prepared, inputs, out, device, threads, max_memory)
        require_begun(spec.partial)

        with output_folder(
            out, key=spec.key, force=force, inputs=inputs.paths, sharing=Sharing.LAST
        ) as folder:
            plan = _Plan(manifest, spec, folder, piece_nbytes)
            require_done(spec.partial, plan.todo, plan.parts)
            records = Records(spec.partial).read().values()
            done = [*records, *_do(plan, spec, prepared, Here(), progress)]
            complete(folder, lineage, _copying(lineage, progress))
        return prepared.result(out, device, licenses, (), reports(done))


@contextmanager
def _looked_over(
    base: str | Path,
    delta: Deltas,
    out: Path,
    policy: Policy,
    consent: Consent,
    force: bool,
    device: str,
    threads: int | None,
    max_memory: int,
) -> Iterator[tuple[Prepared, Inputs, Chain | None]]:
    """Inputs that fit, and licences that were accepted."""
    refuse_hub(base, *named(delta))
    with ExitStack() as opened:
        inputs = Inputs.find(opened, base, delta, None)
        check_output(out, force=force, inputs=inputs.paths)
        check_device(device)  # whoever does a part has it, if not this machine
        work = prepared_for(inputs, policy, CPU, threads, max_memory)
        prepared = opened.enter_context(work)
        yield prepared, inputs, prepared.lineage.agree(consent)


def _batch(
    work: Work[Rebuilding], spec: Rebuilding, tasks: list[Task], prepared: Prepared
) -> Batch[Rebuilding]:
    needs = needs_of(prepared.resources, _held_nbytes(prepared), spec.device)
    return Batch(
        work=work,
        spec=spec,
        tasks=tasks,
        needs=replace(needs, waits=True),
        stage="rebuild",
    )


def _held_nbytes(prepared: Prepared) -> int:
    """Memory of what is read of headers and manifests, and of what is read ahead."""
    held = len(prepared.base.specs) + sum(
        len(r.manifest.base) + 2 * len(r.manifest.target) for r in prepared.lineage.releases
    )
    stored = [prepared.located.coming, *(r.coming for r in prepared.lineage.releases)]
    ahead = sum(BLOCK * KEPT for coming in stored if coming is not None)
    return memory_of_headers(held) + ahead


def _do(
    plan: _Plan,
    spec: Rebuilding,
    prepared: Prepared,
    pool: Pool,
    progress: ProgressCallback | None,
) -> list[Done]:
    """Do what has yet to be done: all pieces, then the files that are joined of them."""
    done = run_parts(pool, _batch(rebuild_part, spec, plan.todo, prepared), progress)
    joins = _batch(join_part, spec, plan.joins, prepared)
    joining = replace(joins, stage="join", needs=replace(joins.needs, threads=1, gpus=0.0))
    return done + run_parts(pool, joining, progress)


def _copying(lineage: Lineage, progress: ProgressCallback | None) -> Stage:
    files = lineage.last.manifest.files
    return Stage(progress, "copy", sum(file.size for file in files))
