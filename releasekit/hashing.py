"""Hash many files at once, with progress inside each, and an end as soon as asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Final

from releasekit.checkpoint.files import Coming, Readable
from releasekit.digest import pieces, sha256
from releasekit.pipeline import Workers
from releasekit.progress import Stage

_PIECE: Final = 1 << 20


def hash_files(
    folder: Path,
    names: Iterable[str],
    workers: Workers,
    stage: Stage,
    coming: Coming | None = None,
) -> Generator[tuple[str, str]]:
    """Yield each name with the SHA-256 of its file below `folder`, in order.

    Those in `coming` are elsewhere, and are read there.
    """

    def work(name: str, _: Any) -> str:
        path = folder / name
        file = coming.open(path) if coming is not None else None
        if file is None:
            return hash_one(path, workers, stage)
        return hash_readable(file, workers.check, stage.advance)

    return workers.in_order(work, names)


def hash_readable(
    file: Readable, check: Callable[[], None], advance: Callable[[int], None]
) -> str:
    """SHA-256 of a file that is read by range.

    Args:
        file: the file.
        check: called before each piece; raises to end it.
        advance: told how many bytes were read.
    """
    hasher = sha256()
    for start in range(0, file.size, _PIECE):
        check()
        piece = file.read(start, min(_PIECE, file.size - start))
        hasher.update(piece)
        advance(len(piece))
    return hasher.hexdigest()


def hash_one(path: Path, workers: Workers, stage: Stage) -> str:
    """SHA-256 of one file, taken in a worker's thread."""
    hasher = sha256()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file):
            workers.check()
            hasher.update(piece)
            stage.advance(len(piece))
    return hasher.hexdigest()
