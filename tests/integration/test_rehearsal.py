"""The recipes say what is known, and rehearsing them leads to the publisher's bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from numpy.typing import NDArray

from releasekit.card.facts import Facts
from releasekit.card.facts import parse as parse_facts
from releasekit.errors import IntegrityError
from releasekit.releasing.file import ReleaseFile, parse
from releasekit.tensors import DType
from scripts.rehearsal import __main__ as rehearsal
from scripts.rehearsal import forecasting
from scripts.rehearsal.comparing import same_files, same_tensors
from scripts.rehearsal.forecasting import Step, disk_needed, forecast, true_sizes
from scripts.rehearsal.models import make_pair
from scripts.rehearsal.recipes import RECIPES, copy_recipe
from scripts.rehearsal.rehearsing import Rehearsed, let_in, receive, release
from scripts.rehearsal.running import Ran, StepError, User, used
from scripts.rehearsal.shapes import SCALES, SUBJECTS, TINY, TRUE, Shape, Subject
from tests.builders import stock_tensors
from tests.fakehub import OTHER_TOKEN, TOKEN, FakeHub
from tests.integration.tools import here

CARDS = Path(__file__).parent.parent / "cards"
ROOT = Path(__file__).parents[2]
#: Facts that lie elsewhere in a recipe, or that the cards' tests give otherwise.
ELSEWHERE = ("repo", "license", "license_bases", "license_files")
ALL = pytest.mark.parametrize("name", SUBJECTS)


def recipe(name: str) -> ReleaseFile:
    path = RECIPES / name / "release.toml"
    return parse(path.read_bytes(), str(path))


def card(name: str) -> Facts:
    path = CARDS / f"{name}.toml"
    return parse_facts(path.read_bytes(), str(path))


def smallest(subject: Subject) -> Shape:
    return subject.true.narrowed(64, 1)


def pair(subject: Subject, place: Path) -> tuple[Path, Path]:
    """A base and a fine-tune where a recipe has them."""
    base, tune = place / "base", place / subject.target
    make_pair(subject, smallest(subject), base, tune, headers=False)
    return base, tune


# The recipes.


@ALL
def test_a_recipe_states_what_the_cards_state(name: str) -> None:
    found, known = recipe(name), card(name)
    for fact in fields(Facts):
        if fact.name not in ELSEWHERE:
            assert getattr(found.facts, fact.name) == getattr(known, fact.name), fact.name
    assert found.repo == known.repo == SUBJECTS[name].repo
    assert found.facts.missing(derived=True, delta=found.kind == "delta") == ()


@ALL
def test_a_recipe_has_the_results_that_it_names(name: str) -> None:
    facts = recipe(name).facts
    assert facts.results == facts.base_results == ("leaderboard.csv",)
    table = (RECIPES / name / "leaderboard.csv").read_bytes()
    assert table == (CARDS / "leaderboard.csv").read_bytes()


@ALL
def test_what_a_recipe_lists_as_unknown_is_not_stated(name: str) -> None:
    text = (RECIPES / name / "release.toml").read_text()
    _, _, unknown = text.partition("# Not known here")
    paths = re.findall(r"([a-z]+\.[a-z_]+)", unknown)
    assert len(paths) >= 9
    said = text.partition("# Not known here")[0]
    for path in paths:
        table, _, key = path.partition(".")
        body = said.partition(f"\n[{table}]\n")[2].partition("\n[")[0]
        assert not re.search(rf"^{key} =", body, re.MULTILINE), path
        assert f"[[{path}]]" not in said, path


def test_freewilly1_is_a_delta_that_those_with_llama_can_use() -> None:
    found = recipe("freewilly1")
    assert (found.kind, found.codec, found.base) == ("delta", "ulp", "huggyllama/llama-65b")
    assert (found.public, found.gated) == (True, "auto")
    assert found.facts.license == "cc-by-nc-4.0"
    assert found.facts.license_bases == ("llama-1",)


def test_freewilly2_is_full_weights_as_they_are() -> None:
    found = recipe("freewilly2")
    assert (found.kind, found.dtype) == ("full", None)
    assert SUBJECTS["freewilly2"].dtype is DType.F32
    assert found.base == found.facts.base_id == "meta-llama/Llama-2-70b-hf"
    assert (found.public, found.gated) == (True, "auto")
    assert found.facts.license == "stable-beluga-nc"
    assert found.facts.license_bases == ("llama-2",)


@ALL
def test_a_recipe_can_be_planned(
    name: str, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = SUBJECTS[name]
    base, _ = pair(subject, tmp_path)
    file = copy_recipe(name, tmp_path, base)
    someone = InProcess(tmp_path, TOKEN, monkeypatch)
    someone.run("keygen", "publisher.pem", "--no-passphrase")
    ran = someone.run("release", file.name, "--dry-run", "--json").json
    steps = ran["steps"]
    # Bounds: of a delta twice what it is of, of full weights what these are.
    written = smallest(subject).nbytes(subject.dtype) * (2 if subject.is_delta else 1)
    assert written < ran["disk"]["while_made"] < written + 11_000_000
    assert {step["state"] for step in steps} <= {"to do", "idle"}
    assert [step["step"] for step in steps if step["state"] == "to do"][-1] == "publish"
    assert hub.repos == {}


# The stand-ins.


@pytest.mark.parametrize(
    ("name", "parameters", "nbytes"),
    [
        ("freewilly1", 65_285_660_672, 130_571_321_344),
        ("freewilly2", 68_976_648_192, 275_906_592_768),
    ],
)
def test_the_true_shapes_are_those_of_the_models(
    name: str, parameters: int, nbytes: int
) -> None:
    subject = SUBJECTS[name]
    specs = subject.true.specs(subject.dtype)
    assert (len(specs), sum(spec.numel for spec in specs)) == (723, parameters)
    assert subject.nbytes(TRUE)[1] == nbytes
    assert subject.seven.nbytes(subject.base_dtype) == 2 * 6_738_415_616


@ALL
def test_smaller_ones_keep_the_proportions(name: str) -> None:
    subject = SUBJECTS[name]
    true = subject.true
    for scale in SCALES[:2]:
        shape = subject.shape(scale)
        for part in ("ffn", "vocabulary"):
            assert getattr(shape, part) * true.hidden == getattr(true, part) * shape.hidden
        assert shape.heads * true.kv_heads == true.heads * shape.kv_heads
        names = {re.sub(r"\d+", "N", s.name) for s in shape.specs(subject.dtype)}
        assert names == {re.sub(r"\d+", "N", s.name) for s in true.specs(subject.dtype)}


@ALL
def test_the_fine_tune_is_near_its_base(name: str, tmp_path: Path) -> None:
    subject = SUBJECTS[name]
    base, tune = pair(subject, tmp_path)
    weights = [
        {k: v for path in sorted(folder.glob("*.safetensors")) for k, v in read(path)}
        for folder in (base, tune)
    ]
    specs = smallest(subject).specs(subject.dtype)
    assert weights[0].keys() == weights[1].keys() == {spec.name for spec in specs}
    for key, values in weights[0].items():
        moved = weights[1][key].astype(np.float64) - values
        assert 1e-6 < np.abs(moved).mean() < 0.01 * np.abs(values).mean() + 1e-4, key
    if name == "freewilly2":
        words = np.concatenate([v.ravel() for v in weights[1].values()]).view(np.uint32)
        assert not (words & np.uint32(0xFFFF)).any()


def read(path: Path) -> list[tuple[str, NDArray[np.floating[Any]]]]:
    dtypes = {"F16": np.float16, "F32": np.float32}
    return [
        (name, np.frombuffer(data, dtypes[dtype]))
        for name, (dtype, _, data) in stock_tensors(path.read_bytes()).items()
    ]


def test_the_true_size_takes_no_room_as_headers(tmp_path: Path) -> None:
    subject = SUBJECTS["freewilly2"]
    base, tune = tmp_path / "base", tmp_path / "tune"
    make_pair(subject, subject.true, base, tune, headers=True)
    assert sum(path.stat().st_size for path in tune.glob("*.safetensors")) > 275e9
    if sys.platform == "linux":
        assert used(tmp_path) < 2e6
    said = here("inspect", tune, "--json").json
    assert (said["tensor_nbytes"], len(said["tensors"])) == (275_906_592_768, 723)


# Comparing.


def test_any_other_byte_is_found(tmp_path: Path) -> None:
    subject = SUBJECTS["freewilly1"]
    _, tune = pair(subject, tmp_path)
    other = tmp_path / "other"
    make_pair(subject, smallest(subject), tmp_path / "again", other, headers=False)
    whole = sum(path.stat().st_size for path in tune.iterdir())
    assert same_files(tune, other) == whole
    weights = smallest(subject).nbytes(subject.dtype)
    assert weights < same_tensors(tune, other) < whole
    path = sorted(other.glob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    theirs = tune / path.name
    for same in (same_files, same_tensors):
        with pytest.raises(IntegrityError) as caught:
            same(tune, other)
        message = f"{path}: differs from {theirs} after byte 0"
        assert str(caught.value) == message
    (other / "config.json").unlink()
    with pytest.raises(IntegrityError) as caught:
        same_files(tune, other)
    assert str(caught.value) == f"{other / 'config.json'}: is missing"


# Forecasting.


def step(seconds: float, nbytes: int, works_on: str | None = "fine-tune") -> Step:
    return Step(
        actor="maintainer",
        name="make",
        seconds=seconds,
        works_on=works_on,
        nbytes=nbytes,
        peak_nbytes=0,
    )


def test_two_sizes_tell_the_start_from_the_rate() -> None:
    (found,) = forecast(
        [step(3.0, 200_000_000)], [step(1.5, 50_000_000)], {"fine-tune": 10_000_000_000}
    )
    assert (found.seconds, found.is_bound) == (101.0, False)
    assert found.arithmetic == (
        "maintainer, make: (200.00 MB − 50.00 MB) ÷ (3.00 − 1.50) s = 100.0 MB/s; "
        "10.00 GB ÷ that + 1.00 s = 101 s, 2 min"
    )


def test_one_size_gives_a_bound() -> None:
    for smaller in ([], [step(2.95, 50_000_000)]):
        (found,) = forecast([step(3.0, 300_000_000)], smaller, {"fine-tune": 10**9})
        assert (found.seconds, found.is_bound) == (10.0, True)
        assert found.arithmetic == (
            "maintainer, make: 300.00 MB ÷ 3.00 s, start and all = 100.0 MB/s; 1.00 GB ÷ "
            "that = 10.0 s, at most"
        )


def test_what_works_on_no_bytes_takes_as_long() -> None:
    (found,) = forecast([step(3.0, 0, None)], [], {})
    assert found.seconds == 3.0
    assert found.arithmetic == "maintainer, make: 3.00 s, whatever the size"


def test_a_deltas_size_follows_from_its_weights() -> None:
    measured = {"fine-tune": 100_000_000, "its weights": 30_000_000, "release": 30_400_000}
    sizes, told = true_sizes(measured, 10**11, 10**11, is_delta=True)
    assert sizes == {"base": 10**11, "fine-tune": 10**11, "release": 30_000_400_000}
    assert told == (
        "release: 30.00 MB ÷ 100.00 MB = 0.300; 0.300 × 100.00 GB + 0.40 MB of other files "
        "= 30.00 GB"
    )
    needed = disk_needed(sizes, is_delta=True)
    assert needed["user"] == (
        230_000_400_000,
        "user: base 100.00 GB + release 30.00 GB + rebuilt model 100.00 GB = 230.00 GB",
    )
    assert forecasting.transfers(sizes, is_delta=True)[-1] == (
        "user, download of the base: 100.00 GB ÷ 0.125 GB/s = 800 s, 13 min"
    )


# Rehearsing.


@dataclass(frozen=True)
class InProcess:
    """A user in this process, with a cache and a token of their own."""

    home: Path
    token: str
    patch: pytest.MonkeyPatch

    def run(self, *words: str | Path, code: int = 0) -> Ran:
        self.patch.setenv("HF_TOKEN", self.token)
        self.patch.setenv("XDG_CONFIG_HOME", str(self.home / "config"))
        self.patch.setattr(constants, "HF_HUB_CACHE", str(self.home / "hf" / "hub"))
        with chdir(self.home):
            done = here(*words)
        assert done.code == code, done.stdout + done.stderr
        return Ran(
            code=code, seconds=1.0, peak_nbytes=0, stdout=done.stdout, stderr=done.stderr
        )


def test_a_recipe_leads_to_the_publishers_bytes(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = SUBJECTS["freewilly1"]
    mine, theirs = tmp_path / "maintainer", tmp_path / "user"
    theirs.mkdir()
    base, tune = pair(subject, mine)
    hub.put(subject.base_id, {path.name: path for path in base.iterdir()})
    file = copy_recipe(subject.name, mine, base)
    maintainer = InProcess(mine, TOKEN, monkeypatch)
    maintainer.run("keygen", "publisher.pem", "--no-passphrase")
    found, told = Rehearsed.of(subject, TINY), list[str]()
    release(maintainer, file, found, told.append)
    user = InProcess(theirs, OTHER_TOKEN, monkeypatch)
    (theirs / "publisher.pub.pem").write_bytes((mine / "publisher.pub.pem").read_bytes())
    model = receive(user, found, told.append, lambda: let_in(hub, subject.repo))
    assert same_files(tune, model) == sum(path.stat().st_size for path in tune.iterdir())
    assert told == [
        "maintainer: releasekit release",
        "maintainer: releasekit release, again",
        "user: refused, since the terms are not agreed to",
        "user: releasekit fetch",
        "user: releasekit preflight",
        "user: releasekit apply-delta",
    ]
    assert 0 < found.sizes["its weights"] < found.sizes["release"]


def test_a_step_that_fails_says_what_was_said(tmp_path: Path) -> None:
    user = User(home=tmp_path, hub="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(StepError) as caught:
        user.run("inspect", "nowhere")
    first, second, *_ = str(caught.value).splitlines()
    assert first == "`releasekit inspect nowhere` ended with code 2, expected 0:"
    assert second.startswith("error: nowhere: ")


def test_a_release_that_is_open_to_all_is_no_rehearsal(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.put("acme/tune", {"README.md": b""})
    with pytest.raises(StepError) as caught:
        let_in(hub, "acme/tune")
    assert str(caught.value) == (
        "acme/tune: private is False and gated False; expected False and auto"
    )


def script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "scripts" / "rehearse", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_tells_what_it_takes() -> None:
    done = script("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for scale in SCALES:
        assert re.search(rf"^ .*\b{scale} ", done.stdout, re.MULTILINE)
    assert "RELEASEKIT" not in done.stdout


def test_the_script_leaves_somebody_elses_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "work.txt").touch()
    done = script("freewilly1", "--work", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"rehearse: {tmp_path} is not empty and no earlier run made it; name another "
        "folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["work.txt"]


def test_a_slip_costs_no_earlier_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (rehearsal.MARK, "rehearsal.md"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", ["", "freewilly3", "--work", str(tmp_path)])
    with pytest.raises(SystemExit):
        rehearsal.main()
    assert "invalid choice: 'freewilly3'" in capsys.readouterr().err
    assert (tmp_path / "rehearsal.md").is_file()


def rehearsed(name: str, scale: str, work: Path) -> subprocess.CompletedProcess[str]:
    work.mkdir()
    return subprocess.run(
        [
            *(sys.executable, "-m", "scripts.rehearsal", name),
            *("--scale", scale, "--work", work),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@ALL
def test_a_rehearsal_reports_and_tidies_up(name: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = rehearsed(name, TINY, work)
    assert (done.returncode, done.stderr) == (0, "")
    reports = {"rehearsal.json", "rehearsal.md"}
    assert {path.name for path in work.iterdir()} == {*reports, rehearsal.MARK}
    text = (work / "rehearsal.md").read_text()
    assert text in done.stdout
    document = json.loads((work / "rehearsal.json").read_bytes())
    subject = SUBJECTS[name]
    assert document["compared_nbytes"] > subject.nbytes(TINY)[1]
    steps = {(step["actor"], step["name"]) for step in document["steps"]}
    assert {("maintainer", "publish"), ("user", "fetch")} <= steps
    assert document["true"]["sizes"]["fine-tune"] == subject.nbytes(TRUE)[1]
    assert len(document["true"]["arithmetic"]) == len(steps) + 1


@pytest.mark.slow
@ALL
def test_the_true_size_is_planned(name: str, tmp_path: Path) -> None:
    done = rehearsed(name, TRUE, tmp_path / "work")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads((tmp_path / "work" / "rehearsal.json").read_bytes())
    assert document["plan"]["tensors"] == 723
    assert document["disk_peak"]["all"] < 512 << 20


def test_what_the_disk_has_no_room_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = SUBJECTS["freewilly1"]
    wide = replace(subject.true, hidden=subject.true.hidden * 4096)
    monkeypatch.setitem(SUBJECTS, "freewilly1", replace(subject, true=wide))
    monkeypatch.setattr(sys, "argv", ["", "freewilly1", "--scale", "1gb", "--work", "w"])
    with chdir(tmp_path):
        assert rehearsal.main() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(
        rf"rehearse: {re.escape(str(tmp_path))}/w: has [\d.]+ GB of room, and 1gb takes "
        r"about [\d.]+ GB; choose another --work, or a smaller --scale\n",
        said.err,
    )
    assert [path.name for path in (tmp_path / "w").iterdir()] == [rehearsal.MARK]
