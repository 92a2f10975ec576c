"""Digests of the files that go into a release, here or in object storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from releasekit.checkpoint.files import Coming, Opener
from releasekit.digest import sha256
from releasekit.pipeline import Workers
from releasekit.progress import Stage

_READ: Final = 1 << 20  # bytes at once, few enough to be hashed out of a cache


def hash_source(
    path: Path,
    coming: Coming | None,
    advance: Callable[[int], None],
    check: Callable[[], None] = lambda: None,
) -> str:
    """SHA-256 of a file.

    Args:
        path: where it is, or would be.
        coming: files that are elsewhere; None if there are none.
        advance: called with the bytes that were read.
        check: called now and then; raises to end the work.
    """
    hasher = sha256()
    with ExitStack() as stack:
        file = Opener(kept=stack, coming=coming).open(path)
        buffer = np.empty(min(_READ, file.size), np.uint8)
        for at in range(0, file.size, _READ):
            check()
            piece = buffer[: file.size - at]
            file.read_into(at, piece)
            hasher.update(piece.data)
            advance(piece.size)
    return hasher.hexdigest()


def hash_sources(
    coming: Coming, folder: Path, names: Iterable[str], workers: Workers, stage: Stage
) -> Iterator[tuple[str, str]]:
    """As `hash_files`, for a folder some of whose files are elsewhere."""

    def work(name: str, _: object) -> str:
        return hash_source(folder / name, coming, stage.advance, workers.check)

    return workers.in_order(work, names)
