"""The making of a release as parts, from the headers of base and target.

As `delta.making.parts` has them: a weight file of the target, or some tensors of a large
one, is read with the base's tensors of the same names, coded, and decoded again; digests
are taken of target and base. A file that is cut is hashed as a whole by a part of its own,
and so are base tensors that no operation reads, and the base's files, which the release
names as what it was made from. Then payloads are put into the release's files, and these
are read back.

How small a delta is shows only once it is made, so its ratio is taken from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from releasekit.checkpoint import LaidOut, StoredCheckpoint
from releasekit.codec import Ulp
from releasekit.delta.making.encode import need
from releasekit.delta.making.make import DEFAULT_SHARD_NBYTES
from releasekit.delta.making.pieces import pieces, runs, unread
from releasekit.delta.making.plan import choose_op
from releasekit.delta.spread import PIECE_NBYTES
from releasekit.operations import Op
from releasekit.planning.model import Part, Phase
from releasekit.planning.rates import Rates
from releasekit.planning.wording import gb, rate
from releasekit.planning.work import MAKE, Cost, Work, part
from releasekit.resources import memory_of_headers, share_out
from releasekit.tensors import TensorSpec

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
    piece_nbytes: int = PIECE_NBYTES,
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
        piece_nbytes: bytes of a file that one part codes, if it is cut.

    Raises:
        UsageError: if `max_memory` is too little.
    """
    entries = len(target.specs) + len(base.specs)
    resources = share_out(
        need(base, target.specs.values(), Ulp()), threads=threads, max_memory=max_memory
    )
    headers = memory_of_headers(entries)
    memory = resources.memory_nbytes + headers
    total = Cost()
    encodes: list[Part] = []
    for file in target.files:
        for some in pieces(file, piece_nbytes):
            specs = [one.spec for one in file.layout.tensors[some.start : some.stop]]
            cost, read, payload = _cost(specs, base, ratio)
            nbytes = sum(spec.nbytes for spec in specs)
            total += cost
            encodes.append(
                part(*(file.name, cost, rates), base=read, target=nbytes, written=payload)
            )
    hashes = []
    for one, cost, nbytes, of_base in _hashes(target, base, piece_nbytes):
        total += cost
        from_base, from_target = (nbytes, 0) if of_base else (0, nbytes)
        hashes.append(part(*(one, cost, rates), base=from_base, target=from_target))
    delta = sum(one.written for one in encodes)
    shards = max(1, -(-delta // DEFAULT_SHARD_NBYTES))
    each = -(-delta // shards)
    assembling = Cost(sha256=each, blake3=each)
    reading = Cost(blake3=each)
    for _ in range(shards):
        total += assembling + reading
    opening = entries / rates.headers
    return Work(
        kind=MAKE,
        name=name,
        tensors=len(target.specs),
        files=len(target.files),
        shards=shards,
        largest=max((file.layout.file_size for file in target.files), default=0),
        phases=(
            Phase(
                name="encode",
                parts=tuple(encodes),
                threads=threads,
                memory=memory,
                headers_seconds=opening,
            ),
            Phase(
                name="hash",
                parts=tuple(hashes),
                threads=1,
                memory=memory,
                headers_seconds=opening,
            ),
            Phase(
                name="assemble",
                parts=(part("delta", assembling, rates, again=each, written=each),)
                * shards,
                threads=1,
                memory=memory,
            ),
            Phase(
                name="read back",
                parts=(part("delta", reading, rates, again=each),) * shards,
                threads=1,
                memory=memory,
            ),
        ),
        entries=entries,
        chunk_memory=resources.memory_nbytes,
        header_memory=headers,
        base=sum(one.base for one in encodes),
        target=sum(one.target for one in encodes),
        delta=delta,
        output=delta,
        disk=2 * delta,
        arithmetic=tuple(_arithmetic(total, rates, ratio, delta)),
    )


def _cost(
    specs: Iterable[TensorSpec], base: StoredCheckpoint, ratio: float
) -> tuple[Cost, int, int]:
    """What coding tensors costs; bytes of the base that are read, and of payloads."""
    read = known = new = 0
    for spec in specs:
        source = base.specs.get(spec.name)
        if source is None or choose_op(source, spec) is Op.NEW:
            new += spec.nbytes
        else:
            known += spec.nbytes
            read += source.nbytes
    nbytes = known + new
    cost = Cost(encoded=nbytes, sha256=nbytes, blake3=nbytes + read)
    return cost, read, round(ratio * known) + new


def _hashes(
    target: LaidOut, base: StoredCheckpoint, piece_nbytes: int
) -> Iterator[tuple[str, Cost, int, bool]]:
    """Parts that hash: what, what it costs, its bytes, and whether these are the base's."""
    for file in target.files:
        if len(pieces(file, piece_nbytes)) > 1:
            nbytes = file.layout.file_size
            yield file.name, Cost(sha256=nbytes, blake3=nbytes), nbytes, False
    names = unread(base.specs, target.specs, {})
    sizes = [base.specs[name].nbytes for name in names]
    for some in runs(sizes, piece_nbytes):
        nbytes = sum(sizes[some.start : some.stop])
        yield "tensors of the base", Cost(blake3=nbytes), nbytes, True
    for name, nbytes in base.file_sizes.items():
        yield name, Cost(sha256=nbytes), nbytes, True


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
