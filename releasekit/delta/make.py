"""Make a release from a base and a target, and prove that it rebuilds.

Order of work: list the target's files and plan each tensor's operation; encode in one
streaming pass, which decodes each chunk again; hash what of the base was not read; write
the manifest and the small files; open the result as a user would, and check that its
payloads, read back, are those that were proved. Only then does the release get its name.
What an interrupted run had coded is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from releasekit.checkpoint import Checkpoint, LaidOut, open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import locate
from releasekit.checkpoint.safetensors import SafetensorsCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.accept import accept_bases, check_accepted
from releasekit.delta.encode import StaleJournalError, need
from releasekit.delta.maker import Maker, write_small_files
from releasekit.delta.notary import TARGET, Label, Notary, Source
from releasekit.delta.plain import refuse_names
from releasekit.delta.predecessor import BaseRelease
from releasekit.delta.source import list_target
from releasekit.device.choose import AUTO, engines, explain
from releasekit.errors import UsageError
from releasekit.findings import RuleFinding
from releasekit.license_files import read_chain
from releasekit.licensing.drawing import papers_of
from releasekit.licensing.papers import Papers, check_own_chain, findings_of
from releasekit.licensing.terms import NO_LICENSE, Licensing
from releasekit.names import refuse_clashes
from releasekit.operations import count_operations
from releasekit.output import OutputFolder, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY, share_out
from releasekit.signing.keys import PrivateKey
from releasekit.versions import FIRST

#: Size at which a payload shard is closed, in bytes: what one failed upload may cost.
DEFAULT_SHARD_NBYTES: Final = 2_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeResult:
    """What was released.

    Attributes:
        out: the release folder.
        name: the release's name.
        version: its version.
        publisher: whose it says to be; None if it does not.
        key: fingerprint of the key that signed it; None if none did.
        licenses: ids of its licences: its own, the rebuilt model's, the bases'.
        findings: what speaks against publishing it under them.
        codec: the codec's identifier.
        base_identity: identity of the base.
        target_identity: identity of the target.
        accepted: identities of other bases that serve as well.
        tensors: operation of each tensor by name; `dropped` for the base's that the
            target lacks.
        full_nbytes: size of the target's files.
        published_nbytes: size of the release's files.
        unchanged: share of elements with a base that equal their prediction, 0 to 1: the
            base, or its sum with the plain difference; None if there are none.
        kept: number of tensors that an earlier, interrupted run had coded.
        excluded: files of the target that were left out.
        device: what proved the chunks, and why.
        seconds: time it took.
    """

    out: Path
    name: str
    version: str
    publisher: str | None
    key: str | None
    licenses: tuple[str, ...]
    findings: tuple[RuleFinding, ...]
    codec: str
    base_identity: str
    target_identity: str
    accepted: tuple[str, ...]
    tensors: dict[str, str]
    full_nbytes: int
    published_nbytes: int
    unchanged: float | None
    kept: int
    excluded: tuple[str, ...]
    device: str
    seconds: float

    @property
    def operations(self) -> dict[str, int]:
        """Number of tensors by operation, 0 included."""
        return count_operations(self.tensors.values())

    @property
    def ratio(self) -> float:
        """Published size divided by full size."""
        return self.published_nbytes / self.full_nbytes if self.full_nbytes else 1.0


def make_delta(
    base: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    version: str = FIRST,
    publisher: str | None = None,
    sign_key: PrivateKey | None = None,
    succession: str | Path | None = None,
    licensing: Licensing = NO_LICENSE,
    shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    exclude: Sequence[str] = (),
    accept: Sequence[str | Path] = (),
    base_release: str | Path | None = None,
    codec: Ulp | None = None,
    force: bool = False,
    device: str = AUTO,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> MakeResult:
    """Release `target` as a delta on `base`, in a new folder `out`.

    Args:
        base: the base checkpoint: a path, or a model on the Hub.
        target: file or folder of the checkpoint to release; the other files of a folder
            are released with it, verbatim.
        out: folder to make; appears complete and proved, or not at all.
        name: the release's name; by default the target's.
        version: one to four numbers with dots between them; users are warned of a lower one
            than they have seen.
        publisher: whose release it is, as users may know them by their keys.
        sign_key: signs the release, and the model that it rebuilds.
        succession: file of links by which the publisher's former keys vouch for this one,
            as `releasekit rotate-key` makes it; goes into the release.
        licensing: under which licences it is released, and its base is; their texts go
            into the release and into the model that it rebuilds.
        shard_nbytes: size at which a payload shard is closed.
        exclude: patterns of files in the target folder to leave out.
        accept: other checkpoints that users may have for a base. Each must hold what the
            delta needs of it, bit for bit, which is checked; then the release knows it.
        base_release: the release that rebuilds `base`, if this is an upgrade of it, such as
            v1.1 of v1.0: a path, or on the Hub. That is checked; then the release says
            so, and users can apply both at once. Its licences are the base's, unless these
            lie beside the base.
        codec: `Ulp`, or `Add` for a release that other tools can add up as well.
        force: replace `out` if it exists.
        device: what proves the chunks, as in `apply_delta`; coding is the processor's work.
        threads: worker threads; by default one a processor.
        max_memory: bytes of host memory to use at most; fewer threads are used if need be.
        progress: called with the state of each stage.

    Raises:
        UsageError: if a path is wrong, `out` exists, the target holds weights that belong
            to no checkpoint, there is no such device, or `max_memory` is too little.
        FormatError: if an input is malformed.
        BaseMismatchError: if one to accept does not serve as the base, or the base is not
            what `base_release` rebuilds.
        IntegrityError: if the result does not rebuild the target.
        OSError: if the system fails.
    """
    started = time.monotonic()
    given = base
    before = BaseRelease.find(base_release, progress) if base_release is not None else None
    base, target = locate(base, progress), Path(target)
    listed = list_target(target, exclude)
    root, found = listed.found.root, find(base)
    codec = codec or Ulp()
    label = Label(name=name or _default_name(target), version=version, publisher=publisher)
    label.check()
    notary = Notary.of(
        sources=(
            Source.of("base", given, found),
            Source(role=TARGET, root=root, files=(*listed.found.files, *listed.others)),
        ),
        parameters={
            "command": "make-delta",
            "codec": codec.to_json(),
            "shard_nbytes": shard_nbytes,
            "exclude": list(exclude),
            **licensing.parameters,
            **({"base_release": before.said.title} if before else {}),
        },
        key=sign_key,
        succession=succession,
    )
    with (
        SafetensorsCheckpoint.open(listed.found) as target_checkpoint,
        open_found(found) as base_checkpoint,
    ):
        made = make_release(
            base_checkpoint,
            target_checkpoint,
            {path: root / path for path in listed.others},
            Path(out),
            label=label,
            notary=notary,
            papers=_papers(licensing, label.name, given, base, before),
            before=before,
            inputs=(base, target),
            accept=accept,
            shard_nbytes=shard_nbytes,
            codec=codec,
            force=force,
            device=device,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
    return replace(made, excluded=listed.excluded, seconds=time.monotonic() - started)


def make_release(
    base: Checkpoint,
    target: LaidOut,
    others: Mapping[str, Path | bytes],
    out: Path,
    *,
    label: Label,
    notary: Notary,
    papers: Papers | None,
    inputs: tuple[Path, ...],
    accept: Sequence[str | Path],
    shard_nbytes: int,
    codec: Ulp,
    force: bool,
    device: str,
    threads: int | None,
    max_memory: int,
    progress: ProgressCallback | None,
    before: BaseRelease | None = None,
) -> MakeResult:
    """Release an open target, which need not be in files, as a delta on an open base.

    As `make_delta`, but for `others`: the target's other files by their paths, each where
    it is or what it holds; `label`: what it is called; `notary`: who vouches for it;
    `papers`: its licences, if it has any; `inputs`: paths that are read, and `out` may not
    touch; and `before`: the release that rebuilds the base.
    """
    started = time.monotonic()
    label.check()
    if shard_nbytes < 1:
        raise UsageError(f"shard size: expected at least 1 byte, found {shard_nbytes}")
    if not target.specs:
        raise UsageError(f"{target.subject}: holds no tensors; there is nothing to release")
    if codec.plain:
        refuse_names(target.files, target.subject)
    check_own_chain(others, target.subject)
    if papers is not None:
        others = {**others, **papers.rebuilt(others)}
        refuse_clashes([*(file.name for file in target.files), *others], target.subject)
    others_to_accept = [locate(path, progress) for path in accept]
    check_accepted(base, target, others_to_accept)
    if before is not None:
        before.check(base)
    engine = engines(device)[0]
    maker = Maker(
        base=base,
        target=target,
        others=others,
        label=label,
        notary=notary,
        codec=codec,
        shard_nbytes=shard_nbytes,
        engine=engine,
        resources=share_out(
            need(base, target, codec),
            threads=threads,
            max_memory=max_memory,
            extra=engine.host_nbytes,
        ),
        progress=progress,
    )
    with OutputFolder(out, key=maker.key(), force=force, inputs=inputs) as folder:
        require_space(folder.partial, maker.space(folder), folder.used_nbytes())
        try:
            manifest, encoder = maker.encode(folder)
        except StaleJournalError:
            folder.restart()
            manifest, encoder = maker.encode(folder)
        manifest = accept_bases(manifest, others_to_accept, threads, progress)
        if before is not None:
            manifest = before.record(manifest, base.subject)
        materials = notary.materials(manifest, threads, progress)
        published = write_small_files(
            folder, manifest, notary, materials, papers.published() if papers else {}
        )
        maker.read_back(folder, manifest, encoder.payloads)
        folder.commit()
    operations = {name: made.op.value for name, made in manifest.operations.items()}
    return MakeResult(
        out=out,
        name=manifest.name,
        version=manifest.version,
        publisher=manifest.publisher,
        key=notary.key.public.fingerprint if notary.key else None,
        licenses=tuple(grant.id for grant in papers.chain.distinct) if papers else (),
        findings=findings_of(papers, manifest.name),
        codec=codec.id,
        base_identity=manifest.base_identity,
        target_identity=manifest.target_identity,
        accepted=manifest.accepted,
        tensors=operations | dict.fromkeys(manifest.dropped, "dropped"),
        full_nbytes=manifest.rebuilt_nbytes,
        published_nbytes=published,
        unchanged=encoder.unchanged / encoder.words if encoder.words else None,
        kept=encoder.kept,
        excluded=(),
        device=explain(device),
        seconds=time.monotonic() - started,
    )


def _papers(
    licensing: Licensing,
    name: str,
    given: str | Path,
    base: Path,
    before: BaseRelease | None,
) -> Papers | None:
    """The licences: what the base says of its own, or the release that rebuilds it."""
    if before is not None:
        beside = base if base.is_dir() else base.parent
        if read_chain(beside) is None and read_chain(before.rebuilt) is not None:
            return papers_of(licensing, name, before.said.name, before.rebuilt)
    return papers_of(licensing, name, given, base)


def _default_name(target: Path) -> str:
    resolved = target.resolve()
    return resolved.name if resolved.is_dir() else resolved.name.partition(".")[0]
