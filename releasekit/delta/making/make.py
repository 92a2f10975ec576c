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
from dataclasses import replace
from pathlib import Path

from releasekit.checkpoint import Checkpoint, LaidOut
from releasekit.codec import Ulp
from releasekit.delta.making.encode import StaleJournalError
from releasekit.delta.making.made import MakeResult as MakeResult
from releasekit.delta.making.order import Order
from releasekit.delta.making.request import Request
from releasekit.delta.making.seats import Seat
from releasekit.delta.making.shards import DEFAULT_SHARD_NBYTES as DEFAULT_SHARD_NBYTES
from releasekit.delta.notary import Label, Notary
from releasekit.delta.predecessor import BaseRelease
from releasekit.device.choose import AUTO, engines
from releasekit.licensing.papers import Papers
from releasekit.licensing.terms import NO_LICENSE, Licensing
from releasekit.output import OutputFolder, require_space
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.signing.keys import PrivateKey
from releasekit.versions import FIRST


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
    seat: Seat | None = None,
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
        seat: this one's place at `base`, if others are made on it at the same time; see
            `delta.seats`.

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
    request = Request(
        base=base,
        target=target,
        out=out,
        name=name,
        version=version,
        publisher=publisher,
        sign_key=sign_key,
        succession=succession,
        licensing=licensing,
        shard_nbytes=shard_nbytes,
        exclude=exclude,
        accept=accept,
        base_release=base_release,
        codec=codec,
        force=force,
        device=device,
        threads=threads,
        max_memory=max_memory,
        progress=progress,
        seat=seat,
    )
    with request.opened(engines(device)[0]) as opened:
        order, paths = opened.order, opened.paths
        made = _make(order, Path(out), paths, started, force=force, device=device)
    return replace(made, excluded=opened.excluded)


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
    order = Order.of(
        base,
        target,
        others,
        label=label,
        notary=notary,
        papers=papers,
        before=before,
        accept=accept,
        shard_nbytes=shard_nbytes,
        codec=codec,
        engine=engines(device)[0],
        threads=threads,
        max_memory=max_memory,
        progress=progress,
    )
    return _make(order, out, inputs, started, force=force, device=device)


def _make(
    order: Order,
    out: Path,
    inputs: Sequence[Path],
    started: float,
    *,
    force: bool,
    device: str,
) -> MakeResult:
    """Make what was asked for, in this process."""
    maker = order.maker
    with OutputFolder(out, key=maker.key(), force=force, inputs=inputs) as folder:
        require_space(folder.partial, maker.space(folder), folder.used_nbytes())
        try:
            content = maker.encode(folder)
        except StaleJournalError:
            folder.restart()
            content = maker.encode(folder)
        manifest, published = order.complete(
            folder,
            content,
            lambda manifest: maker.notary.materials(
                manifest, order.threads, maker.progress
            ),
        )
        maker.read_back(folder, manifest, content.payloads)
        folder.commit()
    return order.result(
        out,
        manifest,
        content,
        published=published,
        device=device,
        seconds=time.monotonic() - started,
    )
