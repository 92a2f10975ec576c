"""`report`: the folder that it makes, and what a browser shows of it."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from releasekit import ReportResult, make_delta, report
from releasekit.evals.collection import Collection
from releasekit.evals.document import Evaluations, pack
from releasekit.evals.reading import read
from releasekit.pictures.palette import DARK, KINDS, LIGHT, SCALE
from releasekit.presentation.evaluation import read_comparison
from releasekit.statistics.summary import summary
from tests.builders import model_folder
from tests.integration.browser import look
from tests.integration.tools import (
    digests,
    fine_tuned,
    good,
    here,
    llama,
    releasekit,
    weights,
)

BOARD = b"""Model,Average,ARC,HellaSwag,MMLU,TruthfulQA
org/m,68.67,68.2,85.9,64.8,55.8
org/b,64.23,63.5,86.1,63.9,43.4
"""
FILES = ("report.html", "report.json", "summary.md")
PAIR = ("distances", "kinds", "layers", "unchanged", "update", "values")


class World(NamedTuple):
    """A base, its fine-tune, and the release made of them."""

    base: Path
    tune: Path
    release: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    source = np.random.default_rng(7)
    base = llama(source, layers=3)
    tune = fine_tuned(source, base)
    label, (rows, columns), data = tune["lm_head.weight"]
    more = weights(source, label, 8, columns)
    tune["lm_head.weight"] = (label, (rows + 8, columns), data + more[2])
    tune["model.norm.weight"] = base["model.norm.weight"]
    model_folder(root / "base", base)
    model_folder(root / "tune", tune, shards=2)
    make_delta(root / "base", root / "tune", root / "release", name="acme-tune")
    return World(root / "base", root / "tune", root / "release")


@pytest.fixture(scope="module")
def of_release(world: World, tmp_path_factory: pytest.TempPathFactory) -> ReportResult:
    """The report of the release."""
    out = tmp_path_factory.mktemp("report") / "r"
    return report(world.base, world.release, out=out)


def names(*stems: str) -> set[str]:
    """The files of charts."""
    return {f"{stem}{mode}.png" for stem in stems for mode in ("", "-dark")}


def test_a_pair_is_reported(world: World, tmp_path: Path) -> None:
    made = report(world.base, world.tune, out=tmp_path / "r")
    here_now = {path.name: path.stat().st_size for path in (tmp_path / "r").iterdir()}
    assert here_now == made.files
    assert set(made.files) == {*FILES, *names(*PAIR)}
    found = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (found["name"], found["base"]) == ("tune", "base")
    assert len(found["tensors"]) == len(made.portrait.diff.tensors) == 30
    assert found["layers"]["labels"] == ["0", "1", "2"]
    assert "8 rows of the vocabulary were added." in summary(made.portrait)
    assert (tmp_path / "r" / "summary.md").read_text() == summary(made.portrait)
    assert not (tmp_path / "r.partial").exists()


def test_a_release_is_reported_with_what_it_publishes(
    world: World, of_release: ReportResult, tmp_path: Path
) -> None:
    assert set(of_release.files) == {*FILES, *names("published", *PAIR)}
    report(world.release, base=world.base, out=tmp_path / "other", threads=3)
    assert digests(of_release.out) == digests(tmp_path / "other")
    page = (of_release.out / "report.html").read_text()
    assert "<h1>acme-tune</h1>" in page
    assert "· version 1" in page
    assert str(tmp_path.parent) not in page


def test_a_model_alone_is_reported(world: World, tmp_path: Path) -> None:
    made = report(world.tune, out=tmp_path / "r")
    assert set(made.files) == {*FILES, *names("kinds", "layers", "values")}
    assert made.portrait.base is None


def test_evaluations_beside_the_model_are_shown(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.tune, tmp_path / "tune")
    model, base = (
        Collection.of(read(BOARD, "board.csv", model=name)) for name in ("org/m", "org/b")
    )
    (tmp_path / "tune" / "evaluations").mkdir()
    document = tmp_path / "tune" / "evaluations" / "evaluations.json"
    document.write_bytes(pack(Evaluations.of(model, base)))

    def is_evaluation(name: str) -> bool:
        return name.startswith("evaluations/")

    made = report(tmp_path / "tune", out=tmp_path / "r", skip=is_evaluation)
    assert {"evaluations.png", "evaluations-dark.png"} <= made.files.keys()
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<h2>Evaluations</h2>" in page
    assert "data:image/svg+xml;base64," in page
    assert "68.2" in page
    (tmp_path / "tune" / "evaluations").rename(tmp_path / "elsewhere")
    drawn = digests(tmp_path / "r")
    given = read_comparison(tmp_path / "elsewhere" / "evaluations.json")
    report(tmp_path / "tune", out=tmp_path / "s", evaluations=given, skip=is_evaluation)
    assert digests(tmp_path / "s") == drawn
    made = report(tmp_path / "tune", out=tmp_path / "t", name="Mine")
    assert "evaluations.png" not in made.files
    assert "<h1>Mine</h1>" in (tmp_path / "t" / "report.html").read_text()


def test_the_command_says_what_it_made(world: World, tmp_path: Path) -> None:
    done = good("report", world.tune, "--out", tmp_path / "r")
    lines = done.stdout.splitlines()
    assert lines[0] == f"report   {tmp_path / 'r' / 'report.html'}"
    assert lines[2].startswith("summary  The model has 30 tensors in 3 layers, ")
    found = good("report", world.tune, "--out", tmp_path / "s", "--json").json
    assert found["statistics"]["whole"]["tensors"] == 30
    assert "report.html" in found["files"]


def test_a_folder_that_exists_is_not_replaced(world: World, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    done = here("report", world.tune, "--out", tmp_path / "r")
    assert done.code == 2
    assert done.error.startswith(f"{tmp_path / 'r'}: exists already; ")


def test_a_release_without_its_base_is_refused(world: World, tmp_path: Path) -> None:
    done = here("report", world.release, "--out", tmp_path / "r")
    assert done.code == 2
    assert done.error.startswith(f"{world.release}: is a delta release, ")
    assert not (tmp_path / "r").exists()


def test_a_base_is_given_once(world: World, tmp_path: Path) -> None:
    done = here(
        *("report", world.base, world.tune),
        *("--base", world.base, "--out", tmp_path / "r"),
    )
    assert done.code == 2
    assert done.error == (
        "report: a base is given twice: leave out --base, since of two models the first is "
        "the base"
    )


def test_the_help_teaches() -> None:
    done = releasekit("report", "--help")
    assert done.returncode == 0
    assert "report.html needs no network" in " ".join(done.stdout.split())


def test_a_browser_shows_the_page_in_light_and_in_dark(
    of_release: ReportResult, tmp_path: Path
) -> None:
    page = of_release.out / "report.html"
    for theme, dark in ((LIGHT, False), (DARK, True)):
        seen = look(page, tmp_path, dark=dark)
        assert seen.console == []
        assert tuple(seen.pixels[0, 0]) == tuple(bytes.fromhex(theme.page[1:]))
        # Columns and bars of attention and MLP, and both ends of a heat map.
        assert seen.count(KINDS[0]) > 10_000
        assert seen.count(KINDS[1]) > 10_000
        assert seen.count(SCALE[0]) > 500
        assert seen.count(SCALE[-1]) > 500


@pytest.mark.slow
def test_a_browser_shows_the_page_on_a_phone(
    of_release: ReportResult, tmp_path: Path
) -> None:
    seen = look(of_release.out / "report.html", tmp_path, width=500)
    assert seen.console == []
    assert seen.count(SCALE[-1]) > 500
    # Nothing runs out of the page: its edge is empty, from top to bottom.
    edge = seen.pixels[:, -8:].reshape(-1, 3)
    assert {tuple(color) for color in edge.tolist()} == {(255, 255, 255)}


def test_a_browser_runs_no_script_but_the_one_of_the_page(
    of_release: ReportResult, tmp_path: Path
) -> None:
    page = (of_release.out / "report.html").read_text()
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(
        page.replace("</main>", "<script>document.title='x'</script></main>")
    )
    seen = look(spoiled, tmp_path, height=400)
    assert len(seen.console) == 1
    assert "Content Security Policy" in seen.console[0]
