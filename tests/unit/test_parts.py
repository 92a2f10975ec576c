"""Shares of some work, and the records of what is done."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasekit.errors import ReleaseKitError, UsageError
from releasekit.output import OutputFolder, Sharing
from releasekit.parts.cluster import Cluster
from releasekit.parts.engines import pool_of
from releasekit.parts.records import Done, Records
from releasekit.parts.split import Share
from releasekit.parts.tasks import Task, as_progress, perform, reports
from releasekit.progress import Stage

sizes = st.lists(st.integers(0, 1000), max_size=40)


@given(sizes, st.integers(1, 9))
def test_every_part_is_in_one_share(sizes: list[int], count: int) -> None:
    tasks = [Task(name=f"part {i}", nbytes=n) for i, n in enumerate(sizes)]
    shares = [Share(number, count).of(tasks) for number in range(1, count + 1)]
    assert sorted(t.name for share in shares for t in share) == sorted(
        t.name for t in tasks
    )
    for share in shares:
        assert share == [task for task in tasks if task in share]  # in their order
    loads = [sum(task.nbytes for task in share) for share in shares]
    # Whoever has most had least when the last and smallest of theirs was given out.
    largest = max(loads)
    last = min((t.nbytes for t in shares[loads.index(largest)]), default=0)
    assert largest - last <= sum(loads) / count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "0/3",
        "4/3",
        "1/0",
        "-1/3",
        "1/3/3",
        "01/3",
        "a/b",
        "1/1000000",
        "1\u0663/99",
    ],
)
def test_a_share_is_written_so_or_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Share.parse(text)
    assert str(caught.value) == (
        f"--shard {text}: expected i/n, the i-th of n shares, such as 1/8 to 8/8"
    )


def test_a_share_is_read() -> None:
    assert Share.parse("2/8") == Share(2, 8)
    assert str(Share(2, 8)) == "2/8"


@pytest.mark.parametrize("engine", ["", "dask", "ray:", "Ray", "local:1", "ray2"])
def test_other_engines_are_refused(engine: str) -> None:
    with pytest.raises(UsageError, match="expected local, ray, or ray:ADDRESS"):
        pool_of(engine)


def test_engines_are_told_apart() -> None:
    with pool_of("local") as pool:
        assert pool is None
    assert isinstance(pool_of("ray"), Cluster)
    assert isinstance(pool_of("ray:10.0.0.1:6379"), Cluster)


DONE = Done(name="größe/a: joined", nbytes=5, seconds=0.25, worker="h:1", facts={"a": [1]})


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert records.read() == {}
    records.note(DONE)
    records.note(DONE)  # whoever did the same part notes it, too
    assert Records(tmp_path).read() == {DONE.name: DONE}
    assert len(list((tmp_path / "parts").iterdir())) == 1
    records.forget(DONE.name)
    records.forget(DONE.name)
    assert records.read() == {}


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"{}", b'{"name": 1}', b"\xff", b'{"name": "a", "name": "b"}'],
)
def test_what_is_no_record_is_not_done(tmp_path: Path, damage: bytes) -> None:
    records = Records(tmp_path)
    records.note(DONE)
    (path,) = (tmp_path / "parts").iterdir()
    path.write_bytes(damage)
    assert records.read() == {}


def test_links_are_no_records(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.note(DONE)
    (path,) = (tmp_path / "parts").iterdir()
    elsewhere = tmp_path / "elsewhere.json"
    os.replace(path, elsewhere)
    path.symlink_to(elsewhere)
    assert records.read() == {}


class Writing:
    """What a part is told that writes its name."""

    def __init__(self, partial: Path | None) -> None:
        self.partial = partial


def test_a_part_is_done_and_noted(tmp_path: Path) -> None:
    told: list[int] = []

    def work(spec: Writing, task: Task, advance: object) -> dict[str, object]:
        as_progress(told.append)  # a stage of its own tells bytes since the last time
        stage = Stage(as_progress(told.append), "work", 10)
        stage.advance(4)
        stage.advance(6)
        return {"name": task.name}

    done = perform(work, Writing(tmp_path), Task(name="a", nbytes=10), told.append)
    assert told == [4, 6]
    assert Records(tmp_path).read() == {"a": done}
    assert done.facts == {"name": "a"}
    unwritten = perform(work, Writing(None), Task(name="b", nbytes=1), told.append)
    assert Records(tmp_path).read().keys() == {"a"}
    (report,) = reports([done, unwritten])
    assert (report.parts, report.nbytes) == (2, 11)


def test_processes_that_do_parts_have_a_folder_in_common(tmp_path: Path) -> None:
    out = tmp_path / "out"
    parts = Sharing.PARTS
    with (
        OutputFolder(out, key="a", sharing=parts) as one,
        OutputFolder(out, key="a", sharing=parts) as other,
    ):
        assert one.unfinished("w") == other.unfinished("w")  # of one thread
        with pytest.raises(ReleaseKitError, match="another run is writing to it"):
            OutputFolder(out, key="a")
        with pytest.raises(UsageError, match="holds other work"):
            OutputFolder(out, key="b", sharing=parts)
        assert json.loads((one.partial / "state.json").read_bytes()) == {"work": "a"}
    with OutputFolder(out, key="a") as alone:
        assert alone.reused
        with pytest.raises(ReleaseKitError, match="another run is writing to it"):
            OutputFolder(out, key="a", sharing=parts)
        with OutputFolder(out, key="a", sharing=Sharing.GUEST) as guest:
            assert guest.unfinished("w") != alone.unfinished("w")
            guest.write("deep/w", b"made")
        with pytest.raises(ReleaseKitError, match="is not the folder of this work"):
            OutputFolder(out, key="b", sharing=Sharing.GUEST)
        alone.commit()
    assert (out / "deep" / "w").read_bytes() == b"made"
    with pytest.raises(ReleaseKitError, match="is not the folder of this work"):
        OutputFolder(out, key="a", sharing=Sharing.GUEST)


def test_a_folder_in_common_is_no_link(tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "new").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a link"):
        OutputFolder(tmp_path / "out", key="a", sharing=Sharing.PARTS)
