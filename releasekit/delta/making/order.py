"""A release that was asked for: open inputs that were looked over, and what completes it.

All that is the same whoever codes the tensors, this process or several: the checks before
any work, and the files that are written once all tensors are coded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from releasekit.checkpoint import Checkpoint, LaidOut
from releasekit.checkpoint.locate import locate
from releasekit.codec import Ulp
from releasekit.delta.making.accept import accept_bases, check_accepted
from releasekit.delta.making.content import Content
from releasekit.delta.making.encode import need
from releasekit.delta.making.made import MakeResult
from releasekit.delta.making.maker import Maker
from releasekit.delta.making.small_files import write_small_files
from releasekit.delta.notary import Label, Notary
from releasekit.delta.plain import refuse_names
from releasekit.delta.predecessor import BaseRelease
from releasekit.device.choose import Engine, explain
from releasekit.errors import UsageError
from releasekit.licensing.papers import Papers, check_own_chain, findings_of
from releasekit.manifest import Manifest
from releasekit.names import refuse_clashes
from releasekit.output import OutputFolder
from releasekit.parts.tasks import WorkerReport
from releasekit.progress import ProgressCallback
from releasekit.provenance import Material
from releasekit.resources import share_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A release to make.

    Attributes:
        maker: what is to be made.
        papers: its licences, if it has any.
        before: the release that rebuilds the base; None if none is known.
        accept: other checkpoints to serve as the base.
        threads: as the caller asked for them.
    """

    maker: Maker
    papers: Papers | None
    before: BaseRelease | None
    accept: tuple[Path, ...]
    threads: int | None

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        target: LaidOut,
        others: Mapping[str, Path | bytes],
        *,
        label: Label,
        notary: Notary,
        papers: Papers | None,
        before: BaseRelease | None,
        accept: Sequence[str | Path],
        shard_nbytes: int,
        codec: Ulp,
        engine: Engine,
        threads: int | None,
        max_memory: int,
        progress: ProgressCallback | None,
    ) -> Self:
        """Look over open inputs; arguments and exceptions as of `make_release`."""
        label.check()
        if shard_nbytes < 1:
            raise UsageError(f"shard size: expected at least 1 byte, found {shard_nbytes}")
        if not target.specs:
            raise UsageError(
                f"{target.subject}: holds no tensors; there is nothing to release"
            )
        if codec.plain:
            refuse_names(target.files, target.subject)
        check_own_chain(others, target.subject)
        if papers is not None:
            others = {**others, **papers.rebuilt(others)}
            names = [*(file.name for file in target.files), *others]
            refuse_clashes(names, target.subject)
        others_to_accept = [locate(path, progress) for path in accept]
        check_accepted(base, target, others_to_accept)
        if before is not None:
            before.check(base)
        return cls(
            maker=Maker(
                base=base,
                target=target,
                others=others,
                label=label,
                notary=notary,
                codec=codec,
                shard_nbytes=shard_nbytes,
                engine=engine,
                resources=share_out(
                    need(base, target.specs.values(), codec),
                    threads=threads,
                    max_memory=max_memory,
                    extra=engine.host_nbytes,
                ),
                progress=progress,
            ),
            papers=papers,
            before=before,
            accept=tuple(others_to_accept),
            threads=threads,
        )

    def complete(
        self,
        folder: OutputFolder,
        content: Content,
        materials: Callable[[Manifest], list[Material]],
    ) -> tuple[Manifest, int]:
        """Write the manifest and all small files.

        Args:
            folder: has the shards.
            content: what the tensors came to.
            materials: tells what went in, given the manifest.

        Returns:
            The manifest, and the size of the whole release in bytes.
        """
        maker = self.maker
        manifest = maker.manifest(folder, content)
        manifest = accept_bases(manifest, self.accept, self.threads, maker.progress)
        if self.before is not None:
            manifest = self.before.record(manifest, maker.base.subject)
        published = write_small_files(
            folder,
            manifest,
            maker.notary,
            materials(manifest),
            self.papers.published() if self.papers else {},
        )
        return manifest, published

    def result(
        self,
        out: Path,
        manifest: Manifest,
        content: Content,
        *,
        published: int,
        device: str,
        seconds: float,
        workers: tuple[WorkerReport, ...] = (),
    ) -> MakeResult:
        """What was made, once it is."""
        operations = {name: made.op.value for name, made in manifest.operations.items()}
        key, papers = self.maker.notary.key, self.papers
        return MakeResult(
            out=out,
            name=manifest.name,
            version=manifest.version,
            publisher=manifest.publisher,
            key=key.public.fingerprint if key else None,
            licenses=tuple(g.id for g in papers.chain.distinct) if papers else (),
            findings=findings_of(papers, manifest.name),
            codec=manifest.codec.id,
            base_identity=manifest.base_identity,
            target_identity=manifest.target_identity,
            accepted=manifest.accepted,
            tensors=operations | dict.fromkeys(manifest.dropped, "dropped"),
            full_nbytes=manifest.rebuilt_nbytes,
            published_nbytes=published,
            unchanged=content.share_unchanged,
            kept=content.kept,
            excluded=(),
            device=explain(device),
            seconds=seconds,
            workers=workers,
        )
