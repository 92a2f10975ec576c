"""A model that is rebuilt in parts: as shares of an array job, and by a Ray cluster."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import releasekit
from releasekit.delta import spread
from releasekit.errors import BaseMismatchError, IntegrityError, ReleaseKitError
from releasekit.output import OutputFolder
from releasekit.parts.shares import PartResult
from releasekit.parts.split import Share
from releasekit.parts.tasks import Here, Task
from tests.builders import model_folder
from tests.integration.test_lineage import Line, make_line
from tests.integration.tools import digests, good, here, weights
from tests.integration.tools import releasekit as run

SMALL = 4000  # bytes of a part: every weight file is cut


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    return make_line(tmp_path_factory.mktemp("line"), *[1 << 12] * 3)


def share(line: Line, out: Path, number: int, count: int) -> PartResult:
    return spread.apply_share(
        line.base, line.releases, out, share=Share(number, count), piece_nbytes=SMALL
    )


def finish(line: Line, out: Path) -> releasekit.ApplyResult:
    return spread.finish_apply(line.base, line.releases, out, piece_nbytes=SMALL)


@pytest.mark.parametrize("piece", [1, SMALL, 1 << 30])
def test_parts_of_any_size_make_the_same(line: Line, tmp_path: Path, piece: int) -> None:
    made = spread.apply_spread(
        line.base, line.releases, tmp_path / "out", pool=Here(), piece_nbytes=piece
    )
    assert digests(tmp_path / "out") == digests(line.models[2])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (worker,) = made.workers
    assert worker.nbytes >= sum(
        p.stat().st_size for p in line.models[2].glob("*.safetensors")
    )


def test_shares_in_whatever_order_and_again(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names: list[str] = []
    for number in (3, 1, 2):
        names += share(line, out, number, 3).parts
    assert len(names) == len(set(names)) >= 3
    again = share(line, out, 1, 3)
    assert (again.parts, again.nbytes) == ((), 0)
    assert set(again.kept) <= set(names)
    assert not out.exists()
    made = finish(line, out)
    assert digests(out) == digests(line.models[2])
    assert made.identity == releasekit.identify(line.models[2]).identity
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_missing_is_named(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(releasekit.UsageError, match="do all shares first"):
        finish(line, out)
    share(line, out, 1, 2)
    with pytest.raises(ReleaseKitError) as caught:
        finish(line, out)
    assert "parts are not done: " in str(caught.value)
    assert "what is done is kept" in str(caught.value)
    assert not out.exists()
    share(line, out, 2, 2)
    finish(line, out)
    assert digests(out) == digests(line.models[2])


def test_a_part_whose_file_is_gone_is_done_again(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    share(line, out, 1, 1)
    (piece, *_) = sorted((tmp_path / "out.partial").glob("*.piece"))
    piece.write_bytes(piece.read_bytes()[:-1])
    assert len(share(line, out, 1, 1).parts) == 1
    finish(line, out)
    assert digests(out) == digests(line.models[2])


def test_a_piece_that_changed_is_noticed_and_made_again(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    share(line, out, 1, 1)
    (piece, *_) = sorted((tmp_path / "out.partial").glob("*.piece"))
    data = bytearray(piece.read_bytes())
    data[-1] ^= 1
    piece.write_bytes(data)
    with pytest.raises(IntegrityError, match="though every tensor was right"):
        finish(line, out)
    assert not out.exists()
    assert share(line, out, 1, 1).parts
    finish(line, out)
    assert digests(out) == digests(line.models[2])


def test_local_work_goes_on_with_files_that_shares_made(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    spread.apply_share(line.base, line.releases, out, share=Share(1, 2))
    made = releasekit.apply_delta(line.base, line.releases, out)
    assert len(made.kept) == 1
    assert digests(out) == digests(line.models[2])


def test_shares_of_other_work_do_not_meet(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    share(line, out, 1, 2)
    with pytest.raises(releasekit.UsageError, match="holds other work"):
        spread.apply_share(line.models[0], line.releases[1], out, share=Share(2, 2))


def test_a_machine_that_sees_something_else_is_told(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    release = line.releases[0]
    key = json.loads((release / "release.json").read_bytes())["target"]["identity"]
    spec = spread.Rebuilding(
        base=line.base,
        releases=((release, key),),
        out=out,
        key="apply x",
        device="auto",
        threads=1,
        max_memory=1 << 30,
    )
    task = Task(name="model.safetensors", nbytes=1)
    with pytest.raises(ReleaseKitError, match="is not the folder of this work"):
        spread.rebuild_part(spec, task, lambda nbytes: None)
    with OutputFolder(out, key="apply x"):
        with pytest.raises(IntegrityError, match="same release under this path"):  # noqa: SIM117
            with spec.opened():
                pass
        digest = digests(release)["release.json"]
        other = model_folder(
            tmp_path / "other",
            {"embed.weight": weights(np.random.default_rng(3), "BF16", 50, 64)},
        )
        right = spread.Rebuilding(
            base=other,
            releases=((release, digest),),
            out=out,
            key="apply x",
            device="auto",
            threads=1,
            max_memory=1 << 30,
        )
        with pytest.raises(BaseMismatchError):
            spread.rebuild_part(right, task, lambda nbytes: None)


def test_the_command_does_shares(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked: tuple[str | Path, ...] = (
        "apply-delta",
        "--base",
        line.base,
        *line.deltas(0, 1, 2),
        "--out",
        out,
    )
    first = good(*asked, "--shard", "1/2", "--json").json
    assert first["share"] == "1/2"
    assert len(first["parts"]) == 1
    shown = good(*asked, "--shard", "2/2").stdout
    assert "--finish instead of --shard" in shown
    done = good(*asked, "--finish", "--json").json
    assert len(done["workers"]) == 1
    assert digests(out) == digests(line.models[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "1/2", "--finish"), "--shard and --finish: give one of them"),
        (
            ("--engine", "ray", "--shard", "1/2"),
            "--engine ray and --shard: give one of them",
        ),
        (("--finish", "--dry-run"), "--finish and --dry-run: give one of them"),
        (("--engine", "dask"), "expected local, ray, or ray:ADDRESS"),
        (("--shard", "3/2"), "expected i/n"),
    ],
)
def test_what_does_not_go_together_is_refused(
    line: Line, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    asked: tuple[str | Path, ...] = (
        "--base",
        line.base,
        *line.deltas(0),
        "--out",
        tmp_path / "out",
    )
    done = here("apply-delta", *asked, *options)
    assert done.code == 2
    assert message in done.error
    assert list(tmp_path.iterdir()) == []


def test_models_on_the_hub_are_to_be_fetched_first(line: Line, tmp_path: Path) -> None:
    asked: tuple[str | Path, ...] = (
        "--delta",
        line.releases[0],
        "--out",
        tmp_path / "out",
        "--shard",
        "1/2",
    )
    done = here("apply-delta", "--base", "org/base", *asked)
    assert done.code == 2
    assert "releasekit fetch org/base --out FOLDER" in done.error


def test_ray_rebuilds_the_same(line: Line, tmp_path: Path) -> None:
    # In a process of its own: Ray leaves threads behind in one that had a cluster.
    out = tmp_path / "out"
    asked: tuple[str | Path, ...] = ("--base", line.base, *line.deltas(0, 1, 2))
    how = ("--out", out, "--engine", "ray", "--threads", "1", "--json")
    done = run("apply-delta", *asked, *how)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(line.models[2])
    assert sum(worker["parts"] for worker in json.loads(done.stdout)["workers"]) == 2


def test_without_ray_one_is_told_to_install_it(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    asked: tuple[str | Path, ...] = (
        "--base",
        line.base,
        *line.deltas(0),
        "--out",
        tmp_path / "out",
    )
    done = here("apply-delta", *asked, "--engine", "ray")
    assert done.code == 2
    assert done.error == (
        "--engine ray: Ray is not installed here: pip install 'releasekit[ray]'"
    )


def test_a_damaged_release_is_told_by_the_share_that_has_it(
    line: Line, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    shutil.copytree(line.releases[0], release)
    (shard,) = release.glob("delta-*.safetensors")
    data = bytearray(shard.read_bytes())
    for at in range(len(data) // 2, len(data), 50):
        data[at] ^= 0x41
    shard.write_bytes(data)
    done = here(
        *("apply-delta", "--base", line.base, "--delta", release),
        *("--out", tmp_path / "out", "--shard", "1/1"),
    )
    assert done.code == 5
    assert str(shard) in done.error
