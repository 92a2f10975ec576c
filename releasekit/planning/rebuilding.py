"""A rebuild as parts, from the headers of its releases: as `delta.spread` cuts it.

A part is a weight file; one larger than twice 4 GB is cut between tensors, into pieces of
about that size, which one part a file then joins. A piece is held against the digest of
each of its tensors, and goes through SHA-256 as well; a joined file once more.
"""

from __future__ import annotations

from collections.abc import Iterable

from releasekit.checkpoint import Checkpoint
from releasekit.delta.lineage import Line
from releasekit.delta.spread import PIECE_NBYTES
from releasekit.delta.weights import Piece, cut
from releasekit.manifest import WeightEntry
from releasekit.planning.model import Part, Phase
from releasekit.planning.rates import Rates
from releasekit.planning.wording import gb, rate
from releasekit.planning.work import REBUILD, Cost, Work, part
from releasekit.resources import WRITING, memory_of_headers, share_out


def rebuilding(
    line: Line,
    base: Checkpoint,
    rates: Rates,
    *,
    threads: int,
    max_memory: int,
    piece_nbytes: int = PIECE_NBYTES,
) -> Work:
    """What rebuilding the model of a line of releases takes.

    Args:
        line: the releases, open.
        base: what the first was made on, open.
        rates: of the machine.
        threads: of one part.
        max_memory: bytes of memory that one part may use, but for headers.
        piece_nbytes: bytes of a piece.

    Raises:
        UsageError: if `max_memory` is too little.
    """
    manifest = line.last.manifest
    entries = len(base.specs) + sum(
        len(r.manifest.base) + 2 * len(r.manifest.target) for r in line.releases
    )
    resources = share_out(
        line.rebuild(base).need(_kinds(line)),
        threads=threads,
        each=WRITING,
        max_memory=max_memory,
    )
    headers = memory_of_headers(entries)
    memory = resources.memory_nbytes + headers
    parts: list[Part] = []
    joins: list[Part] = []
    total = Cost()
    for entry in manifest.weights:
        pieces = _pieces(entry, piece_nbytes)
        for piece in pieces:
            cost, read, payload = _cost(line, piece)
            total += cost
            parts.append(
                part(
                    *(piece.entry.file.path, cost, rates),
                    base=read,
                    delta=payload,
                    written=piece.nbytes,
                )
            )
        if len(pieces) > 1:
            size = entry.file.size
            cost = Cost(sha256=size)
            total += cost
            joins.append(part(entry.file.path, cost, rates, again=size, written=size))
    pieced = sum(join.written for join in joins)
    return Work(
        kind=REBUILD,
        name=manifest.name,
        tensors=len(manifest.target),
        files=len(manifest.weights),
        shards=len(manifest.weights),
        largest=max((entry.file.size for entry in manifest.weights), default=0),
        phases=(
            Phase(
                name="rebuild",
                parts=tuple(parts),
                threads=threads,
                memory=memory,
                headers_seconds=entries / rates.headers,
            ),
            Phase(name="join", parts=tuple(joins), threads=1, memory=memory),
        ),
        entries=entries,
        chunk_memory=resources.memory_nbytes,
        header_memory=headers,
        base=sum(one.base for one in parts),
        target=0,
        delta=sum(one.delta for one in parts),
        output=manifest.rebuilt_nbytes,
        disk=manifest.rebuilt_nbytes + pieced,
        arithmetic=tuple(_arithmetic(total, rates, len(joins), pieced, piece_nbytes)),
    )


def _kinds(line: Line) -> Iterable[str]:
    """Tensors whose chunks need as much memory as those of all: one of each kind."""
    manifest = line.last.manifest
    if len(line.releases) > 1:
        return manifest.target  # what those before make of them may differ
    found = {}
    for name, spec in manifest.target.items():
        maker = manifest.operations[name].of or name
        source = manifest.predictor(maker)
        kind = source and (source.dtype, source.shape)
        op = manifest.operations[maker].op
        found[spec.dtype, spec.shape, kind, op] = name
    return found.values()


def _pieces(entry: WeightEntry, piece_nbytes: int) -> list[Piece]:
    size = entry.file.size
    return cut(entry, piece_nbytes if size > 2 * piece_nbytes else size)


def _cost(line: Line, piece: Piece) -> tuple[Cost, int, int]:
    """What a piece costs; bytes of base and releases that are read for it."""
    rebuilt = base = payload = 0
    layout = piece.entry.layout
    for placed in layout.tensors[piece.first : piece.last + 1]:
        name, nbytes = placed.spec.name, placed.spec.nbytes
        for release in reversed(line.releases):
            name = release.manifest.operations[name].of or name
            payload += release.published_nbytes(name)
            rebuilt += nbytes * release.manifest.operations[name].op.has_payload
            source = release.manifest.predictor(name)
            if source is None:
                break
        else:
            base += line.releases[0].manifest.base[name].spec.nbytes
    hashed = 0 if piece.is_whole else piece.nbytes
    return Cost(rebuilt=rebuilt, sha256=piece.nbytes, blake3=hashed), base, payload


def _arithmetic(
    total: Cost, rates: Rates, joins: int, pieced: int, piece_nbytes: int
) -> Iterable[tuple[str, str]]:
    if joins:
        yield (
            "pieces",
            f"{joins} files of more than 2 × {gb(piece_nbytes)} are cut, and joined: "
            f"{gb(pieced)} are written and read once more",
        )
    terms = [
        f"{gb(total.rebuilt)} ÷ {rate(rates.rebuild)} decoded",
        f"{gb(total.sha256)} ÷ {rate(rates.sha256)} SHA-256",
        *([f"{gb(total.blake3)} ÷ {rate(rates.blake3)} BLAKE3"] if total.blake3 else []),
    ]
    yield "processors", f"{' + '.join(terms)} = {total.core_seconds(rates):,.0f} core-s"
