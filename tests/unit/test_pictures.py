"""Reports from made-up figures: what is grouped, drawn and said, and what stays text."""

import io
import json
import re
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from releasekit.pictures import plan, png, svg
from releasekit.pictures.page import Evaluation, render
from releasekit.pictures.palette import SCALE
from releasekit.statistics.changes import Change, Distances, Update
from releasekit.statistics.diff import Diff, Narrowing, Setting, TensorDiff, TensorSide
from releasekit.statistics.groups import MOST_LAYERS, MOST_MODULES, group
from releasekit.statistics.places import Kind
from releasekit.statistics.portrait import Portrait, document
from releasekit.statistics.summary import summary, typical
from releasekit.statistics.values import Values
from releasekit.statistics.wording import percent
from releasekit.tensors import DType, TensorSpec

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}\n\u202e$x_1$ שלום"


def tensor(
    name: str,
    *shape: int,
    moved: float = 0.5,
    size: float = 1e-3,
    published: int | None = None,
) -> TensorDiff:
    """A tensor whose words have moved in this share, by an update of this relative size."""
    spec = TensorSpec(name=name, dtype=DType.BF16, shape=shape or (64, 64))
    count = spec.numel
    same = round(count * (1 - moved))
    rest = count - same
    values = Values(
        count=count,
        finite=count,
        zeros=1,
        least=-0.5,
        greatest=0.25,
        mean=0.0,
        deviations=count * 4e-4,
        largest=0.5,
        place=3,
    )
    octaves = {0: same} | ({2: rest} if rest else {})
    change = Change(
        words=count,
        same=same,
        ulps=Distances(octaves=octaves, total=2.5 * rest, largest=3.0 if rest else 0.0),
        update=Update(
            squares=size**2 * count * 4e-4 if rest else 0.0,
            before=count * 4e-4,
            largest=size if rest else 0.0,
            place=65 if rest else None,
        ),
    )
    return TensorDiff(
        name=name,
        first=TensorSide(spec=spec),
        second=TensorSide(spec=spec, values=values, published=published),
        change=change,
        ulp_dtype=DType.BF16,
    )


def llama(layers: int, published: int | None = None) -> list[TensorDiff]:
    found = [tensor("model.embed_tokens.weight", 1000, 64, moved=0.1, published=published)]
    for layer in range(layers):
        for at, module in enumerate(
            ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
        ):
            size = 1e-3 * (1 + layer + at)
            name = f"model.layers.{layer}.{module}.weight"
            found.append(tensor(name, size=size, published=published))
        norm = f"model.layers.{layer}.input_layernorm.weight"
        found.append(tensor(norm, 64, moved=0.0, published=published))
    return found


def portrait(tensors: list[TensorDiff], *, base: str | None = "base") -> Portrait:
    if base is None:
        tensors = [TensorDiff(name=t.name, first=None, second=t.second) for t in tensors]
    settings = (Setting(name="config.json", first="a", second="b"),)
    diff = Diff(first=base, second="m", tensors=tuple(tensors), metadata=(), files=settings)
    return Portrait.of(diff, name="tuned", base=base)


class _Page(HTMLParser):
    """What a browser would see of a page: elements, text, the JSON in it."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.json = ""
        self._inside: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("script", "style"):
            self._inside.append(dict(attrs).get("type") or tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words += data
        elif self._inside[-1] == "application/json":
            self.json += data


def test_tensors_are_grouped_by_kind_layer_and_module() -> None:
    found = group(llama(3))
    assert {kind: of.tensors for kind, of in found.kinds.items()} == {
        Kind.ATTENTION: 6,
        Kind.MLP: 3,
        Kind.NORM: 3,
        Kind.EMBEDDING: 1,
    }
    assert found.layers.labels == ("0", "1", "2")
    assert found.layers.modules == (
        *("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "input_layernorm"),
    )
    relative = [of.relative for row in found.layers.grid for of in row if of is not None]
    assert relative == pytest.approx(
        [1e-3, 2e-3, 3e-3, 2e-3, 3e-3, 4e-3, 3e-3, 4e-3, 5e-3, 0, 0, 0]
    )
    assert list(found.outside) == ["model.embed_tokens"]
    assert found.rest is None


def test_several_stacks_are_told_apart_by_what_their_names_differ_in() -> None:
    names = ["encoder.block.0.x", "encoder.block.1.x", "decoder.block.0.x"]
    found = group([tensor(name) for name in names])
    assert found.layers.labels == ("encoder 0", "encoder 1", "decoder 0")
    assert found.layers.grid[0][0] is not None


def test_layers_beyond_the_bound_are_joined() -> None:
    found = group([tensor(f"layers.{n}.w", 4) for n in range(2 * MOST_LAYERS + 1)]).layers
    assert len(found.labels) == 107
    assert found.labels[:2] == ("0–2", "3–5")
    assert sum(of.tensors for of in found.grid[0] if of) == 2 * MOST_LAYERS + 1


def test_modules_and_stacks_beyond_the_bounds_are_summed_up() -> None:
    many = [tensor(f"layers.0.part{n}", n + 1) for n in range(100)]
    found = group(many).layers
    assert len(found.modules) == MOST_MODULES
    assert (found.modules[-1], found.joined) == ("61 modules more", 61)
    assert found.grid[-1][0] is not None
    assert found.grid[-1][0].tensors == 61
    stacks = group([tensor(f"part{n}.layers.0.w") for n in range(100)])
    assert len(stacks.layers.labels) == 8
    assert len(stacks.outside) == MOST_MODULES
    assert stacks.rest is not None
    assert stacks.rest.tensors == 100 - 8 - MOST_MODULES


def test_the_summary_says_what_matters() -> None:
    grown = tensor("model.embed_tokens.weight", 1000, 64, moved=0.1, published=50)
    assert grown.second is not None
    after = TensorSpec(name=grown.name, dtype=DType.BF16, shape=(1008, 64))
    side = TensorSide(spec=after, values=grown.second.values, published=50)
    more = TensorDiff(
        name=grown.name,
        first=grown.first,
        second=side,
        change=grown.change,
        ulp_dtype=DType.BF16,
    )
    assert summary(portrait([more, *llama(2, published=50)[1:]])) == (
        "The model has 9 tensors in 2 layers, 178 kB in BF16. Compared with its base, 78.9 "
        "% of the weights are the same, bit for bit. Of those that moved, half moved by at "
        "most 3 ULPs (steps between neighbouring BF16 numbers). The update is 0.165 % of "
        "the base's L2 norm. It is largest for MLP: 0.354 %. 8 rows of the vocabulary were "
        "added. Published, the weights take 450 B, 0.252 % of their size.\n\n"
        "| kind | size | published | same | update |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| Attention | 32.8 kB | 200 B | 50 % | 0.212 % |\n"
        "| MLP | 16.4 kB | 100 B | 50 % | 0.354 % |\n"
        "| Norms | 256 B | 100 B | 100 % | 0 % |\n"
        "| Embeddings | 129 kB | 50 B | 90 % | 0.1 % |\n"
        "| All | 178 kB | 450 B | 78.9 % | 0.165 % |\n"
    )


def test_the_summary_of_a_model_alone_is_a_paragraph() -> None:
    assert summary(portrait([tensor("w")], base=None)) == (
        "The model has 1 tensor, 8.19 kB in BF16.\n"
    )


def test_a_wide_dtype_is_said_to_be_one() -> None:
    found = Narrowing(
        dtype=DType.F32, holders=(DType.F16, DType.BF16), tensors=291, nbytes=4_000_000
    )
    assert found.describe() == (
        "All 291 tensors of F32 hold values of F16 or BF16, bit for bit: as F16 that takes "
        "2 MB less, with no loss."
    )


@pytest.mark.parametrize(
    ("octaves", "expected"),
    [({}, 0), ({0: 9}, 0), ({0: 9, 1: 5, 2: 5}, 1), ({1: 1, 2: 1, 5: 3}, 31)],
)
def test_half_of_what_moved_is_within_a_bucket(
    octaves: dict[int, int], expected: int
) -> None:
    assert typical(Distances(octaves=octaves)) == expected


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    shares = (0.0, 1e-9, 2.5e-6, 0.073, 0.9994, 0.99999, 1.0)
    assert [percent(share) for share in shares] == [
        *("0 %", "less than 0.0001 %", "0.00025 %", "7.3 %", "99.9 %"),
        *("more than 99.9 %", "100 %"),
    ]


def test_a_scale_has_as_many_colours_as_the_palette() -> None:
    assert len(SCALE) == plan.LEVELS
    heat = plan.updates(portrait(llama(4)))
    assert heat is not None
    assert heat.is_log
    assert heat.has_zeros
    assert heat.level(0.0) is None
    assert heat.level(heat.least) == 0
    assert heat.level(heat.most) == plan.LEVELS - 1
    assert heat.ends() == ("0.1 %", "0.245 %", "0.6 %")


def test_names_without_layers_have_no_charts_of_layers() -> None:
    found = portrait([tensor("w"), tensor("v")])
    assert plan.updates(found) is None
    assert plan.by_layer(found) is None
    assert b"By kind" in render(found)


def test_a_column_chart_has_round_ticks() -> None:
    chart = plan.by_layer(portrait(llama(2)))
    assert chart is not None
    assert chart.totals == (24704.0, 24704.0)
    assert chart.ticks == [0, 10_000, 20_000, 30_000]


def test_cells_of_one_colour_are_one_path() -> None:
    heat = plan.unchanged(portrait(llama(120)))
    assert heat is not None
    drawn = svg.heat(heat).plot
    assert drawn.count("<path") == 2  # half of the weights, or all
    assert drawn.count("M") == 120 * 4


def test_the_page_shows_every_figure_and_its_table() -> None:
    page = _Page(render(portrait(llama(3, published=70))))
    for text in (
        *("Size by layer", "Published size by layer", "Share of unchanged weights"),
        *("Distances of BF16 weights from the base, in ULPs", "Outliers", "config.json"),
        "Size of the update, relative to the base",
    ):
        assert text in page.words
    assert page.tags.count("svg") == 2 * 5
    assert page.words.count("As a table") == 5
    found = json.loads(page.json)
    assert found == document(portrait(llama(3, published=70)))
    assert found["layers"]["labels"] == ["0", "1", "2"]


def test_the_page_needs_nothing_but_itself() -> None:
    evaluation = Evaluation(
        light=b"<svg/>", dark=b"<svg/>", words="words", rows=(("ARC", "1"),), has_base=False
    )
    page = render(portrait(llama(3)), evaluation)
    assert not re.search(rb"https?:|//[a-z]|@import|url\(", page)
    assert set(re.findall(rb'(?:src|srcset|href)="([^"]{0,24})', page)) == {
        b"data:image/svg+xml;base6"
    }
    assert b"default-src 'none'" in page


def test_hostile_names_stay_text() -> None:
    found = portrait([tensor(f"model.layers.{n}.{HOSTILE}") for n in range(3)])
    hostile = Portrait.of(found.diff, name=HOSTILE, base=HOSTILE, version="1")
    page = render(hostile)
    seen = _Page(page)
    assert seen.tags.count("script") == 2
    assert "img" not in seen.tags
    assert "\u202e" not in page.decode()
    assert "{{ 7*7 }}" in seen.words
    assert json.loads(seen.json)["name"] == HOSTILE
    files = png.draw([plan.by_kind(hostile)], hostile.name)
    assert set(files) == {"kinds.png", "kinds-dark.png"}
    heat = plan.updates(hostile)
    assert heat is not None
    assert set(png.draw([heat], HOSTILE)) == {"update.png", "update-dark.png"}


def test_ten_thousand_tensors_make_a_page_of_reasonable_size() -> None:
    tensors = [
        tensor(f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight", 8, 8)
        for layer in range(60)
        for expert in range(64)
        for part in ("gate", "up", "down")
    ]
    page = render(portrait(tensors))
    assert len(page) < 300_000
    seen = _Page(page)
    assert "There are 11,520 tensors" in seen.words
    assert "tensors" not in json.loads(seen.json)
    strange = [tensor(f"{'x' * 200}{n}", 2) for n in range(2_000)]
    assert len(render(portrait(strange))) < 300_000


def test_large_models_are_readable() -> None:
    modules = [f"part_{n}.weight" for n in range(20)]
    names = [f"model.layers.{layer}.{module}" for layer in range(120) for module in modules]
    heat = plan.updates(portrait([tensor(name, 4) for name in names]))
    assert heat is not None
    assert (len(heat.columns), len(heat.rows)) == (120, 20)
    drawn = svg.heat(heat)
    assert 'width="840"' in drawn.plot
    assert drawn.labels.count("<text") == 20


def test_the_same_figures_give_the_same_bytes() -> None:
    found = portrait(llama(3))
    chart = plan.by_layer(found)
    assert chart is not None
    charts: list[plan.Bars | plan.Columns | plan.Heat] = [plan.by_kind(found), chart]
    files = png.draw(charts, "m")
    assert render(found) == render(portrait(llama(3)))
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 50, "axes.facecolor": "red"}):
        assert png.draw(charts, "m") == files
    assert dict(mpl.rcParams) == before
    for data in files.values():
        assert mpl.__version__.encode() not in data


def test_pictures_are_light_and_dark() -> None:
    found = portrait(llama(3))
    heat = plan.updates(found)
    assert heat is not None
    files = png.draw([heat], "m")
    for name, page in (("update.png", (255, 255, 255)), ("update-dark.png", (13, 17, 23))):
        picture = np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB"))
        assert tuple(picture[0, 0]) == page
        yellow = np.all(picture == (0xFD, 0xE7, 0x25), axis=-1)
        assert np.count_nonzero(yellow) > 1000


def test_a_model_alone_has_no_words_of_change() -> None:
    page = _Page(render(portrait(llama(3), base=None)))
    assert "unchanged" not in page.words
    assert "Standard deviation of values" in page.words
    assert page.words.count("As a table") == 2
