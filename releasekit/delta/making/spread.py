"""Make a release in parts, by other processes: on this machine, or on many.

Order of work: code the target's tensors, and hash what else there is to hash, in parts that
read the inputs; put the payloads into the release's files, in parts, and read them back, in
parts; write the manifest and the small files, here; open the release as a user would. Only
then does it get its name. No process reads all of base or target.

Whoever hands out the parts looks over the inputs, licences included; the key that signs is
needed only by whoever completes the release, and nobody else is told of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Unpack

from releasekit.checkpoint.locate import refuse_hub
from releasekit.checkpoint.sighting import Sighting
from releasekit.delta.making.job import Job
from releasekit.delta.making.made import MakeResult
from releasekit.delta.making.request import Opened, Options, Request
from releasekit.delta.making.told import Making
from releasekit.delta.spread import PIECE_NBYTES
from releasekit.device.choose import Engine, check_device
from releasekit.digest import sha256_hex
from releasekit.output import Sharing
from releasekit.parts.shares import PartResult, require_begun
from releasekit.parts.split import Share
from releasekit.parts.tasks import Here, Pool
from releasekit.progress import in_turn
from releasekit.storage.address import absolute
from releasekit.storage.output import check_output, output_folder


def make_spread(
    base: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    pool: Pool,
    piece_nbytes: int = PIECE_NBYTES,
    **options: Unpack[Options],
) -> MakeResult:
    """Make a release as `make_delta` does, in parts that a pool of processes does.

    Args:
        base: as in `make_delta`; a path that all of the pool's machines have.
        target: likewise.
        out: likewise.
        pool: does the parts.
        piece_nbytes: bytes of a file of the target that one part codes, at least; files
            more than twice as large are cut, unless there are plain differences.
        options: as in `make_delta`; `threads` and `max_memory` are those of one part,
            threads by default as many as the pool says, memory beside about 1,100 bytes for
            each tensor of base and target.

    Raises:
        ReleaseKitError: as `make_delta`; and if parts were lost too often, or found other
            inputs under the same paths.
    """
    started = time.monotonic()
    request = Request(base=base, target=target, out=out, **options)
    request = replace(request, threads=request.threads or pool.threads)
    with _job(request, Sharing.ALONE, piece_nbytes) as job:
        made = job.complete(pool, job.encode(pool), alone=True)
    return replace(made, seconds=time.monotonic() - started)


def make_share(
    base: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    share: Share,
    piece_nbytes: int = PIECE_NBYTES,
    **options: Unpack[Options],
) -> PartResult:
    """Do one of several shares of a release; `finish_make` does what remains then.

    Shares may be done at the same time, on machines that find inputs and output under the
    same paths, and again if one was stopped. Arguments are those of `make_spread`, and must
    be the same for all; and `share`, which is done here. A share signs nothing, and does
    not look at the key.

    Raises:
        ReleaseKitError: as `make_delta`.
    """
    started = time.monotonic()
    request = Request(base=base, target=target, out=out, **options)
    request = replace(request, sign_key=None, succession=None)
    with _job(request, Sharing.PARTS, piece_nbytes) as job:
        # Each kind by itself: a byte to code takes far longer than one to hash.
        mine = [*share.of(job.plan.encodes), *share.of(job.plan.hashes)]
        done = job.encode_share(mine)
        name = job.opened.order.maker.label.name
    return PartResult.of(
        Path(out), name, share, mine, done, seconds=time.monotonic() - started
    )


def finish_make(
    base: str | Path,
    target: str | Path,
    out: str | Path,
    *,
    piece_nbytes: int = PIECE_NBYTES,
    **options: Unpack[Options],
) -> MakeResult:
    """Make the release appear, once all shares are done; arguments as in `make_share`.

    Raises:
        ReleaseKitError: if some parts are not done, which it names; or as `make_delta`.
    """
    started = time.monotonic()
    request = Request(base=base, target=target, out=out, **options)
    with _job(request, Sharing.LAST, piece_nbytes) as job:
        job.require_encoded()
        made = job.complete(Here(), frozenset(), alone=False)
    return replace(made, seconds=time.monotonic() - started)


@contextmanager
def _job(request: Request, sharing: Sharing, piece_nbytes: int) -> Iterator[Job]:
    """The work, with its inputs looked over and its output open."""
    request = replace(request, progress=in_turn(request.progress))
    refuse_hub(request.base, *request.accept)
    check_device(request.device)  # whoever does a part has it, if not this machine
    inputs = (Path(request.base), Path(request.target))
    check_output(Path(request.out), force=request.force, inputs=inputs)
    with request.opened(Engine()) as opened:
        spec = _spec(request, opened)
        if sharing is Sharing.LAST:
            require_begun(spec.partial)
        with output_folder(
            Path(request.out),
            key=spec.key,
            force=request.force,
            inputs=opened.paths,
            sharing=sharing,
        ) as folder:
            yield Job(opened, spec, folder, piece_nbytes)


def _spec(request: Request, opened: Opened) -> Making:
    """What every part is told."""
    inputs, maker = opened.inputs, opened.order.maker
    seen = Sighting.of(inputs.base), Sighting.of(inputs.target)
    # Records of other inputs would be of no use, so these are other work.
    shaping = [maker.key(), *(asdict(one) for one in seen)]
    return Making(
        base=opened.base.shared,
        target=opened.target.shared,
        exclude=tuple(request.exclude),
        seen=seen,
        out=absolute(Path(request.out)),
        key=f"make in parts {sha256_hex(json.dumps(shaping).encode())}",
        codec=maker.codec,
        device=request.device,
        threads=request.threads,
        max_memory=request.max_memory,
    )
