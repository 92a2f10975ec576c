"""SHA-256 of files that several works ask for: each taken once, by whoever is there."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from releasekit.delta.making.once import FileDigests
from releasekit.errors import IntegrityError
from releasekit.pipeline import Workers
from releasekit.progress import Progress, Stage

NAMES = ["a", "b", "c", "d"]
SIZE = 3 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode() * SIZE)
    return tmp_path


class Pieces:
    """Counts the bytes that are told of as hashed, piece by piece."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.done = 0

    def __call__(self, progress: Progress) -> None:
        step, self.done = progress.done - self.done, progress.done
        if step <= 1 << 20:  # another's file is told of as a whole
            self.nbytes += step


def ask(digests: FileDigests, folder: Path, pieces: Pieces) -> dict[str, str]:
    with Workers(2) as workers:
        stage = Stage(pieces, "hash inputs", len(NAMES) * SIZE)
        found = dict(digests.hash_files(folder, NAMES, workers, stage))
    assert pieces.done == len(NAMES) * SIZE
    return found


def test_each_file_is_hashed_once_for_all(folder: Path) -> None:
    digests = FileDigests(folder / name for name in NAMES)
    counts = [Pieces() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda count: ask(digests, folder, count), counts))
    right = {n: hashlib.sha256(n.encode() * SIZE).hexdigest() for n in NAMES}
    assert found == [right] * 3
    assert ask(digests, folder, last := Pieces()) == right
    assert sum(count.nbytes for count in counts) == len(NAMES) * SIZE
    assert last.nbytes == 0


def test_a_file_that_somebody_left_half_done_is_hashed_by_the_next(folder: Path) -> None:
    digests = FileDigests(folder / name for name in NAMES)

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done:
            raise StopError

    with pytest.raises(StopError), Workers(1) as workers:
        list(digests.hash_files(folder, NAMES, workers, Stage(stop, "", 0)))
    pieces = Pieces()
    assert ask(digests, folder, pieces)["a"] == hashlib.sha256(b"a" * SIZE).hexdigest()
    assert pieces.nbytes == len(NAMES) * SIZE


def test_one_that_waits_takes_over_from_one_that_stops(folder: Path) -> None:
    digests = FileDigests([folder / "a"])

    class StopError(Exception):
        pass

    with ThreadPoolExecutor(1) as pool, Workers(1) as workers, Workers(1) as others:
        waiting: list[Future[dict[str, str]]] = []

        def stop(progress: Progress) -> None:
            if progress.done and not waiting:
                stage = Stage(None, "", 0)
                hashing = digests.hash_files(folder, ["a"], others, stage)
                waiting.append(pool.submit(dict, hashing))
                raise StopError

        with pytest.raises(StopError):
            list(digests.hash_files(folder, ["a"], workers, Stage(stop, "", 0)))
        assert waiting[0].result() == {"a": hashlib.sha256(b"a" * SIZE).hexdigest()}


def test_a_file_that_has_changed_is_refused(folder: Path) -> None:
    digests = FileDigests(folder / name for name in NAMES)
    (folder / "b").write_bytes(b"another")
    with pytest.raises(IntegrityError) as caught, Workers(1) as workers:
        list(digests.hash_files(folder, NAMES, workers, Stage(None, "", 0)))
    assert str(caught.value) == (
        f"{folder}/b: was changed while releases were made on it: run again once nothing "
        "changes it"
    )


def test_a_file_that_is_not_there_is_told_to_all(folder: Path) -> None:
    digests = FileDigests([])
    for _ in range(2):
        with pytest.raises(FileNotFoundError), Workers(1) as workers:
            list(digests.hash_files(folder, ["gone"], workers, Stage(None, "", 0)))
