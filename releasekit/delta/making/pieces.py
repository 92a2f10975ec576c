"""Which parts a release in the making has that read its inputs, from headers alone.

A part codes a file of the target, or some tensors of a large one; what nobody reads for
that is hashed by parts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from releasekit.checkpoint import LaidOutFile
from releasekit.delta.making.parts import (
    EncodePart,
    HashBasePart,
    HashFilePart,
    HashFoundPart,
)
from releasekit.delta.making.plan import choose_op
from releasekit.delta.making.request import Opened
from releasekit.delta.notary import TARGET
from releasekit.operations import Op
from releasekit.parts.tasks import Task
from releasekit.tensors import TensorSpec

Specs = Mapping[str, TensorSpec]


class Plan:
    """The parts that read the inputs.

    Attributes:
        files: parts that code tensors, by the target's files.
        wholes: parts that hash the files that several parts code, by the files.
        bases: parts that hash tensors of the base that no operation reads.
        sources: parts that hash the base's files for the provenance, by these.
    """

    def __init__(
        self, opened: Opened, aliases: Mapping[str, str], piece_nbytes: int
    ) -> None:
        """Find the parts.

        Args:
            opened: what is to be made.
            aliases: target tensors whose bytes another one has.
            piece_nbytes: bytes of a file that one part codes, at least; files more than
                twice as large are cut.
        """
        # A file of plain differences is written from its first byte to its last.
        whole = opened.order.maker.codec.plain
        self.files = {
            file.name: _encodes(file, aliases, None if whole else piece_nbytes)
            for file in opened.inputs.target.files
        }
        self.wholes = {
            file.name: Task(
                name=f"hash target file {file.name}",
                nbytes=file.layout.file_size,
                detail=HashFilePart(file=file.name),
            )
            for file in opened.inputs.target.files
            if len(self.files[file.name]) > 1
        }
        self.bases = list(_bases(opened, aliases, piece_nbytes))
        self.sources = dict(_sources(opened))

    @property
    def encodes(self) -> list[Task]:
        """Parts that code tensors, in the order of the target's files."""
        return [task for tasks in self.files.values() for task in tasks]

    @property
    def hashes(self) -> list[Task]:
        """All other parts."""
        return [*self.wholes.values(), *self.bases, *self.sources.values()]

    @property
    def parts(self) -> list[Task]:
        """All of them."""
        return [*self.encodes, *self.hashes]


def runs(sizes: Sequence[int], nbytes: int) -> Iterator[range]:
    """Cut things in a row into runs of about so many bytes or more; none if there are none.

    Yields:
        The indices of each.
    """
    first, size = 0, 0
    for index, one in enumerate(sizes):
        size += one
        if size >= nbytes or index == len(sizes) - 1:
            yield range(first, index + 1)
            first, size = index + 1, 0


def pieces(file: LaidOutFile, piece_nbytes: int | None) -> list[range]:
    """Indices of the tensors that each part of a file codes.

    Args:
        file: the file.
        piece_nbytes: as for `Plan`; None if the file must not be cut.
    """
    sizes = [placed.spec.nbytes for placed in file.layout.tensors]
    whole = [range(len(sizes))]
    if piece_nbytes is None or file.layout.file_size <= 2 * piece_nbytes:
        return whole
    return list(runs(sizes, piece_nbytes)) or whole


def unread(base: Specs, target: Specs, aliases: Mapping[str, str]) -> list[str]:
    """Tensors of the base that no operation reads."""
    return [
        name
        for name, spec in base.items()
        if name in aliases or name not in target or choose_op(spec, target[name]) is Op.NEW
    ]


def _encodes(
    file: LaidOutFile, aliases: Mapping[str, str], piece_nbytes: int | None
) -> list[Task]:
    """The parts that code a file."""
    names = [placed.spec.name for placed in file.layout.tensors]
    sizes = [placed.spec.nbytes for placed in file.layout.tensors]
    ranges = pieces(file, piece_nbytes)
    found = []
    for some in ranges:
        part = EncodePart(
            file=file.name,
            first=some.start,
            tensors=tuple(names[some.start : some.stop]),
            whole=len(ranges) == 1,
            aliases=tuple(
                (names[index], aliases[names[index]])
                for index in some
                if names[index] in aliases
            ),
        )
        nbytes = sum(sizes[some.start : some.stop])
        found.append(Task(name=part.name, nbytes=nbytes, detail=part))
    return found


def _bases(opened: Opened, aliases: Mapping[str, str], piece_nbytes: int) -> Iterator[Task]:
    base = opened.inputs.base.specs
    names = unread(base, opened.inputs.target.specs, aliases)
    sizes = [base[name].nbytes for name in names]
    for some in runs(sizes, piece_nbytes):
        yield Task(
            name=f"hash base tensors {some.start} to {some.stop - 1}",
            nbytes=sum(sizes[some.start : some.stop]),
            detail=HashBasePart(tensors=tuple(names[some.start : some.stop])),
        )


def _sources(opened: Opened) -> Iterator[tuple[str, Task]]:
    """A task for each file of the base, and the file."""
    for source in opened.order.maker.notary.sources:
        if source.role == TARGET:
            continue  # whoever codes a file of the target hashes it
        for name in source.files:
            task = Task(
                name=f"hash {source.role} file {name}",
                nbytes=source.size(name),
                detail=HashFoundPart(file=name),
            )
            yield f"{source.role}/{name}", task
