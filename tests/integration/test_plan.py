"""`releasekit plan`: what a release takes, from headers alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from releasekit import Machine, Policy, measure, plan, plan_apply
from releasekit.delta.spread import PIECE_NBYTES
from releasekit.errors import BaseMismatchError, UsageError
from releasekit.planning.rates import BUILT_IN, load, save
from releasekit.tensors import DType, TensorSpec
from scripts.planning import against_a_run, table
from scripts.planning.headers import write_model, write_release
from scripts.planning.models import Model, models
from tests.builders import model_folder
from tests.fakehub import FakeHub
from tests.integration.tools import (
    COMMAND,
    good,
    here,
    measured_briefly,
    sharded_pair,
    small_pair,
)

README = Path(__file__).parents[2] / "README.md"
QUIET = Policy(warn=lambda warning: None)
FOUR = Machine(cpus=8, memory=64 << 30)
#: What one process may have in memory at any time while it plans the largest model.
LIMIT = 512 << 20


@pytest.fixture(autouse=True)
def _no_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was measured here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BASE, TARGET and DELTA, in several files."""
    folder = tmp_path_factory.mktemp("pair")
    base, target = sharded_pair(folder, np.random.default_rng(0), (64, 64))
    good("make-delta", "--base", base, "--target", target, "--out", folder / "delta")
    return folder


def large(folder: Path, *, changed: bool = True) -> tuple[Path, Path]:
    """A base and a release of one file of 12 GB and one of 1 GB, of headers only."""
    specs = [
        *(
            TensorSpec(name=f"layer.{n}", dtype=DType.BF16, shape=(1_000_000, 1000))
            for n in range(6)
        ),
        TensorSpec(name="norm", dtype=DType.BF16, shape=(500_000, 1000)),
    ]
    files = write_model(folder / "base", specs, 12_000_000_000)
    write_release(
        *(folder / "delta", specs, files, 0.5),
        changed=lambda name: changed or name == "norm",
    )
    return folder / "base", folder / "delta"


def test_a_rebuild_is_told_in_the_bytes_that_it_reads_and_writes(pair: Path) -> None:
    found = plan(pair / "base", delta=pair / "delta", nodes=(1, 2), policy=QUIET)
    said = plan_apply(pair / "base", pair / "delta", pair / "out", policy=QUIET)
    weights = sum(path.stat().st_size for path in (pair / "target").glob("*.safetensors"))
    payloads = sum(
        path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
        for path in (pair / "delta").glob("*.safetensors")
    )
    work = found.work
    assert (work.kind, work.parts, work.shards, work.tensors) == ("rebuild", 4, 4, 16)
    assert work.base == said.base_nbytes
    assert work.delta == payloads
    assert work.output == work.disk == said.write_nbytes
    one, two = (estimate.phases[0].node_read for estimate in found.estimates)
    assert one == work.base + work.delta
    assert one / 2 <= two < one * 0.51
    assert sum(part.written for part in work.phases[0].parts) == weights
    assert found.ratio is None


def test_large_files_are_cut_and_joined(tmp_path: Path) -> None:
    base, delta = large(tmp_path)
    work = plan(base, delta=delta, machine=FOUR, policy=QUIET).work
    rebuild, join = work.phases
    # Two tensors make 4 GB: three pieces of the file of 12 GB, and the other file.
    assert 2 * PIECE_NBYTES < 12_000_000_000
    assert [round(part.written / 1e9) for part in rebuild.parts] == [4, 4, 4, 1]
    (whole,) = join.parts
    assert whole.again == whole.written == work.largest
    assert work.disk == work.output + whole.written
    assert work.arithmetic[0] == (
        "pieces",
        "1 files of more than 2 × 4 GB are cut, and joined: 12 GB are written and read "
        "once more",
    )
    assert "12 GB ÷ 3 GB/s BLAKE3" in work.arithmetic[1][1]


def test_tensors_that_stay_as_they_are_cost_no_decoding(tmp_path: Path) -> None:
    base, delta = large(tmp_path, changed=False)
    work = plan(base, delta=delta, machine=FOUR, policy=QUIET).work
    assert work.delta == 500_000_000
    assert work.arithmetic[1][1].startswith("1 GB ÷ 560 MB/s decoded + 25 GB ÷ 1.2 GB/s")


def test_releases_that_build_on_each_other_are_planned_together(tmp_path: Path) -> None:
    base, target = small_pair(1)
    _, later = small_pair(2)
    for name, tensors in (("base", base), ("v1", target), ("v2", later)):
        model_folder(tmp_path / name, tensors)
    for before, after in (("base", "v1"), ("v1", "v2")):
        good(
            *("make-delta", "--base", tmp_path / before, "--target", tmp_path / after),
            *("--out", tmp_path / f"{after}-delta"),
        )
    deltas = [tmp_path / "v2-delta", tmp_path / "v1-delta"]
    found = plan(tmp_path / "base", delta=deltas, policy=QUIET)
    said = plan_apply(tmp_path / "base", deltas, tmp_path / "out", policy=QUIET)
    assert found.work.base == said.base_nbytes
    assert found.work.output == said.write_nbytes


def test_making_a_release_is_told_as_well(pair: Path) -> None:
    base, target = pair / "base", pair / "target"
    found = plan(base, target=target, ratio=0.5, nodes=(1, 4), machine=FOUR)
    work = found.work
    assert (work.kind, work.name, work.parts, work.shards) == ("make", "target", 4, 1)
    weights = 16 * 64 * 64 * 2
    assert (work.base, work.delta, work.disk) == (weights, weights // 2, weights)
    assert [phase.name for phase in work.phases] == [
        *("encode", "hash", "assemble", "read back"),
    ]
    one, four = found.estimates
    assert [time.nodes for time in one.phases] == [1, 1, 1, 1]
    assert [time.nodes for time in four.phases] == [4, 4, 4, 4]
    assert found.ratio == 0.5
    assert plan(base, target=target).ratio == 0.144


def test_the_command_says_it_line_by_line(pair: Path) -> None:
    arguments = ("plan", "--base", pair / "base", "--delta", pair / "delta", "--nodes", "2")
    done = good(*arguments, "--cpus", "8", "--memory", "32GB", "--storage-gbps", "80")
    lines = done.stdout.splitlines()
    assert lines[0] == "rebuild     target, 16 tensors in 4 files"
    assert lines[6] == (
        "rates       built in, of 2 cores of an AMD EPYC in a virtual machine on "
        "2026-11-23; measure your own with `releasekit plan --measure`"
    )
    assert lines[7] == (
        "nodes      2 of 8 processors and 32 GB, with a store, 25 Gbit/s to each, "
        "80 Gbit/s to all"
    )
    assert lines[-1].startswith("time       start and headers 0.6 s + ")


def test_the_command_compares_numbers_of_nodes(pair: Path) -> None:
    arguments = ("plan", "--base", pair / "base", "--target", pair / "target", "--table")
    lines = good(*arguments).stdout.splitlines()
    assert [line.split()[0] for line in lines[-7:]] == [
        "1",
        "2",
        "4",
        "8",
        "16",
        "32",
        "64",
    ]
    document = good(*arguments, "--json").json
    assert [e["nodes"] for e in document["estimates"]] == [1, 2, 4, 8, 16, 32, 64]
    times: list[float] = [e["seconds"] for e in document["estimates"]]
    assert times == sorted(times, reverse=True)
    assert document["estimates"][0]["phases"][0]["name"] == "encode"
    assert document["rates"]["sha256"] == BUILT_IN.sha256


def test_on_one_node_the_disk_counts_and_on_several_the_link(pair: Path) -> None:
    def bounds(*more: str) -> set[str]:
        arguments = ("plan", "--base", pair / "base", "--delta", pair / "delta", "--json")
        document: Any = good(*arguments, *more).json
        return set(document["estimates"][0]["phases"][0]["bounds"])

    assert bounds() == {"processors", "disk", "largest part"}
    assert bounds("--disk-gbps", "8") == bounds()
    assert bounds("--gbps", "10") == {"processors", "network", "largest part"}
    assert bounds("--nodes", "2") == {"processors", "network", "largest part"}
    assert bounds("--storage-gbps", "9") == {"storage", *bounds("--nodes", "2")}


def test_what_makes_no_sense_is_refused(pair: Path) -> None:
    base, delta, target = (
        *("--base", pair / "base"),
        *("--delta", pair / "delta"),
        *("--target", pair / "target"),
    )[1::2]

    def error(*arguments: str | Path) -> str:
        done = here("plan", *arguments)
        assert done.code == 2
        return done.stderr.splitlines()[-1].removeprefix("error: ").removeprefix("Error: ")

    either = (
        "plan: expected either a release to rebuild from, or a target to make one of: give "
        "--delta or --target"
    )
    both = ("--base", base, "--delta", delta, "--target", target)
    rebuild = ("--base", base, "--delta", delta)
    assert error("--base", base) == either
    assert error(*both) == either
    assert error("--delta", delta) == "Missing option '--base'."
    assert error(*rebuild, "--ratio", "0.1") == (
        "--ratio: is for a release that is to be made: with --target"
    )
    assert error(*rebuild, "--table", "--nodes", "3") == (
        "--table and --nodes: give one of them"
    )
    assert error(*rebuild, "--nodes", "2", "--disk-gbps", "8") == (
        "--disk-gbps: is for one node whose inputs and output lie on its own disk; leave "
        "out --gbps and --storage-gbps, and plan with --nodes 1"
    )
    assert (
        error(*rebuild, "--out", "x") == "--out is for what --measure finds; leave it out"
    )
    assert error(*rebuild, "--measure") == (
        "--measure plans nothing; leave out --base, --delta, --target and --rates"
    )
    assert error(*rebuild, "--rates", "none.json") == (
        "none.json: no such file: make it with `releasekit plan --measure --out none.json`"
    )
    assert error(*rebuild, "--memory", "1MB").startswith("memory of a node: expected at")


def test_the_library_refuses_numbers_that_make_no_sense(pair: Path) -> None:
    base, target = pair / "base", pair / "target"
    with pytest.raises(UsageError, match=r"^--nodes: expected numbers of 1 or more$"):
        plan(base, target=target, nodes=())
    with pytest.raises(UsageError, match=r"^--ratio: expected .* at least 0, found -1$"):
        plan(base, target=target, ratio=-1)


def test_a_base_of_other_shapes_is_named(pair: Path, tmp_path: Path) -> None:
    other = model_folder(tmp_path / "other", {"w": ("BF16", [2], b"abcd")})
    with pytest.raises(BaseMismatchError, match="has none of the 16 base tensors"):
        plan(other, delta=pair / "delta", policy=QUIET)


def test_a_target_that_is_not_safetensors_is_refused(pair: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError) as caught:
        plan(pair / "base", target=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds PyTorch weights; a release is of safetensors: make them with "
        f"`releasekit convert {tmp_path} NEW_FOLDER`, and name that"
    )


def test_models_on_the_hub_are_planned_without_their_weights(
    pair: Path, tmp_path: Path, hub: FakeHub
) -> None:
    for name in ("base", "delta"):
        folder = pair / name
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        hub.put(f"acme/{name}", files)
    local = plan(pair / "base", delta=pair / "delta", policy=QUIET)
    found = plan("acme/base", delta="acme/delta", policy=QUIET)
    assert found == local
    assert not list((tmp_path / "hf").rglob("*.safetensors"))


def test_measured_rates_are_kept_and_used(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measured_briefly(monkeypatch)
    document = good("plan", "--measure", "--json").json
    rates = load()
    assert document["path"] == str(tmp_path / "state/releasekit/rates.json")
    assert {name: document[name] for name in ("start", "read")} == {
        "start": rates.start,
        "read": rates.read,
    }
    assert rates != BUILT_IN
    assert [path.name for path in tmp_path.iterdir()] == ["state"]  # all else is gone
    lines = good("plan", "--base", pair / "base", "--delta", pair / "delta").stdout
    assert f"measured on {rates.measured}: {rates.machine}" in lines


def test_the_readme_has_the_table_that_the_script_prints(tmp_path: Path) -> None:
    text = README.read_text()
    made = table.header()
    for model in models()[:-1]:
        made += table.lines(model, tmp_path / model.name)
    assert "\n".join(made) in text
    assert "\n".join(table.arithmetic(tmp_path / "shown")) in text


@pytest.fixture(scope="module")
def largest(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Model, Path, list[str]]:
    """The largest model's headers, and its lines of the table."""
    model, place = models()[-1], tmp_path_factory.mktemp("largest") / "671B"
    return model, place, list(table.lines(model, place))


@pytest.mark.slow
def test_the_readme_has_the_lines_of_the_largest_model(
    largest: tuple[Model, Path, list[str]],
) -> None:
    assert "\n".join(largest[2]) in README.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("work", ["--delta", "--target"])
def test_the_largest_model_is_planned_in_little_memory(
    work: str, largest: tuple[Model, Path, list[str]]
) -> None:
    """By a process of its own; a small one starts it, with whose peak its own begins."""
    model, place, _ = largest
    of = place / "delta" if work == "--delta" else place / "base"
    code = (
        "import os, sys\n"
        "child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)\n"
        "_, status, usage = os.wait4(child, 0)\n"
        "print(usage.ru_maxrss, file=sys.stderr)\n"
        "sys.exit(os.waitstatus_to_exitcode(status))"
    )
    paths = [str(place / "base"), work, str(of)]
    done = subprocess.run(
        [
            *(sys.executable, "-S", "-E", "-c", code),
            *(*COMMAND, "plan", "--base", *paths, "--table", "--json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stderr.splitlines()[-1]) * unit < LIMIT
    document = json.loads(done.stdout)
    assert document["tensors"] == len(model.specs) == 91_991
    assert document["parts"] == document["files"] == 161


@pytest.mark.slow
def test_a_plan_is_near_what_then_happens(tmp_path: Path) -> None:
    """Processor time: that of the clock tells what else the machine does."""
    _, held = against_a_run.hold(tmp_path, "0.4")
    assert [one.name for one in held] == ["make-delta", "apply-delta"]
    for one in held:
        assert 1 / 3 < one.core_ratio < 3


def test_rates_from_a_file_change_the_plan(pair: Path, tmp_path: Path) -> None:
    slow = load()
    path = tmp_path / "slow.json"
    save(type(slow)(**{**_fields(slow), "start": 100.0}), path)
    arguments = ("plan", "--base", pair / "base", "--delta", pair / "delta", "--json")
    assert good(*arguments, "--rates", path).json["estimates"][0]["seconds"] > 100


def _fields(rates: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(BUILT_IN.pack())
    assert rates == BUILT_IN
    del document["format"]
    return document


def test_a_disk_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        measure(tmp_path / "none")
