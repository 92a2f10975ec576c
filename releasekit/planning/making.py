"""The making of a release as parts, from the headers of base and target.

A part is a weight file of the target: it is read with the base's tensors of the same names,
coded, and decoded again; digests are taken of target and base. Then one node puts the
payloads into the release's files, which it reads back, and hashes the base's files, which
the release names as what it was made from.

How small a delta is shows only once it is made, so its ratio is taken from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from releasekit.checkpoint import LaidOut, LaidOutFile, StoredCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.encode import need
from releasekit.delta.make import DEFAULT_SHARD_NBYTES
from releasekit.delta.plan import choose_op
from releasekit.operations import Op
from releasekit.planning.model import Part, Phase
from releasekit.planning.rates import Rates
from releasekit.planning.wording import gb, rate
from releasekit.planning.work import MAKE, Cost, Work, memory_of_headers, part
from releasekit.resources import share_out

#: Bytes of a delta by those of the tensors that it changes: 2.31 bits of 16, as measured of
#: a LLaMA-shaped bf16 model of 603 M weights after a random update.
DEFAULT_RATIO: Final = 0.144


def making(
    name: str,
    target: LaidOut,
    base: StoredCheckpoint,
    rates: Rates,
    *,
    ratio: float,
    threads: int,
    max_memory: int,
) -> Work:
    """What making a release takes.

    Args:
        name: of the target.
        target: what is released, open.
        base: what it is made on, open.
        rates: of the machine.
        ratio: bytes of payloads by those of the tensors that have a base.
        threads: of one part.
        max_memory: bytes of memory that one part may use, but for headers.

    Raises:
        UsageError: if `max_memory` is too little.
    """
    entries = len(target.specs) + len(base.specs)
    resources = share_out(need(base, target, Ulp()), threads=threads, max_memory=max_memory)
    headers = memory_of_headers(entries)
    memory = resources.memory_nbytes + headers
    total = Cost()
    parts: list[Part] = []
    for file in target.files:
        cost, read, payload = _cost(file, base, ratio)
        total += cost
        parts.append(
            part(
                *(file.name, cost, rates),
                entries=entries,
                base=read,
                target=file.layout.file_size,
                written=payload,
            )
        )
    delta = sum(one.written for one in parts)
    shards = max(1, -(-delta // DEFAULT_SHARD_NBYTES))
    each = -(-delta // shards)
    assembling = Cost(sha256=each)
    reading = Cost(blake3=each)
    base_nbytes = sum(base.file_sizes.values())
    for _ in range(shards):
        total += assembling + reading
    total += Cost(sha256=base_nbytes)
    return Work(
        kind=MAKE,
        name=name,
        tensors=len(target.specs),
        files=len(parts),
        shards=shards,
        largest=max((file.layout.file_size for file in target.files), default=0),
        phases=(
            Phase(name="encode", parts=tuple(parts), threads=threads, memory=memory),
            Phase(
                name="assemble",
                parts=(part("delta", assembling, rates, again=each, written=each),)
                * shards,
                threads=1,
                memory=memory,
                alone=True,
            ),
            Phase(
                name="read back",
                parts=(part("delta", reading, rates, again=each),) * shards,
                threads=1,
                memory=memory,
                alone=True,
            ),
            Phase(
                name="hash base",
                parts=tuple(
                    part(one, Cost(sha256=nbytes), rates, base=nbytes)
                    for one, nbytes in base.file_sizes.items()
                ),
                threads=1,
                memory=memory,
                alone=True,
            ),
        ),
        entries=entries,
        chunk_memory=resources.memory_nbytes,
        header_memory=headers,
        base=sum(one.base for one in parts),
        target=sum(one.target for one in parts),
        delta=delta,
        output=delta,
        disk=2 * delta,
        arithmetic=tuple(_arithmetic(total, rates, ratio, delta)),
    )


def _cost(file: LaidOutFile, base: StoredCheckpoint, ratio: float) -> tuple[Cost, int, int]:
    """What coding a file costs; bytes of the base that are read, and of its payloads."""
    read = known = new = 0
    for placed in file.layout.tensors:
        spec = placed.spec
        source = base.specs.get(spec.name)
        if source is None or choose_op(source, spec) is Op.NEW:
            new += spec.nbytes
        else:
            known += spec.nbytes
            read += source.nbytes
    nbytes = known + new
    cost = Cost(encoded=nbytes, sha256=file.layout.file_size, blake3=nbytes + read)
    return cost, read, round(ratio * known) + new


def _arithmetic(
    total: Cost, rates: Rates, ratio: float, delta: int
) -> Iterable[tuple[str, str]]:
    yield (
        "delta",
        f"{ratio:g} × the tensors that have a base, and all of the others = {gb(delta)}",
    )
    yield (
        "processors",
        f"{gb(total.encoded)} ÷ {rate(rates.encode)} coded and proved + "
        f"{gb(total.sha256)} ÷ {rate(rates.sha256)} SHA-256 + "
        f"{gb(total.blake3)} ÷ {rate(rates.blake3)} BLAKE3 = "
        f"{total.core_seconds(rates):,.0f} core-s",
    )
