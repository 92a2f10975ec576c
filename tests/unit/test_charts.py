"""Charts: what is on them, that they are the same again, and that nothing else changes."""

import io
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from releasekit.charts import draw
from releasekit.errors import UsageError
from releasekit.evals.collection import Collection
from releasekit.evals.compare import Comparison, compare
from releasekit.evals.plan import describe, plan
from releasekit.evals.reading import read
from releasekit.evals.scores import HARNESS, Origin, Results, Score, Unit

BOARD = b"""Model,Average,ARC,HellaSwag,MMLU,TruthfulQA
org/m,68.67,68.2,85.9,64.8,55.8
org/b,64.23,63.5,86.1,63.9,43.4
"""
NAMES = (
    *("evaluations.png", "evaluations.svg"),
    *("evaluations-dark.png", "evaluations-dark.svg"),
)
SVG = "{http://www.w3.org/2000/svg}"
PAGES = {"evaluations.png": (255, 255, 255), "evaluations-dark.png": (13, 17, 23)}


def board() -> Comparison:
    model, base = (
        Collection.of(read(BOARD, "board.csv", model=name)) for name in ("org/m", "org/b")
    )
    return compare(model, base)


def score(task: str, value: float, **fields: Any) -> Score:
    origin = Origin(file="r.json", sha256="0a" * 32, kind=HARNESS)
    defaults: dict[str, Any] = {"metric": "acc", "unit": Unit.FRACTION, "shots": 0}
    return Score(task=task, value=value, origin=origin, **(defaults | fields))


def alone(*scores: Score, name: str = "org/m") -> Comparison:
    return compare(Collection.of(Results(scores=scores), name=name))


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_each_page_has_a_picture_of_both_kinds() -> None:
    files = draw(board(), "A title")
    assert tuple(files) == NAMES
    for name, color in PAGES.items():
        picture = pixels(files[name])
        height, width, _ = picture.shape
        assert width == 1600
        assert tuple(picture[0, 0]) == tuple(picture[height - 1, width - 1]) == color


def test_the_same_comparison_gives_the_same_bytes() -> None:
    files = draw(board(), "A title")
    assert draw(board(), "A title") == files
    for data in files.values():
        assert b"Matplotlib" not in data
        assert mpl.__version__.encode() not in data
        assert b"<dc:date>" not in data
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 50, "axes.facecolor": "red"}):
        assert draw(board(), "A title") == files


def test_settings_of_matplotlib_stay_as_they_were() -> None:
    before = dict(mpl.rcParams)
    draw(board(), "A title")
    assert dict(mpl.rcParams) == before


def test_the_svg_speaks_to_those_who_do_not_see_it() -> None:
    root = ET.fromstring(draw(board(), "A <title> & more")["evaluations.svg"])
    assert root.attrib["role"] == "img"
    title, words = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert words is not None
    assert title.text == "A <title> & more"
    assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {words.attrib['id']}"
    assert words.text == (
        "Evaluations of org/m against org/b, in percent. Open LLM Leaderboard: "
        "ARC-Challenge 68.2 against 63.5; HellaSwag 85.9 against 86.1; MMLU 64.8 against "
        "63.9; TruthfulQA 55.8 against 43.4; average 68.67 against 64.23."
    )


def test_text_is_drawn_as_outlines() -> None:
    assert not list(ET.fromstring(draw(board(), "T")["evaluations.svg"]).iter(f"{SVG}text"))


def test_both_marks_are_there_in_colours_that_keep_apart() -> None:
    picture = pixels(draw(board(), "T")["evaluations.png"]).reshape(-1, 3).astype(int)
    blue, vermilion = np.array([0, 114, 178]), np.array([213, 94, 0])
    for color in (blue, vermilion):
        assert (np.abs(picture - color).sum(axis=1) == 0).sum() > 100


def test_the_plan_has_a_row_a_task_and_the_average() -> None:
    drawn = plan(board())
    (block,) = drawn.blocks
    assert block.title == "Open LLM Leaderboard"
    assert [(line.label, line.detail, line.cells) for line in block.lines] == [
        ("ARC-Challenge", "25-shot", ("68.2", "63.5", "+4.7")),
        ("HellaSwag", "10-shot", ("85.9", "86.1", "−0.2")),
        ("MMLU", "5-shot", ("64.8", "63.9", "+0.9")),
        ("TruthfulQA", "0-shot", ("55.8", "43.4", "+12.4")),
        ("Average", "", ("68.67", "64.23", "+4.4")),
    ]
    assert [line.strong for line in block.lines] == [False] * 4 + [True]
    assert drawn.notes == ()


def test_what_cannot_be_compared_has_a_note() -> None:
    model = Collection.of(Results(scores=(score("t", 0.5, stderr=0.1),)), name="m")
    base = Collection.of(Results(scores=(score("t", 0.5, shots=5),)), name="b")
    drawn = plan(compare(model, base))
    assert drawn.blocks[0].lines[0].cells == ("50.0", "50.0", "n/c")
    assert drawn.notes == (
        "Lines through the marks: ± one standard error.",
        "Not compared: t (n-shot 0 against 5).",
    )


def test_only_so_many_rows_are_drawn() -> None:
    drawn = plan(alone(*(score(f"t{n:03d}", 0.5) for n in range(70))))
    assert len(drawn.blocks[0].lines) == 60
    assert drawn.notes == ("Not drawn: 10 figures more.",)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "comparison",
    [
        alone(score("t", 1.0, stderr=0.5)),
        alone(score("t", 0.0)),
        alone(*(score(f"a_task_with_a_long_name_{n}" * 4, n / 40) for n in range(40))),
        alone(score("重み_$x^2$_\U0001f600", 0.5), name="重み" * 60),
    ],
)
def test_whatever_comes_is_drawn_without_a_warning(comparison: Comparison) -> None:
    assert tuple(draw(comparison, "重み " * 100)) == NAMES
    assert describe(comparison).endswith(".")


def test_without_a_percentage_there_is_nothing_to_draw() -> None:
    with pytest.raises(UsageError) as caught:
        draw(alone(score("t", 8.5, unit=Unit.RAW)), "T")
    assert str(caught.value) == (
        "expected a figure in percent to draw, found none; leave the chart out"
    )
