"""Hash many files at once, with progress inside each, and an end as soon as asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Final

from releasekit.checkpoint.files import Coming
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
        return hash_one(folder / name, workers.check, stage.advance, coming)

    return workers.in_order(work, names)


def hash_one(
    path: Path,
    check: Callable[[], None],
    advance: Callable[[int], None],
    coming: Coming | None = None,
) -> str:
    """SHA-256 of one file.

    Args:
        path: where it is, or would be.
        check: called before each piece; raises to end it.
        advance: told how many bytes were read.
        coming: files that are elsewhere, and are read there; None if there are none.
    """
    stored = coming.open(path) if coming is not None else None
    hasher = sha256()
    if stored is not None:
        for start in range(0, stored.size, _PIECE):
            check()
            data = stored.read(start, min(_PIECE, stored.size - start))
            hasher.update(data)
            advance(len(data))
        return hasher.hexdigest()
    with path.open("rb", buffering=0) as file:
        for piece in pieces(file):
            check()
            hasher.update(piece)
            advance(len(piece))
    return hasher.hexdigest()
