"""Hash many files at once, with progress inside each, and an end as soon as asked."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from releasekit.digest import pieces, sha256
from releasekit.pipeline import Workers
from releasekit.progress import Stage


def hash_files(
    folder: Path, names: Iterable[str], workers: Workers, stage: Stage
) -> Generator[tuple[str, str]]:
    """Yield each name with the SHA-256 of its file below `folder`, in order."""

    def work(name: str, _: Any) -> str:
        hasher = sha256()
        with (folder / name).open("rb", buffering=0) as file:
            for piece in pieces(file):
                workers.check()
                hasher.update(piece)
                stage.advance(len(piece))
        return hasher.hexdigest()

    return workers.in_order(work, names)
